//! A configuration in, a running node out.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::{AbortHandle, JoinHandle};

use super::config::{Config, Flaw};
use super::follow::Follower;
use super::identity::{self, Founding, IdentityError, Keeper};
use super::reread::Rereader;
use super::view::NodeView;
use crate::gossip::{self, GossipConfig, GossipNode};
use crate::http::{self, HttpState};
use crate::model::ident::{Mode, NodeId};
use crate::net::fault::FaultTable;
use crate::net::links::{About, Identity, Links};
use crate::net::wire::RealWire;
use crate::post::PostOffice;
use crate::raft::{self, RaftConfig, RaftNode};

/// How long a stopping node waits for requests under way.
const DRAIN_PATIENCE: Duration = Duration::from_secs(2);

/// How long a stopping leader waits for another one.
const RESIGN_PATIENCE: Duration = Duration::from_secs(1);

/// A node that serves.
pub struct Node {
    id: NodeId,
    mode: Mode,
    http: SocketAddr,
    peer: SocketAddr,
    scheme: &'static str,
    notices: Vec<String>,
    warnings: Vec<String>,
    raft: Arc<RaftNode>,
    gossip: Arc<GossipNode>,
    links: Links,
    stop_http: oneshot::Sender<()>,
    serving: JoinHandle<io::Result<()>>,
    /// Reads certificates and credentials again.
    rereading: Option<JoinHandle<()>>,
    following: AbortHandle,
    keeper: Arc<Keeper>,
    entering: bool,
    /// Where its peers reach it.
    advertised: String,
    removed: watch::Receiver<Option<String>>,
}

/// Why a node does not start: one line, with the mend.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A file of certificates, keys or credentials.
    #[error("{0}")]
    Lock(String),
    #[error("cannot listen for {what} at {at}: {source}; {mend}")]
    Listen { what: &'static str, at: SocketAddr, source: io::Error, mend: String },
    #[error("cp cannot start: {0}")]
    Raft(#[from] raft::StartError),
    #[error("ap cannot start: {0}")]
    Gossip(#[from] gossip::StartError),
}

impl Node {
    /// Starts a node. When this returns, it answers its clients, though it may still be looking for its peers.
    pub async fn start(config: Config) -> Result<Self, NodeError> {
        // Before anything is made on disk.
        let mut rereader = Rereader::default();
        let (terms, credentials) = config.locks.open(&mut rereader).map_err(NodeError::Lock)?;
        let peer_locks = config.locks.open_peers(config.id, &mut rereader).map_err(NodeError::Lock)?;
        let founding = Founding::of(&config);
        let (persisted, was_there) = identity::open(&config.data, config.id, &founding)?;
        let mut notices = Vec::new();
        if was_there && !config.members.is_empty() && config.members != persisted.members {
            notices.push(format!("{} knows this cluster already: --cluster is not looked at", config.data.display()));
        }
        let listener =
            TcpListener::bind(config.http).await.map_err(|e| listen_error("clients", "--http", config.http, e))?;
        let http = listener.local_addr().map_err(|e| listen_error("clients", "--http", config.http, e))?;

        let me = Identity {
            cluster: persisted.cluster.clone(),
            node: config.id,
            run: rand::random(),
            policy: config.conflicts.as_str().to_owned(),
        };
        let faults = FaultTable::new(me.run);
        let links = Links::bind_with(Arc::new(RealWire), me, config.peer, faults, peer_locks)
            .await
            .map_err(|e| listen_error("peers", "--peer", config.peer, e))?;
        let scheme = config.locks.http_scheme();
        let url = config.advertise_http.clone().unwrap_or_else(|| format!("{scheme}://{http}"));
        links.introduce(About { disk: persisted.disk, http: url });
        let mut members = persisted.members.clone();
        // Alone, or about to join.
        let own = || config.advertise_peer.clone().unwrap_or_else(|| links.local_addr().to_string());
        members.entry(config.id).or_insert_with(own);
        let (entering, retired) = (persisted.entering, persisted.retired.clone());
        links.expel(retired.iter().copied());
        let keeper = Arc::new(Keeper::new(&config.data, persisted));
        let known = keeper.clone();
        links.guard(Box::new(move |peer, about| known.refusal(peer, about.disk)));

        let (raft, gossip) = tokio::try_join!(
            async { Ok::<_, NodeError>(raft::start(raft_config(&config, &members, !entering), links.clone()).await?) },
            async {
                let gossip = GossipConfig { retired, entering, ..gossip_config(&config, &members) };
                Ok::<_, NodeError>(gossip::start(gossip, links.clone()).await?)
            },
        )?;
        let (raft, gossip) = (Arc::new(raft), Arc::new(gossip));
        notices.extend(raft.notice.clone());
        let (removed, removed_seen) = watch::channel(None);
        let (keeper, kept) = (keeper.clone(), keeper);
        let follower = Follower { id: config.id, links: links.clone(), keeper, gossip: gossip.clone(), removed };
        let following = tokio::spawn(follower.run(raft.roster())).abort_handle();
        let view = NodeView {
            links: links.clone(),
            raft: raft.clone(),
            gossip: gossip.clone(),
            peer: members[&config.id].clone(),
            faults_enabled: config.faults_enabled,
        };
        let known = Arc::downgrade(&raft);
        let peers = move || {
            let members = known.upgrade().map(|raft| raft.status().members).unwrap_or_default();
            members.into_iter().map(|(id, (addr, _))| (id, addr)).collect()
        };
        let post = PostOffice::start(raft.registry.clone(), gossip.registry.clone(), links.clone(), peers);
        let state = HttpState {
            messages: Arc::new(post),
            cp: raft.registry.clone(),
            ap: gossip.registry.clone(),
            node: config.id,
            cluster: Arc::new(view),
            default_mode: config.mode,
            allow_origins: config.allowed_origins.clone(),
            max_in_flight: config.max_in_flight,
            max_streams: config.max_streams,
        };
        let (stop_http, stopped) = oneshot::channel();
        let mut api = http::router(state).with_body_bytes(config.locks.max_body_bytes);
        if let Some(credentials) = credentials {
            api = api.asking_for(credentials);
        }
        let serving = tokio::spawn(http::serve_by(terms, listener, api, async {
            let _ = stopped.await;
        }));
        let peer = links.local_addr();
        Ok(Self {
            id: config.id,
            mode: config.mode,
            http,
            peer,
            scheme,
            notices,
            warnings: config.locks.warnings(http, peer),
            raft,
            gossip,
            links,
            stop_http,
            serving,
            rereading: rereader.start(),
            following,
            keeper: kept,
            entering,
            advertised: members[&config.id].clone(),
            removed: removed_seen,
        })
    }

    /// Where this node's clients reach it.
    pub fn http_addr(&self) -> SocketAddr {
        self.http
    }

    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Where this node's peers reach it.
    pub fn peer_addr(&self) -> &str {
        &self.advertised
    }

    /// Whether it has yet to become a member of the cluster that it joins.
    pub fn is_entering(&self) -> bool {
        self.entering
    }

    /// It is a member now, and need not be added any more.
    pub async fn entered(&self) {
        let keeper = self.keeper.clone();
        let _ = tokio::task::spawn_blocking(move || keeper.entered()).await;
    }

    /// What to tell the operator when the node has started.
    pub fn greeting(&self) -> String {
        let mut lines = self.notices.iter().map(|notice| format!("note: {notice}\n")).collect::<String>();
        lines += &format!(
            "node {} serves {}://{} ({} unless a path says otherwise), peers at {}",
            self.id, self.scheme, self.http, self.mode, self.peer
        );
        lines
    }

    /// What an operator has to know before strangers find out: one line for each lock that is missing.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Returns once this node has learnt that it was removed from its cluster, with one line for its operator. It is of no more use.
    pub fn removed(&self) -> impl Future<Output = String> + use<> {
        let mut removed = self.removed.clone();
        async move {
            match removed.wait_for(Option::is_some).await.map(|why| why.clone()) {
                Ok(Some(why)) => why,
                Ok(None) | Err(_) => std::future::pending().await,
            }
        }
    }

    /// Hands over the lead, finishes what is under way, and stops.
    pub async fn stop(self) {
        // While this node still answers: writes are refused only until the next leader is there.
        self.raft.registry.resign(tokio::time::Instant::now() + RESIGN_PATIENCE).await;
        self.following.abort();
        if let Some(rereading) = &self.rereading {
            rereading.abort();
        }
        let _ = self.stop_http.send(());
        let mut serving = self.serving;
        if tokio::time::timeout(DRAIN_PATIENCE, &mut serving).await.is_err() {
            serving.abort();
            let _ = serving.await;
        }
        self.gossip.stop().await;
        // Held by a request that would not end: its disk is safe all the same, it is only closed without waiting.
        if let Some(raft) = Arc::into_inner(self.raft) {
            raft.stop().await;
        }
        self.links.close();
    }
}

fn raft_config(config: &Config, members: &BTreeMap<NodeId, String>, founds: bool) -> RaftConfig {
    let mut raft = RaftConfig::new(config.id, members.clone(), config.data.clone());
    raft.founds = founds;
    raft.timing.election_min = config.election_timeout;
    raft.timing.election_max = 2 * config.election_timeout;
    raft.timing.heartbeat = config.election_timeout / 4;
    raft.flaws = raft::Flaws {
        local_reads: config.flaws.contains(&Flaw::LocalReads),
        ack_before_replication: config.flaws.contains(&Flaw::AckEarly),
        drop_on_resume: config.flaws.contains(&Flaw::DropOnResume),
        lost_fsync: config.flaws.contains(&Flaw::LostFsync),
        pace: match (config.flaws.contains(&Flaw::EarlyExpiry), config.flaws.contains(&Flaw::LateExpiry)) {
            (true, _) => raft::Pace::Hasty,
            (false, true) => raft::Pace::Slow,
            (false, false) => raft::Pace::Right,
        },
        wall_clock_leases: config.flaws.contains(&Flaw::WallClockLeases),
        no_fencing: config.flaws.contains(&Flaw::NoFencing),
        duplicate_member: config.flaws.contains(&Flaw::DuplicateMember),
        ..raft::Flaws::default()
    };
    raft.watch_history = config.watch_history;
    raft
}

fn gossip_config(config: &Config, members: &BTreeMap<NodeId, String>) -> GossipConfig {
    let mut gossip = GossipConfig::new(config.id, members.clone(), config.data.clone());
    gossip.down_after = config.down_after;
    gossip.watch_history = config.watch_history;
    gossip.flaws = gossip::Flaws {
        never_resolve: config.flaws.contains(&Flaw::NeverResolve),
        transfer_without_context: config.flaws.contains(&Flaw::ForgetContext),
        remote_wins: config.flaws.contains(&Flaw::RemoteWins),
        mute_losers: config.flaws.contains(&Flaw::MuteLosers),
        forget_records: config.flaws.contains(&Flaw::ForgetRecords),
        drop_on_resume: config.flaws.contains(&Flaw::DropOnResume),
        leases: None,
    };
    gossip
}

fn listen_error(what: &'static str, flag: &str, at: SocketAddr, source: io::Error) -> NodeError {
    let mend = match source.kind() {
        io::ErrorKind::AddrInUse => format!("another process listens there: stop it or choose another {flag}"),
        io::ErrorKind::AddrNotAvailable => format!("this machine has no such address: choose another {flag}"),
        io::ErrorKind::PermissionDenied => format!("that port needs more rights: choose another {flag}"),
        _ => format!("choose another {flag}"),
    };
    NodeError::Listen { what, at, source, mend }
}
