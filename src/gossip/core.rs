//! The protocol core of one node: what it holds, whom it counts, what it owes its peers.
//!
//! Pure: messages, contacts and time come in as arguments, what is to be sent comes out as effects. Commands are in
//! [`commands`](super::commands), messages in [`sync`](super::sync), withdrawing losers in [`settle`](super::settle), leases in
//! [`keeper`](super::keeper), [`keep_alive`](super::keep_alive), [`hearing`](super::hearing), [`adoption`](super::adoption) and
//! [`cleaning`](super::cleaning), what watchers are told in [`tell`](super::tell).

use std::collections::{BTreeMap, BTreeSet};

use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::cluster::ApStatus;
use crate::model::conflict::ConflictRecord;
use crate::model::event::Event;
use crate::model::ident::{NodeId, RecordId};
use crate::model::query::{Answer, Query};
use crate::registry::Provenance;

use super::adoption::Meeting;
use super::cleaning::Cleaning;
use super::context::{Context, OpId, Run};
use super::hearing::Hearing;
use super::hlc::Hlc;
use super::keep_alive::{Calls, KeptResults};
use super::keeper::Keeper;
use super::lens::{Lens, TieBreak};
use super::log::Log;
use super::map::{Applied, Map, State};
use super::message::Message;
use super::operation::{Operation, Stamp};
use super::peers::{Contact, Peer};
use super::rank::Policy;
use super::sync::Exchange;
use super::view;

/// How long a new process asks its peers for their state before it serves, at most.
pub const STARTING_MS_MAX: u64 = 2_000;

/// A process that did nothing for this long was stopped, or its machine was.
const STANDSTILL_MS: u64 = 1_000;

/// Planted flaws, for controls: a referee has to convict each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flaws {
    /// Conflicts are never resolved: no loser is withdrawn, and each node goes on showing what came first to it.
    pub never_resolve: bool,
    /// State transfer ignores the context: all that the other has and this node lacks is taken as new, so that removed names
    /// return. The kept log is not used, so that every difference ends in a state transfer.
    pub transfer_without_context: bool,
    /// Each node takes what comes from another to be the better grant: a rule that is not the same everywhere.
    pub remote_wins: bool,
    /// Keep-alives never tell what was lost.
    pub mute_losers: bool,
    /// Losers of conflicts are withdrawn as if they had been given up: nobody is told.
    pub forget_records: bool,
    /// A watch goes on from now, wherever it was to go on from.
    pub drop_on_resume: bool,
    pub leases: Option<LeaseFlaw>,
}

/// One thing that a node does wrong with leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseFlaw {
    /// A timer that runs out drops every vouch for its lease, not this node's alone.
    ExpiryDropsAll,
    /// What is bound to a lease that nobody here vouches for is removed at once.
    CleansAtOnce,
    /// Vouches count no longer than there is contact to their node.
    HidesWithContact,
    /// A new process gives the leases of the one before it their full time, however long it was away.
    RestartRevives,
    /// Of two nodes that meet, one drops its vouch without passing its deadline on.
    ForgetsDeadlines,
    /// A process counts as soon as there is contact to it, whatever has not come from it yet.
    CountsOnContact,
    /// A keeper that does not answer is not asked by way of others.
    GoesStraight,
    /// What stands without a lease at a home that was removed for good is left standing.
    KeepsRetired,
}

#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// This process's run.
    pub run: Run,
    pub peers: Vec<NodeId>,
    /// Nodes that were removed from the cluster for good.
    pub retired: BTreeSet<NodeId>,
    /// Its cluster has yet to let this node in. Until then nobody would answer it, and so it does not serve.
    pub entering: bool,
    pub policy: Policy,
    /// How long grants count after their home went out of reach, in milliseconds. Longer than a restart takes.
    pub down_after_ms: u64,
    /// Operations kept for peers that lag.
    pub kept_operations: usize,
    pub seed: u64,
    pub flaws: Flaws,
}

/// The time, as the core is told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Steady, from any beginning.
    pub ms: u64,
    /// Since the Unix epoch.
    pub wall_ms: u64,
}

/// What the core wants done, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    Send {
        to: NodeId,
        message: Message,
    },
    /// Send the state that a node with this context needs, in pieces. Putting it together only reads.
    SendState {
        to: NodeId,
        id: u64,
        receiver: Context,
    },
    /// There are new operations of this run to push.
    Pushable,
    /// The context has grown.
    Advanced,
    /// A peer has confirmed operations.
    Confirmed,
    /// The keep-alives of a call that had to be passed on have come to their end.
    Kept {
        id: u64,
        results: KeptResults,
    },
    /// A peer has answered how long a lease lives.
    Left {
        id: u64,
        left_ms: Option<u64>,
    },
    /// A peer has answered a question.
    Told {
        from: NodeId,
        id: u64,
        state: Box<State>,
        upto: Option<String>,
    },
}

pub type Effects = Vec<Effect>;

pub struct Core {
    pub(super) config: CoreConfig,
    pub(super) map: Map,
    pub(super) log: Log,
    pub(super) hlc: Hlc,
    pub(super) rng: StdRng,
    pub(super) peers: BTreeMap<NodeId, Peer>,
    pub(super) sync: Exchange,
    pub(super) keeper: Keeper,
    pub(super) calls: Calls,
    pub(super) hearing: Hearing,
    pub(super) meeting: Meeting,
    pub(super) cleaning: Cleaning,
    /// Came before an earlier operation of its run.
    pub(super) early: BTreeMap<OpId, Operation>,
    /// What watchers are to be told.
    pub(super) events: Vec<Event>,
    /// Since when its peers are asked for their state. None: they do not know this node yet.
    asking_since_ms: Option<u64>,
    last_tick_ms: u64,
    serving: bool,
}

impl Core {
    pub fn new(config: CoreConfig, hlc: Hlc, now: Now) -> Self {
        let tie_break = match (config.flaws.never_resolve, config.flaws.remote_wins) {
            (true, _) => TieBreak::FirstCome,
            (false, true) => TieBreak::Remote(config.run.node),
            (false, false) => TieBreak::Rank,
        };
        let lens = Lens::new(config.policy, tie_break);
        let peers = config.peers.iter().map(|node| (*node, Peer::configured(now.ms))).collect::<BTreeMap<_, _>>();
        Self {
            map: Map::new(lens),
            log: Log::new(config.kept_operations),
            hlc,
            rng: StdRng::seed_from_u64(config.seed),
            serving: peers.is_empty() && !config.entering,
            peers,
            sync: Exchange::default(),
            keeper: Keeper::default(),
            calls: Calls::default(),
            hearing: Hearing::default(),
            meeting: Meeting::default(),
            cleaning: Cleaning::default(),
            early: BTreeMap::new(),
            events: Vec::new(),
            asking_since_ms: (!config.entering).then_some(now.ms),
            last_tick_ms: now.ms,
            config,
        }
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.config.run.node
    }

    pub fn context(&self) -> &Context {
        &self.map.context
    }

    pub fn map(&self) -> &Map {
        &self.map
    }

    /// An operation that was applied here, if it is kept.
    pub fn kept(&self, id: OpId) -> Option<&Operation> {
        self.log.get(id)
    }

    /// The last stamp given out or seen.
    pub fn hlc(&self) -> u64 {
        self.hlc.last()
    }

    /// Whether it has asked its peers for their state and may serve.
    pub fn is_serving(&self) -> bool {
        self.serving
    }

    /// Answers from what this node has applied, what it hides included or not.
    pub fn query(&self, query: &Query, include_hidden: bool, now: Now) -> Answer {
        match query {
            Query::Lease { lease, page } => self.lease_status(lease, page, now),
            Query::Leases { page } => self.leases(page),
            Query::Whereis { .. }
            | Query::Names { .. }
            | Query::Membership { .. }
            | Query::Members { .. }
            | Query::Groups { .. } => view::query(&self.map.grants, query, include_hidden),
        }
    }

    pub fn status(&self) -> ApStatus {
        let tally = self.map.grants.tally();
        ApStatus {
            names: tally.names,
            members: tally.members,
            digest: format!("{:032x}", tally.digest),
            run: format!("{:x}", self.config.run.bits),
            conflicts: self.map.records.count() as u64,
        }
    }

    pub fn conflicts(&self, after: Option<&RecordId>, limit: usize) -> Vec<ConflictRecord> {
        let after = after.and_then(|id| OpId::parse(id.as_str()));
        self.map.records.after(after).take(limit).map(|record| record.shown()).collect()
    }

    /// Acknowledges a record. False: there is none of this id.
    pub fn acknowledge(&mut self, id: &RecordId, now: Now, effects: &mut Effects) -> bool {
        let Some(record) = OpId::parse(id.as_str()).and_then(|loser| self.map.records.get(loser)) else { return false };
        if record.acknowledged.is_none() {
            let (loser, record) = (record.loser(), record.stamp.id);
            let stamp = self.next_stamp(now);
            self.commit(Operation::Acknowledge { stamp, loser, record });
            effects.extend([Effect::Pushable, Effect::Advanced]);
        }
        true
    }

    /// How far this node's view may be relied on.
    pub fn provenance(&self, now: Now) -> Provenance {
        let configured = || self.peers.values().filter(|peer| peer.configured);
        let reachable = configured().filter(|peer| peer.contact == Contact::Reachable).count();
        let out_of_reach =
            configured().filter(|peer| peer.contact != Contact::Reachable).map(|peer| peer.down_since_ms);
        Provenance {
            peers: Some((reachable, configured().count())),
            staleness_ms: Some(out_of_reach.min().map_or(0, |since| now.ms.saturating_sub(since))),
            acks: None,
        }
    }

    /// Goes on with what is due: hiding, anti-entropy, pulls without an answer. Call it about every 50 ms.
    pub fn tick(&mut self, now: Now, effects: &mut Effects) {
        if now.ms.saturating_sub(self.last_tick_ms) > STANDSTILL_MS {
            self.distrust_all(now);
        }
        self.last_tick_ms = now.ms;
        self.hide_the_silent(now, effects);
        self.listen(now, effects);
        self.expire(now, effects);
        self.keep_alive_tick(now, effects);
        self.meet(now, effects);
        self.clean(now, effects);
        self.beat(now, effects);
        self.sync_tick(now, effects);
        self.map.records.tick(now.ms);
        if self.asking_since_ms.is_some_and(|since| now.ms >= since + STARTING_MS_MAX) {
            self.serving = true;
        }
    }

    /// Serves if every peer has been asked for its state, as far as it can be.
    pub(super) fn serve_once_asked(&mut self) {
        let asked = || self.peers.values().all(|peer| peer.asked || !peer.configured);
        self.serving |= self.asking_since_ms.is_some() && asked();
    }

    /// The cluster has let this node in: from now on its peers answer.
    pub(super) fn enter(&mut self, now: Now) {
        if self.asking_since_ms.is_none() {
            self.asking_since_ms = Some(now.ms);
            // Whoever could not be asked before may answer now.
            self.peers.values_mut().for_each(|peer| peer.asked &= peer.contact == Contact::Reachable);
        }
    }

    /// The stamp of the next operation of this run.
    pub(super) fn next_stamp(&mut self, now: Now) -> Stamp {
        let run = self.config.run;
        let number = self.map.context.get(run) + 1;
        Stamp { hlc: self.hlc.stamp(now.wall_ms), id: OpId { run, number } }
    }

    /// Applies an operation of this run.
    pub(super) fn commit(&mut self, operation: Operation) {
        self.tell_view();
        let applied = self.map.apply(&operation);
        assert_eq!(applied, Applied::Now, "this node numbers its own operations");
        self.note(operation);
    }

    /// Applies operations of other runs, and those that waited for them. True: some were new.
    pub(super) fn take_in(&mut self, operations: Vec<Operation>, now: Now) -> bool {
        let mut advanced = false;
        for operation in operations {
            advanced |= self.take_in_one(operation, now);
        }
        advanced
    }

    fn take_in_one(&mut self, operation: Operation, now: Now) -> bool {
        let id = operation.id();
        self.tell_view();
        match self.map.apply(&operation) {
            Applied::Before => false,
            Applied::Gap => {
                // At the limit the operation is let go: anti-entropy brings it again.
                if self.early.len() < EARLY_OPERATIONS_MAX {
                    self.early.insert(id, operation);
                }
                false
            }
            Applied::Now => {
                self.hlc.observe(operation.stamp().hlc);
                self.note_home(id.run.node, now);
                self.note(operation);
                self.take_in_early(id.run);
                true
            }
        }
    }

    /// Applies the operations of a run that have waited for earlier ones.
    pub(super) fn take_in_early(&mut self, run: Run) {
        loop {
            let next = OpId { run, number: self.map.context.get(run) + 1 };
            let first = OpId { run, number: 0 };
            while let Some((id, _)) = self.early.range(first..next).next().map(|(id, operation)| (*id, operation)) {
                self.early.remove(&id);
            }
            let Some(operation) = self.early.remove(&next) else { return };
            assert_eq!(self.map.apply(&operation), Applied::Now, "it is the next of its run");
            self.hlc.observe(operation.stamp().hlc);
            self.note(operation);
        }
    }
}

/// Operations that wait for an earlier one of their run. More are let go.
const EARLY_OPERATIONS_MAX: usize = 16_384;
