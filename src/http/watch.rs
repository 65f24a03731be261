//! Watching: what changes, as server-sent events, from now on or from where the reader was.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;
use axum::http::header::HeaderName;
use axum::http::request::Parts;
use futures_util::stream::{self, Stream};

use super::caller::Caller;
use super::described::{TimeoutParam, WatchProblems};
use super::events::WatchEvent;
use super::mount::Mount;
use super::params::Params;
use super::reply::{Rejection, event_stream};
use super::{levels, rights, streams};
use crate::model::event::{Filter, Told};
use crate::model::ident::{IdentError, Mode, Revision};
use crate::registry::{Position, Watch, Watching};
use crate::wire::event;

const ONCE: [&str; 3] = ["after", "initial", "timeout_ms"];
const REPEATED: [&str; 4] = ["name", "name_prefix", "group", "group_prefix"];
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// How many names, groups and prefixes one watch may ask for: each event is held against all of them.
const FILTER_LEN_MAX: usize = 256;

/// Watches names and groups: a stream of server-sent events, until the caller hangs up.
///
/// Without names, groups and prefixes: everything. One `change` is one revision with all its changes. Every `id` is a place to go
/// on from, on any node, by `Last-Event-ID` or `after=`. A reader that is too slow is told `overflow` and cut off; one that takes
/// nothing for 30 s is cut off without a word.
#[utoipa::path(get, path = "/watch", tag = "watch",
    params(
        ("name" = Option<Vec<String>>, Query, description = "This name. May be repeated, as the next three."),
        ("name_prefix" = Option<Vec<String>>, Query, description = "Names that begin so."),
        ("group" = Option<Vec<String>>, Query, description = "This group's members."),
        ("group_prefix" = Option<Vec<String>>, Query, description = "Members of groups that begin so."),
        ("after" = Option<String>, Query, description = "Go on after this position; 410 revision_compacted if it is gone."),
        ("initial" = Option<bool>, Query, description = "First what stands now, as state and then synced. Not with after."),
        TimeoutParam,
        ("last-event-id" = Option<String>, Header, description = "Go on after this position, whatever after and initial say; if it is gone, the first event is resync."),
    ),
    responses(
        (status = 200, description = "The stream: events `state` (StateBody), `change` (ChangesBody), and `synced`, `progress`, `stalled`, `resync`, `overflow` (PositionBody).", body = WatchEvent, content_type = "text/event-stream"),
        WatchProblems,
    ))]
pub async fn watch(State(mount): State<Arc<Mount>>, request: Request) -> Response<Body> {
    let arrived = Instant::now();
    let (parts, _) = request.into_parts();
    let caller = Caller::of(&parts);
    let (wanted, deadline) = match asked(mount.mode, &parts, &caller, arrived) {
        Ok(asked) => asked,
        Err(rejection) => return mount.rejected(&parts.method, &rejection),
    };
    if let Position::After(revision) = &wanted.from
        && let Err(rejection) = mount.told_once("after", revision)
    {
        return mount.rejected(&parts.method, &rejection);
    }
    let seat = match mount.shared.streams.enter() {
        Ok(seat) => seat,
        Err(rejection) => return mount.rejected(&parts.method, &rejection),
    };
    match mount.watch(wanted, deadline).await {
        Ok(watching) => event_stream(mount.mode, streams::body(seat, told(watching, caller))),
        Err(failure) => mount.no_watch(&parts.uri, &failure),
    }
}

fn asked(mode: Mode, parts: &Parts, caller: &Caller, arrived: Instant) -> Result<(Watch, Instant), Rejection> {
    let mut params = Params::parse_repeated(parts.uri.query(), &ONCE, &REPEATED)?;
    let deadline = levels::deadline(&mut params, arrived)?;
    let after = params.parsed("after", |text| Revision::parse(mode, text))?;
    let initial = levels::flag(&mut params, "initial")?;
    let filter = Filter {
        names: words(&mut params, "name", caller)?,
        name_prefixes: params.take_all("name_prefix"),
        groups: words(&mut params, "group", caller)?,
        group_prefixes: params.take_all("group_prefix"),
    };
    let len = filter.names.len() + filter.name_prefixes.len() + filter.groups.len() + filter.group_prefixes.len();
    if len > FILTER_LEN_MAX {
        return Err(Rejection::malformed(format!("a watch may ask for {FILTER_LEN_MAX} names, groups and prefixes")));
    }
    if after.is_some() && initial {
        return Err(Rejection::malformed("after and initial exclude one another"));
    }
    // A browser that connects again sends the same URL as before: what it heard last counts more.
    let (from, initial) = match (last_event_id(mode, parts)?, after) {
        (Some(last), _) => (Position::Resume(last), false),
        (None, Some(after)) => (Position::After(after), false),
        (None, None) => (Position::Now, initial),
    };
    Ok((Watch { filter, from, initial }, deadline))
}

fn words<T>(params: &mut Params, parameter: &'static str, caller: &Caller) -> Result<Vec<T>, Rejection>
where
    T: FromStr<Err = IdentError>,
{
    let word = |text: String| match caller.may_read(&text) {
        true => text.parse().map_err(Rejection::ident),
        false => Err(Rejection::forbidden("read", &text)),
    };
    params.take_all(parameter).into_iter().map(word).collect()
}

fn last_event_id(mode: Mode, parts: &Parts) -> Result<Option<Revision>, Rejection> {
    let Some(value) = parts.headers.get(LAST_EVENT_ID) else { return Ok(None) };
    let text = value.to_str().map_err(|_| Rejection::malformed("Last-Event-ID is not visible ASCII"))?;
    // That is what a browser sends that has heard no id yet.
    if text.is_empty() {
        return Ok(None);
    }
    Revision::parse(mode, text).map(Some).map_err(|why| Rejection::malformed(format!("Last-Event-ID: {why}")))
}

/// What is told to this caller, as events.
fn told(watching: Box<dyn Watching>, caller: Caller) -> impl Stream<Item = Vec<u8>> + Send {
    stream::unfold(Some((watching, caller)), |under_way| async move {
        let (mut watching, caller) = under_way?;
        loop {
            let message = watching.next().await?;
            let over = message.told == Told::Overflow;
            if let Some(message) = rights::message(message, &caller) {
                return Some((event::message(&message), (!over).then_some((watching, caller))));
            }
        }
    })
}
