//! When each peer was last heard of: who can say that a majority, or the leader, is out of reach.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use tokio::time::Instant;

use crate::model::ident::NodeId;
use crate::net::clock::Clock;

/// Signs of life of a node's peers, over the links of `cp`. A peer not heard of yet counts as heard when this was made.
pub struct Contacts {
    clock: Arc<dyn Clock>,
    began: Instant,
    peers: RwLock<BTreeMap<NodeId, AtomicU64>>,
    leader: AtomicU64,
}

impl Contacts {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let began = clock.now();
        Self { clock, began, peers: RwLock::default(), leader: AtomicU64::new(0) }
    }

    /// A frame came from this peer.
    pub fn heard(&self, peer: NodeId) {
        let now = self.now_ms();
        if let Some(last) = self.peers.read().expect("no panic while held").get(&peer) {
            last.store(now, Ordering::Relaxed);
            return;
        }
        self.peers.write().expect("no panic while held").insert(peer, AtomicU64::new(now));
    }

    /// A leader's AppendEntries was accepted.
    pub fn heard_leader(&self) {
        self.leader.store(self.now_ms(), Ordering::Relaxed);
    }

    /// For how long this peer has been silent.
    pub fn silence(&self, peer: NodeId) -> Duration {
        let peers = self.peers.read().expect("no panic while held");
        self.since(peers.get(&peer).map_or(0, |last| last.load(Ordering::Relaxed)))
    }

    /// Whether this peer was ever heard of.
    pub fn was_heard(&self, peer: NodeId) -> bool {
        self.peers.read().expect("no panic while held").contains_key(&peer)
    }

    /// For how long no leader has been heard of.
    pub fn leader_silence(&self) -> Duration {
        self.since(self.leader.load(Ordering::Relaxed))
    }

    fn since(&self, then_ms: u64) -> Duration {
        Duration::from_millis(self.now_ms().saturating_sub(then_ms))
    }

    fn now_ms(&self) -> u64 {
        self.clock.now().saturating_duration_since(self.began).as_millis() as u64
    }
}
