//! How long answers took, by call and phase, and second by second.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::availability::Count;
use super::ops::Op;
use super::story::Story;

/// Before the first fault, while any is felt, and all other time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    Before,
    During,
    After,
}

impl Phase {
    pub fn of(story: &Story, at: u64) -> Self {
        if story.faults.during(at) {
            Phase::During
        } else if story.faults.before_first(at) {
            Phase::Before
        } else {
            Phase::After
        }
    }
}

/// Of answered calls, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Quantiles {
    pub count: u64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Latency {
    pub by_phase: BTreeMap<Phase, BTreeMap<&'static str, Quantiles>>,
    /// All calls together.
    pub phases: BTreeMap<Phase, Quantiles>,
    /// Calls of every outcome, on nodes that were up or not.
    pub counts: BTreeMap<Phase, BTreeMap<&'static str, Count>>,
    /// By the second of the invocation; None: no answer.
    pub seconds: Vec<Option<Quantiles>>,
}

/// One hour, in microseconds, to three figures: a run's deadlines are seconds.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("the bounds are legal")
}

pub fn find(story: &Story) -> Latency {
    let mut by_phase: BTreeMap<(Phase, &'static str), Histogram<u64>> = BTreeMap::new();
    let mut phases: BTreeMap<Phase, Histogram<u64>> = BTreeMap::new();
    let mut seconds: BTreeMap<u64, Histogram<u64>> = BTreeMap::new();
    let mut found = Latency::default();
    for op in &story.ops {
        let phase = Phase::of(story, op.invoked);
        found.counts.entry(phase).or_default().entry(op.f()).or_default().add(op.outcome);
        let Some(ended) = Op::acked(op) else { continue };
        let micros = (ended - op.invoked).div_ceil(1_000);
        by_phase.entry((phase, op.f())).or_insert_with(histogram).saturating_record(micros);
        phases.entry(phase).or_insert_with(histogram).saturating_record(micros);
        seconds.entry(op.invoked / 1_000_000_000).or_insert_with(histogram).saturating_record(micros);
    }
    for ((phase, f), histogram) in by_phase {
        found.by_phase.entry(phase).or_default().insert(f, quantiles(&histogram));
    }
    found.phases = phases.iter().map(|(phase, histogram)| (*phase, quantiles(histogram))).collect();
    found.seconds = (0..=story.run_end() / 1_000_000_000).map(|s| seconds.get(&s).map(quantiles)).collect();
    found
}

fn quantiles(histogram: &Histogram<u64>) -> Quantiles {
    let at = |q: f64| histogram.value_at_quantile(q) as f64 / 1e3;
    Quantiles {
        count: histogram.len(),
        p50_ms: at(0.5),
        p90_ms: at(0.9),
        p99_ms: at(0.99),
        max_ms: histogram.max() as f64 / 1e3,
    }
}
