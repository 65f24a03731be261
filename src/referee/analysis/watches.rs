//! Watches: what a watcher has to be told, held against what it was told (the list of etcd's own robustness tests: filter, ordered,
//! unique, atomic, reliable, resumable, bookmarkable).
//!
//! What there was to tell is known from all watchers together, and from every acknowledged grant. Where all changes have one number each,
//! [`exact`] asks for every number once and in order; elsewhere [`eventual`] asks for each origin's order, and for what stands at
//! the end.

mod eventual;
mod exact;

use serde::Serialize;

use super::faults::ms;
use super::story::Story;
use super::streams::{self, Stream};
use crate::referee::watched::{ChangeKind, ChangeRevision};

#[derive(Clone, Debug, Default, Serialize)]
pub struct Watches {
    pub watchers: usize,
    /// Streams that went on where another one had been.
    pub resumed: usize,
    /// Changes told, over all watchers.
    pub told: usize,
    /// Watchers that were told everything before the run ended.
    pub caught_up: usize,
    pub resyncs: usize,
    pub overflows: usize,
    pub stalls: usize,
    pub missed: Vec<String>,
    pub repeated: Vec<String>,
    pub disordered: Vec<String>,
    /// Told of what was not asked for, or never happened, or told differently to another.
    pub untrue: Vec<String>,
    /// What stands at the end is not what the watcher was told.
    pub wrong_at_end: Vec<String>,
    /// Keys that were compared at the end.
    pub compared_at_end: usize,
    /// From a grant's acknowledgement until a watcher was told of it, in milliseconds; zero if it was told before.
    pub lag_p50_ms: f64,
    pub lag_p99_ms: f64,
    pub lag_max_ms: f64,
}

pub fn find(story: &Story) -> Watches {
    let streams = streams::of(&story.run.events);
    let mut found = Watches {
        watchers: streams.len(),
        resumed: streams.iter().map(|stream| stream.resumed).sum(),
        told: streams.iter().map(|stream| stream.changes().count()).sum(),
        caught_up: streams.iter().filter(|stream| stream.caught_up.is_some()).count(),
        resyncs: streams.iter().map(Stream::resyncs).sum(),
        overflows: streams.iter().map(|stream| stream.overflows).sum(),
        stalls: streams.iter().map(|stream| stream.stalls).sum(),
        ..Watches::default()
    };
    let numbered = |stream: &Stream| stream.changes().any(|(_, r, _)| matches!(r, ChangeRevision::Number(_)));
    if streams.iter().any(numbered) {
        exact::judge(story, &streams, &mut found);
    } else {
        eventual::judge(story, &streams, &mut found);
    }
    filtered(story, &streams, &mut found);
    lags(story, &streams, &mut found);
    found
}

/// Nothing but what was asked for, and nothing that nobody ever did.
fn filtered(story: &Story, streams: &[Stream], found: &mut Watches) {
    let asked = streams::asked_for(story);
    for stream in streams {
        for change in stream.changes().flat_map(|(_, _, changes)| changes) {
            let key = change.key.as_str();
            if !key.is_empty() && !stream.wants(key) {
                found.untrue.push(format!("watcher {} was told of {key}, which it had not asked for", stream.watcher));
            }
            let new = matches!(change.kind, ChangeKind::Registered | ChangeKind::Joined);
            if new && !asked.contains(&(key, change.owner.as_str())) {
                found.untrue.push(format!(
                    "watcher {} was told that {} holds {key}, which nobody ever asked for",
                    stream.watcher, change.owner
                ));
            }
        }
    }
}

fn lags(story: &Story, streams: &[Stream], found: &mut Watches) {
    use std::collections::HashMap;
    let grants = story.names.all().filter(|grant| grant.fresh);
    let acked = grants.map(|grant| ((grant.key, grant.token), grant.acked)).collect::<HashMap<_, _>>();
    let mut lags = Vec::new();
    for stream in streams {
        for (at, _, changes) in stream.changes().filter(|(_, revision, _)| **revision != ChangeRevision::Local) {
            let new = changes.iter().filter(|change| change.kind == ChangeKind::Registered);
            let since = new.filter_map(|change| acked.get(&(change.key.as_str(), change.token.as_str())));
            lags.extend(since.map(|acked| at.saturating_sub(*acked)));
        }
    }
    lags.sort_unstable();
    let quantile = |q: f64| lags.get(((lags.len() as f64 * q).ceil() as usize).max(1) - 1).copied().map_or(0.0, ms);
    (found.lag_p50_ms, found.lag_p99_ms, found.lag_max_ms) = (quantile(0.5), quantile(0.99), quantile(1.0));
}
