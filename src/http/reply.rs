//! Answers: bodies and headers, by the table in `wire::status`.

use std::borrow::Cow;

use axum::body::Body;
use axum::http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, LOCATION, RETRY_AFTER,
};
use axum::http::{Method, Response, StatusCode, Uri};

use super::mount::Mount;
use crate::model::entry::Entry;
use crate::model::ident::{Group, IdentError, Mode, NodeId, Revision};
use crate::model::outcome::{Outcome, Refusal};
use crate::model::query::Answer;
use crate::registry::{CommandFailure, Provenance, QueryFailure, Reason, Reply, WatchFailure};
use crate::wire::status::{Certainty, Code, REDIRECT, outcome_status};
use crate::wire::write::{self, Problem};
use crate::wire::{header, lease};

const MODE: HeaderName = HeaderName::from_static(header::MODE);
const REVISION: HeaderName = HeaderName::from_static(header::REVISION);
const PEERS: HeaderName = HeaderName::from_static(header::PEERS);
const ACKS: HeaderName = HeaderName::from_static(header::ACKS);
const STALENESS_MS: HeaderName = HeaderName::from_static(header::STALENESS_MS);

/// A request that goes no further than the door: no registry has seen it.
#[derive(Debug)]
pub struct Rejection {
    pub code: Code,
    pub detail: Cow<'static, str>,
}

impl Rejection {
    pub fn malformed(detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code: Code::Malformed, detail: detail.into() }
    }

    pub fn ident(error: IdentError) -> Self {
        Self::malformed(error.to_string())
    }

    pub fn wrong_shape(detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code: Code::WrongShape, detail: detail.into() }
    }

    pub fn forbidden(what: &str, key: &str) -> Self {
        Self { code: Code::Forbidden, detail: format!("this credential may not {what} {key:?}").into() }
    }

    pub fn too_large(detail: &'static str) -> Self {
        Self { code: Code::TooLarge, detail: detail.into() }
    }

    pub fn body_late() -> Self {
        Self { code: Code::BodyLate, detail: "nothing was done".into() }
    }

    /// The answer to a request of this method.
    pub fn respond(&self, method: &Method) -> Response<Body> {
        let outcome = is_command(method).then_some(Certainty::NotApplied);
        let body = write::problem(&Problem {
            detail: Some(&self.detail),
            retryable: self.code.retryable(Certainty::NotApplied, false),
            ..Problem::of(self.code, outcome)
        });
        let mut response = problem(self.code.row().status, body);
        if matches!(self.code, Code::BodyLate | Code::TooLarge) {
            // What is left of the body is not waited for.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// Queries have no outcome.
fn is_command(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// A JSON answer.
pub fn json(status: u16, body: impl Into<Body>) -> Response<Body> {
    typed(status, "application/json", body)
}

/// An answer that goes on for as long as the caller listens.
pub fn event_stream(mode: Mode, body: Body) -> Response<Body> {
    let mut response = typed(200, "text/event-stream", body);
    let headers = response.headers_mut();
    headers.insert(MODE, HeaderValue::from_static(mode.as_str()));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn problem(status: u16, body: Vec<u8>) -> Response<Body> {
    let mut response = typed(status, "application/problem+json", body);
    if matches!(status, 429 | 503) {
        // In seconds; an election takes about that long.
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

fn typed(status: u16, content_type: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(status).expect("the table holds HTTP statuses");
    let headers = response.headers_mut();
    headers.reserve(10);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// The answer for paths that are none of ours.
pub async fn no_such_route(method: Method, uri: Uri) -> Response<Body> {
    let detail = format!("{} is not a path of this API; /openapi.json lists them", uri.path());
    Rejection { code: Code::NoSuchRoute, detail: detail.into() }.respond(&method)
}

/// The answer for methods that a path does not take; the router adds `Allow`.
pub async fn method_not_allowed(method: Method, uri: Uri) -> Response<Body> {
    let detail = format!("{} does not take {method}; the Allow header lists what it does", uri.path());
    Rejection { code: Code::MethodNotAllowed, detail: detail.into() }.respond(&method)
}

/// What a list's answer holds, beside the entries.
pub enum Shape {
    Names,
    Members(Group),
    /// Groups, or one entry: the answer tells.
    Plain,
}

impl Mount {
    /// The answer to a command.
    pub fn outcome(
        &self,
        uri: &Uri,
        result: Result<Reply<Outcome>, CommandFailure>,
        repeating_is_safe: bool,
    ) -> Response<Body> {
        self.respond(uri, result, repeating_is_safe, |outcome, _| {
            let status = outcome_status(outcome);
            match outcome {
                Outcome::Granted { entry, hides } => entity(status, entry, write::entry(entry, hides.as_ref())),
                Outcome::Held { entry } => entity(status, entry, write::entry(entry, None)),
                Outcome::Ended(ended) => json(status, write::ended(*ended)),
                Outcome::LeaseCreated { lease, ttl_ms } | Outcome::LeaseHeld { lease, ttl_ms } => {
                    json(status, lease::created(lease, *ttl_ms, *ttl_ms))
                }
                Outcome::Refused(refusal) => self.refused(refusal, Some(Certainty::NotApplied)),
            }
        })
    }

    /// The answer to a call that may have changed something, where `write` tells of what came of it.
    pub fn respond<T>(
        &self,
        uri: &Uri,
        result: Result<Reply<T>, CommandFailure>,
        repeating_is_safe: bool,
        write: impl FnOnce(&T, &Revision) -> Response<Body>,
    ) -> Response<Body> {
        let (reason, certainty) = match result {
            Ok(reply) => {
                let mut response = write(&reply.value, &reply.revision);
                self.stamp(&mut response, &reply.revision, &reply.provenance);
                return response;
            }
            Err(CommandFailure::NotApplied(reason)) => (reason, Certainty::NotApplied),
            Err(CommandFailure::Unknown(reason)) => (reason, Certainty::Unknown),
        };
        self.failure(uri, &reason, Some(certainty), repeating_is_safe)
    }

    /// The answer to a refusal.
    pub fn refused(&self, refusal: &Refusal, outcome: Option<Certainty>) -> Response<Body> {
        let refused = Problem::refused(refusal, outcome).of_mode(self.mode);
        problem(refused.status, write::problem(&refused))
    }

    /// The answer where no watch could begin.
    pub fn no_watch(&self, uri: &Uri, failure: &WatchFailure) -> Response<Body> {
        let oldest = match failure {
            WatchFailure::Compacted { oldest } => oldest,
            WatchFailure::Failed(reason) => return self.failure(uri, reason, None, true),
        };
        let code = Code::RevisionCompacted;
        let body = write::problem(&Problem { oldest: Some(oldest), ..Problem::of(code, None) });
        let mut response = problem(code.row().status, body);
        response.headers_mut().insert(MODE, HeaderValue::from_static(self.mode.as_str()));
        response
    }

    /// The answer to a query.
    pub fn answer(&self, uri: &Uri, shape: &Shape, result: Result<Reply<Answer>, QueryFailure>) -> Response<Body> {
        let reply = match result {
            Ok(reply) => reply,
            Err(QueryFailure(reason)) => return self.failure(uri, &reason, None, true),
        };
        let revision = &reply.revision;
        let mut response = match (&reply.value, shape) {
            (Answer::Entry(entry), _) => entity(200, entry, write::entry(entry, None)),
            (Answer::Entries { entries, next }, Shape::Members(group)) => {
                json(200, write::members(group, entries, next.as_deref(), revision))
            }
            (Answer::Entries { entries, next }, Shape::Names | Shape::Plain) => {
                json(200, write::names(entries, next.as_deref(), revision))
            }
            (Answer::Groups { groups, next }, _) => json(200, write::groups(groups, next.as_deref(), revision)),
            (Answer::Lease(status), _) => json(200, lease::status(status, revision)),
            (Answer::Leases { leases, next }, _) => json(200, lease::list(leases, next.as_deref(), revision)),
            (Answer::Refused(refusal), _) => self.refused(refusal, None),
        };
        self.stamp(&mut response, revision, &reply.provenance);
        response
    }

    /// No outcome came. `certainty` is none for queries.
    fn failure(
        &self,
        uri: &Uri,
        reason: &Reason,
        certainty: Option<Certainty>,
        repeating_is_safe: bool,
    ) -> Response<Body> {
        let code = reason_code(reason);
        let mut status = match certainty {
            Some(certainty) => code.status(certainty),
            None => code.query_status(),
        };
        let (mut leader, mut applied, mut detail) = (None, None, None);
        match reason {
            Reason::NotLeader { leader: known } => leader = *known,
            Reason::Behind { applied: reached } => applied = Some(reached),
            Reason::Internal(what) => {
                tracing::error!(mode = %self.mode, what, "a call failed");
                detail = Some(what.as_str());
            }
            Reason::NoLeader | Reason::NoQuorum | Reason::Starting | Reason::Overloaded | Reason::Timeout => {}
        }
        let leader_http = leader.and_then(|leader| self.http_of(leader));
        let location = match &leader_http {
            Some(base) if certainty != Some(Certainty::Unknown) => location(base, uri),
            _ => None,
        };
        if location.is_some() {
            status = REDIRECT;
        }
        let body = write::problem(&Problem {
            status,
            detail,
            retryable: code.retryable(certainty.unwrap_or(Certainty::NotApplied), repeating_is_safe),
            leader,
            leader_http: leader_http.as_deref(),
            applied,
            ..Problem::of(code, certainty)
        });
        let mut response = problem(status, body);
        let headers = response.headers_mut();
        headers.insert(MODE, HeaderValue::from_static(self.mode.as_str()));
        if let Some(location) = location {
            headers.insert(LOCATION, location);
        }
        if let Some(applied) = applied {
            headers.insert(REVISION, revision_value(applied));
        }
        response
    }

    fn http_of(&self, node: NodeId) -> Option<String> {
        let status = self.shared.state.cluster.status();
        status.nodes.into_iter().find(|known| known.id == node)?.http
    }

    fn stamp(&self, response: &mut Response<Body>, revision: &Revision, provenance: &Provenance) {
        let headers = response.headers_mut();
        headers.insert(MODE, HeaderValue::from_static(self.mode.as_str()));
        headers.insert(REVISION, revision_value(revision));
        if let Some(peers) = provenance.peers {
            headers.insert(PEERS, share(peers));
        }
        if let Some(acks) = provenance.acks {
            headers.insert(ACKS, share(acks));
        }
        if let Some(staleness_ms) = provenance.staleness_ms {
            headers.insert(STALENESS_MS, HeaderValue::from(staleness_ms));
        }
    }

    /// A request of this mode that goes no further.
    pub fn rejected(&self, method: &Method, rejection: &Rejection) -> Response<Body> {
        let mut response = rejection.respond(method);
        response.headers_mut().insert(MODE, HeaderValue::from_static(self.mode.as_str()));
        response
    }
}

fn entity(status: u16, entry: &Entry, body: Vec<u8>) -> Response<Body> {
    let mut response = json(status, body);
    response.headers_mut().insert(ETAG, ascii(format!("\"{}\"", entry.revision)));
    response
}

/// The code of a failure; the client reads it back in `client::call`.
fn reason_code(reason: &Reason) -> Code {
    match reason {
        Reason::NoLeader => Code::NoLeader,
        Reason::NoQuorum => Code::NoQuorum,
        Reason::Starting => Code::Starting,
        Reason::Behind { .. } => Code::Behind,
        Reason::Overloaded => Code::Overloaded,
        Reason::Timeout => Code::Timeout,
        Reason::NotLeader { .. } => Code::NotLeader,
        Reason::Internal(_) => Code::Internal,
    }
}

/// The same path and parameters at another node.
fn location(base: &str, uri: &Uri) -> Option<HeaderValue> {
    let path = uri.path_and_query()?;
    HeaderValue::from_str(&format!("{}{path}", base.trim_end_matches('/'))).ok()
}

fn revision_value(revision: &Revision) -> HeaderValue {
    match revision {
        Revision::Cp(revision) => HeaderValue::from(*revision),
        Revision::Ap(text) => HeaderValue::from_str(text).expect("a revision is visible ASCII"),
    }
}

fn share((have, of): (usize, usize)) -> HeaderValue {
    ascii(format!("{have}/{of}"))
}

fn ascii(text: String) -> HeaderValue {
    HeaderValue::from_maybe_shared(axum::body::Bytes::from(text)).expect("it is visible ASCII")
}

/// The answer when faults, or anything else that an operator has to enable, are off.
pub fn not_enabled(method: &Method, detail: &'static str) -> Response<Body> {
    Rejection { code: Code::NoSuchRoute, detail: detail.into() }.respond(method)
}

/// No outcome of a change came that may be asked for again without harm.
pub fn failed(reason: &Reason, certainty: Certainty) -> Response<Body> {
    let code = reason_code(reason);
    let status = code.status(certainty);
    let detail = match reason {
        Reason::Internal(what) => Some(what.as_str()),
        _ => None,
    };
    let retryable = code.retryable(certainty, true);
    let body = write::problem(&Problem { status, detail, retryable, ..Problem::of(code, Some(certainty)) });
    problem(status, body)
}

/// A failure of a call to a node as a whole, not to one of its registries' entries.
pub fn node_failure(reason: &Reason) -> Response<Body> {
    let code = reason_code(reason);
    let body = write::problem(&Problem { status: code.query_status(), retryable: true, ..Problem::of(code, None) });
    problem(code.query_status(), body)
}
