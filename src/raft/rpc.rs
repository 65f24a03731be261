//! What Raft nodes say to each other, in bytes, and the side that answers.
//!
//! A connection carries requests one after another, each answered before the next; a connection per purpose keeps heartbeats and
//! votes from queueing behind a megabyte of log. Log entries are laid out as on disk, so that a follower's entries share the bytes
//! of the frame they came in.

use std::io;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::contact::Contacts;
use super::keys::{self, Damage};
use super::snapshot::{Draft, SnapshotData, SnapshotStore};
use super::types::{LogId, Raft, Snapshot, SnapshotMeta, TypeConfig, Vote};
use crate::net::link::Link;

/// How messages are written. Another number is refused.
pub const RPC_VERSION: u8 = 1;

const KIND_APPEND: u8 = 1;
const KIND_OTHER: u8 = 2;
const KIND_PIECE: u8 = 3;

/// A request from one node's Raft to another's.
pub enum Request {
    Append(AppendEntriesRequest<TypeConfig>),
    Other(Small),
    /// The next piece of the snapshot that was announced on this connection. Only the last one is answered.
    Piece(Bytes),
}

/// The requests that carry no entries.
#[derive(Serialize, Deserialize)]
pub enum Small {
    Vote(VoteRequest<TypeConfig>),
    PreVote(VoteRequest<TypeConfig>),
    Transfer(TransferLeaderRequest<TypeConfig>),
    /// So many pieces follow.
    Snapshot {
        vote: Vote,
        meta: SnapshotMeta,
        pieces: u32,
    },
}

#[derive(Serialize, Deserialize)]
pub enum Response {
    Append(AppendEntriesResponse<TypeConfig>),
    Vote(VoteResponse<TypeConfig>),
    Transfer(TransferLeaderResponse<TypeConfig>),
    Snapshot(SnapshotResponse<TypeConfig>),
    /// No answer is to be had now; why, for the log.
    Unwilling(String),
}

#[derive(Serialize, Deserialize)]
struct AppendHead {
    vote: Vote,
    prev: Option<LogId>,
    commit: Option<LogId>,
    first: u64,
    count: u32,
}

/// An AppendEntries request, in bytes.
pub fn encode_append(request: &AppendEntriesRequest<TypeConfig>) -> Vec<u8> {
    let head = AppendHead {
        vote: request.vote,
        prev: request.prev_log_id,
        commit: request.leader_commit,
        first: request.entries.first().map_or(0, |entry| entry.log_id.index()),
        count: request.entries.len() as u32,
    };
    let mut bytes = postcard::to_extend(&head, vec![RPC_VERSION, KIND_APPEND]).expect("it can be encoded");
    for entry in &request.entries {
        let at = bytes.len();
        bytes.put_u32_le(0);
        keys::put_entry(entry, &mut bytes);
        let len = (bytes.len() - at - 4) as u32;
        bytes[at..at + 4].copy_from_slice(&len.to_le_bytes());
    }
    bytes
}

pub fn encode_small(request: &Small) -> Vec<u8> {
    postcard::to_extend(request, vec![RPC_VERSION, KIND_OTHER]).expect("it can be encoded")
}

pub fn encode_piece(piece: &[u8]) -> Vec<u8> {
    [&[RPC_VERSION, KIND_PIECE], piece].concat()
}

pub fn decode_request(mut bytes: Bytes) -> Result<Request, Damage> {
    let damage = |e: postcard::Error| Damage(format!("a Raft message cannot be read: {e}"));
    if bytes.len() < 2 || bytes[0] != RPC_VERSION {
        return Err(Damage("a Raft message is of another version".into()));
    }
    let kind = bytes[1];
    bytes.advance(2);
    match kind {
        KIND_APPEND => {
            let (head, rest) = postcard::take_from_bytes::<AppendHead>(&bytes).map_err(damage)?;
            let mut rest = bytes.slice(bytes.len() - rest.len()..);
            let mut entries = Vec::with_capacity((head.count as usize).min(rest.len() / 13 + 1));
            for at in 0..u64::from(head.count) {
                let short = || Damage("a Raft message is cut short".into());
                let len = if rest.len() < 4 { return Err(short()) } else { rest.get_u32_le() as usize };
                if rest.len() < len {
                    return Err(short());
                }
                entries.push(keys::get_entry(head.first + at, rest.split_to(len))?);
            }
            Ok(Request::Append(AppendEntriesRequest {
                vote: head.vote,
                prev_log_id: head.prev,
                entries,
                leader_commit: head.commit,
            }))
        }
        KIND_OTHER => postcard::from_bytes(&bytes).map(Request::Other).map_err(damage),
        KIND_PIECE => Ok(Request::Piece(bytes)),
        kind => Err(Damage(format!("a Raft message is of an unknown kind, {kind}"))),
    }
}

pub fn encode_response(response: &Response) -> Vec<u8> {
    postcard::to_extend(response, vec![RPC_VERSION]).expect("it can be encoded")
}

pub fn decode_response(bytes: &[u8]) -> Result<Response, Damage> {
    match bytes.split_first() {
        Some((&RPC_VERSION, rest)) => {
            postcard::from_bytes(rest).map_err(|e| Damage(format!("a Raft answer cannot be read: {e}")))
        }
        _ => Err(Damage("a Raft answer is of another version".into())),
    }
}

/// Answers the peers' Raft messages.
#[derive(Clone)]
pub struct RpcServer {
    pub raft: Raft,
    pub contacts: Arc<Contacts>,
    /// Where a leader's snapshot goes as it comes.
    pub snapshots: Arc<SnapshotStore>,
    /// Until then this node, having just started, neither votes nor pre-votes: a leader that it acknowledged before the
    /// restart may still count on its lease.
    pub guarded_until: Option<Instant>,
}

impl RpcServer {
    /// Serves every connection of one purpose, until the node stops.
    pub async fn serve(self, mut links: mpsc::Receiver<Link>) {
        let mut open = tokio::task::JoinSet::new();
        while let Some(link) = links.recv().await {
            open.spawn(self.clone().serve_link(link));
            while open.try_join_next().is_some() {}
        }
    }

    async fn serve_link(self, mut link: Link) {
        let mut arriving = None;
        loop {
            let Ok(bytes) = link.reader.recv().await else { return };
            self.contacts.heard(link.peer);
            let request = match decode_request(bytes) {
                Ok(request) => request,
                Err(e) => return tracing::warn!(peer = link.peer, "{e}"),
            };
            let Some(response) = self.answer(request, &mut arriving).await else { continue };
            if link.writer.send(&encode_response(&response)).await.is_err() {
                return;
            }
        }
    }

    /// None: nothing is to be answered yet.
    async fn answer(&self, request: Request, arriving: &mut Option<Arriving>) -> Option<Response> {
        let unwilling = |e: &dyn std::fmt::Display| Response::Unwilling(e.to_string());
        Some(match request {
            Request::Append(request) => match self.raft.append_entries(request).await {
                Ok(response) => {
                    if !matches!(response, AppendEntriesResponse::HigherVote(_)) {
                        self.contacts.heard_leader();
                    }
                    Response::Append(response)
                }
                Err(e) => unwilling(&e),
            },
            Request::Other(Small::Vote(_) | Small::PreVote(_)) if self.is_guarded() => {
                Response::Unwilling("this node has just started and does not vote yet".into())
            }
            Request::Other(Small::Vote(request)) => match self.raft.vote(request).await {
                Ok(response) => Response::Vote(response),
                Err(e) => unwilling(&e),
            },
            Request::Other(Small::PreVote(request)) => match self.raft.pre_vote(request).await {
                Ok(response) => Response::Vote(response),
                Err(e) => unwilling(&e),
            },
            Request::Other(Small::Transfer(request)) => match self.raft.handle_transfer_leader(request).await {
                Ok(response) => Response::Transfer(response),
                Err(e) => unwilling(&e),
            },
            Request::Other(Small::Snapshot { vote, meta, pieces }) => {
                // One that was cut short on this connection is given up.
                *arriving = None;
                let snapshots = self.snapshots.clone();
                match on_disk(move || snapshots.draft()).await {
                    Ok(draft) => self.arrived(arriving, Arriving { vote, meta, missing: pieces, draft }).await?,
                    Err(e) => unwilling(&e),
                }
            }
            Request::Piece(piece) => {
                let Some(Arriving { vote, meta, missing, mut draft }) = arriving.take() else {
                    return Some(Response::Unwilling("no snapshot was announced".into()));
                };
                match on_disk(move || draft.push(&piece).map(|()| draft)).await {
                    Ok(draft) => self.arrived(arriving, Arriving { vote, meta, missing: missing - 1, draft }).await?,
                    Err(e) => unwilling(&e),
                }
            }
        })
    }

    /// Installs a snapshot whose pieces are all there. None: some are still to come.
    async fn arrived(&self, arriving: &mut Option<Arriving>, arrived: Arriving) -> Option<Response> {
        if arrived.missing > 0 {
            *arriving = Some(arrived);
            return None;
        }
        let snapshot = Snapshot { meta: arrived.meta, snapshot: SnapshotData::Received(Arc::new(arrived.draft)) };
        Some(match self.raft.install_full_snapshot(arrived.vote, snapshot).await {
            Ok(response) => {
                self.contacts.heard_leader();
                Response::Snapshot(response)
            }
            Err(e) => Response::Unwilling(e.to_string()),
        })
    }

    fn is_guarded(&self) -> bool {
        self.guarded_until.is_some_and(|until| Instant::now() < until)
    }
}

/// A snapshot of which pieces are still to come.
struct Arriving {
    vote: Vote,
    meta: SnapshotMeta,
    missing: u32,
    draft: Draft,
}

/// Does what may wait for the disk away from the threads that serve requests.
async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
