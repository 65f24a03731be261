//! A watch that goes on, before servers that say what they are told to.

use std::sync::Arc;
use std::time::Duration;

use quorate::client::client::Client;
use quorate::client::watch::{Seen, Watch, WatchError};
use quorate::model::event::{Change, Event, Filter};
use quorate::model::ident::{Mode, Revision};
use quorate::registry::{Position, Told, Watch as Watched, WatchFailure, WatchMessage};
use tokio::sync::mpsc::channel;
use tokio::time::timeout;

use crate::http::support::{Asked, Scripted, Server, state};

const SOON: Duration = Duration::from_secs(30);

/// Two servers of one cluster, and a client of both.
struct Two {
    registries: [Arc<Scripted>; 2],
    _servers: [Server; 2],
    client: Client,
}

impl Two {
    async fn start() -> Self {
        let registries = [Scripted::new(Mode::Cp), Scripted::new(Mode::Cp)];
        let start = |registry: &Arc<Scripted>| Server::start(state(registry.clone(), Scripted::new(Mode::Ap)));
        let servers = [start(&registries[0]).await, start(&registries[1]).await];
        let client = Client::builder().endpoints(servers.iter().map(Server::url)).build().unwrap();
        Self { registries, _servers: servers, client }
    }

    /// The next watch of that server says so much, and then its stream ends.
    fn says(&self, server: usize, messages: Vec<WatchMessage>) {
        let (sender, receiver) = channel(messages.len().max(1));
        messages.into_iter().for_each(|message| sender.try_send(message).unwrap());
        self.registries[server].watches.lock().unwrap().push_back(Ok(receiver));
    }

    fn refuses(&self, server: usize, failure: WatchFailure) {
        self.registries[server].watches.lock().unwrap().push_back(Err(failure));
    }

    fn asked(&self, server: usize) -> (Position, bool) {
        match self.registries[server].asked.lock().unwrap().clone() {
            Some(Asked::Watch(Watched { from, initial, .. })) => (from, initial),
            other => panic!("no watch: {other:?}"),
        }
    }
}

fn at(told: Told, revision: u64) -> WatchMessage {
    WatchMessage { told, position: Some(Revision::Cp(revision)) }
}

fn nowhere(told: Told) -> WatchMessage {
    WatchMessage { told, position: None }
}

fn change(revision: u64) -> Event {
    let changes = vec![Change::LeaseExpired { lease: "l1".parse().unwrap() }];
    Event { revision: Revision::Cp(revision), changes }
}

fn changed(revision: u64) -> WatchMessage {
    at(Told::Change(change(revision)), revision)
}

async fn next(watch: &mut Watch) -> Seen {
    timeout(SOON, watch.next()).await.expect("nothing came").unwrap()
}

/// What is seen until all has been said, without notes that nothing can be reached for now.
async fn all(watch: &mut Watch, count: usize) -> Vec<Seen> {
    let mut seen = Vec::new();
    while seen.len() < count {
        match next(watch).await {
            Seen::Interrupted(_) => {}
            other => seen.push(other),
        }
    }
    seen
}

#[tokio::test]
async fn a_watch_goes_on_at_another_server_after_what_it_has_told() {
    let two = Two::start().await;
    two.says(0, vec![at(Told::Progress { quorum: Some(true) }, 4), changed(5)]);
    two.says(1, vec![changed(6)]);
    let mut watch = two.client.watch(Filter::default());
    let seen = all(&mut watch, 3).await;
    assert_eq!(seen, [Seen::Progress { quorum: Some(true) }, Seen::Change(change(5)), Seen::Change(change(6))]);
    assert_eq!(two.asked(0), (Position::Now, false));
    assert_eq!(two.asked(1), (Position::Resume(Revision::Cp(5)), false));
    assert_eq!(watch.position(), Some(&Revision::Cp(6)));
}

#[tokio::test]
async fn a_state_that_was_cut_off_is_told_anew_and_whole() {
    let two = Two::start().await;
    two.says(0, vec![nowhere(Told::State(Vec::new()))]);
    two.says(1, vec![nowhere(Told::State(Vec::new())), at(Told::Synced, 4), changed(5)]);
    let mut watch = two.client.watch(Filter::default()).with_state();
    let seen = all(&mut watch, 5).await;
    let state = || Seen::State(Vec::new());
    assert_eq!(seen, [state(), Seen::Resync, state(), Seen::Synced, Seen::Change(change(5))]);
    assert_eq!(two.asked(1), (Position::Now, true));
}

#[tokio::test]
async fn a_position_that_is_gone_is_told_and_the_state_read_anew_if_it_was_asked_for() {
    let two = Two::start().await;
    two.says(0, vec![at(Told::Synced, 4)]);
    two.says(1, vec![at(Told::Resync, 9), changed(10)]);
    two.says(1, vec![at(Told::Synced, 11)]);
    let mut watch = two.client.watch(Filter::default()).with_state();
    assert_eq!(all(&mut watch, 3).await, [Seen::Synced, Seen::Resync, Seen::Synced]);
    assert_eq!(two.asked(1), (Position::Now, true));

    // Without a state, what comes next follows on the message's position.
    let two = Two::start().await;
    two.says(0, vec![at(Told::Resync, 9), changed(10)]);
    let mut watch = two.client.watch(Filter::default()).resume(Revision::Cp(3));
    assert_eq!(all(&mut watch, 2).await, [Seen::Resync, Seen::Change(change(10))]);
    assert_eq!(two.asked(0), (Position::Resume(Revision::Cp(3)), false));
}

#[tokio::test]
async fn what_may_have_been_missed_is_not_kept_quiet() {
    let two = Two::start().await;
    // It broke before it had told any position: what happened meanwhile is not known.
    two.says(0, Vec::new());
    two.says(1, vec![changed(6)]);
    let mut watch = two.client.watch(Filter::default());
    assert_eq!(all(&mut watch, 2).await, [Seen::Resync, Seen::Change(change(6))]);
}

#[tokio::test]
async fn a_reader_that_was_too_slow_goes_on_where_it_was() {
    let two = Two::start().await;
    two.says(0, vec![changed(5), nowhere(Told::Overflow)]);
    two.says(1, vec![changed(6)]);
    let mut watch = two.client.watch(Filter::default());
    assert_eq!(all(&mut watch, 2).await, [Seen::Change(change(5)), Seen::Change(change(6))]);
    assert_eq!(two.asked(1), (Position::Resume(Revision::Cp(5)), false));
}

#[tokio::test]
async fn a_server_that_is_cut_off_is_left_for_another() {
    let two = Two::start().await;
    let (kept_open, receiver) = channel(2);
    kept_open.try_send(changed(5)).unwrap();
    kept_open.try_send(nowhere(Told::Stalled)).unwrap();
    two.registries[0].watches.lock().unwrap().push_back(Ok(receiver));
    two.says(1, vec![changed(6)]);
    let mut watch = two.client.watch(Filter::default());
    let seen = all(&mut watch, 3).await;
    assert_eq!(seen, [Seen::Change(change(5)), Seen::Stalled, Seen::Change(change(6))]);
}

#[tokio::test]
async fn after_a_position_that_is_gone_there_is_no_watch() {
    let two = Two::start().await;
    two.refuses(0, WatchFailure::Compacted { oldest: Revision::Cp(7) });
    let mut watch = two.client.watch(Filter::default()).after(Revision::Cp(3));
    let ended = timeout(SOON, watch.next()).await.unwrap();
    assert_eq!(ended, Err(WatchError::Compacted { after: Revision::Cp(3) }));
}

#[tokio::test]
async fn servers_that_cannot_be_watched_now_are_asked_again_and_that_is_told_once() {
    let two = Two::start().await;
    // Both fail five times (by saying nothing else), then one tells.
    let mut watch = two.client.watch(Filter::default());
    assert!(matches!(next(&mut watch).await, Seen::Interrupted(_)));
    two.says(0, vec![changed(6)]);
    two.says(1, vec![changed(6)]);
    assert_eq!(next(&mut watch).await, Seen::Change(change(6)));
}
