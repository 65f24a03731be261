//! Watches of whole nodes over real links: begun, gone on with elsewhere, cut off.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use quorate::gossip::Flaws;
use quorate::model::event::{Change, EndReason, Filter};
use quorate::model::ident::Revision;
use quorate::registry::{Position, Registry, Told, Watch, WatchFailure, WatchMessage, Watching};

use super::nodes::{Cluster, WATCH_HISTORY, granted, register, soon, unregister};

type Reader = Box<dyn Watching>;

async fn watch(cluster: &Cluster, node: u64, from: Position) -> Result<Reader, WatchFailure> {
    let watch = Watch { filter: Filter::default(), from, initial: false };
    cluster.nodes[&node].gossip.registry.watch(watch, Instant::now() + Duration::from_secs(5)).await
}

async fn next(reader: &mut Reader) -> WatchMessage {
    let next = tokio::time::timeout(Duration::from_secs(20), reader.next());
    next.await.expect("something is told").expect("the watch goes on")
}

/// Owners of names as `owner@name`, in the order in which they are told, up to and with this one; and the last position told.
async fn owners_until(reader: &mut Reader, last: &str) -> (Vec<String>, Option<Revision>) {
    let (mut owners, mut position) = (Vec::new(), None);
    loop {
        let message = next(reader).await;
        position = message.position.or(position);
        let Told::Change(event) = message.told else { continue };
        for change in event.changes {
            if let Change::Registered { entry, .. } = change {
                owners.push(format!("{:?}", entry.holder));
            }
        }
        if owners.last().is_some_and(|owner| owner.contains(last)) {
            return (owners, position);
        }
    }
}

async fn position(reader: &mut Reader) -> Revision {
    loop {
        if let Some(position) = next(reader).await.position {
            return position;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_begins_with_the_state_of_one_instant_and_goes_on_from_there() {
    let cluster = Cluster::start(2, Flaws::default()).await;
    for at in 0..1_200 {
        granted(cluster.register(1, &format!("jobs/{at:04}"), "o").await);
    }
    granted(cluster.register(1, "other", "o").await);
    let filter = Filter { name_prefixes: vec!["jobs/".into()], ..Filter::default() };
    let watch = Watch { filter, from: Position::Now, initial: true };
    let mut reader = cluster.nodes[&1].gossip.registry.watch(watch, soon()).await.unwrap();
    let mut names = BTreeSet::new();
    let synced = loop {
        let message = next(&mut reader).await;
        match message.told {
            Told::State(entries) => names.extend(entries.iter().map(|entry| format!("{:?}", entry.holder))),
            Told::Synced => break message.position,
            other => panic!("{other:?}"),
        }
    };
    assert!(synced.is_some());
    assert_eq!(names.len(), 1_200, "what is not wanted is not told");
    // What follows is told, in order, and nothing else.
    granted(cluster.register(1, "another", "o").await);
    cluster.execute(1, unregister("jobs/0007", None), 1).await;
    granted(cluster.register(1, "jobs/new", "o").await);
    let mut kinds = Vec::new();
    while kinds.len() < 2 {
        if let Told::Change(event) = next(&mut reader).await.told {
            kinds.extend(event.changes.into_iter().map(|change| match change {
                Change::Ended { reason: EndReason::Given, current: None, .. } => "ended",
                Change::Registered { previous: None, current: Some(_), .. } => "registered",
                other => panic!("{other:?}"),
            }));
        }
    }
    assert_eq!(kinds, ["ended", "registered"]);
}

/// What a watcher that goes on at another node is told of ten names that were registered in between.
async fn resumed(flaws: Flaws) -> usize {
    let cluster = Cluster::start(3, flaws).await;
    let mut reader = watch(&cluster, 1, Position::Now).await.unwrap();
    let begun = position(&mut reader).await;
    granted(cluster.register(1, "first", "o").await);
    owners_until(&mut reader, "first").await;
    // The position follows what was told, without being asked for.
    let after_first = position(&mut reader).await;
    assert_ne!(begun, after_first);
    drop(reader);
    for at in 0..10 {
        cluster.execute(1 + at % 3, register(&format!("missed-{at}"), "o"), 3).await;
    }
    let mut reader = watch(&cluster, 2, Position::Resume(after_first)).await.unwrap();
    granted(cluster.register(2, "last", "o").await);
    let (owners, _) = owners_until(&mut reader, "last").await;
    assert!(!owners.iter().any(|owner| owner.contains("first")), "that was told before: {owners:?}");
    owners.iter().filter(|owner| owner.contains("missed")).collect::<BTreeSet<_>>().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_at_another_node_without_a_gap() {
    assert_eq!(resumed(Flaws::default()).await, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_drops_on_resume_is_found_out() {
    assert!(resumed(Flaws { drop_on_resume: true, ..Flaws::default() }).await < 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_is_gone_is_refused_or_answered_by_a_resync() {
    let mut cluster = Cluster::start(2, Flaws::default()).await;
    let mut reader = watch(&cluster, 1, Position::Now).await.unwrap();
    let early = position(&mut reader).await;
    drop(reader);
    for at in 0..5 {
        cluster.execute(1, register(&format!("n{at}"), "o"), 2).await;
    }
    for nonsense in ["nonsense", "1.2.3.4", "local:1.2.3"] {
        let from = |revision: &str| Revision::Ap(revision.into());
        let refused = watch(&cluster, 1, Position::After(from(nonsense))).await;
        assert!(matches!(refused, Err(WatchFailure::Compacted { .. })), "{nonsense}");
        let mut reader = watch(&cluster, 1, Position::Resume(from(nonsense))).await.unwrap();
        let first = next(&mut reader).await;
        assert!(matches!(first, WatchMessage { told: Told::Resync, position: Some(_) }), "{first:?}");
    }
    // What a process knows that has just started, it has taken from another's state: the operations went with its former life.
    cluster.kill(2);
    cluster.restart(2).await;
    cluster.wait("it serves", |cluster| async { cluster.nodes[&2].gossip.registry.ready(soon()).await.is_ok() }).await;
    let whole = watch(&cluster, 1, Position::After(early.clone())).await;
    assert!(whole.is_ok(), "node 1 has kept all of them");
    let mut reader = watch(&cluster, 2, Position::Resume(early)).await.unwrap();
    granted(cluster.register(2, "last", "o").await);
    loop {
        match next(&mut reader).await.told {
            // It took the state over, and says so.
            Told::Resync => break,
            // Or it got the operations after all, and tells them.
            Told::Change(event) if format!("{event:?}").contains("n4") => break,
            _ => {}
        }
    }
    owners_until(&mut reader, "last").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_will_never_have_what_a_position_covers_says_so() {
    let mut cluster = Cluster::start(2, Flaws::default()).await;
    cluster.cut(&[&[1], &[2]]);
    let mut reader = watch(&cluster, 2, Position::Now).await.unwrap();
    granted(cluster.register(2, "lost", "with its node").await);
    owners_until(&mut reader, "lost").await;
    let ahead = position(&mut reader).await;
    cluster.kill(2);
    let soon = Instant::now() + Duration::from_millis(200);
    let after = Watch { filter: Filter::default(), from: Position::After(ahead.clone()), initial: false };
    let refused = cluster.nodes[&1].gossip.registry.watch(after, soon).await;
    assert!(matches!(refused, Err(WatchFailure::Compacted { .. })));
    let mut reader = watch(&cluster, 1, Position::Resume(ahead)).await.unwrap();
    assert_eq!(next(&mut reader).await.told, Told::Resync, "and nothing before it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_is_cut_off_and_holds_nothing_up() {
    let cluster = Cluster::start(2, Flaws::default()).await;
    let mut slow = watch(&cluster, 1, Position::Now).await.unwrap();
    let mut quick = watch(&cluster, 2, Position::Now).await.unwrap();
    let count = 3 * WATCH_HISTORY;
    for at in 0..count {
        granted(cluster.register(1, &format!("n{at}"), "o").await);
        if at % 50 == 49 {
            owners_until(&mut quick, &format!("\"n{at}\"")).await;
        }
    }
    let mut told = 0;
    while let Some(message) = tokio::time::timeout(Duration::from_secs(20), slow.next()).await.unwrap() {
        told += usize::from(matches!(message.told, Told::Overflow));
    }
    assert_eq!(told, 1, "it is told once, and that is the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_node_ends_its_watches() {
    let cluster = Cluster::start(2, Flaws::default()).await;
    let mut reader = watch(&cluster, 1, Position::Now).await.unwrap();
    position(&mut reader).await;
    let idle = next(&mut reader).await;
    assert_eq!(idle.told, Told::Progress { quorum: None }, "a position comes though nothing changes");
    cluster.nodes[&1].gossip.stop().await;
    let rest = async { while reader.next().await.is_some() {} };
    tokio::time::timeout(Duration::from_secs(20), rest).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a6_the_loser_of_a_conflict_is_told_to_whoever_watches() {
    let cluster = Cluster::start(2, Flaws::default()).await;
    let mut reader = watch(&cluster, 2, Position::Now).await.unwrap();
    cluster.cut(&[&[1], &[2]]);
    let winner = granted(cluster.register(1, "x", "first").await);
    tokio::time::sleep(Duration::from_millis(20)).await;
    let loser = granted(cluster.register(2, "x", "second").await);
    cluster.wait("given up", |cluster| async { cluster.all_down(1, &[2]) && cluster.all_down(2, &[1]) }).await;
    cluster.heal();
    let (mut ended, mut records) = (false, Vec::new());
    while records.is_empty() || !ended {
        let Told::Change(event) = next(&mut reader).await.told else { continue };
        for change in event.changes {
            match change {
                Change::Ended { entry, reason, current } => {
                    assert_eq!(entry.token, loser.token);
                    assert_eq!(reason, EndReason::Conflict { winner: winner.token });
                    assert_eq!(current.map(|entry| entry.token), Some(winner.token));
                    ended = true;
                }
                Change::Conflict { record } => records.push(record),
                _ => {}
            }
        }
    }
    assert_eq!(records.len(), 1);
    assert_eq!((records[0].loser.token, records[0].winner.token), (loser.token, winner.token));
    assert_eq!(records, cluster.nodes[&2].gossip.conflicts(None, 10).unwrap());
}
