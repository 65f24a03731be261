//! What openraft is told of us: a log entry carries one command as bytes, applying it yields an outcome.

use std::fmt;

use bytes::Bytes;
use openraft::alias::{CommittedLeaderIdOf, EntryOf, LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf, VoteOf};
use serde::{Deserialize, Serialize};

use super::state_machine::{SnapshotData, StateMachine};
use crate::model::command::Command;
use crate::model::outcome::Outcome;

/// The longest command, encoded. The longest meta and names together stay well below it, so that an entry never exceeds what
/// one sled value may hold (see [`super::keys::CHUNK_LEN_MAX`]).
pub const COMMAND_LEN_MAX: usize = 32 * 1024;

/// How commands are written. Another number is another layout, which this version does not read.
const COMMAND_VERSION: u8 = 1;

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

/// A command as the log keeps it: encoded once, by the node that took it from the client. Copies share the bytes, so that
/// replication to two followers and applying cost no more than counting references.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal(Bytes);

impl Proposal {
    /// Encodes a command. None: it is longer than [`COMMAND_LEN_MAX`].
    pub fn encode(command: &Command) -> Option<Self> {
        let bytes =
            postcard::to_extend(command, vec![COMMAND_VERSION]).expect("a command has nothing that cannot be encoded");
        (bytes.len() <= COMMAND_LEN_MAX).then(|| Self(bytes.into()))
    }

    /// Takes bytes that [`encode`](Self::encode) made, perhaps at another node.
    pub fn from_bytes(bytes: Bytes) -> Self {
        Self(bytes)
    }

    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// The command. An error: the bytes are of another version, or not a command at all.
    pub fn decode(&self) -> Result<Command, String> {
        match self.0.split_first() {
            Some((&COMMAND_VERSION, rest)) => {
                postcard::from_bytes(rest).map_err(|e| format!("a log entry holds no command: {e}"))
            }
            Some((version, _)) => {
                Err(format!("a log entry is of version {version}; this program reads {COMMAND_VERSION}"))
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
        write!(f, "command of {} bytes", self.0.len())
    }
}

/// What applying an entry did. None: the entry was Raft's own (a new leader's, or a membership).
pub type Effect = Option<Applied>;

/// A command's outcome, and the table's revision after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    pub outcome: Outcome,
    pub revision: u64,
}
