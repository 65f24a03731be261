//! One watcher of `cp` over a history of its own: what it is told, in which order, and when it is told that it has missed something.

use std::time::Duration;

use futures_util::FutureExt;
use quorate::feed::Feed;
use quorate::model::entry::{Entry, Holder};
use quorate::model::event::{Change, Event, Filter};
use quorate::model::ident::{Meta, Revision, Token};
use quorate::model::table::Table;
use quorate::model::time::UnixMillis;
use quorate::raft::pulse::Pulse;
use quorate::raft::watch::{RaftWatch, Watches};
use quorate::registry::{Told, WatchFailure, WatchMessage, Watching};
use tokio::sync::watch;

const LONG: Duration = Duration::from_secs(3600);

fn event(revision: u64, name: &str) -> Event {
    let entry = Entry {
        holder: Holder::Owner(name.parse().unwrap(), "o".parse().unwrap()),
        meta: Meta::empty(),
        lease: None,
        token: Token::Cp(revision),
        revision: Revision::Cp(revision),
        node: 1,
        since: UnixMillis(0),
        hidden: false,
    };
    let changes = vec![Change::Registered { entry, previous: None, current: None }];
    Event { revision: Revision::Cp(revision), changes }
}

/// Revisions 1.. with a history of `kept`, and the pulse by which the node can be stopped.
fn node(revisions: u64, kept: usize) -> (Watches, watch::Sender<Pulse>) {
    let feed = Feed::new(1, kept);
    let (pulse, seen) = watch::channel(Pulse { has_quorum: true, ..Pulse::default() });
    let watches = Watches { feed, pulse: seen, progress_period: LONG };
    publish(&watches, 1..=revisions);
    (watches, pulse)
}

fn publish(watches: &Watches, revisions: std::ops::RangeInclusive<u64>) {
    watches.feed.append(revisions.map(|revision| event(revision, if revision % 10 == 0 { "ten" } else { "other" })));
    watches.feed.publish();
}

fn tens() -> Filter {
    Filter { names: vec!["ten".parse().unwrap()], ..Filter::default() }
}

/// Goes on after that position; the first message says where that is.
async fn after(watches: &Watches, position: u64, filter: Filter) -> RaftWatch {
    let mut watch = watches.after(position, filter).unwrap();
    let told = Told::Progress { quorum: Some(true) };
    assert_eq!(watch.next().await, Some(WatchMessage { told, position: Some(Revision::Cp(position)) }));
    watch
}

fn is_pending(watch: &mut RaftWatch) -> bool {
    watch.next().now_or_never().is_none()
}

async fn revisions(watch: &mut RaftWatch, count: usize) -> Vec<u64> {
    let mut all = Vec::new();
    while all.len() < count {
        let message = watch.next().await.unwrap();
        let Told::Change(event) = message.told else { panic!("{message:?}") };
        assert_eq!(message.position, Some(event.revision.clone()));
        let Revision::Cp(revision) = event.revision else { panic!("{event:?}") };
        all.push(revision);
    }
    all
}

#[tokio::test]
async fn every_revision_after_the_position_is_told_once_and_in_order() {
    let (watches, _pulse) = node(1000, 5000);
    let mut watch = after(&watches, 300, Filter::default()).await;
    assert_eq!(revisions(&mut watch, 700).await, (301..=1000).collect::<Vec<_>>());
    assert!(is_pending(&mut watch));
    publish(&watches, 1001..=1001);
    assert_eq!(revisions(&mut watch, 1).await, [1001]);
}

#[tokio::test]
async fn a_position_moves_on_although_nothing_that_is_wanted_came() {
    let (watches, _pulse) = node(1005, 5000);
    let watches = Watches { progress_period: Duration::from_millis(20), ..watches };
    let mut watch = watches.after(1000, tens()).unwrap();
    loop {
        let message = watch.next().await.unwrap();
        assert_eq!(message.told, Told::Progress { quorum: Some(true) });
        if message.position == Some(Revision::Cp(1005)) {
            break;
        }
    }
    publish(&watches, 1006..=1012);
    loop {
        let message = watch.next().await.unwrap();
        if let Told::Change(event) = message.told {
            assert_eq!(event.revision, Revision::Cp(1010));
            break;
        }
    }
}

#[tokio::test]
async fn a_long_unwanted_stretch_is_passed_over_to_its_end() {
    let (watches, _pulse) = node(9_999, 20_000);
    let last = Filter { names: vec!["last".parse().unwrap()], ..Filter::default() };
    let mut watch = after(&watches, 0, last).await;
    watches.feed.append([event(10_000, "last")]);
    watches.feed.publish();
    assert_eq!(revisions(&mut watch, 1).await, [10_000]);
}

#[tokio::test]
async fn a_reader_that_was_passed_by_is_told_so_and_nothing_else() {
    let (watches, _pulse) = node(100, 50);
    let mut watch = after(&watches, 60, Filter::default()).await;
    assert_eq!(revisions(&mut watch, 1).await, [61]);
    publish(&watches, 101..=300);
    // What it had taken already is still in order; the next is not there any more.
    let rest = 62..=100;
    assert_eq!(revisions(&mut watch, rest.clone().count()).await, rest.collect::<Vec<_>>());
    let message = watch.next().await.unwrap();
    assert_eq!(message, WatchMessage { told: Told::Overflow, position: None });
    assert_eq!(watch.next().await, None);
}

#[tokio::test]
async fn a_position_that_is_gone_is_refused_or_told() {
    let (watches, _pulse) = node(100, 50);
    assert_eq!(watches.after(49, tens()).err(), Some(WatchFailure::Compacted { oldest: Revision::Cp(50) }));
    assert!(watches.after(50, tens()).is_ok());
    let mut watch = watches.resume(10, Filter::default());
    let message = watch.next().await.unwrap();
    assert_eq!(message, WatchMessage { told: Told::Resync, position: Some(Revision::Cp(100)) });
    publish(&watches, 101..=101);
    assert_eq!(revisions(&mut watch, 1).await, [101]);
}

#[tokio::test]
async fn a_state_that_was_replaced_is_told_and_followed() {
    let (watches, _pulse) = node(100, 50);
    let mut behind = after(&watches, 80, Filter::default()).await;
    watches.feed.restart(501);
    let message = behind.next().await.unwrap();
    assert_eq!(message, WatchMessage { told: Told::Resync, position: Some(Revision::Cp(500)) });
    publish(&watches, 501..=502);
    assert_eq!(revisions(&mut behind, 2).await, [501, 502]);
}

#[tokio::test]
async fn what_is_not_published_is_not_told() {
    let (watches, _pulse) = node(1, 50);
    let mut watch = after(&watches, 1, Filter::default()).await;
    watches.feed.append([event(2, "early")]);
    assert!(is_pending(&mut watch));
    watches.feed.publish();
    assert_eq!(revisions(&mut watch, 1).await, [2]);
}

#[tokio::test]
async fn a_stalled_node_says_so_and_a_stopped_one_ends_the_watch() {
    let (watches, pulse) = node(1, 50);
    let mut watch = watches.from_state(Table::default(), Filter::default(), false);
    let told = watch.next().await.unwrap().told;
    assert_eq!(told, Told::Progress { quorum: Some(true) });
    pulse.send_replace(Pulse { has_quorum: false, is_stalled: true, stalls: 1 });
    assert_eq!(watch.next().await.unwrap().told, Told::Stalled);
    drop(pulse);
    // Revision 1 is still told.
    assert!(matches!(watch.next().await.unwrap().told, Told::Change(_)));
    assert_eq!(watch.next().await, None);
}
