//! Tasks and timers around the core: takes in what the links and membership bring, sends what the core wants sent.
//!
//! The core is behind one lock, which is held for microseconds and never across an await. Readers share it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::cluster::PeerState;
use crate::feed::Feed;
use crate::model::event;
use crate::model::ident::NodeId;
use crate::net::clock::Clock;
use crate::net::link::Link;
use crate::net::links::{Links, Purpose};

use super::ask::Part;
use super::core::{Core, Effect, Effects, Now};
use super::hlc::Mark;
use super::keep_alive::KeptResults;
use super::lane::{LaneTask, QUEUE_LEN_MAX};
use super::membership::{Event, Membership};
use super::message::{Lane, Message};
use super::waiting::Waiting;

const TICK: Duration = Duration::from_millis(50);
/// Orders to membership that wait. It takes each at once; whoever gives one more waits.
const ORDERS_LEN_MAX: usize = 8;

/// What the tasks, the registry and the node's handle share.
pub struct Shared {
    core: RwLock<Core>,
    clock: Arc<dyn Clock>,
    began: Instant,
    /// The ways to the peers that there are now.
    peers: RwLock<BTreeMap<NodeId, PeerShell>>,
    /// The context has grown, or this node has begun to serve.
    pub advanced: Notify,
    /// A peer has confirmed something, or was given up.
    pub confirmed: Notify,
    /// What watchers are told. Empty until somebody watches.
    pub feed: Feed<event::Event>,
    /// How often a watcher is told its position, though nothing changes.
    pub progress_every: Duration,
    /// Whether the node has stopped.
    pub over: watch::Sender<bool>,
    /// Questions about keys.
    pub questions: Waiting<Part>,
    /// Questions about the time that a lease has left, in milliseconds.
    pub times: Waiting<Option<u64>>,
    /// Who waits for keep-alives that were passed on.
    keeping: Mutex<HashMap<u64, oneshot::Sender<KeptResults>>>,
    states: Mutex<BTreeMap<NodeId, PeerState>>,
    mark: Mutex<Mark>,
    /// Stamps up to here may be given out: the mark on disk is no lower.
    durable: AtomicU64,
}

/// The ways to a peer. Dropped, its connections are closed.
struct PeerShell {
    addr: String,
    operations: mpsc::Sender<Message>,
    sync: mpsc::Sender<Message>,
    pushable: Arc<Notify>,
    alive: watch::Sender<bool>,
    lanes: Vec<AbortHandle>,
}

impl Drop for PeerShell {
    fn drop(&mut self) {
        self.lanes.iter().for_each(AbortHandle::abort);
    }
}

/// What membership is asked to do.
pub enum Order {
    /// From now on these are the nodes of the cluster, and where they are reached; these others were removed for good.
    Follow { members: BTreeMap<NodeId, String>, retired: BTreeSet<NodeId> },
    /// Say farewell, and end.
    Leave,
}

impl Shared {
    /// The core, for as short as possible.
    pub fn core(&self) -> RwLockWriteGuard<'_, Core> {
        self.core.write().expect("no panic while held")
    }

    /// The core, for reading.
    pub fn view(&self) -> RwLockReadGuard<'_, Core> {
        self.core.read().expect("no panic while held")
    }

    pub fn now(&self) -> Now {
        let ms = self.clock.now().saturating_duration_since(self.began).as_millis() as u64;
        Now { ms, wall_ms: self.clock.wall_ms() }
    }

    /// Lets the core work, then does what it wants done.
    pub fn with<T>(self: &Arc<Self>, work: impl FnOnce(&mut Core, Now, &mut Effects) -> T) -> T {
        let mut effects = Effects::new();
        let (result, told) = {
            let mut core = self.core();
            let result = work(&mut core, self.now(), &mut effects);
            // Under the lock, so that the history's numbers go with the contexts that the core shows.
            (result, core.is_telling() && self.tell(&mut core))
        };
        if told {
            self.feed.publish();
        }
        for effect in effects {
            self.carry_out(effect);
        }
        result
    }

    /// Appends what the core has to tell to the history. True: there was something.
    fn tell(&self, core: &mut Core) -> bool {
        let events = core.take_events();
        let some = !events.is_empty();
        self.feed.append(events);
        some
    }

    fn carry_out(self: &Arc<Self>, effect: Effect) {
        match effect {
            Effect::Send { to, message } => self.send(to, message),
            Effect::SendState { to, id, receiver } => {
                let shared = Arc::clone(self);
                // Puts a state together, which may take as long as it is large.
                tokio::task::spawn_blocking(move || {
                    let now = shared.now();
                    let encode = shared.view().pieces_for(id, &receiver, now);
                    for piece in encode() {
                        let posted = shared.view().post(to, piece);
                        shared.carry_out(posted);
                    }
                });
            }
            Effect::Pushable => {
                for peer in self.peers().values() {
                    peer.pushable.notify_one();
                }
            }
            Effect::Advanced => self.advanced.notify_waiters(),
            Effect::Confirmed => self.confirmed.notify_waiters(),
            Effect::Kept { id, results } => {
                let caller = self.keeping.lock().expect("no panic while held").remove(&id);
                if let Some(caller) = caller {
                    let _ = caller.send(results);
                }
            }
            Effect::Told { id, state, upto, .. } => self.questions.told(id, (*state, upto)),
            Effect::Left { id, left_ms } => self.times.told(id, left_ms),
        }
    }

    /// Hands a message to the peer's lane. A full lane drops it: whoever asked asks again.
    pub fn send(&self, to: NodeId, message: Message) {
        let peers = self.peers();
        let Some(peer) = peers.get(&to) else { return };
        let lane = match message.lane() {
            Lane::Operations => &peer.operations,
            Lane::Sync => &peer.sync,
        };
        let _ = lane.try_send(message);
    }

    fn peers(&self) -> RwLockReadGuard<'_, BTreeMap<NodeId, PeerShell>> {
        self.peers.read().expect("no panic while held")
    }

    /// Whether the peer is one of this node's; if so, tells its lanes whether it is heard.
    fn hears(&self, node: NodeId, alive: bool) -> bool {
        let peers = self.peers();
        let Some(peer) = peers.get(&node) else { return false };
        peer.alive.send_replace(alive);
        true
    }

    /// Opens connections to these peers, and to no others any more.
    fn connect(self: &Arc<Self>, wanted: &BTreeMap<NodeId, String>, links: &Links) {
        let mut peers = self.peers.write().expect("no panic while held");
        peers.retain(|node, shell| wanted.get(node) == Some(&shell.addr));
        for (node, addr) in wanted {
            peers.entry(*node).or_insert_with(|| self.open_lanes(*node, addr, links));
        }
    }

    /// Ends the ways to all peers.
    pub fn disconnect(&self) {
        self.peers.write().expect("no panic while held").clear();
    }

    fn open_lanes(self: &Arc<Self>, peer: NodeId, addr: &str, links: &Links) -> PeerShell {
        let pushable = Arc::new(Notify::new());
        let (alive, hears) = watch::channel(false);
        let mut lanes = Vec::new();
        let mut open = |lane| {
            let (sender, queue) = mpsc::channel(QUEUE_LEN_MAX);
            let (shared, links, addr) = (Arc::clone(self), links.clone(), addr.to_owned());
            let (pushable, alive) = (Arc::clone(&pushable), hears.clone());
            let task = LaneTask { shared, links, peer, addr, lane, queue, pushable, alive };
            lanes.push(tokio::spawn(task.run()).abort_handle());
            sender
        };
        let (operations, sync) = (open(Lane::Operations), open(Lane::Sync));
        PeerShell { addr: addr.to_owned(), operations, sync, pushable, alive, lanes }
    }

    /// Where the results of a call come out whose keep-alives are passed on. To be called before the core's effects are carried out.
    pub fn await_kept(&self, id: u64) -> oneshot::Receiver<KeptResults> {
        let (sender, receiver) = oneshot::channel();
        self.keeping.lock().expect("no panic while held").insert(id, sender);
        receiver
    }

    pub fn peer_states(&self) -> BTreeMap<NodeId, PeerState> {
        self.states.lock().expect("no panic while held").clone()
    }

    /// Returns once the mark on disk is no lower than this stamp: nearly always at once, for it is set ahead.
    pub async fn make_durable(self: &Arc<Self>, stamp: u64) {
        if stamp <= self.durable.load(Ordering::Acquire) {
            return;
        }
        let shared = Arc::clone(self);
        let raised = tokio::task::spawn_blocking(move || shared.raise_mark(stamp)).await;
        if let Err(error) = raised {
            tracing::error!("the clock mark was not set: {error}");
        }
    }

    fn raise_mark(&self, stamp: u64) {
        let mut mark = self.mark.lock().expect("no panic while held");
        if !mark.is_due(stamp) {
            return;
        }
        // This mode always answers. Without a mark a restart relies on the wall clock and on what its peers have seen.
        if let Err(error) = mark.raise(stamp, self.now().wall_ms) {
            tracing::error!("cannot write the clock mark: {error}");
        }
        self.durable.store(mark.durable(), Ordering::Release);
    }
}

/// All that [`spawn`] needs.
pub struct Parts {
    pub core: Core,
    pub mark: Mark,
    pub membership: Membership,
    pub peers: BTreeMap<NodeId, String>,
    pub clock: Arc<dyn Clock>,
    pub began: Instant,
    pub links: Links,
    pub watching: WatchSettings,
}

/// How watches are served.
pub struct WatchSettings {
    /// Events that are kept for readers, at most.
    pub history: usize,
    pub progress_every: Duration,
}

/// Starts all tasks of a node. Membership ends when it is ordered to leave.
pub fn spawn(parts: Parts) -> (Arc<Shared>, mpsc::Sender<Order>, Vec<AbortHandle>) {
    let Parts { core, mark, membership, peers, clock, began, links, watching } = parts;
    let durable = AtomicU64::new(mark.durable());
    let shared = Arc::new(Shared {
        core: RwLock::new(core),
        clock,
        began,
        peers: RwLock::default(),
        advanced: Notify::new(),
        confirmed: Notify::new(),
        feed: Feed::new(1, watching.history),
        progress_every: watching.progress_every,
        over: watch::Sender::new(false),
        questions: Waiting::default(),
        times: Waiting::default(),
        keeping: Mutex::default(),
        states: Mutex::new(membership.states()),
        mark: Mutex::new(mark),
        durable,
    });
    let mut tasks = Vec::new();
    for purpose in [Purpose::Operations, Purpose::Sync] {
        tasks.push(tokio::spawn(accept_all(Arc::clone(&shared), links.accept(purpose))).abort_handle());
    }
    shared.connect(&peers, &links);
    let (orders, ordered) = mpsc::channel(ORDERS_LEN_MAX);
    let membership = run_membership(Arc::clone(&shared), membership, links, ordered);
    tasks.push(tokio::spawn(membership).abort_handle());
    tasks.push(tokio::spawn(tick_for_ever(Arc::clone(&shared))).abort_handle());
    (shared, orders, tasks)
}

/// Reads from each peer's latest connection: an older one of the same peer is of no more use to it.
async fn accept_all(shared: Arc<Shared>, mut accepted: mpsc::Receiver<Link>) {
    let mut readers = JoinSet::new();
    let mut latest = HashMap::<NodeId, AbortHandle>::new();
    while let Some(link) = accepted.recv().await {
        let peer = link.peer;
        let reader = readers.spawn(read_all(Arc::clone(&shared), link));
        if let Some(older) = latest.insert(peer, reader) {
            older.abort();
        }
        while readers.try_join_next().is_some() {}
    }
}

async fn read_all(shared: Arc<Shared>, mut link: Link) {
    loop {
        let payload = match link.reader.recv().await {
            Ok(payload) => payload,
            Err(error) => {
                tracing::debug!(peer = link.peer, "a connection ended: {error}");
                return;
            }
        };
        let Some(message) = Message::decode(&payload) else {
            tracing::warn!(peer = link.peer, "a message that is not well formed: the connection is closed");
            return;
        };
        shared.with(|core, now, effects| core.handle(link.peer, message, now, effects));
    }
}

async fn tick_for_ever(shared: Arc<Shared>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let last = shared.with(|core, now, effects| {
            core.tick(now, effects);
            core.hlc()
        });
        if shared.mark.lock().expect("no panic while held").is_due(last) {
            let shared = Arc::clone(&shared);
            let _ = tokio::task::spawn_blocking(move || shared.raise_mark(last)).await;
        }
    }
}

async fn run_membership(
    shared: Arc<Shared>,
    mut membership: Membership,
    links: Links,
    mut orders: mpsc::Receiver<Order>,
) {
    let mut datagrams = links.datagrams();
    let sender = datagrams.sender();
    let mut events = Vec::new();
    loop {
        let due = shared.began + Duration::from_millis(membership.next_due_ms());
        let mut last = false;
        tokio::select! {
            received = datagrams.recv() => match received {
                Some((_, _, payload)) => membership.receive(&payload, shared.now().ms, &mut events),
                None => return,
            },
            () = sleep_until(due) => membership.tick(shared.now().ms, &mut events),
            Some(order) = orders.recv() => match order {
                Order::Follow { members, retired } => {
                    let ids = members.keys().copied().collect();
                    let mut peers = members;
                    peers.remove(&links.identity().node);
                    shared.connect(&peers, &links);
                    shared.with(|core, now, effects| core.follow(&ids, &retired, now, effects));
                    membership.follow(peers, shared.now().ms, &mut events);
                }
                Order::Leave => {
                    membership.leave(shared.now().ms, &mut events);
                    last = true;
                }
            }
        }
        // Before the core hears of a change: whoever sees a peer reachable sees it alive too.
        *shared.states.lock().expect("no panic while held") = membership.states();
        for event in events.drain(..) {
            match event {
                Event::Send { to, addr, payload } => {
                    let sender = sender.clone();
                    // Its name may have to be resolved first, and the next probe must not wait for that.
                    tokio::spawn(async move {
                        if let Err(error) = sender.send(to, &addr, &payload).await {
                            tracing::debug!(peer = to, "a datagram was not sent: {error}");
                        }
                    });
                }
                Event::Up(node) if shared.hears(node, true) => {
                    tracing::info!(peer = node, "up");
                    shared.with(|core, now, effects| core.peer_up(node, now, effects));
                }
                Event::Down(node) if shared.hears(node, false) => {
                    tracing::info!(peer = node, "down");
                    shared.with(|core, now, effects| core.peer_down(node, now, effects));
                }
                // No member of this cluster, or not one yet as far as this node has heard.
                Event::Up(_) | Event::Down(_) => {}
            }
        }
        if last {
            return;
        }
    }
}
