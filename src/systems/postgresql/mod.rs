//! PostgreSQL: one database as the source of truth, or two-phase commit over three. The servers stand at the first nodes; at each node
//! stands a client of theirs. [`connection`] is one connection, [`single`] and [`two_phase`] are the calls.

mod connection;
mod single;
mod two_phase;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use async_trait::async_trait;
use rustix::process::Signal;
use tokio::task::JoinSet;

use self::connection::{Database, Lack};
use self::single::{SingleClient, owner_and_token};
use self::two_phase::{Coordinator, TwoPhaseClient};
use crate::model::ident::NodeId;
use crate::referee::client::{Abilities, Client, Promises, Running, System};
use crate::referee::history::View;
use crate::systems::Place;
use crate::systems::doors::{Condition, Door};
use crate::systems::process::Line;
use crate::systems::rival::{Api, Rival, Servers, User, addresses, made};

/// The databases' superuser.
const USER: &str = "quorate";
/// Whom Debian's package makes for it: the server refuses to be root.
const SYSTEM_USER: &str = "postgres";
const PACKAGE: &str = "postgresql";
const PORT: u16 = 5432;
/// Databases of two-phase commit.
const DATABASES: usize = 3;
const ANSWER_MAX: Duration = Duration::from_secs(1);

const SCHEMA: &str =
    "CREATE TABLE IF NOT EXISTS entries (key text PRIMARY KEY, owner text NOT NULL, token bigint NOT NULL);
    CREATE SEQUENCE IF NOT EXISTS tokens";

/// What entries are kept under.
mod keys {
    pub fn name(name: &str) -> String {
        format!("n/{name}")
    }

    /// What the keys of its members begin with.
    pub fn group(group: &str) -> String {
        format!("g/{group}/")
    }

    pub fn member(group: &str, member: &str) -> String {
        format!("g/{group}/{member}")
    }
}

/// The systems `postgresql` and `postgresql-2pc`.
pub struct PostgreSql {
    name: String,
    two_phase: bool,
    place: Place,
}

/// The system of that name.
pub fn system(name: &str, two_phase: bool, place: &Place) -> Box<dyn System> {
    let place = Place { dir: place.dir.join(name), ..place.clone() };
    Box::new(PostgreSql { name: name.to_owned(), two_phase, place })
}

/// Where the server programs lie: Debian keeps each version's to itself. The newest.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.filter_map(|entry| {
        let entry = entry.ok()?;
        let version: u32 = entry.file_name().to_str()?.parse().ok()?;
        let bin = entry.path().join("bin");
        (bin.join("postgres").is_file() && bin.join("initdb").is_file()).then_some((version, bin))
    });
    versions.max().map(|(_, bin)| bin)
}

/// Whom the servers run as; None: as the referee, who is not root.
fn user() -> anyhow::Result<Option<User>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
    let line = users.lines().find_map(|line| line.strip_prefix(&format!("{SYSTEM_USER}:")));
    let mut fields = line
        .ok_or_else(|| anyhow!("there is no user {SYSTEM_USER}, and the server refuses to be root"))?
        .split(':')
        .skip(1);
    let mut id = || fields.next().and_then(|id| id.parse().ok()).context("/etc/passwd cannot be read");
    Ok(Some(User { uid: id()?, gid: id()? }))
}

impl PostgreSql {
    fn line(&self, bin: &Path, node: NodeId, at: SocketAddr, data: &Path) -> Line {
        let settings = [
            format!("listen_addresses={}", at.ip()),
            format!("port={}", at.port()),
            "unix_socket_directories=".to_owned(),
            "max_connections=200".to_owned(),
            "max_prepared_transactions=100".to_owned(),
            "shared_buffers=16MB".to_owned(),
            "log_min_messages=fatal".to_owned(),
        ];
        let mut args = vec!["-D".to_owned(), data.display().to_string()];
        args.extend(settings.into_iter().flat_map(|setting| ["-c".to_owned(), setting]));
        let log = self.place.dir.join(format!("node-{node}.log"));
        // Immediately, but with its shared memory given back.
        Line { end: Signal::QUIT, ..Line::new(bin.join("postgres"), args, log) }
    }
}

/// Makes an empty database cluster, open to all who reach it.
fn init(bin: &Path, data: &Path, user: Option<User>) -> anyhow::Result<()> {
    fs::create_dir_all(data)?;
    let mut initdb = Command::new(bin.join("initdb"));
    initdb.arg("-D").arg(data).args(["-U", USER, "-A", "trust", "-N", "-E", "UTF8", "--no-locale"]);
    if let Some(user) = user {
        std::os::unix::fs::chown(data, Some(user.uid), Some(user.gid))?;
        user.run(&mut initdb);
    }
    let done = initdb.output().context("cannot start initdb")?;
    if !done.status.success() {
        bail!("initdb: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    let mut access = OpenOptions::new().append(true).open(data.join("pg_hba.conf"))?;
    Ok(access.write_all(b"host all all 0.0.0.0/0 trust\n")?)
}

#[async_trait]
impl System for PostgreSql {
    fn name(&self) -> &str {
        &self.name
    }

    /// One database has one order and no majority; it answers where it is reached. Over several the writes have one order, since all
    /// begin at the first, and reads of different databases may not.
    fn promises(&self) -> Promises {
        Promises { linearizable: !self.two_phase, one_order: true, converges: true, ..Promises::NONE }
    }

    fn abilities(&self) -> Abilities {
        Abilities { groups: true, tokens: true, ..Abilities::NAMES }
    }

    fn missing(&self) -> Option<String> {
        programs().is_none().then(|| format!("its server is not installed: apt-get install {PACKAGE}"))
    }

    async fn start(&self, nodes: usize, _seed: u64) -> anyhow::Result<Box<dyn Running>> {
        let bin = programs().context("its server is not installed")?;
        let user = user()?;
        let nodes = (1..=nodes as NodeId).collect::<Vec<_>>();
        let with_server = &nodes[..nodes.len().min(if self.two_phase { DATABASES } else { 1 })];
        made(self.place.dir.clone())?;
        let mut servers = Servers::new(self.place.net.clone(), user)?;
        nodes.iter().for_each(|node| servers.add_node(*node));
        let mut inits = JoinSet::new();
        let mut databases = Vec::new();
        for (node, at) in addresses(&self.place, with_server, 1, PORT)? {
            let data = self.place.dir.join(format!("node-{node}"));
            servers.add(node, self.line(&bin, node, at[0], &data), data.clone());
            databases.push(at[0]);
            let bin = bin.clone();
            inits.spawn_blocking(move || init(&bin, &data, user));
        }
        inits.join_all().await.into_iter().collect::<anyhow::Result<()>>()?;
        servers.start_all().await?;
        let mut api =
            PostgreSqlApi { at: BTreeMap::new(), databases, sweeps: JoinSet::new(), version: OnceLock::new() };
        for node in &nodes {
            let door = Arc::new(Door::new(*node, self.place.net.clone()));
            let coordinator = match self.two_phase {
                true => Some(Arc::new(Coordinator::new(door.clone(), api.databases.clone(), &self.place.dir)?)),
                false => None,
            };
            coordinator.iter().cloned().for_each(|coordinator| drop(api.sweeps.spawn(coordinator.sweep())));
            api.at.insert(*node, Stand { door, coordinator });
        }
        Ok(Box::new(Rival { servers, api }.whole().await?))
    }
}

/// What stands at a node.
struct Stand {
    door: Arc<Door>,
    coordinator: Option<Arc<Coordinator>>,
}

struct PostgreSqlApi {
    at: BTreeMap<NodeId, Stand>,
    databases: Vec<SocketAddr>,
    /// They go with the system.
    sweeps: JoinSet<()>,
    version: OnceLock<String>,
}

impl PostgreSqlApi {
    /// Whom a node asks: its own database, or one of the others'.
    fn asks(&self, node: NodeId) -> SocketAddr {
        self.databases[(node as usize - 1) % self.databases.len()]
    }

    fn has_database(&self, node: NodeId) -> bool {
        node as usize <= self.databases.len()
    }
}

#[async_trait]
impl Api for PostgreSqlApi {
    fn client(&self, node: NodeId) -> Box<dyn Client> {
        let Stand { door, coordinator } = &self.at[&node];
        match coordinator {
            Some(coordinator) => Box::new(TwoPhaseClient::new(coordinator.clone(), self.asks(node))),
            None => Box::new(SingleClient::new(door.clone(), self.asks(node))),
        }
    }

    async fn ready(&self, node: NodeId) -> anyhow::Result<()> {
        if !self.has_database(node) {
            return Ok(());
        }
        let mut database = Database::new(self.at[&node].door.clone(), self.asks(node));
        let deadline = Instant::now() + ANSWER_MAX;
        let none = |(Lack::NotDone(why) | Lack::Unknown(why))| anyhow!(why);
        database.run(SCHEMA, deadline).await.map_err(none)?;
        let rows = database.query("SHOW server_version", &[], deadline).await.map_err(none)?;
        if let Some(version) = rows.first().and_then(|row| row.try_get::<_, String>(0).ok()) {
            let _ = self.version.set(version);
        }
        Ok(())
    }

    async fn harmed(&self, node: NodeId, condition: Condition) {
        self.at[&node].door.set(condition);
    }

    async fn facts(&self) -> Vec<(&'static str, String)> {
        let version = self.version.get().map_or("of unknown version", String::as_str);
        let where_ = match self.databases.len() {
            1 => "one, at node 1; a client of it at every node".to_owned(),
            n => format!("{n}, at the nodes 1 to {n}; a coordinator at every node"),
        };
        vec![("program", format!("PostgreSQL {version}, fsync on")), ("databases", where_)]
    }

    fn has_leader(&self) -> bool {
        self.databases.len() == 1
    }

    async fn leader(&self, up: &[NodeId]) -> Option<NodeId> {
        up.first().copied().filter(|node| *node == 1 && self.has_leader())
    }

    async fn view(&self, node: NodeId, deadline: Instant) -> anyhow::Result<View> {
        let door = &self.at[&node].door;
        let mut database = Database::new(door.clone(), self.asks(node));
        let none = |(Lack::NotDone(why) | Lack::Unknown(why))| anyhow!(why);
        let sql = "SELECT owner, token, key FROM entries";
        let rows = door.through(database.query(sql, &[], deadline)).await.map_err(|_| anyhow!("it was killed"))?;
        let mut view = View { node, names: BTreeMap::new(), groups: BTreeMap::new(), leader: None };
        for row in rows.map_err(none)? {
            let held = owner_and_token(&row).map_err(none)?;
            let key: String = row.try_get(2)?;
            if let Some(name) = key.strip_prefix("n/") {
                view.names.insert(name.to_owned(), held);
            } else if let Some((group, member)) = key.strip_prefix("g/").and_then(|rest| rest.split_once('/')) {
                view.groups.entry(group.to_owned()).or_default().insert(member.to_owned());
            }
        }
        Ok(view)
    }
}
