//! Leases: create, keep alive one or many, look, list, revoke.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;

use super::body;
use super::caller::Caller;
use super::described::{
    AcksParam, CreateLeaseProblems, ForwardParam, KeepAliveEachProblems, KeepAliveProblems, LeasePath, LeaseProblems,
    LevelParams, ListProblems, PageParams, RevisionParam, RevokeLeaseProblems, TimeoutParam,
};
use super::mount::{Incoming, Mount};
use super::reply::{Rejection, Shape, json};
use crate::model::command::Action;
use crate::model::ident::{CredentialName, IdentError, LeaseId, RecordId};
use crate::model::lease::{KEEP_ALIVE_LEN_MAX, KeptAlive, TTL_MS_MAX, TTL_MS_MIN};
use crate::model::outcome::{Outcome, Refusal};
use crate::model::query::Query;
use crate::registry::{CommandCall, KeepAlive, Reply};
use crate::wire::body::EndedBody;
use crate::wire::lease::{
    self, CreateLeaseBody, KeepAliveBody, KeepAliveEachBody, KeptAliveBody, KeptAliveEachBody, LeaseBody,
    LeaseStatusBody, LeasesBody,
};
use crate::wire::status::Certainty;

const CREATE: [&str; 3] = ["timeout_ms", "forward", "w"];
const REVOKE: [&str; 3] = ["timeout_ms", "forward", "w"];
const KEEP_ALIVE: [&str; 2] = ["timeout_ms", "forward"];
const STATUS: [&str; 5] = ["limit", "after", "timeout_ms", "min_revision", "forward"];
const LIST: [&str; 7] = ["limit", "after", "timeout_ms", "consistency", "r", "min_revision", "forward"];
/// What became of one lease.
type Kept = Result<KeptAlive, Refusal>;
/// How many conflict records one call can say that it has seen.
const SEEN_LEN_MAX: usize = 1_000;

/// Creates a lease: what is bound to it ends with it, unless it is kept alive.
///
/// With an id of the caller's own the call may be repeated: a lease of that id, ttl and credential that lives already is kept
/// alive, and answered with 200.
#[utoipa::path(post, path = "/leases", tag = "leases", request_body = CreateLeaseBody,
    params(TimeoutParam, ForwardParam, AcksParam),
    responses(
        (status = 201, description = "A new lease.", body = LeaseBody),
        (status = 200, description = "It lived already, and was kept alive.", body = LeaseBody),
        CreateLeaseProblems,
    ))]
pub async fn create(State(mount): State<Arc<Mount>>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let (action, call) = match mount.read_command(&parts, body, &CREATE, creation).await {
        Ok(read) => read,
        Err(rejection) => return mount.rejected(&parts.method, &rejection),
    };
    let repeating_is_safe = action.retry_is_safe();
    match mount.execute(action, &call).await {
        Ok(Reply { value: Outcome::LeaseHeld { lease, ttl_ms }, .. }) => {
            // How long it still lives is known only of one that has just been kept alive.
            let keep = KeepAlive { leases: vec![lease.clone()], seen: Vec::new(), by: Caller::of(&parts).acts_as() };
            let kept = mount.keep_alive(keep, &call).await;
            mount.respond(&parts.uri, kept, true, |results, _| match results.first() {
                Some(Ok(kept)) => json(200, lease::created(&lease, ttl_ms, kept.expires_in_ms)),
                Some(Err(refusal)) => mount.refused(refusal, Some(Certainty::NotApplied)),
                None => unreachable!("one result for each lease"),
            })
        }
        result => mount.outcome(&parts.uri, result, repeating_is_safe),
    }
}

fn creation(incoming: &mut Incoming) -> Result<Action, Rejection> {
    incoming.no_conditions()?;
    let sent: CreateLeaseBody = body::json(&incoming.body)?;
    if !(TTL_MS_MIN..=TTL_MS_MAX).contains(&sent.ttl_ms) {
        return Err(Rejection::malformed(format!("ttl_ms has to be from {TTL_MS_MIN} to {TTL_MS_MAX}")));
    }
    Ok(Action::CreateLease {
        lease: body::lease(sent.lease)?,
        ttl_ms: sent.ttl_ms,
        credential: incoming.caller().name(),
    })
}

/// Revokes a lease: it ends, and all that is bound to it, at once. Doing so again does no harm.
#[utoipa::path(delete, path = "/leases/{id}", tag = "leases",
    params(LeasePath, TimeoutParam, ForwardParam, AcksParam),
    responses(
        (status = 200, description = "Ended, now or before.", body = EndedBody),
        RevokeLeaseProblems,
    ))]
pub async fn revoke(State(mount): State<Arc<Mount>>, request: Request) -> Response<Body> {
    mount
        .command(request, &REVOKE, |incoming| {
            incoming.no_conditions()?;
            Ok(Action::RevokeLease { lease: incoming.segment(0)?, by: incoming.caller().acts_as() })
        })
        .await
}

/// Tells of a live lease, with a page of what is bound to it.
#[utoipa::path(get, path = "/leases/{id}", tag = "leases",
    params(LeasePath, PageParams, TimeoutParam, RevisionParam, ForwardParam),
    responses(
        (status = 200, description = "The lease.", body = LeaseStatusBody),
        LeaseProblems,
    ))]
pub async fn status(State(mount): State<Arc<Mount>>, request: Request) -> Response<Body> {
    mount
        .query(request, &STATUS, |incoming| {
            Ok((Query::Lease { lease: incoming.segment(0)?, page: incoming.page()? }, Shape::Plain))
        })
        .await
}

/// Lists live leases in byte order of their ids, a page at a time: the caller's own, or to an admin all.
#[utoipa::path(get, path = "/leases", tag = "leases",
    params(PageParams, TimeoutParam, LevelParams, RevisionParam, ForwardParam),
    responses(
        (status = 200, description = "One page.", body = LeasesBody),
        ListProblems,
    ))]
pub async fn list(State(mount): State<Arc<Mount>>, request: Request) -> Response<Body> {
    mount.query(request, &LIST, |incoming| Ok((Query::Leases { page: incoming.page()? }, Shape::Plain))).await
}

/// Keeps a lease alive: it lives its whole ttl again. Through any node.
#[utoipa::path(post, path = "/leases/{id}/keepalive", tag = "leases", request_body = Option<KeepAliveBody>,
    params(LeasePath, TimeoutParam, ForwardParam),
    responses(
        (status = 200, description = "It lives.", body = KeptAliveBody),
        KeepAliveProblems,
    ))]
pub async fn keep_alive(State(mount): State<Arc<Mount>>, request: Request) -> Response<Body> {
    keep(mount, request, one_lease, |mount, _, results| match results.first() {
        Some(Ok(kept)) => json(200, lease::kept_alive(kept)),
        Some(Err(refusal)) => mount.refused(refusal, Some(Certainty::NotApplied)),
        None => unreachable!("one result for each lease"),
    })
    .await
}

fn one_lease(incoming: &mut Incoming) -> Result<Asked, Rejection> {
    let lease = incoming.segment(1)?;
    let sent: KeepAliveBody =
        if incoming.body.is_empty() { KeepAliveBody::default() } else { body::json(&incoming.body)? };
    Ok((vec![lease], sent.seen))
}

/// Keeps up to 1,000 leases alive, each as if it were alone: one status each, in their order.
#[utoipa::path(post, path = "/leases/keepalive", tag = "leases", request_body = KeepAliveEachBody,
    params(TimeoutParam, ForwardParam),
    responses(
        (status = 200, description = "What became of each.", body = KeptAliveEachBody),
        KeepAliveEachProblems,
    ))]
pub async fn keep_alive_each(State(mount): State<Arc<Mount>>, request: Request) -> Response<Body> {
    keep(mount, request, many_leases, |mount, leases, results| {
        json(200, lease::kept_alive_each(mount.mode, leases, results))
    })
    .await
}

fn many_leases(incoming: &mut Incoming) -> Result<Asked, Rejection> {
    let sent: KeepAliveEachBody = body::json(&incoming.body)?;
    if sent.leases.is_empty() || sent.leases.len() > KEEP_ALIVE_LEN_MAX {
        return Err(Rejection::malformed(format!("leases has to hold 1 to {KEEP_ALIVE_LEN_MAX} ids")));
    }
    let leases = sent.leases.into_iter().map(|id| id.parse().map_err(Rejection::ident)).collect::<Result<_, _>>()?;
    Ok((leases, sent.seen))
}

/// What keeps leases alive: which ones, and the records that need not be told again, as they were sent.
type Asked = (Vec<LeaseId>, Vec<String>);

/// One keep-alive, of one lease or of many: `read` tells which from the request, `write` makes the answer.
async fn keep(
    mount: Arc<Mount>,
    request: Request,
    read: fn(&mut Incoming) -> Result<Asked, Rejection>,
    write: fn(&Mount, &[LeaseId], &[Kept]) -> Response<Body>,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let build = |incoming: &mut Incoming| {
        incoming.no_conditions()?;
        let by: Option<CredentialName> = incoming.caller().acts_as();
        let (leases, seen) = read(incoming)?;
        if seen.len() > SEEN_LEN_MAX {
            return Err(Rejection::malformed(format!("seen may hold {SEEN_LEN_MAX} ids at most")));
        }
        let seen: Result<Vec<RecordId>, IdentError> = seen.into_iter().map(|id| id.parse()).collect();
        Ok(KeepAlive { leases, seen: seen.map_err(Rejection::ident)?, by })
    };
    let read: Result<(KeepAlive, CommandCall), Rejection> = mount.read_command(&parts, body, &KEEP_ALIVE, build).await;
    let (keep, call) = match read {
        Ok(read) => read,
        Err(rejection) => return mount.rejected(&parts.method, &rejection),
    };
    let leases = keep.leases.clone();
    let kept = mount.keep_alive(keep, &call).await;
    mount.respond(&parts.uri, kept, true, |results, _| write(&mount, &leases, results))
}
