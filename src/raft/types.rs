//! What openraft is told of us: a log entry carries one step of the table as bytes, applying it yields outcomes.

use std::fmt;

use bytes::Bytes;
use openraft::alias::{CommittedLeaderIdOf, EntryOf, LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf, VoteOf};
use serde::{Deserialize, Serialize};

use super::snapshot::SnapshotData;
use super::state_machine::StateMachine;
use crate::model::outcome::Outcome;
use crate::model::step::{Outcomes, Step};

/// The longest step, encoded: a batch that fits the longest request's body (1 MiB) stays below it, whatever is in it. What is longer
/// than one sled value may be lies in several (see [`super::pieces`]).
pub const STEP_LEN_MAX: usize = 2 * 1024 * 1024;

/// How steps are written. Another number is another layout, which this version does not read. 1 held single commands alone; 2 holds
/// batches too, and what a leader notes of leases.
const STEP_VERSION: u8 = 2;

openraft::declare_raft_types!(
    /// openraft's types, filled in. One leader per term, as in the Raft paper.
    pub TypeConfig:
        D = Proposal,
        R = Effect,
        LeaderId = openraft::impls::leader_id_std::LeaderId<Self::Term, Self::NodeId>,
);

pub type Raft = openraft::Raft<TypeConfig, StateMachine>;
pub type Entry = EntryOf<TypeConfig>;
pub type LogId = LogIdOf<TypeConfig>;
pub type Vote = VoteOf<TypeConfig>;
pub type Membership = openraft::Membership<u64, openraft::BasicNode>;
pub type StoredMembership = StoredMembershipOf<TypeConfig>;
pub type SnapshotMeta = SnapshotMetaOf<TypeConfig>;
pub type Snapshot = SnapshotOf<TypeConfig, SnapshotData>;
pub type CommittedLeaderId = CommittedLeaderIdOf<TypeConfig>;

/// A step as the log keeps it: encoded once, by the node that took it from the client. Copies share the bytes, so that
/// replication to two followers and applying cost no more than counting references.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal(Bytes);

impl Proposal {
    /// Encodes a step. None: it is longer than [`STEP_LEN_MAX`].
    pub fn encode(step: &Step) -> Option<Self> {
        let bytes = postcard::to_extend(step, vec![STEP_VERSION]).expect("a step has nothing that cannot be encoded");
        (bytes.len() <= STEP_LEN_MAX).then(|| Self(bytes.into()))
    }

    /// Takes bytes that [`encode`](Self::encode) made, perhaps at another node.
    pub fn from_bytes(bytes: Bytes) -> Self {
        Self(bytes)
    }

    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// Whether it is a client's: commands, and not a leader's own note. That one nobody may pass on.
    pub fn is_clients(&self) -> bool {
        // Command and Batch are the first of the step's variants, and so are their numbers.
        matches!(self.0.get(1), Some(0 | 1))
    }

    /// The step. An error: the bytes are of another version, or not a step at all.
    pub fn decode(&self) -> Result<Step, String> {
        match self.0.split_first() {
            Some((&STEP_VERSION, rest)) => {
                postcard::from_bytes(rest).map_err(|e| format!("a log entry holds no step: {e}"))
            }
            Some((version, _)) => {
                Err(format!("a log entry is of version {version}; this program reads {STEP_VERSION}"))
            }
            None => Err("a log entry is empty".to_owned()),
        }
    }
}

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step of {} bytes", self.0.len())
    }
}

/// What applying an entry did. None: the entry was Raft's own (a new leader's, or a membership).
pub type Effect = Option<Applied>;

/// A step's outcomes, and the table's revision after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    pub outcomes: Outcomes,
    pub revision: u64,
}

impl Applied {
    /// The outcome of a single command. None: it was another step.
    pub fn one(self) -> Option<Outcome> {
        match self.outcomes {
            Outcomes::One(outcome) => Some(outcome),
            Outcomes::Each(_) | Outcomes::None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leaders_note_is_told_from_what_clients_ask() {
        let own = [
            Step::Expire { leases: vec![1] },
            Step::KeptAlive { leases: vec![1] },
            Step::Aged { ms: 1 },
            Step::Seen { records: Vec::new() },
        ];
        assert!(own.iter().all(|step| !Proposal::encode(step).unwrap().is_clients()));
        assert!(Proposal::encode(&Step::Batch(Vec::new())).unwrap().is_clients());
        assert!(!Proposal::from_bytes(Bytes::new()).is_clients());
    }
}
