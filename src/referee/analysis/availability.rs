//! Who got an answer, when, on which side. A definite refusal is an answer.
//!
//! Calls to nodes that were killed or paused do not count, nor do those during which their node was being stopped or started.

use std::collections::BTreeMap;

use serde::Serialize;

use super::faults::{Span, ms};
use super::ops::{Op, Outcome};
use super::story::Story;
use crate::referee::history::{ANSWER_DROPPED, Side};

#[derive(Clone, Debug, Default, Serialize)]
pub struct Availability {
    /// By side, over the whole run.
    pub sides: BTreeMap<Side, Count>,
    /// Seconds since the run began, by the calls' invocations.
    pub seconds: Vec<Second>,
    /// Longest stretch from a call without an answer to the next answered one, by side.
    pub longest_unavailable_ms: BTreeMap<Side, f64>,
    /// For each fault: the longest time between two acknowledged writes, anywhere, that met it.
    pub write_gaps: Vec<WriteGap>,
    /// Calls on nodes that were up, and without an answer; at most twenty are told.
    pub unanswered: Vec<String>,
    /// Calls on nodes that were up, made while a fault was in force.
    pub in_faults: Count,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    pub ok: usize,
    pub fail: usize,
    pub info: usize,
}

impl Availability {
    /// Over all sides.
    pub fn total(&self) -> Count {
        self.sides.values().fold(Count::default(), |sum, side| Count {
            ok: sum.ok + side.ok,
            fail: sum.fail + side.fail,
            info: sum.info + side.info,
        })
    }
}

impl Count {
    pub fn add(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Ok => self.ok += 1,
            Outcome::Fail => self.fail += 1,
            Outcome::Info => self.info += 1,
        }
    }

    pub fn all(&self) -> usize {
        self.ok + self.fail + self.info
    }

    /// Percent of calls that were answered; None: there were none.
    pub fn percent(&self) -> Option<f64> {
        (self.all() > 0).then(|| (self.ok as f64 * 10_000.0 / self.all() as f64).floor() / 100.0)
    }
}

#[derive(Clone, Debug, Serialize)]
pub struct Second {
    pub second: u64,
    pub sides: BTreeMap<Side, Count>,
}

#[derive(Clone, Debug, Serialize)]
pub struct WriteGap {
    pub fault: u64,
    pub kind: String,
    pub gap_ms: f64,
    /// When the gap began.
    pub from_ms: f64,
}

const SHOWN_MAX: usize = 20;

pub fn find(story: &Story) -> Availability {
    let mut found = Availability::default();
    let counted: Vec<&Op> = story.ops.iter().filter(|op| counts(story, op)).collect();
    let last = story.run_end() / 1_000_000_000;
    found.seconds = (0..=last).map(|second| Second { second, sides: BTreeMap::new() }).collect();
    for op in &counted {
        let side = op.side.unwrap_or(Side::Whole);
        found.sides.entry(side).or_default().add(op.outcome);
        let second = (op.invoked / 1_000_000_000) as usize;
        found.seconds[second].sides.entry(side).or_default().add(op.outcome);
        if side != Side::Whole {
            found.in_faults.add(op.outcome);
        }
        if op.outcome != Outcome::Ok && found.unanswered.len() < SHOWN_MAX {
            let at = ms(op.invoked) / 1e3;
            let why = op.error.unwrap_or("no answer");
            let node = op.node.map(|node| format!(" on node {node}")).unwrap_or_default();
            found.unanswered.push(format!("{at:.3} s{node}: {} ({why})", op.tell()));
        }
    }
    for side in [Side::Whole, Side::Majority, Side::Minority] {
        let of_side: Vec<&Op> = counted.iter().copied().filter(|op| op.side.unwrap_or(Side::Whole) == side).collect();
        if !of_side.is_empty() {
            found.longest_unavailable_ms.insert(side, ms(longest_unavailable(story, &of_side)));
        }
    }
    found.write_gaps = write_gaps(story);
    found
}

/// Whether its node was there to answer.
fn counts(story: &Story, op: &Op) -> bool {
    if op.side == Some(Side::Stopped) || op.error == Some(ANSWER_DROPPED) {
        return false;
    }
    let span = Span { from: op.invoked, to: op.ended.unwrap_or_else(|| story.run_end()) };
    op.outcome == Outcome::Ok || !op.node.is_some_and(|node| story.faults.stopped_within(node, span))
}

fn longest_unavailable(story: &Story, ops: &[&Op]) -> u64 {
    let mut longest = 0;
    let mut since: Option<(u64, u64)> = None;
    for op in ops {
        let ended = op.ended.unwrap_or_else(|| story.run_end());
        match (op.outcome, since) {
            // A call may have been answered out of turn, before the ones that were invoked earlier gave up.
            (Outcome::Ok, Some((from, _))) => {
                longest = longest.max(ended.min(op.invoked.max(from)) - from);
                since = None;
            }
            (Outcome::Ok, None) => {}
            (Outcome::Fail | Outcome::Info, None) => since = Some((op.invoked, ended)),
            (Outcome::Fail | Outcome::Info, Some((from, to))) => {
                // Another fault's calls begin a new stretch.
                if op.invoked > to.saturating_add(2_000_000_000) {
                    longest = longest.max(to - from);
                    since = Some((op.invoked, ended));
                } else {
                    since = Some((from, to.max(ended)));
                }
            }
        }
    }
    since.map_or(longest, |(from, to)| longest.max(to - from))
}

fn write_gaps(story: &Story) -> Vec<WriteGap> {
    let mut acks: Vec<u64> = story.ops.iter().filter(|op| op.writes()).filter_map(Op::acked).collect();
    acks.sort_unstable();
    let felt = story.faults.felt();
    felt.filter_map(|fault| {
        let span = fault.felt(story.run_end());
        // The time before the first write and after the last is no gap between writes.
        let met = acks.windows(2).filter(|pair| pair[1] > span.from && pair[0] < span.to);
        let widest = met.max_by_key(|pair| pair[1] - pair[0])?;
        Some(WriteGap {
            fault: fault.id,
            kind: fault.kind.clone(),
            gap_ms: ms(widest[1] - widest[0]),
            from_ms: ms(widest[0]),
        })
    })
    .collect()
}
