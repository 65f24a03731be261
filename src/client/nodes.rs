//! Changes of the cluster: one request each, and by a client that finds a server which can make them.

use std::time::Duration;

use hyper::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::call::{Caller, Cause, CommandError, within};
use super::client::Client;
use super::error::Error;
use super::judge;
use super::request::{self, Prepared};
use crate::model::ident::NodeId;
use crate::wire::cluster::{LeaderBody, MemberBody, NewNodeBody, RemovedBody, SnapshotBody, TransferBody};

/// One change, to be asked for as often as it takes: each may be sent again without harm.
#[derive(Debug)]
struct Change<B> {
    method: Method,
    /// It ends where a parameter may follow.
    path: String,
    body: Option<B>,
}

impl<B: Serialize> Change<B> {
    fn prepared(&self, timeout: Duration) -> Prepared {
        request::plain(self.method.clone(), &self.path, self.body.as_ref(), timeout)
    }
}

fn add(id: NodeId, peer: &str) -> Change<NewNodeBody> {
    let body = NewNodeBody { id, peer: peer.to_owned() };
    Change { method: Method::POST, path: "/v1/cluster/nodes?".to_owned(), body: Some(body) }
}

fn promote(id: NodeId) -> Change<()> {
    Change { method: Method::POST, path: format!("/v1/cluster/nodes/{id}/promote?"), body: None }
}

fn remove(id: NodeId) -> Change<()> {
    Change { method: Method::DELETE, path: format!("/v1/cluster/nodes/{id}?"), body: None }
}

fn transfer(to: Option<NodeId>) -> Change<TransferBody> {
    Change { method: Method::POST, path: "/v1/cluster/transfer-leader?".to_owned(), body: Some(TransferBody { to }) }
}

fn snapshot() -> Change<()> {
    Change { method: Method::POST, path: "/v1/cluster/snapshot?".to_owned(), body: None }
}

/// Each may be sent again without harm.
impl Caller {
    /// Adds a node, as a learner, that its peers reach at HOST:PORT.
    pub async fn add_node(&self, id: NodeId, peer: &str, timeout: Duration) -> Result<MemberBody, CommandError> {
        self.change(add(id, peer).prepared(timeout), timeout).await
    }

    /// Gives a learner that has caught up a vote.
    pub async fn promote_node(&self, id: NodeId, timeout: Duration) -> Result<MemberBody, CommandError> {
        self.change(promote(id).prepared(timeout), timeout).await
    }

    /// Removes a node for good.
    pub async fn remove_node(&self, id: NodeId, timeout: Duration) -> Result<RemovedBody, CommandError> {
        self.change(remove(id).prepared(timeout), timeout).await
    }

    /// Has this voter lead, or whichever is best prepared.
    pub async fn transfer_leader(&self, to: Option<NodeId>, timeout: Duration) -> Result<LeaderBody, CommandError> {
        self.change(transfer(to).prepared(timeout), timeout).await
    }

    /// Has the node write its `cp` table to disk now.
    pub async fn take_snapshot(&self, timeout: Duration) -> Result<SnapshotBody, CommandError> {
        self.change(snapshot().prepared(timeout), timeout).await
    }

    async fn change<T: DeserializeOwned>(&self, prepared: Prepared, timeout: Duration) -> Result<T, CommandError> {
        judge::change(&self.exchange(prepared, &within(timeout)).await?)
    }
}

/// Changes of the cluster. Any server takes them, and each may be asked for again without harm. The cluster's no is told at once, also one
/// that may pass (a learner has yet to catch up): [`Error::NotApplied`] with [`Cause::Rejected`].
impl Client {
    /// Adds a node, as a learner, that its peers reach at HOST:PORT. Its id was never used before.
    pub async fn add_node(&self, id: NodeId, peer: &str) -> Result<MemberBody, Error> {
        self.change(&add(id, peer)).await
    }

    /// Gives a learner a vote, once it has caught up.
    pub async fn promote_node(&self, id: NodeId) -> Result<MemberBody, Error> {
        self.change(&promote(id)).await
    }

    /// Removes a node for good: its id never returns.
    pub async fn remove_node(&self, id: NodeId) -> Result<RemovedBody, Error> {
        self.change(&remove(id)).await
    }

    /// Has this voter lead, or whichever is best prepared.
    pub async fn transfer_leader(&self, to: impl Into<Option<NodeId>>) -> Result<LeaderBody, Error> {
        self.change(&transfer(to.into())).await
    }

    /// Has the server that answers write its `cp` table to disk now.
    pub async fn take_snapshot(&self) -> Result<SnapshotBody, Error> {
        self.change(&snapshot()).await
    }

    async fn change<T: DeserializeOwned>(&self, change: &Change<impl Serialize>) -> Result<T, Error> {
        let mut tries = self.tries(true);
        loop {
            let (caller, options) = self.next(&tries);
            let result = caller.change(change.prepared(options.timeout), options.timeout).await;
            if let Err(CommandError::NotApplied(Cause::Rejected { .. })) = &result {
                return Ok(result?);
            }
            if let Some(ended) = tries.end(result).await {
                return Ok(ended?);
            }
        }
    }
}
