//! What the page draws, and nothing else: compact, so that a long run still makes a small file.

use serde::Serialize;

use super::anomalies::{self, Anomalies};
use super::data::Run;
use super::groups::{self, GroupStrip};
use super::json::{FactLine, SkippedLine, fact_lines, skipped_lines};
use super::lanes::{self, NameLanes};
use super::{Judged, doubles, prose, table};
use crate::model::ident::NodeId;
use crate::referee::analysis::FaultFound;
use crate::referee::analysis::Findings;
use crate::referee::analysis::availability::Count;
use crate::referee::analysis::convergence::Point;
use crate::referee::analysis::faults::ms;
use crate::referee::analysis::story::Story;
use crate::referee::analysis::verdict::Verdict;
use crate::referee::history::Side;

/// Calls that anomalies cite, of all systems, in bytes.
const CALLS_BYTES_MAX: usize = 1_500_000;
/// Steps of the divergence that a chart can show; of more, the worst in each stretch.
const STEPS_MAX: usize = 1_500;

#[derive(Serialize)]
pub(super) struct Page<'a> {
    version: &'a str,
    seed: u64,
    command: &'a str,
    started_at: &'a str,
    verdict: Option<Verdict>,
    /// Milliseconds: the end of the longest run.
    end: f64,
    facts: Vec<FactLine<'a>>,
    skipped: Vec<SkippedLine<'a>>,
    /// Promise ids and titles, in the order of the verdict's rows.
    rows: Vec<(&'a str, &'a str)>,
    figures: Vec<FigureRow>,
    /// The names that the timeline offers, and whether each was contested.
    names: Vec<(&'a str, bool)>,
    /// The groups that the strip offers.
    groups: Vec<&'a str>,
    systems: Vec<System<'a>>,
}

#[derive(Serialize)]
struct FigureRow {
    title: &'static str,
    values: Vec<Option<String>>,
}

#[derive(Serialize)]
struct System<'a> {
    name: &'a str,
    decides: bool,
    verdict: Verdict,
    headline: String,
    summary: String,
    nodes: &'a [u64],
    promises: Vec<PromiseLine<'a>>,
    faults: &'a [FaultFound],
    /// Who said of itself that it leads: node, from, to.
    leaders: Vec<(NodeId, f64, f64)>,
    /// Per second, for the sides whole, majority, minority: ok, fail, info.
    availability: Vec<[[usize; 3]; 3]>,
    /// Per second: p50, p99 and the slowest, in milliseconds.
    latency: Vec<Option<(f64, f64, f64)>>,
    /// Time, distinct views, differing keys.
    divergence: Vec<(f64, usize, usize)>,
    /// Heals: time, and how long until all agreed.
    heals: Vec<(f64, Option<f64>)>,
    names: Vec<NameLanes<'a>>,
    groups: Vec<GroupStrip<'a>>,
    anomalies: Anomalies,
    facts: Vec<FactLine<'a>>,
}

#[derive(Serialize)]
struct PromiseLine<'a> {
    id: &'a str,
    promised: bool,
    verdict: Verdict,
    detail: &'a str,
    evidence: &'a [String],
}

pub(super) fn page(judged: &Judged) -> Page<'_> {
    let set = &judged.set;
    let stories: Vec<(Story, &Findings)> = set.runs.iter().map(Story::of).zip(&judged.findings).collect();
    let wanted = lanes::choose(&stories);
    let groups = groups::choose(stories.iter().map(|(story, _)| story));
    let contested = |name: &str| {
        judged.findings.iter().any(|found| {
            found.conflicts.contested.iter().any(|other| other == name)
                || found.duplicates.list.iter().any(|dup| dup.name == name)
        })
    };
    let figures = table::FIGURES
        .iter()
        .map(|(title, figure)| FigureRow { title, values: judged.findings.iter().map(figure).collect() });
    Page {
        version: &set.version,
        seed: set.seed,
        command: &set.command,
        started_at: &set.started_at,
        verdict: judged.verdict(),
        end: stories.iter().map(|(story, _)| ms(story.run_end())).fold(1.0, f64::max),
        facts: fact_lines(&set.facts),
        skipped: skipped_lines(judged),
        rows: table::titles(judged),
        figures: figures.collect(),
        names: wanted.iter().map(|name| (*name, contested(name))).collect(),
        systems: set
            .runs
            .iter()
            .zip(&stories)
            .map(|(run, (story, found))| system(run, story, found, &wanted, &groups, set.runs.len()))
            .collect(),
        groups,
    }
}

fn system<'a>(
    run: &'a Run,
    story: &Story<'a>,
    found: &'a Findings,
    wanted: &[&'a str],
    groups: &[&'a str],
    systems: usize,
) -> System<'a> {
    let promises = found.promises.iter().map(|promise| PromiseLine {
        id: promise.id,
        promised: promise.promised,
        verdict: promise.verdict,
        detail: &promise.detail,
        evidence: &promise.evidence,
    });
    let doubles = doubles::numbered(found);
    System {
        name: &found.system,
        decides: found.decides,
        verdict: found.verdict,
        headline: prose::headline(found),
        summary: prose::summary(run, found),
        nodes: &run.header.nodes,
        promises: promises.collect(),
        faults: &found.faults,
        leaders: leaders(story),
        availability: availability(found),
        latency: found.latency.seconds.iter().map(|s| s.map(|q| (q.p50_ms, q.p99_ms, q.max_ms))).collect(),
        divergence: divergence(&found.convergence.divergence),
        heals: found.convergence.heals.iter().map(|heal| (heal.at_ms, heal.agreed_after_ms)).collect(),
        names: lanes::all(story, found, wanted, &doubles, lanes::MARKS_MAX / systems),
        groups: groups::all(story, groups, groups::STRETCHES_MAX / systems),
        anomalies: anomalies::of(run, story, found, &doubles, CALLS_BYTES_MAX / systems),
        facts: fact_lines(&run.facts),
    }
}

fn availability(found: &Findings) -> Vec<[[usize; 3]; 3]> {
    let of = |count: Option<&Count>| count.map_or([0; 3], |count| [count.ok, count.fail, count.info]);
    let seconds = found.availability.seconds.iter();
    seconds
        .map(|second| [Side::Whole, Side::Majority, Side::Minority].map(|side| of(second.sides.get(&side))))
        .collect()
}

/// Changes only, and of very many the worst in each stretch.
fn divergence(points: &[Point]) -> Vec<(f64, usize, usize)> {
    let mut changes: Vec<(f64, usize, usize)> = Vec::new();
    for point in points {
        if changes.last().is_none_or(|last| (last.1, last.2) != (point.distinct_views, point.differing_keys)) {
            changes.push((point.at_ms, point.distinct_views, point.differing_keys));
        }
    }
    let stretch = changes.len().div_ceil(STEPS_MAX).max(1);
    let worst = |of: &[(f64, usize, usize)]| of.iter().copied().max_by_key(|(_, views, keys)| (*views, *keys));
    let mut steps: Vec<_> = changes.chunks(stretch).filter_map(worst).collect();
    steps.extend(points.last().map(|last| (last.at_ms, last.distinct_views, last.differing_keys)));
    steps
}

/// From when until when a node said that it leads.
fn leaders(story: &Story) -> Vec<(NodeId, f64, f64)> {
    let mut list = Vec::new();
    for node in &story.run.header.nodes {
        let mut open: Option<(u64, u64)> = None;
        for seen in story.views.iter().filter(|seen| seen.node == *node) {
            if seen.view.leader == Some(*node) {
                open = Some((open.map_or(seen.at, |(from, _)| from), seen.at));
            } else if let Some((from, _)) = open.take() {
                list.push((*node, ms(from), ms(seen.at)));
            }
        }
        list.extend(open.map(|(from, last)| (*node, ms(from), ms(last))));
    }
    list.sort_by(|a, b| a.1.total_cmp(&b.1));
    list
}
