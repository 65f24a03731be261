//! A command or query as an HTTP request.

use std::fmt::Write;
use std::time::Duration;

use hyper::Method;
use hyper::header::{HeaderName, IF_MATCH, IF_NONE_MATCH};
use serde::Serialize;
use serde_json::value::RawValue;

use super::call::CallOptions;
use crate::messages::Address;
use crate::model::command::{Action, Condition};
use crate::model::event::Filter;
use crate::model::ident::{Group, LeaseId, Member, Mode, Name, Owner, RecordId, Token};
use crate::model::query::{PAGE_LIMIT_DEFAULT, Page, Query};
use crate::registry::{Consistency, Position, Watch};
use crate::wire::message::MessageBody;
use crate::wire::path::quote;
use crate::wire::{batch as batch_body, lease as lease_body, write};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// The longest that a server may be asked to take.
const SERVER_TIMEOUT_MS_MAX: u64 = 30_000;

/// A request, but for the server that it goes to.
#[derive(Debug)]
pub struct Prepared {
    pub method: Method,
    /// With its query.
    pub path: String,
    pub headers: Vec<(HeaderName, String)>,
    pub body: Vec<u8>,
}

/// What the server is told: a tenth earlier than the caller's own end, 100 ms at most, so that its word is still heard.
pub fn server_timeout_ms(timeout: Duration) -> u64 {
    let margin = (timeout / 10).min(Duration::from_millis(100));
    ((timeout - margin).as_millis() as u64).clamp(1, SERVER_TIMEOUT_MS_MAX)
}

/// A request without headers, told how long it may take. `path` ends where another parameter may follow.
pub fn plain(method: Method, path: &str, body: Option<&impl Serialize>, timeout: Duration) -> Prepared {
    let path = format!("{path}timeout_ms={}", server_timeout_ms(timeout));
    let body = body.map(|body| write::bytes(256, body)).unwrap_or_default();
    Prepared { method, path, headers: Vec::new(), body }
}

/// The request of a command.
pub fn command(mode: Mode, action: &Action, options: &CallOptions) -> Prepared {
    let (method, mut path, body) = match action {
        Action::Register { name, owner, meta, lease, .. } => {
            (Method::PUT, name_path(mode, name), write::register(owner, meta, lease.as_ref()))
        }
        Action::Unregister { name, .. } => (Method::DELETE, name_path(mode, name), Vec::new()),
        Action::Join { group, member, meta, lease } => {
            (Method::PUT, member_path(mode, group, member), write::join(meta, lease.as_ref()))
        }
        Action::Leave { group, member, .. } => (Method::DELETE, member_path(mode, group, member), Vec::new()),
        Action::CreateLease { lease, ttl_ms, .. } => {
            (Method::POST, format!("/v1/{mode}/leases"), lease_body::create(lease.as_ref(), *ttl_ms))
        }
        Action::RevokeLease { lease, .. } => {
            (Method::DELETE, format!("/v1/{mode}/leases/{}", quote(lease.as_str())), Vec::new())
        }
    };
    push(&mut path, "?timeout_ms", server_timeout_ms(options.timeout));
    let mut headers = Vec::new();
    match action {
        Action::Register { condition, .. } => match condition {
            Condition::Free => {}
            Condition::Takeover => push(&mut path, "&takeover", true),
            Condition::Token(token) => push(&mut path, "&token", token),
            Condition::Unchanged(revision) => headers.push((IF_MATCH, format!("\"{revision}\""))),
            Condition::Present => headers.push((IF_MATCH, "*".to_owned())),
            Condition::Absent => headers.push((IF_NONE_MATCH, "*".to_owned())),
        },
        Action::Unregister { token, .. } | Action::Leave { token, .. } => push_token(&mut path, *token),
        Action::Join { .. } | Action::CreateLease { .. } | Action::RevokeLease { .. } => {}
    }
    if mode == Mode::Cp && !options.forward {
        push(&mut path, "&forward", "redirect");
    }
    push_acks(&mut path, mode, options);
    Prepared { method, path, headers, body }
}

/// The request of a query.
pub fn query(mode: Mode, query: &Query, options: &CallOptions) -> Prepared {
    let mut path = match query {
        Query::Whereis { name, .. } => name_path(mode, name),
        Query::Names { .. } => format!("/v1/{mode}/names"),
        Query::Membership { group, member, .. } => member_path(mode, group, member),
        Query::Members { group, .. } => format!("/v1/{mode}/groups/{}/members", quote(group.as_str())),
        Query::Groups { .. } => format!("/v1/{mode}/groups"),
        Query::Lease { lease, .. } => format!("/v1/{mode}/leases/{}", quote(lease.as_str())),
        Query::Leases { .. } => format!("/v1/{mode}/leases"),
    };
    push(&mut path, "?timeout_ms", server_timeout_ms(options.timeout));
    match query {
        Query::Whereis { token, .. } | Query::Membership { token, .. } => push_token(&mut path, *token),
        Query::Names { page } | Query::Groups { page } | Query::Lease { page, .. } | Query::Leases { page } => {
            push_page(&mut path, page);
            if !page.prefix.is_empty() {
                push(&mut path, "&prefix", quote(&page.prefix));
            }
        }
        Query::Members { page, node, .. } => {
            push_page(&mut path, page);
            if let Some(node) = node {
                push(&mut path, "&node", node);
            }
        }
    }
    match options.consistency {
        None => {}
        Some(Consistency::Linearizable) => push(&mut path, "&consistency", "linearizable"),
        Some(Consistency::Leader) => push(&mut path, "&consistency", "leader"),
        Some(Consistency::Stale) => push(&mut path, "&consistency", "stale"),
        Some(Consistency::Local) => push(&mut path, "&consistency", "local"),
        Some(Consistency::Quorum(nodes)) => push(&mut path, "&consistency=quorum&r", nodes),
    }
    if let Some(revision) = &options.min_revision {
        push(&mut path, "&min_revision", quote(&revision.to_string()));
    }
    let has_hidden = match query {
        Query::Whereis { .. } | Query::Names { .. } | Query::Membership { .. } | Query::Members { .. } => true,
        Query::Groups { .. } | Query::Lease { .. } | Query::Leases { .. } => false,
    };
    if options.include_hidden && has_hidden && mode == Mode::Ap {
        push(&mut path, "&include", "hidden");
    }
    if mode == Mode::Cp && !options.forward {
        push(&mut path, "&forward", "redirect");
    }
    Prepared { method: Method::GET, path, headers: Vec::new(), body: Vec::new() }
}

/// The request that keeps one lease alive.
pub fn keep_alive(mode: Mode, lease: &LeaseId, seen: &[RecordId], options: &CallOptions) -> Prepared {
    let path = format!("/v1/{mode}/leases/{}/keepalive", quote(lease.as_str()));
    post(mode, path, lease_body::keep_alive(seen), options)
}

/// The request that keeps many leases alive.
pub fn keep_alive_each(mode: Mode, leases: &[LeaseId], seen: &[RecordId], options: &CallOptions) -> Prepared {
    post(mode, format!("/v1/{mode}/leases/keepalive"), lease_body::keep_alive_each(leases, seen), options)
}

/// The request of a batch. None: there is a command of a lease in it.
pub fn batch(mode: Mode, actions: &[Action], options: &CallOptions) -> Option<Prepared> {
    let mut prepared = post(mode, format!("/v1/{mode}/batch"), batch_body::commands(actions)?, options);
    push_acks(&mut prepared.path, mode, options);
    Some(prepared)
}

fn post(mode: Mode, mut path: String, body: Vec<u8>, options: &CallOptions) -> Prepared {
    push(&mut path, "?timeout_ms", server_timeout_ms(options.timeout));
    if mode == Mode::Cp && !options.forward {
        push(&mut path, "&forward", "redirect");
    }
    Prepared { method: Method::POST, path, headers: Vec::new(), body }
}

/// The request that sends a message.
pub fn message(mode: Mode, to: &Address, message: &RawValue, options: &CallOptions) -> Prepared {
    let path = match to {
        Address::Name(name) => format!("/v1/{mode}/names/{}/messages", quote(name.as_str())),
        Address::Group(group) => format!("/v1/{mode}/groups/{}/messages", quote(group.as_str())),
    };
    post(mode, path, write::bytes(32 + message.get().len(), &MessageBody { message }), options)
}

/// The request that opens an inbox.
pub fn inbox(mode: Mode, owner: &Owner, timeout: Duration) -> Prepared {
    let path = format!("/v1/{mode}/inbox/{}?timeout_ms={}", quote(owner.as_str()), server_timeout_ms(timeout));
    Prepared { method: Method::GET, path, headers: Vec::new(), body: Vec::new() }
}

/// The request that begins a watch.
pub fn watch(mode: Mode, watch: &Watch, timeout: Duration) -> Prepared {
    let mut path = format!("/v1/{mode}/watch");
    push(&mut path, "?timeout_ms", server_timeout_ms(timeout));
    let Filter { names, name_prefixes, groups, group_prefixes } = &watch.filter;
    names.iter().for_each(|name| push(&mut path, "&name", quote(name.as_str())));
    name_prefixes.iter().for_each(|prefix| push(&mut path, "&name_prefix", quote(prefix)));
    groups.iter().for_each(|group| push(&mut path, "&group", quote(group.as_str())));
    group_prefixes.iter().for_each(|prefix| push(&mut path, "&group_prefix", quote(prefix)));
    if watch.initial {
        push(&mut path, "&initial", true);
    }
    let mut headers = Vec::new();
    match &watch.from {
        Position::Now => {}
        Position::After(revision) => push(&mut path, "&after", quote(&revision.to_string())),
        Position::Resume(revision) => headers.push((LAST_EVENT_ID, revision.to_string())),
    }
    Prepared { method: Method::GET, path, headers, body: Vec::new() }
}

fn name_path(mode: Mode, name: &Name) -> String {
    format!("/v1/{mode}/names/{}", quote(name.as_str()))
}

fn member_path(mode: Mode, group: &Group, member: &Member) -> String {
    format!("/v1/{mode}/groups/{}/members/{}", quote(group.as_str()), quote(member.as_str()))
}

fn push_token(path: &mut String, token: Option<Token>) {
    if let Some(token) = token {
        push(path, "&token", token);
    }
}

fn push_acks(path: &mut String, mode: Mode, options: &CallOptions) {
    if let (Mode::Ap, Some(acks)) = (mode, options.acks) {
        push(path, "&w", acks);
    }
}

fn push_page(path: &mut String, page: &Page) {
    if page.limit != PAGE_LIMIT_DEFAULT {
        push(path, "&limit", page.limit);
    }
    if let Some(after) = &page.after {
        push(path, "&after", quote(after));
    }
}

fn push(path: &mut String, name: &str, value: impl std::fmt::Display) {
    write!(path, "{name}={value}").expect("a String takes all");
}
