//! `report.json`, format 1: every finding, for scripts. Fields are added, never changed, within a format.

use std::io;

use serde::Serialize;
use serde_json::Value;

use super::{Judged, prose};
use crate::referee::analysis::Findings;
use crate::referee::analysis::verdict::Verdict;

#[derive(Serialize)]
struct Report<'a> {
    format: u32,
    version: &'a str,
    seed: u64,
    command: &'a str,
    started_at: &'a str,
    /// Of the systems that decide; null if none of those that ran does.
    verdict: Option<Verdict>,
    facts: Vec<FactLine<'a>>,
    systems: Vec<System<'a>>,
    skipped: Vec<SkippedLine<'a>>,
    schedule: &'a Value,
}

#[derive(Serialize)]
pub(super) struct FactLine<'a> {
    pub what: &'a str,
    pub value: &'a str,
}

#[derive(Serialize)]
pub(super) struct SkippedLine<'a> {
    pub system: &'a str,
    pub why: &'a str,
}

#[derive(Serialize)]
struct System<'a> {
    summary: String,
    nodes: &'a [u64],
    /// Equal hashes: the systems were put through the same faults.
    schedule_hash: &'a str,
    bounds_ms: Bounds,
    facts: Vec<FactLine<'a>>,
    #[serde(flatten)]
    findings: &'a Findings,
}

#[derive(Serialize)]
struct Bounds {
    election: u128,
    convergence: u128,
    confirmation: u128,
}

pub(super) fn fact_lines(facts: &[super::data::Fact]) -> Vec<FactLine<'_>> {
    facts.iter().map(|fact| FactLine { what: &fact.what, value: &fact.value }).collect()
}

pub(super) fn skipped_lines(judged: &Judged) -> Vec<SkippedLine<'_>> {
    judged.set.skipped.iter().map(|skipped| SkippedLine { system: &skipped.system, why: &skipped.why }).collect()
}

pub(super) fn text(judged: &Judged) -> io::Result<String> {
    let set = &judged.set;
    let systems = set.runs.iter().zip(&judged.findings).map(|(run, findings)| System {
        summary: prose::summary(run, findings),
        nodes: &run.header.nodes,
        schedule_hash: &run.header.schedule,
        bounds_ms: Bounds {
            election: run.bounds.election.as_millis(),
            convergence: run.bounds.convergence.as_millis(),
            confirmation: run.bounds.confirmation.as_millis(),
        },
        facts: fact_lines(&run.facts),
        findings,
    });
    let report = Report {
        format: 1,
        version: &set.version,
        seed: set.seed,
        command: &set.command,
        started_at: &set.started_at,
        verdict: judged.verdict(),
        facts: fact_lines(&set.facts),
        systems: systems.collect(),
        skipped: skipped_lines(judged),
        schedule: &set.schedule,
    };
    let mut text = serde_json::to_string_pretty(&report)?;
    text.push('\n');
    Ok(text)
}
