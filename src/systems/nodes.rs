//! Our own nodes under test: child processes of this very program, on loopback with faults enabled, or in network namespaces.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use async_trait::async_trait;
use rustix::process::Signal;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::Place;
use super::children::{self, Nursery};
use super::netns::Network;
use super::ports::Reserved;
use super::registry_client::{self, Level, RegistryClient};
use crate::client::call::Caller;
use crate::model::ident::{Mode, NodeId};
use crate::referee::client::{Abilities, Client, Promises, Reach, Running, System};
use crate::referee::history::{Conflict, View};
use crate::registry::Consistency;
use crate::wire::cluster::{FaultsBody, PeerFaultsBody};

/// How often a cluster is started anew when a port was taken in the moment between.
const STARTS_MAX: usize = 3;
/// How long a cluster may take until every node serves and knows every other.
const START_MAX: Duration = Duration::from_secs(30);
/// How long nodes may take to end when asked to.
const STOP_MAX: Duration = Duration::from_secs(5);
/// How long a node may take to answer what is not part of the workload.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// How long a link may take to carry a sign of life and its echo.
const PROBE_WAIT: Duration = Duration::from_millis(400);
const POLL_PERIOD: Duration = Duration::from_millis(50);
/// Where a node that has an address of its own serves clients and peers.
const PORTS: (u16, u16) = (7401, 7501);

/// What clients ask of our nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// What each mode gives by itself.
    Usual,
    /// `cp`: reads of some committed prefix.
    StaleReads,
    /// `cp`: reads by the leader's lease.
    LeaderReads,
    /// `ap`: writes that a majority has, reads of what a majority knows together.
    Quorums,
}

impl Setting {
    /// Of `nodes` nodes.
    fn level(self, nodes: usize) -> Level {
        let reads = |consistency| Level { consistency: Some(consistency), acks: None };
        let majority = nodes / 2 + 1;
        match self {
            Setting::Usual => Level::default(),
            Setting::StaleReads => reads(Consistency::Stale),
            Setting::LeaderReads => reads(Consistency::Leader),
            Setting::Quorums => Level { consistency: Some(Consistency::Quorum(majority)), acks: Some(majority) },
        }
    }

    /// What each mode promises when it is asked for this.
    fn promises(self, mode: Mode) -> Promises {
        let gossip = Promises { converges: true, records: true, ..Promises::NONE };
        match (mode, self) {
            // By the leader's lease: as long as clocks run within 20 % of each other, which nothing here disturbs.
            (Mode::Cp, Setting::Usual | Setting::LeaderReads | Setting::Quorums) => Promises::LINEARIZABLE,
            (Mode::Cp, Setting::StaleReads) => Promises::CONSENSUS,
            // What waits for a majority does not get one on every side.
            (Mode::Ap, Setting::Quorums) => gossip,
            (Mode::Ap, Setting::Usual | Setting::StaleReads | Setting::LeaderReads) => {
                Promises { available: true, ..gossip }
            }
        }
    }
}

/// The systems `cp` and `ap`, the same asked for less or more, and those with a planted flaw.
pub struct OurNodes {
    name: String,
    mode: Mode,
    setting: Setting,
    flaw: Option<&'static str>,
    place: Place,
}

impl OurNodes {
    pub fn new(name: &str, mode: Mode, setting: Setting, flaw: Option<&'static str>, place: &Place) -> Self {
        let place = Place { dir: place.dir.join(name), ..place.clone() };
        Self { name: name.to_owned(), mode, setting, flaw, place }
    }

    /// Where each node is to serve clients and peers.
    fn addresses(&self, ids: &[NodeId]) -> io::Result<BTreeMap<NodeId, (SocketAddr, SocketAddr)>> {
        if let Some(net) = &self.place.net {
            let at = |id: NodeId, port: u16| SocketAddr::from((net.addr(id), port));
            return Ok(ids.iter().map(|id| (*id, (at(*id, PORTS.0), at(*id, PORTS.1)))).collect());
        }
        // All are reserved before one is released, so that no two are the same.
        let reserved = ids.iter().map(|id| Ok((*id, (Reserved::new()?, Reserved::new()?))));
        let reserved = reserved.collect::<io::Result<Vec<_>>>()?;
        Ok(reserved.into_iter().map(|(id, (http, peer))| (id, (http.release(), peer.release()))).collect())
    }

    fn spawn_all(&self, nodes: usize) -> anyhow::Result<Cluster> {
        let dir = &self.place.dir;
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let addresses = self.addresses(&(1..=nodes as NodeId).collect::<Vec<_>>())?;
        let members = addresses.iter().map(|(id, (_, peer))| format!("{id}={peer}")).collect::<Vec<_>>().join(",");
        let (level, net) = (self.setting.level(nodes), self.place.net.clone());
        let mut cluster = Cluster { mode: self.mode, level, nodes: BTreeMap::new(), nursery: Nursery::new()?, net };
        for (id, (http, peer)) in addresses {
            let data = dir.join(format!("node-{id}"));
            let mut args = vec!["serve".to_owned(), "--exit-with-stdin".to_owned()];
            if cluster.net.is_none() {
                args.push("--enable-faults".to_owned());
            }
            let pairs = [
                ("--id", id.to_string()),
                ("--http", http.to_string()),
                ("--peer", peer.to_string()),
                ("--cluster", members.clone()),
                ("--data", data.display().to_string()),
            ];
            args.extend(pairs.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]));
            args.extend(self.flaw.into_iter().flat_map(|flaw| ["--flaw".to_owned(), flaw.to_owned()]));
            let node = Node {
                id,
                program: self.place.program.clone(),
                args,
                data,
                log: dir.join(format!("node-{id}.log")),
                caller: Arc::new(Caller::new(&format!("http://{http}"))?),
                child: Mutex::new(None),
            };
            node.spawn(&cluster)?;
            cluster.nodes.insert(id, node);
        }
        Ok(cluster)
    }
}

#[async_trait]
impl System for OurNodes {
    fn name(&self) -> &str {
        &self.name
    }

    fn promises(&self) -> Promises {
        // A planted flaw takes nothing off it: that is what convicts.
        self.setting.promises(self.mode)
    }

    fn abilities(&self) -> Abilities {
        // Nobody loses a name in `cp` but to a takeover.
        Abilities { conflicts: self.mode == Mode::Ap, ..Abilities::ALL }
    }

    async fn start(&self, nodes: usize, _seed: u64) -> anyhow::Result<Box<dyn Running>> {
        let mut tries = 0;
        loop {
            tries += 1;
            if let Some(net) = &self.place.net {
                net.cut(&[]).await?;
            }
            let cluster = self.spawn_all(nodes)?;
            match cluster.whole().await {
                Ok(()) => return Ok(Box::new(cluster)),
                Err(why) if tries == STARTS_MAX || !why.to_string().contains("in use") => return Err(why),
                Err(_) => drop(cluster),
            }
        }
    }
}

/// One node, running or killed.
struct Node {
    id: NodeId,
    program: PathBuf,
    args: Vec<String>,
    data: PathBuf,
    log: PathBuf,
    caller: Arc<Caller>,
    child: Mutex<Option<Child>>,
}

impl Node {
    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn(&self, cluster: &Cluster) -> anyhow::Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log: File = log.with_context(|| format!("cannot write {}", self.log.display()))?;
        let mut command = Command::new(&self.program);
        command.args(&self.args).stdout(log.try_clone()?).stderr(log);
        // What this process was told by its environment is not meant for its nodes.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("QUORATE_")) {
            command.env_remove(name);
        }
        if let Some(net) = &cluster.net {
            net.enter(self.id, &mut command);
        }
        let child =
            cluster.nursery.start(command).with_context(|| format!("cannot start {}", self.program.display()))?;
        *self.child() = Some(child);
        Ok(())
    }

    /// Err if its process has ended, with what it said last.
    fn lives(&self) -> anyhow::Result<()> {
        let ended = match self.child().as_mut() {
            Some(child) => child.try_wait()?,
            None => return Ok(()),
        };
        match ended {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status}): {}", self.log.display(), last_line(&self.log)),
        }
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        match self.child().as_ref() {
            Some(child) => Ok(children::signal(child, signal)?),
            None => bail!("it does not run"),
        }
    }

    fn kill(&self) -> anyhow::Result<()> {
        match self.child().take() {
            Some(mut child) => Ok(children::kill(&mut child)?),
            None => bail!("it does not run"),
        }
    }

    fn runs(&self) -> bool {
        self.child().is_some()
    }
}

fn last_line(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing").to_owned()
}

/// All nodes. Dropped, it kills them and removes their data; their logs stay.
struct Cluster {
    mode: Mode,
    level: Level,
    nodes: BTreeMap<NodeId, Node>,
    nursery: Nursery,
    /// None: all nodes are on loopback, and make their faults themselves.
    net: Option<Arc<Network>>,
}

impl Cluster {
    fn node(&self, id: NodeId) -> anyhow::Result<&Node> {
        self.nodes.get(&id).ok_or_else(|| anyhow!("there is no node {id}"))
    }

    /// Waits until every node serves both modes, knows every other and the leader.
    async fn whole(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_MAX;
        for (id, node) in &self.nodes {
            loop {
                node.lives()?;
                match ready(node).await {
                    Ok(()) => break,
                    Err(why) if Instant::now() >= deadline => {
                        return Err(why.context(format!("node {id} does not serve")));
                    }
                    Err(_) => sleep(POLL_PERIOD).await,
                }
            }
        }
        Ok(())
    }

    /// Asks every node that runs the same, all at once.
    async fn ask_all<T, F>(&self, ask: impl Fn(NodeId, Arc<Caller>) -> F) -> Vec<(NodeId, T)>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let mut tasks = JoinSet::new();
        for (id, node) in self.nodes.iter().filter(|(_, node)| node.runs()) {
            let (id, asked) = (*id, ask(*id, node.caller.clone()));
            tasks.spawn(async move { (id, asked.await) });
        }
        tasks.join_all().await
    }
}

async fn ready(node: &Node) -> anyhow::Result<()> {
    for mode in Mode::ALL {
        if !node.caller.ready(Some(mode), ANSWER_MAX).await?.ready {
            bail!("{mode} is not ready");
        }
    }
    let cluster = node.caller.cluster(ANSWER_MAX).await?;
    match cluster.nodes.iter().find(|other| other.state != "me" && other.state != "alive") {
        Some(other) => bail!("node {} is {}", other.id, other.state),
        None if cluster.leader.is_none() => bail!("there is no leader"),
        None => Ok(()),
    }
}

#[async_trait]
impl Running for Cluster {
    fn nodes(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    fn client(&self, node: NodeId) -> Box<dyn Client> {
        Box::new(RegistryClient::new(self.nodes[&node].caller.clone(), self.mode, self.level))
    }

    fn has_leader(&self) -> bool {
        self.mode == Mode::Cp
    }

    async fn leader(&self) -> Option<NodeId> {
        if !self.has_leader() {
            return None;
        }
        let answers = self.ask_all(|_, caller| async move { caller.cluster(ANSWER_MAX).await.ok()?.leader }).await;
        let mut votes = BTreeMap::<NodeId, usize>::new();
        for leader in answers.into_iter().filter_map(|(_, leader)| leader) {
            *votes.entry(leader).or_default() += 1;
        }
        votes.into_iter().find(|(_, votes)| votes * 2 > self.nodes.len()).map(|(leader, _)| leader)
    }

    async fn cut(&self, links: &[(NodeId, NodeId)]) -> anyhow::Result<()> {
        if let Some(net) = &self.net {
            return net.cut(links).await;
        }
        // At both ends: what a node has handed to its kernel before the cut is dropped by the receiver.
        let mut faults = BTreeMap::<NodeId, BTreeMap<NodeId, PeerFaultsBody>>::new();
        for (from, to) in links {
            faults.entry(*from).or_default().entry(*to).or_default().outgoing.drop = true;
            faults.entry(*to).or_default().entry(*from).or_default().incoming.drop = true;
        }
        let answers = self.ask_all(|id, caller| {
            let wanted = FaultsBody { peers: faults.get(&id).cloned().unwrap_or_default() };
            async move { caller.set_faults(&wanted, ANSWER_MAX).await }
        });
        for (id, answer) in answers.await {
            answer.with_context(|| format!("node {id} did not take its faults"))?;
        }
        Ok(())
    }

    async fn reached(&self, node: NodeId, deadline: Instant) -> anyhow::Result<Reach> {
        if let Some(net) = &self.net {
            return net.reached(node, deadline).await;
        }
        let timeout = deadline.saturating_duration_since(Instant::now());
        let answers = self.node(node)?.caller.probe(PROBE_WAIT, timeout).await?;
        let of = |wanted: fn(bool, bool) -> bool| -> BTreeSet<NodeId> {
            answers.iter().filter(|(_, probe)| wanted(probe.tcp, probe.udp)).map(|(peer, _)| *peer).collect()
        };
        Ok(Reach { fully: of(|tcp, udp| tcp && udp), partly: of(|tcp, udp| tcp != udp), heard_by: None })
    }

    async fn kill(&self, node: NodeId) -> anyhow::Result<()> {
        self.node(node)?.kill()
    }

    async fn restart(&self, id: NodeId) -> anyhow::Result<()> {
        let node = self.node(id)?;
        node.spawn(self)?;
        loop {
            node.lives()?;
            if node.caller.ready(Some(self.mode), ANSWER_MAX).await.is_ok_and(|answer| answer.ready) {
                return Ok(());
            }
            sleep(POLL_PERIOD).await;
        }
    }

    async fn pause(&self, node: NodeId) -> anyhow::Result<()> {
        self.node(node)?.signal(Signal::STOP)
    }

    async fn resume(&self, node: NodeId) -> anyhow::Result<()> {
        self.node(node)?.signal(Signal::CONT)
    }

    async fn view(&self, node: NodeId, deadline: Instant) -> anyhow::Result<View> {
        registry_client::view(&self.node(node)?.caller, self.mode, node, deadline).await
    }

    async fn conflicts(&self, node: NodeId, deadline: Instant) -> anyhow::Result<Option<Vec<Conflict>>> {
        match self.mode {
            Mode::Cp => Ok(None),
            Mode::Ap => Ok(Some(registry_client::conflicts(&self.node(node)?.caller, deadline).await?)),
        }
    }

    async fn stop(self: Box<Self>) -> anyhow::Result<()> {
        let mut running = self.nodes.values().filter_map(|node| node.child().take()).collect::<Vec<_>>();
        // Waits for processes, so not on a thread that drives other tasks.
        let in_time = tokio::task::spawn_blocking(move || children::end(&mut running, STOP_MAX)).await?;
        if !in_time {
            bail!("a node did not end within {} s of SIGTERM and was killed", STOP_MAX.as_secs());
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in self.nodes.values() {
            if let Some(mut child) = node.child().take() {
                // Nothing is left to be done about one that cannot be killed.
                let _ = children::kill(&mut child);
            }
            let _ = fs::remove_dir_all(&node.data);
        }
    }
}
