//! Three nodes of `cp` in one process, over real loopback links and real disks.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate::model::command::{Action, Condition};
use quorate::model::ident::{Meta, NodeId, Revision};
use quorate::model::outcome::{Outcome, Refusal};
use quorate::model::query::{Answer, Query};
use quorate::net::fault::{Direction, FaultTable, LinkFault};
use quorate::net::links::{Identity, Links};
use quorate::net::wire::RealWire;
use quorate::raft::{Flaws, RaftConfig, RaftNode, StartError, Timing, start};
use quorate::registry::{CommandCall, CommandFailure, Consistency, QueryCall, QueryFailure, Reason, Registry};
use tempfile::TempDir;

/// Short, so that the tests are; the ratios are those of the defaults.
pub fn timing() -> Timing {
    let ms = Duration::from_millis;
    Timing { heartbeat: ms(60), election_min: ms(300), election_max: ms(600) }
}

pub struct Cluster {
    pub nodes: BTreeMap<NodeId, RaftNode>,
    links: BTreeMap<NodeId, Links>,
    members: BTreeMap<NodeId, String>,
    data: TempDir,
    tune: fn(&mut RaftConfig),
}

impl Cluster {
    pub async fn start(count: u64) -> Self {
        Self::start_tuned(count, |_| {}).await
    }

    pub async fn start_tuned(count: u64, tune: fn(&mut RaftConfig)) -> Self {
        let data = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut cluster = Self { nodes: BTreeMap::new(), links: BTreeMap::new(), members: BTreeMap::new(), data, tune };
        for id in 1..=count {
            let links = bind(id, "127.0.0.1:0".parse().unwrap()).await;
            cluster.members.insert(id, links.local_addr().to_string());
            cluster.links.insert(id, links);
        }
        for id in 1..=count {
            cluster.run(id).await.unwrap();
        }
        cluster
    }

    async fn run(&mut self, id: NodeId) -> Result<(), StartError> {
        let mut config = RaftConfig::new(id, self.members.clone(), self.data_dir(id));
        config.timing = timing();
        config.fatal = Arc::new(|line| panic!("{line}"));
        (self.tune)(&mut config);
        self.nodes.insert(id, start(config, self.links[&id].clone()).await?);
        Ok(())
    }

    pub fn data_dir(&self, id: NodeId) -> PathBuf {
        self.data.path().join(id.to_string())
    }

    /// Takes a node away, as a process that ends.
    pub async fn stop(&mut self, id: NodeId) {
        self.links.remove(&id).unwrap().close();
        self.nodes.remove(&id).unwrap().stop().await;
    }

    pub async fn restart(&mut self, id: NodeId) {
        let at = self.members[&id].parse().unwrap();
        self.links.insert(id, bind(id, at).await);
        self.run(id).await.unwrap();
    }

    /// Cuts every link between these nodes and all others; nothing else is cut.
    pub fn cut(&self, side: &[NodeId]) {
        for (id, links) in &self.links {
            let others = self.members.keys().filter(|peer| side.contains(peer) != side.contains(id));
            let cut = LinkFault { drop: true, ..LinkFault::default() };
            let both = |peer: &NodeId| [((*peer, Direction::Outgoing), cut), ((*peer, Direction::Incoming), cut)];
            links.faults().set(others.flat_map(both).collect::<Vec<_>>());
        }
    }

    pub async fn leader(&self) -> NodeId {
        self.leader_among(&self.members.keys().copied().collect::<Vec<_>>()).await
    }

    /// Waits until all these nodes that run agree on a leader among them.
    pub async fn leader_among(&self, side: &[NodeId]) -> NodeId {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let running = self.nodes.iter().filter(|(id, _)| side.contains(id));
            let mut leaders = running.map(|(_, node)| node.status().leader).collect::<Vec<_>>();
            leaders.dedup();
            if let [Some(leader)] = leaders[..]
                && side.contains(&leader)
                && self.nodes.contains_key(&leader)
            {
                return leader;
            }
            assert!(Instant::now() < deadline, "no leader among {side:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn register(&self, node: NodeId, name: &str, owner: &str) -> Result<Outcome, CommandFailure> {
        let registry = &self.nodes[&node].registry;
        registry.execute(register(name, owner), &command_call(3_000)).await.map(|reply| reply.value)
    }

    pub async fn whereis(&self, node: NodeId, name: &str, level: Consistency) -> Result<Option<String>, Reason> {
        whereis(&self.nodes[&node], name, level).await
    }
}

pub async fn whereis(node: &RaftNode, name: &str, consistency: Consistency) -> Result<Option<String>, Reason> {
    let query = Query::Whereis { name: name.parse().unwrap(), token: None };
    match node.registry.query(query, &query_call(consistency, 3_000)).await {
        Ok(reply) => match reply.value {
            Answer::Entry(entry) => Ok(Some(entry.holder_text().to_owned())),
            Answer::Refused(Refusal::NotFound) => Ok(None),
            other => panic!("{other:?}"),
        },
        Err(QueryFailure(reason)) => Err(reason),
    }
}

async fn bind(id: NodeId, at: SocketAddr) -> Links {
    let identity = Identity { cluster: "test".into(), node: id, run: rand::random(), policy: "oldest".into() };
    for _ in 0..100 {
        match Links::bind(Arc::new(RealWire), identity.clone(), at, FaultTable::new(id)).await {
            Ok(links) => return links,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    panic!("{at} stays taken");
}

pub fn register(name: &str, owner: &str) -> Action {
    let (name, owner) = (name.parse().unwrap(), owner.parse().unwrap());
    Action::Register { name, owner, meta: Meta::empty(), lease: None, condition: Condition::Free }
}

pub fn command_call(timeout_ms: u64) -> CommandCall {
    CommandCall { deadline: Instant::now() + Duration::from_millis(timeout_ms), forward: true, acks: 1 }
}

pub fn query_call(consistency: Consistency, timeout_ms: u64) -> QueryCall {
    let deadline = Instant::now() + Duration::from_millis(timeout_ms);
    QueryCall { deadline, consistency, forward: true, min_revision: None }
}

fn is_granted(outcome: &Result<Outcome, CommandFailure>) -> bool {
    matches!(outcome, Ok(Outcome::Granted { .. }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_through_any_node_is_read_on_every_node() {
    let cluster = Cluster::start(3).await;
    cluster.leader().await;
    for through in 1..=3 {
        let name = format!("name-{through}");
        let outcome = cluster.register(through, &name, "a").await;
        assert!(is_granted(&outcome), "{outcome:?}");
        for node in 1..=3 {
            for level in [Consistency::Linearizable, Consistency::Leader] {
                assert_eq!(cluster.whereis(node, &name, level).await, Ok(Some("a".into())), "{node} {level:?}");
            }
        }
    }
    let taken = cluster.register(2, "name-1", "b").await;
    assert!(matches!(taken, Ok(Outcome::Refused(Refusal::NameTaken { .. }))), "{taken:?}");
}
