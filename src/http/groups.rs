//! Groups: join, leave, members, list.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;

use super::body;
use super::described::{
    AcksParam, EndProblems, EntryProblems, ForwardParam, GroupPath, IncludeParam, JoinProblems, LevelParams,
    ListProblems, MemberPath, PageParams, PrefixParam, RevisionParam, TimeoutParam,
};
use super::mount::{Incoming, Mount};
use super::reply::{Rejection, Shape};
use crate::model::command::Action;
use crate::model::ident::{Group, NodeId};
use crate::model::query::Query;
use crate::wire::body::{EndedBody, GroupsBody, JoinBody, MembersBody, Membership};

const JOIN: [&str; 3] = ["timeout_ms", "forward", "w"];
const LEAVE: [&str; 4] = ["token", "timeout_ms", "forward", "w"];
const MEMBERSHIP: [&str; 7] = ["token", "timeout_ms", "consistency", "r", "min_revision", "include", "forward"];
const MEMBERS: [&str; 9] =
    ["limit", "after", "node", "timeout_ms", "consistency", "r", "min_revision", "include", "forward"];
const LIST: [&str; 8] = ["prefix", "limit", "after", "timeout_ms", "consistency", "r", "min_revision", "forward"];

/// Joins a group. Joining again changes meta and lease at most, and keeps the token.
#[utoipa::path(put, path = "/groups/{group}/members/{member}", tag = "groups", request_body = Option<JoinBody<'_>>,
    params(MemberPath, TimeoutParam, ForwardParam, AcksParam),
    responses(
        (status = 201, description = "A new membership.", body = Membership, headers(("ETag" = String, description = "The revision of the entry, in double quotes."))),
        (status = 200, description = "It had joined already.", body = Membership, headers(("ETag" = String, description = "The revision of the entry, in double quotes."))),
        JoinProblems,
    ))]
pub async fn join(State(mount): State<Arc<Mount>>, request: Request) -> Response<Body> {
    mount.command(request, &JOIN, joining).await
}

fn joining(incoming: &mut Incoming) -> Result<Action, Rejection> {
    incoming.no_conditions()?;
    let (group, member) = (incoming.segment(2)?, incoming.segment(0)?);
    let sent: JoinBody = if incoming.body.is_empty() { JoinBody::default() } else { body::json(&incoming.body)? };
    Ok(Action::Join { group, member, meta: body::meta(sent.meta)?, lease: body::lease(sent.lease)? })
}

/// Ends a membership.
///
/// With a token: that very membership, or nothing if it has ended before. Without: whatever stands there.
#[utoipa::path(delete, path = "/groups/{group}/members/{member}", tag = "groups",
    params(
        MemberPath,
        ("token" = Option<String>, Query, description = "The membership that is to end."),
        TimeoutParam, ForwardParam, AcksParam,
    ),
    responses(
        (status = 200, description = "Ended, now or before.", body = EndedBody),
        EndProblems,
    ))]
pub async fn leave(State(mount): State<Arc<Mount>>, request: Request) -> Response<Body> {
    mount
        .command(request, &LEAVE, |incoming| {
            incoming.no_conditions()?;
            let (group, member) = (incoming.segment(2)?, incoming.segment(0)?);
            Ok(Action::Leave { group, member, token: incoming.token()? })
        })
        .await
}

/// Tells of one membership.
#[utoipa::path(get, path = "/groups/{group}/members/{member}", tag = "groups",
    params(
        MemberPath,
        ("token" = Option<String>, Query, description = "412 unless this is the current membership."),
        TimeoutParam, LevelParams, RevisionParam, IncludeParam, ForwardParam,
    ),
    responses(
        (status = 200, description = "The membership.", body = Membership, headers(("ETag" = String, description = "The revision of the entry, in double quotes."))),
        EntryProblems,
    ))]
pub async fn membership(State(mount): State<Arc<Mount>>, request: Request) -> Response<Body> {
    mount
        .query(request, &MEMBERSHIP, |incoming| {
            let (group, member) = (incoming.segment(2)?, incoming.segment(0)?);
            Ok((Query::Membership { group, member, token: incoming.token()? }, Shape::Plain))
        })
        .await
}

/// Lists a group's members in byte order, a page at a time. A group that nobody joined is empty, not missing.
#[utoipa::path(get, path = "/groups/{group}/members", tag = "groups",
    params(
        GroupPath, PageParams,
        ("node" = Option<String>, Query, description = "Only those who joined at this node: an id, or self."),
        TimeoutParam, LevelParams, RevisionParam, IncludeParam, ForwardParam,
    ),
    responses(
        (status = 200, description = "One page.", body = MembersBody),
        ListProblems,
    ))]
pub async fn members(State(mount): State<Arc<Mount>>, request: Request) -> Response<Body> {
    let me = mount.shared.state.node;
    mount
        .query(request, &MEMBERS, |incoming| {
            let group: Group = incoming.segment(1)?;
            let node = incoming.params.parsed("node", |text| node(text, me))?;
            Ok((Query::Members { group: group.clone(), page: incoming.page()?, node }, Shape::Members(group)))
        })
        .await
}

fn node(text: &str, me: NodeId) -> Result<NodeId, &'static str> {
    match text {
        "self" => Ok(me),
        _ => text.parse().map_err(|_| "it is a node's id, or self"),
    }
}

/// Lists groups that have members, in byte order, a page at a time.
#[utoipa::path(get, path = "/groups", tag = "groups",
    params(PrefixParam, PageParams, TimeoutParam, LevelParams, RevisionParam, ForwardParam),
    responses(
        (status = 200, description = "One page.", body = GroupsBody),
        ListProblems,
    ))]
pub async fn list(State(mount): State<Arc<Mount>>, request: Request) -> Response<Body> {
    mount.query(request, &LIST, |incoming| Ok((Query::Groups { page: incoming.page()? }, Shape::Plain))).await
}
