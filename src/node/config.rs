//! What a node is told: flags and environment as typed ([`ServeArgs`]), and as meant ([`Config`]).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::locks::{LockArgs, Locks};
use crate::model::ident::{Mode, NodeId};

/// The flags of `quorate serve`.
#[derive(Args, Clone, Debug)]
pub struct ServeArgs {
    /// This node's id: unique in the cluster, for ever
    #[arg(long, env = "QUORATE_ID", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub id: NodeId,
    /// Where clients reach this node
    #[arg(long, env = "QUORATE_HTTP", value_name = "ADDR", default_value = "127.0.0.1:7401")]
    pub http: SocketAddr,
    /// Where other nodes reach this node, over TCP and UDP
    #[arg(long, env = "QUORATE_PEER", value_name = "ADDR", default_value = "127.0.0.1:7501")]
    pub peer: SocketAddr,
    /// The URL to tell clients and nodes instead of --http's (behind a NAT, or when --http is 0.0.0.0)
    #[arg(long, env = "QUORATE_ADVERTISE_HTTP", value_name = "URL")]
    pub advertise_http: Option<String>,
    /// The address to tell other nodes instead of --peer's
    #[arg(long, env = "QUORATE_ADVERTISE_PEER", value_name = "HOST:PORT")]
    pub advertise_peer: Option<String>,
    /// Where this node keeps what must survive a crash; on a real disk
    #[arg(long, env = "QUORATE_DATA", value_name = "DIR", default_value = "quorate-data")]
    pub data: PathBuf,
    /// All nodes of the cluster with their peer addresses, the same list on every node: 1=HOST:PORT,2=HOST:PORT,…
    #[arg(long, env = "QUORATE_CLUSTER", value_name = "LIST")]
    pub cluster: Option<Members>,
    #[command(flatten)]
    pub join: JoinArgs,
    /// The registry that paths without a mode mean
    #[arg(long, env = "QUORATE_MODE", default_value = "cp")]
    pub mode: Mode,
    /// Who keeps an ap name that both sides of a partition registered; the same on every node
    #[arg(long, env = "QUORATE_CONFLICTS", value_enum, default_value_t = Conflicts::Oldest)]
    pub conflicts: Conflicts,
    /// How long an ap node that is out of reach keeps its names before they are hidden: longer than a restart takes
    #[arg(long, env = "QUORATE_DOWN_AFTER_MS", value_name = "MS", default_value_t = 30_000)]
    pub down_after_ms: u64,
    /// The least time a follower waits for its leader before it stands for election; the most is twice that
    #[arg(long, env = "QUORATE_ELECTION_TIMEOUT_MS", value_name = "MS", default_value_t = 400, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    pub election_timeout_ms: u64,
    /// Events kept in memory, from which a watch can be resumed; so many in each mode
    #[arg(long, env = "QUORATE_WATCH_HISTORY", value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub watch_history: u32,
    /// Requests that may be under way at once; more are answered 429
    #[arg(long, env = "QUORATE_MAX_IN_FLIGHT", value_name = "N", default_value_t = 4_096, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_in_flight: u32,
    /// Watches and inboxes that may be open at once; more are answered 429
    #[arg(long, env = "QUORATE_MAX_STREAMS", value_name = "N", default_value_t = 4_096, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_streams: u32,
    /// A web origin whose pages may call this node (repeat for more)
    #[arg(long, env = "QUORATE_ALLOW_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    pub allow_origin: Vec<String>,
    #[command(flatten)]
    pub locks: LockArgs,
    /// Lets anyone who reaches this node cut its links by /v1/faults; for tests and demonstrations
    #[arg(long, env = "QUORATE_ENABLE_FAULTS")]
    pub enable_faults: bool,
    /// Ends the node when its standard input ends: for programs that start nodes of their own
    #[arg(long, hide = true)]
    pub exit_with_stdin: bool,
    /// Plants a flaw (builds with the feature `flaws` alone)
    #[arg(long, hide = true, value_parser = parse_flaw)]
    pub flaw: Vec<Flaw>,
}

/// The flags of `quorate serve` by which a new node enters a cluster.
#[derive(Args, Clone, Debug)]
pub struct JoinArgs {
    /// Enters the cluster of the node that serves clients at this URL (or of another one in the list, if that does not answer), under
    /// an id and with a data directory that are both new
    #[arg(
        id = "join",
        long = "join",
        env = "QUORATE_JOIN",
        value_name = "URL,…",
        value_delimiter = ',',
        conflicts_with = "cluster"
    )]
    pub urls: Vec<String>,
    /// Stays a learner after --join: has everything, and does not vote
    #[arg(long, env = "QUORATE_LEARNER", requires = "join")]
    pub learner: bool,
    /// A file with the token to show when joining, which may change the cluster; or set QUORATE_CREDENTIAL to the token itself
    #[arg(
        id = "join_credential",
        long = "join-credential-file",
        env = "QUORATE_JOIN_CREDENTIAL_FILE",
        value_name = "FILE",
        requires = "join"
    )]
    pub credential: Option<PathBuf>,
    /// The roots (PEM) by which servers at https:// are believed when joining
    #[arg(
        id = "join_tls_roots",
        long = "join-tls-roots",
        env = "QUORATE_JOIN_TLS_ROOTS",
        value_name = "FILE",
        requires = "join"
    )]
    pub tls_roots: Option<PathBuf>,
    /// The certificate (PEM) to show when joining, to servers that ask for one
    #[arg(id = "join_tls_cert", long = "join-tls-cert", env = "QUORATE_JOIN_TLS_CERT", value_name = "FILE", requires_all = ["join", "join_tls_key"])]
    pub tls_cert: Option<PathBuf>,
    /// The key of that certificate (PEM)
    #[arg(id = "join_tls_key", long = "join-tls-key", env = "QUORATE_JOIN_TLS_KEY", value_name = "FILE", requires_all = ["join", "join_tls_cert"])]
    pub tls_key: Option<PathBuf>,
}

/// How the owners of one `ap` name are ranked after a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Conflicts {
    /// The established owner keeps the name.
    Oldest,
    /// The latest registration takes it.
    Newest,
}

impl Conflicts {
    pub fn as_str(self) -> &'static str {
        match self {
            Conflicts::Oldest => "oldest",
            Conflicts::Newest => "newest",
        }
    }
}

/// A flaw for the referee to find. See [`crate::FLAWS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Flaw {
    /// `cp` answers linearizable reads from what this node has applied.
    LocalReads,
    /// `cp` acknowledges a write before it is replicated.
    AckEarly,
    /// `cp` makes nothing durable.
    LostFsync,
    /// `cp` ends leases in half their time.
    EarlyExpiry,
    /// `cp` ends leases in three times their time.
    LateExpiry,
    /// `cp` judges leases by the wall clock.
    WallClockLeases,
    /// `cp` gives all grants one token, and looks at none.
    NoFencing,
    /// `cp` lists a member twice.
    DuplicateMember,
    /// `ap`: each node gives way to what comes from another.
    RemoteWins,
    /// `ap` never tells the owner of a lease what it has lost.
    MuteLosers,
    /// `ap` never withdraws the loser of a conflict.
    NeverResolve,
    /// `ap` takes over a peer's state without regard to what it has seen removed.
    ForgetContext,
    /// `ap` withdraws the loser of a conflict without a record of it.
    ForgetRecords,
    /// Both leave out what a watch has missed when it goes on.
    DropOnResume,
}

fn parse_flaw(text: &str) -> Result<Flaw, String> {
    if !crate::FLAWS {
        return Err("this build has no planted flaws".to_owned());
    }
    <Flaw as ValueEnum>::from_str(text, false)
}

/// Node ids and peer addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members(pub BTreeMap<NodeId, String>);

impl FromStr for Members {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let mut members = BTreeMap::new();
        for item in text.split(',') {
            let (id, addr) = item.split_once('=').ok_or_else(|| format!("{item:?} is not ID=HOST:PORT"))?;
            let id = id.trim().parse::<NodeId>().ok().filter(|id| *id > 0);
            let id = id.ok_or_else(|| format!("{item:?} does not begin with a node id (1, 2, …)"))?;
            let port = addr.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
            if !matches!(port, Some(Ok(1..))) {
                return Err(format!("{addr:?} is not HOST:PORT"));
            }
            if members.values().any(|other| other == addr) {
                return Err(format!("{addr} is given twice"));
            }
            if members.insert(id, addr.to_owned()).is_some() {
                return Err(format!("node {id} is given twice"));
            }
        }
        Ok(Self(members))
    }
}

/// What a node has to know of a cluster before it can become a member of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joining {
    /// The cluster's id.
    pub cluster: String,
    /// Its nodes' peer addresses.
    pub members: BTreeMap<NodeId, String>,
}

/// What a node needs to know, checked.
#[derive(Clone, Debug)]
pub struct Config {
    pub id: NodeId,
    pub http: SocketAddr,
    pub peer: SocketAddr,
    pub advertise_http: Option<String>,
    pub data: PathBuf,
    /// Every node's peer address, as other nodes reach it; this one included. Empty: alone, at whatever address it binds.
    pub members: BTreeMap<NodeId, String>,
    /// Where other nodes reach this one, if that is not where it listens.
    pub advertise_peer: Option<String>,
    /// The cluster that a node with an empty data directory is to become a member of.
    pub joining: Option<Joining>,
    pub mode: Mode,
    pub conflicts: Conflicts,
    pub down_after: Duration,
    pub election_timeout: Duration,
    /// Events kept for watches, in each mode.
    pub watch_history: usize,
    pub max_in_flight: usize,
    pub max_streams: usize,
    pub allowed_origins: Vec<String>,
    pub locks: Locks,
    pub faults_enabled: bool,
    pub exit_with_stdin: bool,
    pub flaws: Vec<Flaw>,
}

/// Why flags that are each well formed do not fit together; one line with the mend.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl TryFrom<ServeArgs> for Config {
    type Error = ConfigError;
    fn try_from(args: ServeArgs) -> Result<Self, ConfigError> {
        let joins = !args.join.urls.is_empty();
        let mut members = args.cluster.map(|members| members.0).unwrap_or_default();
        if !members.is_empty() && !members.contains_key(&args.id) {
            let ids = members.keys().map(NodeId::to_string).collect::<Vec<_>>().join(", ");
            return Err(ConfigError(format!(
                "--cluster lists nodes {ids}, but this is node {}: set --id or add it",
                args.id
            )));
        }
        let locks = Locks::try_from(args.locks).map_err(ConfigError)?;
        // Behind something that ends TLS for it, a node may serve http and be reached by https.
        if let Some(url) = &args.advertise_http
            && !url.starts_with("https://")
            && (!url.starts_with("http://") || locks.http_tls.is_some())
        {
            let scheme = if locks.http_tls.is_some() { "https://" } else { "http:// or https://" };
            return Err(ConfigError(format!("--advertise-http {url}: the URL has to begin with {scheme}")));
        }
        if joins && args.advertise_peer.is_none() && args.peer.ip().is_unspecified() {
            let detail = format!(
                "--peer {} is no address to reach this node at: tell the others by --advertise-peer",
                args.peer
            );
            return Err(ConfigError(detail));
        }
        match &args.advertise_peer {
            Some(addr) if members.is_empty() && !joins => {
                members.insert(args.id, addr.clone());
            }
            Some(addr) if !members.is_empty() && members.get(&args.id) != Some(addr) => {
                let listed = &members[&args.id];
                return Err(ConfigError(format!(
                    "--cluster lists node {} at {listed}, but --advertise-peer says {addr}: make them equal",
                    args.id
                )));
            }
            _ => {}
        }
        Ok(Self {
            id: args.id,
            http: args.http,
            peer: args.peer,
            advertise_http: args.advertise_http.map(|url| url.trim_end_matches('/').to_owned()),
            data: args.data,
            members,
            advertise_peer: args.advertise_peer,
            joining: None,
            mode: args.mode,
            conflicts: args.conflicts,
            down_after: Duration::from_millis(args.down_after_ms),
            election_timeout: Duration::from_millis(args.election_timeout_ms),
            watch_history: args.watch_history as usize,
            max_in_flight: args.max_in_flight as usize,
            max_streams: args.max_streams as usize,
            allowed_origins: args.allow_origin,
            locks,
            faults_enabled: args.enable_faults,
            exit_with_stdin: args.exit_with_stdin,
            flaws: args.flaw,
        })
    }
}
