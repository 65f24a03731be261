//! Who comes in: web pages of known origins alone, callers whose credential is known, and so many requests at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION, HeaderMap,
    HeaderName, HeaderValue, ORIGIN, VARY, WWW_AUTHENTICATE,
};
use axum::http::{Method, Request, Response, StatusCode};
use tower::Service;

use super::Shared;
use super::body::BODY_LEN_MAX;
use super::caller::Caller;
use super::credentials::{Credentials, CurrentCredentials};
use super::reply::Rejection;
use crate::wire::header;
use crate::wire::status::Code;

const NODE: HeaderName = HeaderName::from_static(header::NODE);
const EXPOSED: &str = "ETag, Retry-After, Location, Quorate-Mode, Quorate-Node, Quorate-Revision, Quorate-Peers, \
                       Quorate-Acks, Quorate-Staleness-Ms";

/// Bytes of request bodies that may be in flight at once unless told otherwise.
pub const BODY_BYTES_MAX_DEFAULT: usize = 256 << 20;

/// The whole API: hand it requests, or a listener with [`super::serve()`].
#[derive(Clone)]
pub struct Api {
    shared: Arc<Shared>,
    router: Router,
    credentials: Option<CurrentCredentials>,
    body_bytes_max: usize,
    load: Arc<Load>,
}

/// What is in flight.
#[derive(Default)]
struct Load {
    requests: AtomicUsize,
    body_bytes: AtomicUsize,
}

impl Api {
    pub(super) fn new(shared: Arc<Shared>, router: Router) -> Self {
        Self { shared, router, credentials: None, body_bytes_max: BODY_BYTES_MAX_DEFAULT, load: Arc::default() }
    }

    /// From now on a caller has to show a credential, but for what tells of the node's health and describes the API. What is
    /// stored there later counts from the next request on.
    pub fn asking_for(mut self, credentials: CurrentCredentials) -> Self {
        self.credentials = Some(credentials);
        self
    }

    /// Refuses requests with 429 whose bodies would take more than so many bytes together, before any of them is read.
    pub fn with_body_bytes(mut self, max: usize) -> Self {
        self.body_bytes_max = max;
        self
    }

    /// Ends all streams: the server stops.
    pub(super) fn end_streams(&self) {
        self.shared.streams.end();
    }

    /// Answers one request.
    pub async fn answer<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: HttpBody<Data = axum::body::Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let origin = request.headers().get(ORIGIN).cloned();
        let mut response = self.enter(request, origin.as_ref()).await;
        response.headers_mut().insert(NODE, self.shared.node.clone());
        response
    }

    async fn enter<B>(&self, request: Request<B>, origin: Option<&HeaderValue>) -> Response<Body>
    where
        B: HttpBody<Data = axum::body::Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let Some(origin) = origin else { return self.admit(request).await };
        if !self.knows(origin) {
            let detail = "start the server with --allow-origin to let that page in";
            return Rejection { code: Code::ForeignOrigin, detail: detail.into() }.respond(request.method());
        }
        let mut response = if is_preflight(&request) { preflight() } else { self.admit(request).await };
        share_with(response.headers_mut(), origin);
        response
    }

    /// Lets a request in, if there is room and its caller may.
    async fn admit<B>(&self, mut request: Request<B>) -> Response<Body>
    where
        B: HttpBody<Data = axum::body::Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let seat = Seat::take(&self.load.requests, 1);
        let luggage = Seat::take(&self.load.body_bytes, body_bytes(request.body()));
        let full = seat.taken > self.shared.state.max_in_flight || luggage.taken > self.body_bytes_max;
        if full && !always_passes(request.uri().path()) {
            let detail = "nothing was begun; try again in a moment";
            return Rejection { code: Code::Overloaded, detail: detail.into() }.respond(request.method());
        }
        if let Some(credentials) = &self.credentials
            && !is_open(request.uri().path())
        {
            match identify(&credentials.load(), request.headers()) {
                Ok(caller) => {
                    request.extensions_mut().insert(caller);
                }
                Err(shown) => return unauthorized(request.method(), shown),
            }
        }
        let mut router = self.router.clone();
        match router.call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    /// A browser tells the truth about the origin of its page. The request's own Host is no proof: a foreign name may have
    /// been made to point here.
    fn knows(&self, origin: &HeaderValue) -> bool {
        let Ok(origin) = origin.to_str() else { return false };
        let state = &self.shared.state;
        let same = |known: &str| {
            let known = known.trim_end_matches('/');
            known.eq_ignore_ascii_case(origin)
        };
        state.allow_origins.iter().any(|known| same(known))
            || state
                .cluster
                .status()
                .nodes
                .iter()
                .filter_map(|node| node.http.as_deref())
                .any(|own| same(own) || (is_loopback(own) && LOOPBACK.iter().any(|name| same(&with_host(own, name)))))
    }
}

const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

fn authority(url: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split('/').next()?;
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => (host, port),
        _ => (authority, ""),
    };
    Some((scheme, host, port))
}

fn is_loopback(url: &str) -> bool {
    authority(url).is_some_and(|(_, host, _)| LOOPBACK.contains(&host))
}

fn with_host(url: &str, host: &str) -> String {
    match authority(url) {
        Some((scheme, _, "")) => format!("{scheme}://{host}"),
        Some((scheme, _, port)) => format!("{scheme}://{host}:{port}"),
        None => String::new(),
    }
}

/// What tells of a node's health, and what heals a fault, has to pass when nothing else does.
fn always_passes(path: &str) -> bool {
    path == "/livez" || path == "/readyz" || path == "/v1/faults"
}

/// Answered to anybody: a load balancer holds no credential, and the description of the API is in every release.
fn is_open(path: &str) -> bool {
    matches!(path, "/livez" | "/readyz" | "/openapi.json")
}

/// What a caller has shown that is good for nothing.
enum Shown {
    Nothing,
    SomethingElse,
}

fn identify(credentials: &Credentials, headers: &HeaderMap) -> Result<Caller, Shown> {
    let mut shown = headers.get_all(AUTHORIZATION).iter();
    let (Some(only), None) = (shown.next(), shown.next()) else {
        return Err(if headers.contains_key(AUTHORIZATION) { Shown::SomethingElse } else { Shown::Nothing });
    };
    let (scheme, token) = only.as_bytes().split_at_checked(BEARER.len()).ok_or(Shown::SomethingElse)?;
    if !scheme.eq_ignore_ascii_case(BEARER) {
        return Err(Shown::SomethingElse);
    }
    credentials.find(token.trim_ascii()).cloned().ok_or(Shown::SomethingElse)
}

const BEARER: &[u8] = b"Bearer ";

fn unauthorized(method: &Method, shown: Shown) -> Response<Body> {
    let (challenge, detail) = match shown {
        Shown::Nothing => ("Bearer", "send the header Authorization: Bearer TOKEN"),
        Shown::SomethingElse => ("Bearer error=\"invalid_token\"", "this server knows no credential of that token"),
    };
    let mut response = Rejection { code: Code::Unauthorized, detail: detail.into() }.respond(method);
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    response
}

/// How much memory a body may take: what it announces, and the most that is read of one that announces nothing.
fn body_bytes(body: &impl HttpBody) -> usize {
    let announced = body.size_hint().upper().unwrap_or(BODY_LEN_MAX as u64);
    announced.min(BODY_LEN_MAX as u64) as usize
}

fn is_preflight<B>(request: &Request<B>) -> bool {
    request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

fn preflight() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD, PUT, POST, DELETE"));
    headers.insert(
        ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("Authorization, Content-Type, If-Match, If-None-Match, Last-Event-ID"),
    );
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    response
}

fn share_with(headers: &mut HeaderMap, origin: &HeaderValue) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    headers.append(VARY, HeaderValue::from_static("Origin"));
}

/// A share of what there is room for, until dropped: a caller that hangs up gives back what it took.
struct Seat<'a> {
    counter: &'a AtomicUsize,
    share: usize,
    /// How much is taken, this share included.
    taken: usize,
}

impl<'a> Seat<'a> {
    fn take(counter: &'a AtomicUsize, share: usize) -> Self {
        // Most requests have no body, and then nothing is counted of it.
        let taken = if share == 0 { 0 } else { counter.fetch_add(share, Ordering::Relaxed) + share };
        Self { counter, share, taken }
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        if self.share > 0 {
            self.counter.fetch_sub(self.share, Ordering::Relaxed);
        }
    }
}
