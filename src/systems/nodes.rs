//! Our own nodes under test: child processes of this very program, on loopback with faults enabled, or in network namespaces.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use async_trait::async_trait;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::children::{self, Nursery};
use super::node::Node;
use super::ports::Reserved;
use super::registry_client::{self, Level, RegistryClient};
use super::{Place, clocks, corruption, disks, netns, registry_watch};
use crate::client::call::Caller;
use crate::model::ident::{Mode, NodeId};
use crate::referee::client::{Abilities, Client, Corrupted, Promises, Reach, Running, System, Watcher};
use crate::referee::history::{Conflict, View};
use crate::referee::schedule::Harm;
use crate::referee::situation::Links;
use crate::registry::Consistency;
use crate::wire::cluster::{FaultsBody, LinkFaultBody};

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
        let gossip = Promises { converges: true, records: true, lease_lives: true, ..Promises::NONE };
        let leases = |promises| Promises { lease_lives: true, lease_ends: true, ..promises };
        match (mode, self) {
            // By the leader's lease: as long as clocks run within 20 % of each other, which nothing here disturbs.
            (Mode::Cp, Setting::Usual | Setting::LeaderReads | Setting::Quorums) => leases(Promises::LINEARIZABLE),
            (Mode::Cp, Setting::StaleReads) => leases(Promises::CONSENSUS),
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
        let mut cluster = Cluster {
            mode: self.mode,
            level: self.setting.level(nodes),
            nodes: BTreeMap::new(),
            nursery: Nursery::new()?,
            ground: self.place.clone(),
            next_id: AtomicU64::new(nodes as NodeId + 1),
        };
        let mut flags =
            self.flaw.into_iter().flat_map(|flaw| ["--flaw".to_owned(), flaw.to_owned()]).collect::<Vec<_>>();
        if self.place.net.is_none() {
            flags.push("--enable-faults".to_owned());
        }
        for (id, at) in addresses {
            let node = Node::new(id, at, &members, flags.clone(), &self.place)?;
            node.spawn(&cluster.nursery, &self.place)?;
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
                net.set(&Links::default()).await?;
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

/// All nodes, by place. Dropped, it kills them and removes their data; their logs stay.
pub(super) struct Cluster {
    mode: Mode,
    level: Level,
    pub(super) nodes: BTreeMap<NodeId, Node>,
    pub(super) nursery: Nursery,
    pub(super) ground: Place,
    /// For the next new member: an id never comes back.
    pub(super) next_id: AtomicU64,
}

impl Cluster {
    pub(super) fn node(&self, place: NodeId) -> anyhow::Result<&Node> {
        self.nodes.get(&place).ok_or_else(|| anyhow!("there is no node {place}"))
    }

    pub(super) fn place_of(&self, id: NodeId) -> Option<NodeId> {
        self.nodes.iter().find(|(_, node)| node.id() == id).map(|(place, _)| *place)
    }

    /// Waits until every node serves both modes, knows every other and the leader.
    async fn whole(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_MAX;
        for (id, node) in &self.nodes {
            loop {
                node.process.lives()?;
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

    /// Whether a node answers its clients.
    pub(super) async fn serves(&self, place: NodeId) -> bool {
        let Ok(node) = self.node(place) else { return false };
        node.caller.ready(Some(self.mode), ANSWER_MAX).await.is_ok_and(|answer| answer.ready)
    }

    /// Asks every node that runs the same, all at once; by place.
    pub(super) async fn ask_all<T, F>(&self, ask: impl Fn(NodeId, Arc<Caller>) -> F) -> Vec<(NodeId, T)>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let mut tasks = JoinSet::new();
        for (id, node) in self.nodes.iter().filter(|(_, node)| node.process.runs()) {
            let (id, asked) = (*id, ask(*id, node.caller.clone()));
            tasks.spawn(async move { (id, asked.await) });
        }
        tasks.join_all().await
    }

    /// What each node is to do to its links. At both ends: what a node has handed to its kernel before a cut is dropped by the receiver.
    /// What is lost or slow is so at the sender alone, or it would be twice.
    fn faults(&self, links: &Links) -> BTreeMap<NodeId, FaultsBody> {
        let mut all = BTreeMap::<NodeId, FaultsBody>::new();
        let id = |place: NodeId| self.nodes.get(&place).map_or(place, Node::id);
        let mut outgoing = |(from, to): (NodeId, NodeId), change: &dyn Fn(&mut LinkFaultBody)| {
            change(&mut all.entry(from).or_default().peers.entry(id(to)).or_default().outgoing);
        };
        links.loss.iter().for_each(|(link, percent)| outgoing(*link, &|fault| fault.loss = f64::from(*percent) / 1e2));
        links.delay.iter().for_each(|(link, ms)| outgoing(*link, &|fault| fault.delay_ms = u64::from(*ms)));
        links.cut.iter().for_each(|link| outgoing(*link, &|fault| fault.drop = true));
        for (from, to) in &links.cut {
            let peers = &mut all.entry(*to).or_default().peers;
            peers.entry(id(*from)).or_default().incoming.drop = true;
        }
        all
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
        if self.has_leader() { self.cp_leader().await } else { None }
    }

    fn cannot(&self, harm: &Harm) -> Option<String> {
        match harm {
            Harm::Skew { .. } if self.ground.clocks.is_none() => Some(clocks::MISSING.to_owned()),
            Harm::FillDisk { .. } | Harm::CutPower { .. } if !self.ground.disks => disks::missing(),
            _ if self.ground.net.is_some() => netns::cannot(harm),
            _ => None,
        }
    }

    async fn set_links(&self, links: &Links) -> anyhow::Result<()> {
        if let Some(net) = &self.ground.net {
            return net.set(links).await;
        }
        let faults = self.faults(links);
        let answers = self.ask_all(|place, caller| {
            let wanted = faults.get(&place).cloned().unwrap_or_default();
            async move { (caller.set_faults(&wanted, ANSWER_MAX).await, wanted) }
        });
        for (place, (answer, wanted)) in answers.await {
            let in_force = answer.with_context(|| format!("node {place} did not take its faults"))?;
            if in_force != wanted {
                bail!("node {place} has put {in_force:?} in force, not {wanted:?}");
            }
        }
        Ok(())
    }

    async fn reached(&self, node: NodeId, deadline: Instant) -> anyhow::Result<Reach> {
        if let Some(net) = &self.ground.net {
            return net.reached(node, deadline).await;
        }
        let timeout = deadline.saturating_duration_since(Instant::now());
        let answers = self.node(node)?.caller.probe(PROBE_WAIT, timeout).await?;
        let of = |wanted: fn(bool, bool) -> bool| -> BTreeSet<NodeId> {
            let answered = answers.iter().filter(|(_, probe)| wanted(probe.tcp, probe.udp));
            answered.filter_map(|(peer, _)| self.place_of(*peer)).collect()
        };
        Ok(Reach { fully: of(|tcp, udp| tcp && udp), partly: of(|tcp, udp| tcp != udp), heard_by: None })
    }

    fn runs(&self, node: NodeId) -> bool {
        self.node(node).is_ok_and(|node| node.process.runs())
    }

    async fn kill(&self, node: NodeId) -> anyhow::Result<()> {
        self.node(node)?.process.kill()
    }

    async fn restart(&self, id: NodeId) -> anyhow::Result<()> {
        let node = self.node(id)?;
        node.spawn(&self.nursery, &self.ground)?;
        loop {
            node.process.lives()?;
            if self.serves(id).await {
                return Ok(());
            }
            sleep(POLL_PERIOD).await;
        }
    }

    async fn cut_power(&self, node: NodeId) -> anyhow::Result<()> {
        let disk = self.node(node)?.disk().context("it has no disk of its own")?;
        tokio::task::block_in_place(|| disk.cut_power())
    }

    async fn pause(&self, node: NodeId) -> anyhow::Result<()> {
        self.node(node)?.process.pause()
    }

    async fn resume(&self, node: NodeId) -> anyhow::Result<()> {
        self.node(node)?.process.resume()
    }

    async fn transfer(&self, to: NodeId) -> anyhow::Result<()> {
        self.transfer_to(to).await
    }

    async fn skew(&self, node: NodeId, offset_ms: i64) -> anyhow::Result<()> {
        let node = self.node(node)?;
        node.set_clock(offset_ms)
    }

    async fn remove(&self, node: NodeId) -> anyhow::Result<()> {
        self.remove_member(node).await
    }

    async fn replace(&self, node: NodeId) -> anyhow::Result<()> {
        self.replace_member(node).await
    }

    async fn fill_disk(&self, node: NodeId) -> anyhow::Result<()> {
        let disk = self.node(node)?.disk().context("it has no disk of its own")?;
        tokio::task::block_in_place(|| disk.fill())
    }

    async fn empty_disk(&self, node: NodeId) -> anyhow::Result<String> {
        let node = self.node(node)?;
        let said = match node.process.lives() {
            Err(why) => format!("{why:#}"),
            Ok(()) => "it went on without room".to_owned(),
        };
        node.process.kill()?;
        node.disk().context("it has no disk of its own")?.empty()?;
        Ok(said)
    }

    async fn corrupt(&self, place: NodeId, seed: u64) -> anyhow::Result<Corrupted> {
        let node = self.node(place)?;
        let what = corruption::corrupt(&node.data(), seed)?;
        node.spawn(&self.nursery, &self.ground)?;
        // The caller's patience bounds it.
        loop {
            if node.process.lives().is_err() {
                return Ok(Corrupted::Refused(format!("{what}; it said: {}", node.process.last_line())));
            }
            if self.serves(place).await {
                return Ok(Corrupted::Runs(format!("{what}; it serves nevertheless")));
            }
            sleep(POLL_PERIOD).await;
        }
    }

    async fn view(&self, node: NodeId, deadline: Instant) -> anyhow::Result<View> {
        let mut view = registry_client::view(&self.node(node)?.caller, self.mode, node, deadline).await?;
        view.leader = view.leader.and_then(|leader| self.place_of(leader));
        Ok(view)
    }

    async fn conflicts(&self, node: NodeId, deadline: Instant) -> anyhow::Result<Option<Vec<Conflict>>> {
        match self.mode {
            Mode::Cp => Ok(None),
            Mode::Ap => Ok(Some(registry_client::conflicts(&self.node(node)?.caller, deadline).await?)),
        }
    }

    async fn watch(
        &self,
        node: NodeId,
        after: Option<&str>,
        prefix: Option<&str>,
        deadline: Instant,
    ) -> anyhow::Result<Box<dyn Watcher>> {
        registry_watch::begin(&self.node(node)?.caller, self.mode, after, prefix, deadline).await
    }

    async fn stop(self: Box<Self>) -> anyhow::Result<()> {
        let mut running = self.nodes.values().filter_map(|node| node.process.take()).collect::<Vec<_>>();
        // Waits for processes, so not on a thread that drives other tasks.
        let in_time = tokio::task::spawn_blocking(move || children::end(&mut running, STOP_MAX)).await?;
        if !in_time {
            bail!("a node did not end within {} s of SIGTERM and was killed", STOP_MAX.as_secs());
        }
        Ok(())
    }
}
