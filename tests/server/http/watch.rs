//! Watches: what a stream says, how it begins, and how it ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate::http::{HttpState, router, serve};
use quorate::model::entry::{Entry, Holder};
use quorate::model::event::{Change, EndReason, Event, Filter, Told, WatchMessage};
use quorate::model::ident::{Meta, Mode, Revision, Token};
use quorate::model::time::UnixMillis;
use quorate::registry::{Position, Reason, Watch, WatchFailure};
use quorate::wire::event::read_message;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::raw;
use super::stream::Stream;
use super::support::{Asked, Scripted, Server, Silent, state};

fn entry(name: &str, revision: u64) -> Entry {
    Entry {
        holder: Holder::Owner(name.parse().unwrap(), "o\u{2028}x".parse().unwrap()),
        meta: r#"{"line\n":"a\r\nb"}"#.parse::<Meta>().unwrap(),
        lease: None,
        token: Token::Cp(revision),
        revision: Revision::Cp(revision),
        node: 1,
        since: UnixMillis(1_600_000_000_000),
        hidden: false,
    }
}

fn registered(name: &str, revision: u64) -> WatchMessage {
    let change = Change::Registered { entry: entry(name, revision), previous: None, current: None };
    let event = Event { revision: Revision::Cp(revision), changes: vec![change] };
    WatchMessage { told: Told::Change(event), position: Some(Revision::Cp(revision)) }
}

fn told(told: Told, position: Option<u64>) -> WatchMessage {
    WatchMessage { told, position: position.map(Revision::Cp) }
}

/// A server whose `cp` tells its next watches what is sent through these.
async fn scripted(watches: usize) -> (Server, Arc<Scripted>, Vec<mpsc::Sender<WatchMessage>>) {
    let cp = Scripted::new(Mode::Cp);
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..watches).map(|_| mpsc::channel(64)).unzip();
    cp.watches.lock().unwrap().extend(receivers.into_iter().map(Ok));
    let server = Server::start(state(cp.clone(), Scripted::new(Mode::Ap))).await;
    (server, cp, senders)
}

#[tokio::test]
async fn a_stream_says_what_the_registry_told() {
    let (server, _, senders) = scripted(1).await;
    let conflict = EndReason::Conflict { winner: Token::Cp(9) };
    let messages = [
        told(Told::State(vec![entry("a", 1), entry("b", 2)]), None),
        told(Told::Synced, Some(2)),
        registered("c", 3),
        told(
            Told::Change(Event {
                revision: Revision::Cp(4),
                changes: vec![
                    Change::LeaseExpired { lease: "l".parse().unwrap() },
                    Change::Ended { entry: entry("c", 3), reason: EndReason::LeaseExpired, current: None },
                    Change::Ended { entry: entry("d", 3), reason: conflict, current: Some(Box::new(entry("d", 2))) },
                ],
            }),
            Some(4),
        ),
        told(Told::Progress { quorum: Some(true) }, Some(4)),
        told(Told::Stalled, None),
        told(Told::Resync, Some(7)),
        told(Told::Overflow, None),
    ];
    let mut stream = Stream::open(server.addr, "/v1/cp/watch?initial=true", &[]).await;
    assert_eq!(stream.status(), 200);
    for header in ["content-type: text/event-stream", "cache-control: no-store", "quorate-mode: cp", "quorate-node: 1"]
    {
        assert!(stream.head.contains(header), "{}", stream.head);
    }
    for message in &messages {
        senders[0].send(message.clone()).await.unwrap();
        let event = stream.next().await.unwrap();
        assert!(!event.data.contains('\n'));
        let id = event.id.as_deref().filter(|_| event.has_id);
        let read = read_message(Mode::Cp, &event.event, id, &event.data).unwrap();
        assert_eq!(read.as_ref(), Some(message), "{event:?}");
    }
    // Nothing follows an overflow, whatever the registry would say.
    let _ = senders[0].send(registered("e", 9)).await;
    assert_eq!(stream.next().await, None);
    assert!(stream.text.starts_with("retry: 1000\n\n"), "{}", stream.text);
    assert!(
        stream.text.contains("event: change\nid: 3\ndata: {\"revision\":\"3\",\"changes\":[{\"kind\":\"registered\",")
    );
    assert!(stream.text.contains("event: progress\nid: 4\ndata: {\"revision\":\"4\",\"quorum\":true}\n\n"));
    assert!(stream.text.ends_with("event: overflow\ndata: {}\n\n"));
}

#[tokio::test]
async fn a_silent_stream_shows_that_it_lives() {
    let (server, _, senders) = scripted(1).await;
    let mut stream = Stream::open(server.addr, "/v1/cp/watch", &[]).await;
    while !stream.text.contains("\n:\n\n") {
        assert!(stream.more().await);
    }
    drop(senders);
    assert_eq!(stream.next().await, None);
}

#[tokio::test]
async fn what_is_asked_for_is_what_the_registry_hears() {
    let (server, cp, _senders) = scripted(6).await;
    let filter = |names: &[&str], name_prefixes: &[&str], groups: &[&str], group_prefixes: &[&str]| Filter {
        names: names.iter().map(|text| text.parse().unwrap()).collect(),
        name_prefixes: name_prefixes.iter().map(|text| (*text).to_owned()).collect(),
        groups: groups.iter().map(|text| text.parse().unwrap()).collect(),
        group_prefixes: group_prefixes.iter().map(|text| (*text).to_owned()).collect(),
    };
    let everything = Filter::default();
    let resume = Position::Resume(Revision::Cp(7));
    let last: &[(&str, &str)] = &[("Last-Event-ID", "7")];
    type Headers<'a> = &'a [(&'a str, &'a str)];
    let cases: [(&str, Headers, Filter, Position, bool); 6] = [
        ("", &[], everything.clone(), Position::Now, false),
        (
            "?name=a&name=b%2Fc&name_prefix=x/&group=g&group_prefix=&group_prefix=h",
            &[],
            filter(&["a", "b/c"], &["x/"], &["g"], &["", "h"]),
            Position::Now,
            false,
        ),
        ("?after=5", &[], everything.clone(), Position::After(Revision::Cp(5)), false),
        ("?initial=true&timeout_ms=500", &[], everything.clone(), Position::Now, true),
        // As a browser does that connects again.
        ("?initial=true", last, everything.clone(), resume.clone(), false),
        ("?after=5", last, everything, resume, false),
    ];
    for (query, headers, filter, from, initial) in cases {
        let stream = Stream::open(server.addr, &format!("/v1/cp/watch{query}"), headers).await;
        assert_eq!(stream.status(), 200, "{query}");
        let asked = cp.asked.lock().unwrap().take();
        assert_eq!(asked, Some(Asked::Watch(Watch { filter, from, initial })), "{query}");
    }
}

#[tokio::test]
async fn what_cannot_be_watched_is_told_before_the_stream() {
    let (server, cp, _) = scripted(0).await;
    let many = (0..257).map(|n| format!("name=n{n}")).collect::<Vec<_>>().join("&");
    let many = format!("?{many}");
    let bad: [(&str, &[(&str, &str)]); 10] = [
        ("?after=5&initial=true", &[]),
        ("?after=x", &[]),
        ("?after=5&after=5", &[]),
        ("?initial=yes", &[]),
        ("?name=", &[]),
        ("?group=..", &[]),
        ("?names=a", &[]),
        ("?timeout_ms=0", &[]),
        (&many, &[]),
        ("", &[("Last-Event-ID", "7b")]),
    ];
    for (query, headers) in bad {
        let answer = raw::send(server.addr, "GET", &format!("/v1/cp/watch{query}"), headers, b"").await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "malformed"), "{query}");
    }
    assert_eq!(cp.asked.lock().unwrap().take(), None);
    let failures = [
        (WatchFailure::Compacted { oldest: Revision::Cp(40) }, 410, "revision_compacted", false),
        (WatchFailure::Failed(Reason::NoLeader), 503, "no_leader", true),
        (WatchFailure::Failed(Reason::Overloaded), 429, "overloaded", true),
    ];
    for (failure, status, code, retryable) in failures {
        cp.watches.lock().unwrap().push_back(Err(failure));
        let answer = raw::send(server.addr, "GET", "/v1/cp/watch?after=1", &[], b"").await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code));
        assert_eq!(answer.json()["retryable"], retryable);
        assert_eq!(answer.json().get("outcome"), None);
        assert_eq!(answer.json().get("oldest").is_some(), code == "revision_compacted");
    }
    let answer = raw::send(server.addr, "POST", "/v1/cp/watch", &[], b"").await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET,HEAD")));
}

#[tokio::test]
async fn a_registry_that_does_not_begin_is_given_up_by_the_deadline_and_a_stream_is_not() {
    let silent = Server::start(state(Arc::new(Silent(Mode::Cp)), Arc::new(Silent(Mode::Ap)))).await;
    let answer = raw::send(silent.addr, "GET", "/v1/ap/watch?timeout_ms=100", &[], b"").await;
    assert_eq!((answer.status, answer.code().as_str()), (504, "timeout"));
    let (server, _, senders) = scripted(1).await;
    let mut stream = Stream::open(server.addr, "/v1/cp/watch?timeout_ms=1", &[]).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    senders[0].send(registered("a", 1)).await.unwrap();
    assert_eq!(stream.next().await.unwrap().event, "change");
}

#[tokio::test]
async fn streams_have_seats_of_their_own() {
    let (cp, ap) = (Scripted::new(Mode::Cp), Scripted::new(Mode::Ap));
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..4).map(|_| mpsc::channel(64)).unzip();
    cp.watches.lock().unwrap().extend(receivers.into_iter().map(Ok));
    let server = Server::start(HttpState { max_streams: 2, max_in_flight: 1, ..state(cp, ap) }).await;
    let _first = Stream::open(server.addr, "/v1/cp/watch", &[]).await;
    let second = Stream::open(server.addr, "/v1/cp/watch", &[]).await;
    assert_eq!(second.status(), 200);
    let answer = raw::send(server.addr, "GET", "/v1/cp/watch", &[], b"").await;
    assert_eq!((answer.status, answer.code().as_str()), (429, "overloaded"));
    assert_eq!(answer.header("retry-after"), Some("1"));
    // They take none of the seats of calls.
    assert_eq!(raw::send(server.addr, "GET", "/v1/cluster", &[], b"").await.status, 200);
    // HEAD asks whether one could watch, and holds nothing.
    drop(second);
    let began = Instant::now();
    loop {
        let answer = raw::send(server.addr, "HEAD", "/v1/cp/watch", &[], b"").await;
        if answer.status == 200 {
            assert_eq!((answer.header("content-type"), answer.body.as_str()), (Some("text/event-stream"), ""));
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "a seat was not given back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(senders);
}

#[tokio::test]
async fn a_reader_that_stops_reading_holds_up_nobody() {
    let (server, _, senders) = scripted(2).await;
    let lazy = Stream::open(server.addr, "/v1/cp/watch", &[]).await;
    let mut eager = Stream::open(server.addr, "/v1/cp/watch", &[]).await;
    // As a feed does it: what the lazy one does not take is not waited for.
    let mut refused = 0;
    let long = |revision| {
        let meta = format!(r#"{{"long":"{}"}}"#, "x".repeat(8_000)).parse().unwrap();
        told(Told::State(vec![Entry { meta, ..entry("n", revision) }]), None)
    };
    for revision in 1..=3_000 {
        refused += usize::from(senders[0].try_send(long(revision)).is_err());
        senders[1].send(registered("n", revision)).await.unwrap();
        if revision % 10 == 0 {
            for _ in 0..10 {
                assert_eq!(eager.next().await.unwrap().event, "change");
            }
        }
    }
    // The server takes no more than its buffers and the sockets' hold: some MiB of these 24.
    assert!(refused > 500, "only {refused} were not taken");
    drop(lazy);
}

#[tokio::test]
async fn a_stopping_server_ends_its_streams_at_once() {
    let cp = Scripted::new(Mode::Cp);
    let (_sender, receiver) = mpsc::channel(4);
    cp.watches.lock().unwrap().push_back(Ok(receiver));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(serve(listener, router(state(cp, Scripted::new(Mode::Ap))), async {
        let _ = stopped.await;
    }));
    let mut stream = Stream::open(addr, "/v1/cp/watch", &[]).await;
    let began = Instant::now();
    drop(stop);
    assert_eq!(stream.next().await, None);
    serving.await.unwrap().unwrap();
    // Sooner than calls in flight would be given up.
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}
