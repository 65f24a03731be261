//! The JSON bodies of what concerns the cluster: its nodes, conflicts, faults.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::read::{self, Garbled};
use super::write;
use crate::model::conflict::{ConflictRecord, Contender};
use crate::model::ident::{Mode, Token};

/// The cluster as one node sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ClusterBody {
    /// The cluster's id, shared by all its nodes.
    pub cluster: String,
    /// The node that answers.
    pub node: u64,
    pub version: String,
    /// The `cp` leader, as far as this node knows.
    pub leader: Option<u64>,
    pub term: u64,
    /// Index of the last log entry applied here.
    pub applied: u64,
    pub committed: u64,
    pub ap: ApBody,
    pub nodes: Vec<NodeBody>,
    #[serde(default)]
    pub strangers: StrangersBody,
}

/// What came to the node's peer address and was not let in, since its process began.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StrangersBody {
    /// Connections of whom it is not known which node they are from.
    pub connections: u64,
    /// Why the last of these was refused.
    pub last: Option<String>,
    /// Datagrams that were torn, forged, of another cluster or for somebody else.
    pub datagrams: u64,
    /// Genuine datagrams that had come before.
    pub replayed: u64,
}

/// What the node's `ap` registry shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ApBody {
    pub names: u64,
    pub members: u64,
    /// Equal on two nodes that show the same owners and members.
    pub digest: String,
    /// This process's run.
    pub run: String,
    /// Conflict records known here.
    pub conflicts: u64,
}

/// One node of the cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeBody {
    pub id: u64,
    /// Where its peers reach it.
    pub peer: String,
    /// Where its clients reach it, as far as known.
    pub http: Option<String>,
    /// `leader`, `voter` or `learner`.
    pub role: String,
    /// As gossip sees it: `me`, `alive`, `suspect`, `down` or `unknown`.
    pub state: String,
    /// Why the last handshake with it was refused, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// A node that is to be added.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewNodeBody {
    /// Never used before in this cluster.
    #[schema(minimum = 1)]
    pub id: u64,
    /// HOST:PORT where its peers reach it.
    pub peer: String,
}

/// A node that was added or promoted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MemberBody {
    pub id: u64,
    pub peer: String,
    /// `leader`, `voter` or `learner`.
    pub role: String,
}

/// A node that was removed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RemovedBody {
    pub id: u64,
    /// `now`, or `before` if it had been removed already.
    pub removed: String,
}

/// Who is to lead.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TransferBody {
    /// A voter's id; the one that is best prepared, unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
}

/// Who leads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LeaderBody {
    pub leader: u64,
}

/// A snapshot that a node has written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SnapshotBody {
    pub node: u64,
    /// The last log entry in it.
    pub index: u64,
}

/// One page of conflict records, oldest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConflictsBody {
    pub conflicts: Vec<ConflictBody>,
    /// What to pass as `after=` for the next page; null at the end.
    pub next: Option<String>,
}

/// One losing grant of a name: in `ap` of a conflict after a partition, in `cp` of a takeover.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConflictBody {
    /// All nodes agree on it.
    pub id: String,
    pub name: String,
    pub loser: ContenderBody,
    /// Who beat it then.
    pub winner: ContenderBody,
    /// By the clock of the node that withdrew the loser.
    #[schema(format = "date-time")]
    pub at: String,
    pub acknowledged: bool,
}

impl ConflictBody {
    /// What is told of a record.
    pub fn of(record: &ConflictRecord) -> Self {
        let contender = |contender: &Contender| ContenderBody {
            owner: contender.owner.to_string(),
            token: contender.token.to_string(),
            node: contender.node,
        };
        Self {
            id: record.id.to_string(),
            name: record.name.to_string(),
            loser: contender(&record.loser),
            winner: contender(&record.winner),
            at: write::time(record.at).to_string(),
            acknowledged: record.acknowledged,
        }
    }

    /// The record that this body was written from.
    pub fn record(self, mode: Mode) -> Result<ConflictRecord, Garbled> {
        let contender = |body: ContenderBody| {
            let token = Token::parse(mode, &body.token)?;
            Ok::<_, Garbled>(Contender { owner: body.owner.parse()?, token, node: body.node })
        };
        Ok(ConflictRecord {
            id: self.id.parse()?,
            name: self.name.parse()?,
            loser: contender(self.loser)?,
            winner: contender(self.winner)?,
            at: read::time(&self.at)?,
            acknowledged: self.acknowledged,
        })
    }
}

/// One of the two owners of a conflict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ContenderBody {
    pub owner: String,
    pub token: String,
    pub node: u64,
}

/// The answer to an acknowledgement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AcknowledgedBody {
    pub acknowledged: bool,
}

/// The faults in force at a node, per peer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FaultsBody {
    #[serde(default)]
    pub peers: BTreeMap<u64, PeerFaultsBody>,
}

/// Directions as seen from the node that has the faults.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PeerFaultsBody {
    #[serde(default)]
    pub outgoing: LinkFaultBody,
    #[serde(default)]
    pub incoming: LinkFaultBody,
}

/// What happens to what passes in one direction of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LinkFaultBody {
    /// Nothing passes.
    #[serde(default)]
    pub drop: bool,
    /// At most 60,000.
    #[serde(default)]
    #[schema(maximum = 60_000)]
    pub delay_ms: u64,
    /// Between 0 and 1: the share of datagrams lost.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 1)]
    pub loss: f64,
}

/// Whether a peer answered through the faults in force. A probe's answer holds one for each peer, under its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProbeBody {
    pub tcp: bool,
    pub udp: bool,
}

/// The answer of `/readyz`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ReadyBody {
    pub node: u64,
    pub ready: bool,
}
