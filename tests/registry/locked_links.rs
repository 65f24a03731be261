//! Links between nodes with their locks on: mutual TLS, sealed datagrams.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use quorate::net::datagram::Datagrams;
use quorate::net::fault::{Direction, FaultTable, LinkFault};
use quorate::net::links::{DialError, Identity, Links, PeerLocks, Purpose};
use quorate::net::mutual::{PeerTls, name_of};
use quorate::net::probe::probe;
use quorate::net::seal::{ClusterKeys, Flaws};
use quorate::net::strangers::Noted;
use quorate::net::wire::RealWire;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, sleep, timeout};

use super::certificates::Authority;

const SOON: Duration = Duration::from_secs(20);
const BRIEFLY: Duration = Duration::from_millis(150);

fn identity(node: u64, run: u64) -> Identity {
    Identity { cluster: "test".into(), node, run, policy: "oldest".into() }
}

fn key(byte: u8) -> String {
    format!("{byte:02x}").repeat(32)
}

/// A certificate for the node that is named, shown by whoever gets it.
fn tls(authority: &Authority, dir: &Path, named: u64) -> PeerTls {
    let ca = authority.file(dir, "ca");
    let files = authority.issue(dir, &format!("node-{named}"), &name_of(named));
    PeerTls::read(files.cert.as_ref(), files.key.as_ref(), &ca, named).unwrap()
}

fn locks(tls: PeerTls, keys: &str) -> PeerLocks {
    PeerLocks {
        tls: Arc::new(ArcSwap::from_pointee(tls)),
        keys: Arc::new(ArcSwap::from_pointee(ClusterKeys::parse(keys).unwrap())),
        flaws: Flaws::default(),
    }
}

async fn bind(identity: Identity, locks: Option<PeerLocks>) -> Links {
    let at = "127.0.0.1:0".parse().unwrap();
    Links::bind_with(Arc::new(RealWire), identity, at, FaultTable::new(1), locks).await.unwrap()
}

/// An authority and a directory, and nodes that it knows.
struct House {
    authority: Authority,
    dir: tempfile::TempDir,
}

impl House {
    fn new() -> Self {
        Self { authority: Authority::new(), dir: tempfile::tempdir().unwrap() }
    }

    fn tls(&self, named: u64) -> PeerTls {
        tls(&self.authority, self.dir.path(), named)
    }

    async fn node(&self, node: u64, run: u64) -> Links {
        bind(identity(node, run), Some(locks(self.tls(node), &key(1)))).await
    }
}

/// Opens a connection that is taken at the other end, so that both know each other's run.
async fn meet(one: &Links, two: &Links) {
    let mut accepted = two.accept(Purpose::Forward);
    let to = two.identity().node;
    timeout(SOON, one.dial(to, &two.local_addr().to_string(), Purpose::Forward)).await.unwrap().unwrap();
    timeout(SOON, accepted.recv()).await.unwrap().unwrap();
}

#[tokio::test]
async fn frames_and_faults_are_the_same_through_tls() {
    let house = House::new();
    let (one, two) = (house.node(1, 100).await, house.node(2, 200).await);
    let mut accepted = two.accept(Purpose::Forward);
    let mut a = one.dial(2, &two.local_addr().to_string(), Purpose::Forward).await.unwrap();
    let mut b = accepted.recv().await.unwrap();
    assert_eq!((a.peer, a.peer_run, b.peer, b.peer_run), (2, 200, 1, 100));
    let large = vec![7u8; 3_000_000];
    let sender = tokio::spawn(async move {
        a.writer.send(b"first").await.unwrap();
        a.writer.send(&large).await.unwrap();
        a
    });
    assert_eq!(&b.reader.recv().await.unwrap()[..], b"first");
    assert_eq!(b.reader.recv().await.unwrap().len(), 3_000_000);
    let mut a = sender.await.unwrap();
    one.faults().set([((2, Direction::Outgoing), LinkFault { drop: true, ..LinkFault::default() })]);
    a.writer.send(b"held").await.unwrap();
    assert!(timeout(BRIEFLY, b.reader.recv()).await.is_err());
    b.writer.send(b"back").await.unwrap();
    assert_eq!(&timeout(SOON, a.reader.recv()).await.unwrap().unwrap()[..], b"back");
    one.faults().set([]);
    assert_eq!(&timeout(SOON, b.reader.recv()).await.unwrap().unwrap()[..], b"held");
    // The peer sees the end when the writing half alone is dropped, as with plain TCP.
    let (reader, writer) = (a.reader, a.writer);
    drop(writer);
    assert!(timeout(SOON, b.reader.recv()).await.unwrap().is_err());
    drop(reader);
    let (here, there) = (one.local_addr().to_string(), two.local_addr().to_string());
    assert_eq!(probe(&one, 2, &there, &here, Instant::now() + SOON).await, (true, true));
}

async fn refusal(from: &Links, at: &Links) -> String {
    let to = at.identity().node;
    match timeout(SOON, from.dial(to, &at.local_addr().to_string(), Purpose::Forward)).await.unwrap() {
        Err(DialError::Refused(why)) => {
            assert!(!why.contains('\n'), "{why}");
            assert_eq!(from.refusals().get(&to), Some(&why));
            why
        }
        Err(e) => panic!("{e}"),
        Ok(_) => panic!("let in"),
    }
}

/// What the one who was dialled says of a connection of whom it does not know.
async fn stranger_at(links: &Links) -> String {
    let begun = Instant::now();
    loop {
        if let Some(last) = links.strangers().last {
            return last;
        }
        assert!(begun.elapsed() < SOON);
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_certificate_has_to_name_the_node_that_shows_it() {
    let house = House::new();
    let _accepted = house.node(1, 100).await;
    let two = house.node(2, 200).await;
    let _taken = two.accept(Purpose::Forward);
    // Node 9's certificate in the hands of one who says that it is node 1: told to both.
    let thief = bind(identity(1, 100), Some(locks(house.tls(9), &key(1)))).await;
    let why = refusal(&thief, &two).await;
    assert!(why.contains("node-1.quorate"), "{why}");
    assert_eq!(two.refusals().get(&1), Some(&why));
    // The same the other way: who answers as node 2 and shows node 9's is not believed.
    let impostor = bind(identity(2, 200), Some(locks(house.tls(9), &key(1)))).await;
    let _taken = impostor.accept(Purpose::Forward);
    let one = house.node(1, 100).await;
    assert!(refusal(&one, &impostor).await.contains("node-2.quorate"));
    // An operator is told before anybody meets such a node.
    let files = house.authority.issue(house.dir.path(), "own", &name_of(9));
    let ca = house.authority.file(house.dir.path(), "ca");
    let error = PeerTls::read(files.cert.as_ref(), files.key.as_ref(), &ca, 1).err().unwrap().to_string();
    assert!(error.contains("node-1.quorate") && error.contains("own.crt"), "{error}");
}

#[tokio::test]
async fn who_has_no_certificate_of_the_authority_is_refused_with_one_line_on_both_sides() {
    let (house, other) = (House::new(), House::new());
    let two = house.node(2, 200).await;
    let foreign = other.node(1, 100).await;
    assert!(refusal(&foreign, &two).await.contains("certificates"));
    assert!(stranger_at(&two).await.contains("TLS"));
    // Without TLS there is no way in, nor from TLS to a node without.
    let (two, plain) = (house.node(2, 200).await, bind(identity(1, 100), None).await);
    assert!(refusal(&plain, &two).await.contains("--peer-cert"));
    assert!(stranger_at(&two).await.contains("TLS"));
    let one = house.node(1, 100).await;
    let plain = bind(identity(2, 200), None).await;
    assert!(refusal(&one, &plain).await.contains("--peer-cert"));
    assert!(stranger_at(&plain).await.contains("--peer-cert"));
}

#[tokio::test]
async fn a_stranger_who_shakes_hands_slowly_is_hung_up_on_and_keeps_nobody_out() {
    let house = House::new();
    let (one, two) = (house.node(1, 100).await, house.node(2, 200).await);
    let mut slow = Vec::new();
    for sent in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.1\r\n"] {
        let mut stream = TcpStream::connect(two.local_addr()).await.unwrap();
        stream.write_all(sent).await.unwrap();
        slow.push(stream);
    }
    meet(&one, &two).await;
    for mut stream in slow {
        let mut said = Vec::new();
        let _ = timeout(SOON, stream.read_to_end(&mut said)).await.expect("it is held");
    }
}

/// Where node 1 believes node 2 to be: whatever it sends there is in the test's hands.
struct Tap(UdpSocket);

impl Tap {
    async fn new() -> Self {
        Self(UdpSocket::bind("127.0.0.1:0").await.unwrap())
    }

    /// One datagram from `from` to `to`, kept from arriving.
    async fn caught(&self, from: &Datagrams, to: u64, payload: &[u8]) -> Vec<u8> {
        from.send(to, &self.0.local_addr().unwrap().to_string(), payload).await.unwrap();
        let mut buffer = vec![0; 2_048];
        let len = timeout(SOON, self.0.recv(&mut buffer)).await.unwrap().unwrap();
        buffer.truncate(len);
        buffer
    }

    async fn send(&self, datagram: &[u8], to: &Links) {
        self.0.send_to(datagram, to.local_addr()).await.unwrap();
    }
}

/// Waits until so many datagrams have been turned away.
async fn turned_away(links: &Links, datagrams: u64, replayed: u64) -> Noted {
    let begun = Instant::now();
    loop {
        let noted = links.strangers();
        if noted.datagrams >= datagrams && noted.replayed >= replayed {
            assert_eq!((noted.datagrams, noted.replayed), (datagrams, replayed));
            return noted;
        }
        assert!(begun.elapsed() < SOON, "{noted:?}");
        sleep(Duration::from_millis(10)).await;
    }
}

async fn arrives(received: &mut Datagrams) -> Bytes {
    timeout(SOON, received.recv()).await.unwrap().unwrap().2
}

#[tokio::test]
async fn a_datagram_is_taken_once_and_only_as_it_was_sealed() {
    let house = House::new();
    let (one, two) = (house.node(1, 100).await, house.node(2, 200).await);
    let (sender, mut received, tap) = (one.datagrams(), two.datagrams(), Tap::new().await);
    let at = two.local_addr().to_string();
    // No handshake has told node 1 whom it would seal for.
    assert_eq!(sender.send(2, &at, b"early").await.unwrap_err().kind(), std::io::ErrorKind::NotConnected);
    meet(&one, &two).await;
    let first = tap.caught(&sender, 2, b"secret word").await;
    assert!(!first.windows(6).any(|six| six == b"secret"), "it can be read");
    // Every single bit counts.
    let mut strange = 0;
    for at in 0..first.len() {
        let mut flipped = first.clone();
        flipped[at] ^= 1 << (at % 8);
        tap.send(&flipped, &two).await;
        strange += 1;
    }
    for cut in [0, 1, 34, 35, 50, first.len() - 1] {
        tap.send(&first[..cut], &two).await;
        strange += 1;
    }
    turned_away(&two, strange, 0).await;
    // A stranger's: of another cluster, of another key, of none, and from a life that no handshake has named.
    let foreign = Identity { cluster: "other".into(), ..identity(1, 100) };
    let foreign = bind(foreign, Some(locks(house.tls(1), &key(1)))).await;
    let other_key = bind(identity(1, 100), Some(locks(house.tls(1), &key(2)))).await;
    meet(&other_key, &two).await;
    let open = bind(identity(1, 100), None).await;
    let unnamed = house.node(1, 101).await;
    let elsewhere = house.node(2, 200).await;
    meet(&unnamed, &elsewhere).await;
    for from in [&other_key, &open, &unnamed] {
        let datagram = tap.caught(&from.datagrams(), 2, b"forged").await;
        tap.send(&datagram, &two).await;
        strange += 1;
    }
    let in_other_cluster =
        bind(Identity { cluster: "other".into(), ..identity(2, 200) }, Some(locks(house.tls(2), &key(1))));
    meet(&foreign, &in_other_cluster.await).await;
    tap.send(&tap.caught(&foreign.datagrams(), 2, b"forged").await, &two).await;
    turned_away(&two, strange + 1, 0).await;
    // None of that has used up the genuine one; and it is taken once, whatever comes in between.
    let second = tap.caught(&sender, 2, b"second").await;
    tap.send(&second, &two).await;
    assert_eq!(arrives(&mut received).await, "second");
    tap.send(&first, &two).await;
    assert_eq!(arrives(&mut received).await, "secret word", "one may overtake another");
    for datagram in [&first, &second, &first] {
        tap.send(datagram, &two).await;
    }
    turned_away(&two, strange + 1, 3).await;
    sender.send(2, &at, b"last").await.unwrap();
    assert_eq!(arrives(&mut received).await, "last", "nothing else has been taken");
}

#[tokio::test]
async fn a_replay_is_taken_where_the_window_is_left_open() {
    let house = House::new();
    let one = house.node(1, 100).await;
    let open = PeerLocks { flaws: Flaws { accept_replays: true }, ..locks(house.tls(2), &key(1)) };
    let two = bind(identity(2, 200), Some(open)).await;
    meet(&one, &two).await;
    let (mut received, tap) = (two.datagrams(), Tap::new().await);
    let datagram = tap.caught(&one.datagrams(), 2, b"again").await;
    for _ in 0..2 {
        tap.send(&datagram, &two).await;
        assert_eq!(arrives(&mut received).await, "again");
    }
}

#[tokio::test]
async fn what_was_sealed_for_an_earlier_life_is_of_no_use_in_the_next() {
    let house = House::new();
    let (one, two) = (house.node(1, 100).await, house.node(2, 200).await);
    meet(&one, &two).await;
    let (sender, tap) = (one.datagrams(), Tap::new().await);
    let old = tap.caught(&sender, 2, b"for the earlier life").await;
    two.close();
    drop(two);
    let two = house.node(2, 201).await;
    let mut received = two.datagrams();
    meet(&one, &two).await;
    tap.send(&old, &two).await;
    turned_away(&two, 1, 0).await;
    tap.send(&tap.caught(&sender, 2, b"for this one").await, &two).await;
    assert_eq!(arrives(&mut received).await, "for this one");
    // The sender's earlier life was genuine and is over: what it has sent still counts once, and then no more.
    let late = tap.caught(&sender, 2, b"late").await;
    one.close();
    let one = house.node(1, 101).await;
    meet(&one, &two).await;
    for _ in 0..2 {
        tap.send(&late, &two).await;
    }
    assert_eq!(arrives(&mut received).await, "late");
    turned_away(&two, 1, 1).await;
    let third = house.node(1, 102).await;
    meet(&third, &two).await;
    tap.send(&late, &two).await;
    turned_away(&two, 2, 1).await;
}

#[tokio::test]
async fn the_cluster_key_is_changed_while_nodes_run() {
    let house = House::new();
    let keys = |text: String| Arc::new(ClusterKeys::parse(&text).unwrap());
    let (old, both, new) = (key(1), format!("{}\n{}", key(2), key(1)), key(2));
    let locked = |node| {
        let locks = locks(house.tls(node), &old);
        (locks.keys.clone(), locks)
    };
    let ((one_keys, one), (two_keys, two)) = (locked(1), locked(2));
    let (one, two) = (bind(identity(1, 100), Some(one)).await, bind(identity(2, 200), Some(two)).await);
    meet(&one, &two).await;
    let at = two.local_addr().to_string();
    let (sender, mut received) = (one.datagrams(), two.datagrams());
    type Keys = Arc<ArcSwap<ClusterKeys>>;
    let steps: [(&str, Option<&Keys>, &str); 5] = [
        ("old and old", None, ""),
        ("old, and either", Some(&two_keys), &both),
        ("new, and either", Some(&one_keys), &both),
        ("new and new", Some(&two_keys), &new),
        ("new alone", Some(&one_keys), &new),
    ];
    for (step, at_node, text) in steps {
        if let Some(at_node) = at_node {
            at_node.store(keys(text.to_owned()));
        }
        sender.send(2, &at, step.as_bytes()).await.unwrap();
        assert_eq!(arrives(&mut received).await, step);
    }
    one_keys.store(keys(old.clone()));
    sender.send(2, &at, b"left behind").await.unwrap();
    turned_away(&two, 1, 0).await;
}
