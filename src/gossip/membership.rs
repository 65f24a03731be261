//! Who is there: SWIM with suspicion (Das, Gupta, Motivala 2002), by way of foca, over datagrams.
//!
//! Foca itself waits for the other side to speak first once a member was given up. Here every peer that is not alive is sent an
//! announcement about once a second, so that a healed network is seen at once.

use std::collections::BTreeMap;
use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use bytes::Bytes;
use foca::{
    AccumulatingRuntime, Config, Foca, Member, NoCustomBroadcast, OwnedNotification, PostcardCodec, State, Timer,
};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};

use crate::cluster::PeerState;
use crate::model::ident::NodeId;

/// How soon a silent peer is noticed. With `n` peers: at most about `n` probe periods, and then the time of suspicion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeTiming {
    /// One peer is probed in each period. More than twice the patience: a probe goes through others after that.
    pub period: Duration,
    /// How long an answer may take before other nodes are asked to try.
    pub patience: Duration,
    /// How long a suspected peer has for speaking up. Longer than a process may be stalled for.
    pub suspicion: Duration,
    /// How often peers that are not alive are told that this node is here.
    pub announce: Duration,
}

impl Default for ProbeTiming {
    fn default() -> Self {
        Self {
            period: Duration::from_millis(200),
            patience: Duration::from_millis(80),
            suspicion: Duration::from_millis(700),
            announce: Duration::from_millis(500),
        }
    }
}

/// A down member is forgotten after this long, so that even one whose clock was set back is let in again.
const FORGET_DOWN_AFTER: Duration = Duration::from_secs(60);

/// A node in one of its lives, as foca tells them apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Id {
    node: NodeId,
    addr: String,
    /// Greater with each restart, and each time this node was given up and speaks up again.
    renewal: u64,
}

impl foca::Identity for Id {
    type Addr = NodeId;

    fn renew(&self) -> Option<Self> {
        Some(Self { renewal: self.renewal + 1, ..self.clone() })
    }

    fn addr(&self) -> NodeId {
        self.node
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.renewal > adversary.renewal
    }
}

/// What membership wants done or known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Send {
        to: NodeId,
        addr: String,
        payload: Bytes,
    },
    /// The peer is there, perhaps as a new process.
    Up(NodeId),
    Down(NodeId),
}

/// The failure detector of one node. Time is in milliseconds from any beginning.
pub struct Membership {
    foca: Foca<Id, PostcardCodec, StdRng, NoCustomBroadcast>,
    runtime: AccumulatingRuntime<Id>,
    peers: BTreeMap<NodeId, String>,
    timers: BTreeMap<(u64, u64), Timer<Id>>,
    timers_set: u64,
    announce_ms: u64,
    next_announce_ms: u64,
}

impl Membership {
    /// `renewal` has to be greater than in the node's earlier lives.
    pub fn new(
        (node, addr): (NodeId, String),
        renewal: u64,
        peers: BTreeMap<NodeId, String>,
        timing: ProbeTiming,
        packet_len_max: usize,
        seed: u64,
    ) -> Self {
        let helpers = NonZeroUsize::new(3).expect("three");
        let config = Config {
            probe_period: timing.period,
            probe_rtt: timing.patience,
            num_indirect_probes: helpers,
            max_transmissions: NonZeroU8::new(8).expect("eight"),
            suspect_to_down_after: timing.suspicion,
            remove_down_after: Some(FORGET_DOWN_AFTER),
            max_packet_size: NonZeroUsize::new(packet_len_max).expect("packets hold something"),
            notify_down_members: true,
            periodic_announce: None,
            periodic_announce_to_down_members: None,
            periodic_gossip: Some(foca::PeriodicParams { frequency: Duration::from_millis(200), num_members: helpers }),
        };
        let id = Id { node, addr, renewal };
        Self {
            foca: Foca::new(id, config, StdRng::seed_from_u64(seed), PostcardCodec),
            runtime: AccumulatingRuntime::new(),
            peers,
            timers: BTreeMap::new(),
            timers_set: 0,
            announce_ms: timing.announce.as_millis() as u64,
            next_announce_ms: 0,
        }
    }

    /// Takes a peer's datagram in. One that makes no sense changes nothing.
    pub fn receive(&mut self, payload: &[u8], now_ms: u64, events: &mut Vec<Event>) {
        if let Err(error) = self.foca.handle_data(payload, &mut self.runtime) {
            tracing::debug!("a datagram came to nothing: {error}");
        }
        self.drain(now_ms, events);
    }

    /// When [`tick`](Self::tick) is due next.
    pub fn next_due_ms(&self) -> u64 {
        let timer = self.timers.first_key_value().map(|((due, _), _)| *due);
        timer.map_or(self.next_announce_ms, |due| due.min(self.next_announce_ms))
    }

    /// Does what is due.
    pub fn tick(&mut self, now_ms: u64, events: &mut Vec<Event>) {
        let later = self.timers.split_off(&(now_ms + 1, 0));
        let mut due = std::mem::replace(&mut self.timers, later).into_values().collect::<Vec<_>>();
        // After a pause many are due at once; foca wants its own order of them then.
        due.sort();
        for timer in due {
            if let Err(error) = self.foca.handle_timer(timer, &mut self.runtime) {
                tracing::debug!("a probe came to nothing: {error}");
            }
        }
        if now_ms >= self.next_announce_ms {
            self.announce(now_ms);
        }
        self.drain(now_ms, events);
    }

    /// Makes these the peers. Those that are heard already are told of as up; those that are none any more are given up at once.
    pub fn follow(&mut self, peers: BTreeMap<NodeId, String>, now_ms: u64, events: &mut Vec<Event>) {
        let former = std::mem::replace(&mut self.peers, peers);
        let gone = |node: &NodeId| former.contains_key(node) && !self.peers.contains_key(node);
        let gone = self
            .foca
            .iter_membership_state()
            .filter(|member| gone(&member.id().node) && member.state() != State::Down)
            .map(|member| Member::new(member.id().clone(), member.incarnation(), State::Down))
            .collect::<Vec<_>>();
        if let Err(error) = self.foca.apply_many(gone.into_iter(), true, &mut self.runtime) {
            tracing::debug!("a removed node was not given up: {error}");
        }
        let heard = self.foca.iter_members().map(|member| member.id().node);
        let new = heard.filter(|node| self.peers.contains_key(node) && !former.contains_key(node));
        events.extend(new.map(Event::Up));
        self.announce(now_ms);
        self.drain(now_ms, events);
    }

    /// Tells the others that this node is going.
    pub fn leave(&mut self, now_ms: u64, events: &mut Vec<Event>) {
        if let Err(error) = self.foca.leave_cluster(&mut self.runtime) {
            tracing::debug!("no farewell: {error}");
        }
        self.drain(now_ms, events);
    }

    /// How each configured peer looks from here.
    pub fn states(&self) -> BTreeMap<NodeId, PeerState> {
        let mut states = self.peers.keys().map(|node| (*node, PeerState::Unknown)).collect::<BTreeMap<_, _>>();
        for member in self.foca.iter_membership_state() {
            let state = match member.state() {
                State::Alive => PeerState::Alive,
                State::Suspect => PeerState::Suspect,
                State::Down => PeerState::Down,
            };
            if let Some(known) = states.get_mut(&member.id().node) {
                *known = state;
            }
        }
        states.insert(self.foca.identity().node, PeerState::Me);
        states
    }

    /// Speaks to every peer that is not alive. Its renewal does not matter for an announcement.
    fn announce(&mut self, now_ms: u64) {
        self.next_announce_ms = now_ms + self.announce_ms;
        let alive = self.foca.iter_members().map(|member| member.id().node).collect::<Vec<_>>();
        for (node, addr) in self.peers.iter().filter(|(node, _)| !alive.contains(node)) {
            let to = Id { node: *node, addr: addr.clone(), renewal: 0 };
            if let Err(error) = self.foca.announce(to, &mut self.runtime) {
                tracing::debug!(peer = node, "no announcement: {error}");
            }
        }
    }

    fn drain(&mut self, now_ms: u64, events: &mut Vec<Event>) {
        let mut rejoined = false;
        while let Some(notification) = self.runtime.to_notify() {
            match notification {
                OwnedNotification::MemberUp(id) => events.push(Event::Up(id.node)),
                OwnedNotification::MemberDown(id) => events.push(Event::Down(id.node)),
                // Its process or its identity is new; whether it is up is told apart from this.
                OwnedNotification::Rename(_, id) => {
                    if self.foca.iter_members().any(|member| *member.id() == id) {
                        events.push(Event::Up(id.node));
                    }
                }
                OwnedNotification::Rejoin(_) => rejoined = true,
                OwnedNotification::Active | OwnedNotification::Idle | OwnedNotification::Defunct => {}
            }
        }
        if rejoined {
            // The others gave this node up: they listen to its new identity only once they have heard it.
            self.announce(now_ms);
        }
        while let Some((after, timer)) = self.runtime.to_schedule() {
            self.timers_set += 1;
            self.timers.insert((now_ms + after.as_millis() as u64, self.timers_set), timer);
        }
        while let Some((to, payload)) = self.runtime.to_send() {
            let addr = match self.peers.get(&to.node) {
                Some(addr) => addr.clone(),
                None => to.addr,
            };
            events.push(Event::Send { to: to.node, addr, payload });
        }
    }
}
