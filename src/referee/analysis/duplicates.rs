//! Two owners of one name at once: how long, and who.
//!
//! Two witnesses count. Clients: each was told that it holds the name, and neither has begun to give it up. Nodes: two show
//! different owners, neither of whom has begun to give it up, so that a node which merely lags behind accuses nobody.

use std::collections::BTreeSet;

use serde::Serialize;

use super::faults::{Span, ms};
use super::grants::Grant;
use super::story::Story;
use super::views::{Seen, Told};

/// A stretch in which a name had more than one owner.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Duplicate {
    pub name: String,
    pub from_ms: f64,
    pub to_ms: f64,
    pub owners: BTreeSet<String>,
    /// Owners believed it, because they had been told so.
    pub seen_by_clients: bool,
    /// Two nodes showed it.
    pub seen_by_nodes: bool,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Duplicates {
    /// Summed over names: one name with two owners for one second is one.
    pub seconds: f64,
    pub names: usize,
    /// By name, then by time.
    pub list: Vec<Duplicate>,
}

/// Someone's hold on a name, by one witness.
struct Hold<'a> {
    owner: &'a str,
    /// None: the owner's own word.
    node: Option<u64>,
    span: Span,
}

pub fn find(story: &Story) -> Duplicates {
    let mut names: BTreeSet<&str> = story.names.keys().collect();
    names.extend(story.views.iter().flat_map(|seen| seen.view.names.keys().map(String::as_str)));
    let list: Vec<Duplicate> = names.into_iter().flat_map(|name| of_name(story, name)).collect();
    let seconds = list.iter().fold(0.0, |sum, found| sum + (found.to_ms - found.from_ms) / 1e3);
    let names = list.iter().map(|found| found.name.as_str()).collect::<BTreeSet<_>>().len();
    Duplicates { seconds: (seconds * 1e3).round() / 1e3, names, list }
}

fn of_name(story: &Story, name: &str) -> Vec<Duplicate> {
    let held = held_by_clients(story, name);
    let shown = shown_by_nodes(story, name);
    let mut found: Vec<(Span, BTreeSet<String>, bool)> = Vec::new();
    for (holds, by_clients) in [(held, true), (shown, false)] {
        for (at, one) in holds.iter().enumerate() {
            // Sorted by their beginning, so that nothing after the first that begins too late can meet it.
            for other in holds[at + 1..].iter().take_while(|other| other.span.from < one.span.to) {
                if one.owner != other.owner && (by_clients || one.node != other.node) {
                    let owners = [one.owner, other.owner].map(str::to_owned).into();
                    found.extend(one.span.meet(other.span).map(|span| (span, owners, by_clients)));
                }
            }
        }
    }
    merge(name, found)
}

fn merge(name: &str, mut found: Vec<(Span, BTreeSet<String>, bool)>) -> Vec<Duplicate> {
    found.sort_by_key(|(span, _, _)| *span);
    let mut merged: Vec<(Span, BTreeSet<String>, bool, bool)> = Vec::new();
    for (span, owners, by_clients) in found {
        match merged.last_mut() {
            Some((last, all, clients, nodes)) if span.from <= last.to => {
                last.to = last.to.max(span.to);
                all.extend(owners);
                *clients |= by_clients;
                *nodes |= !by_clients;
            }
            _ => merged.push((span, owners, by_clients, !by_clients)),
        }
    }
    merged
        .into_iter()
        .map(|(span, owners, seen_by_clients, seen_by_nodes)| Duplicate {
            name: name.to_owned(),
            from_ms: ms(span.from),
            to_ms: ms(span.to),
            owners,
            seen_by_clients,
            seen_by_nodes,
        })
        .collect()
}

/// From its acknowledgement until its owner, or anybody, may have ended it; without consensus, at the latest until the
/// system had visibly taken it away.
pub fn hold_of(story: &Story, grant: &Grant) -> Span {
    let mut span = story.names.surely_held(grant, story.run_end());
    let recorded = story.is_recorded_loser(grant);
    let taken_away = recorded || story.names.may_end_at(grant).is_none();
    if !story.one_order() && taken_away {
        let records = |told: &&Told| told.records.iter().any(|r| r.name == grant.key && r.loser.1 == grant.token);
        let told = story.told.iter().filter(|_| recorded).filter(records);
        let known = told.map(|told| told.at).min().into_iter().chain(withdrawn_at(story, grant)).min();
        span.to = span.to.min(known.unwrap_or(u64::MAX)).max(span.from);
    }
    span
}

fn held_by_clients<'a>(story: &'a Story, name: &str) -> Vec<Hold<'a>> {
    let mut holds: Vec<Hold> = story
        .names
        .of(name)
        .iter()
        .map(|grant| Hold { owner: grant.owner, node: None, span: hold_of(story, grant) })
        .filter(|hold| !hold.span.is_empty())
        .collect();
    holds.sort_by_key(|hold| hold.span);
    holds
}

/// When the last node stopped showing it, if every node that showed it has been looked at since; for a grant that was never
/// shown, when its own node was first looked at and did not show it.
pub fn withdrawn_at(story: &Story, grant: &Grant) -> Option<u64> {
    let shows = |seen: &Seen| seen.view.names.get(grant.key).is_some_and(|(_, token)| token == grant.token);
    let range = story.showing(grant.key);
    let (first, showing) = (range.start, &story.views[range]);
    let Some(last) = showing.iter().rposition(shows) else {
        return story.views_from(grant.acked).find(|seen| Some(seen.node) == grant.node).map(|seen| seen.at);
    };
    let nodes: BTreeSet<u64> = showing.iter().filter(|seen| shows(seen)).map(|seen| seen.node).collect();
    let since = &story.views[first + last + 1..];
    let looked_at = nodes.iter().all(|node| since.iter().any(|seen| seen.node == *node));
    looked_at.then_some(showing[last].at)
}

/// From the first to the last of the looks in a row that showed the same grant, the node showed it all along; cut off where somebody
/// may have ended the grant.
fn shown_by_nodes<'a>(story: &'a Story, name: &str) -> Vec<Hold<'a>> {
    let mut holds = Vec::new();
    for node in &story.run.header.nodes {
        let mut row: Option<(&str, &str, Span)> = None;
        let mut end = |row: Option<(&'a str, &'a str, Span)>| {
            let Some((owner, token, mut span)) = row else { return };
            span.to = span.to.min(given_up_at(story, name, owner, token));
            if !span.is_empty() {
                holds.push(Hold { owner, node: Some(*node), span });
            }
        };
        for seen in story.views[story.showing(name)].iter().filter(|seen| seen.node == *node) {
            let now = seen.view.names.get(name).map(|(owner, token)| (owner.as_str(), token.as_str()));
            match (&mut row, now) {
                (Some((owner, token, span)), Some(now)) if now == (*owner, *token) => span.to = seen.from,
                _ => {
                    end(row.take());
                    row = now.map(|(owner, token)| (owner, token, Span { from: seen.at, to: seen.at }));
                }
            }
        }
        end(row);
    }
    holds.sort_by_key(|hold| hold.span);
    holds
}

fn given_up_at(story: &Story, name: &str, owner: &str, token: &str) -> u64 {
    match story.grant(name, token) {
        Some(grant) => story.names.may_end_at(grant).unwrap_or(u64::MAX),
        // Nobody was told of this grant: any call that could have ended it may have.
        None => {
            let asked = story.names.silent(name).iter().filter(|silent| silent.owner == owner).map(|s| s.invoked).min();
            let may = |end: &&super::grants::Ending| {
                end.token.is_none_or(|of| of == token)
                    && end.acked.is_none_or(|acked| asked.is_none_or(|at| acked >= at))
            };
            let given_up = story.names.endings(name).iter().filter(may).map(|end| end.invoked);
            let of_owner = story.names.silent(name).iter().filter(|silent| silent.owner == owner);
            given_up.chain(of_owner.filter_map(|silent| silent.lease_ends)).min().unwrap_or(u64::MAX)
        }
    }
}
