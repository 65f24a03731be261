//! Nodes that were removed from the cluster for good: nothing of theirs is taken in any more, and nothing is sent to them.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};

use crate::model::ident::NodeId;

/// The removed nodes that are known here. Clones share the set, which only grows.
#[derive(Clone, Default)]
pub struct Expelled {
    /// False: the set is empty, as it nearly always is, and need not be looked at.
    any: Arc<AtomicBool>,
    nodes: Arc<RwLock<BTreeSet<NodeId>>>,
}

impl Expelled {
    /// Adds these nodes. Takes effect at once, on open connections too.
    pub fn extend(&self, nodes: impl IntoIterator<Item = NodeId>) {
        let mut all = self.nodes.write().expect("no panic while held");
        all.extend(nodes);
        self.any.store(!all.is_empty(), Ordering::Release);
    }

    pub fn contains(&self, node: NodeId) -> bool {
        self.any.load(Ordering::Acquire) && self.nodes.read().expect("no panic while held").contains(&node)
    }

    /// An error if the node was removed: its connections are of no more use.
    pub fn check(&self, node: NodeId) -> io::Result<()> {
        match self.contains(node) {
            false => Ok(()),
            true => Err(io::Error::new(io::ErrorKind::ConnectionAborted, format!("node {node} was removed"))),
        }
    }
}
