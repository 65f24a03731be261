//! Commands, keep-alives and read indexes that a follower asks of the leader: one connection to each peer, many requests at once.
//!
//! What is known of a command that failed here is what [`Silence`] says: a request that never reached the connection can be
//! withdrawn for certain; of one that did, only the leader's own word tells.

use std::collections::HashMap;
use std::sync::{Arc, RwLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::contact::Contacts;
use super::types::{Applied, Proposal};
use crate::cluster::{Change, ChangeRefusal, Changed};
use crate::model::ident::{LeaseId, NodeId};
use crate::model::lease::KeptAlive;
use crate::model::outcome::Refusal;
use crate::net::asking::{self, Lateness, Line, Requests};
use crate::net::link::Link;
use crate::net::links::{Links, Purpose};
use crate::registry::{KeepAlive, Reason};

/// What is known of a request that the leader has not answered.
pub use crate::net::asking::Silence;

const FORWARD_VERSION: u8 = 3;
/// Requests to one peer that wait for its connection. More are refused as overload.
const QUEUE_LEN_MAX: usize = 16 * 1024;
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

/// Asks peers. Clones share the connections.
#[derive(Clone)]
pub struct Forwarder {
    shared: Arc<Shared>,
}

struct Shared {
    links: Links,
    contacts: Arc<Contacts>,
    lines: RwLock<HashMap<NodeId, Line>>,
    address: Box<dyn Fn(NodeId) -> Option<String> + Send + Sync>,
}

impl Forwarder {
    /// `address` tells where a member is reached; it is asked at each dial.
    pub fn new(
        links: Links,
        contacts: Arc<Contacts>,
        address: impl Fn(NodeId) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        let shared = Shared { links, contacts, lines: RwLock::default(), address: Box::new(address) };
        Self { shared: Arc::new(shared) }
    }

    /// Asks this peer; an answer by the deadline, or what is known without one.
    pub async fn ask(&self, peer: NodeId, ask: &Ask, deadline: Instant) -> Result<Told, Silence> {
        let budget_ms = deadline.saturating_duration_since(Instant::now()).as_millis() as u64;
        let answer = self.line(peer).ask(encode(&(budget_ms, ask)), deadline).await?;
        decode(&answer).ok_or_else(|| {
            tracing::warn!(peer, "an answer to a forwarded request cannot be read");
            Silence::Lost
        })
    }

    fn line(&self, peer: NodeId) -> Line {
        if let Some(line) = self.shared.lines.read().expect("no panic while held").get(&peer) {
            return line.clone();
        }
        let mut lines = self.shared.lines.write().expect("no panic while held");
        let line = lines.entry(peer).or_insert_with(|| {
            let (line, requests) = asking::line(QUEUE_LEN_MAX);
            tokio::spawn(run_line(Arc::downgrade(&self.shared), peer, requests));
            line
        });
        line.clone()
    }
}

/// Owns the connection to one peer, which comes about when something is asked. Ends with the [`Forwarder`].
async fn run_line(shared: Weak<Shared>, peer: NodeId, mut requests: Requests) {
    while requests.wait().await {
        let Some(strong) = shared.upgrade() else { return };
        let (links, contacts, address) = (strong.links.clone(), strong.contacts.clone(), (strong.address)(peer));
        drop(strong);
        let dialled = match address {
            Some(address) => timeout(DIAL_PATIENCE, links.dial(peer, &address, Purpose::Forward)).await,
            None => Ok(Err(std::io::Error::from(std::io::ErrorKind::NotFound).into())),
        };
        match dialled {
            Ok(Ok(link)) => requests.carry(link, Lateness::Doubted, move || contacts.heard(peer)).await,
            Ok(Err(_)) | Err(_) => requests.give_up(),
        }
    }
}

/// A question is the milliseconds that its answer may take, and an [`Ask`]; an answer is a [`Told`].
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
pub async fn serve<F, A>(links: mpsc::Receiver<Link>, contacts: Arc<Contacts>, answer: F)
where
    F: Fn(Ask, Instant) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Told> + Send + 'static,
{
    let serve_one = move |peer: NodeId, bytes: &[u8]| {
        contacts.heard(peer);
        let (budget_ms, ask) = decode::<(u64, Ask)>(bytes)?;
        let told = answer(ask, Instant::now() + Duration::from_millis(budget_ms));
        Some(async move { encode(&told.await) })
    };
    asking::serve(links, serve_one).await;
}
