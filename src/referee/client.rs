//! What the referee knows of a system under test: how to call it, and how to do it harm.

use std::collections::BTreeSet;
use std::time::Instant;

use async_trait::async_trait;

use super::history::{Conflict, View, What};
use super::schedule::Harm;
use super::situation::Links;
use super::watched::Watched;
use crate::model::ident::NodeId;

/// The peers that answered a node's probes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Over everything that the node says to peers.
    pub fully: BTreeSet<NodeId>,
    /// Over some of it: neither a cut nor a healthy link.
    pub partly: BTreeSet<NodeId>,
    /// Whom it reached, whether or not an answer came back. None: that cannot be told.
    pub heard_by: Option<BTreeSet<NodeId>>,
}

/// What became of one call.
#[derive(Clone, Debug, PartialEq)]
pub enum Completion {
    /// Took effect (or was definitely refused); the call with its result filled in.
    Ok(What),
    /// Surely had no effect, now or later. Reads that got no answer are this too.
    Fail(String),
    /// Nothing is known.
    Info(String),
}

/// One client, bound to one node. One call at a time; never retries, never follows a redirect.
#[async_trait]
pub trait Client: Send {
    async fn call(&mut self, what: &What, deadline: Instant) -> Completion;
}

/// What a node made of files that had been changed behind its back; each with what was changed and what it said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Corrupted {
    /// It ended.
    Refused(String),
    /// It serves.
    Runs(String),
}

/// What [`Running::cannot`] has told before.
const NOT_DONE: &str = "the referee cannot do this to it";

/// What a system promises, and so what its verdict depends on. Everything is measured on every system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promises {
    /// Every answer, those to reads too, is as of one machine that takes one call at a time.
    pub linearizable: bool,
    /// The writes alone are, whatever reads show: a name never has two owners. What is linearizable promises this too.
    pub one_order: bool,
    /// Nodes that are a majority and reach each other go on.
    pub majority: bool,
    /// Every node that is up answers everything, cut off or not.
    pub available: bool,
    /// After a heal all nodes agree.
    pub converges: bool,
    /// A grant that loses to another leaves exactly one conflict record.
    pub records: bool,
    /// What is bound to a lease stays at least for its time-to-live after the sending of the last keep-alive that was answered.
    pub lease_lives: bool,
    /// And is gone a second after that at the latest, while there is a leader.
    pub lease_ends: bool,
}

impl Promises {
    pub const NONE: Self = Self {
        linearizable: false,
        one_order: false,
        majority: false,
        available: false,
        converges: false,
        records: false,
        lease_lives: false,
        lease_ends: false,
    };
    /// One order of writes that a majority agrees on; reads may lag behind it.
    pub const CONSENSUS: Self = Self { one_order: true, majority: true, converges: true, ..Self::NONE };
    /// The same with reads that do not.
    pub const LINEARIZABLE: Self = Self { linearizable: true, ..Self::CONSENSUS };
}

/// What a system can do at all. What it cannot is left out of its workload, and is blank in the report, never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// Register, unregister and whereis.
    pub names: bool,
    /// Join, leave and members.
    pub groups: bool,
    /// Grants carry tokens: a grant can be ended and renewed by its token, and tokens of one name rise from grant to grant.
    pub tokens: bool,
    /// Create, keep alive and revoke; names and members can be bound to a lease. The ids are the caller's.
    pub leases: bool,
    /// [`Running::watch`].
    pub watch: bool,
    /// [`Running::conflicts`], and `lost` in answers to keep-alives.
    pub conflicts: bool,
}

impl Abilities {
    const NONE: Self =
        Self { names: false, groups: false, tokens: false, leases: false, watch: false, conflicts: false };
    pub const NAMES: Self = Self { names: true, ..Self::NONE };
    pub const GROUPS: Self = Self { groups: true, ..Self::NONE };
    pub const ALL: Self = Self { names: true, groups: true, tokens: true, leases: true, watch: true, conflicts: true };
}

/// One stream of what changes, from one node.
#[async_trait]
pub trait Watcher: Send {
    /// The next thing told, and from where another stream could go on after it, at any node (none: from where one could before).
    /// None: the stream is over. May be cancelled without loss.
    async fn next(&mut self) -> Option<(Watched, Option<String>)>;
}

/// A kind of system that can be put under test.
#[async_trait]
pub trait System: Send + Sync {
    /// As `--systems` names it.
    fn name(&self) -> &str;
    fn promises(&self) -> Promises;
    fn abilities(&self) -> Abilities;
    /// What this machine lacks to run it, with the command that mends it. It is then left out of a comparison.
    fn missing(&self) -> Option<String> {
        None
    }
    /// Starts `nodes` nodes (ids 1, 2, …) and waits until they serve.
    async fn start(&self, nodes: usize, seed: u64) -> anyhow::Result<Box<dyn Running>>;
}

/// A system under test. Dropping it ends all that it started, however the run ends.
#[async_trait]
pub trait Running: Send + Sync {
    fn nodes(&self) -> Vec<NodeId>;
    fn client(&self, node: NodeId) -> Box<dyn Client>;
    /// What a reader has to know of what runs: program and version, settings that are not the usual ones. By what it is called.
    async fn facts(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
    /// Whether one of the nodes leads, when all is well.
    fn has_leader(&self) -> bool;
    /// Who leads, as most nodes see it now; None where the word means nothing.
    async fn leader(&self) -> Option<NodeId>;
    /// Why this cannot be done to it, with the mend if there is one. The fault is then skipped.
    fn cannot(&self, harm: &Harm) -> Option<String> {
        match harm {
            Harm::Cut { .. } | Harm::DropAnswers { .. } | Harm::Kill { .. } | Harm::Pause { .. } => None,
            _ => Some(format!("the referee cannot do this to it: {}", harm.word())),
        }
    }
    /// Makes the links exactly this; it is in force when it returns. Nodes that are stopped need not know.
    async fn set_links(&self, links: &Links) -> anyhow::Result<()>;
    /// The peers that a node reaches now, asked through the faults in force. Err: the node itself did not answer.
    async fn reached(&self, node: NodeId, deadline: Instant) -> anyhow::Result<Reach>;
    /// Whether a node's process is there and does not stand still.
    fn runs(&self, _node: NodeId) -> bool {
        true
    }
    /// SIGKILL.
    async fn kill(&self, node: NodeId) -> anyhow::Result<()>;
    /// Starts a killed node again on what it left on disk, under the same addresses, and waits until it answers its clients.
    async fn restart(&self, node: NodeId) -> anyhow::Result<()>;
    /// Takes from a killed node's disk what was not made durable.
    async fn cut_power(&self, _node: NodeId) -> anyhow::Result<()> {
        anyhow::bail!(NOT_DONE)
    }
    /// SIGSTOP.
    async fn pause(&self, node: NodeId) -> anyhow::Result<()>;
    /// SIGCONT.
    async fn resume(&self, node: NodeId) -> anyhow::Result<()>;
    /// Makes another node the leader; returns when it leads.
    async fn transfer(&self, _to: NodeId) -> anyhow::Result<()> {
        anyhow::bail!(NOT_DONE)
    }
    /// Sets a node's wall clock off by so much from the machine's.
    async fn skew(&self, _node: NodeId, _offset_ms: i64) -> anyhow::Result<()> {
        anyhow::bail!(NOT_DONE)
    }
    /// Removes a killed node from the cluster for good.
    async fn remove(&self, _node: NodeId) -> anyhow::Result<()> {
        anyhow::bail!(NOT_DONE)
    }
    /// Puts a new member in a killed node's place, removing that one first if need be: same addresses, empty disk, another identity
    /// where the system knows nodes by identities. Returns when it answers its clients.
    async fn replace(&self, _node: NodeId) -> anyhow::Result<()> {
        anyhow::bail!(NOT_DONE)
    }
    /// Leaves a node's disk no room.
    async fn fill_disk(&self, _node: NodeId) -> anyhow::Result<()> {
        anyhow::bail!(NOT_DONE)
    }
    /// Gives it room again and ends the node, if it has not ended by itself; returns what it said last.
    async fn empty_disk(&self, _node: NodeId) -> anyhow::Result<String> {
        anyhow::bail!(NOT_DONE)
    }
    /// Changes files of a killed node as the seed says, starts it, and waits until it answers its clients or has ended.
    async fn corrupt(&self, _node: NodeId, _seed: u64) -> anyhow::Result<Corrupted> {
        anyhow::bail!(NOT_DONE)
    }
    /// What a node shows of itself, whatever others know.
    async fn view(&self, node: NodeId, deadline: Instant) -> anyhow::Result<View>;
    /// The conflict records that a node knows; None where there are none by design.
    async fn conflicts(&self, node: NodeId, deadline: Instant) -> anyhow::Result<Option<Vec<Conflict>>>;
    /// Begins to watch at a node, after a position that a stream gave (none: from now on); with a prefix only names and groups
    /// that begin so. Systems without the ability refuse.
    async fn watch(
        &self,
        _node: NodeId,
        _after: Option<&str>,
        _prefix: Option<&str>,
        _deadline: Instant,
    ) -> anyhow::Result<Box<dyn Watcher>> {
        anyhow::bail!("it cannot be watched")
    }
    /// Ends it in good order.
    async fn stop(self: Box<Self>) -> anyhow::Result<()>;
}
