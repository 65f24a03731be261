//! Who comes in: web pages of known origins alone, and so many requests at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderName,
    HeaderValue, ORIGIN, VARY,
};
use axum::http::{Method, Request, Response, StatusCode};
use tower::Service;

use super::Shared;
use super::reply::Rejection;
use crate::wire::header;
use crate::wire::status::Code;

const NODE: HeaderName = HeaderName::from_static(header::NODE);
const EXPOSED: &str = "ETag, Retry-After, Location, Quorate-Mode, Quorate-Node, Quorate-Revision, Quorate-Peers, \
                       Quorate-Acks, Quorate-Staleness-Ms";

/// The whole API: hand it requests, or a listener with [`super::serve()`].
#[derive(Clone)]
pub struct Api {
    shared: Arc<Shared>,
    router: Router,
    in_flight: Arc<AtomicUsize>,
}

impl Api {
    pub(super) fn new(shared: Arc<Shared>, router: Router) -> Self {
        Self { shared, router, in_flight: Arc::default() }
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

    /// Lets a request in, if there is room.
    async fn admit<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: HttpBody<Data = axum::body::Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let seat = Seat::take(&self.in_flight);
        if seat.taken > self.shared.state.max_in_flight && !always_passes(request.uri().path()) {
            let detail = "nothing was begun; try again in a moment";
            return Rejection { code: Code::Overloaded, detail: detail.into() }.respond(request.method());
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

/// One request in flight, until dropped: a caller that hangs up frees its seat.
struct Seat<'a> {
    seats: &'a AtomicUsize,
    /// How many are in flight, this one included.
    taken: usize,
}

impl<'a> Seat<'a> {
    fn take(seats: &'a AtomicUsize) -> Self {
        Self { taken: seats.fetch_add(1, Ordering::Relaxed) + 1, seats }
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.seats.fetch_sub(1, Ordering::Relaxed);
    }
}
