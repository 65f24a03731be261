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
use quorate::registry::{
    CommandCall, CommandFailure, Consistency, KeepAlive, QueryCall, QueryFailure, Reason, Registry,
};
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
    founders: std::ops::RangeInclusive<NodeId>,
    tune: fn(&mut RaftConfig),
}

impl Cluster {
    pub async fn start(count: u64) -> Self {
        Self::start_tuned(count, |_| {}).await
    }

    pub async fn start_tuned(count: u64, tune: fn(&mut RaftConfig)) -> Self {
        let data = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let (nodes, links, members, founders) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new(), 1..=count);
        let mut cluster = Self { nodes, links, members, data, founders, tune };
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

    /// Starts a node that is no member yet; where its peers reach it.
    pub async fn newcomer(&mut self, id: NodeId) -> String {
        let links = bind(id, "127.0.0.1:0".parse().unwrap()).await;
        let at = links.local_addr().to_string();
        self.members.insert(id, at.clone());
        self.links.insert(id, links);
        self.run(id).await.unwrap();
        at
    }

    async fn run(&mut self, id: NodeId) -> Result<(), StartError> {
        let mut config = RaftConfig::new(id, self.members.clone(), self.data_dir(id));
        config.founds = self.founders.contains(&id);
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

    /// Links that speak as this node, which is stopped.
    pub async fn stranger(&self, id: NodeId) -> Links {
        bind(id, self.members[&id].parse().unwrap()).await
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

    /// Makes everything that comes to this node late, and mends all other links.
    pub fn delay(&self, node: NodeId, delay: Duration) {
        let late = LinkFault { delay, ..LinkFault::default() };
        for (id, links) in &self.links {
            let peers = self.members.keys().filter(|_| *id == node);
            links.faults().set(peers.map(|peer| ((*peer, Direction::Incoming), late)).collect::<Vec<_>>());
        }
    }

    /// Cuts one node off from all others.
    pub fn sever(&self, id: NodeId) {
        self.cut(&[id]);
    }

    /// Where a node's peers reach it.
    pub fn address(&self, id: NodeId) -> String {
        self.members[&id].clone()
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
    QueryCall::new(deadline, consistency)
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_alone_is_a_cluster_and_keeps_what_it_was_told() {
    let mut cluster = Cluster::start(1).await;
    assert!(is_granted(&cluster.register(1, "alone", "a").await));
    cluster.stop(1).await;
    cluster.restart(1).await;
    assert_eq!(cluster.whereis(1, "alone", Consistency::Linearizable).await, Ok(Some("a".into())));
    assert_eq!(cluster.nodes[&1].notice, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_others_go_on_when_the_leader_ends_and_it_comes_back_as_one_of_them() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    assert!(is_granted(&cluster.register(leader, "before", "a").await));
    cluster.stop(leader).await;
    let other = *cluster.nodes.keys().next().unwrap();
    let outcome = cluster.register(other, "after", "b").await;
    assert!(is_granted(&outcome), "{outcome:?}");
    cluster.restart(leader).await;
    for name in ["before", "after"] {
        assert!(matches!(cluster.whereis(leader, name, Consistency::Linearizable).await, Ok(Some(_))), "{name}");
    }
    assert_eq!(cluster.leader().await, cluster.nodes[&leader].status().leader.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_restarted_at_once_have_lost_nothing() {
    let mut cluster = Cluster::start(3).await;
    cluster.leader().await;
    for at in 0..20 {
        assert!(is_granted(&cluster.register(at % 3 + 1, &format!("n{at}"), "a").await));
    }
    for id in 1..=3 {
        cluster.stop(id).await;
    }
    for id in 1..=3 {
        cluster.restart(id).await;
    }
    for at in 0..20 {
        let found = cluster.whereis(at % 3 + 1, &format!("n{at}"), Consistency::Linearizable).await;
        assert_eq!(found, Ok(Some("a".into())), "n{at}");
    }
}

/// Whether the minority's answer is one that it may give: a refusal, or not knowing. Never an outcome.
fn says_no(outcome: &Result<Outcome, CommandFailure>) -> bool {
    match outcome {
        Ok(_) => false,
        Err(CommandFailure::NotApplied(reason)) => matches!(reason, Reason::NoLeader | Reason::NoQuorum),
        Err(CommandFailure::Unknown(_)) => true,
    }
}

async fn a_cut_off_minority_refuses(with_leader: bool) {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    assert!(is_granted(&cluster.register(leader, "old", "a").await));
    let alone = if with_leader { leader } else { leader % 3 + 1 };
    let majority = (1..=3).filter(|id| *id != alone).collect::<Vec<_>>();
    // So that it has applied it.
    assert_eq!(cluster.whereis(alone, "old", Consistency::Linearizable).await, Ok(Some("a".into())));
    cluster.cut(&[alone]);
    let mut not_applied = Vec::new();
    for at in 0..6 {
        let began = Instant::now();
        let name = format!("minority-{at}");
        let outcome =
            cluster.nodes[&alone].registry.execute(register(&name, "m"), &command_call(1_000)).await.map(|r| r.value);
        assert!(says_no(&outcome), "{outcome:?}");
        assert!(began.elapsed() < Duration::from_millis(1_300), "took {:?}", began.elapsed());
        if let Err(CommandFailure::NotApplied(_)) = outcome {
            not_applied.push(name);
        }
        let read = cluster.whereis(alone, "old", Consistency::Linearizable).await;
        assert!(matches!(read, Err(Reason::NoLeader | Reason::NoQuorum | Reason::Timeout)), "{read:?}");
    }
    // By now it knows, and says so at once.
    let began = Instant::now();
    let log_before = cluster.nodes[&alone].log_extent().last;
    let outcome = cluster.register(alone, "late", "m").await;
    assert_eq!(outcome, Err(CommandFailure::NotApplied(Reason::NoQuorum)));
    assert!(began.elapsed() < Duration::from_millis(200), "took {:?}", began.elapsed());
    assert_eq!(cluster.nodes[&alone].log_extent().last, log_before, "not applied, yet it is in the log");
    assert_eq!(cluster.whereis(alone, "old", Consistency::Stale).await, Ok(Some("a".into())));
    let began = Instant::now();
    let registry = &cluster.nodes[&alone].registry;
    for consistency in [Consistency::Leader, Consistency::Linearizable] {
        assert_eq!(cluster.whereis(alone, "old", consistency).await, Err(Reason::NoQuorum));
    }
    let keep = KeepAlive { leases: vec!["l".parse().unwrap()], ..KeepAlive::default() };
    let kept = registry.keep_alive(keep, &command_call(2_000)).await;
    assert_eq!(kept.unwrap_err(), CommandFailure::NotApplied(Reason::NoQuorum));
    assert_eq!(registry.ready(Instant::now() + Duration::from_secs(2)).await, Err(Reason::NoQuorum));
    // Four of them, and not one has waited for an answer that cannot come: that would take an election timeout each.
    assert!(began.elapsed() < timing().election_max, "took {:?}", began.elapsed());

    cluster.leader_among(&majority).await;
    assert!(is_granted(&cluster.register(majority[0], "new", "b").await));
    assert!(is_granted(&cluster.register(majority[1], "newer", "b").await));

    cluster.cut(&[]);
    // Until it has heard of the others again, it goes on refusing.
    let healed = Instant::now();
    loop {
        match cluster.whereis(alone, "newer", Consistency::Linearizable).await {
            Err(Reason::NoQuorum | Reason::NoLeader) if healed.elapsed() < Duration::from_secs(10) => {}
            found => break assert_eq!(found, Ok(Some("b".into()))),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    for name in not_applied {
        let found = cluster.whereis(alone, &name, Consistency::Linearizable).await;
        assert_eq!(found, Ok(None), "{name} was refused as not applied");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minority_with_the_old_leader_refuses_and_what_it_refused_stays_undone() {
    a_cut_off_minority_refuses(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minority_without_a_leader_refuses_and_what_it_refused_stays_undone() {
    a_cut_off_minority_refuses(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_may_not_be_forwarded_names_the_leader() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let follower = leader % 3 + 1;
    let registry = &cluster.nodes[&follower].registry;
    let call = CommandCall { forward: false, ..command_call(2_000) };
    let outcome = registry.execute(register("x", "a"), &call).await.map(|reply| reply.value);
    assert_eq!(outcome, Err(CommandFailure::NotApplied(Reason::NotLeader { leader: Some(leader) })));
    let call = QueryCall { forward: false, ..query_call(Consistency::Linearizable, 2_000) };
    let query = Query::Whereis { name: "x".parse().unwrap(), token: None };
    let answer = registry.query(query, &call).await.map(|reply| reply.value);
    assert_eq!(answer, Err(QueryFailure(Reason::NotLeader { leader: Some(leader) })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_waits_for_the_revision_asked_for_or_says_how_far_it_is() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let registry = &cluster.nodes[&leader].registry;
    let reply = registry.execute(register("x", "a"), &command_call(2_000)).await.unwrap();
    let query = || Query::Whereis { name: "x".parse().unwrap(), token: None };
    for node in cluster.nodes.values() {
        let call = QueryCall { min_revision: Some(reply.revision.clone()), ..query_call(Consistency::Stale, 2_000) };
        assert!(matches!(node.registry.query(query(), &call).await.unwrap().value, Answer::Entry(_)));
    }
    let call = QueryCall { min_revision: Some(Revision::Cp(7)), ..query_call(Consistency::Stale, 200) };
    let answer = registry.query(query(), &call).await.map(|reply| reply.value);
    assert_eq!(answer, Err(QueryFailure(Reason::Behind { applied: Revision::Cp(1) })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_was_away_too_long_takes_a_snapshot_and_keeps_it() {
    let mut cluster = Cluster::start_tuned(3, |config| {
        config.snapshot_every = 50;
        config.log_kept = 10;
    })
    .await;
    let away = cluster.leader().await % 3 + 1;
    cluster.stop(away).await;
    let through = cluster.leader_among(&(1..=3).filter(|id| *id != away).collect::<Vec<_>>()).await;
    for at in 0..300 {
        assert!(is_granted(&cluster.register(through, &format!("n{at}"), "a").await));
    }
    // What it lacks is gone from the leader's log, so that only a snapshot can help it.
    let had = 10;
    let deadline = Instant::now() + Duration::from_secs(20);
    while cluster.nodes[&through].log_extent().purged < Some(had) {
        assert!(Instant::now() < deadline, "{:?}", cluster.nodes[&through].log_extent());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    cluster.restart(away).await;
    assert_eq!(cluster.whereis(away, "n299", Consistency::Linearizable).await, Ok(Some("a".into())));
    let extent = cluster.nodes[&away].log_extent();
    assert!(extent.purged > Some(had) && extent.snapshot >= extent.purged, "{extent:?}");
    cluster.stop(away).await;
    cluster.restart(away).await;
    for at in [0, 150, 299] {
        let found = cluster.whereis(away, &format!("n{at}"), Consistency::Linearizable).await;
        assert_eq!(found, Ok(Some("a".into())), "n{at}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_node_votes_for_nobody_until_every_lease_that_it_granted_is_over() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let restarted = leader % 3 + 1;
    cluster.stop(restarted).await;
    // Without the leader, the third one needs the vote of the restarted one.
    cluster.stop(leader).await;
    let began = Instant::now();
    cluster.restart(restarted).await;
    let side = [restarted, 6 - leader - restarted];
    cluster.leader_among(&side).await;
    assert!(began.elapsed() >= timing().election_max, "elected after {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_node_does_not_show_an_older_state_than_before() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let node = leader % 3 + 1;
    for at in 0..50 {
        assert!(is_granted(&cluster.register(node, &format!("n{at}"), "a").await));
    }
    assert_eq!(cluster.whereis(node, "n49", Consistency::Linearizable).await, Ok(Some("a".into())));
    cluster.stop(node).await;
    cluster.restart(node).await;
    loop {
        match cluster.whereis(node, "n49", Consistency::Stale).await {
            Err(Reason::Starting) => tokio::time::sleep(Duration::from_millis(5)).await,
            found => break assert_eq!(found, Ok(Some("a".into()))),
        }
    }
}

/// A leader that acknowledges before it replicates answers in a minority; after the heal its word is worth nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_planted_early_acknowledgement_loses_what_it_acknowledged() {
    let flawed = |config: &mut RaftConfig| config.flaws = Flaws { ack_before_replication: true, ..Flaws::default() };
    let cluster = Cluster::start_tuned(3, flawed).await;
    let leader = cluster.leader().await;
    let majority = (1..=3).filter(|id| *id != leader).collect::<Vec<_>>();
    cluster.cut(&[leader]);
    tokio::time::sleep(timing().election_max * 3).await;
    assert!(is_granted(&cluster.register(leader, "contested", "minority").await));
    cluster.leader_among(&majority).await;
    assert!(is_granted(&cluster.register(majority[0], "contested", "majority").await));
    cluster.cut(&[]);
    cluster.leader().await;
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let found = cluster.whereis(majority[0], "contested", Consistency::Linearizable).await;
        if found == Ok(Some("majority".into())) {
            return;
        }
        assert!(Instant::now() < deadline, "{found:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_planted_local_read_shows_an_old_state() {
    let flawed = |config: &mut RaftConfig| config.flaws = Flaws { local_reads: true, ..Flaws::default() };
    let cluster = Cluster::start_tuned(3, flawed).await;
    let leader = cluster.leader().await;
    let cut = leader % 3 + 1;
    cluster.cut(&[cut]);
    assert!(is_granted(&cluster.register(leader, "x", "a").await));
    assert_eq!(cluster.whereis(cut, "x", Consistency::Linearizable).await, Ok(None));
}
