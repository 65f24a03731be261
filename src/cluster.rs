//! The cluster as one node sees it: who is in it, which roles they have, which faults are in force.

use std::collections::BTreeMap;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::model::conflict::ConflictRecord;
use crate::model::ident::{NodeId, RecordId};
use crate::registry::{CommandCall, CommandFailure, Reason};

/// What a node knows of its cluster, beside the two registries.
#[async_trait]
pub trait Cluster: Send + Sync + 'static {
    fn status(&self) -> ClusterStatus;

    /// Changes who is in the cluster, or who leads it. Any node does so for all; every change may be asked for again without harm.
    async fn change(
        &self,
        change: Change,
        call: &CommandCall,
    ) -> Result<Result<Changed, ChangeRefusal>, CommandFailure>;

    /// Has this node write its `cp` table to disk now, so that its log can be cut; the index of the last log entry in it.
    async fn take_snapshot(&self, deadline: Instant) -> Result<u64, Reason>;

    /// The whole `cp` table, as new as this call, to be kept in a file.
    async fn backup(&self, deadline: Instant) -> Result<Backup, Reason>;

    /// Every conflict record that this node knows and that is not acknowledged for good, oldest first, after the given id. A node
    /// that does not serve `ap` yet fails: that it knows of none would be no news of the cluster.
    fn conflicts(&self, after: Option<&RecordId>, limit: usize) -> Result<Vec<ConflictRecord>, Reason>;
    /// Acknowledges a record on behalf of the loser. False: no such record. A failure: nothing was done.
    fn acknowledge_conflict(&self, id: &RecordId) -> Result<bool, Reason>;

    /// None: this node was not started with faults enabled.
    fn faults(&self) -> Option<Faults>;
    /// Puts these faults, and no others, in force at once. False: not enabled.
    fn set_faults(&self, faults: Faults) -> bool;
    /// Asks every peer for a sign of life, over TCP and UDP, through the faults in force. Ends by the deadline.
    async fn probe(&self, deadline: Instant) -> BTreeMap<NodeId, Probe>;
}

/// A backup, in pieces that are one file together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    pub revision: u64,
    pub pieces: Vec<Bytes>,
}

/// A change of the cluster. It is agreed upon by a majority, as commands of `cp` are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Takes a new node in, as a learner: it gets the log, and does not vote.
    Add { node: NodeId, peer: String },
    /// Gives a learner that has caught up a vote.
    Promote { node: NodeId },
    /// Removes a node for good: its id never returns.
    Remove { node: NodeId },
    /// Has this node lead; whichever is best prepared, unless one is named.
    Lead { node: Option<NodeId> },
}

/// What a change has led to. Each is true as of a moment after the call began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Changed {
    /// The node is a member of this role. `now`: it has become so by this very call.
    Member {
        node: NodeId,
        peer: String,
        role: Role,
        now: bool,
    },
    Removed {
        node: NodeId,
        now: bool,
    },
    Leads {
        node: NodeId,
    },
}

/// Why a change was not made. Nothing has happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChangeRefusal {
    /// There is no node of that id, and never was.
    Unknown { node: NodeId },
    /// The node was removed, which is final.
    Removed { node: NodeId },
    /// The id or the address is another node's.
    Exists { node: NodeId, peer: String },
    /// The learner still lacks so many entries of the log, or is out of reach.
    Behind { node: NodeId, entries: u64 },
    /// Too few of the voters that there would be are in reach: the cluster could not decide anything any more.
    QuorumAtRisk { voters: usize, in_reach: usize },
    /// No voter, out of reach, or behind. None: no other node could lead.
    CannotLead { node: Option<NodeId> },
    /// Another change is being made.
    UnderWay,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// Shared by all nodes of one cluster; nodes of different clusters refuse each other.
    pub cluster: String,
    /// This node.
    pub node: NodeId,
    pub version: String,
    pub leader: Option<NodeId>,
    pub term: u64,
    /// Index of the last log entry applied here.
    pub applied: u64,
    pub committed: u64,
    /// Names and groups' members that this node's `ap` registry shows, and a hash of them that does not depend on order.
    pub ap: ApStatus,
    pub nodes: Vec<NodeStatus>,
    pub strangers: Strangers,
}

/// What came to this node's peer address and was not let in, since the process began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Strangers {
    /// Connections of whom it is not known which node they are from.
    pub connections: u64,
    /// Why the last of these was refused.
    pub last: Option<String>,
    /// Datagrams that were torn, forged, of another cluster or for somebody else.
    pub datagrams: u64,
    /// Genuine datagrams that had come before.
    pub replayed: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApStatus {
    pub names: u64,
    pub members: u64,
    /// Equal on two nodes that show the same owners and members.
    pub digest: String,
    /// This process's run.
    pub run: String,
    /// Conflict records known here.
    pub conflicts: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    pub id: NodeId,
    /// Where its peers reach it.
    pub peer: String,
    /// Where its clients reach it, as far as known.
    pub http: Option<String>,
    pub role: Role,
    /// As gossip at this node sees it.
    pub state: PeerState,
    /// Why the last handshake with it was refused, if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Leader,
    Voter,
    Learner,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerState {
    /// This node itself.
    Me,
    Alive,
    Suspect,
    Down,
    /// Never heard of since this process began.
    Unknown,
}

/// Faults in force at a node, per peer; directions as seen from this node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Faults {
    #[serde(default)]
    pub peers: BTreeMap<NodeId, PeerFaults>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerFaults {
    #[serde(default)]
    pub outgoing: LinkFault,
    #[serde(default)]
    pub incoming: LinkFault,
}

/// What happens to what passes in one direction of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkFault {
    /// Nothing passes. Bytes of open streams are kept and arrive after the heal, as TCP would send them again; datagrams are lost.
    #[serde(default)]
    pub drop: bool,
    #[serde(default)]
    pub delay_ms: u64,
    /// Between 0 and 1: the share of datagrams lost; the same share of stream frames is late by one retransmission time (200 ms).
    #[serde(default)]
    pub loss: f64,
}

/// Whether a peer answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    pub tcp: bool,
    pub udp: bool,
}
