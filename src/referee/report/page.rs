//! What the page draws, and nothing else: compact, so that a long run still makes a small file.

use serde::Serialize;

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

/// Anomalies listed per system and kind.
const ANOMALIES_MAX: usize = 20;

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

#[derive(Serialize)]
struct Anomaly {
    kind: &'static str,
    /// A name, or a group: then the timeline has no lane for it.
    key: String,
    from: f64,
    to: f64,
    text: String,
    /// Whether it breaks a promise of the system.
    broken: bool,
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
        anomalies: anomalies(run, found),
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

fn anomalies(run: &Run, found: &Findings) -> Vec<Anomaly> {
    let keeps = run.promises.one_order || run.promises.converges;
    let mut list = Vec::new();
    let mut duplicates: Vec<_> = found.duplicates.list.iter().collect();
    duplicates.sort_by(|a, b| (b.to_ms - b.from_ms).total_cmp(&(a.to_ms - a.from_ms)));
    for dup in duplicates.into_iter().take(ANOMALIES_MAX) {
        let owners = dup.owners.iter().cloned().collect::<Vec<_>>().join(" and ");
        let witness = match (dup.seen_by_clients, dup.seen_by_nodes) {
            (true, true) => "both had been told so, and nodes showed both",
            (true, false) => "both had been told so",
            (false, _) => "nodes showed both",
        };
        list.push(Anomaly {
            kind: "two owners",
            key: dup.name.clone(),
            from: dup.from_ms,
            to: dup.to_ms,
            text: format!("{owners} for {:.0} ms: {witness}", dup.to_ms - dup.from_ms),
            broken: run.promises.one_order,
        });
    }
    let cases = [
        ("lost", &found.losses.lost, keeps),
        ("at risk", &found.losses.at_risk, false),
        ("came back", &found.losses.resurrected, keeps),
    ];
    for (kind, cases, broken) in cases {
        list.extend(cases.iter().take(ANOMALIES_MAX).map(|case| Anomaly {
            kind,
            key: case.key.clone(),
            from: case.acked_ms,
            to: case.acked_ms,
            text: format!("{} (token {}): {}", case.owner, case.token, case.why),
            broken,
        }));
    }
    for stale in found.stale_reads.list.iter().take(ANOMALIES_MAX) {
        list.push(Anomaly {
            kind: "stale read",
            key: stale.key.clone(),
            from: stale.at_ms - stale.age_ms,
            to: stale.at_ms,
            text: format!("{}, although {:.0} ms before: {}", stale.read, stale.age_ms, stale.superseded_by),
            broken: run.promises.linearizable,
        });
    }
    let conflicts = &found.conflicts;
    for line in conflicts.missing.iter().chain(&conflicts.duplicate).chain(&conflicts.wrong).take(ANOMALIES_MAX) {
        let (key, text) = line.split_once(": ").unwrap_or(("", line));
        list.push(Anomaly {
            kind: "conflict record",
            key: key.to_owned(),
            from: 0.0,
            to: 0.0,
            text: text.to_owned(),
            broken: run.promises.records,
        });
    }
    list
}
