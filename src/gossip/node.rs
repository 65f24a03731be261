//! Starting and stopping: a configuration in, a running node out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use crate::cluster::{ApStatus, PeerState};
use crate::model::conflict::ConflictRecord;
use crate::model::ident::{NodeId, RecordId};
use crate::net::clock::{Clock, SystemClock};
use crate::net::datagram::DATAGRAM_LEN_MAX;
use crate::net::links::Links;
use crate::registry::Reason;

use super::context::Run;
use super::core::{Core, CoreConfig, Flaws, Now};
use super::hlc::{Mark, MarkError};
use super::membership::{Membership, ProbeTiming};
use super::rank::Policy;
use super::registry::GossipRegistry;
use super::shell::{self, Order, Parts, Shared, WatchSettings};

/// Operations kept for peers that lag: more than a side makes during a partition of minutes.
const KEPT_OPERATIONS: usize = 200_000;
/// About 40 MB, once there are so many. A watcher that comes from another node is served from the kept operations, not from these.
const WATCH_HISTORY: usize = 50_000;
const WATCH_PROGRESS: Duration = Duration::from_secs(15);
/// How long a stopping node waits for its peers to have what it has accepted.
const FAREWELL_PATIENCE: Duration = Duration::from_millis(500);
/// How long a stopping node waits for a peer to keep its leases. Those that none has taken end as if the node had been killed.
const HAND_OVER_PATIENCE: Duration = Duration::from_secs(1);
const HAND_OVER_AGAIN: Duration = Duration::from_millis(100);

#[derive(Clone)]
pub struct GossipConfig {
    /// This node.
    pub node: NodeId,
    /// Where each node of the cluster is reached, HOST:PORT; this node may be among them.
    pub peers: BTreeMap<NodeId, String>,
    /// Nodes that were removed from the cluster for good.
    pub retired: BTreeSet<NodeId>,
    /// The cluster has yet to let this node in: it serves only once it has been told of that, and has asked its peers.
    pub entering: bool,
    /// Holds the clock's mark, in `ap/`.
    pub data_dir: PathBuf,
    /// How long grants count after their home went out of reach. Longer than a restart takes.
    pub down_after: Duration,
    pub probe: ProbeTiming,
    /// Decides which peers are probed and compared with first.
    pub seed: u64,
    pub clock: Arc<dyn Clock>,
    /// Events that are kept for those who watch, at most: a reader that falls behind further is cut off.
    pub watch_history: usize,
    /// How often a watcher is told its position though nothing changes. Sooner after changes.
    pub watch_progress: Duration,
    pub flaws: Flaws,
}

impl GossipConfig {
    /// The usual settings.
    pub fn new(node: NodeId, peers: BTreeMap<NodeId, String>, data_dir: PathBuf) -> Self {
        Self {
            node,
            peers,
            retired: BTreeSet::new(),
            entering: false,
            data_dir,
            down_after: Duration::from_secs(30),
            probe: ProbeTiming::default(),
            seed: node,
            clock: Arc::new(SystemClock),
            watch_history: WATCH_HISTORY,
            watch_progress: WATCH_PROGRESS,
            flaws: Flaws::default(),
        }
    }
}

/// Why the registry could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Mark(#[from] MarkError),
    #[error("{0}")]
    Policy(String),
}

/// A running `ap` registry. Dropping it ends its tasks without a farewell.
pub struct GossipNode {
    pub registry: Arc<GossipRegistry>,
    shared: Arc<Shared>,
    orders: mpsc::Sender<Order>,
    tasks: Vec<AbortHandle>,
}

/// Starts the registry over these links. It answers `Starting` until it has asked its peers for their state.
pub async fn start(config: GossipConfig, links: Links) -> Result<GossipNode, StartError> {
    let identity = links.identity().clone();
    // One source: what the handshakes compare is what the grants are ranked by.
    let policy = identity.policy.parse::<Policy>().map_err(StartError::Policy)?;
    let wall_ms = config.clock.wall_ms();
    let (directory, node) = (config.data_dir.join("ap"), config.node);
    let opened = tokio::task::spawn_blocking(move || Mark::open(&directory, node, identity.run, wall_ms));
    let (mark, hlc) = opened.await.expect("opening a mark does not panic")?;
    let mut peers = config.peers.clone();
    let addr = peers.remove(&config.node).unwrap_or_else(|| links.local_addr().to_string());
    let membership = Membership::new(
        (config.node, addr),
        // Above all former lives' stamps, and so above their renewals.
        mark.floor(),
        peers.clone(),
        config.probe,
        DATAGRAM_LEN_MAX,
        config.seed,
    );
    let core = CoreConfig {
        run: Run { node: config.node, bits: identity.run },
        peers: peers.keys().copied().collect(),
        retired: config.retired,
        entering: config.entering,
        policy,
        down_after_ms: config.down_after.as_millis() as u64,
        kept_operations: KEPT_OPERATIONS,
        seed: config.seed,
        flaws: config.flaws,
    };
    let began = config.clock.now();
    let core = Core::new(core, hlc, Now { ms: 0, wall_ms });
    let watching = WatchSettings { history: config.watch_history, progress_every: config.watch_progress };
    let parts = Parts { core, mark, membership, peers, clock: config.clock, began, links, watching };
    let (shared, orders, tasks) = shell::spawn(parts);
    let registry = Arc::new(GossipRegistry { shared: Arc::clone(&shared) });
    Ok(GossipNode { registry, shared, orders, tasks })
}

impl GossipNode {
    pub fn status(&self) -> ApStatus {
        self.shared.view().status()
    }

    /// Each node of the cluster as membership sees it from here.
    pub fn peer_states(&self) -> BTreeMap<NodeId, PeerState> {
        self.shared.peer_states()
    }

    /// Conflict records, oldest first, after the one with this id.
    pub fn conflicts(&self, after: Option<&RecordId>, limit: usize) -> Result<Vec<ConflictRecord>, Reason> {
        let view = self.shared.view();
        // Before its peers' state is here a node would say that nobody has lost anything.
        if !view.is_serving() {
            return Err(Reason::Starting);
        }
        Ok(view.conflicts(after, limit))
    }

    /// Acknowledges a conflict record, on all nodes. False: no such record.
    pub fn acknowledge(&self, id: &RecordId) -> Result<bool, Reason> {
        self.shared.with(|core, now, effects| match core.is_serving() {
            true => Ok(core.acknowledge(id, now, effects)),
            false => Err(Reason::Starting),
        })
    }

    /// Makes these the nodes of the cluster, this one perhaps among them, and where they are reached; these others were removed from it
    /// for good: nothing waits for them.
    pub async fn follow(&self, members: BTreeMap<NodeId, String>, retired: BTreeSet<NodeId>) {
        let _ = self.orders.send(Order::Follow { members, retired }).await;
    }

    /// Lets a peer keep the leases that this node keeps, sees what was accepted here through to the live peers, as far as they answer,
    /// and leaves.
    pub async fn stop(&self) {
        let handed_over = async {
            while self.shared.view().has_leases_to_hand_over() {
                self.shared.with(|core, now, effects| core.hand_over(now, effects));
                tokio::time::sleep(HAND_OVER_AGAIN).await;
            }
        };
        let _ = timeout(HAND_OVER_PATIENCE, handed_over).await;
        let seen_through = async {
            loop {
                let notified = self.shared.confirmed.notified();
                let owed = {
                    let core = self.shared.view();
                    core.live_peers().into_iter().any(|peer| core.is_behind(peer))
                };
                if !owed {
                    return;
                }
                notified.await;
            }
        };
        let deadline = Instant::now() + FAREWELL_PATIENCE;
        let _ = tokio::time::timeout_at(deadline, seen_through).await;
        if self.orders.send(Order::Leave).await.is_ok() {
            // The task ends once the farewell is on its way.
            let _ = timeout(Duration::from_millis(100), self.orders.closed()).await;
        }
        self.end();
    }

    fn end(&self) {
        self.shared.over.send_replace(true);
        self.shared.disconnect();
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Drop for GossipNode {
    fn drop(&mut self) {
        self.end();
    }
}
