//! A simulated cluster of cores: seeded, with messages lost, doubled and overtaken, links cut, nodes killed and restarted.
//!
//! It keeps every operation that was ever made, and so knows what has to stand in the end.

use std::collections::{BTreeMap, BTreeSet};

use rand::{RngExt, SeedableRng, rngs::StdRng};

use quorate::gossip::context::{OpId, Run};
use quorate::gossip::core::{Core, CoreConfig, Effect, Effects, Flaws, Now};
use quorate::gossip::hlc::Hlc;
use quorate::gossip::keep_alive::Keeping;
use quorate::gossip::message::Message;
use quorate::gossip::operation::{Grant, Operation, Reason};
use quorate::gossip::rank::{Policy, Rank};
use quorate::model::command::{Action, Condition};
use quorate::model::entry::Entry;
use quorate::model::event::Event;
use quorate::model::ident::{LeaseId, Meta, NodeId, Token};
use quorate::model::lease::KeptAlive;
use quorate::model::outcome::{Outcome, Refusal};
use quorate::model::query::{Answer, Query};
use quorate::registry::KeepAlive;

#[derive(Clone, Debug)]
pub struct Weather {
    pub policy: Policy,
    /// The share of messages lost, and of those that arrive twice.
    pub loss: f64,
    pub twice: f64,
    pub delay_ms_max: u64,
    pub down_after_ms: u64,
    pub kept_operations: usize,
    pub flaws: Flaws,
}

impl Default for Weather {
    fn default() -> Self {
        Self {
            policy: Policy::Oldest,
            loss: 0.0,
            twice: 0.0,
            delay_ms_max: 5,
            down_after_ms: 30_000,
            kept_operations: 10_000,
            flaws: Flaws::default(),
        }
    }
}

enum Due {
    Message {
        from: NodeId,
        to: NodeId,
        message: Box<Message>,
    },
    /// `at` notices whether it hears `peer`.
    Notice {
        at: NodeId,
        peer: NodeId,
        up: bool,
    },
}

pub struct World {
    pub seed: u64,
    weather: Weather,
    rng: StdRng,
    pub now_ms: u64,
    sequence: u64,
    pub nodes: BTreeMap<NodeId, Core>,
    size: u64,
    due: BTreeMap<(u64, u64), Due>,
    side: BTreeMap<NodeId, usize>,
    /// Stands between all sides, and is cut from none.
    bridge: Option<NodeId>,
    heard: BTreeSet<(NodeId, NodeId)>,
    runs: u64,
    /// How far each node's wall clock is off.
    skew_ms: BTreeMap<NodeId, i64>,
    /// Every operation ever made.
    pub made: BTreeMap<OpId, Operation>,
    /// What came of keep-alives that were passed on.
    pub kept: BTreeMap<(NodeId, u64), Vec<Result<KeptAlive, Refusal>>>,
    /// What nodes were told of the time that leases have left.
    pub left: Vec<(NodeId, Option<u64>)>,
    /// What the process that a node is now has told its watchers.
    pub told: BTreeMap<NodeId, Vec<Event>>,
    /// What was wrong on the way.
    pub wrong: Vec<String>,
}

const EPOCH_MS: u64 = 1_700_000_000_000;

impl World {
    pub fn new(seed: u64, size: u64, weather: Weather) -> Self {
        let mut world = Self {
            seed,
            weather,
            rng: StdRng::seed_from_u64(seed),
            now_ms: 0,
            sequence: 0,
            nodes: BTreeMap::new(),
            size,
            due: BTreeMap::new(),
            side: (1..=size).map(|node| (node, 0)).collect(),
            bridge: None,
            heard: BTreeSet::new(),
            runs: 0,
            skew_ms: BTreeMap::new(),
            made: BTreeMap::new(),
            kept: BTreeMap::new(),
            left: Vec::new(),
            told: BTreeMap::new(),
            wrong: Vec::new(),
        };
        for node in 1..=size {
            world.restart(node);
        }
        world.run(3_000);
        world
    }

    /// Jumps one node's wall clock.
    pub fn skew(&mut self, node: NodeId, by_ms: i64) {
        self.skew_ms.insert(node, by_ms);
    }

    fn now(&self, node: NodeId) -> Now {
        let skew = self.skew_ms.get(&node).copied().unwrap_or(0);
        Now { ms: self.now_ms, wall_ms: (EPOCH_MS + self.now_ms).saturating_add_signed(skew) }
    }

    /// Starts a node as a new process without state.
    pub fn restart(&mut self, node: NodeId) {
        self.start(node, false);
    }

    /// The same; `entering`: its cluster has yet to let it in.
    pub fn start(&mut self, node: NodeId, entering: bool) {
        self.runs += 1;
        let config = CoreConfig {
            run: Run { node, bits: self.runs },
            peers: (1..=self.size).filter(|peer| *peer != node).collect(),
            retired: BTreeSet::new(),
            entering,
            policy: self.weather.policy,
            down_after_ms: self.weather.down_after_ms,
            kept_operations: self.weather.kept_operations,
            seed: self.seed ^ self.runs,
            flaws: self.weather.flaws,
        };
        let mut core = Core::new(config, Hlc::default(), self.now(node));
        core.begin_telling();
        self.nodes.insert(node, core);
        self.told.insert(node, Vec::new());
        self.notice_all();
    }

    pub fn kill(&mut self, node: NodeId) {
        self.nodes.remove(&node);
        self.notice_all();
    }

    /// Cuts all links between nodes of different sides.
    pub fn cut(&mut self, sides: &[&[NodeId]]) {
        for (at, side) in sides.iter().enumerate() {
            for node in *side {
                self.side.insert(*node, at);
            }
        }
        self.notice_all();
    }

    /// Cuts all links between nodes of different sides, but for this node's.
    pub fn cut_but_for(&mut self, bridge: NodeId, sides: &[&[NodeId]]) {
        self.bridge = Some(bridge);
        self.cut(sides);
    }

    pub fn heal(&mut self) {
        self.bridge = None;
        self.side.values_mut().for_each(|side| *side = 0);
        self.notice_all();
    }

    /// Whether messages pass.
    fn is_linked(&self, at: NodeId, peer: NodeId) -> bool {
        let up = self.nodes.contains_key(&at) && self.nodes.contains_key(&peer);
        up && (self.side[&at] == self.side[&peer] || self.bridge == Some(at) || self.bridge == Some(peer))
    }

    /// Whether the failure detector hears the peer, perhaps through another node.
    fn hears(&self, at: NodeId, peer: NodeId) -> bool {
        let helped = |helper: &NodeId| self.is_linked(at, *helper) && self.is_linked(*helper, peer);
        self.is_linked(at, peer) || self.nodes.keys().any(helped)
    }

    /// Each node will notice within the detector's time, each at its own.
    fn notice_all(&mut self) {
        for at in 1..=self.size {
            for peer in (1..=self.size).filter(|peer| *peer != at) {
                let up = self.hears(at, peer);
                let after = if up { self.rng.random_range(20..500) } else { self.rng.random_range(700..1_800) };
                self.later(after, Due::Notice { at, peer, up });
            }
        }
    }

    fn later(&mut self, after_ms: u64, due: Due) {
        self.sequence += 1;
        self.due.insert((self.now_ms + after_ms, self.sequence), due);
    }

    fn send(&mut self, from: NodeId, to: NodeId, message: Message) {
        if self.rng.random_bool(self.weather.loss) {
            return;
        }
        // Everything passes through its encoding, as between processes.
        let bytes = message.encode();
        for _ in 0..1 + u64::from(self.rng.random_bool(self.weather.twice)) {
            let after = self.rng.random_range(1..=self.weather.delay_ms_max);
            let message = Box::new(Message::decode(&bytes).expect("what was encoded"));
            self.later(after, Due::Message { from, to, message });
        }
    }

    /// Lets a node's core work and carries out what it wants.
    pub fn with<T>(&mut self, node: NodeId, work: impl FnOnce(&mut Core, Now, &mut Effects) -> T) -> T {
        let now = self.now(node);
        let core = self.nodes.get_mut(&node).expect("the node is up");
        let mut effects = Effects::new();
        let result = work(core, now, &mut effects);
        let events = core.take_events();
        self.told.entry(node).or_default().extend(events);
        self.collect(node);
        for effect in effects {
            match effect {
                Effect::Send { to, message } => self.send(node, to, message),
                Effect::SendState { to, id, receiver } => {
                    let core = &self.nodes[&node];
                    let pieces = core.pieces_for(id, &receiver, now)();
                    let posted = pieces.into_iter().map(|piece| core.post(to, piece)).collect::<Vec<_>>();
                    for effect in posted {
                        let Effect::Send { to, message } = effect else { panic!("{effect:?}") };
                        self.send(node, to, message);
                    }
                }
                Effect::Pushable => {
                    for peer in (1..=self.size).filter(|peer| *peer != node) {
                        while let Some(push) = self.nodes.get_mut(&node).and_then(|core| core.next_push(peer)) {
                            self.send(node, peer, push);
                        }
                    }
                }
                Effect::Kept { id, results } => {
                    self.kept.insert((node, id), results);
                }
                Effect::Left { left_ms, .. } => self.left.push((node, left_ms)),
                Effect::Advanced | Effect::Confirmed | Effect::Told { .. } => {}
            }
        }
        result
    }

    /// Keeps the operations that the node has just made, and looks at those that withdraw somebody.
    fn collect(&mut self, node: NodeId) {
        let core = &self.nodes[&node];
        for (run, last) in core.context().iter().filter(|(run, _)| run.node == node) {
            for number in (1..=last).rev() {
                let id = OpId { run, number };
                if self.made.contains_key(&id) {
                    break;
                }
                let Some(operation) = core.kept(id).cloned() else { break };
                if let Operation::Remove { reason: Reason::Conflict(defeat), .. } = &operation {
                    let rank = |token| match self.made.get(&OpId::of(token)) {
                        Some(Operation::Add(grant)) => Rank::of(self.weather.policy, grant),
                        other => panic!("no grant: {other:?}"),
                    };
                    if rank(&defeat.loser.1) < rank(&defeat.winner.1) {
                        self.wrong.push(format!("{id}: the better one was withdrawn"));
                    }
                }
                self.made.insert(id, operation);
            }
        }
    }

    /// Lets time pass.
    pub fn run(&mut self, ms: u64) {
        let until = self.now_ms + ms;
        while self.now_ms < until {
            self.now_ms += 1;
            while let Some(entry) = self.due.first_entry()
                && entry.key().0 <= self.now_ms
            {
                let due = entry.remove();
                self.deliver(due);
            }
            for node in 1..=self.size {
                if (self.now_ms + node * 7).is_multiple_of(50) && self.nodes.contains_key(&node) {
                    self.with(node, |core, now, effects| core.tick(now, effects));
                }
            }
        }
    }

    fn deliver(&mut self, due: Due) {
        match due {
            Due::Message { from, to, message } => {
                if self.is_linked(to, from) {
                    self.with(to, |core, now, effects| core.handle(from, *message, now, effects));
                }
            }
            Due::Notice { at, peer, up } => {
                // Things may have changed again since.
                if self.hears(at, peer) != up || !self.nodes.contains_key(&at) {
                    return;
                }
                let run = self.nodes.get(&peer).map(|core| core.run().bits);
                let changed = if up { self.heard.insert((at, peer)) } else { self.heard.remove(&(at, peer)) };
                if up {
                    self.with(at, |core, now, effects| {
                        core.link_up(peer, run.unwrap_or(0));
                        core.peer_up(peer, now, effects);
                    });
                } else if changed {
                    self.with(at, |core, now, effects| {
                        core.link_down(peer);
                        core.peer_down(peer, now, effects);
                    });
                }
            }
        }
    }

    pub fn execute(&mut self, node: NodeId, action: Action) -> Outcome {
        self.with(node, |core, now, effects| core.execute(&action, now, effects)).outcome
    }

    pub fn register(&mut self, node: NodeId, name: &str, owner: &str) -> Outcome {
        self.execute(node, register(name, owner, Condition::Free))
    }

    /// Creates a lease and gives its id.
    pub fn lease(&mut self, node: NodeId, ttl_ms: u64) -> LeaseId {
        let create = Action::CreateLease { lease: None, ttl_ms, credential: None };
        match self.execute(node, create) {
            Outcome::LeaseCreated { lease, .. } => lease,
            other => panic!("{other:?}"),
        }
    }

    /// Keeps a lease alive through a node, and waits for what comes of it.
    pub fn keep(&mut self, node: NodeId, lease: &LeaseId) -> Result<KeptAlive, Refusal> {
        let keep = KeepAlive { leases: vec![lease.clone()], ..KeepAlive::default() };
        self.keep_all(node, &keep).remove(0)
    }

    pub fn keep_all(&mut self, node: NodeId, keep: &KeepAlive) -> Vec<Result<KeptAlive, Refusal>> {
        let id = match self.with(node, |core, now, effects| core.keep_alive(keep, now, effects)) {
            Keeping::Done(results) => return results,
            Keeping::Pending(id) => id,
        };
        for _ in 0..500 {
            self.run(1);
            if let Some(results) = self.kept.remove(&(node, id)) {
                return results;
            }
        }
        panic!("a keep-alive without an end")
    }

    pub fn register_with(&mut self, node: NodeId, name: &str, owner: &str, lease: &LeaseId) -> Outcome {
        let (name, owner, lease) = (name.parse().unwrap(), owner.parse().unwrap(), Some(lease.clone()));
        self.execute(node, Action::Register { name, owner, meta: Meta::empty(), lease, condition: Condition::Free })
    }

    pub fn query(&self, node: NodeId, query: &Query) -> Answer {
        self.nodes[&node].query(query, false, self.now(node))
    }

    /// The same of those who ask for the hidden.
    pub fn query_hidden(&self, node: NodeId, query: &Query) -> Answer {
        self.nodes[&node].query(query, true, self.now(node))
    }

    pub fn owner(&self, node: NodeId, name: &str) -> Option<Entry> {
        match self.query(node, &whereis(name, None)) {
            Answer::Entry(entry) => Some(entry),
            _ => None,
        }
    }

    pub fn owners(&self, name: &str) -> Vec<Option<String>> {
        let entries = self.nodes.keys().map(|node| self.owner(*node, name));
        entries.map(|entry| entry.map(|entry| entry.holder_text().to_owned())).collect()
    }

    pub fn grant(&self, token: Token) -> &Grant {
        let Token::Ap(token) = token else { panic!("an ap token") };
        match &self.made[&OpId::of(&token)] {
            Operation::Add(grant) => grant,
            other => panic!("no grant: {other:?}"),
        }
    }

    /// The losers of all conflict records that a node has.
    pub fn losers(&self, node: NodeId) -> Vec<String> {
        self.nodes[&node].conflicts(None, 1_000).into_iter().map(|record| record.loser.owner.to_string()).collect()
    }

    pub fn is_flawed(&self) -> bool {
        self.weather.flaws != Flaws::default()
    }
}

pub fn register(name: &str, owner: &str, condition: Condition) -> Action {
    let (name, owner) = (name.parse().unwrap(), owner.parse().unwrap());
    Action::Register { name, owner, meta: Meta::empty(), lease: None, condition }
}

pub fn unregister(name: &str, token: Option<Token>) -> Action {
    Action::Unregister { name: name.parse().unwrap(), token }
}

pub fn whereis(name: &str, token: Option<Token>) -> Query {
    Query::Whereis { name: name.parse().unwrap(), token }
}

pub fn granted(outcome: Outcome) -> Entry {
    match outcome {
        Outcome::Granted { entry, .. } => entry,
        other => panic!("{other:?}"),
    }
}
