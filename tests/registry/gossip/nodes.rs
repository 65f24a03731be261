//! Whole nodes in one process, over real links.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate::cluster::PeerState;
use quorate::gossip::{self, Flaws, GossipConfig, GossipNode};
use quorate::model::command::{Action, Condition};
use quorate::model::entry::{Entry, Holder};
use quorate::model::ident::{Meta, NodeId, Revision, Token};
use quorate::model::outcome::{Ended, Outcome, Refusal};
use quorate::model::query::{Answer, Page, Query};
use quorate::net::fault::{Direction, FaultTable, LinkFault};
use quorate::net::links::{Identity, Links};
use quorate::net::wire::RealWire;
use quorate::registry::{CommandCall, Consistency, QueryCall, QueryFailure, Reason, Registry, Reply};

/// A watcher that lags by more events is cut off.
pub const WATCH_HISTORY: usize = 200;

pub struct Node {
    pub gossip: GossipNode,
    pub links: Links,
}

pub struct Cluster {
    pub nodes: BTreeMap<NodeId, Node>,
    addrs: BTreeMap<NodeId, String>,
    directory: tempfile::TempDir,
    flaws: Flaws,
    runs: u64,
}

impl Cluster {
    pub async fn start(nodes: u64, flaws: Flaws) -> Self {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut bound = Vec::new();
        for node in 1..=nodes {
            bound.push(bind(node, node * 1000, "127.0.0.1:0").await);
        }
        let addrs = bound.iter().map(|links| (links.identity().node, links.local_addr().to_string())).collect();
        let mut cluster = Self { nodes: BTreeMap::new(), addrs, directory, flaws, runs: nodes * 1000 };
        for links in bound {
            cluster.start_node(links).await;
        }
        cluster
            .wait("every node serves and sees all others", |cluster| async move {
                for node in cluster.nodes.values() {
                    if node.gossip.registry.ready(soon()).await.is_err() {
                        return false;
                    }
                    let reply = cluster.query(node, names(), Consistency::Local).await.unwrap();
                    if reply.provenance.peers != Some((cluster.addrs.len() - 1, cluster.addrs.len() - 1)) {
                        return false;
                    }
                }
                true
            })
            .await;
        cluster
    }

    pub async fn start_node(&mut self, links: Links) {
        let node = links.identity().node;
        let data = self.directory.path().join(node.to_string());
        let mut config = GossipConfig::new(node, self.addrs.clone(), data);
        config.flaws = self.flaws;
        config.watch_history = WATCH_HISTORY;
        config.watch_progress = Duration::from_millis(300);
        let gossip = gossip::start(config, links.clone()).await.unwrap();
        self.nodes.insert(node, Node { gossip, links });
    }

    /// Ends a node as kill -9 would.
    pub fn kill(&mut self, node: NodeId) {
        let node = self.nodes.remove(&node).unwrap();
        node.links.close();
    }

    pub async fn restart(&mut self, node: NodeId) {
        self.runs += 1;
        let addr = self.addrs[&node].clone();
        let links = bind(node, self.runs, &addr).await;
        self.start_node(links).await;
    }

    /// Cuts all links between nodes of different sides.
    pub fn cut(&self, sides: &[&[NodeId]]) {
        let side = |node| sides.iter().position(|side| side.contains(&node));
        let drop = LinkFault { drop: true, ..LinkFault::default() };
        for (node, Node { links, .. }) in &self.nodes {
            let away = self.addrs.keys().filter(|peer| side(**peer) != side(*node));
            let both = away.flat_map(|peer| [Direction::Incoming, Direction::Outgoing].map(|d| ((*peer, d), drop)));
            links.faults().set(both);
        }
    }

    pub fn heal(&self) {
        for node in self.nodes.values() {
            node.links.faults().set([]);
        }
    }

    pub async fn wait<'a, F: Future<Output = bool>>(&'a self, what: &str, holds: impl Fn(&'a Self) -> F) -> Duration {
        let began = Instant::now();
        while !holds(self).await {
            assert!(began.elapsed() < Duration::from_secs(15), "waited in vain: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        began.elapsed()
    }

    pub async fn execute(&self, node: NodeId, action: Action, acks: usize) -> Reply<Outcome> {
        let call = CommandCall { deadline: soon(), forward: true, acks };
        self.nodes[&node].gossip.registry.execute(action, &call).await.unwrap()
    }

    pub async fn register(&self, node: NodeId, name: &str, owner: &str) -> Outcome {
        self.execute(node, register(name, owner), 1).await.value
    }

    pub async fn query(
        &self,
        node: &Node,
        query: Query,
        consistency: Consistency,
    ) -> Result<Reply<Answer>, QueryFailure> {
        let call = QueryCall::new(soon(), consistency);
        node.gossip.registry.query(query, &call).await
    }

    pub async fn owner(&self, node: NodeId, name: &str) -> Option<String> {
        match self.query(&self.nodes[&node], whereis(name), Consistency::Local).await.unwrap().value {
            Answer::Entry(entry) => Some(entry.holder_text().to_owned()),
            Answer::Refused(Refusal::NotFound) => None,
            other => panic!("{other:?}"),
        }
    }

    pub async fn all_say(&self, name: &str, owner: Option<&str>) -> bool {
        for node in self.nodes.keys() {
            if self.owner(*node, name).await.as_deref() != owner {
                return false;
            }
        }
        true
    }

    pub fn agree(&self) -> bool {
        let views = self.nodes.values().map(|node| {
            let status = node.gossip.status();
            (status.names, status.members, status.digest, status.conflicts)
        });
        let views = views.collect::<Vec<_>>();
        views.windows(2).all(|pair| pair[0] == pair[1])
    }

    pub fn all_down(&self, node: NodeId, peers: &[NodeId]) -> bool {
        let states = self.nodes[&node].gossip.peer_states();
        peers.iter().all(|peer| states[peer] == PeerState::Down)
    }
}

pub async fn bind(node: NodeId, run: u64, at: &str) -> Links {
    let identity = Identity { cluster: "test".into(), node, run, policy: "oldest".into() };
    let began = Instant::now();
    loop {
        let bound = Links::bind(Arc::new(RealWire), identity.clone(), at.parse().unwrap(), FaultTable::new(node)).await;
        match bound {
            Ok(links) => return links,
            // The port of a node that was just killed.
            Err(error) => assert!(began.elapsed() < Duration::from_secs(5), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

pub fn register(name: &str, owner: &str) -> Action {
    let (name, owner) = (name.parse().unwrap(), owner.parse().unwrap());
    Action::Register { name, owner, meta: Meta::empty(), lease: None, condition: Condition::Free }
}

pub fn unregister(name: &str, token: Option<Token>) -> Action {
    Action::Unregister { name: name.parse().unwrap(), token }
}

pub fn whereis(name: &str) -> Query {
    Query::Whereis { name: name.parse().unwrap(), token: None }
}

pub fn names() -> Query {
    Query::Names { page: Page::default() }
}

pub fn granted(outcome: Outcome) -> Entry {
    match outcome {
        Outcome::Granted { entry, .. } => entry,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_registered_on_one_node_is_visible_on_all() {
    let cluster = Cluster::start(3, Flaws::default()).await;
    let entry = granted(cluster.register(1, "billing", "b1").await);
    assert_eq!(entry.node, 1);
    cluster.wait("all see it", |cluster| cluster.all_say("billing", Some("b1"))).await;
    assert!(matches!(cluster.register(2, "billing", "b2").await, Outcome::Refused(Refusal::NameTaken { .. })));
    let reply = cluster.execute(3, unregister("billing", Some(entry.token)), 3).await;
    assert_eq!(reply.value, Outcome::Ended(Ended::Now));
    assert_eq!(reply.provenance.acks, Some((3, 3)));
    assert!(cluster.all_say("billing", None).await, "three nodes have it");
    let again = cluster.execute(2, unregister("billing", Some(entry.token)), 1).await;
    assert_eq!(again.value, Outcome::Ended(Ended::Before));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_partition_every_name_has_one_owner_and_each_loser_one_record() {
    let cluster = Cluster::start(3, Flaws::default()).await;
    granted(cluster.register(1, "old", "before").await);
    cluster.wait("all see it", |cluster| cluster.all_say("old", Some("before"))).await;
    cluster.cut(&[&[1], &[2, 3]]);
    for at in 0..20 {
        granted(cluster.register(1, &format!("contested-{at}"), "left").await);
        granted(cluster.register(3, &format!("contested-{at}"), "right").await);
    }
    granted(cluster.register(1, "only-left", "l").await);
    granted(cluster.register(2, "only-right", "r").await);
    let noticed = cluster.wait("the sides give each other up", |cluster| async {
        cluster.all_down(1, &[2, 3]) && cluster.all_down(2, &[1]) && cluster.all_down(3, &[1])
    });
    let noticed = noticed.await;
    assert_eq!(cluster.owner(1, "contested-0").await.as_deref(), Some("left"));
    assert_eq!(cluster.owner(2, "contested-0").await.as_deref(), Some("right"));
    let call = QueryCall::new(soon(), Consistency::Quorum(2));
    let refused = cluster.nodes[&1].gossip.registry.query(whereis("old"), &call).await;
    assert_eq!(refused, Err(QueryFailure(Reason::NoQuorum)));
    assert!(cluster.nodes[&2].gossip.registry.query(whereis("old"), &call).await.is_ok());
    tokio::time::sleep(Duration::from_secs(1)).await;

    cluster.heal();
    let healed = cluster.wait("all agree", |cluster| async {
        cluster.agree() && cluster.nodes.values().all(|node| node.gossip.status().conflicts == 20)
    });
    let healed = healed.await;
    println!("given up after {noticed:?}, agreed {healed:?} after the heal");
    // Each was registered on the left first.
    for at in 0..20 {
        assert!(cluster.all_say(&format!("contested-{at}"), Some("left")).await);
    }
    assert!(cluster.all_say("only-left", Some("l")).await && cluster.all_say("only-right", Some("r")).await);
    let records = cluster.nodes[&2].gossip.conflicts(None, 100).unwrap();
    assert!(records.iter().all(|record| record.loser.owner.as_str() == "right" && record.loser.node == 3));
    assert_eq!(records, cluster.nodes[&1].gossip.conflicts(None, 100).unwrap());
    assert!(cluster.nodes[&1].gossip.acknowledge(&records[0].id).unwrap());
    cluster
        .wait("all know of the acknowledgement", |cluster| async {
            cluster
                .nodes
                .values()
                .all(|node| node.gossip.conflicts(None, 100).unwrap().iter().filter(|r| r.acknowledged).count() == 1)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_several_nodes_know_together_does_not_bring_back_what_one_has_seen_removed() {
    let cluster = Cluster::start(3, Flaws::default()).await;
    for name in ["a", "b", "c", "d"] {
        cluster.execute(1, register(name, "o"), 3).await;
    }
    // Node 3 is behind for a moment: its streams are late, and the others need not wait for it.
    let late = LinkFault { delay: Duration::from_millis(300), ..LinkFault::default() };
    cluster.nodes[&3].links.faults().set([1, 2].map(|peer| ((peer, Direction::Incoming), late)));
    let reply = cluster.execute(1, unregister("b", None), 2).await;
    assert_eq!(cluster.owner(3, "b").await.as_deref(), Some("o"), "it has not heard of it");
    let all = cluster.query(&cluster.nodes[&3], whereis("b"), Consistency::Quorum(3)).await.unwrap();
    assert_eq!(all.value, Answer::Refused(Refusal::NotFound));
    let page = Page { limit: 2, ..Page::default() };
    let listed = cluster.query(&cluster.nodes[&3], Query::Names { page }, Consistency::Quorum(2)).await.unwrap();
    let Answer::Entries { entries, next } = listed.value else { panic!("{listed:?}") };
    let keys = entries.iter().filter_map(|entry| match &entry.holder {
        Holder::Owner(name, _) => Some(name.to_string()),
        Holder::Member(..) => None,
    });
    assert!(!keys.clone().any(|key| key == "b"), "{:?}", keys.collect::<Vec<_>>());
    assert!(next.is_some(), "there are more");
    // Whoever has a revision can wait for it.
    let call = |deadline| QueryCall {
        min_revision: Some(reply.revision.clone()),
        ..QueryCall::new(deadline, Consistency::Local)
    };
    let registry = &cluster.nodes[&3].gossip.registry;
    let waited = registry.query(whereis("b"), &call(soon())).await.unwrap();
    assert_eq!(waited.value, Answer::Refused(Refusal::NotFound));
    let never = Revision::Ap("1.2.3.4".into());
    let call = QueryCall { min_revision: Some(never), ..call(Instant::now() + Duration::from_millis(50)) };
    assert!(matches!(registry.query(whereis("b"), &call).await, Err(QueryFailure(Reason::Behind { .. }))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_leaves_is_given_up_at_once_and_has_passed_on_what_it_accepted() {
    let mut cluster = Cluster::start(3, Flaws::default()).await;
    // Nobody is owed anything before all have met.
    cluster
        .wait("all have met", |cluster| async {
            cluster.execute(1, register("first", "words"), 3).await.provenance.acks == Some((3, 3))
        })
        .await;
    granted(cluster.register(1, "last", "words").await);
    cluster.nodes[&1].gossip.stop().await;
    let gone = cluster.nodes.remove(&1).unwrap();
    let began = Instant::now();
    cluster.wait("it is given up", |cluster| async { cluster.all_down(2, &[1]) && cluster.all_down(3, &[1]) }).await;
    assert!(began.elapsed() < Duration::from_millis(600), "{:?}", began.elapsed());
    assert!(cluster.all_say("last", Some("words")).await);
    gone.links.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn planted_flaws_show_after_a_partition_of_whole_nodes() {
    let flaws = Flaws { transfer_without_context: true, ..Flaws::default() };
    let forgetful = Cluster::start(3, flaws).await;
    granted(forgetful.register(1, "gone", "o").await);
    forgetful.wait("all see it", |cluster| cluster.all_say("gone", Some("o"))).await;
    let stubborn = Cluster::start(3, Flaws { never_resolve: true, ..Flaws::default() }).await;
    for cluster in [&forgetful, &stubborn] {
        cluster.cut(&[&[1], &[2, 3]]);
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    forgetful.execute(1, unregister("gone", None), 1).await;
    granted(stubborn.register(1, "x", "left").await);
    granted(stubborn.register(3, "x", "right").await);
    tokio::time::sleep(Duration::from_secs(3)).await;
    forgetful.heal();
    stubborn.heal();
    forgetful.wait("the removed name returns", |cluster| cluster.all_say("gone", Some("o"))).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(stubborn.owner(1, "x").await.as_deref(), Some("left"));
    assert_eq!(stubborn.owner(2, "x").await.as_deref(), Some("right"));
    assert_eq!(stubborn.nodes[&1].gossip.status().conflicts, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_node_takes_the_state_back_before_it_serves() {
    let mut cluster = Cluster::start(3, Flaws::default()).await;
    for at in 0..50 {
        cluster.execute(1, register(&format!("name-{at}"), "owner"), 3).await;
    }
    cluster.kill(1);
    tokio::time::sleep(Duration::from_millis(300)).await;
    cluster.restart(1).await;
    cluster.wait("it serves", |cluster| async { cluster.nodes[&1].gossip.registry.ready(soon()).await.is_ok() }).await;
    assert_eq!(cluster.nodes[&1].gossip.status().names, 50);
    granted(cluster.register(1, "after", "owner").await);
    cluster
        .wait("all agree", |cluster| async { cluster.agree() && cluster.all_say("after", Some("owner")).await })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_alone_serves_at_once() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let links = bind(1, 7, "127.0.0.1:0").await;
    let nobody = "127.0.0.1:9".to_owned();
    let peers = BTreeMap::from([(1, links.local_addr().to_string()), (2, nobody)]);
    let node = gossip::start(GossipConfig::new(1, peers, directory.path().to_owned()), links).await.unwrap();
    let began = Instant::now();
    while node.registry.ready(soon()).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(1));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let call = CommandCall { deadline: soon(), forward: true, acks: 2 };
    let reply = node.registry.execute(register("x", "o"), &call).await.unwrap();
    assert_eq!(reply.provenance.acks, Some((1, 2)), "fewer than asked for, and no failure");
    assert_eq!(reply.provenance.peers, Some((0, 1)));
    node.stop().await;
}

/// Before its peers' state has come a node knows of no conflict, and that is no news of the cluster.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_does_not_serve_yet_does_not_say_that_nobody_has_lost() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let links = bind(1, 7, "127.0.0.1:0").await;
    let peers = BTreeMap::from([(1, links.local_addr().to_string())]);
    let config = GossipConfig { entering: true, ..GossipConfig::new(1, peers.clone(), directory.path().to_owned()) };
    let node = gossip::start(config, links).await.unwrap();
    let record = "1.1.1".parse().unwrap();
    assert_eq!(node.conflicts(None, 10), Err(Reason::Starting));
    assert_eq!(node.acknowledge(&record), Err(Reason::Starting));
    node.follow(peers, BTreeSet::new()).await;
    let began = Instant::now();
    while node.registry.ready(soon()).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(node.conflicts(None, 10), Ok(Vec::new()));
    assert_eq!(node.acknowledge(&record), Ok(false));
    node.stop().await;
}
