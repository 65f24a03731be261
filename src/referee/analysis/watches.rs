//! Watches: what a watcher has to be told, held against what it was told (the list of etcd's own robustness tests: filter, ordered,
//! unique, atomic, reliable, resumable, bookmarkable).
//!
//! What there was to tell is known from all watchers together, and from every acknowledged grant. Where all changes have one number each,
//! [`exact`] asks for every number once and in order; elsewhere [`eventual`] asks for each origin's order, and for what stands at
//! the end.

mod eventual;
mod exact;

use serde::Serialize;

use super::evidence::Evidence;
use super::faults::{Span, ms};
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
    pub missed: Vec<Evidence>,
    pub repeated: Vec<Evidence>,
    pub disordered: Vec<Evidence>,
    /// Told of what was not asked for, or never happened, or told differently to another.
    pub untrue: Vec<Evidence>,
    /// What stands at the end is not what the watcher was told.
    pub wrong_at_end: Vec<Evidence>,
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
        let told = stream.changes().flat_map(|(at, _, changes)| changes.iter().map(move |change| (at, change)));
        for (at, change) in told {
            let (key, watcher, span) = (change.key.as_str(), stream.watcher, Span { from: at, to: at });
            if !key.is_empty() && !stream.wants(key) {
                let what = format!("watcher {watcher} was told of it, which it had not asked for");
                let calls = calls_of(story, change.kind, key, &change.token);
                found.untrue.push(Evidence::new(key, what, span, calls));
            }
            let new = matches!(change.kind, ChangeKind::Registered | ChangeKind::Joined);
            if new && !asked.contains(&(key, change.owner.as_str())) {
                let what =
                    format!("watcher {watcher} was told that {} holds it, which nobody ever asked for", change.owner);
                found.untrue.push(Evidence::new(key, what, span, []));
            }
        }
    }
}

/// The calls that made such a change of this grant, as far as the story knows them: that granted it, and, of an end, that may have
/// ended it.
fn calls_of(story: &Story, kind: ChangeKind, key: &str, token: &str) -> Vec<usize> {
    let mut calls = Vec::new();
    for grants in [&story.names, &story.groups] {
        for grant in grants.of(key).iter().filter(|grant| grant.token == token) {
            calls.push(grant.op);
            calls.extend(grants.endings_of(grant).filter(|_| !kind.stands()).map(|ending| ending.op));
        }
    }
    calls
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
