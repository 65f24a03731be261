//! Runs that break a replicated table which answers from what one node happens to know, or says more of a failed command than is known.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate::model::command::Action;
use quorate::model::entry::{Entry, Holder};
use quorate::model::event::{Change, Filter};
use quorate::model::ident::{NodeId, Revision, Token};
use quorate::model::outcome::{Ended, Outcome, Refusal};
use quorate::model::query::{Answer, Page, Query};
use quorate::raft::{Flaws, RaftConfig, RaftNode, RaftRegistry};
use quorate::registry::{CommandFailure, Consistency, Position, Reason, Registry, Told, Watch};

use crate::raft_cluster::{Cluster, command_call, query_call, register, timing, whereis};

fn unregister(name: &str) -> Action {
    Action::Unregister { name: name.parse().unwrap(), token: None }
}

async fn page(node: &RaftNode, page: &Page) -> (Vec<String>, Option<String>, u64) {
    let call = query_call(Consistency::Linearizable, 20_000);
    let reply = node.registry.query(Query::Names { page: page.clone() }, &call).await.unwrap();
    let Answer::Entries { entries, next } = reply.value else { panic!("entries were asked for") };
    let Revision::Cp(revision) = reply.revision else { panic!("of another mode") };
    let name = |entry: &Entry| match &entry.holder {
        Holder::Owner(name, _) => name.to_string(),
        other => panic!("{other:?}"),
    };
    (entries.iter().map(name).collect(), next, revision)
}

async fn all_names(node: &RaftNode) -> BTreeSet<String> {
    let (mut all, mut at) = (BTreeSet::new(), Page { limit: 1000, ..Page::default() });
    loop {
        let (names, next, _) = page(node, &at).await;
        all.extend(names);
        match next {
            Some(next) => at.after = Some(next),
            None => return all,
        }
    }
}

/// What a node that hears everything late says no to. (C2)
async fn refusals_of_a_lagging_node_are_as_new_as_the_call(tune: fn(&mut RaftConfig)) -> Result<(), String> {
    let cluster = Cluster::start_tuned(3, tune).await;
    let leader = cluster.leader().await;
    let late = leader % 3 + 1;
    cluster.delay(late, Duration::from_millis(60));
    let mut has_lagged = false;
    for at in 0..5 {
        let name = format!("n{at}");
        cluster.register(leader, &name, "a").await.unwrap();
        has_lagged |= cluster.whereis(late, &name, Consistency::Stale).await == Ok(None);
        let found = cluster.whereis(late, &name, Consistency::Linearizable).await.unwrap();
        if found.as_deref() != Some("a") {
            return Err(format!("{name} was acknowledged, and is not found"));
        }
        let taken = cluster.register(late, &name, "b").await.unwrap();
        assert!(matches!(taken, Outcome::Refused(Refusal::NameTaken { .. })), "{taken:?}");
        let ended = cluster.nodes[&leader].registry.execute(unregister(&name), &command_call(5_000)).await.unwrap();
        assert_eq!(ended.value, Outcome::Ended(Ended::Now));
        let found = cluster.whereis(late, &name, Consistency::Linearizable).await.unwrap();
        if found.is_some() {
            return Err(format!("{name} was given up, and is found"));
        }
        let again = cluster.nodes[&late].registry.execute(unregister(&name), &command_call(5_000)).await.unwrap();
        assert_eq!(again.value, Outcome::Refused(Refusal::NotFound));
        let granted = cluster.register(late, &name, "b").await.unwrap();
        assert!(matches!(granted, Outcome::Granted { .. }), "{granted:?}");
    }
    assert!(has_lagged, "nothing was shown: the node was never behind");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lagging_node_refuses_nothing_by_what_it_happens_to_know() {
    refusals_of_a_lagging_node_are_as_new_as_the_call(|_| {}).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lagging_node_that_reads_locally_is_found_out() {
    let flawed = |config: &mut RaftConfig| config.flaws = Flaws { local_reads: true, ..Flaws::default() };
    refusals_of_a_lagging_node_are_as_new_as_the_call(flawed).await.unwrap_err();
}

/// Names that were sent, and what was said of each: its token, or why there is none.
type Said = Vec<(String, Result<u64, CommandFailure>)>;

async fn write_for_a_while(registry: Arc<RaftRegistry>, id: NodeId, until: Instant) -> Said {
    let mut told = Vec::new();
    while Instant::now() < until {
        let name = format!("w{id}-{:05}", told.len());
        let result = registry.execute(register(&name, "a"), &command_call(600)).await;
        told.push((
            name,
            result.map(|reply| match reply.value {
                Outcome::Granted { entry, .. } => match entry.token {
                    Token::Cp(token) => token,
                    Token::Ap(_) => panic!("a token of the other mode"),
                },
                other => panic!("{other:?}"),
            }),
        ));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    told
}

/// Leaders are cut off again and again under writes through every node. What was acknowledged is there, once; what was called not
/// applied is not, and does not come later. (C1, C3)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_said_of_a_command_is_true_while_leaders_are_cut_off() {
    let cluster = Cluster::start(3).await;
    cluster.leader().await;
    let until = Instant::now() + Duration::from_secs(7);
    let writers = cluster
        .nodes
        .iter()
        .map(|(id, node)| tokio::spawn(write_for_a_while(node.registry.clone(), *id, until)))
        .collect::<Vec<_>>();
    for _ in 0..3 {
        let leader = cluster.leader().await;
        cluster.cut(&[leader]);
        tokio::time::sleep(timing().election_max * 2).await;
        cluster.cut(&[]);
        tokio::time::sleep(timing().election_min * 2).await;
    }
    let (mut tokens, mut told) = (BTreeSet::new(), Vec::new());
    for writer in writers {
        let of_one = writer.await.unwrap();
        let mut last = 0;
        for token in of_one.iter().filter_map(|(_, result)| result.as_ref().ok()) {
            assert!(*token > last && tokens.insert(*token), "token {token} after {last}");
            last = *token;
        }
        told.extend(of_one);
    }
    cluster.leader().await;
    let found = all_names(&cluster.nodes[&1]).await;
    let mut counts = [0; 3];
    for (name, result) in &told {
        match result {
            Ok(_) => {
                counts[0] += 1;
                assert!(found.contains(name), "{name} was acknowledged and is lost");
            }
            Err(CommandFailure::NotApplied(_)) => {
                counts[1] += 1;
                assert!(!found.contains(name), "{name} was called not applied");
            }
            Err(CommandFailure::Unknown(Reason::Timeout | Reason::NoLeader)) => counts[2] += 1,
            // No bug is needed for an outcome to be unknown.
            Err(CommandFailure::Unknown(reason)) => panic!("{name}: {reason:?}"),
        }
    }
    assert!(counts[0] > 0 && counts[1] + counts[2] > 0, "nothing was shown: {counts:?}");
    // Nor does anything come later.
    tokio::time::sleep(timing().election_max).await;
    assert_eq!(all_names(&cluster.nodes[&2]).await, found);
}

/// A cut-off leader that still counts on its lease answers nothing that a newer leader's writes have overtaken. (C8)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_read_is_never_older_than_a_write_acknowledged_elsewhere() {
    let cluster = Cluster::start(3).await;
    let old = cluster.leader().await;
    cluster.register(old, "before", "a").await.unwrap();
    let majority = (1..=3).filter(|id| *id != old).collect::<Vec<_>>();
    cluster.cut(&[old]);
    let cut_at = Instant::now();
    let (mut acknowledged, mut answered) = (None, 0);
    while cut_at.elapsed() < timing().election_max * 6 {
        let wanted = acknowledged.clone().unwrap_or_else(|| "before".to_owned());
        let query = Query::Whereis { name: wanted.parse().unwrap(), token: None };
        match cluster.nodes[&old].registry.query(query, &query_call(Consistency::Leader, 50)).await {
            Ok(reply) => {
                assert!(matches!(reply.value, Answer::Entry(_)), "{wanted} was acknowledged, and is not found");
                answered += 1;
            }
            Err(_) => {
                let name = format!("n{}", cut_at.elapsed().as_millis());
                let registry = &cluster.nodes[&majority[0]].registry;
                if let Ok(reply) = registry.execute(register(&name, "b"), &command_call(200)).await {
                    assert!(matches!(reply.value, Outcome::Granted { .. }));
                    acknowledged = Some(name);
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(acknowledged.is_some(), "the majority wrote nothing; the old leader answered {answered} times");
    let late = whereis(&cluster.nodes[&old], "before", Consistency::Leader).await;
    assert!(matches!(late, Err(Reason::NoQuorum | Reason::NoLeader | Reason::Timeout)), "{late:?}");
}

/// The pages of a list are not one snapshot; but what stands throughout is on them once, and what changes meanwhile is told by a
/// watch from the first page's revision, at any node. (C8)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_and_the_watch_from_its_first_pages_revision_make_the_state() {
    let cluster = Cluster::start(3).await;
    cluster.leader().await;
    for at in 0..60 {
        cluster.register(at % 3 + 1, &format!("kept{at:02}"), "a").await.unwrap();
        cluster.register(at % 3 + 1, &format!("gone{at:02}"), "a").await.unwrap();
    }
    let registry = cluster.nodes[&1].registry.clone();
    let writing = tokio::spawn(async move {
        for at in 0..60 {
            for action in [unregister(&format!("gone{at:02}")), register(&format!("new{at:02}"), "a")] {
                registry.execute(action, &command_call(20_000)).await.unwrap();
            }
        }
    });
    let (mut state, mut first) = (BTreeMap::<String, usize>::new(), None);
    let mut at = Page { limit: 10, ..Page::default() };
    for round in 0.. {
        let (names, next, revision) = page(&cluster.nodes[&(round % 3 + 1)], &at).await;
        first.get_or_insert(revision);
        names.into_iter().for_each(|name| *state.entry(name).or_default() += 1);
        match next {
            Some(next) => at.after = Some(next),
            None => break,
        }
    }
    assert!(state.values().all(|count| *count == 1), "{state:?}");
    assert_eq!(state.keys().filter(|name| name.starts_with("kept")).count(), 60);
    writing.await.unwrap();
    let (_, _, last) = page(&cluster.nodes[&2], &Page::default()).await;
    let from = Position::After(Revision::Cp(first.unwrap()));
    let watch = Watch { filter: Filter::default(), from, initial: false };
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut watch = cluster.nodes[&2].registry.watch(watch, deadline).await.unwrap();
    assert!(matches!(watch.next().await.unwrap().told, Told::Progress { .. }), "where it begins");
    let mut state = state.into_keys().collect::<BTreeSet<_>>();
    for due in first.unwrap() + 1..=last {
        let message = watch.next().await.unwrap();
        let Told::Change(event) = message.told else { panic!("{message:?} where {due} was due") };
        assert_eq!(event.revision, Revision::Cp(due));
        for change in event.changes {
            match &change {
                Change::Registered { entry, .. } | Change::Ended { entry, .. } => {
                    let Holder::Owner(name, _) = &entry.holder else { panic!("{entry:?}") };
                    match change {
                        Change::Registered { .. } => state.insert(name.to_string()),
                        _ => state.remove(name.as_str()),
                    };
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(state, all_names(&cluster.nodes[&3]).await);
}
