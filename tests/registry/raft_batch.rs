//! Batches of `cp`: one log entry each, however long, so that all of its commands are applied or none.

use std::time::{Duration, Instant};

use quorate::model::command::{Action, Condition};
use quorate::model::entry::Holder;
use quorate::model::outcome::{Outcome, Refusal};
use quorate::model::query::{Answer, Page, Query};
use quorate::raft::RaftNode;
use quorate::registry::{CommandFailure, Consistency, Reason, Registry};

use crate::raft_cluster::{Cluster, command_call, query_call, register};

fn with_meta(name: &str, meta_len: usize) -> Action {
    let meta = format!("{{\"fill\":\"{}\"}}", "x".repeat(meta_len)).parse().unwrap();
    let (name, owner) = (name.parse().unwrap(), "a".parse().unwrap());
    Action::Register { name, owner, meta, lease: None, condition: Condition::Free }
}

async fn count(node: &RaftNode, prefix: &str) -> usize {
    let mut page = Page { prefix: prefix.into(), limit: 1000, ..Page::default() };
    let mut count = 0;
    loop {
        let call = query_call(Consistency::Linearizable, 20_000);
        let reply = node.registry.query(Query::Names { page: page.clone() }, &call).await.unwrap();
        let Answer::Entries { entries, next } = reply.value else { panic!("entries were asked for") };
        count += entries.len();
        match next {
            Some(next) => page.after = Some(next),
            None => return count,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_large_commands_go_through_any_node_and_outlive_a_restart_of_all() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    for (through, prefix) in [(leader, "l"), (leader % 3 + 1, "f")] {
        // 1.0 MB of commands, as long as a request's body may be.
        let actions = (0..1000).map(|at| with_meta(&format!("{prefix}{at:04}"), 980)).collect();
        let reply = cluster.nodes[&through].registry.batch(actions, &command_call(20_000)).await.unwrap();
        assert_eq!(reply.value.len(), 1000);
        for (at, outcome) in reply.value.iter().enumerate() {
            let Outcome::Granted { entry, .. } = outcome else { panic!("{outcome:?}") };
            let Holder::Owner(name, _) = &entry.holder else { panic!("{entry:?}") };
            assert_eq!(name.as_str(), format!("{prefix}{at:04}"));
        }
    }
    // Every one of them is refused, and tells of a large entry.
    let again = (0..1000).map(|at| register(&format!("f{at:04}"), "other")).collect();
    let follower = leader % 3 + 1;
    let reply = cluster.nodes[&follower].registry.batch(again, &command_call(20_000)).await.unwrap();
    assert!(reply.value.iter().all(|o| matches!(o, Outcome::Refused(Refusal::NameTaken { .. }))));
    for id in 1..=3 {
        cluster.stop(id).await;
    }
    for id in 1..=3 {
        cluster.restart(id).await;
    }
    for node in cluster.nodes.values() {
        assert_eq!((count(node, "l").await, count(node, "f").await), (1000, 1000));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_carried_out_in_order_and_a_refusal_stops_nothing() {
    let cluster = Cluster::start(1).await;
    cluster.leader().await;
    let unregister = |name: &str| Action::Unregister { name: name.parse().unwrap(), token: None };
    let actions = vec![
        register("x", "a"),
        register("x", "b"),
        unregister("x"),
        register("x", "b"),
        unregister("none"),
        register("y", "a"),
    ];
    let registry = &cluster.nodes[&1].registry;
    let reply = registry.batch(actions, &command_call(5_000)).await.unwrap();
    let kinds = reply.value.iter().map(|outcome| match outcome {
        Outcome::Granted { .. } => "granted",
        Outcome::Ended(_) => "ended",
        Outcome::Refused(Refusal::NameTaken { .. }) => "taken",
        Outcome::Refused(Refusal::NotFound) => "not found",
        other => panic!("{other:?}"),
    });
    assert_eq!(kinds.collect::<Vec<_>>(), ["granted", "taken", "ended", "granted", "not found", "granted"]);
    // Each that changed something has a revision of its own.
    assert_eq!(reply.revision, quorate::model::ident::Revision::Cp(4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_log_entry_can_hold_is_refused_before_it_is_proposed() {
    let cluster = Cluster::start(1).await;
    cluster.leader().await;
    let node = &cluster.nodes[&1];
    cluster.register(1, "x", "a").await.unwrap();
    let before = node.log_extent().last;
    let long = (0..1000).map(|at| with_meta(&format!("n{at}"), 16_000)).collect::<Vec<_>>();
    let many = (0..1001).map(|at| register(&format!("n{at}"), "a")).collect();
    let lease = vec![Action::CreateLease { lease: None, ttl_ms: 5_000, credential: None }];
    for (actions, why) in [(long, "too long"), (many, "more commands"), (lease, "of a lease")] {
        match node.registry.batch(actions, &command_call(5_000)).await {
            Err(CommandFailure::NotApplied(Reason::Internal(line))) => assert!(line.contains(why), "{line}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(node.log_extent().last, before);
}

/// Batches are under way while leaders die: each is found as a whole or not at all, and a whole one if it was acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_applied_as_a_whole_or_not_at_all_when_leaders_change() {
    const LEN: usize = 40;
    let mut cluster = Cluster::start(3).await;
    let mut sent = Vec::new();
    for round in 0..2 {
        let leader = cluster.leader().await;
        let through = leader % 3 + 1;
        let registry = cluster.nodes[&through].registry.clone();
        let sending = tokio::spawn(async move {
            let (mut sent, until) = (Vec::new(), Instant::now() + Duration::from_secs(3));
            while Instant::now() < until {
                let prefix = format!("r{round}b{}-", sent.len());
                // Several pieces each.
                let actions = (0..LEN).map(|at| with_meta(&format!("{prefix}{at}"), 4_000)).collect();
                let result = registry.batch(actions, &command_call(1_500)).await;
                sent.push((prefix, result.map(|_| ())));
            }
            sent
        });
        tokio::time::sleep(Duration::from_millis(1_000)).await;
        cluster.stop(leader).await;
        sent.extend(sending.await.unwrap());
        cluster.restart(leader).await;
    }
    cluster.leader().await;
    let acknowledged = sent.iter().filter(|(_, result)| result.is_ok()).count();
    assert!(acknowledged > 2, "{sent:?}");
    for (prefix, result) in sent {
        let found = count(&cluster.nodes[&1], &prefix).await;
        match result {
            Ok(()) => assert_eq!(found, LEN, "{prefix} was acknowledged"),
            Err(CommandFailure::NotApplied(_)) => assert_eq!(found, 0, "{prefix} was refused"),
            Err(CommandFailure::Unknown(_)) => assert!([0, LEN].contains(&found), "{prefix}: {found}"),
        }
    }
}
