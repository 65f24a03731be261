//! Batches: many commands in one call.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;

use super::described::{AcksParam, BatchProblems, ForwardParam, TimeoutParam};
use super::mount::{Incoming, Mount};
use super::reply::{Rejection, json};
use super::{body, rights};
use crate::model::command::{Action, BATCH_LEN_MAX};
use crate::wire::batch::{self, BatchBody, BatchResultsBody};

const BATCH: [&str; 3] = ["timeout_ms", "forward", "w"];

/// Applies up to 1,000 commands in order, and tells what became of each.
///
/// A refused command stops none of the others. A malformed one refuses them all before anything is done. `cp`: one log entry, so
/// that all of them are applied or none. Commands of leases are not for batches.
#[utoipa::path(post, path = "/batch", tag = "batch", request_body = BatchBody<'_>,
    params(TimeoutParam, ForwardParam, AcksParam),
    responses(
        (status = 200, description = "One status for each command, in their order.", body = BatchResultsBody<'_>),
        BatchProblems,
    ))]
pub async fn apply(State(mount): State<Arc<Mount>>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let (actions, call) = match mount.read_command(&parts, body, &BATCH, commands).await {
        Ok(read) => read,
        Err(rejection) => return mount.rejected(&parts.method, &rejection),
    };
    let result = mount.batch(actions, &call).await;
    // Never repeated safely, whatever it holds: what it registers first may have been given up by its own end.
    mount.respond(&parts.uri, result, false, |outcomes, revision| json(200, batch::results(outcomes, revision)))
}

fn commands(incoming: &mut Incoming) -> Result<Vec<Action>, Rejection> {
    incoming.no_conditions()?;
    let sent: BatchBody = body::json(&incoming.body)?;
    if sent.commands.is_empty() || sent.commands.len() > BATCH_LEN_MAX {
        return Err(Rejection::malformed(format!("commands has to hold 1 to {BATCH_LEN_MAX} of them")));
    }
    let caller = incoming.caller();
    let command = |(at, item)| {
        let action = batch::read_command(incoming.mode, item)
            .map_err(|why| Rejection::malformed(format!("commands[{at}]: {why}")))?;
        rights::to_do(&caller, &action)?;
        Ok(action)
    };
    sent.commands.iter().copied().enumerate().map(command).collect()
}
