//! A registry in this very process behind one lock, with nodes that are mere doors to it: linearizable, and never wrong. A door without
//! contact to a majority refuses everything, a stopped one answers nothing. It shows what the referee makes of a system without flaw.
//! What it keeps is in [`reference_table`](super::reference_table).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::reference_table::Table;
use crate::model::ident::NodeId;
use crate::referee::client::{Abilities, Client, Completion, Promises, Reach, Running, System, Watcher};
use crate::referee::history::{Conflict, View, What};
use crate::referee::situation::Links;
use crate::referee::watched::{Change, ChangeRevision, Watched};

/// How often a stream looks for something new.
const POLL_PERIOD: Duration = Duration::from_millis(5);

/// The system `reference`.
pub struct Reference;

#[async_trait]
impl System for Reference {
    fn name(&self) -> &str {
        "reference"
    }

    fn promises(&self) -> Promises {
        Promises { lease_lives: true, lease_ends: true, ..Promises::LINEARIZABLE }
    }

    fn abilities(&self) -> Abilities {
        Abilities { conflicts: false, ..Abilities::ALL }
    }

    async fn start(&self, nodes: usize, _seed: u64) -> anyhow::Result<Box<dyn Running>> {
        let nodes = (1..=nodes as NodeId).collect();
        let registry = Arc::new(Mutex::new(Registry { nodes, ..Registry::default() }));
        Ok(Box::new(RunningReference { registry }))
    }
}

struct RunningReference {
    registry: Arc<Mutex<Registry>>,
}

#[derive(Default)]
struct Registry {
    table: Table,
    nodes: Vec<NodeId>,
    cut: BTreeSet<(NodeId, NodeId)>,
    stopped: BTreeSet<NodeId>,
    /// How often each node was stopped.
    stops: BTreeMap<NodeId, u64>,
}

impl RunningReference {
    fn registry(&self) -> MutexGuard<'_, Registry> {
        lock(&self.registry)
    }

    fn stop_node(&self, node: NodeId) {
        let mut registry = self.registry();
        registry.stopped.insert(node);
        *registry.stops.entry(node).or_default() += 1;
    }

    fn start_node(&self, node: NodeId) {
        self.registry().stopped.remove(&node);
    }
}

#[async_trait]
impl Running for RunningReference {
    fn nodes(&self) -> Vec<NodeId> {
        self.registry().nodes.clone()
    }

    fn client(&self, node: NodeId) -> Box<dyn Client> {
        Box::new(Door { registry: self.registry.clone(), node })
    }

    fn has_leader(&self) -> bool {
        false
    }

    async fn leader(&self) -> Option<NodeId> {
        None
    }

    async fn set_links(&self, links: &Links) -> anyhow::Result<()> {
        self.registry().cut = links.cut.clone();
        Ok(())
    }

    async fn reached(&self, node: NodeId, _deadline: Instant) -> anyhow::Result<Reach> {
        Ok(Reach { fully: self.registry().reach(node), ..Reach::default() })
    }

    async fn kill(&self, node: NodeId) -> anyhow::Result<()> {
        self.stop_node(node);
        Ok(())
    }

    async fn restart(&self, node: NodeId) -> anyhow::Result<()> {
        self.start_node(node);
        Ok(())
    }

    async fn pause(&self, node: NodeId) -> anyhow::Result<()> {
        self.stop_node(node);
        Ok(())
    }

    async fn resume(&self, node: NodeId) -> anyhow::Result<()> {
        self.start_node(node);
        Ok(())
    }

    async fn view(&self, node: NodeId, _deadline: Instant) -> anyhow::Result<View> {
        let mut registry = self.registry();
        registry.table.pass(Instant::now());
        Ok(registry.table.view(node))
    }

    async fn conflicts(&self, _node: NodeId, _deadline: Instant) -> anyhow::Result<Option<Vec<Conflict>>> {
        Ok(None)
    }

    async fn watch(
        &self,
        node: NodeId,
        after: Option<&str>,
        prefix: Option<&str>,
        _deadline: Instant,
    ) -> anyhow::Result<Box<dyn Watcher>> {
        let registry = self.registry();
        if registry.stopped.contains(&node) {
            anyhow::bail!("the node is stopped");
        }
        let told = after.map_or(Ok(registry.table.revision()), str::parse)?;
        let (stops, prefix) = (registry.stops_of(node), prefix.map(str::to_owned));
        Ok(Box::new(Stream { registry: self.registry.clone(), node, prefix, told, stops }))
    }

    async fn stop(self: Box<Self>) -> anyhow::Result<()> {
        Ok(())
    }
}

struct Door {
    registry: Arc<Mutex<Registry>>,
    node: NodeId,
}

#[async_trait]
impl Client for Door {
    async fn call(&mut self, what: &What, _deadline: Instant) -> Completion {
        let mut registry = lock(&self.registry);
        if registry.stopped.contains(&self.node) {
            return Completion::Fail("the node is stopped".to_owned());
        }
        if !registry.has_majority(self.node) {
            return Completion::Fail("no majority is in reach".to_owned());
        }
        let now = Instant::now();
        registry.table.pass(now);
        match registry.table.answer(what.clone(), now) {
            Some(what) => Completion::Ok(what),
            None => Completion::Fail("no call of a client's".to_owned()),
        }
    }
}

impl Registry {
    /// The peers that a node reaches both ways.
    fn reach(&self, node: NodeId) -> BTreeSet<NodeId> {
        let passes = |peer: &NodeId| {
            let cut = self.cut.contains(&(node, *peer)) || self.cut.contains(&(*peer, node));
            *peer != node && !cut && !self.stopped.contains(peer)
        };
        self.nodes.iter().copied().filter(passes).collect()
    }

    fn stops_of(&self, node: NodeId) -> u64 {
        self.stops.get(&node).copied().unwrap_or(0)
    }

    fn has_majority(&self, node: NodeId) -> bool {
        (self.reach(node).len() + 1) * 2 > self.nodes.len()
    }
}

/// A stream of changes out of one node.
struct Stream {
    registry: Arc<Mutex<Registry>>,
    node: NodeId,
    prefix: Option<String>,
    told: u64,
    /// A node that was stopped has forgotten its streams.
    stops: u64,
}

#[async_trait]
impl Watcher for Stream {
    async fn next(&mut self) -> Option<(Watched, Option<String>)> {
        loop {
            {
                let mut registry = lock(&self.registry);
                if registry.stops_of(self.node) != self.stops {
                    return None;
                }
                registry.table.pass(Instant::now());
                if registry.has_majority(self.node) {
                    for (revision, changes) in registry.table.changes_after(self.told) {
                        self.told = *revision;
                        let wanted = |change: &&Change| self.prefix.as_ref().is_none_or(|p| change.key.starts_with(p));
                        let changes = changes.iter().filter(wanted).cloned().collect::<Vec<_>>();
                        if !changes.is_empty() {
                            let told = Watched::Change { revision: ChangeRevision::Number(*revision), changes };
                            return Some((told, Some(revision.to_string())));
                        }
                    }
                }
            }
            tokio::time::sleep(POLL_PERIOD).await;
        }
    }
}

fn lock(registry: &Mutex<Registry>) -> MutexGuard<'_, Registry> {
    registry.lock().unwrap_or_else(PoisonError::into_inner)
}
