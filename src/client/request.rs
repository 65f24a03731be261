//! A command or query as an HTTP request.

use std::fmt::Write;
use std::time::Duration;

use hyper::Method;
use hyper::header::{HeaderName, IF_MATCH, IF_NONE_MATCH};

use super::call::CallOptions;
use crate::model::command::{Action, Condition};
use crate::model::ident::{Group, Member, Mode, Name, Token};
use crate::model::query::{PAGE_LIMIT_DEFAULT, Page, Query};
use crate::registry::Consistency;
use crate::wire::path::quote;
use crate::wire::{lease as lease_body, write};

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
    match mode {
        Mode::Cp if !options.forward => push(&mut path, "&forward", "redirect"),
        Mode::Cp => {}
        Mode::Ap => {
            if let Some(acks) = options.acks {
                push(&mut path, "&w", acks);
            }
        }
    }
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
    if mode == Mode::Cp && !options.forward {
        push(&mut path, "&forward", "redirect");
    }
    Prepared { method: Method::GET, path, headers: Vec::new(), body: Vec::new() }
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
