//! What a registry is to those who serve it: one trait for both modes.

use std::time::Instant;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::model::command::Action;
use crate::model::entry::Holder;
use crate::model::event::Filter;
use crate::model::ident::{CredentialName, LeaseId, Mode, NodeId, RecordId, Revision, Token};
use crate::model::lease::KeptAlive;
use crate::model::outcome::{Outcome, Refusal};
use crate::model::query::{Answer, Query};

pub use crate::model::event::{Told, WatchMessage};

/// A registry of names and groups. Every call ends by its deadline.
///
/// Cancelling a call (dropping its future) leaves its outcome unknown.
#[async_trait]
pub trait Registry: Send + Sync + 'static {
    fn mode(&self) -> Mode;

    /// Applies one command. `Ok` means acknowledged, with all that the mode promises of that; a refusal is an outcome.
    async fn execute(&self, action: Action, call: &CommandCall) -> Result<Reply<Outcome>, CommandFailure>;

    /// Whether this registry may ever have told that revision: one that it cannot have written is worth no waiting for.
    fn may_have_told(&self, _: &Revision) -> bool {
        true
    }

    /// Answers one question at the level asked for.
    async fn query(&self, query: Query, call: &QueryCall) -> Result<Reply<Answer>, QueryFailure>;

    /// Applies up to [`BATCH_LEN_MAX`](crate::model::command::BATCH_LEN_MAX) commands in order, none of them of a lease. One that is
    /// refused stops none. `cp`: one log entry, so that all are applied or none.
    async fn batch(&self, actions: Vec<Action>, call: &CommandCall) -> Result<Reply<Vec<Outcome>>, CommandFailure>;

    /// Keeps leases alive, each or none of them for a reason of its own; at most
    /// [`KEEP_ALIVE_LEN_MAX`](crate::model::lease::KEEP_ALIVE_LEN_MAX).
    async fn keep_alive(
        &self,
        keep: KeepAlive,
        call: &CommandCall,
    ) -> Result<Reply<Vec<Result<KeptAlive, Refusal>>>, CommandFailure>;

    /// Begins to watch. The deadline is for the beginning alone.
    async fn watch(&self, watch: Watch, deadline: Instant) -> Result<Box<dyn Watching>, WatchFailure>;

    /// Whether this node knows, without asking anybody, that this grant has ended.
    fn has_ended(&self, holder: &Holder, token: Token) -> bool;

    /// Whether this node serves this mode now; `cp` makes a real linearizable read.
    async fn ready(&self, deadline: Instant) -> Result<(), Reason>;
}

/// Leases to keep alive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepAlive {
    pub leases: Vec<LeaseId>,
    /// Records that need not be told as `lost` again.
    pub seen: Vec<RecordId>,
    /// Whose word it is. None: of somebody who may keep anybody's alive.
    pub by: Option<CredentialName>,
}

/// What is to be watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    pub filter: Filter,
    pub from: Position,
    /// First the state, in pages, then what changes after it. Only with [`Position::Now`].
    pub initial: bool,
}

/// Where a watch begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Position {
    Now,
    /// After that position, or not at all: [`WatchFailure::Compacted`].
    After(Revision),
    /// After that position, or with [`Told::Resync`] if it is gone.
    Resume(Revision),
}

/// A watch that has begun.
#[async_trait]
pub trait Watching: Send {
    /// The next message, as soon as there is one; none after [`Told::Overflow`], or when the node stops. May be cancelled without loss.
    async fn next(&mut self) -> Option<WatchMessage>;
}

/// No watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchFailure {
    /// The history does not reach back to the position; what it does reach back to.
    Compacted {
        oldest: Revision,
    },
    Failed(Reason),
}

/// How a command is to be carried out.
#[derive(Clone, Debug)]
pub struct CommandCall {
    pub deadline: Instant,
    /// `cp`: pass it on to the leader (true), or fail with [`Reason::NotLeader`] and its id (false).
    pub forward: bool,
    /// `ap`: how many nodes, this one included, are to have it before the answer. 1 = accepted here.
    pub acks: usize,
}

/// How a question is to be answered.
#[derive(Clone, Debug)]
pub struct QueryCall {
    pub deadline: Instant,
    pub consistency: Consistency,
    /// As for commands.
    pub forward: bool,
    /// Wait until this node has applied that much, or fail with [`Reason::Behind`].
    pub min_revision: Option<Revision>,
    /// `ap`: entries, too, that this node does not show since who answers for them is out of reach, where no other stands.
    pub include_hidden: bool,
}

impl QueryCall {
    /// A question that is passed on to whom it concerns and asks for nothing special.
    pub fn new(deadline: Instant, consistency: Consistency) -> Self {
        Self { deadline, consistency, forward: true, min_revision: None, include_hidden: false }
    }
}

/// What a read promises. The first three are of `cp`, the others of `ap`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Consistency {
    /// Sees every write that was acknowledged before the call began, at any node.
    Linearizable,
    /// The same, as long as monotonic clocks run within 20 % of each other; no round of messages.
    Leader,
    /// Some committed prefix of the history, never going back on one node.
    Stale,
    /// What this node knows.
    Local,
    /// What so many nodes (this one included) know together.
    Quorum(usize),
}

impl Consistency {
    pub fn of(self) -> Mode {
        match self {
            Consistency::Linearizable | Consistency::Leader | Consistency::Stale => Mode::Cp,
            Consistency::Local | Consistency::Quorum(_) => Mode::Ap,
        }
    }

    /// What a read of this mode promises unless asked otherwise.
    pub fn default_of(mode: Mode) -> Self {
        match mode {
            Mode::Cp => Consistency::Linearizable,
            Mode::Ap => Consistency::Local,
        }
    }
}

/// A value, and what is known of where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply<T> {
    pub value: T,
    /// How far the answering state was.
    pub revision: Revision,
    pub provenance: Provenance,
}

/// What the reply's headers say beside the revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Provenance {
    /// `ap`: peers in reach, of those known.
    pub peers: Option<(usize, usize)>,
    /// `ap` and `stale` reads: since when this node has not heard from everyone, resp. from the leader.
    pub staleness_ms: Option<u64>,
    /// Writes that asked for more than one node: how many have it, of how many asked for.
    pub acks: Option<(usize, usize)>,
}

/// A command without an outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandFailure {
    /// Surely not applied, now or later.
    NotApplied(Reason),
    /// Perhaps applied, perhaps to be applied later.
    Unknown(Reason),
}

/// A question without an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryFailure(pub Reason);

/// Why there is no outcome or answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No leader is known, or it could not be reached.
    NoLeader,
    /// This node has no contact to a majority.
    NoQuorum,
    /// This node has just started and does not serve yet.
    Starting,
    /// This node has not applied `min_revision` yet; what it has applied.
    Behind { applied: Revision },
    /// Too much at once; nothing was begun.
    Overloaded,
    /// The deadline came first.
    Timeout,
    /// Forwarding was not wanted, and the leader is elsewhere.
    NotLeader { leader: Option<NodeId> },
    /// A bug or a dying node.
    Internal(String),
}
