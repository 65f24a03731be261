//! The name timeline, as data: for each name, who each node believed owned it, and who believed it of themselves.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::model::ident::NodeId;
use crate::referee::analysis::Findings;
use crate::referee::analysis::duplicates::hold_of;
use crate::referee::analysis::faults::ms;
use crate::referee::analysis::story::Story;

/// Names that a page can hold, the most telling first.
const NAMES_MAX: usize = 60;
/// Segments of all names of one system: at about 40 bytes each, they keep the page small.
const SEGMENTS_MAX: usize = 25_000;
/// Owners with a lane of their own, per name.
const OWNERS_MAX: usize = 12;
/// Views of a node further apart than this leave a hole between them.
const HOLE_NS: u64 = 2_000_000_000;

#[derive(Serialize)]
pub(super) struct NameLanes {
    pub name: String,
    /// A lane per node, in the order of the run's nodes.
    nodes: Vec<Vec<Segment>>,
    /// A lane per owner, by first grant.
    owners: Vec<OwnerLane>,
    /// Owners left out.
    more_owners: usize,
    /// More than one owner at once.
    duplicates: Vec<(f64, f64)>,
    resolutions: Vec<Resolution>,
}

/// From, to (milliseconds) and owner.
type Segment = (f64, f64, String);

#[derive(Serialize)]
struct OwnerLane {
    owner: String,
    grants: Vec<GrantBar>,
}

/// One grant, as its owner knew it.
#[derive(Serialize)]
struct GrantBar {
    asked: f64,
    acked: f64,
    until: f64,
    token: String,
    node: Option<NodeId>,
    /// Why it ended: `given up`, `lost` to another, `gone` from all nodes, or nothing: the run did.
    end: &'static str,
}

#[derive(Serialize)]
struct Resolution {
    at: f64,
    id: String,
    winner: String,
    loser: String,
}

/// The lanes of the names that tell most: contested ones first, then those with most going on. `wanted` are kept in any case.
pub(super) fn all(story: &Story, found: &Findings, wanted: &[String]) -> Vec<NameLanes> {
    let mut left = SEGMENTS_MAX;
    let mut lanes = Vec::new();
    for name in wanted {
        let of_name = of_name(story, found, name);
        let size = of_name.nodes.iter().map(Vec::len).sum::<usize>()
            + of_name.owners.iter().map(|lane| lane.grants.len()).sum::<usize>();
        if size > left {
            continue;
        }
        left -= size;
        lanes.push(of_name);
    }
    lanes
}

/// The names that a page shows, over all systems, the most telling first.
pub(super) fn choose(stories: &[(Story, &Findings)]) -> Vec<String> {
    let mut interest: BTreeMap<&str, f64> = BTreeMap::new();
    for (story, found) in stories {
        // Few grants make a picture that can be read; very many make noise.
        for grant in story.names.all() {
            *interest.entry(grant.key).or_default() -= 3.0;
        }
        for duplicate in &found.duplicates.list {
            *interest.entry(&duplicate.name).or_default() += (duplicate.to_ms - duplicate.from_ms) / 200.0;
        }
        for name in &found.conflicts.contested {
            *interest.entry(name).or_default() += 100.0;
        }
        for name in &found.names.not_linearizable {
            *interest.entry(name).or_default() += 2.0;
        }
        for case in found.losses.lost.iter().chain(&found.losses.resurrected).filter(|case| case.of == "name") {
            *interest.entry(&case.key).or_default() += 200.0;
        }
    }
    let mut names: Vec<(&str, f64)> = interest.into_iter().collect();
    names.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(b.0)));
    names.into_iter().take(NAMES_MAX).map(|(name, _)| name.to_owned()).collect()
}

fn of_name(story: &Story, found: &Findings, name: &str) -> NameLanes {
    let owners = owner_lanes(story, name);
    let more_owners = owners.len().saturating_sub(OWNERS_MAX);
    let duplicates = found.duplicates.list.iter().filter(|duplicate| duplicate.name == name);
    let records = found.conflicts.list.iter().filter(|record| record.name == name);
    NameLanes {
        name: name.to_owned(),
        nodes: story.run.header.nodes.iter().map(|node| node_lane(story, *node, name)).collect(),
        owners: owners.into_iter().take(OWNERS_MAX).collect(),
        more_owners,
        duplicates: duplicates.map(|duplicate| (duplicate.from_ms, duplicate.to_ms)).collect(),
        resolutions: records
            .map(|record| Resolution {
                at: resolved_at(story, name, &record.loser_token).unwrap_or(ms(record.first_told)),
                id: record.id.clone(),
                winner: record.winner.clone(),
                loser: record.loser.clone(),
            })
            .collect(),
    }
}

/// When the loser's grant was visibly taken away.
fn resolved_at(story: &Story, name: &str, loser_token: &str) -> Option<f64> {
    story.grant(name, loser_token).map(|grant| ms(hold_of(story, grant).to))
}

fn node_lane(story: &Story, node: NodeId, name: &str) -> Vec<Segment> {
    let mut lane: Vec<Segment> = Vec::new();
    let mut open: Option<(u64, u64, &str)> = None;
    for seen in story.views.iter().filter(|seen| seen.node == node) {
        let owner = seen.view.names.get(name).map(|(owner, _)| owner.as_str());
        if let Some((from, last, before)) = open {
            let hole = seen.at > last + HOLE_NS;
            if !hole && owner == Some(before) {
                open = Some((from, seen.at, before));
                continue;
            }
            lane.push((ms(from), ms(if hole { last } else { seen.at }), before.to_owned()));
        }
        open = owner.map(|owner| (seen.at, seen.at, owner));
    }
    lane.extend(open.map(|(from, last, owner)| (ms(from), ms(last), owner.to_owned())));
    lane
}

fn owner_lanes(story: &Story, name: &str) -> Vec<OwnerLane> {
    let mut seen = BTreeSet::new();
    let mut lanes: Vec<OwnerLane> = Vec::new();
    for grant in story.names.of(name) {
        let hold = hold_of(story, grant);
        let given_up = story.names.may_end_at(grant);
        let end = match given_up {
            _ if story.is_recorded_loser(grant) && hold.to < story.run_end() => "lost",
            Some(_) => "given up",
            None if hold.to < story.run_end() => "gone",
            None => "",
        };
        let bar = GrantBar {
            asked: ms(grant.invoked),
            acked: ms(grant.acked),
            until: ms(hold.to.max(grant.acked)),
            token: grant.token.to_owned(),
            node: grant.node,
            end,
        };
        if seen.insert(grant.owner) {
            lanes.push(OwnerLane { owner: grant.owner.to_owned(), grants: Vec::new() });
        }
        if let Some(lane) = lanes.iter_mut().find(|lane| lane.owner == grant.owner) {
            lane.grants.push(bar);
        }
    }
    lanes
}
