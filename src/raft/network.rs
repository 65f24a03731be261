//! The side of Raft that calls: openraft's network over [`Links`].

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::{BasicNode, OptionalSend};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::contact::Contacts;
use super::rpc::{self, Response, Small};
use super::snapshot::SnapshotData;
use super::types::{Snapshot, TypeConfig, Vote};
use crate::model::ident::NodeId;
use crate::net::link::Link;
use crate::net::links::{Links, Purpose};

/// An AppendEntries is answered when the follower's disk has it. Longer than a slow `fdatasync`, or a slow disk would be taken for a
/// dead peer and be sent everything again.
const REPLICATION_PATIENCE: Duration = Duration::from_secs(2);
/// A snapshot is answered when it is on the follower's disk.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(60);
/// Answers still owed to requests that were given up; beyond that a connection is opened anew.
const OWED_MAX: u32 = 8;

/// A connection on which each request is answered before the next one is sent. Opened when needed.
pub struct Lane {
    links: Links,
    contacts: Arc<Contacts>,
    peer: NodeId,
    addr: String,
    purpose: Purpose,
    /// Only ever used through `&mut`; the lock makes it shareable in openraft's eyes.
    link: Option<std::sync::Mutex<Link>>,
    /// Answers to come for requests that nobody waits for any more. They come in order, so that they can be skipped.
    owed: u32,
}

impl Lane {
    fn new(factory: &NetworkFactory, peer: NodeId, addr: &str, purpose: Purpose) -> Self {
        let (links, contacts) = (factory.links.clone(), factory.contacts.clone());
        Self { links, contacts, peer, addr: addr.to_owned(), purpose, link: None, owed: 0 }
    }

    /// Sends the request and awaits its answer. Cancelling this loses no more than the answer.
    async fn call(&mut self, request: &[u8], patience: Duration) -> Result<Response, RPCError<TypeConfig>> {
        match timeout(patience, self.exchange(request)).await {
            Ok(Ok(Response::Unwilling(why))) => Err(RPCError::Network(NetworkError::from_string(why))),
            Ok(Ok(response)) => Ok(response),
            Ok(Err(e)) => {
                self.link = None;
                Err(e)
            }
            Err(_) => {
                if self.owed > OWED_MAX {
                    self.link = None;
                }
                Err(RPCError::Unreachable(Unreachable::from_string(format!("no answer within {patience:?}"))))
            }
        }
    }

    async fn exchange(&mut self, request: &[u8]) -> Result<Response, RPCError<TypeConfig>> {
        let link = self.open().await?;
        let lost = |e: std::io::Error| RPCError::Network(NetworkError::new(&e));
        // Cancelled in the middle of a frame, the writer takes no more, and the next call opens a new connection.
        link.writer.send(request).await.map_err(lost)?;
        self.owed += 1;
        self.answer().await
    }

    /// The answer to the request that was sent last.
    async fn answer(&mut self) -> Result<Response, RPCError<TypeConfig>> {
        let Some(Ok(link)) = self.link.as_mut().map(std::sync::Mutex::get_mut) else {
            return Err(RPCError::Network(NetworkError::from_string("the connection is gone")));
        };
        loop {
            let bytes = link.reader.recv().await.map_err(|e| RPCError::Network(NetworkError::new(&e)))?;
            self.contacts.heard(self.peer);
            let Some(owed) = self.owed.checked_sub(1) else { return Err(unexpected()) };
            self.owed = owed;
            if owed == 0 {
                return rpc::decode_response(&bytes).map_err(|e| RPCError::Network(NetworkError::new(&e)));
            }
        }
    }

    async fn open(&mut self) -> Result<&mut Link, RPCError<TypeConfig>> {
        if self.link.is_none() {
            let link = self.links.dial(self.peer, &self.addr, self.purpose).await;
            let link = link.map_err(|e| RPCError::Unreachable(Unreachable::from_string(e)))?;
            self.link = Some(std::sync::Mutex::new(link));
            self.owed = 0;
        }
        Ok(self.link.as_mut().expect("just opened").get_mut().expect("never locked"))
    }
}

/// Makes openraft's connections.
pub struct NetworkFactory {
    links: Links,
    contacts: Arc<Contacts>,
    /// One for each peer, shared by all clients: openraft makes a new client for every round of votes.
    elections: HashMap<NodeId, (String, Arc<Mutex<Lane>>)>,
    election_patience: Duration,
}

impl NetworkFactory {
    pub fn new(links: Links, contacts: Arc<Contacts>, election_patience: Duration) -> Self {
        Self { links, contacts, elections: HashMap::new(), election_patience }
    }

    fn client(&mut self, peer: NodeId, node: &BasicNode, purpose: Purpose) -> PeerClient {
        let known = self.elections.get(&peer).filter(|(addr, _)| *addr == node.addr);
        let election = match known {
            Some((_, lane)) => lane.clone(),
            None => {
                let lane = Arc::new(Mutex::new(Lane::new(self, peer, &node.addr, Purpose::Election)));
                self.elections.insert(peer, (node.addr.clone(), lane.clone()));
                lane
            }
        };
        let lane = Lane::new(self, peer, &node.addr, purpose);
        PeerClient { lane, election, election_patience: self.election_patience }
    }
}

impl RaftNetworkFactory<TypeConfig> for NetworkFactory {
    type Network = PeerClient;

    async fn new_client(&mut self, target: NodeId, node: &BasicNode) -> PeerClient {
        self.client(target, node, Purpose::Replication)
    }

    async fn new_heartbeat_client(&mut self, target: NodeId, node: &BasicNode) -> PeerClient {
        self.client(target, node, Purpose::Heartbeat)
    }

    async fn new_snapshot_client(&mut self, target: NodeId, node: &BasicNode) -> PeerClient {
        self.client(target, node, Purpose::Snapshot)
    }
}

/// openraft's way to one peer, for one purpose; votes and transfers go over a connection of their own.
pub struct PeerClient {
    lane: Lane,
    election: Arc<Mutex<Lane>>,
    election_patience: Duration,
}

impl PeerClient {
    /// Elections are timed by openraft; a peer that does not answer within one election timeout has not voted.
    async fn elect(&mut self, request: &Small) -> Result<Response, RPCError<TypeConfig>> {
        let slow = |_| RPCError::Unreachable(Unreachable::from_string("an earlier election still waits for this peer"));
        let mut lane = timeout(self.election_patience, self.election.lock()).await.map_err(slow)?;
        lane.call(&rpc::encode_small(request), self.election_patience).await
    }
}

fn unexpected() -> RPCError<TypeConfig> {
    RPCError::Network(NetworkError::from_string("the answer is to another question"))
}

impl RaftNetworkV2<TypeConfig> for PeerClient {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let patience = match self.lane.purpose {
            Purpose::Heartbeat => option.hard_ttl(),
            _ => REPLICATION_PATIENCE,
        };
        match self.lane.call(&rpc::encode_append(&rpc), patience).await? {
            Response::Append(response) => Ok(response),
            _ => Err(unexpected()),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.elect(&Small::Vote(rpc)).await? {
            Response::Vote(response) => Ok(response),
            _ => Err(unexpected()),
        }
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.elect(&Small::PreVote(rpc)).await? {
            Response::Vote(response) => Ok(response),
            _ => Err(unexpected()),
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.elect(&Small::Transfer(req)).await? {
            Response::Transfer(response) => Ok(response),
            _ => Err(unexpected()),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        tokio::select! {
            sent = self.send_snapshot(vote, snapshot) => {
                if sent.is_err() {
                    // Half a snapshot must not be followed by another on the same connection.
                    self.lane.link = None;
                }
                Ok(sent?)
            }
            closed = cancel => {
                self.lane.link = None;
                Err(StreamingError::Closed(closed))
            }
        }
    }
}

impl PeerClient {
    async fn send_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
    ) -> Result<SnapshotResponse<TypeConfig>, RPCError<TypeConfig>> {
        let pieces = snapshot.snapshot.pieces();
        let mut next = rpc::encode_small(&Small::Snapshot { vote, meta: snapshot.meta, pieces });
        for at in 0..pieces {
            let sending = async {
                let link = self.lane.open().await?;
                link.writer.send(&next).await.map_err(|e| RPCError::Network(NetworkError::new(&e)))
            };
            let late = |_| RPCError::Unreachable(Unreachable::from_string("the peer does not take the snapshot"));
            timeout(REPLICATION_PATIENCE, sending).await.map_err(late)??;
            next = rpc::encode_piece(&piece(&snapshot.snapshot, at).await?);
        }
        match self.lane.call(&next, SNAPSHOT_PATIENCE).await? {
            Response::Snapshot(response) => Ok(response),
            _ => Err(unexpected()),
        }
    }
}

async fn piece(data: &SnapshotData, at: u32) -> Result<bytes::Bytes, RPCError<TypeConfig>> {
    let data = data.clone();
    let read = tokio::task::spawn_blocking(move || data.piece(at)).await;
    let read = read.map_err(|e| RPCError::Network(NetworkError::new(&e)))?;
    read.map_err(|e| RPCError::Network(NetworkError::new(&e)))
}
