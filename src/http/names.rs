//! Names: register, whereis, unregister, list.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;

use super::described::{
    AcksParam, EndProblems, EntryProblems, ForwardParam, IncludeParam, LevelParams, ListProblems, NamePath, PageParams,
    PrefixParam, RegisterProblems, RevisionParam, TimeoutParam,
};
use super::mount::{Incoming, Mount};
use super::reply::{Rejection, Shape};
use super::{body, conditions};
use crate::model::command::Action;
use crate::model::query::Query;
use crate::wire::body::{EndedBody, NameEntry, NamesBody, RegisterBody};

const REGISTER: [&str; 5] = ["takeover", "token", "timeout_ms", "forward", "w"];
const UNREGISTER: [&str; 4] = ["token", "timeout_ms", "forward", "w"];
const WHEREIS: [&str; 7] = ["token", "timeout_ms", "consistency", "r", "min_revision", "include", "forward"];
const LIST: [&str; 9] =
    ["prefix", "limit", "after", "timeout_ms", "consistency", "r", "min_revision", "include", "forward"];

/// Registers a name.
///
/// Creates only, unless a condition says otherwise; conditions exclude one another. Registering what the same owner and lease
/// hold already changes its meta at most, and keeps the token.
#[utoipa::path(put, path = "/names/{name}", tag = "names", request_body = RegisterBody<'_>,
    params(
        NamePath,
        ("takeover" = Option<bool>, Query, description = "Register whoever holds the name."),
        ("token" = Option<String>, Query, description = "Only if that grant still stands; another owner or lease is then a hand-over."),
        TimeoutParam, ForwardParam, AcksParam,
        ("if-match" = Option<String>, Header, description = "\"REVISION\": only if the entry is unchanged; *: only if there is one."),
        ("if-none-match" = Option<String>, Header, description = "*: only if there is no entry."),
    ),
    responses(
        (status = 201, description = "A new grant.", body = NameEntry, headers(("ETag" = String, description = "The revision of the entry, in double quotes."))),
        (status = 200, description = "The same owner and lease held it already.", body = NameEntry, headers(("ETag" = String, description = "The revision of the entry, in double quotes."))),
        RegisterProblems,
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
        NamePath,
        ("token" = Option<String>, Query, description = "The grant that is to end."),
        TimeoutParam, ForwardParam, AcksParam,
    ),
    responses(
        (status = 200, description = "Ended, now or before.", body = EndedBody),
        EndProblems,
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
        NamePath,
        ("token" = Option<String>, Query, description = "412 unless this is the current grant."),
        TimeoutParam, LevelParams, RevisionParam, IncludeParam, ForwardParam,
    ),
    responses(
        (status = 200, description = "Who holds it.", body = NameEntry, headers(("ETag" = String, description = "The revision of the entry, in double quotes."))),
        EntryProblems,
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
    params(PrefixParam, PageParams, TimeoutParam, LevelParams, RevisionParam, IncludeParam, ForwardParam),
    responses(
        (status = 200, description = "One page.", body = NamesBody),
        ListProblems,
    ))]
pub async fn list(State(mount): State<Arc<Mount>>, request: Request) -> Response<Body> {
    mount.query(request, &LIST, |incoming| Ok((Query::Names { page: incoming.page()? }, Shape::Names))).await
}
