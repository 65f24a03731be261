//! Nodes that come and go while the cluster runs: in one process, over real loopback links and real disks.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use quorate::cluster::{Change, ChangeRefusal, Changed, Role};
use quorate::model::ident::NodeId;
use quorate::raft::RaftConfig;
use quorate::registry::{CommandFailure, Consistency, Reason};

use super::raft_cluster::{Cluster, command_call};

type Outcome = Result<Result<Changed, ChangeRefusal>, CommandFailure>;

async fn change(cluster: &Cluster, through: NodeId, change: Change) -> Outcome {
    cluster.nodes[&through].registry.change(change, &command_call(8_000)).await
}

/// Asks again for as long as the answer is that it may be otherwise in a moment.
async fn settled(cluster: &Cluster, through: NodeId, wanted: Change) -> Outcome {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match change(cluster, through, wanted.clone()).await {
            Ok(Err(ChangeRefusal::Behind { .. } | ChangeRefusal::UnderWay | ChangeRefusal::CannotLead { .. }))
            | Err(CommandFailure::NotApplied(Reason::NoLeader))
            | Err(CommandFailure::Unknown(_))
                if Instant::now() < deadline => {}
            outcome => return outcome,
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn voters(cluster: &Cluster, at: NodeId) -> BTreeSet<NodeId> {
    cluster.nodes[&at].roster().borrow().voters()
}

fn retired(cluster: &Cluster, at: NodeId) -> BTreeSet<NodeId> {
    cluster.nodes[&at].roster().borrow().retired.clone()
}

/// Waits until what is looked at is so.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn removed(node: NodeId, now: bool) -> Outcome {
    Ok(Ok(Changed::Removed { node, now }))
}

fn often_snapshot(config: &mut RaftConfig) {
    config.snapshot_every = 1_000_000;
    config.log_kept = 0;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_added_promoted_and_removed_through_any_node_and_its_id_never_returns() {
    let mut cluster = Cluster::start_tuned(3, often_snapshot).await;
    let leader = cluster.leader().await;
    let follower = leader % 3 + 1;
    cluster.register(leader, "before", "a").await.unwrap();

    let peer = cluster.newcomer(4).await;
    let add = |node, peer: &str| Change::Add { node, peer: peer.to_owned() };
    let member = |role, now| Ok(Ok(Changed::Member { node: 4, peer: peer.clone(), role, now }));
    assert_eq!(change(&cluster, follower, add(4, &peer)).await, member(Role::Learner, true));
    assert_eq!(change(&cluster, leader, add(4, &peer)).await, member(Role::Learner, false));
    let exists = |node| Ok(Err(ChangeRefusal::Exists { node, peer: peer.clone() }));
    assert_eq!(change(&cluster, follower, add(4, "127.0.0.1:9")).await, exists(4));
    assert_eq!(change(&cluster, follower, add(5, &peer)).await, exists(4));
    let unknown = Ok(Err(ChangeRefusal::Unknown { node: 7 }));
    assert_eq!(change(&cluster, follower, Change::Promote { node: 7 }).await, unknown);
    assert_eq!(change(&cluster, follower, Change::Remove { node: 7 }).await, unknown);
    assert_eq!(settled(&cluster, follower, Change::Promote { node: 4 }).await, member(Role::Voter, true));
    assert_eq!(change(&cluster, leader, Change::Promote { node: 4 }).await, member(Role::Voter, false));
    // The newcomer is a node like any other: it answers, and passes changes on.
    assert_eq!(cluster.whereis(4, "before", Consistency::Linearizable).await, Ok(Some("a".into())));
    assert_eq!(voters(&cluster, 4), [1, 2, 3, 4].into());

    assert_eq!(change(&cluster, 4, Change::Remove { node: follower }).await, removed(follower, true));
    assert_eq!(change(&cluster, leader, Change::Remove { node: follower }).await, removed(follower, false));
    let gone = Ok(Err(ChangeRefusal::Removed { node: follower }));
    assert_eq!(change(&cluster, 4, add(follower, "127.0.0.1:9")).await, gone);
    assert_eq!(change(&cluster, 4, Change::Promote { node: follower }).await, gone);

    // In a snapshot alone, without the log that led to it, it is known as well.
    let rest = [1, 2, 3, 4].into_iter().filter(|node| *node != follower).collect::<Vec<NodeId>>();
    for node in &rest {
        assert_eq!(cluster.whereis(*node, "before", Consistency::Linearizable).await, Ok(Some("a".into())));
        cluster.nodes[node].take_snapshot((Instant::now() + Duration::from_secs(20)).into()).await.unwrap();
    }
    cluster.stop(follower).await;
    for node in &rest {
        cluster.stop(*node).await;
    }
    for node in &rest {
        cluster.restart(*node).await;
    }
    assert_eq!(settled(&cluster, rest[0], add(follower, "127.0.0.1:9")).await, gone);
    for node in rest {
        until("a restarted node knows who was removed", || retired(&cluster, node) == [follower].into()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_leave_no_majority_in_reach_is_refused_and_a_dead_node_can_be_removed() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let (dead, live) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    cluster.stop(dead).await;
    // It is given up after two election timeouts.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let outcome = settled(&cluster, live, Change::Remove { node: live }).await;
    assert_eq!(outcome, Ok(Err(ChangeRefusal::QuorumAtRisk { voters: 2, in_reach: 1 })));
    let outcome = settled(&cluster, live, Change::Lead { node: Some(live) }).await;
    assert_eq!(outcome, Ok(Ok(Changed::Leads { node: live })));
    assert_eq!(settled(&cluster, live, Change::Remove { node: dead }).await, removed(dead, true));
    let newcomer = cluster.newcomer(4).await;
    settled(&cluster, leader, Change::Add { node: 4, peer: newcomer }).await.unwrap().unwrap();
    settled(&cluster, leader, Change::Promote { node: 4 }).await.unwrap().unwrap();
    for node in [4, leader] {
        assert_eq!(settled(&cluster, live, Change::Remove { node }).await, removed(node, true));
    }
    let last = settled(&cluster, live, Change::Remove { node: live }).await;
    assert_eq!(last, Ok(Err(ChangeRefusal::QuorumAtRisk { voters: 0, in_reach: 0 })));
    assert!(cluster.register(live, "alone", "a").await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lead_goes_where_it_is_sent_and_a_leader_that_is_removed_hands_over_first() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let (heir, third) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    let asked = settled(&cluster, third, Change::Lead { node: Some(heir) }).await;
    assert_eq!(asked, Ok(Ok(Changed::Leads { node: heir })));
    assert_eq!(cluster.leader().await, heir);
    let asked = settled(&cluster, heir, Change::Lead { node: None }).await;
    assert!(matches!(asked, Ok(Ok(Changed::Leads { node })) if node != heir), "{asked:?}");

    let leader = cluster.leader().await;
    let outcome = settled(&cluster, leader, Change::Remove { node: leader }).await;
    assert!(matches!(outcome, Ok(Ok(Changed::Removed { .. })) | Err(_)), "{outcome:?}");
    let others = (1..=3).filter(|node| *node != leader).collect::<Vec<_>>();
    for node in &others {
        until("the leader is removed", || retired(&cluster, *node) == [leader].into()).await;
    }
    assert!(others.contains(&cluster.leader_among(&others).await));
    assert!(cluster.register(others[0], "after", "a").await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_at_once_through_all_nodes_are_made_one_after_the_other() {
    let mut cluster = Cluster::start(3).await;
    cluster.leader().await;
    for id in 4..=6 {
        cluster.newcomer(id).await;
    }
    let add = |node: NodeId| (node, Change::Add { node, peer: cluster.address(node) });
    let (four, five, six) = (add(4), add(5), add(6));
    // The same one twice, too.
    let calls = [&four, &five, &six, &four]
        .into_iter()
        .zip([1, 2, 3, 2])
        .map(|((_, wanted), through)| settled(&cluster, through, wanted.clone()));
    for outcome in futures_util::future::join_all(calls).await {
        assert!(matches!(outcome, Ok(Ok(Changed::Member { role: Role::Learner, .. }))), "{outcome:?}");
    }
    let calls = [
        (1, Change::Promote { node: 4 }),
        (2, Change::Promote { node: 5 }),
        (3, Change::Remove { node: 6 }),
        (1, Change::Lead { node: Some(2) }),
    ];
    let calls = calls.into_iter().map(|(through, wanted)| settled(&cluster, through, wanted));
    for outcome in futures_util::future::join_all(calls).await {
        assert!(matches!(outcome, Ok(Ok(_))), "{outcome:?}");
    }
    for node in 1..=5 {
        until("all changes are made", || {
            voters(&cluster, node) == [1, 2, 3, 4, 5].into() && retired(&cluster, node) == [6].into()
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_its_leader_did_not_live_to_finish_is_finished_by_the_next() {
    for pause_ms in [0, 3, 100] {
        let cluster = Cluster::start(4).await;
        let leader = cluster.leader().await;
        let others = (1..=4).filter(|node| *node != leader).collect::<Vec<_>>();
        let victim = others[2];
        let registry = cluster.nodes[&leader].registry.clone();
        let asked =
            tokio::spawn(async move { registry.change(Change::Remove { node: victim }, &command_call(5_000)).await });
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        cluster.sever(leader);
        // Not asked of the one that goes, nor through it: if the change was made before the cut, nobody tells it any more.
        let (next, beside) = (others[0], others[1]);
        until("those that stay have another leader", || {
            let seen = [next, beside].map(|node| cluster.nodes[&node].status().leader);
            seen[0] == seen[1] && seen[0].is_some_and(|seen| seen != leader)
        })
        .await;
        // Made, or never begun; nothing in between stays.
        until("no two majorities are asked any more", || {
            let roster = cluster.nodes[&next].roster().borrow().clone();
            !roster.is_joint()
        })
        .await;
        // The node that was cut off does not claim what it cannot know.
        if let Ok(Ok(Ok(Changed::Removed { .. }))) = asked.await {
            until("what was acknowledged is so", || retired(&cluster, next) == [victim].into()).await;
        }
        let outcome = settled(&cluster, next, Change::Remove { node: victim }).await;
        assert!(matches!(outcome, Ok(Ok(Changed::Removed { .. }))), "{outcome:?}");
    }
}
