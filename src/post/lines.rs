//! One connection to each peer, over which parcels go out and counts come back.
//!
//! A parcel goes only where a connection stands. A peer that does not answer in time loses its connection: what a cut link held back
//! must not arrive when the message is long stale.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, interval, sleep, timeout_at};

use crate::messages::Address;
use crate::model::ident::{Mode, NodeId, Token};
use crate::net::link::{Link, LinkReader, LinkWriter};
use crate::net::links::{Links, Purpose};

/// Parcels that wait for one connection. More are lost.
const QUEUE_LEN_MAX: usize = 1_024;
/// Parcels or counts that go out in one write.
const BATCH_LEN_MAX: usize = 64;
/// Parcels of one peer that are being delivered at once. More wait in the connection.
const DELIVERING_MAX: usize = 256;
/// The pauses between dials: short first, for most peers are away only as long as a restart takes.
const REDIAL_MS: [u64; 4] = [50, 100, 250, 1_000];
/// How often the members are looked at.
const MEMBERS_PERIOD: Duration = Duration::from_secs(1);

/// One message with those of its receivers that fit one parcel.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parcel {
    pub mode: Mode,
    pub to: Address,
    pub text: Arc<str>,
    /// Owners (members) and the grants by which they get it.
    pub receivers: Vec<(String, Token)>,
}

/// The lines to all peers. Clones share them.
#[derive(Clone, Default)]
pub struct Lines {
    open: Arc<RwLock<BTreeMap<NodeId, mpsc::Sender<Outgoing>>>>,
}

struct Outgoing {
    parcel: Bytes,
    /// Told how many inboxes took it. Dropped: not known.
    count: oneshot::Sender<u64>,
    until: Instant,
}

impl Lines {
    /// Hands a parcel to every peer that can be reached; how many inboxes took it, as far as peers have said so in time.
    pub async fn broadcast(&self, parcel: &Parcel, until: Instant) -> u64 {
        let lines = self.open.read().expect("no panic while held").values().cloned().collect::<Vec<_>>();
        if lines.is_empty() {
            return 0;
        }
        let parcel = Bytes::from(postcard::to_allocvec(parcel).expect("a parcel is plain data"));
        let mut counts = Vec::with_capacity(lines.len());
        for line in lines {
            let (count, counted) = oneshot::channel();
            if line.try_send(Outgoing { parcel: parcel.clone(), count, until }).is_ok() {
                counts.push(counted);
            }
        }
        let mut taken = 0;
        for counted in counts {
            if let Ok(Ok(count)) = timeout_at(until, counted).await {
                taken += count;
            }
        }
        taken
    }

    /// Keeps a line to each member that `members` tells of (this node's own id is left out). Runs until it is aborted.
    pub async fn keep(self, links: Links, members: impl Fn() -> BTreeMap<NodeId, String>) {
        let me = links.identity().node;
        let mut keepers = BTreeMap::<NodeId, (String, Keeper)>::new();
        let mut look = interval(MEMBERS_PERIOD);
        loop {
            look.tick().await;
            let members = members();
            keepers.retain(|id, (addr, _)| members.get(id) == Some(addr));
            for (id, addr) in members {
                if id != me && !keepers.contains_key(&id) {
                    let task = keep_line(self.clone(), links.clone(), id, addr.clone());
                    keepers.insert(id, (addr, Keeper(tokio::spawn(task).abort_handle())));
                }
            }
        }
    }
}

/// A line's task, ended with its keeper.
struct Keeper(AbortHandle);

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Where a line stands in [`Lines::open`], as long as it does.
struct Open<'l>(&'l Lines, NodeId);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.write().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

async fn keep_line(lines: Lines, links: Links, peer: NodeId, addr: String) {
    let mut failures = 0;
    loop {
        // A dial over a cut link takes until the link is mended; so it is one that needs no deadline.
        match links.dial(peer, &addr, Purpose::Messages).await {
            Ok(link) => {
                failures = 0;
                let (queue, parcels) = mpsc::channel(QUEUE_LEN_MAX);
                lines.open.write().expect("no panic while held").insert(peer, queue);
                let _open = Open(&lines, peer);
                serve_line(link, parcels).await;
            }
            Err(error) => tracing::debug!(peer, "dialling for messages: {error}"),
        }
        sleep(Duration::from_millis(REDIAL_MS[failures.min(REDIAL_MS.len() - 1)])).await;
        failures += 1;
    }
}

type Unanswered = Arc<Mutex<HashMap<u64, (oneshot::Sender<u64>, Instant)>>>;

/// Sends parcels until the connection breaks or owes an answer.
async fn serve_line(link: Link, mut parcels: mpsc::Receiver<Outgoing>) {
    let Link { peer, reader, mut writer, .. } = link;
    let unanswered = Unanswered::default();
    let mut reading = JoinSet::new();
    reading.spawn(read_counts(reader, unanswered.clone()));
    let mut next_id = 0u64;
    let mut batch = Vec::new();
    let mut check = interval(Duration::from_millis(200));
    loop {
        tokio::select! {
            got = parcels.recv_many(&mut batch, BATCH_LEN_MAX) => if got == 0 { return },
            _ = reading.join_next() => return,
            _ = check.tick() => {
                let now = Instant::now();
                let owed = unanswered.lock().expect("no panic while held").values().any(|(_, until)| *until < now);
                if owed {
                    return tracing::debug!(peer, "a parcel was not answered: the connection is given up");
                }
            }
        }
        let mut payloads = Vec::with_capacity(2 * batch.len());
        for Outgoing { parcel, count, until } in batch.drain(..) {
            next_id += 1;
            unanswered.lock().expect("no panic while held").insert(next_id, (count, until));
            payloads.extend([Bytes::copy_from_slice(&next_id.to_le_bytes()), parcel]);
        }
        if !payloads.is_empty() && writer.send_all(&payloads).await.is_err() {
            return;
        }
    }
}

async fn read_counts(mut reader: LinkReader, unanswered: Unanswered) {
    while let Ok(bytes) = reader.recv().await {
        let Ok((id, count)) = postcard::from_bytes::<(u64, u64)>(&bytes) else { return };
        if let Some((counted, _)) = unanswered.lock().expect("no panic while held").remove(&id) {
            let _ = counted.send(count);
        }
    }
}

/// Takes in what peers send; `deliver` tells how many inboxes took a parcel. Runs until it is aborted.
pub async fn serve(mut links: mpsc::Receiver<Link>, deliver: impl Fn(Parcel) -> u64 + Clone + Send + 'static) {
    let mut open = JoinSet::new();
    while let Some(link) = links.recv().await {
        open.spawn(serve_peer(link, deliver.clone()));
        while open.try_join_next().is_some() {}
    }
}

async fn serve_peer(link: Link, deliver: impl Fn(Parcel) -> u64) {
    let Link { peer, mut reader, writer, .. } = link;
    let (counts, counted) = mpsc::channel(DELIVERING_MAX);
    let mut writing = JoinSet::new();
    writing.spawn(write_counts(writer, counted));
    loop {
        let Ok(id) = reader.recv().await else { return };
        let Ok(bytes) = reader.recv().await else { return };
        let (Ok(id), Ok(parcel)) = (<[u8; 8]>::try_from(&id[..]), postcard::from_bytes(&bytes)) else {
            return tracing::warn!(peer, "a parcel cannot be read");
        };
        let count = (u64::from_le_bytes(id), deliver(parcel));
        if counts.send(count).await.is_err() {
            return;
        }
    }
}

async fn write_counts(mut writer: LinkWriter, mut counted: mpsc::Receiver<(u64, u64)>) {
    let mut batch = Vec::new();
    while counted.recv_many(&mut batch, BATCH_LEN_MAX).await > 0 {
        let encode = |count: (u64, u64)| Bytes::from(postcard::to_allocvec(&count).expect("two numbers"));
        let payloads = batch.drain(..).map(encode).collect::<Vec<_>>();
        if writer.send_all(&payloads).await.is_err() {
            return;
        }
    }
}
