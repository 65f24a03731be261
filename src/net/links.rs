//! One node's connections to its peers: dialled and accepted, handshake done, cut into frames, with the faults in force.
//!
//! A cut link behaves as a cut at the IP level does: a dial hangs (the caller's deadline ends it), frames already handed over
//! arrive after the link is mended if the connection still stands, datagrams vanish.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};

use arc_swap::ArcSwap;
use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use super::datagram::{DatagramHub, Datagrams};
use super::expelled::Expelled;
use super::fault::{Direction, FaultTable};
use super::frame::{self, Hello, Welcome};
use super::link::{Link, LinkReader, LinkWriter};
use super::mutual::{PeerTls, Shown, distrust, name_of};
use super::seal::{self, ClusterKeys, Seals};
use super::strangers::{Noted, Strangers};
use super::welcome;
use super::wire::{ReadHalf, Wire, WriteHalf};
use crate::model::ident::NodeId;

pub use super::frame::{About, Identity, Purpose};

/// Connections accepted and not yet taken by their part. More wait in the kernel.
const ACCEPT_QUEUE_LEN_MAX: usize = 64;
/// Ids whose refusals are remembered: a stranger may claim any.
const REFUSALS_LEN_MAX: usize = 1_024;

/// One node's door to its peers. Clones share it.
#[derive(Clone)]
pub struct Links {
    shared: Arc<Shared>,
}

/// What all clones share.
pub(super) struct Shared {
    pub(super) identity: Identity,
    wire: Arc<dyn Wire>,
    pub(super) faults: FaultTable,
    expelled: Expelled,
    /// What a peer has said when it told this node that it was removed.
    removed: watch::Sender<Option<String>>,
    at: SocketAddr,
    pub(super) hub: Arc<DatagramHub>,
    pub(super) takers: watch::Sender<HashMap<Purpose, mpsc::Sender<Link>>>,
    refusals: Mutex<BTreeMap<NodeId, String>>,
    /// What this node and its peers say of themselves.
    about: Mutex<BTreeMap<NodeId, About>>,
    gate: OnceLock<Gate>,
    pub(super) tls: Option<Arc<ArcSwap<PeerTls>>>,
    pub(super) strangers: Strangers,
    tasks: Mutex<Vec<AbortHandle>>,
}

/// Why a peer that fits otherwise is not to be spoken to, if it is not.
pub type Gate = Box<dyn Fn(NodeId, &About) -> Option<String> + Send + Sync>;

/// The locks on a node's links. Mutual TLS for streams and sealed datagrams come together: one without the other would leave
/// a door open. What is stored there later counts from the next connection, and the next datagram, on.
pub struct PeerLocks {
    pub tls: Arc<ArcSwap<PeerTls>>,
    pub keys: Arc<ArcSwap<ClusterKeys>>,
    pub flaws: seal::Flaws,
}

/// Why a dial came to nothing. In either case nothing but a handshake was sent.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("unreachable: {0}")]
    Unreachable(#[from] io::Error),
    /// The two nodes do not fit together; one line why.
    #[error("refused: {0}")]
    Refused(String),
}

impl Links {
    /// Listens at `listen` for streams and datagrams, without locks.
    pub async fn bind(
        wire: Arc<dyn Wire>,
        identity: Identity,
        listen: SocketAddr,
        faults: FaultTable,
    ) -> io::Result<Self> {
        Self::bind_with(wire, identity, listen, faults, None).await
    }

    /// Listens at `listen` for streams and datagrams, with these locks.
    pub async fn bind_with(
        wire: Arc<dyn Wire>,
        identity: Identity,
        listen: SocketAddr,
        faults: FaultTable,
        locks: Option<PeerLocks>,
    ) -> io::Result<Self> {
        let bound = wire.bind(listen).await?;
        let (tls, seals) = match locks {
            None => (None, None),
            Some(locks) => (Some(locks.tls), Some(Seals::new(identity.clone(), locks.keys, locks.flaws))),
        };
        let expelled = Expelled::default();
        let (me, datagrams) = (identity.clone(), bound.datagrams);
        let hub = DatagramHub::new(me, datagrams, wire.clone(), faults.clone(), seals, expelled.clone());
        let hub = Arc::new(hub);
        let shared = Arc::new(Shared {
            identity,
            wire,
            faults,
            expelled,
            removed: watch::Sender::default(),
            at: bound.at,
            hub: hub.clone(),
            takers: watch::Sender::default(),
            refusals: Mutex::default(),
            about: Mutex::default(),
            gate: OnceLock::new(),
            tls,
            strangers: Strangers::default(),
            tasks: Mutex::default(),
        });
        let accepting = tokio::spawn(welcome::accept_all(shared.clone(), bound.streams)).abort_handle();
        let receiving = tokio::spawn(hub.receive_all()).abort_handle();
        shared.tasks.lock().expect("no panic while held").extend([accepting, receiving]);
        let links = Self { shared };
        let answering = tokio::spawn(super::probe::answer_all(links.accept(Purpose::Probe))).abort_handle();
        links.shared.tasks.lock().expect("no panic while held").push(answering);
        Ok(links)
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.shared.at
    }

    pub fn identity(&self) -> &Identity {
        &self.shared.identity
    }

    pub fn faults(&self) -> &FaultTable {
        &self.shared.faults
    }

    /// Takes the connections that peers open for one purpose from now on. Those of a purpose that nobody takes wait
    /// for somebody who does, as long as a handshake may take.
    pub fn accept(&self, purpose: Purpose) -> mpsc::Receiver<Link> {
        let (sender, receiver) = mpsc::channel(ACCEPT_QUEUE_LEN_MAX);
        self.shared.takers.send_modify(|takers| {
            takers.insert(purpose, sender);
        });
        receiver
    }

    /// Opens a connection. `addr` is HOST:PORT, resolved anew each time. Takes as long as it takes: bring a deadline.
    pub async fn dial(&self, to: NodeId, addr: &str, purpose: Purpose) -> Result<Link, DialError> {
        let shared = &self.shared;
        if let Some(why) = shared.removal(to) {
            return Err(DialError::Refused(why));
        }
        shared.faults.mended(to, &[Direction::Outgoing, Direction::Incoming]).await;
        let (reader, writer) = shared.wire.connect(addr).await?;
        let (shown, reader, mut writer) = shared.shake_hands(to, reader, writer).await?;
        let hello = Hello::new(shared.identity.clone(), to, purpose, shared.own_about());
        send_whole(&mut writer, &frame::to_payload(&hello)).await?;
        let mut reader = shared.reader(to, reader);
        // That a peer does not like our certificate is heard only now: TLS 1.3 shows it with the first data.
        let answer = reader.recv().await.map_err(|e| shared.told_apart(to, e))?;
        match frame::from_payload::<Welcome>(&answer)? {
            Welcome::Accepted { run, about } => {
                let foreign = shared.certificate_refusal(to, shown.as_ref());
                if let Some(why) = foreign.or_else(|| shared.gate_refusal(to, &about)) {
                    shared.note_refusal(to, &why);
                    return Err(DialError::Refused(why));
                }
                shared.hub.named(to, run);
                shared.note_about(to, about);
                shared.refusals.lock().expect("no panic while held").remove(&to);
                Ok(Link { peer: to, peer_run: run, reader, writer: shared.writer(to, writer) })
            }
            Welcome::Refused { why, removed } => {
                shared.note_refusal(to, &why);
                // A node stops over this: it has to come from the one that was asked.
                if removed && shared.certificate_refusal(to, shown.as_ref()).is_none() {
                    shared.removed.send_replace(Some(why.clone()));
                }
                Err(DialError::Refused(why))
            }
        }
    }

    /// Sends and receives datagrams. One receiver: a second call takes over from the first.
    pub fn datagrams(&self) -> Datagrams {
        self.shared.hub.clone().open()
    }

    /// Peers whose last handshake failed because the nodes do not fit together, and why.
    pub fn refusals(&self) -> BTreeMap<NodeId, String> {
        self.shared.refusals.lock().expect("no panic while held").clone()
    }

    /// What this node tells of itself from the next handshake on.
    pub fn introduce(&self, about: About) {
        self.shared.note_about(self.shared.identity.node, about);
    }

    /// Lets in only peers for which the gate has no objection (one line for both operators). Set once, before traffic.
    pub fn guard(&self, gate: Gate) {
        assert!(self.shared.gate.set(gate).is_ok(), "one gate, set once");
    }

    /// Speaks to these nodes no more, for they were removed from the cluster; open connections to them end with their next frame.
    pub fn expel(&self, nodes: impl IntoIterator<Item = NodeId>) {
        self.shared.expelled.extend(nodes);
    }

    /// Returns once a peer has refused this node as one that was removed from the cluster, with what it said.
    pub async fn removed(&self) -> String {
        let mut removed = self.shared.removed.subscribe();
        // Fails only when the sender is gone, which `self` keeps alive.
        let told = removed.wait_for(Option::is_some).await.map(|told| told.clone());
        told.ok().flatten().unwrap_or_default()
    }

    /// What this node and the peers that it has spoken to say of themselves.
    pub fn about(&self) -> BTreeMap<NodeId, About> {
        self.shared.about.lock().expect("no panic while held").clone()
    }

    /// What came to nothing because of whom it came from, or because it had come before.
    pub fn strangers(&self) -> Noted {
        let hub = &self.shared.hub;
        Noted { datagrams: hub.strange(), replayed: hub.replayed(), ..self.shared.strangers.noted() }
    }

    pub(super) fn hub(&self) -> &Arc<DatagramHub> {
        &self.shared.hub
    }

    /// Stops listening. Links handed out go on until they are dropped.
    pub fn close(&self) {
        for task in self.shared.tasks.lock().expect("no panic while held").drain(..) {
            task.abort();
        }
        self.shared.takers.send_modify(HashMap::clear);
    }
}

impl Shared {
    pub(super) fn own_about(&self) -> About {
        self.about.lock().expect("no panic while held").get(&self.identity.node).cloned().unwrap_or_default()
    }

    pub(super) fn note_about(&self, node: NodeId, about: About) {
        self.about.lock().expect("no panic while held").insert(node, about);
    }

    pub(super) fn reader(&self, peer: NodeId, reader: ReadHalf) -> LinkReader {
        LinkReader::new(peer, reader, self.faults.clone(), self.expelled.clone())
    }

    pub(super) fn writer(&self, peer: NodeId, writer: WriteHalf) -> LinkWriter {
        LinkWriter::new(peer, writer, self.faults.clone(), self.expelled.clone())
    }

    /// One line for both operators, if the node was removed.
    pub(super) fn removal(&self, node: NodeId) -> Option<String> {
        self.expelled.contains(node).then(|| {
            format!("node {node} was removed from this cluster, which is final: start it anew, under a new id and with an empty --data")
        })
    }

    pub(super) fn gate_refusal(&self, peer: NodeId, about: &About) -> Option<String> {
        self.gate.get()?(peer, about)
    }

    /// Where TLS is asked for, a peer is who its certificate says.
    pub(super) fn certificate_refusal(&self, peer: NodeId, shown: Option<&Shown>) -> Option<String> {
        if shown?.is_of(peer) {
            return None;
        }
        let name = name_of(peer);
        Some(format!("node {peer} shows a certificate that does not have the DNS name {name}: give each node its own"))
    }

    async fn shake_hands(
        &self,
        to: NodeId,
        reader: ReadHalf,
        writer: WriteHalf,
    ) -> Result<(Option<Shown>, ReadHalf, WriteHalf), DialError> {
        let Some(tls) = &self.tls else { return Ok((None, reader, writer)) };
        match tls.load_full().dial(to, (reader, writer)).await {
            Ok((shown, reader, writer)) => Ok((Some(shown), reader, writer)),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                let why = format!("node {to} does not shake hands by TLS: start all nodes with --peer-cert, or none");
                self.note_refusal(to, &why);
                Err(DialError::Refused(why))
            }
            Err(e) => Err(self.told_apart(to, e)),
        }
    }

    /// Whether a handshake broke off, or one side does not trust the other.
    fn told_apart(&self, to: NodeId, error: io::Error) -> DialError {
        let me = self.identity.node;
        let Some(why) = distrust(&error) else { return DialError::Unreachable(error) };
        let why = format!("node {to} and node {me} do not trust each other's certificates: {why}");
        self.note_refusal(to, &why);
        DialError::Refused(why)
    }

    /// Says it once, not at every redial.
    pub(super) fn note_refusal(&self, peer: NodeId, why: &str) {
        let mut refusals = self.refusals.lock().expect("no panic while held");
        if refusals.len() >= REFUSALS_LEN_MAX && !refusals.contains_key(&peer) {
            return;
        }
        let before = refusals.insert(peer, why.to_owned());
        if before.as_deref() != Some(why) {
            tracing::error!(peer, "handshake refused: {why}");
        }
    }
}

/// Sends one frame over a connection that is no link yet.
pub(super) async fn send_whole(writer: &mut WriteHalf, payload: &[u8]) -> io::Result<()> {
    let mut out = BytesMut::new();
    frame::encode(payload, &mut out);
    writer.write_all(&out).await?;
    writer.flush().await
}
