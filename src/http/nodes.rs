//! Nodes that come and go while the cluster runs, who leads it, snapshots and backups.

use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use axum::http::request::Parts;
use axum::http::{Method, Response};

use super::described::{
    AddNodeProblems, BackupProblems, PromoteProblems, RemoveNodeProblems, SnapshotProblems, TimeoutParam,
    TransferProblems,
};
use super::grace::by;
use super::reply::{Rejection, failed, json, node_failure};
use super::rights::admin_only;
use super::{Shared, body, levels};
use crate::cluster::{Change, ChangeRefusal, Changed, Role};
use crate::model::ident::NodeId;
use crate::registry::{CommandCall, CommandFailure, Reason};
use crate::wire::cluster::{LeaderBody, MemberBody, NewNodeBody, RemovedBody, SnapshotBody, TransferBody};
use crate::wire::status::{Certainty, Code};
use crate::wire::{header, write};

/// The longest peer address, in bytes: a host name has 253 at most.
const PEER_LEN_MAX: usize = 260;

/// Adds a node, as a learner: it gets the log of `cp`, and does not vote. Doing so again does no harm.
#[utoipa::path(post, path = "/v1/cluster/nodes", tag = "cluster", request_body = NewNodeBody,
    params(TimeoutParam),
    responses(
        (status = 201, description = "Added.", body = MemberBody),
        (status = 200, description = "It was there already.", body = MemberBody),
        AddNodeProblems,
    ))]
pub async fn add(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    change(&shared, request, |_, sent| {
        let NewNodeBody { id, peer } = body::json(sent)?;
        Ok(Change::Add { node: node_id(id)?, peer: peer_address(peer)? })
    })
    .await
}

/// Gives a learner a vote, once it has caught up. Doing so again does no harm.
#[utoipa::path(post, path = "/v1/cluster/nodes/{id}/promote", tag = "cluster",
    params(
        ("id" = u64, Path, minimum = 1, description = "The node's id."),
        TimeoutParam,
    ),
    responses(
        (status = 200, description = "It votes.", body = MemberBody),
        PromoteProblems,
    ))]
pub async fn promote(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    change(&shared, request, |path, _| Ok(Change::Promote { node: path_id(path, 1)? })).await
}

/// Removes a node for good: its id never returns. Doing so again does no harm.
///
/// A node that leads hands over first. Refused if too few of the voters that remain are in reach.
#[utoipa::path(delete, path = "/v1/cluster/nodes/{id}", tag = "cluster",
    params(
        ("id" = u64, Path, minimum = 1, description = "The node's id."),
        TimeoutParam,
    ),
    responses(
        (status = 200, description = "It is removed.", body = RemovedBody),
        RemoveNodeProblems,
    ))]
pub async fn remove(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    change(&shared, request, |path, _| Ok(Change::Remove { node: path_id(path, 0)? })).await
}

/// Has a voter lead; the one that is best prepared, unless one is named.
#[utoipa::path(post, path = "/v1/cluster/transfer-leader", tag = "cluster", request_body = Option<TransferBody>,
    params(TimeoutParam),
    responses(
        (status = 200, description = "Who leads now.", body = LeaderBody),
        TransferProblems,
    ))]
pub async fn transfer_leader(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    change(&shared, request, |_, sent| {
        let TransferBody { to } = if sent.is_empty() { TransferBody::default() } else { body::json(sent)? };
        Ok(Change::Lead { node: to.map(node_id).transpose()? })
    })
    .await
}

/// Has the node that answers write its `cp` table to disk now, so that its log can be cut.
#[utoipa::path(post, path = "/v1/cluster/snapshot", tag = "cluster",
    params(TimeoutParam),
    responses(
        (status = 200, description = "It is written.", body = SnapshotBody),
        SnapshotProblems,
    ))]
pub async fn snapshot(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let (parts, _) = request.into_parts();
    let deadline = match deadline(&parts) {
        Ok(deadline) => deadline,
        Err(rejection) => return rejection.respond(&parts.method),
    };
    match by(deadline, Reason::Timeout, shared.state.cluster.take_snapshot(deadline)).await {
        Ok(index) => json(200, write::bytes(64, &SnapshotBody { node: shared.state.node, index })),
        // Begun, perhaps: it does no harm.
        Err(reason) => failed(&reason, Certainty::Unknown),
    }
}

/// Gives out the whole `cp` table at one revision, as new as this call, for `quorate restore`.
#[utoipa::path(get, path = "/v1/cluster/backup", tag = "cluster",
    params(TimeoutParam),
    responses(
        (status = 200, description = "A file that tells by itself whether it is whole.", body = [u8], content_type = "application/octet-stream",
            headers(("Quorate-Revision" = String, description = "The table's revision."))),
        BackupProblems,
    ))]
pub async fn backup(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let (parts, _) = request.into_parts();
    let deadline = match deadline(&parts) {
        Ok(deadline) => deadline,
        Err(rejection) => return rejection.respond(&parts.method),
    };
    match by(deadline, Reason::Timeout, shared.state.cluster.backup(deadline)).await {
        Ok(backup) => {
            let len = backup.pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
            let pieces = futures_util::stream::iter(backup.pieces.into_iter().map(Ok::<_, Infallible>));
            let mut response = Response::new(Body::from_stream(pieces));
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
            headers.insert(CONTENT_LENGTH, HeaderValue::from(len));
            headers.insert(HeaderName::from_static(header::REVISION), HeaderValue::from(backup.revision));
            response
        }
        Err(reason) => node_failure(&reason),
    }
}

/// Carries out the change that `read` makes of the path and the body.
async fn change(
    shared: &Shared,
    request: Request,
    read: impl FnOnce(&str, &[u8]) -> Result<Change, Rejection>,
) -> Response<Body> {
    let (parts, sent) = request.into_parts();
    let reading = async {
        let deadline = deadline(&parts)?;
        let sent = match parts.method {
            Method::DELETE => axum::body::Bytes::new(),
            _ => body::read(sent, deadline).await?,
        };
        Ok::<_, Rejection>((read(parts.uri.path(), &sent)?, deadline))
    };
    let (change, deadline) = match reading.await {
        Ok(read) => read,
        Err(rejection) => return rejection.respond(&parts.method),
    };
    let call = CommandCall { deadline, forward: true, acks: 1 };
    let late = CommandFailure::Unknown(Reason::Timeout);
    match by(deadline, late, shared.state.cluster.change(change, &call)).await {
        Ok(Ok(changed)) => answer(changed),
        Ok(Err(refusal)) => refused(&refusal).respond(&parts.method),
        Err(CommandFailure::NotApplied(reason)) => failed(&reason, Certainty::NotApplied),
        Err(CommandFailure::Unknown(reason)) => failed(&reason, Certainty::Unknown),
    }
}

fn answer(changed: Changed) -> Response<Body> {
    match changed {
        Changed::Member { node, peer, role, now } => {
            let (status, role) = match role {
                Role::Leader => (200, "leader"),
                Role::Voter => (200, "voter"),
                Role::Learner => (if now { 201 } else { 200 }, "learner"),
            };
            json(status, write::bytes(64, &MemberBody { id: node, peer, role: role.to_owned() }))
        }
        Changed::Removed { node, now } => {
            let removed = if now { "now" } else { "before" }.to_owned();
            json(200, write::bytes(64, &RemovedBody { id: node, removed }))
        }
        Changed::Leads { node } => json(200, write::bytes(64, &LeaderBody { leader: node })),
    }
}

fn refused(refusal: &ChangeRefusal) -> Rejection {
    let (code, detail): (_, Cow<'static, str>) = match refusal {
        ChangeRefusal::Unknown { node } => (Code::NodeUnknown, format!("there is no node {node}").into()),
        ChangeRefusal::Removed { node } => {
            (Code::NodeRemoved, format!("node {node} was removed: add a node under an id that was never used").into())
        }
        ChangeRefusal::Exists { node, peer } => (Code::NodeExists, format!("node {node} is at {peer}").into()),
        ChangeRefusal::Behind { node, entries } => {
            (Code::NodeBehind, format!("node {node} lacks {entries} entries of the log, or is out of reach").into())
        }
        ChangeRefusal::QuorumAtRisk { voters, in_reach } => {
            let detail = format!(
                "of {voters} voters only {in_reach} would be in reach, which is no majority: bring nodes back, or remove those that \
                 are gone, first"
            );
            (Code::QuorumAtRisk, detail.into())
        }
        ChangeRefusal::CannotLead { node: Some(node) } => {
            (Code::CannotLead, format!("node {node} is no voter, out of reach, or behind").into())
        }
        ChangeRefusal::CannotLead { node: None } => (Code::CannotLead, "there is no other voter to take over".into()),
        ChangeRefusal::UnderWay => (Code::ChangeUnderWay, "nothing was begun; try again in a moment".into()),
    };
    Rejection { code, detail }
}

/// The deadline of an admin's call.
fn deadline(parts: &Parts) -> Result<Instant, Rejection> {
    let deadline = levels::deadline_alone(parts)?;
    admin_only(parts)?;
    Ok(deadline)
}

/// The node id in the path's segment that is so many from its end.
fn path_id(path: &str, from_end: usize) -> Result<NodeId, Rejection> {
    let text = path.rsplit('/').nth(from_end).unwrap_or_default();
    // As numbers are written in JSON, and no other way: one node has one path.
    let id = text.parse().ok().filter(|id: &NodeId| id.to_string() == text);
    node_id(id.unwrap_or_default())
}

fn node_id(id: u64) -> Result<NodeId, Rejection> {
    if id == 0 { Err(Rejection::malformed("a node's id is a whole number from 1 on")) } else { Ok(id) }
}

fn peer_address(text: String) -> Result<String, Rejection> {
    let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
    let fits = matches!(port, Some(Ok(1..))) && text.len() <= PEER_LEN_MAX;
    let plain = text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b',' | b'=' | b'/' | b'@'));
    if fits && plain { Ok(text) } else { Err(Rejection::malformed("peer is HOST:PORT")) }
}
