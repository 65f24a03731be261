//! What this node knows of its cluster: put together from Raft, gossip and the links.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use crate::cluster::{
    Backup, Change, ChangeRefusal, Changed, Cluster, ClusterStatus, Faults, LinkFault, NodeStatus, PeerFaults,
    PeerState, Probe, Strangers,
};
use crate::gossip::GossipNode;
use crate::model::conflict::ConflictRecord;
use crate::model::ident::{NodeId, RecordId};
use crate::net::fault::{self, Direction};
use crate::net::links::Links;
use crate::net::probe::probe;
use crate::raft::RaftNode;
use crate::registry::{CommandCall, CommandFailure, Reason};

/// One node's [`Cluster`].
pub struct NodeView {
    pub links: Links,
    pub raft: Arc<RaftNode>,
    pub gossip: Arc<GossipNode>,
    /// Where peers reach this node.
    pub peer: String,
    pub faults_enabled: bool,
}

#[async_trait]
impl Cluster for NodeView {
    fn status(&self) -> ClusterStatus {
        let raft = self.raft.status();
        let states = self.gossip.peer_states();
        let about = self.links.about();
        let refusals = self.links.refusals();
        let strangers = self.links.strangers();
        let me = self.links.identity().node;
        let nodes = raft.members.iter().map(|(id, (peer, role))| NodeStatus {
            id: *id,
            peer: peer.clone(),
            http: about.get(id).map(|about| about.http.clone()).filter(|url| !url.is_empty()),
            role: *role,
            state: match states.get(id) {
                _ if *id == me => PeerState::Me,
                Some(state) => *state,
                None => PeerState::Unknown,
            },
            refused: refusals.get(id).cloned(),
        });
        ClusterStatus {
            cluster: self.links.identity().cluster.clone(),
            node: me,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            leader: raft.leader,
            term: raft.term,
            applied: raft.applied,
            committed: raft.committed,
            ap: self.gossip.status(),
            nodes: nodes.collect(),
            strangers: Strangers {
                connections: strangers.connections,
                last: strangers.last,
                datagrams: strangers.datagrams,
                replayed: strangers.replayed,
            },
        }
    }

    async fn change(
        &self,
        change: Change,
        call: &CommandCall,
    ) -> Result<Result<Changed, ChangeRefusal>, CommandFailure> {
        self.raft.registry.change(change, call).await
    }

    async fn backup(&self, deadline: Instant) -> Result<Backup, Reason> {
        self.raft.backup(deadline).await
    }

    async fn take_snapshot(&self, deadline: Instant) -> Result<u64, Reason> {
        self.raft.take_snapshot(deadline.into()).await
    }

    fn conflicts(&self, after: Option<&RecordId>, limit: usize) -> Result<Vec<ConflictRecord>, Reason> {
        self.gossip.conflicts(after, limit)
    }

    fn acknowledge_conflict(&self, id: &RecordId) -> Result<bool, Reason> {
        self.gossip.acknowledge(id)
    }

    fn faults(&self) -> Option<Faults> {
        self.faults_enabled.then(|| self.faults_in_force())
    }

    fn set_faults(&self, faults: Faults) -> bool {
        if !self.faults_enabled {
            return false;
        }
        let both = |(peer, faults): (NodeId, PeerFaults)| {
            [
                ((peer, Direction::Outgoing), to_net(faults.outgoing)),
                ((peer, Direction::Incoming), to_net(faults.incoming)),
            ]
        };
        self.links.faults().set(faults.peers.into_iter().flat_map(both));
        true
    }

    async fn probe(&self, deadline: Instant) -> BTreeMap<NodeId, Probe> {
        let me = self.links.identity().node;
        let peers = self.raft.status().members.into_iter().filter(|(id, _)| *id != me);
        let asking = peers.map(|(id, (addr, _))| {
            let (links, back) = (self.links.clone(), self.peer.clone());
            tokio::spawn(async move {
                let (tcp, udp) = probe(&links, id, &addr, &back, deadline.into()).await;
                (id, Probe { tcp, udp })
            })
        });
        let mut found = BTreeMap::new();
        for asked in asking.collect::<Vec<_>>() {
            if let Ok((id, probe)) = asked.await {
                found.insert(id, probe);
            }
        }
        found
    }
}

impl NodeView {
    fn faults_in_force(&self) -> Faults {
        let mut peers = BTreeMap::<NodeId, PeerFaults>::new();
        for ((peer, direction), fault) in self.links.faults().all() {
            let faults = peers.entry(peer).or_default();
            match direction {
                Direction::Outgoing => faults.outgoing = from_net(fault),
                Direction::Incoming => faults.incoming = from_net(fault),
            }
        }
        Faults { peers }
    }
}

fn to_net(fault: LinkFault) -> fault::LinkFault {
    fault::LinkFault { drop: fault.drop, delay: Duration::from_millis(fault.delay_ms), loss: fault.loss }
}

fn from_net(fault: fault::LinkFault) -> LinkFault {
    LinkFault { drop: fault.drop, delay_ms: fault.delay.as_millis() as u64, loss: fault.loss }
}
