//! A registry in this very process behind one lock, with nodes that are mere doors to it: linearizable, and never wrong. A door without
//! contact to a majority refuses everything, a stopped one answers nothing. It shows what the referee makes of a system without flaw.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use async_trait::async_trait;

use crate::model::ident::NodeId;
use crate::referee::client::{Client, Completion, Promises, Reach, Running, System};
use crate::referee::history::{Conflict, Found, Joined, Membership, Registered, Unregistered, View, What};

/// The system `reference`.
pub struct Reference;

#[async_trait]
impl System for Reference {
    fn name(&self) -> &str {
        "reference"
    }

    fn promises(&self) -> Promises {
        Promises::LINEARIZABLE
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
    revision: u64,
    names: BTreeMap<String, Grant>,
    groups: BTreeMap<String, BTreeMap<String, Grant>>,
    nodes: Vec<NodeId>,
    cut: BTreeSet<(NodeId, NodeId)>,
    stopped: BTreeSet<NodeId>,
}

struct Grant {
    owner: String,
    token: u64,
}

impl RunningReference {
    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop_node(&self, node: NodeId) {
        self.registry().stopped.insert(node);
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

    async fn cut(&self, links: &[(NodeId, NodeId)]) -> anyhow::Result<()> {
        self.registry().cut = links.iter().copied().collect();
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
        let registry = self.registry();
        let names = registry.names.iter().map(|(name, g)| (name.clone(), (g.owner.clone(), g.token.to_string())));
        let groups = registry.groups.iter().filter(|(_, members)| !members.is_empty());
        let groups = groups.map(|(group, members)| (group.clone(), members.keys().cloned().collect()));
        Ok(View { node, names: names.collect(), groups: groups.collect(), leader: None })
    }

    async fn conflicts(&self, _node: NodeId, _deadline: Instant) -> anyhow::Result<Option<Vec<Conflict>>> {
        Ok(None)
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
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        if registry.stopped.contains(&self.node) {
            return Completion::Fail("the node is stopped".to_owned());
        }
        if (registry.reach(self.node).len() + 1) * 2 <= registry.nodes.len() {
            return Completion::Fail("no majority is in reach".to_owned());
        }
        match registry.answer(what.clone()) {
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

    fn answer(&mut self, what: What) -> Option<What> {
        Some(match what {
            What::Register { name, owner, .. } => {
                let result = Some(self.register(&name, &owner));
                What::Register { name, owner, result }
            }
            What::Unregister { name, token, .. } => {
                let ended = end(&mut self.names, &name, token.as_deref(), self.revision);
                let result = Some(self.count(ended));
                What::Unregister { name, token, result }
            }
            What::Whereis { name, .. } => {
                let grant = self.names.get(&name);
                let found = Found { owner: grant.map(|g| g.owner.clone()), token: grant.map(|g| g.token.to_string()) };
                What::Whereis { name, result: Some(found) }
            }
            What::Join { group, member, .. } => {
                let result = Some(self.join(&group, &member));
                What::Join { group, member, result }
            }
            What::Leave { group, member, token, .. } => {
                let members = self.groups.entry(group.clone()).or_default();
                let ended = end(members, &member, token.as_deref(), self.revision);
                let result = Some(self.count(ended));
                What::Leave { group, member, token, result }
            }
            What::Members { group, .. } => {
                let members = self.groups.get(&group).map(|members| members.keys().cloned().collect());
                let members = members.unwrap_or_default();
                What::Members { group, result: Some(Membership { members, revision: Some(self.revision) }) }
            }
            What::Fault(_) | What::Probe { .. } | What::View(_) | What::Conflicts { .. } => return None,
        })
    }

    fn register(&mut self, name: &str, owner: &str) -> Registered {
        match self.names.get(name) {
            Some(grant) if grant.owner == owner => Registered::Held { token: grant.token.to_string() },
            Some(grant) => Registered::Taken { owner: grant.owner.clone(), token: grant.token.to_string() },
            None => {
                self.revision += 1;
                self.names.insert(name.to_owned(), Grant { owner: owner.to_owned(), token: self.revision });
                Registered::Granted { token: self.revision.to_string() }
            }
        }
    }

    fn join(&mut self, group: &str, member: &str) -> Joined {
        let members = self.groups.entry(group.to_owned()).or_default();
        let held = members.get(member).map(|grant| grant.token);
        let token = held.unwrap_or_else(|| {
            self.revision += 1;
            members.insert(member.to_owned(), Grant { owner: member.to_owned(), token: self.revision });
            self.revision
        });
        Joined { token: token.to_string(), new: held.is_none(), revision: Some(self.revision) }
    }

    /// A grant's end is a change.
    fn count(&mut self, ended: Unregistered) -> Unregistered {
        if ended == Unregistered::Now {
            self.revision += 1;
        }
        ended
    }
}

fn end(grants: &mut BTreeMap<String, Grant>, key: &str, token: Option<&str>, revision: u64) -> Unregistered {
    let current = grants.get(key).map(|grant| grant.token.to_string());
    match (token, current) {
        (None, None) => Unregistered::Absent,
        (Some(token), current) if current.as_deref() != Some(token) => {
            // Tokens are revisions: what is not above the latest has been issued.
            let issued = token.parse::<u64>().is_ok_and(|token| (1..=revision).contains(&token));
            if issued { Unregistered::Before } else { Unregistered::Never }
        }
        _ => {
            grants.remove(key);
            Unregistered::Now
        }
    }
}
