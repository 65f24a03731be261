//! Commands, keep-alives and read indexes that a follower asks of the leader: one connection to each peer, many requests at once.
//!
//! What is known of a command that failed here is what `NotSent` and `Lost` say: a request that never reached the connection can be
//! withdrawn for certain; of one that did, only the leader's own word tells.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use super::contact::Contacts;
use super::types::{Applied, Proposal};
use crate::cluster::{Change, ChangeRefusal, Changed};
use crate::model::ident::{LeaseId, NodeId};
use crate::model::lease::KeptAlive;
use crate::model::outcome::Refusal;
use crate::net::link::{Link, LinkReader, LinkWriter};
use crate::net::links::{Links, Purpose};
use crate::registry::{KeepAlive, Reason};

const FORWARD_VERSION: u8 = 2;
/// Requests to one peer that wait for its connection. More are refused as overload.
const QUEUE_LEN_MAX: usize = 16 * 1024;
/// Requests sent in one write.
const BATCH_LEN_MAX: usize = 256;
/// How long a connection may take to come about.
const DIAL_PATIENCE: Duration = Duration::from_millis(500);

/// What a node asks of the leader.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Ask {
    /// Carry this out.
    Command { proposal: Proposal },
    /// From which index on is a state as new as this question? By the leader's lease, or by asking a majority.
    ReadIndex { by_lease: bool },
    /// Make this change of the cluster.
    Change { change: Change },
    /// Keep these leases alive: what many callers ask, each for himself.
    KeepAlive(Vec<KeepAlive>),
    /// What only the leader knows: how much time a lease has left.
    Lease(LeaseId),
}

/// What the leader answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Told {
    Applied(Applied),
    Index(u64),
    /// The change is made, or it was refused.
    Changed(Result<Changed, ChangeRefusal>),
    /// To each caller, what became of each of its leases.
    KeptAlive {
        callers: Vec<Vec<Result<KeptAlive, Refusal>>>,
        revision: u64,
    },
    /// As of this index; none if no such lease lives.
    Lease {
        index: u64,
        left_ms: Option<u64>,
    },
    /// Nothing was done: this node does not lead.
    NotLeader,
    /// Nothing was done.
    Refused(Why),
    /// It may have been done, or may yet be.
    Unknown(Why),
}

/// A [`Reason`] on its way between nodes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Why {
    NoLeader,
    NoQuorum,
    Overloaded,
    Timeout,
    Internal(String),
}

impl From<Reason> for Why {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::NoLeader | Reason::NotLeader { .. } => Why::NoLeader,
            Reason::NoQuorum => Why::NoQuorum,
            Reason::Overloaded => Why::Overloaded,
            Reason::Timeout => Why::Timeout,
            Reason::Internal(why) => Why::Internal(why),
            Reason::Starting | Reason::Behind { .. } => Why::Internal("the leader is starting".into()),
        }
    }
}

impl From<Why> for Reason {
    fn from(why: Why) -> Self {
        match why {
            Why::NoLeader => Reason::NoLeader,
            Why::NoQuorum => Reason::NoQuorum,
            Why::Overloaded => Reason::Overloaded,
            Why::Timeout => Reason::Timeout,
            Why::Internal(why) => Reason::Internal(why),
        }
    }
}

/// Why the leader has not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// The request has not left this node, and will not.
    NotSent,
    /// Too many are waiting; the request has not left this node, and will not.
    Overloaded,
    /// It may have arrived.
    Lost,
}

/// Asks peers. Clones share the connections.
#[derive(Clone)]
pub struct Forwarder {
    shared: Arc<Shared>,
}

struct Shared {
    links: Links,
    contacts: Arc<Contacts>,
    lanes: RwLock<HashMap<NodeId, Lane>>,
    next_id: AtomicU64,
    address: Box<dyn Fn(NodeId) -> Option<String> + Send + Sync>,
}

#[derive(Clone)]
struct Lane {
    queue: mpsc::Sender<Arc<Pending>>,
    /// Closes the connection, which seems to be dead.
    suspect: Arc<Suspect>,
}

#[derive(Default)]
struct Suspect {
    notify: Notify,
    /// Something came since the last doubt.
    heard: AtomicBool,
}

const QUEUED: u8 = 0;
const SENT: u8 = 1;
const WITHDRAWN: u8 = 2;

struct Pending {
    id: u64,
    payload: Bytes,
    state: AtomicU8,
    answer: Mutex<Option<oneshot::Sender<Result<Told, Silence>>>>,
}

impl Pending {
    fn settle(&self, result: Result<Told, Silence>) {
        if let Some(answer) = self.answer.lock().expect("no panic while held").take() {
            let _ = answer.send(result);
        }
    }

    /// Takes the request out of `QUEUED`, into one of the other states. False: it has left it before.
    fn leave_queue(&self, to: u8) -> bool {
        self.state.compare_exchange(QUEUED, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

impl Forwarder {
    /// `address` tells where a member is reached; it is asked at each dial.
    pub fn new(
        links: Links,
        contacts: Arc<Contacts>,
        address: impl Fn(NodeId) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        let lanes = RwLock::default();
        let shared = Shared { links, contacts, lanes, next_id: AtomicU64::new(1), address: Box::new(address) };
        Self { shared: Arc::new(shared) }
    }

    /// Asks this peer; an answer by the deadline, or what is known without one.
    pub async fn ask(&self, peer: NodeId, ask: &Ask, deadline: Instant) -> Result<Told, Silence> {
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let budget_ms = deadline.saturating_duration_since(Instant::now()).as_millis() as u64;
        let payload = encode(&(id, budget_ms, ask));
        let (answer, answered) = oneshot::channel();
        let state = AtomicU8::new(QUEUED);
        let pending = Arc::new(Pending { id, payload, state, answer: Mutex::new(Some(answer)) });
        let lane = self.lane(peer);
        if lane.queue.try_send(pending.clone()).is_err() {
            return Err(Silence::Overloaded);
        }
        match timeout_at(deadline, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) if pending.leave_queue(WITHDRAWN) => Err(Silence::NotSent),
            Ok(Err(_)) => Err(Silence::Lost),
            Err(_) if pending.leave_queue(WITHDRAWN) => Err(Silence::NotSent),
            Err(_) => {
                // If nothing at all has come for so long, the connection is as good as dead; what is still held on this side of
                // it must not arrive some day.
                if !lane.suspect.heard.swap(false, Ordering::AcqRel) {
                    lane.suspect.notify.notify_one();
                }
                Err(Silence::Lost)
            }
        }
    }

    fn lane(&self, peer: NodeId) -> Lane {
        if let Some(lane) = self.shared.lanes.read().expect("no panic while held").get(&peer) {
            return lane.clone();
        }
        let mut lanes = self.shared.lanes.write().expect("no panic while held");
        let lane = lanes.entry(peer).or_insert_with(|| {
            let (queue, requests) = mpsc::channel(QUEUE_LEN_MAX);
            let lane = Lane { queue, suspect: Arc::default() };
            tokio::spawn(run_lane(Arc::downgrade(&self.shared), peer, requests, lane.suspect.clone()));
            lane
        });
        lane.clone()
    }
}

/// Owns the connection to one peer. Ends with the [`Forwarder`].
async fn run_lane(
    shared: std::sync::Weak<Shared>,
    peer: NodeId,
    mut requests: mpsc::Receiver<Arc<Pending>>,
    suspect: Arc<Suspect>,
) {
    while let Some(first) = requests.recv().await {
        if first.state.load(Ordering::Acquire) == WITHDRAWN {
            continue;
        }
        let Some(strong) = shared.upgrade() else { return };
        let (links, contacts, address) = (strong.links.clone(), strong.contacts.clone(), (strong.address)(peer));
        drop(strong);
        let dialled = match address {
            Some(address) => timeout(DIAL_PATIENCE, links.dial(peer, &address, Purpose::Forward)).await,
            None => Ok(Err(std::io::Error::from(std::io::ErrorKind::NotFound).into())),
        };
        let Ok(Ok(link)) = dialled else {
            not_sent(&first);
            while let Ok(pending) = requests.try_recv() {
                not_sent(&pending);
            }
            continue;
        };
        run_connection(link, contacts, first, &mut requests, &suspect).await;
    }
}

fn not_sent(pending: &Pending) {
    if pending.leave_queue(WITHDRAWN) {
        pending.settle(Err(Silence::NotSent));
    }
}

type InFlight = Arc<Mutex<HashMap<u64, Arc<Pending>>>>;

async fn run_connection(
    link: Link,
    contacts: Arc<Contacts>,
    first: Arc<Pending>,
    requests: &mut mpsc::Receiver<Arc<Pending>>,
    suspect: &Arc<Suspect>,
) {
    let in_flight = InFlight::default();
    let Link { peer, reader, mut writer, .. } = link;
    let mut reading = tokio::spawn(read_answers(reader, peer, contacts, in_flight.clone(), suspect.clone()));
    let mut batch = vec![first];
    loop {
        if send(&mut writer, &mut batch, &in_flight).await.is_err() {
            break;
        }
        tokio::select! {
            count = requests.recv_many(&mut batch, BATCH_LEN_MAX) => if count == 0 { break },
            _ = &mut reading => break,
            () = suspect.notify.notified() => break,
        }
    }
    reading.abort();
    batch.iter().for_each(|pending| not_sent(pending));
    let lost = std::mem::take(&mut *in_flight.lock().expect("no panic while held"));
    lost.into_values().for_each(|pending| pending.settle(Err(Silence::Lost)));
}

async fn send(writer: &mut LinkWriter, batch: &mut Vec<Arc<Pending>>, in_flight: &InFlight) -> std::io::Result<()> {
    // From here on these may arrive, whatever becomes of the write.
    batch.retain(|pending| pending.leave_queue(SENT));
    let payloads = batch.iter().map(|pending| pending.payload.clone()).collect::<Vec<_>>();
    in_flight.lock().expect("no panic while held").extend(batch.drain(..).map(|pending| (pending.id, pending)));
    if payloads.is_empty() { Ok(()) } else { writer.send_all(&payloads).await }
}

async fn read_answers(
    mut reader: LinkReader,
    peer: NodeId,
    contacts: Arc<Contacts>,
    in_flight: InFlight,
    suspect: Arc<Suspect>,
) {
    while let Ok(bytes) = reader.recv().await {
        contacts.heard(peer);
        suspect.heard.store(true, Ordering::Release);
        let Some((id, told)) = decode::<(u64, Told)>(&bytes) else {
            return tracing::warn!(peer, "an answer to a forwarded request cannot be read");
        };
        if let Some(pending) = in_flight.lock().expect("no panic while held").remove(&id) {
            pending.settle(Ok(told));
        }
    }
}

/// A question is its id, the milliseconds that its answer may take, and an [`Ask`]; an answer is the same id and a [`Told`].
fn encode<T: Serialize>(message: &T) -> Bytes {
    postcard::to_extend(message, vec![FORWARD_VERSION]).expect("it can be encoded").into()
}

fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    match bytes.split_first() {
        Some((&FORWARD_VERSION, rest)) => postcard::from_bytes(rest).ok(),
        _ => None,
    }
}

/// Serves what peers ask of this node, all at once; `answer` does one.
pub async fn serve<F, A>(mut links: mpsc::Receiver<Link>, contacts: Arc<Contacts>, answer: F)
where
    F: Fn(Ask, Instant) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Told> + Send + 'static,
{
    let mut open = tokio::task::JoinSet::new();
    while let Some(link) = links.recv().await {
        open.spawn(serve_link(link, contacts.clone(), answer.clone()));
        while open.try_join_next().is_some() {}
    }
}

async fn serve_link<F, A>(link: Link, contacts: Arc<Contacts>, answer: F)
where
    F: Fn(Ask, Instant) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Told> + Send + 'static,
{
    let Link { peer, mut reader, mut writer, .. } = link;
    let (answers, mut answered) = mpsc::channel::<Bytes>(QUEUE_LEN_MAX);
    let writing = async move {
        let mut batch = Vec::new();
        while answered.recv_many(&mut batch, BATCH_LEN_MAX).await > 0 {
            if writer.send_all(&batch).await.is_err() {
                return;
            }
            batch.clear();
        }
    };
    let reading = async move {
        while let Ok(bytes) = reader.recv().await {
            contacts.heard(peer);
            let Some((id, budget_ms, ask)) = decode::<(u64, u64, Ask)>(&bytes) else {
                return tracing::warn!(peer, "a forwarded request cannot be read");
            };
            let (answer, answers) = (answer.clone(), answers.clone());
            let deadline = Instant::now() + Duration::from_millis(budget_ms);
            tokio::spawn(async move {
                let told = answer(ask, deadline).await;
                let _ = answers.send(encode(&(id, told))).await;
            });
        }
    };
    tokio::select! {
        () = writing => {}
        () = reading => {}
    }
}
