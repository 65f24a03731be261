//! ZooKeeper: a name is a node of its tree, its token the transaction that created it. [`jute`] is its protocol, [`connection`]
//! a session with one server, [`client`] the registry's calls in its words.

mod client;
mod connection;
mod jute;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use async_trait::async_trait;

use self::client::{Versions, ZooKeeperClient};
use self::connection::{Lack, Session, four_letters};
use self::jute::{Answer, NODE_EXISTS, Request};
use super::Place;
use super::process::Line;
use super::rival::{self, Api, Rival, Servers, addresses, made};
use crate::model::ident::NodeId;
use crate::referee::client::{Abilities, Client, Promises, Running, System};
use crate::referee::history::View;

/// Debian's. What logs has to be there too.
const JARS: [&str; 2] = ["/usr/share/java/zookeeper.jar", "/usr/share/java/slf4j-simple.jar"];
const PACKAGES: &str = "zookeeper default-jre-headless libslf4j-java";
const MAIN: &str = "org.apache.zookeeper.server.quorum.QuorumPeerMain";
/// A follower that hears nothing for `SYNC_LIMIT` of these looks for another leader. Its own 2,000 ms and 5 would take longer than
/// a fault lasts.
const TICK_MS: u32 = 500;
const SYNC_LIMIT: u32 = 4;
/// Where servers that have addresses of their own serve clients; then what they tell each other, then elections.
const PORT: u16 = 2181;
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// The parts of the tree: names, groups, and for each entry a node that counts how often it was made.
const NAMES: &str = "/n";
const GROUPS: &str = "/g";
const COUNTERS: &str = "/c";

/// The system `zookeeper`.
pub struct ZooKeeper {
    place: Place,
}

impl ZooKeeper {
    pub fn new(place: &Place) -> Self {
        Self { place: Place { dir: place.dir.join("zookeeper"), ..place.clone() } }
    }

    fn line(&self, node: NodeId, addrs: &BTreeMap<NodeId, Vec<SocketAddr>>, data: &Path) -> anyhow::Result<Line> {
        fs::write(data.join("myid"), node.to_string())?;
        let own = addrs[&node][0];
        let servers = addrs.iter().map(|(node, at)| {
            let (quorum, election) = (at[1], at[2]);
            format!("server.{node}={}:{}:{}\n", quorum.ip(), quorum.port(), election.port())
        });
        let config = format!(
            "tickTime={TICK_MS}\ninitLimit=20\nsyncLimit={SYNC_LIMIT}\ndataDir={}\nclientPort={}\nclientPortAddress={}\n\
             maxClientCnxns=0\nadmin.enableServer=false\n4lw.commands.whitelist=srvr\n{}",
            data.display(),
            own.port(),
            own.ip(),
            servers.collect::<String>(),
        );
        let path = self.place.dir.join(format!("node-{node}.cfg"));
        fs::write(&path, config).with_context(|| format!("cannot write {}", path.display()))?;
        let words = ["-Xmx128m", "-XX:+UseSerialGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp"];
        let mut args = words.map(str::to_owned).to_vec();
        args.extend([JARS.join(":"), MAIN.to_owned(), path.display().to_string()]);
        let log = self.place.dir.join(format!("node-{node}.log"));
        Ok(Line::new("java", args, log))
    }
}

#[async_trait]
impl System for ZooKeeper {
    fn name(&self) -> &str {
        "zookeeper"
    }

    /// Its documentation promises linearizable writes; a read after `sync` is as new as the leader's word, which no majority is
    /// asked to confirm.
    fn promises(&self) -> Promises {
        Promises::CONSENSUS
    }

    fn abilities(&self) -> Abilities {
        Abilities { groups: true, tokens: true, ..Abilities::NAMES }
    }

    fn missing(&self) -> Option<String> {
        let no_jar = JARS.iter().find(|jar| !Path::new(jar).exists());
        let no_jar = no_jar.map(|jar| format!("{jar} is not there: apt-get install {PACKAGES}"));
        rival::lacking(&["java"], PACKAGES).or(no_jar)
    }

    async fn start(&self, nodes: usize, _seed: u64) -> anyhow::Result<Box<dyn Running>> {
        let nodes = (1..=nodes as NodeId).collect::<Vec<_>>();
        made(self.place.dir.clone())?;
        let addrs = addresses(&self.place, &nodes, 3, PORT)?;
        let mut servers = Servers::new(self.place.net.clone(), None)?;
        let mut seen = BTreeMap::new();
        for (node, at) in &addrs {
            let data = made(self.place.dir.join(format!("node-{node}")))?;
            servers.add(*node, self.line(*node, &addrs, &data)?, data);
            let views = tokio::sync::Mutex::new(Session::new(at[0]));
            seen.insert(*node, Server { addr: at[0], views, version: Mutex::default() });
        }
        servers.start_all().await?;
        Ok(Box::new(
            Rival { servers, api: ZooKeeperApi { servers: seen, versions: Versions::default() } }.whole().await?,
        ))
    }
}

struct Server {
    addr: SocketAddr,
    /// For what is no part of the workload.
    views: tokio::sync::Mutex<Session>,
    /// What it calls itself.
    version: Mutex<Option<String>>,
}

struct ZooKeeperApi {
    servers: BTreeMap<NodeId, Server>,
    versions: Versions,
}

impl ZooKeeperApi {
    async fn all(&self, node: NodeId, requests: &[Request], deadline: Instant) -> anyhow::Result<Vec<Answer>> {
        let mut session = self.servers[&node].views.lock().await;
        session.ask_all(requests, deadline).await.map_err(|(Lack::Unsent(why) | Lack::Unknown(why))| why)
    }

    async fn children(&self, node: NodeId, path: &str, deadline: Instant) -> anyhow::Result<Vec<String>> {
        match self.all(node, &[Request::Children { path: path.to_owned() }], deadline).await?.pop() {
            Some(Answer::Children(children)) => Ok(children),
            other => bail!("no list of children: {other:?}"),
        }
    }
}

#[async_trait]
impl Api for ZooKeeperApi {
    fn client(&self, node: NodeId) -> Box<dyn Client> {
        Box::new(ZooKeeperClient::new(self.servers[&node].addr, self.versions.clone()))
    }

    async fn ready(&self, node: NodeId) -> anyhow::Result<()> {
        let deadline = Instant::now() + ANSWER_MAX;
        let server = &self.servers[&node];
        let said = four_letters(server.addr, "srvr", deadline).await?;
        if let Some(version) = said.lines().find_map(|line| line.strip_prefix("Zookeeper version: ")) {
            let version = version.split('-').next().unwrap_or(version).to_owned();
            *server.version.lock().unwrap_or_else(PoisonError::into_inner) = Some(version);
        }
        // Written through a majority, so that it serves; by the first one, and there for the others.
        for path in [NAMES, GROUPS, COUNTERS] {
            let create = Request::Create { path: path.to_owned(), data: String::new() };
            match self.all(node, &[create], deadline).await?.pop() {
                Some(Answer::Done | Answer::Refused(NODE_EXISTS)) => {}
                other => bail!("{path} cannot be made: {other:?}"),
            }
        }
        Ok(())
    }

    async fn facts(&self) -> Vec<(&'static str, String)> {
        let known = |server: &Server| server.version.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let version = self.servers.values().find_map(known).unwrap_or_else(|| "of unknown version".to_owned());
        let settings = format!("tickTime {TICK_MS} ms (its own: 2000 ms), syncLimit {SYNC_LIMIT} (5), forceSync on");
        vec![("program", format!("ZooKeeper {version}, {settings}")), ("reads", "sync, then get".to_owned())]
    }

    fn has_leader(&self) -> bool {
        true
    }

    async fn leader(&self, up: &[NodeId]) -> Option<NodeId> {
        for node in up {
            let said = four_letters(self.servers[node].addr, "srvr", Instant::now() + ANSWER_MAX).await;
            if said.is_ok_and(|said| said.contains("Mode: leader")) {
                return Some(*node);
            }
        }
        None
    }

    async fn view(&self, node: NodeId, deadline: Instant) -> anyhow::Result<View> {
        let get = |name: &String| Request::Get { path: format!("{NAMES}/{name}") };
        let children = |group: &String| Request::Children { path: format!("{GROUPS}/{group}") };
        let names = self.children(node, NAMES, deadline).await?;
        let groups = self.children(node, GROUPS, deadline).await?;
        let held = self.all(node, &names.iter().map(get).collect::<Vec<_>>(), deadline).await?;
        let joined = self.all(node, &groups.iter().map(children).collect::<Vec<_>>(), deadline).await?;
        let mut view = View { node, names: BTreeMap::new(), groups: BTreeMap::new(), leader: None };
        for (name, answer) in names.iter().zip(held) {
            // One that went between the two questions is not there.
            if let Answer::Data(owner, stat) = answer {
                view.names.insert(client::unquoted(name)?, (owner, stat.created.to_string()));
            }
        }
        for (group, answer) in groups.iter().zip(joined) {
            if let Answer::Children(members) = answer {
                let members = members.iter().map(|member| client::unquoted(member)).collect::<anyhow::Result<_>>()?;
                view.groups.insert(client::unquoted(group)?, members);
            }
        }
        Ok(view)
    }
}
