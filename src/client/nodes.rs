//! Changes of the cluster, one request each.

use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::call::{Caller, Cause, CommandError, within};
use super::connection::Broken;
use super::judge;
use super::request;
use crate::model::ident::NodeId;
use crate::wire::cluster::{LeaderBody, MemberBody, NewNodeBody, RemovedBody, SnapshotBody, TransferBody};

/// Each may be sent again without harm.
impl Caller {
    /// Adds a node, as a learner, that its peers reach at HOST:PORT.
    pub async fn add_node(&self, id: NodeId, peer: &str, timeout: Duration) -> Result<MemberBody, CommandError> {
        let body = NewNodeBody { id, peer: peer.to_owned() };
        self.change(Method::POST, "/v1/cluster/nodes?", Some(&body), timeout).await
    }

    /// Gives a learner that has caught up a vote.
    pub async fn promote_node(&self, id: NodeId, timeout: Duration) -> Result<MemberBody, CommandError> {
        self.change(Method::POST, &format!("/v1/cluster/nodes/{id}/promote?"), None::<&()>, timeout).await
    }

    /// Removes a node for good.
    pub async fn remove_node(&self, id: NodeId, timeout: Duration) -> Result<RemovedBody, CommandError> {
        self.change(Method::DELETE, &format!("/v1/cluster/nodes/{id}?"), None::<&()>, timeout).await
    }

    /// Has this voter lead, or whichever is best prepared.
    pub async fn transfer_leader(&self, to: Option<NodeId>, timeout: Duration) -> Result<LeaderBody, CommandError> {
        self.change(Method::POST, "/v1/cluster/transfer-leader?", Some(&TransferBody { to }), timeout).await
    }

    /// Has the node write its `cp` table to disk now.
    pub async fn take_snapshot(&self, timeout: Duration) -> Result<SnapshotBody, CommandError> {
        self.change(Method::POST, "/v1/cluster/snapshot?", None::<&()>, timeout).await
    }

    /// The whole `cp` table, as new as this call, for a file. An answer is as long as what is kept in memory for any other may be.
    pub async fn backup(&self, timeout: Duration) -> Result<Bytes, Cause> {
        let prepared = request::plain(Method::GET, "/v1/cluster/backup?", None::<&()>, timeout);
        let answered = self.exchange(prepared, &within(timeout)).await.map_err(Broken::cause)?;
        match answered.status {
            200 => Ok(answered.body),
            _ => Err(judge::plain::<serde_json::Value>(&answered).err().unwrap_or(Cause::Late)),
        }
    }

    /// `path` ends where a parameter may follow.
    async fn change<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
        timeout: Duration,
    ) -> Result<T, CommandError> {
        let prepared = request::plain(method, path, body, timeout);
        judge::change(&self.exchange(prepared, &within(timeout)).await?)
    }
}
