//! Messages: to the owner of a name, to the members of a group, and the inboxes in which they arrive.

use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::Response;
use futures_util::stream::{self, Stream};
use serde_json::value::RawValue;

use super::caller::Caller;
use super::described::{
    ForwardParam, GroupPath, InboxProblems, NamePath, OwnerPath, PublishProblems, SendProblems, TimeoutParam,
};
use super::events::InboxEvent;
use super::mount::{Incoming, Mount};
use super::params::Params;
use super::reply::{Rejection, event_stream, json};
use super::{body, levels, streams};
use crate::messages::{Address, Delivery, Inbox, Letter, MESSAGE_LEN_MAX};
use crate::model::ident::{Owner, without_space};
use crate::model::outcome::Refusal;
use crate::wire::message::{GapBody, LetterBody, MessageBody, SentBody};
use crate::wire::sse;
use crate::wire::status::Certainty;
use crate::wire::write;

const SEND: [&str; 2] = ["timeout_ms", "forward"];

/// Sends a message to whoever holds the name. At most once, to the inboxes that are open at that moment, on any node.
#[utoipa::path(post, path = "/names/{name}/messages", tag = "messages", request_body = MessageBody<'_>,
    params(NamePath, TimeoutParam, ForwardParam),
    responses(
        (status = 200, description = "Sent; perhaps nobody was reading.", body = SentBody),
        SendProblems,
    ))]
pub async fn send(State(mount): State<Arc<Mount>>, request: Request) -> Response<Body> {
    deliver(mount, request, |incoming| Ok(Address::Name(incoming.segment(1)?))).await
}

/// Sends a message to every member of the group. At most once, to the inboxes that are open at that moment, on any node.
#[utoipa::path(post, path = "/groups/{group}/messages", tag = "messages", request_body = MessageBody<'_>,
    params(GroupPath, TimeoutParam, ForwardParam),
    responses(
        (status = 200, description = "Published; perhaps nobody was reading.", body = SentBody),
        PublishProblems,
    ))]
pub async fn publish(State(mount): State<Arc<Mount>>, request: Request) -> Response<Body> {
    deliver(mount, request, |incoming| Ok(Address::Group(incoming.segment(1)?))).await
}

async fn deliver(
    mount: Arc<Mount>,
    request: Request,
    address: impl FnOnce(&mut Incoming) -> Result<Address, Rejection>,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let build = |incoming: &mut Incoming| {
        incoming.no_conditions()?;
        let to = address(incoming)?;
        if !incoming.caller().may_write(to.key()) {
            return Err(Rejection::forbidden("write", to.key()));
        }
        let sent: MessageBody = body::json(&incoming.body)?;
        if sent.message.get().len() > MESSAGE_LEN_MAX {
            return Err(Rejection::too_large("a message may have 64 KiB at most"));
        }
        Ok((to, Arc::<str>::from(without_space(sent.message.get()))))
    };
    let ((to, text), call) = match mount.read_command(&parts, body, &SEND, build).await {
        Ok(read) => read,
        Err(rejection) => return mount.rejected(&parts.method, &rejection),
    };
    let sent = mount.send(to, text, &call).await;
    mount.respond(&parts.uri, sent, false, |receivers, _| match receivers {
        Some(receivers) => json(200, write::bytes(32, &SentBody { receivers: *receivers })),
        None => mount.refused(&Refusal::NotFound, Some(Certainty::NotApplied)),
    })
}

/// Opens an inbox: a stream of what is sent, from now on, to names that this owner holds and to groups that it has joined.
///
/// Every open inbox of an owner gets everything. A reader that is too slow loses messages, and is told so where they are missing.
#[utoipa::path(get, path = "/inbox/{owner}", tag = "messages",
    params(OwnerPath, TimeoutParam),
    responses(
        (status = 200, description = "The stream: events `message` (LetterBody) and `gap` (GapBody).", body = InboxEvent, content_type = "text/event-stream"),
        InboxProblems,
    ))]
pub async fn inbox(State(mount): State<Arc<Mount>>, request: Request) -> Response<Body> {
    let arrived = Instant::now();
    let (parts, _) = request.into_parts();
    let read = || {
        let mut params = Params::parse(parts.uri.query(), &["timeout_ms"])?;
        levels::deadline(&mut params, arrived)?;
        Incoming { mode: mount.mode, parts: &parts, params, body: Bytes::new() }.segment::<Owner>(0)
    };
    let owner = match read() {
        Ok(owner) => owner,
        Err(rejection) => return mount.rejected(&parts.method, &rejection),
    };
    let seat = match mount.shared.streams.enter() {
        Ok(seat) => seat,
        Err(rejection) => return mount.rejected(&parts.method, &rejection),
    };
    let inbox = mount.shared.state.messages.open(mount.mode, owner.as_str());
    event_stream(mount.mode, streams::body(seat, arrivals(inbox, Caller::of(&parts))))
}

/// What arrives, as events: that to names and groups which the caller may read.
fn arrivals(inbox: Inbox, caller: Caller) -> impl Stream<Item = Vec<u8>> + Send {
    stream::unfold((inbox, caller), |(mut inbox, caller)| async move {
        loop {
            let event = match inbox.next().await {
                Delivery::Gap(lost) => sse::event("gap", None, &GapBody { lost }),
                Delivery::Letter(letter) if !caller.may_read(letter.to.key()) => continue,
                Delivery::Letter(letter) => sse::event("message", None, &letter_body(&letter)),
            };
            return Some((event, (inbox, caller)));
        }
    })
}

/// What is told of a message that has arrived.
pub fn letter_body(letter: &Letter) -> LetterBody<'_> {
    let (name, group) = match &letter.to {
        Address::Name(name) => (Some(name.as_str().into()), None),
        Address::Group(group) => (None, Some(group.as_str().into())),
    };
    let message: &RawValue = serde_json::from_str(&letter.text).expect("what was parsed at the door is JSON");
    LetterBody { name, group, token: letter.token.to_string(), message }
}
