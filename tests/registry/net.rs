//! Links between nodes: handshake, frames, faults.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate::net::fault::{Direction, FaultTable, LinkFault};
use quorate::net::link::Link;
use quorate::net::links::{DialError, Identity, Links, Purpose};
use quorate::net::probe::probe;
use quorate::net::wire::RealWire;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

const SOON: Duration = Duration::from_secs(5);
const BRIEFLY: Duration = Duration::from_millis(150);

fn identity(node: u64) -> Identity {
    Identity { cluster: "test".into(), node, run: node * 100, policy: "oldest".into() }
}

async fn links(identity: Identity) -> Links {
    let at = "127.0.0.1:0".parse().unwrap();
    Links::bind(Arc::new(RealWire), identity, at, FaultTable::new(1)).await.unwrap()
}

fn cut(links: &Links, peer: u64, direction: Direction) {
    links.faults().set([((peer, direction), LinkFault { drop: true, ..LinkFault::default() })]);
}

/// Node 1's end and node 2's end of one connection.
async fn pair(one: &Links, two: &Links) -> (Link, Link) {
    let mut accepted = two.accept(Purpose::Forward);
    let dialled = one.dial(2, &two.local_addr().to_string(), Purpose::Forward).await.unwrap();
    (dialled, accepted.recv().await.unwrap())
}

#[tokio::test]
async fn frames_arrive_whole_and_in_order() {
    let (one, two) = (links(identity(1)).await, links(identity(2)).await);
    let (mut a, mut b) = pair(&one, &two).await;
    assert_eq!((a.peer, a.peer_run, b.peer, b.peer_run), (2, 200, 1, 100));
    let large = vec![7u8; 3_000_000];
    let sender = tokio::spawn(async move {
        a.writer.send(b"first").await.unwrap();
        a.writer.send(&large).await.unwrap();
        a.writer.send_all(&[Bytes::from_static(b"x"), Bytes::new()]).await.unwrap();
        a
    });
    assert_eq!(&b.reader.recv().await.unwrap()[..], b"first");
    assert_eq!(b.reader.recv().await.unwrap().len(), 3_000_000);
    assert_eq!(&b.reader.recv().await.unwrap()[..], b"x");
    assert_eq!(b.reader.recv().await.unwrap().len(), 0);
    drop(sender.await.unwrap());
    assert!(b.reader.recv().await.is_err());
}

#[tokio::test]
async fn nodes_that_do_not_fit_refuse_each_other_with_one_line() {
    let two = links(identity(2)).await;
    let at = two.local_addr().to_string();
    let strangers = [
        (Identity { cluster: "other".into(), ..identity(1) }, 2, "cluster other"),
        (Identity { policy: "newest".into(), ..identity(1) }, 2, "--conflicts"),
        (identity(1), 3, "node 2 listens here"),
        (identity(2), 2, "ids have to be unique"),
    ];
    for (identity, to, expected) in strangers {
        let stranger = links(identity).await;
        match stranger.dial(to, &at, Purpose::Forward).await {
            Err(DialError::Refused(why)) => {
                assert!(why.contains(expected), "{why}");
                assert!(!why.contains('\n'));
                assert_eq!(stranger.refusals().get(&to), Some(&why));
            }
            Err(e) => panic!("{e}"),
            Ok(_) => panic!("node {to} was let in"),
        }
    }
    assert!(!two.refusals().is_empty());
}

#[tokio::test]
async fn a_stream_is_held_by_a_cut_and_delivered_after_it() {
    for (at_sender, direction) in [(true, Direction::Outgoing), (false, Direction::Incoming)] {
        let (one, two) = (links(identity(1)).await, links(identity(2)).await);
        let (mut a, mut b) = pair(&one, &two).await;
        let (cutter, peer) = if at_sender { (&one, 2) } else { (&two, 1) };
        cut(cutter, peer, direction);
        a.writer.send(b"held").await.unwrap();
        a.writer.send(b"too").await.unwrap();
        assert!(timeout(BRIEFLY, b.reader.recv()).await.is_err());
        // The other direction passes.
        b.writer.send(b"back").await.unwrap();
        assert_eq!(&timeout(SOON, a.reader.recv()).await.unwrap().unwrap()[..], b"back");
        cutter.faults().set([]);
        assert_eq!(&timeout(SOON, b.reader.recv()).await.unwrap().unwrap()[..], b"held");
        assert_eq!(&timeout(SOON, b.reader.recv()).await.unwrap().unwrap()[..], b"too");
        a.writer.send(b"after").await.unwrap();
        assert_eq!(&timeout(SOON, b.reader.recv()).await.unwrap().unwrap()[..], b"after");
    }
}

#[tokio::test]
async fn a_dial_over_a_cut_link_hangs_and_goes_through_after_the_heal() {
    let (one, two) = (links(identity(1)).await, links(identity(2)).await);
    let _accepted = two.accept(Purpose::Forward);
    let at = two.local_addr().to_string();
    // Cut at the far end alone: the handshake is not answered.
    cut(&two, 1, Direction::Incoming);
    assert!(timeout(BRIEFLY, one.dial(2, &at, Purpose::Forward)).await.is_err());
    cut(&one, 2, Direction::Incoming);
    assert!(timeout(BRIEFLY, one.dial(2, &at, Purpose::Forward)).await.is_err());
    two.faults().set([]);
    one.faults().set([]);
    timeout(SOON, one.dial(2, &at, Purpose::Forward)).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_probe_tells_what_a_cut_lets_through() {
    let (one, two) = (links(identity(1)).await, links(identity(2)).await);
    let (here, there) = (one.local_addr().to_string(), two.local_addr().to_string());
    let look = async |patience| probe(&one, 2, &there, &here, Instant::now() + patience).await;
    assert_eq!(look(SOON).await, (true, true));
    cut(&two, 1, Direction::Incoming);
    assert_eq!(look(BRIEFLY).await, (false, false));
    cut(&two, 1, Direction::Outgoing);
    assert_eq!(look(BRIEFLY).await, (false, false));
    two.faults().set([]);
    assert_eq!(look(SOON).await, (true, true));
}

#[tokio::test]
async fn late_datagrams_and_frames_arrive_after_the_delay() {
    let (one, two) = (links(identity(1)).await, links(identity(2)).await);
    let (mut a, mut b) = pair(&one, &two).await;
    let delay = Duration::from_millis(60);
    one.faults().set([((2, Direction::Outgoing), LinkFault { delay, ..LinkFault::default() })]);
    let begun = Instant::now();
    a.writer.send(b"late").await.unwrap();
    b.reader.recv().await.unwrap();
    assert!(begun.elapsed() >= delay);
    let mut received = two.datagrams();
    let begun = Instant::now();
    one.datagrams().send(2, &two.local_addr().to_string(), b"late").await.unwrap();
    assert_eq!(timeout(SOON, received.recv()).await.unwrap().unwrap(), (1, 100, Bytes::from_static(b"late")));
    assert!(begun.elapsed() >= delay);
}

#[tokio::test]
async fn strange_and_torn_datagrams_change_nothing_and_are_counted() {
    let (one, two) = (links(identity(1)).await, links(identity(2)).await);
    let mut received = two.datagrams();
    let at = two.local_addr();
    let stranger = links(Identity { cluster: "other".into(), ..identity(3) }).await;
    stranger.datagrams().send(2, &at.to_string(), b"hello").await.unwrap();
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&[0xff; 64], at).await.unwrap();
    socket.send_to(b"", at).await.unwrap();
    one.datagrams().send(2, &at.to_string(), b"ours").await.unwrap();
    assert_eq!(timeout(SOON, received.recv()).await.unwrap().unwrap().2, Bytes::from_static(b"ours"));
    assert_eq!(two.strangers().datagrams, 3);
}

#[tokio::test]
async fn garbage_on_a_stream_is_dropped_without_taking_memory_or_time() {
    let two = links(identity(2)).await;
    for garbage in [&[0xff_u8; 4096][..], b"GET / HTTP/1.1\r\n\r\n"] {
        let mut stream = tokio::net::TcpStream::connect(two.local_addr()).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        let mut answer = Vec::new();
        // Closed (or reset) at once, without an answer.
        let _ = timeout(SOON, stream.read_to_end(&mut answer)).await.unwrap();
        assert!(answer.is_empty());
    }
}
