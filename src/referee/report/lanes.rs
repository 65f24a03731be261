//! The name timeline, as data: for each name, who each node showed as its owner, who believed it of themselves, and how surely.

use crate::referee::history::Key;
use std::collections::BTreeMap;

use serde::Serialize;

use super::doubles::Double;
use crate::model::ident::NodeId;
use crate::referee::analysis::Findings;
use crate::referee::analysis::duplicates::{hold_of, withdrawn_at};
use crate::referee::analysis::faults::ms;
use crate::referee::analysis::grants::{Grant, Silent};
use crate::referee::analysis::ops::{Op, Outcome};
use crate::referee::analysis::story::Story;

/// Names that a page can hold, the most telling first.
const NAMES_MAX: usize = 60;
/// Segments, bars and calls of all names of all systems: at about 30 bytes each, they keep the page small.
pub(super) const MARKS_MAX: usize = 60_000;
/// Owners with a lane of their own, per name.
const OWNERS_MAX: usize = 12;
/// Calls shown of one name; of more, every second, third … one.
const CALLS_MAX: usize = 600;
/// Views of a node further apart than this leave a hole between them.
const HOLE_NS: u64 = 2_000_000_000;

#[derive(Serialize)]
pub(super) struct NameLanes<'a> {
    pub name: &'a str,
    /// Owner and token of each grant that a node showed.
    shown: Vec<(&'a str, &'a str)>,
    /// A lane per node, in the order of the run's nodes: from, to, and which of `shown`.
    nodes: Vec<Vec<(f64, f64, usize)>>,
    /// Calls about the name: when, at the node of which lane, and what: 0 answered, 1 refused, 2 unknown; 3 more for a write.
    calls: Vec<(f64, usize, u8)>,
    /// A lane per owner, by first grant.
    owners: Vec<OwnerLane<'a>>,
    /// Owners left out.
    more_owners: usize,
    doubles: Vec<Double>,
    resolutions: Vec<Resolution<'a>>,
}

#[derive(Serialize)]
struct OwnerLane<'a> {
    owner: &'a str,
    grants: Vec<GrantBar<'a>>,
}

/// One grant, as its owner knew it: perhaps from `asked`, surely from `acked` until `until`, perhaps until `maybe`.
#[derive(Serialize)]
struct GrantBar<'a> {
    asked: f64,
    /// None: never answered, so that nothing is sure.
    acked: Option<f64>,
    until: f64,
    /// Until when it may still have been the owner's, if that is later: an end that was asked for takes effect at some moment.
    maybe: Option<f64>,
    token: &'a str,
    node: Option<NodeId>,
    /// When its lease runs out unless it is kept alive again, by the last keep-alive that was answered; none: it has no lease.
    due: Option<f64>,
    /// Why it ended: `given up`, `lost` to another, `gone` from all nodes, or nothing: the run did.
    end: &'static str,
}

#[derive(Serialize)]
struct Resolution<'a> {
    at: f64,
    id: &'a str,
    winner: &'a str,
    loser: &'a str,
}

impl NameLanes<'_> {
    fn marks(&self) -> usize {
        self.nodes.iter().map(Vec::len).sum::<usize>()
            + self.owners.iter().map(|lane| lane.grants.len()).sum::<usize>()
            + self.calls.len()
    }
}

/// The lanes of those of the wanted names that have anything here, as many as `marks_max` allows.
pub(super) fn all<'a>(
    story: &Story<'a>,
    found: &'a Findings,
    wanted: &[&'a str],
    doubles: &[(Double, &'a str)],
    marks_max: usize,
) -> Vec<NameLanes<'a>> {
    let mut left = marks_max;
    let mut lanes = Vec::new();
    for name in wanted {
        let of_name = of_name(story, found, name, doubles);
        let marks = of_name.marks();
        if marks == 0 || marks > left {
            continue;
        }
        left -= marks;
        lanes.push(of_name);
    }
    lanes
}

/// The names that a page shows, over all systems, the most telling first.
pub(super) fn choose<'a>(stories: &[(Story<'a>, &'a Findings)]) -> Vec<&'a str> {
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
    names.into_iter().take(NAMES_MAX).map(|(name, _)| name).collect()
}

fn of_name<'a>(story: &Story<'a>, found: &'a Findings, name: &'a str, doubles: &[(Double, &'a str)]) -> NameLanes<'a> {
    let mut shown = Vec::new();
    let nodes = story.run.header.nodes.iter().map(|node| node_lane(story, *node, name, &mut shown)).collect();
    let owners = owner_lanes(story, name);
    let records = found.conflicts.list.iter().filter(|record| record.name == name);
    NameLanes {
        name,
        nodes,
        shown,
        calls: calls(story, name),
        more_owners: owners.len().saturating_sub(OWNERS_MAX),
        owners: owners.into_iter().take(OWNERS_MAX).collect(),
        doubles: doubles.iter().filter(|(_, of)| *of == name).map(|(double, _)| *double).collect(),
        resolutions: records
            .map(|record| Resolution {
                at: resolved_at(story, name, &record.loser_token).unwrap_or(ms(record.first_told)),
                id: &record.id,
                winner: &record.winner,
                loser: &record.loser,
            })
            .collect(),
    }
}

/// When the loser's grant was visibly taken away.
fn resolved_at(story: &Story, name: &str, loser_token: &str) -> Option<f64> {
    story.grant(name, loser_token).map(|grant| ms(hold_of(story, grant).to))
}

fn node_lane<'a>(
    story: &Story<'a>,
    node: NodeId,
    name: &str,
    shown: &mut Vec<(&'a str, &'a str)>,
) -> Vec<(f64, f64, usize)> {
    let looks = story.views.iter().filter(|seen| seen.node == node);
    stretches(looks.map(|seen| {
        let held = seen.view.names.get(name);
        (seen.at, held.map(|(owner, token)| place(shown, (owner, token))))
    }))
}

/// From looks in a row, when each was and what it showed: from when until when each thing was shown.
pub(super) fn stretches(looks: impl Iterator<Item = (u64, Option<usize>)>) -> Vec<(f64, f64, usize)> {
    let mut lane = Vec::new();
    let mut open: Option<(u64, u64, usize)> = None;
    for (at, now) in looks {
        if let Some((from, last, before)) = open {
            let hole = at > last + HOLE_NS;
            if !hole && now == Some(before) {
                open = Some((from, at, before));
                continue;
            }
            lane.push((ms(from), ms(if hole { last } else { at }), before));
        }
        open = now.map(|now| (at, at, now));
    }
    lane.extend(open.map(|(from, last, which)| (ms(from), ms(last), which)));
    lane
}

fn place<'a>(shown: &mut Vec<(&'a str, &'a str)>, grant: (&'a str, &'a str)) -> usize {
    shown.iter().position(|known| *known == grant).unwrap_or_else(|| {
        shown.push(grant);
        shown.len() - 1
    })
}

fn calls(story: &Story, name: &str) -> Vec<(f64, usize, u8)> {
    let nodes = &story.run.header.nodes;
    let lane = |op: &Op| nodes.iter().position(|node| Some(*node) == op.node);
    let about: Vec<(&Op, usize)> =
        story.ops.iter().filter(|op| op.key() == Key::Name(name)).filter_map(|op| Some((op, lane(op)?))).collect();
    let what = |op: &Op| {
        let outcome = match op.outcome {
            Outcome::Ok => 0,
            Outcome::Fail => 1,
            Outcome::Info => 2,
        };
        outcome + if op.writes() { 3 } else { 0 }
    };
    let step = about.len().div_ceil(CALLS_MAX).max(1);
    about.iter().step_by(step).map(|(op, lane)| (ms(op.invoked), *lane, what(op))).collect()
}

fn owner_lanes<'a>(story: &Story<'a>, name: &str) -> Vec<OwnerLane<'a>> {
    let mut lanes: Vec<OwnerLane> = Vec::new();
    let mut add = |owner, bar| match lanes.iter_mut().find(|lane| lane.owner == owner) {
        Some(lane) => lane.grants.push(bar),
        None => lanes.push(OwnerLane { owner, grants: vec![bar] }),
    };
    for grant in story.names.of(name) {
        add(grant.owner, granted(story, grant));
    }
    // Owners who were never told anything come last.
    for silent in story.names.silent(name) {
        add(silent.owner, perhaps(story, silent));
    }
    lanes
}

fn granted<'a>(story: &Story, grant: &Grant<'a>) -> GrantBar<'a> {
    let hold = hold_of(story, grant);
    let ending = story.names.endings_of(grant).min_by_key(|end| end.invoked);
    let taken_away = hold.to < story.run_end();
    let (end, maybe) = match ending {
        _ if taken_away && story.is_recorded_loser(grant) => ("lost", None),
        Some(ending) => {
            let at_last = || withdrawn_at(story, grant).unwrap_or_else(|| story.run_end());
            ("given up", Some(ending.acked.unwrap_or_else(at_last)))
        }
        None if taken_away => ("gone", None),
        None => ("", None),
    };
    let until = hold.to.max(grant.acked);
    GrantBar {
        asked: ms(grant.invoked),
        acked: Some(ms(grant.acked)),
        until: ms(until),
        maybe: maybe.filter(|maybe| *maybe > until).map(ms),
        token: grant.token,
        node: grant.node,
        due: due(story, grant),
        end,
    }
}

/// A registration that was never answered: its owner's at most until that owner learns more by asking again.
fn perhaps<'a>(story: &Story, silent: &Silent<'a>) -> GrantBar<'a> {
    let again = story.names.of(silent.key).iter().filter(|grant| grant.owner == silent.owner);
    let again = again.map(|grant| grant.acked).filter(|acked| *acked > silent.invoked).min();
    GrantBar {
        asked: ms(silent.invoked),
        acked: None,
        until: ms(silent.invoked),
        maybe: Some(ms(again.unwrap_or_else(|| story.run_end()))),
        token: "",
        node: None,
        due: None,
        end: "",
    }
}

/// Nothing of a lease that outlasts the run or was revoked.
fn due(story: &Story, grant: &Grant) -> Option<f64> {
    let lease = story.leases.get(grant.lease?).filter(|lease| !lease.proofs.is_empty() && lease.revoked.is_none())?;
    Some(lease.due()).filter(|due| *due < story.run_end()).map(ms)
}
