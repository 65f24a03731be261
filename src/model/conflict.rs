//! Who lost a name to whom.

use serde::{Deserialize, Serialize};

use super::ident::{Name, NodeId, Owner, RecordId, Token};
use super::time::UnixMillis;

/// One losing grant of a name: in `ap` of a conflict after a partition, in `cp` of a takeover. All nodes agree on the id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ConflictRecord {
    pub id: RecordId,
    pub name: Name,
    pub loser: Contender,
    /// Who beat it then.
    pub winner: Contender,
    /// By the clock of the node that withdrew the loser.
    pub at: UnixMillis,
    /// The loser has said that it has seen this.
    pub acknowledged: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Contender {
    pub owner: Owner,
    pub token: Token,
    pub node: NodeId,
}
