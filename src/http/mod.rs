//! The HTTP API: one set of routes, mounted once for each mode and once more, without a mode in the path, for the default one.
//!
//! A request passes [`door`] (origins, [`credentials`], how many at once), which notes its [`caller`], is routed on its path as it was
//! sent, and
//! becomes a command or a query in [`names`], [`groups`], [`leases`] or [`batch`]; [`params`], [`levels`] and [`conditions`] read
//! what is asked of the call, [`body`] what it carries, [`mount`] hands it to the registry with its deadline ([`grace`] ends what does
//! not keep it), and [`reply`] turns
//! what came of it into an answer by the table in `wire::status`, with [`rights`] saying what the caller may do and see, and
//! [`pieces`] making lists of that. [`watch`] answers with what changes and [`messages`] with an inbox: both are streams, of which
//! [`streams`] allows so many. [`cluster`], [`nodes`] and [`health`] serve the rest. [`openapi`] describes it all, with what
//! [`described`] has for many routes and [`events`] for streams; [`mod@serve`] serves the connections, with [`patience`] for readers.

mod batch;
mod body;
pub mod caller;
mod cluster;
mod conditions;
pub mod credentials;
mod described;
mod door;
mod events;
mod grace;
mod groups;
mod health;
mod leases;
mod levels;
pub mod messages;
mod mount;
mod names;
mod nodes;
mod openapi;
mod params;
mod patience;
mod pieces;
mod reply;
mod rights;
mod serve;
mod streams;
mod watch;

use std::sync::Arc;

use axum::Router;
use axum::http::HeaderValue;
use axum::routing::get;
use utoipa_axum::router::UtoipaMethodRouter;
use utoipa_axum::routes;

pub use self::door::{Api, BODY_BYTES_MAX_DEFAULT};
use self::mount::Mount;
pub use self::serve::{MAX_CONNECTIONS_DEFAULT, Terms, serve, serve_by};
use self::streams::Streams;
use crate::cluster::Cluster;
use crate::messages::Messages;
use crate::model::ident::{Mode, NodeId};
use crate::registry::Registry;

/// How many requests a node works on at once unless told otherwise.
pub const MAX_IN_FLIGHT_DEFAULT: usize = 4_096;

/// How many streams a node serves at once unless told otherwise.
pub const MAX_STREAMS_DEFAULT: usize = 4_096;

/// What the API serves, and how.
pub struct HttpState {
    /// This node.
    pub node: NodeId,
    pub cp: Arc<dyn Registry>,
    pub ap: Arc<dyn Registry>,
    pub messages: Arc<dyn Messages>,
    pub cluster: Arc<dyn Cluster>,
    /// What `/v1/names` and `/v1/groups` mean.
    pub default_mode: Mode,
    /// Origins of web pages that may call this server, beside the nodes' own: `https://host:port`.
    pub allow_origins: Vec<String>,
    /// Requests beyond so many at once are refused with 429 before any work. Those that a node's health is told by, and those
    /// that heal a fault, always pass.
    pub max_in_flight: usize,
    /// Watches, and other answers that do not end by themselves, beyond so many at once are refused with 429.
    pub max_streams: usize,
}

/// What all routes share.
struct Shared {
    state: HttpState,
    node: HeaderValue,
    streams: Arc<Streams>,
}

/// The whole API, ready to be served.
pub fn router(state: HttpState) -> Api {
    let streams = Streams::new(state.max_streams);
    let shared = Arc::new(Shared { node: HeaderValue::from(state.node), state, streams });
    let mounts = [
        ("/v1/cp", Mount::new(Mode::Cp, shared.clone())),
        ("/v1/ap", Mount::new(Mode::Ap, shared.clone())),
        ("/v1", Mount::new(shared.state.default_mode, shared.clone())),
    ];
    let mut router = Router::new();
    let mut document = openapi::Document::new();
    for (schemas, paths, methods) in mode_routes() {
        for (prefix, mount) in &mounts {
            for path in paths.paths.keys() {
                // Not nested: nesting would cut the prefix off each request's path, and so copy it.
                router = router.route(&format!("{prefix}{path}"), methods.clone().with_state(mount.clone()));
            }
        }
        document.add_for_modes(schemas, paths);
    }
    for (schemas, paths, methods) in node_routes() {
        for path in paths.paths.keys() {
            router = router.route(path, methods.clone().with_state(shared.clone()));
        }
        document.add(schemas, paths);
    }
    let document = document.finish();
    let router = router
        .route("/openapi.json", get(async move || reply::json(200, document.clone())))
        .method_not_allowed_fallback(reply::method_not_allowed)
        .fallback(reply::no_such_route);
    Api::new(shared, router)
}

fn mode_routes() -> Vec<UtoipaMethodRouter<Arc<Mount>>> {
    vec![
        routes!(names::list),
        routes!(names::whereis, names::register, names::unregister),
        routes!(groups::list),
        routes!(groups::members),
        routes!(groups::membership, groups::join, groups::leave),
        routes!(leases::list, leases::create),
        routes!(leases::keep_alive_each),
        routes!(leases::status, leases::revoke),
        routes!(leases::keep_alive),
        routes!(batch::apply),
        routes!(watch::watch),
        routes!(messages::send),
        routes!(messages::publish),
        routes!(messages::inbox),
    ]
}

fn node_routes() -> Vec<UtoipaMethodRouter<Arc<Shared>>> {
    vec![
        routes!(cluster::status),
        routes!(nodes::add),
        routes!(nodes::promote),
        routes!(nodes::remove),
        routes!(nodes::transfer_leader),
        routes!(nodes::snapshot),
        routes!(nodes::backup),
        routes!(cluster::conflicts),
        routes!(cluster::acknowledge),
        routes!(cluster::faults, cluster::set_faults, cluster::clear_faults),
        routes!(cluster::probe),
        routes!(health::livez),
        routes!(health::readyz),
    ]
}
