//! A node of `cp`, from its configuration to its stop.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::errors::{Fatal as RaftFatal, InitializeError, RaftError};
use openraft::{BasicNode, Config, SnapshotPolicy};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout, timeout_at};

use super::backup;
use super::contact::Contacts;
use super::durable::{Barrier, Fdatasync, Owner, StartError};
use super::flaws::{Flaws, LostFsync, Speculation, WallClock};
use super::forward::{self, Forwarder};
use super::keep_alive::{Keeper, passing_on};
use super::leadership::Leadership;
use super::lease_clock::LeaseClock;
use super::leases::Leases;
use super::log_io::Fatal;
use super::log_store::{Closed, LogStore, MIRROR_BYTES_MAX};
use super::network::NetworkFactory;
use super::pulse::{self, Pulse};
use super::reads::{Proof, Reads, Sources};
use super::registry::RaftRegistry;
use super::roster::Roster;
use super::rpc::RpcServer;
use super::snapshot::SnapshotStore;
use super::state_machine::StateMachine;
use super::types::{LogId, Raft};
use super::watch::Watches;
use crate::cluster::{Backup, Role};
use crate::model::ident::NodeId;
use crate::model::time::UnixMillis;
use crate::net::clock::{Clock, SystemClock};
use crate::net::links::{Links, Purpose};
use crate::registry::{Consistency, QueryCall, Reason};

/// The exit code of a node that cannot go on.
const EXIT_FAILED: i32 = 3;
/// How long a stopping node waits for its disk.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// How often a snapshot that was asked for is asked for again, as long as there is none.
const SNAPSHOT_POLL: Duration = Duration::from_millis(200);

/// When a leader counts as lost. The wider `election_min..election_max`, the rarer two candidates at once; the shorter, the sooner
/// a new leader, and the more often a slow one is deposed for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    pub heartbeat: Duration,
    pub election_min: Duration,
    pub election_max: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self { heartbeat: ms(100), election_min: ms(400), election_max: ms(800) }
    }
}

/// What a node of `cp` needs to know.
#[derive(Clone)]
pub struct RaftConfig {
    pub node: NodeId,
    /// The first members and their peer addresses (HOST:PORT), this node among them. Once there is a log, what it says counts.
    pub cluster_members: BTreeMap<NodeId, String>,
    /// False: this node joins a cluster that there is already, and waits to be told of it.
    pub founds: bool,
    /// Holds `raft/`, `snap/` and a file that tells whose they are.
    pub data_dir: PathBuf,
    pub timing: Timing,
    /// Log entries between two snapshots.
    pub snapshot_every: u64,
    /// Log entries kept behind a snapshot, so that a peer that was away for a moment need not be sent the whole table.
    pub log_kept: u64,
    /// Events kept in memory, from which a watch can be resumed. Fewer where they are large.
    pub watch_history: usize,
    /// How often a watcher is told how far it is, if nothing else is.
    pub watch_progress: Duration,
    pub clock: Arc<dyn Clock>,
    /// Called once, with one line, when the node cannot go on: its disk has failed, or Raft has. Must not return in production:
    /// after a failed `fsync` nothing that the node says can be believed.
    pub fatal: Fatal,
    pub flaws: Flaws,
}

impl RaftConfig {
    pub fn new(node: NodeId, cluster_members: BTreeMap<NodeId, String>, data_dir: PathBuf) -> Self {
        Self {
            node,
            cluster_members,
            founds: true,
            data_dir,
            timing: Timing::default(),
            snapshot_every: 50_000,
            log_kept: 20_000,
            watch_history: 100_000,
            watch_progress: Duration::from_secs(15),
            clock: Arc::new(SystemClock),
            fatal: Arc::new(|line| {
                eprintln!("quorate: {line}");
                std::process::exit(EXIT_FAILED);
            }),
            flaws: Flaws::default(),
        }
    }
}

/// What a node knows of its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaftStatus {
    pub leader: Option<NodeId>,
    pub term: u64,
    /// Index of the last log entry applied here; 0 before the first.
    pub applied: u64,
    pub committed: u64,
    /// Every member's peer address and role.
    pub members: BTreeMap<NodeId, (String, Role)>,
}

/// Indexes of the last entry purged, of the last one in the snapshot, and of the last one of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogExtent {
    pub purged: Option<u64>,
    pub snapshot: Option<u64>,
    pub last: Option<u64>,
}

/// A running node.
pub struct RaftNode {
    pub registry: Arc<RaftRegistry>,
    /// Said once, where the log knows other members than the configuration does: the log's count.
    pub notice: Option<String>,
    cluster: String,
    raft: Raft,
    tasks: Vec<AbortHandle>,
    closed: Closed,
    snapshots_closed: Option<Closed>,
}

/// Opens the data directory, takes the links of `cp`, and runs.
pub async fn start(config: RaftConfig, links: Links) -> Result<RaftNode, StartError> {
    // Taken at once: a peer that calls while the disk is being read waits, rather than being refused.
    let purposes = [Purpose::Replication, Purpose::Heartbeat, Purpose::Election, Purpose::Snapshot];
    let incoming = purposes.map(|purpose| links.accept(purpose));
    let forwarded = links.accept(Purpose::Forward);

    let (log, closed, snapshots) = open(&config, &links).await?;
    let snapshots_closed = snapshots.when_closed();
    let pristine = log.is_pristine();
    let raft_config = openraft_config(&config, links.identity().cluster.clone(), pristine)?;
    let cluster = links.identity().cluster.clone();
    let contacts = Arc::new(Contacts::new(config.clock.clone()));
    let network = NetworkFactory::new(links.clone(), contacts.clone(), config.timing.election_max);
    let lease_clock = Arc::new(LeaseClock::default());
    let durable = Some(log.durable());
    let (machine, view) = StateMachine::new(snapshots.clone(), durable, config.watch_history, lease_clock.clone());
    let damaged = |e: &dyn std::fmt::Display| StartError::Damaged { path: config.data_dir.clone(), why: e.to_string() };
    let raft =
        Raft::new(config.node, Arc::new(raft_config), network, log.clone(), machine).await.map_err(|e| match e {
            RaftFatal::StorageError(e) => damaged(&e),
            other => StartError::Raft(other.to_string()),
        })?;

    let leadership = Arc::new(Leadership::new(config.node, &raft, contacts.clone(), config.timing));
    let addresses = leadership.clone();
    let forwarder = Forwarder::new(links, contacts.clone(), move |node| addresses.address(node));
    let reads = Arc::new(Reads::new(Sources {
        raft: raft.clone(),
        leadership: leadership.clone(),
        forwarder: forwarder.clone(),
        view: view.clone(),
        timing: config.timing,
    }));
    let keeper = Arc::new(Keeper {
        raft: raft.clone(),
        view: view.clone(),
        reads: reads.clone(),
        clock: lease_clock.clone(),
        leadership: leadership.clone(),
        flaws: config.flaws,
    });
    // Watches end when its keeper does.
    let (pulse, pulse_seen) = tokio::sync::watch::channel(Pulse::default());
    let watches = Watches { feed: view.events().clone(), pulse: pulse_seen, progress_period: config.watch_progress };
    let keeping = tokio::spawn(pulse::keep(leadership.clone(), config.timing, pulse)).abort_handle();
    let leases = Leases {
        raft: raft.clone(),
        view: view.clone(),
        clock: lease_clock,
        pace: config.flaws.pace,
        wall: WallClock::start(config.flaws.wall_clock_leases),
    };
    let registry = Arc::new(RaftRegistry {
        node: config.node,
        raft: raft.clone(),
        view,
        log,
        leadership,
        keeping: keeper.gather(),
        passing_on: passing_on(forwarder.clone()),
        keeper,
        forwarder,
        reads,
        clock: config.clock.clone(),
        commands: RaftRegistry::commands(),
        flaws: config.flaws,
        speculation: Speculation::default(),
        watches,
        contacts: contacts.clone(),
        timing: config.timing,
        change: tokio::sync::Mutex::default(),
    });

    // A node that has taken part before may have promised a leader, just before it stopped, not to elect another one yet.
    // Alone, it has promised nothing to anybody but itself.
    let alone = raft.metrics().borrow_watched().membership_config.membership().voter_ids().eq([config.node]);
    let guarded_until = (!pristine && !alone).then(|| Instant::now() + config.timing.election_max);
    raft.runtime_config().elect(guarded_until.is_none());
    let server = RpcServer { raft: raft.clone(), contacts: contacts.clone(), snapshots, guarded_until };
    let mut tasks = incoming.map(|links| tokio::spawn(server.clone().serve(links)).abort_handle()).to_vec();
    let answering = registry.clone();
    let answer = move |ask, deadline| {
        let registry = answering.clone();
        async move { registry.answer_peer(ask, deadline).await }
    };
    tasks.push(keeping);
    tasks.push(tokio::spawn(forward::serve(forwarded, contacts, answer)).abort_handle());
    tasks.push(tokio::spawn(watch_over(raft.clone(), config.fatal.clone())).abort_handle());
    tasks.push(tokio::spawn(leases.run()).abort_handle());
    tasks.push(tokio::spawn(registry.clone().finish_changes()).abort_handle());
    if let Some(until) = guarded_until {
        let raft = raft.clone();
        let guard = async move {
            tokio::time::sleep_until(until).await;
            raft.runtime_config().elect(true);
        };
        tasks.push(tokio::spawn(guard).abort_handle());
    }
    let notice = notice(&raft, &config.cluster_members);
    if pristine && config.founds {
        tasks.push(tokio::spawn(begin(raft.clone(), config)).abort_handle());
    }
    Ok(RaftNode { registry, notice, cluster, raft, tasks, closed, snapshots_closed })
}

async fn open(config: &RaftConfig, links: &Links) -> Result<(LogStore, Closed, Arc<SnapshotStore>), StartError> {
    let (data, fatal, lost_fsync) = (config.data_dir.clone(), config.fatal.clone(), config.flaws.lost_fsync);
    let owner = Owner { cluster: links.identity().cluster.clone(), node: config.node };
    let opening = move || {
        let unusable = |source| StartError::Unusable { path: data.clone(), source };
        std::fs::create_dir_all(&data).map_err(unusable)?;
        let required = owner.check(&data)?;
        let snapshots = SnapshotStore::open(&data.join("snap"), required, Box::new(Fdatasync))?;
        let barrier: Box<dyn Barrier> = if lost_fsync { Box::new(LostFsync) } else { Box::new(Fdatasync) };
        let (log, closed) = LogStore::open(&data.join("raft"), required, barrier, MIRROR_BYTES_MAX, fatal)?;
        if !required {
            owner.claim(&data).map_err(unusable)?;
        }
        Ok((log, closed, snapshots))
    };
    tokio::task::spawn_blocking(opening).await.map_err(|e| StartError::Raft(e.to_string()))?
}

fn openraft_config(config: &RaftConfig, cluster_name: String, pristine: bool) -> Result<Config, StartError> {
    let ms = |duration: Duration| duration.as_millis() as u64;
    let timing = &config.timing;
    let raft = Config {
        cluster_name,
        heartbeat_interval: ms(timing.heartbeat),
        election_timeout_min: ms(timing.election_min),
        election_timeout_max: ms(timing.election_max),
        // Until the restart guard is over, see `start`.
        enable_elect: pristine,
        enable_pre_vote: Some(true),
        // A restarted leader that went on in its old term could fork history if its disk had lost something.
        enable_leader_restore: Some(false),
        // A leader that has lost its majority must not hold back those who have not (openraft #2080).
        quorum_loss_probe_interval: Some(2 * ms(timing.election_max)),
        max_payload_entries: 1024,
        install_snapshot_timeout: 10_000,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_every),
        // Purging close behind the applied entries is what openraft #2116 stumbles over.
        max_in_snapshot_log_to_keep: config.log_kept,
        purge_batch_size: (config.log_kept / 8).clamp(1, 1000),
        ..Config::default()
    };
    raft.validate().map_err(|e| StartError::Raft(e.to_string()))
}

/// Makes the first members known to an empty log. All nodes do so alike, which is safe; the one with the lowest id at once, the
/// others only if they have heard of nobody for a while: candidates that begin together only split the votes.
async fn begin(raft: Raft, config: RaftConfig) {
    let lowest = config.cluster_members.keys().next() == Some(&config.node);
    if !lowest {
        tokio::time::sleep(config.timing.election_max * 2).await;
    }
    let members = config.cluster_members.iter().map(|(id, addr)| (*id, BasicNode::new(addr)));
    match raft.initialize(members.collect::<BTreeMap<_, _>>()).await {
        Ok(()) => {}
        // A peer was quicker, and what it says counts.
        Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {}
        Err(RaftError::Fatal(_)) => {}
        Err(RaftError::APIError(InitializeError::NotInMembers(e))) => {
            (config.fatal)(&format!("this node is not among the members it was given: {e}"));
        }
    }
}

/// What is to be said if the log knows other members than those given.
fn notice(raft: &Raft, given: &BTreeMap<NodeId, String>) -> Option<String> {
    let membership = raft.metrics().borrow_watched().membership_config.clone();
    let known = membership.membership().nodes().map(|(id, node)| (*id, node.addr.clone())).collect::<BTreeMap<_, _>>();
    if known.is_empty() || known == *given {
        return None;
    }
    let list = known.iter().map(|(id, addr)| format!("{id}={addr}")).collect::<Vec<_>>().join(",");
    Some(format!("the members in the log count, not those given: {list}"))
}

/// Raft that has stopped by itself takes the node with it.
async fn watch_over(raft: Raft, fatal: Fatal) {
    let mut metrics = raft.metrics();
    loop {
        let state = metrics.borrow_and_update().running_state.clone();
        match state {
            Ok(()) => {}
            Err(RaftFatal::Stopped) => return,
            Err(e) => return fatal(&format!("Raft has failed: {e}; this node stops")),
        }
        if metrics.changed().await.is_err() {
            return;
        }
    }
}

impl RaftNode {
    pub fn status(&self) -> RaftStatus {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let membership = metrics.membership_config.membership();
        let role = |id: &NodeId| match () {
            () if metrics.current_leader == Some(*id) => Role::Leader,
            () if membership.voter_ids().any(|voter| voter == *id) => Role::Voter,
            () => Role::Learner,
        };
        let index = |id: Option<LogId>| id.map_or(0, |id| id.index());
        RaftStatus {
            leader: metrics.current_leader,
            term: metrics.current_term,
            applied: index(metrics.last_applied),
            committed: index(metrics.local_committed),
            members: membership.nodes().map(|(id, node)| (*id, (node.addr.clone(), role(id)))).collect(),
        }
    }

    /// Who is in the cluster as far as this node has applied the log, and who was removed from it.
    pub fn roster(&self) -> watch::Receiver<Arc<Roster>> {
        self.registry.view.roster()
    }

    /// Has the table written to disk as it is now, or later; the index of the last entry in the snapshot.
    pub async fn take_snapshot(&self, deadline: Instant) -> Result<u64, Reason> {
        let internal = |e: &dyn std::fmt::Display| Reason::Internal(e.to_string());
        let Some(applied) = self.registry.view.now().applied else { return Err(Reason::Starting) };
        let is_new = |snapshot: Option<LogId>| snapshot.filter(|snapshot| snapshot.index() >= applied.index());
        let mut metrics = self.raft.metrics();
        let taken = async {
            loop {
                if let Some(snapshot) = is_new(metrics.borrow_and_update().snapshot) {
                    return Ok(snapshot.index());
                }
                // Asked again each time: one that was under way already, of an older state, is not enough.
                self.registry.view.want_snapshot(true);
                self.raft.trigger().snapshot().await.map_err(|e| internal(&e))?;
                let changed = timeout(SNAPSHOT_POLL, metrics.changed()).await;
                if let Ok(Err(e)) = changed {
                    return Err(internal(&e));
                }
            }
        };
        let taken = timeout_at(deadline, taken).await.unwrap_or(Err(Reason::Timeout));
        self.registry.view.want_snapshot(false);
        taken
    }

    /// The whole table, as new as this call, for a file.
    pub async fn backup(&self, deadline: std::time::Instant) -> Result<Backup, Reason> {
        let call = QueryCall::new(deadline, Consistency::Linearizable);
        self.registry.catch_up(Proof::Majority, &call).await?;
        let table = self.registry.view.now().table.clone();
        let revision = table.revision();
        let term = self.raft.metrics().borrow_watched().current_term;
        let (cluster, at) = (self.cluster.clone(), UnixMillis(self.registry.clock.wall_ms()));
        let writing = tokio::task::spawn_blocking(move || backup::write(&cluster, table, term, at));
        match timeout_at(deadline.into(), writing).await {
            Ok(Ok(Ok(pieces))) => Ok(Backup { revision, pieces }),
            Ok(Ok(Err(e))) => Err(Reason::Internal(e.to_string())),
            Ok(Err(e)) => Err(Reason::Internal(e.to_string())),
            Err(_) => Err(Reason::Timeout),
        }
    }

    /// Which entries this node's log holds.
    pub fn log_extent(&self) -> LogExtent {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let index = |id: Option<LogId>| id.map(|id| id.index());
        LogExtent { purged: index(metrics.purged), snapshot: index(metrics.snapshot), last: metrics.last_log_index }
    }

    /// Stops taking part. When this returns, the data directory is free again, unless a call is still under way.
    pub async fn stop(self) {
        self.tasks.iter().for_each(AbortHandle::abort);
        let _ = self.raft.shutdown().await;
        let Self { registry, raft, closed, snapshots_closed, .. } = self;
        drop((registry, raft));
        // A snapshot under way is finished first.
        let closing = tokio::task::spawn_blocking(move || {
            closed.wait(CLOSE_PATIENCE);
            if let Some(closed) = snapshots_closed {
                closed.wait(CLOSE_PATIENCE);
            }
        });
        let _ = closing.await;
    }
}
