//! One connection to each peer, over which parcels go out and counts come back.
//!
//! A parcel goes only where a connection stands. A peer that does not answer in time loses its connection: what a cut link held back
//! must not arrive when the message is long stale.

use std::collections::BTreeMap;
use std::future::ready;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, interval, sleep};

use crate::messages::Address;
use crate::model::ident::{Mode, NodeId, Token};
use crate::net::asking::{self, Lateness, Line};
use crate::net::link::Link;
use crate::net::links::{Links, Purpose};

/// Parcels that wait for one connection. More are lost.
const QUEUE_LEN_MAX: usize = 1_024;
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
    open: Arc<RwLock<BTreeMap<NodeId, Line>>>,
}

impl Lines {
    /// Hands a parcel to every peer that can be reached; how many inboxes took it, as far as peers have said so in time.
    pub async fn broadcast(&self, parcel: &Parcel, until: Instant) -> u64 {
        let lines = self.open.read().expect("no panic while held").values().cloned().collect::<Vec<_>>();
        if lines.is_empty() {
            return 0;
        }
        let parcel = Bytes::from(postcard::to_allocvec(parcel).expect("a parcel is plain data"));
        let counts = join_all(lines.iter().map(|line| line.ask(parcel.clone(), until))).await;
        let read = |count: Bytes| postcard::from_bytes::<u64>(&count).ok();
        counts.into_iter().filter_map(|count| count.ok().and_then(read)).sum()
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
                let (line, mut parcels) = asking::line(QUEUE_LEN_MAX);
                lines.open.write().expect("no panic while held").insert(peer, line);
                let _open = Open(&lines, peer);
                parcels.carry(link, Lateness::Fatal, || {}).await;
            }
            Err(error) => tracing::debug!(peer, "dialling for messages: {error}"),
        }
        sleep(Duration::from_millis(REDIAL_MS[failures.min(REDIAL_MS.len() - 1)])).await;
        failures += 1;
    }
}

/// Takes in what peers send; `deliver` tells how many inboxes took a parcel. Parcels of one peer are delivered in the order in which they
/// were sent. Runs until it is aborted.
pub async fn serve(links: mpsc::Receiver<Link>, deliver: impl Fn(Parcel) -> u64 + Clone + Send + Sync + 'static) {
    let answer = move |_: NodeId, bytes: &[u8]| {
        let count = deliver(postcard::from_bytes(bytes).ok()?);
        Some(ready(Bytes::from(postcard::to_allocvec(&count).expect("a number"))))
    };
    asking::serve(links, answer).await;
}
