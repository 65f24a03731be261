//! Many requests over one connection: answers find those who wait for them, and of a request without one it is told what is known.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate::net::asking::{self, Lateness, Line, Silence};
use quorate::net::fault::{Direction, FaultTable, LinkFault};
use quorate::net::link::Link;
use quorate::net::links::{Identity, Links, Purpose};
use quorate::net::wire::RealWire;
use tokio::time::{Instant, sleep, timeout};

const SOON: Duration = Duration::from_secs(20);
const BRIEFLY: Duration = Duration::from_millis(150);

async fn links(node: u64) -> Links {
    let identity = Identity { cluster: "test".into(), node, run: node * 100, policy: "oldest".into() };
    Links::bind(Arc::new(RealWire), identity, "127.0.0.1:0".parse().unwrap(), FaultTable::new(1)).await.unwrap()
}

/// Node 1's end and node 2's end of one connection; the links that keep them.
async fn pair() -> (Link, Link, [Links; 2]) {
    let (one, two) = (links(1).await, links(2).await);
    let mut accepted = two.accept(Purpose::Forward);
    let dialled = one.dial(2, &two.local_addr().to_string(), Purpose::Forward).await.unwrap();
    let other = accepted.recv().await.unwrap();
    (dialled, other, [one, two])
}

/// A line over this connection.
fn carried(link: Link, lateness: Lateness) -> Line {
    let (line, mut requests) = asking::line(8);
    tokio::spawn(async move { requests.carry(link, lateness, || {}).await });
    line
}

async fn ask(line: &Line, text: &'static str, patience: Duration) -> Result<Bytes, Silence> {
    let asked = line.ask(Bytes::from_static(text.as_bytes()), Instant::now() + patience);
    timeout(SOON + SOON, asked).await.expect("it ends by its deadline")
}

#[tokio::test]
async fn answers_find_their_requests_in_whatever_order_they_come() {
    let (one, two) = (links(1).await, links(2).await);
    let echo = |_: u64, bytes: &[u8]| {
        let (text, pause) = (Bytes::copy_from_slice(bytes), 10 * bytes.len() as u64);
        let answer = async move {
            sleep(Duration::from_millis(pause)).await;
            text
        };
        (bytes != b"bad").then_some(answer)
    };
    tokio::spawn(asking::serve(two.accept(Purpose::Forward), echo));
    let dial = async || one.dial(2, &two.local_addr().to_string(), Purpose::Forward).await.unwrap();
    let line = carried(dial().await, Lateness::Doubted);
    let (slow, fast, none) =
        tokio::join!(ask(&line, "a slow request", SOON), ask(&line, "f", SOON), ask(&line, "", SOON));
    assert_eq!(
        (&slow.unwrap()[..], &fast.unwrap()[..], &none.unwrap()[..]),
        (&b"a slow request"[..], &b"f"[..], &b""[..])
    );
    // What is no request closes the connection: all that is asked over it is lost, at once.
    let (pending, bad) = tokio::join!(
        ask(
            &line,
            "a much slower request, of one second or so: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            SOON
        ),
        ask(&line, "bad", SOON)
    );
    assert_eq!((pending, bad), (Err(Silence::Lost), Err(Silence::Lost)));
}

#[tokio::test]
async fn what_never_reached_a_connection_is_surely_not_sent() {
    let (line, mut requests) = asking::line(1);
    assert_eq!(ask(&line, "x", BRIEFLY).await, Err(Silence::NotSent));
    // It keeps its place until somebody looks; there is no other.
    assert_eq!(ask(&line, "y", SOON).await, Err(Silence::Overloaded));
    let (line, mut others) = asking::line(8);
    let (asked, ()) = tokio::join!(ask(&line, "x", SOON), async {
        assert!(others.wait().await);
        others.give_up();
    });
    assert_eq!(asked, Err(Silence::NotSent));
    // Withdrawn, it is not sent by a connection that comes later.
    let (link, mut other, _links) = pair().await;
    tokio::spawn(async move { requests.carry(link, Lateness::Doubted, || {}).await });
    assert!(timeout(BRIEFLY, other.reader.recv()).await.is_err(), "a withdrawn request has arrived");
}

#[tokio::test]
async fn what_has_reached_a_connection_is_lost_and_not_unsent() {
    // Read, and never answered.
    let (link, mut other, _links) = pair().await;
    let line = carried(link, Lateness::Doubted);
    let (asked, read) = tokio::join!(ask(&line, "x", BRIEFLY), other.reader.recv());
    assert_eq!((asked, read.unwrap().len()), (Err(Silence::Lost), 8 + 1));
    // Read, and then the connection breaks.
    let (link, mut other, _links) = pair().await;
    let line = carried(link, Lateness::Doubted);
    let begun = Instant::now();
    let (asked, ()) = tokio::join!(ask(&line, "x", SOON), async {
        other.reader.recv().await.unwrap();
        drop(other);
    });
    assert_eq!(asked, Err(Silence::Lost));
    assert!(begun.elapsed() < SOON, "it is told as soon as it is known");
}

#[tokio::test]
async fn what_a_cut_link_has_held_back_does_not_arrive_when_it_is_late() {
    let (link, mut other, [one, _two]) = pair().await;
    let line = carried(link, Lateness::Fatal);
    one.faults().set([((2, Direction::Outgoing), LinkFault { drop: true, ..LinkFault::default() })]);
    assert_eq!(ask(&line, "stale", BRIEFLY).await, Err(Silence::Lost));
    // The connection is given up, before the link is mended.
    sleep(5 * BRIEFLY).await;
    one.faults().set([]);
    let read = timeout(SOON, other.reader.recv()).await.expect("the connection is closed");
    assert!(read.is_err(), "{read:?}");
}
