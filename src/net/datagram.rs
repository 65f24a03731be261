//! Datagrams between peers: each says which cluster and node it is from and whom it is for. It carries a checksum, or, where the
//! cluster has a key, is [sealed](super::seal).

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::expelled::Expelled;
use super::fault::{Direction, Fate, FaultTable};
use super::frame::{Identity, PROTOCOL_VERSION};
use super::seal::{Seals, Unopened};
use super::wire::{DatagramSocket, Wire};
use crate::model::ident::NodeId;

/// The longest payload: with the header it stays below what one Ethernet frame carries.
pub const DATAGRAM_LEN_MAX: usize = 1_350;
const HEADER_LEN: usize = 2 + 8 + 8 + 8 + 8 + 1;
const CRC_LEN: usize = 4;
/// What a seal takes, which is more than a checksum.
const TRAILER_LEN_MAX: usize = 24;
const PING_AGAIN: Duration = Duration::from_millis(100);
/// Datagrams received and not yet taken. Later ones are lost, as in a full socket buffer.
const QUEUE_LEN_MAX: usize = 1_024;
/// How long a host name's address is believed.
const RESOLVED_FOR: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Payload = 0,
    Ping = 1,
    Pong = 2,
}

type Received = (NodeId, u64, Bytes);

/// The node's one datagram socket, and who waits for what arrives there.
pub(super) struct DatagramHub {
    me: Identity,
    cluster: u64,
    socket: Arc<dyn DatagramSocket>,
    wire: Arc<dyn Wire>,
    faults: FaultTable,
    expelled: Expelled,
    taker: Mutex<Option<mpsc::Sender<Received>>>,
    pings: Mutex<HashMap<u64, oneshot::Sender<()>>>,
    ping_ids: AtomicU64,
    resolved: Mutex<HashMap<String, (SocketAddr, Instant)>>,
    seals: Option<Seals>,
    strange: AtomicU64,
    replayed: AtomicU64,
}

/// Sends and receives datagrams.
pub struct Datagrams {
    hub: Arc<DatagramHub>,
    received: mpsc::Receiver<Received>,
}

/// Sends datagrams.
#[derive(Clone)]
pub struct DatagramSender {
    hub: Arc<DatagramHub>,
}

impl Datagrams {
    /// The sending half, which can be shared.
    pub fn sender(&self) -> DatagramSender {
        DatagramSender { hub: self.hub.clone() }
    }

    /// Sends one datagram, perhaps. An error says only that this machine did not send it.
    pub async fn send(&self, to: NodeId, addr: &str, payload: &[u8]) -> io::Result<()> {
        self.hub.send(Kind::Payload, to, addr, payload).await
    }

    /// The next datagram: the node it is from, that node's run, the payload. None when the links were closed.
    pub async fn recv(&mut self) -> Option<Received> {
        self.received.recv().await
    }
}

impl DatagramSender {
    /// As [`Datagrams::send`].
    pub async fn send(&self, to: NodeId, addr: &str, payload: &[u8]) -> io::Result<()> {
        self.hub.send(Kind::Payload, to, addr, payload).await
    }
}

impl DatagramHub {
    pub(super) fn new(
        me: Identity,
        socket: Arc<dyn DatagramSocket>,
        wire: Arc<dyn Wire>,
        faults: FaultTable,
        seals: Option<Seals>,
        expelled: Expelled,
    ) -> Self {
        let cluster = fnv1a(&me.cluster);
        Self {
            me,
            cluster,
            socket,
            wire,
            faults,
            expelled,
            taker: Mutex::default(),
            pings: Mutex::default(),
            ping_ids: AtomicU64::new(1),
            resolved: Mutex::default(),
            seals,
            strange: AtomicU64::new(0),
            replayed: AtomicU64::new(0),
        }
    }

    /// A handshake has told which run of a peer it came from: its sealed datagrams are listened to from now on.
    pub(super) fn named(&self, peer: NodeId, run: u64) {
        if let Some(seals) = &self.seals {
            seals.named(peer, run);
        }
    }

    pub(super) fn open(self: Arc<Self>) -> Datagrams {
        let (sender, received) = mpsc::channel(QUEUE_LEN_MAX);
        *self.taker.lock().expect("no panic while held") = Some(sender);
        Datagrams { hub: self, received }
    }

    pub(super) fn strange(&self) -> u64 {
        self.strange.load(Ordering::Relaxed)
    }

    pub(super) fn replayed(&self) -> u64 {
        self.replayed.load(Ordering::Relaxed)
    }

    async fn send(&self, kind: Kind, to: NodeId, addr: &str, payload: &[u8]) -> io::Result<()> {
        if payload.len() > DATAGRAM_LEN_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a datagram that does not fit one packet"));
        }
        self.expelled.check(to)?;
        let late = match self.faults.fate(to, Direction::Outgoing) {
            Fate::Pass => None,
            Fate::Late(by) => Some(by),
            Fate::Cut | Fate::Lost(_) => return Ok(()),
        };
        let addr = self.resolve(addr).await?;
        let datagram = self.encode(kind, to, payload)?;
        match late {
            None => self.socket.send_to(&datagram, addr).await,
            Some(by) => {
                let socket = self.socket.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(by).await;
                    let _ = socket.send_to(&datagram, addr).await;
                });
                Ok(())
            }
        }
    }

    fn encode(&self, kind: Kind, to: NodeId, payload: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::with_capacity(HEADER_LEN + payload.len() + TRAILER_LEN_MAX);
        out.extend_from_slice(&PROTOCOL_VERSION.to_le_bytes());
        out.extend_from_slice(&self.cluster.to_le_bytes());
        out.extend_from_slice(&self.me.node.to_le_bytes());
        out.extend_from_slice(&self.me.run.to_le_bytes());
        out.extend_from_slice(&to.to_le_bytes());
        out.push(kind as u8);
        if let Some(seals) = &self.seals {
            seals.seal(to, payload, &mut out)?;
            return Ok(out);
        }
        out.extend_from_slice(payload);
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        Ok(out)
    }

    /// Strange: torn, of another version or cluster, not for us, or not sealed as it has to be.
    fn decode(&self, datagram: &mut [u8]) -> Result<(Kind, NodeId, u64, Bytes), Unopened> {
        let head = datagram.first_chunk::<HEADER_LEN>().ok_or(Unopened::Strange)?;
        let number = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes"));
        let version = u16::from_le_bytes([head[0], head[1]]);
        let (cluster, from, run, to) = (number(2), number(10), number(18), number(26));
        let kind = [Kind::Payload, Kind::Ping, Kind::Pong].into_iter().find(|kind| *kind as u8 == head[34]);
        let kind = kind.ok_or(Unopened::Strange)?;
        let ours = version == PROTOCOL_VERSION && cluster == self.cluster && to == self.me.node && from != self.me.node;
        if !ours {
            return Err(Unopened::Strange);
        }
        let payload = match &self.seals {
            Some(seals) => seals.open((from, run), HEADER_LEN, datagram)?,
            None => whole(datagram).ok_or(Unopened::Strange)?,
        };
        Ok((kind, from, run, Bytes::copy_from_slice(payload)))
    }

    async fn resolve(&self, addr: &str) -> io::Result<SocketAddr> {
        if let Ok(addr) = addr.parse() {
            return Ok(addr);
        }
        let known = self.resolved.lock().expect("no panic while held").get(addr).copied();
        if let Some((found, at)) = known
            && at.elapsed() < RESOLVED_FOR
        {
            return Ok(found);
        }
        let found = self.wire.resolve(addr).await?;
        self.resolved.lock().expect("no panic while held").insert(addr.to_owned(), (found, Instant::now()));
        Ok(found)
    }

    pub(super) async fn receive_all(self: Arc<Self>) {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let Ok(len) = self.socket.recv(&mut buffer).await else {
                // An ICMP error of an earlier datagram: that peer is down, the socket is not.
                tokio::task::yield_now().await;
                continue;
            };
            let (kind, from, run, payload) = match self.decode(&mut buffer[..len]) {
                Ok((_, from, ..)) if self.expelled.contains(from) => {
                    self.strange.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                Ok(decoded) => decoded,
                Err(why) => {
                    let counter = match why {
                        Unopened::Strange => &self.strange,
                        Unopened::Replayed => &self.replayed,
                    };
                    counter.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
            };
            match self.faults.fate(from, Direction::Incoming) {
                Fate::Pass => self.take(kind, from, run, payload).await,
                Fate::Cut | Fate::Lost(_) => {}
                Fate::Late(by) => {
                    let hub = self.clone();
                    tokio::spawn(async move {
                        tokio::time::sleep(by).await;
                        hub.take(kind, from, run, payload).await;
                    });
                }
            }
        }
    }

    async fn take(&self, kind: Kind, from: NodeId, run: u64, payload: Bytes) {
        match kind {
            Kind::Payload => {
                if let Some(taker) = &*self.taker.lock().expect("no panic while held") {
                    let _ = taker.try_send((from, run, payload));
                }
            }
            // The ping says where to answer: the sender's socket address is not ours to trust behind a NAT.
            Kind::Ping => {
                if let Some((id, addr)) = payload.split_at_checked(8)
                    && let Ok(addr) = std::str::from_utf8(addr)
                {
                    let _ = self.send(Kind::Pong, from, addr, id).await;
                }
            }
            Kind::Pong => {
                if let Ok(id) = payload.as_ref().try_into() {
                    let waiting = self.pings.lock().expect("no panic while held").remove(&u64::from_le_bytes(id));
                    if let Some(waiting) = waiting {
                        let _ = waiting.send(());
                    }
                }
            }
        }
    }

    /// Sends a ping until it is answered; `back` is where the peer reaches us. Bring a deadline.
    pub(super) async fn ping(&self, to: NodeId, addr: &str, back: &str) -> io::Result<()> {
        let id = self.ping_ids.fetch_add(1, Ordering::Relaxed);
        let (sender, answered) = oneshot::channel();
        self.pings.lock().expect("no panic while held").insert(id, sender);
        let _forget = Forget { hub: self, id };
        let mut payload = id.to_le_bytes().to_vec();
        payload.extend_from_slice(back.as_bytes());
        let mut answered = pin!(answered);
        loop {
            match self.send(Kind::Ping, to, addr, &payload).await {
                // The first handshake with it may be under way.
                Err(e) if e.kind() != io::ErrorKind::NotConnected => return Err(e),
                Ok(()) | Err(_) => {}
            }
            if let Ok(answered) = timeout(PING_AGAIN, &mut answered).await {
                return answered.map_err(|_| io::ErrorKind::ConnectionAborted.into());
            }
        }
    }
}

/// Drops what waits for a pong that did not come.
struct Forget<'a> {
    hub: &'a DatagramHub,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.hub.pings.lock().expect("no panic while held").remove(&self.id);
    }
}

/// The payload of a datagram whose checksum fits.
fn whole(datagram: &[u8]) -> Option<&[u8]> {
    let (body, crc) = datagram.split_last_chunk::<CRC_LEN>()?;
    (crc32c::crc32c(body).to_le_bytes() == *crc).then(|| body.get(HEADER_LEN..))?
}

/// FNV-1a, 64 bits: catches mistakes, proves nothing.
pub fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}
