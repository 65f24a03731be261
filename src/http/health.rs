//! Whether this node lives, and whether it serves.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;

use super::described::{NodeProblems, ReadyProblems, TimeoutParam};
use super::params::Params;
use super::reply::{Rejection, json, node_failure};
use super::{Shared, levels};
use crate::model::ident::Mode;
use crate::model::query::{Page, Query};
use crate::registry::{Consistency, QueryCall, Reason, Registry};
use crate::wire::cluster::ReadyBody;
use crate::wire::write;

/// Tells that the process lives. Never refused, however much is in flight.
#[utoipa::path(get, path = "/livez", tag = "health",
    responses((status = 200, description = "It lives.", body = ReadyBody), NodeProblems))]
pub async fn livez(State(shared): State<Arc<Shared>>) -> Response<Body> {
    ready(&shared)
}

/// Tells whether this node serves.
///
/// Without a mode: both registries have what they had when the process last stopped, so that it is worth sending calls here.
#[utoipa::path(get, path = "/readyz", tag = "health",
    params(
        ("mode" = Option<String>, Query, description = "cp: a real linearizable read. ap: its state is back."),
        TimeoutParam,
    ),
    responses(
        (status = 200, description = "It serves.", body = ReadyBody),
        ReadyProblems,
    ))]
pub async fn readyz(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let (parts, _) = request.into_parts();
    let read = || {
        let mut params = Params::parse(parts.uri.query(), &["mode", "timeout_ms"])?;
        let deadline = levels::deadline(&mut params, Instant::now())?;
        Ok::<_, Rejection>((params.parsed("mode", str::parse::<Mode>)?, deadline))
    };
    let (mode, deadline) = match read() {
        Ok(read) => read,
        Err(rejection) => return rejection.respond(&parts.method),
    };
    let serves = async {
        match mode {
            Some(Mode::Cp) => shared.state.cp.ready(deadline).await,
            Some(Mode::Ap) => shared.state.ap.ready(deadline).await,
            None => {
                shared.state.ap.ready(deadline).await?;
                has_state(&*shared.state.cp, deadline).await
            }
        }
    };
    match tokio::time::timeout_at(deadline.into(), serves).await.unwrap_or(Err(Reason::Timeout)) {
        Ok(()) => ready(&shared),
        Err(reason) => node_failure(&reason),
    }
}

/// A node without a majority still answers stale reads and all of `ap`: only one that has not caught up with itself serves nobody.
async fn has_state(cp: &dyn Registry, deadline: Instant) -> Result<(), Reason> {
    let query = Query::Groups { page: Page { limit: 1, ..Page::default() } };
    let call = QueryCall { forward: false, ..QueryCall::new(deadline, Consistency::Stale) };
    cp.query(query, &call).await.map(drop).map_err(|failure| failure.0)
}

fn ready(shared: &Shared) -> Response<Body> {
    json(200, write::bytes(32, &ReadyBody { node: shared.state.node, ready: true }))
}
