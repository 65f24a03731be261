//! Leases of `cp` on three nodes in one process, over real links, disks and clocks (protocol C4 and C5).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate::model::command::{Action, Condition};
use quorate::model::ident::{CredentialName, LeaseId, NodeId, RecordId};
use quorate::model::lease::{KeptAlive, LeaseStatus};
use quorate::model::outcome::{Ended, Outcome, Refusal};
use quorate::model::query::{Answer, Page, Query};
use quorate::model::step::Step;
use quorate::net::clock::SystemClock;
use quorate::raft::contact::Contacts;
use quorate::raft::forward::{Ask, Forwarder, Told};
use quorate::raft::types::Proposal;
use quorate::raft::{Flaws, Pace, RaftConfig};
use quorate::registry::{CommandFailure, Consistency, KeepAlive, Reason, Registry};

use super::raft_cluster::{Cluster, command_call, query_call, timing};

/// Long enough that a busy machine does not let a lease run out between two keep-alives.
const TTL_MS: u64 = 6_000;
/// How long a busy machine may take for what should take a moment.
const PATIENCE: Duration = Duration::from_secs(20);

fn id(text: &str) -> LeaseId {
    text.parse().unwrap()
}

async fn execute(cluster: &Cluster, node: NodeId, action: Action) -> Outcome {
    cluster.nodes[&node].registry.execute(action, &command_call(10_000)).await.unwrap().value
}

fn create(lease: &str, ttl_ms: u64) -> Action {
    Action::CreateLease { lease: Some(id(lease)), ttl_ms, credential: None }
}

fn register(name: &str, owner: &str, lease: &str, condition: Condition) -> Action {
    let (name, owner, meta) = (name.parse().unwrap(), owner.parse().unwrap(), "{}".parse().unwrap());
    Action::Register { name, owner, meta, lease: Some(id(lease)), condition }
}

type Kept = Result<KeptAlive, Refusal>;

async fn keep_all(cluster: &Cluster, node: NodeId, keep: KeepAlive) -> Result<Vec<Kept>, CommandFailure> {
    cluster.nodes[&node].registry.keep_alive(keep, &command_call(10_000)).await.map(|reply| reply.value)
}

async fn keep(cluster: &Cluster, node: NodeId, lease: &str) -> Result<Kept, CommandFailure> {
    let keep = KeepAlive { leases: vec![id(lease)], ..KeepAlive::default() };
    keep_all(cluster, node, keep).await.map(|mut kept| kept.pop().unwrap())
}

/// Kept alive, however often it has to be asked for.
async fn surely_keep(cluster: &Cluster, node: NodeId, lease: &str) -> Kept {
    let began = Instant::now();
    loop {
        match keep(cluster, node, lease).await {
            Ok(kept) => return kept,
            Err(failure) => assert!(began.elapsed() < PATIENCE, "{failure:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn status(cluster: &Cluster, node: NodeId, lease: &str) -> Result<LeaseStatus, Refusal> {
    let query = Query::Lease { lease: id(lease), page: Page::default() };
    let reply = cluster.nodes[&node].registry.query(query, &query_call(Consistency::Linearizable, 10_000)).await;
    match reply.unwrap().value {
        Answer::Lease(status) => Ok(status),
        Answer::Refused(refusal) => Err(refusal),
        other => panic!("{other:?}"),
    }
}

async fn holder(cluster: &Cluster, node: NodeId, name: &str) -> Option<String> {
    let began = Instant::now();
    loop {
        match cluster.whereis(node, name, Consistency::Linearizable).await {
            Ok(found) => return found,
            Err(reason) => assert!(began.elapsed() < PATIENCE, "{reason:?}"),
        }
    }
}

/// When the name was first seen free.
async fn when_free(cluster: &Cluster, node: NodeId, name: &str) -> Instant {
    let began = Instant::now();
    while holder(cluster, node, name).await.is_some() {
        assert!(began.elapsed() < PATIENCE, "{name} is never freed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Instant::now()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_is_kept_alive_through_any_node_and_all_bound_to_it_ends_after_the_last() {
    let cluster = Cluster::start(3).await;
    cluster.leader().await;
    let made = execute(&cluster, 1, Action::CreateLease { lease: None, ttl_ms: 1_500, credential: None }).await;
    let Outcome::LeaseCreated { lease, ttl_ms: 1_500 } = made else { panic!("{made:?}") };
    let lease = lease.to_string();
    let granted = execute(&cluster, 2, register("x", "a", &lease, Condition::Free)).await;
    // Only a machine that stood still for a second and a half makes it too late already.
    if let Outcome::Granted { .. } = granted {
        let mut sent = Instant::now();
        let mut alive = true;
        for node in [1, 2, 3, 1] {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let sending = Instant::now();
            alive = surely_keep(&cluster, node, &lease).await.is_ok();
            assert!(alive || sent.elapsed() >= Duration::from_millis(1_500), "ended early");
            if !alive {
                break;
            }
            sent = sending;
        }
        let freed = when_free(&cluster, 3, "x").await;
        assert!(freed - sent >= Duration::from_millis(1_500) || !alive, "ended after {:?}", freed - sent);
    }
    when_free(&cluster, 3, "x").await;
    assert_eq!(surely_keep(&cluster, 2, &lease).await, Err(Refusal::LeaseExpired));
    assert_eq!(surely_keep(&cluster, 2, "never").await, Err(Refusal::LeaseUnknown));
    assert_eq!(status(&cluster, 1, &lease).await, Err(Refusal::LeaseExpired));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeping_many_leases_alive_writes_nothing_to_the_log() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let leases = (0..200).map(|at| id(&format!("l{at}"))).collect::<Vec<_>>();
    for lease in &leases {
        let action = Action::CreateLease { lease: Some(lease.clone()), ttl_ms: 60_000, credential: None };
        assert!(matches!(execute(&cluster, 1, action).await, Outcome::LeaseCreated { .. }));
    }
    let before = cluster.nodes[&leader].log_extent().last;
    for node in 1..=3 {
        let bulk = KeepAlive { leases: leases.clone(), ..KeepAlive::default() };
        let kept = keep_all(&cluster, node, bulk).await.unwrap();
        assert!(kept.iter().all(|kept| matches!(kept, Ok(KeptAlive { expires_in_ms: 60_000, .. }))), "{kept:?}");
        let mut singly = tokio::task::JoinSet::new();
        for lease in leases.clone() {
            let registry = cluster.nodes[&node].registry.clone();
            let keep = KeepAlive { leases: vec![lease], ..KeepAlive::default() };
            singly.spawn(async move { registry.keep_alive(keep, &command_call(10_000)).await.unwrap().value });
        }
        assert!(singly.join_all().await.iter().all(|kept| kept[0].is_ok()));
    }
    if cluster.nodes[&leader].status().leader == Some(leader) {
        assert_eq!(cluster.nodes[&leader].log_extent().last, before);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_leader_gives_the_whole_time_again_and_ends_what_nobody_keeps_alive() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    for (name, lease) in [("kept", "k"), ("left", "l")] {
        execute(&cluster, leader, create(lease, TTL_MS)).await;
        execute(&cluster, leader, register(name, "a", lease, Condition::Free)).await;
    }
    cluster.stop(leader).await;
    let other = leader % 3 + 1;
    let mut sent = Instant::now();
    let began = Instant::now();
    while holder(&cluster, other, "left").await.is_some() {
        assert!(began.elapsed() < PATIENCE + Duration::from_millis(2 * TTL_MS), "a dead lease lives on");
        let sending = Instant::now();
        let kept = surely_keep(&cluster, other, "k").await;
        assert!(kept.is_ok() || sent.elapsed() >= Duration::from_millis(TTL_MS), "ended early: {kept:?}");
        sent = sending;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(began.elapsed() >= Duration::from_millis(TTL_MS) - timing().election_max, "after {:?}", began.elapsed());
    let found = holder(&cluster, other, "kept").await;
    assert!(found.is_some() || sent.elapsed() >= Duration::from_millis(TTL_MS), "ended early");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_entries_of_a_lease_are_shown_with_its_time_and_end_with_its_revocation() {
    let cluster = Cluster::start(3).await;
    cluster.leader().await;
    execute(&cluster, 1, create("l", 60_000)).await;
    execute(&cluster, 2, register("x", "a", "l", Condition::Free)).await;
    for node in 1..=3 {
        let status = status(&cluster, node, "l").await.unwrap();
        assert!((1..=60_000).contains(&status.expires_in_ms), "{status:?}");
        assert_eq!(status.entries.len(), 1);
    }
    let revoke = || Action::RevokeLease { lease: id("l"), by: None };
    assert_eq!(execute(&cluster, 3, revoke()).await, Outcome::Ended(Ended::Now));
    assert_eq!(holder(&cluster, 1, "x").await, None);
    assert_eq!(execute(&cluster, 3, revoke()).await, Outcome::Ended(Ended::Before));
    assert_eq!(surely_keep(&cluster, 1, "l").await, Err(Refusal::LeaseExpired));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_lost_a_name_is_told_until_it_has_seen_it_and_nobody_else_renews_its_lease() {
    let cluster = Cluster::start(3).await;
    cluster.leader().await;
    let alice = || Some("alice".parse::<CredentialName>().unwrap());
    execute(&cluster, 1, Action::CreateLease { lease: Some(id("l")), ttl_ms: 60_000, credential: alice() }).await;
    execute(&cluster, 1, create("m", 60_000)).await;
    execute(&cluster, 1, register("x", "a", "l", Condition::Free)).await;
    execute(&cluster, 2, register("x", "b", "m", Condition::Takeover)).await;
    let told = |by: Option<CredentialName>, seen: Vec<RecordId>| {
        let keep = KeepAlive { leases: vec![id("l"), id("m")], seen, by };
        keep_all(&cluster, 3, keep)
    };
    let foreign = told(Some("bob".parse().unwrap()), Vec::new()).await.unwrap();
    assert_eq!(foreign, [Err(Refusal::LeaseForeign), Err(Refusal::LeaseForeign)]);
    let kept = told(alice(), Vec::new()).await.unwrap();
    assert_eq!(kept[1], Err(Refusal::LeaseForeign));
    let lost = kept[0].clone().unwrap().lost;
    assert_eq!((lost.len(), lost[0].name.as_str(), lost[0].winner.owner.as_str()), (1, "x", "b"));
    let record = vec![lost[0].id.clone()];
    // Said for another's lease it means nothing.
    let other = KeepAlive { leases: vec![id("m")], seen: record.clone(), by: None };
    assert!(keep_all(&cluster, 1, other).await.unwrap()[0].is_ok());
    assert_eq!(told(None, Vec::new()).await.unwrap()[0].clone().unwrap().lost, lost);
    assert_eq!(told(alice(), record).await.unwrap()[0].clone().unwrap().lost, []);
    assert_eq!(told(None, Vec::new()).await.unwrap()[0].clone().unwrap().lost, []);
}

/// What a leader that has been cut off says of a keep-alive, long after the others have had to find another leader.
async fn cut_off(flaws: Flaws) -> Result<Kept, CommandFailure> {
    let flawed = |config: &mut RaftConfig| config.flaws.keep_alive_without_round = true;
    let sound = |_: &mut RaftConfig| {};
    let cluster = Cluster::start_tuned(3, if flaws.keep_alive_without_round { flawed } else { sound }).await;
    let leader = cluster.leader().await;
    execute(&cluster, leader, create("l", 60_000)).await;
    assert!(keep(&cluster, leader, "l").await.is_ok());
    cluster.cut(&[leader]);
    let registry = cluster.nodes[&leader].registry.clone();
    let asked = KeepAlive { leases: vec![id("l")], ..KeepAlive::default() };
    // At once: later it knows by itself that it is alone.
    registry.keep_alive(asked, &command_call(2_000)).await.map(|reply| reply.value.into_iter().next().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_keeps_no_lease_alive() {
    match cut_off(Flaws::default()).await {
        Err(CommandFailure::NotApplied(Reason::NoLeader | Reason::NoQuorum) | CommandFailure::Unknown(_)) => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_planted_keep_alive_without_a_round_is_answered_by_a_leader_that_is_cut_off() {
    let flaws = Flaws { keep_alive_without_round: true, ..Flaws::default() };
    assert!(matches!(cut_off(flaws).await, Ok(Ok(_))));
}

/// What only a leader may propose is not taken from another node, whatever that one takes itself for (C4).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expiry_that_another_node_passes_on_is_refused_and_the_lease_lives() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    execute(&cluster, leader, create("l", 60_000)).await;
    // A node that was the leader once, and now is nothing but somebody with its address and its id.
    let deposed = leader % 3 + 1;
    cluster.stop(deposed).await;
    let links = cluster.stranger(deposed).await;
    let addresses = (1..=3).map(|node| (node, cluster.address(node))).collect::<BTreeMap<_, _>>();
    let contacts = Arc::new(Contacts::new(Arc::new(SystemClock)));
    let forwarder = Forwarder::new(links, contacts, move |node| addresses.get(&node).cloned());
    let until = tokio::time::Instant::now() + Duration::from_secs(10);
    for step in [Step::Expire { leases: vec![1] }, Step::Aged { ms: 90_000 }, Step::KeptAlive { leases: vec![1] }] {
        let proposal = Proposal::encode(&step).unwrap();
        let told = forwarder.ask(leader, &Ask::Command { proposal }, until).await;
        assert!(matches!(told, Ok(Told::Refused(_))), "{step:?}: {told:?}");
    }
    assert!(surely_keep(&cluster, leader, "l").await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_planted_haste_ends_a_lease_early() {
    let cluster = Cluster::start_tuned(1, |config| config.flaws.pace = Pace::Hasty).await;
    cluster.leader().await;
    execute(&cluster, 1, create("l", 20_000)).await;
    assert!(keep(&cluster, 1, "l").await.unwrap().is_ok());
    let status = status(&cluster, 1, "l").await.unwrap();
    assert!(status.expires_in_ms <= 10_000, "{status:?}");
}
