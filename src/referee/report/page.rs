//! What the page draws, and nothing else: compact, so that a long run still makes a small file.

use serde::Serialize;

use super::anomalies::{self, Anomaly};
use super::data::Run;
use super::json::{FactLine, SkippedLine, fact_lines, skipped_lines};
use super::lanes::{self, NameLanes};
use super::{Judged, prose, table};
use crate::referee::analysis::FaultFound;
use crate::referee::analysis::Findings;
use crate::referee::analysis::availability::Count;
use crate::referee::analysis::faults::ms;
use crate::referee::analysis::linearizable::CounterExample;
use crate::referee::analysis::story::Story;
use crate::referee::analysis::verdict::Verdict;
use crate::referee::history::Side;

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
    names: Vec<(String, bool)>,
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
    /// Per second, for the sides whole, majority, minority: ok, fail, info.
    availability: Vec<[[usize; 3]; 3]>,
    /// Per second: p50 and p99 in milliseconds.
    latency: Vec<Option<(f64, f64)>>,
    /// Changes only: time, distinct views, differing keys.
    divergence: Vec<(f64, usize, usize)>,
    /// Heals: time, and how long until all agreed.
    heals: Vec<(f64, Option<f64>)>,
    names: Vec<NameLanes>,
    anomalies: Vec<Anomaly>,
    counter_examples: Vec<&'a CounterExample>,
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
    let contested = |name: &String| {
        judged.findings.iter().any(|found| {
            found.conflicts.contested.contains(name) || found.duplicates.list.iter().any(|dup| &dup.name == name)
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
        names: wanted.iter().map(|name| (name.clone(), contested(name))).collect(),
        systems: set
            .runs
            .iter()
            .zip(&stories)
            .map(|(run, (story, found))| system(run, story, found, &wanted))
            .collect(),
    }
}

fn system<'a>(run: &'a Run, story: &Story<'a>, found: &'a Findings, wanted: &[String]) -> System<'a> {
    let promises = found.promises.iter().map(|promise| PromiseLine {
        id: promise.id,
        promised: promise.promised,
        verdict: promise.verdict,
        detail: &promise.detail,
        evidence: &promise.evidence,
    });
    let mut divergence: Vec<(f64, usize, usize)> = Vec::new();
    for point in &found.convergence.divergence {
        if divergence.last().is_none_or(|last| (last.1, last.2) != (point.distinct_views, point.differing_keys)) {
            divergence.push((point.at_ms, point.distinct_views, point.differing_keys));
        }
    }
    divergence.extend(found.convergence.divergence.last().map(|p| (p.at_ms, p.distinct_views, p.differing_keys)));
    System {
        name: &found.system,
        decides: found.decides,
        verdict: found.verdict,
        headline: prose::headline(found),
        summary: prose::summary(run, found),
        nodes: &run.header.nodes,
        promises: promises.collect(),
        faults: &found.faults,
        availability: availability(found),
        latency: found.latency.seconds.iter().map(|s| s.map(|q| (q.p50_ms, q.p99_ms))).collect(),
        divergence,
        heals: found.convergence.heals.iter().map(|heal| (heal.at_ms, heal.agreed_after_ms)).collect(),
        names: lanes::all(story, found, wanted),
        anomalies: anomalies::all(run, found),
        counter_examples: found.names.counter_examples.iter().chain(&found.groups.counter_examples).collect(),
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
