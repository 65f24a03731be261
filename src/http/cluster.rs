//! The cluster, the conflicts of `ap`, and the faults in force.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;
use axum::http::request::Parts;

use super::caller::Caller;
use super::described::{
    ConflictProblems, ConflictsProblems, FaultsProblems, NodeProblems, PageParams, SetFaultsProblems, TimeoutParam,
};
use super::params::Params;
use super::reply::{Rejection, failed, json, node_failure, not_enabled};
use super::rights::admin_only;
use super::{Shared, body, levels};
use crate::cluster::{ClusterStatus, Faults, LinkFault, NodeStatus, PeerFaults, PeerState, Role};
use crate::model::conflict::ConflictRecord;
use crate::model::ident::RecordId;
use crate::model::query::{PAGE_LIMIT_DEFAULT, PAGE_LIMIT_MAX};
use crate::registry::Reason;
use crate::wire::cluster::{
    AcknowledgedBody, ApBody, ClusterBody, ConflictBody, ConflictsBody, FaultsBody, LinkFaultBody, NodeBody,
    PeerFaultsBody, ProbeBody, StrangersBody,
};
use crate::wire::path::unquote;
use crate::wire::status::{Certainty, Code};
use crate::wire::write;

const FAULTS_OFF: &str = "faults are off; they are there on a server started with --enable-faults";
/// As many conflict records as a node keeps at most.
const RECORDS_MAX: usize = 100_000;
/// The longest delay that a fault may add, in milliseconds.
const DELAY_MS_MAX: u64 = 60_000;

/// Tells of the cluster as this node sees it.
#[utoipa::path(get, path = "/v1/cluster", tag = "cluster",
    params(TimeoutParam),
    responses(
        (status = 200, description = "The cluster.", body = ClusterBody),
        NodeProblems,
    ))]
pub async fn status(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let (parts, _) = request.into_parts();
    match levels::deadline_alone(&parts) {
        Ok(_) => json(200, write::bytes(1_024, &cluster_body(shared.state.cluster.status()))),
        Err(rejection) => rejection.respond(&parts.method),
    }
}

/// Lists the conflict records that this node knows, oldest first, a page at a time.
#[utoipa::path(get, path = "/v1/ap/conflicts", tag = "conflicts",
    params(PageParams, TimeoutParam),
    responses(
        (status = 200, description = "One page.", body = ConflictsBody),
        ConflictsProblems,
    ))]
pub async fn conflicts(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let (parts, _) = request.into_parts();
    let read = || {
        let mut params = Params::parse(parts.uri.query(), &["after", "limit", "timeout_ms"])?;
        levels::deadline(&mut params, Instant::now())?;
        let limit = params.number("limit", 1, PAGE_LIMIT_MAX as u64)?;
        let after = params.parsed("after", str::parse::<RecordId>)?;
        Ok::<_, Rejection>((after, limit.map_or(PAGE_LIMIT_DEFAULT, |limit| limit as usize)))
    };
    let (after, limit) = match read() {
        Ok(read) => read,
        Err(rejection) => return rejection.respond(&parts.method),
    };
    // One more than asked for tells whether there is a next page.
    let mut records = match shared.state.cluster.conflicts(after.as_ref(), limit + 1) {
        Ok(records) => records,
        Err(reason) => return node_failure(&reason),
    };
    let more = records.len() > limit;
    records.truncate(limit);
    let next = records.last().filter(|_| more).map(|record| record.id.to_string());
    let caller = Caller::of(&parts);
    let may_read = |record: &&ConflictRecord| caller.may_read(record.name.as_str());
    let conflicts = records.iter().filter(may_read).map(ConflictBody::of).collect();
    json(200, write::bytes(1_024, &ConflictsBody { conflicts, next }))
}

/// Acknowledges a conflict record on behalf of its loser. Doing so again does no harm.
#[utoipa::path(post, path = "/v1/ap/conflicts/{id}/ack", tag = "conflicts",
    params(("id" = String, Path, description = "The record's id."), TimeoutParam),
    responses(
        (status = 200, description = "Acknowledged.", body = AcknowledgedBody),
        ConflictProblems,
    ))]
pub async fn acknowledge(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let (parts, _) = request.into_parts();
    let read = || {
        levels::deadline_alone(&parts)?;
        let quoted = parts.uri.path().rsplit('/').nth(1).unwrap_or_default();
        let id = unquote(quoted).map_err(|why| Rejection::malformed(format!("the path cannot be read: {why}")))?;
        id.parse::<RecordId>().map_err(Rejection::ident)
    };
    let id = match read() {
        Ok(id) => id,
        Err(rejection) => return rejection.respond(&parts.method),
    };
    let acknowledged = match may_acknowledge(&shared, &parts, &id) {
        Ok(Ok(())) => shared.state.cluster.acknowledge_conflict(&id),
        Ok(Err(rejection)) => return rejection.respond(&parts.method),
        Err(reason) => Err(reason),
    };
    match acknowledged {
        Ok(true) => json(200, write::bytes(32, &AcknowledgedBody { acknowledged: true })),
        Ok(false) => {
            let detail = "this node knows no conflict record of that id".into();
            Rejection { code: Code::NotFound, detail }.respond(&parts.method)
        }
        Err(reason) => failed(&reason, Certainty::NotApplied),
    }
}

/// A record is for those to acknowledge who may write its name. Fails if this node cannot tell which name that is.
fn may_acknowledge(shared: &Shared, parts: &Parts, id: &RecordId) -> Result<Result<(), Rejection>, Reason> {
    let caller = Caller::of(parts);
    if caller.is_admin() {
        return Ok(Ok(()));
    }
    let records = shared.state.cluster.conflicts(None, RECORDS_MAX)?;
    Ok(match records.iter().find(|record| record.id == *id) {
        Some(record) if !caller.may_write(record.name.as_str()) => {
            Err(Rejection::forbidden("write", record.name.as_str()))
        }
        Some(_) | None => Ok(()),
    })
}

/// Tells which faults are in force at this node.
#[utoipa::path(get, path = "/v1/faults", tag = "faults",
    params(TimeoutParam),
    responses(
        (status = 200, description = "The faults in force.", body = FaultsBody),
        FaultsProblems,
    ))]
pub async fn faults(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let (parts, _) = request.into_parts();
    match (levels::deadline_alone(&parts), shared.state.cluster.faults()) {
        (Err(rejection), _) => rejection.respond(&parts.method),
        (Ok(_), Some(faults)) => faults_in_force(faults),
        (Ok(_), None) => not_enabled(&parts.method, FAULTS_OFF),
    }
}

/// Puts these faults, and no others, in force at this node.
#[utoipa::path(put, path = "/v1/faults", tag = "faults", request_body = FaultsBody,
    params(TimeoutParam),
    responses(
        (status = 200, description = "The faults in force now.", body = FaultsBody),
        SetFaultsProblems,
    ))]
pub async fn set_faults(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    if shared.state.cluster.faults().is_none() {
        return not_enabled(&parts.method, FAULTS_OFF);
    }
    let read = async {
        let deadline = levels::deadline_alone(&parts)?;
        admin_only(&parts)?;
        let sent = body::read(body, deadline).await?;
        wanted_faults(body::json(&sent)?)
    };
    match read.await {
        Ok(faults) if shared.state.cluster.set_faults(faults.clone()) => faults_in_force(faults),
        Ok(_) => not_enabled(&parts.method, FAULTS_OFF),
        Err(rejection) => rejection.respond(&parts.method),
    }
}

/// Heals all faults at this node.
#[utoipa::path(delete, path = "/v1/faults", tag = "faults",
    params(TimeoutParam),
    responses(
        (status = 200, description = "No faults are in force now.", body = FaultsBody),
        FaultsProblems,
    ))]
pub async fn clear_faults(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let (parts, _) = request.into_parts();
    match levels::deadline_alone(&parts).and_then(|_| admin_only(&parts)) {
        Err(rejection) => rejection.respond(&parts.method),
        Ok(()) if shared.state.cluster.set_faults(Faults::default()) => faults_in_force(Faults::default()),
        Ok(()) => not_enabled(&parts.method, FAULTS_OFF),
    }
}

/// Asks every peer for a sign of life, over TCP and UDP, through the faults in force.
#[utoipa::path(get, path = "/v1/faults/probe", tag = "faults",
    params(TimeoutParam),
    responses(
        (status = 200, description = "Which peers answered.", body = BTreeMap<u64, ProbeBody>),
        FaultsProblems,
    ))]
pub async fn probe(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let (parts, _) = request.into_parts();
    let deadline = match (levels::deadline_alone(&parts), shared.state.cluster.faults()) {
        (Err(rejection), _) => return rejection.respond(&parts.method),
        (Ok(_), None) => return not_enabled(&parts.method, FAULTS_OFF),
        (Ok(deadline), Some(_)) => deadline,
    };
    let peers = shared.state.cluster.probe(deadline).await;
    let peers: BTreeMap<_, _> =
        peers.into_iter().map(|(peer, probe)| (peer, ProbeBody { tcp: probe.tcp, udp: probe.udp })).collect();
    json(200, write::bytes(256, &peers))
}

fn faults_in_force(faults: Faults) -> Response<Body> {
    let link = |fault: LinkFault| LinkFaultBody { drop: fault.drop, delay_ms: fault.delay_ms, loss: fault.loss };
    let peers = faults.peers.into_iter().map(|(peer, faults)| {
        (peer, PeerFaultsBody { outgoing: link(faults.outgoing), incoming: link(faults.incoming) })
    });
    json(200, write::bytes(256, &FaultsBody { peers: peers.collect() }))
}

fn wanted_faults(sent: FaultsBody) -> Result<Faults, Rejection> {
    let link = |fault: LinkFaultBody| {
        if !(0.0..=1.0).contains(&fault.loss) {
            return Err(Rejection::wrong_shape("loss lies between 0 and 1"));
        }
        if fault.delay_ms > DELAY_MS_MAX {
            return Err(Rejection::wrong_shape("delay_ms is 60,000 at most"));
        }
        Ok(LinkFault { drop: fault.drop, delay_ms: fault.delay_ms, loss: fault.loss })
    };
    let peers = sent.peers.into_iter().map(|(peer, faults)| {
        Ok((peer, PeerFaults { outgoing: link(faults.outgoing)?, incoming: link(faults.incoming)? }))
    });
    Ok(Faults { peers: peers.collect::<Result<_, _>>()? })
}

fn cluster_body(status: ClusterStatus) -> ClusterBody {
    ClusterBody {
        cluster: status.cluster,
        node: status.node,
        version: status.version,
        leader: status.leader,
        term: status.term,
        applied: status.applied,
        committed: status.committed,
        ap: ApBody {
            names: status.ap.names,
            members: status.ap.members,
            digest: status.ap.digest,
            run: status.ap.run,
            conflicts: status.ap.conflicts,
        },
        nodes: status.nodes.into_iter().map(node_body).collect(),
        strangers: StrangersBody {
            connections: status.strangers.connections,
            last: status.strangers.last,
            datagrams: status.strangers.datagrams,
            replayed: status.strangers.replayed,
        },
    }
}

fn node_body(node: NodeStatus) -> NodeBody {
    let role = match node.role {
        Role::Leader => "leader",
        Role::Voter => "voter",
        Role::Learner => "learner",
    };
    let state = match node.state {
        PeerState::Me => "me",
        PeerState::Alive => "alive",
        PeerState::Suspect => "suspect",
        PeerState::Down => "down",
        PeerState::Unknown => "unknown",
    };
    NodeBody {
        id: node.id,
        peer: node.peer,
        http: node.http,
        role: role.to_owned(),
        state: state.to_owned(),
        refused: node.refused,
    }
}
