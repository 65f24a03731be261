//! Who leads, as this node knows, and whether it may be believed.

use std::sync::Arc;
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use tokio::time::Instant;

use super::Timing;
use super::contact::Contacts;
use super::types::{Raft, TypeConfig};
use crate::model::ident::NodeId;

pub type ServerMetrics = openraft::alias::WatchReceiverOf<TypeConfig, openraft::metrics::RaftServerMetrics<TypeConfig>>;

/// Where a command is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Me,
    Node(NodeId),
    /// No leader is known, or it has been silent for so long that it may not lead any more.
    Nobody,
}

/// One node's knowledge of the leader.
pub struct Leadership {
    me: NodeId,
    metrics: ServerMetrics,
    contacts: Arc<Contacts>,
    timing: Timing,
}

impl Leadership {
    pub fn new(me: NodeId, raft: &Raft, contacts: Arc<Contacts>, timing: Timing) -> Self {
        Self { me, metrics: raft.server_metrics(), contacts, timing }
    }

    pub fn target(&self) -> Target {
        let metrics = self.metrics.borrow_watched();
        match metrics.current_leader {
            Some(leader) if leader == self.me && metrics.state == ServerState::Leader => Target::Me,
            // What is sent to a leader that is out of reach would be kept by the network and applied when nobody expects it any
            // more: better to wait for another one.
            Some(leader) if leader != self.me && self.contacts.leader_silence() < self.timing.election_max => {
                Target::Node(leader)
            }
            Some(_) | None => Target::Nobody,
        }
    }

    /// Whether this node has had contact to a majority within two election timeouts: itself, or through a leader.
    pub fn has_quorum(&self) -> bool {
        let window = self.timing.election_max * 2;
        let membership = self.metrics.borrow_watched().membership_config.clone();
        if self.contacts.leader_silence() < window && self.metrics.borrow_watched().state != ServerState::Leader {
            return true;
        }
        membership.membership().get_joint_config().iter().all(|voters| {
            let near = voters.iter().filter(|id| **id == self.me || self.contacts.silence(**id) < window).count();
            near * 2 > voters.len()
        })
    }

    /// For how long this node's state may have been overtaken without its knowing: since the leader was last heard of.
    pub fn staleness(&self) -> Duration {
        if self.metrics.borrow_watched().state != ServerState::Leader {
            return self.contacts.leader_silence();
        }
        // A leader's state is the newest as of the moment when a majority last answered.
        let membership = self.metrics.borrow_watched().membership_config.clone();
        let quorum_silence = |voters: &std::collections::BTreeSet<NodeId>| {
            let mut silences = voters
                .iter()
                .map(|id| if *id == self.me { Duration::ZERO } else { self.contacts.silence(*id) })
                .collect::<Vec<_>>();
            silences.sort_unstable();
            silences.get(voters.len() / 2).copied().unwrap_or_default()
        };
        membership.membership().get_joint_config().iter().map(quorum_silence).max().unwrap_or_default()
    }

    /// The address of a member; None: it is no member.
    pub fn address(&self, node: NodeId) -> Option<String> {
        let membership = self.metrics.borrow_watched().membership_config.clone();
        membership.membership().get_node(&node).map(|node| node.addr.clone())
    }

    /// Waits for as long as the leader may be silent; not beyond `until`.
    pub async fn wait_a_heartbeat(&self, until: Instant) {
        tokio::time::sleep_until(until.min(Instant::now() + self.timing.heartbeat)).await;
    }

    /// Waits until something may have changed, or a moment has passed; not beyond `until`.
    pub async fn wait(&self, until: Instant) {
        const MOMENT: Duration = Duration::from_millis(20);
        let until = until.min(Instant::now() + MOMENT);
        let mut metrics = self.metrics.clone();
        metrics.borrow_and_update();
        let _ = tokio::time::timeout_at(until, metrics.changed()).await;
    }
}
