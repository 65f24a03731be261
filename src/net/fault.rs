//! The faults in force at a node, per peer and direction. They act below gossip, Raft and forwarding alike.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::sync::Mutex;
use tokio::sync::watch;

use crate::model::ident::NodeId;

/// By how much a frame is late when loss hits it: a stream loses nothing, it sends again (Linux's least retransmission time).
pub const RETRANSMISSION: Duration = Duration::from_millis(200);

/// What happens to what passes in one direction of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LinkFault {
    pub drop: bool,
    pub delay: Duration,
    /// Between 0 and 1.
    pub loss: f64,
}

/// Which way, as seen from this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    Outgoing,
    Incoming,
}

type Table = BTreeMap<(NodeId, Direction), LinkFault>;

/// The faults in force. Clones share one table; a change takes effect at once, also on what is under way.
#[derive(Clone)]
pub struct FaultTable {
    table: watch::Sender<Arc<Table>>,
    rng: Arc<Mutex<StdRng>>,
}

/// What is to become of one message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fate {
    Pass,
    Late(Duration),
    /// A datagram: gone. A stream: held until the link is mended.
    Cut,
    /// A datagram: gone. A stream: late by one retransmission.
    Lost(Duration),
}

impl FaultTable {
    /// No faults; `seed` decides which messages a lossy link will lose.
    pub fn new(seed: u64) -> Self {
        let (table, _) = watch::channel(Arc::new(Table::new()));
        Self { table, rng: Arc::new(Mutex::new(StdRng::seed_from_u64(seed))) }
    }

    /// Puts these faults, and no others, in force.
    pub fn set(&self, faults: impl IntoIterator<Item = ((NodeId, Direction), LinkFault)>) {
        let table = faults.into_iter().filter(|(_, fault)| *fault != LinkFault::default()).collect::<Table>();
        self.table.send_replace(Arc::new(table));
    }

    /// Everything in force.
    pub fn all(&self) -> BTreeMap<(NodeId, Direction), LinkFault> {
        self.table.borrow().as_ref().clone()
    }

    /// The fault in force on one direction of a link.
    pub fn get(&self, peer: NodeId, direction: Direction) -> LinkFault {
        let table = self.table.borrow();
        if table.is_empty() {
            return LinkFault::default();
        }
        table.get(&(peer, direction)).copied().unwrap_or_default()
    }

    /// What becomes of a message that passes now.
    pub fn fate(&self, peer: NodeId, direction: Direction) -> Fate {
        let fault = self.get(peer, direction);
        if fault.drop {
            Fate::Cut
        } else if fault.loss > 0.0
            && self.rng.lock().expect("no panic while held").random_bool(fault.loss.clamp(0.0, 1.0))
        {
            Fate::Lost(fault.delay + RETRANSMISSION)
        } else if !fault.delay.is_zero() {
            Fate::Late(fault.delay)
        } else {
            Fate::Pass
        }
    }

    /// Returns when nothing is cut in these directions (at once, if nothing is).
    pub async fn mended(&self, peer: NodeId, directions: &[Direction]) {
        let mut table = self.table.subscribe();
        let whole = |table: &Arc<Table>| {
            !directions.iter().any(|direction| table.get(&(peer, *direction)).is_some_and(|fault| fault.drop))
        };
        // Fails only when the table is gone, which `self` keeps alive.
        let _ = table.wait_for(whole).await;
    }
}
