//! Names: register, whereis, unregister, list.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;

use super::mount::{Incoming, Mount};
use super::reply::{Rejection, Shape};
use super::{body, conditions};
use crate::model::command::Action;
use crate::model::query::Query;
use crate::wire::body::{EndedBody, NameEntry, NamesBody, ProblemBody, RegisterBody};

const REGISTER: [&str; 5] = ["takeover", "token", "timeout_ms", "forward", "w"];
const UNREGISTER: [&str; 4] = ["token", "timeout_ms", "forward", "w"];
const WHEREIS: [&str; 6] = ["token", "timeout_ms", "consistency", "r", "min_revision", "forward"];
const LIST: [&str; 8] = ["prefix", "limit", "after", "timeout_ms", "consistency", "r", "min_revision", "forward"];

/// Registers a name.
///
/// Creates only, unless a condition says otherwise; conditions exclude one another. Registering what the same owner and lease
/// hold already changes its meta at most, and keeps the token.
#[utoipa::path(put, path = "/names/{name}", tag = "names", request_body = RegisterBody<'_>,
    params(
        ("name" = String, Path, description = "1 to 512 bytes, percent-encoded; not . or .."),
        ("takeover" = Option<bool>, Query, description = "Register whoever holds the name."),
        ("token" = Option<String>, Query, description = "Only if that grant still stands; another owner or lease is then a hand-over."),
        ("timeout_ms" = Option<u64>, Query, minimum = 1, maximum = 30_000, description = "2,000 unless given."),
        ("forward" = Option<String>, Query, description = "cp: redirect = answer 307 instead of passing the call on."),
        ("w" = Option<u64>, Query, description = "ap: how many nodes are to have it before the answer."),
        ("if-match" = Option<String>, Header, description = "\"REVISION\": only if the entry is unchanged; *: only if there is one."),
        ("if-none-match" = Option<String>, Header, description = "*: only if there is no entry."),
    ),
    responses(
        (status = 201, description = "A new grant.", body = NameEntry),
        (status = 200, description = "The same owner and lease held it already.", body = NameEntry),
        (status = "default", description = "Refused, or no outcome: see the status table.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub async fn register(State(mount): State<Arc<Mount>>, request: Request) -> Response<Body> {
    mount.command(request, &REGISTER, registration).await
}

fn registration(incoming: &mut Incoming) -> Result<Action, Rejection> {
    let name = incoming.segment(0)?;
    let condition = conditions::of_registration(incoming.mode, &mut incoming.params, &incoming.parts.headers)?;
    let sent: RegisterBody = body::json(&incoming.body)?;
    Ok(Action::Register {
        name,
        owner: sent.owner.parse().map_err(Rejection::ident)?,
        meta: body::meta(sent.meta)?,
        lease: body::lease(sent.lease)?,
        condition,
    })
}

/// Ends a registration.
///
/// With a token: that very grant, or nothing if it has ended before. Without: whatever stands there.
#[utoipa::path(delete, path = "/names/{name}", tag = "names",
    params(
        ("name" = String, Path, description = "1 to 512 bytes, percent-encoded; not . or .."),
        ("token" = Option<String>, Query, description = "The grant that is to end."),
        ("timeout_ms" = Option<u64>, Query, minimum = 1, maximum = 30_000, description = "2,000 unless given."),
        ("forward" = Option<String>, Query, description = "cp: redirect = answer 307 instead of passing the call on."),
        ("w" = Option<u64>, Query, description = "ap: how many nodes are to have it before the answer."),
    ),
    responses(
        (status = 200, description = "Ended, now or before.", body = EndedBody),
        (status = "default", description = "Refused, or no outcome: see the status table.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub async fn unregister(State(mount): State<Arc<Mount>>, request: Request) -> Response<Body> {
    mount
        .command(request, &UNREGISTER, |incoming| {
            incoming.no_conditions()?;
            Ok(Action::Unregister { name: incoming.segment(0)?, token: incoming.token()? })
        })
        .await
}

/// Tells who holds a name.
#[utoipa::path(get, path = "/names/{name}", tag = "names",
    params(
        ("name" = String, Path, description = "1 to 512 bytes, percent-encoded; not . or .."),
        ("token" = Option<String>, Query, description = "412 unless this is the current grant."),
        ("timeout_ms" = Option<u64>, Query, minimum = 1, maximum = 30_000, description = "2,000 unless given."),
        ("consistency" = Option<String>, Query, description = "cp: linearizable (default), leader, stale. ap: local (default), quorum."),
        ("r" = Option<u64>, Query, description = "ap, with consistency=quorum: how many nodes to ask."),
        ("min_revision" = Option<String>, Query, description = "Wait until this node has applied that revision."),
        ("forward" = Option<String>, Query, description = "cp: redirect = answer 307 instead of passing the call on."),
    ),
    responses(
        (status = 200, description = "Who holds it.", body = NameEntry),
        (status = "default", description = "Nobody, or no answer: see the status table.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub async fn whereis(State(mount): State<Arc<Mount>>, request: Request) -> Response<Body> {
    mount
        .query(request, &WHEREIS, |incoming| {
            Ok((Query::Whereis { name: incoming.segment(0)?, token: incoming.token()? }, Shape::Plain))
        })
        .await
}

/// Lists names in byte order, a page at a time.
#[utoipa::path(get, path = "/names", tag = "names",
    params(
        ("prefix" = Option<String>, Query, description = "Only names that begin so."),
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 1_000, description = "100 unless given."),
        ("after" = Option<String>, Query, description = "Only names greater than this one."),
        ("timeout_ms" = Option<u64>, Query, minimum = 1, maximum = 30_000, description = "2,000 unless given."),
        ("consistency" = Option<String>, Query, description = "cp: linearizable (default), leader, stale. ap: local (default), quorum."),
        ("r" = Option<u64>, Query, description = "ap, with consistency=quorum: how many nodes to ask."),
        ("min_revision" = Option<String>, Query, description = "Wait until this node has applied that revision."),
        ("forward" = Option<String>, Query, description = "cp: redirect = answer 307 instead of passing the call on."),
    ),
    responses(
        (status = 200, description = "One page.", body = NamesBody),
        (status = "default", description = "No answer: see the status table.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub async fn list(State(mount): State<Arc<Mount>>, request: Request) -> Response<Body> {
    mount.query(request, &LIST, |incoming| Ok((Query::Names { page: incoming.page()? }, Shape::Names))).await
}
