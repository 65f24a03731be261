//! How far the nodes' own views differ over time, and how long after each heal they agree for good.
//!
//! Views are taken one after another while clients write. So a name or group counts in a comparison only if no client wrote to it
//! for a while before the oldest of the views compared: what still differs then is no matter of milliseconds.

use crate::referee::history::Key;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use serde::Serialize;

use super::faults::{Fault, Span, ms, ns};
use super::story::Story;
use super::views::Seen;
use crate::model::ident::NodeId;

/// A name or group written to within this long is left out of a comparison.
const SETTLE_NS: u64 = 1_000_000_000;
/// A view older than this says nothing of a node's present.
const FRESH_NS: u64 = 2_000_000_000;
/// Names listed of a heal without agreement.
const SHOWN_MAX: usize = 10;

#[derive(Clone, Debug, Default, Serialize)]
pub struct Convergence {
    pub heals: Vec<Heal>,
    /// How the views differ after each look, over time.
    pub divergence: Vec<Point>,
    /// Names and groups on which the last views of all nodes differ.
    pub differing_at_end: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Heal {
    pub fault: u64,
    pub kind: String,
    pub at_ms: f64,
    /// From the heal until all nodes agreed and stayed so; None: they did not.
    pub agreed_after_ms: Option<f64>,
    /// From the heal until they were last seen to differ; None: they never were.
    pub differed_until_ms: Option<f64>,
    /// From the heal until the next fault or the end of the run.
    pub watched_ms: f64,
    /// Comparisons of views of all nodes, all taken after the heal.
    pub comparisons: usize,
    /// What still differed in the last of them.
    pub differing: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Point {
    pub at_ms: f64,
    /// Nodes in the comparison.
    pub nodes: usize,
    pub distinct_views: usize,
    pub differing_keys: usize,
}

/// The latest views of all nodes that are up, at one moment.
struct Round {
    span: Span,
    nodes: usize,
    complete: bool,
    distinct: usize,
    differing: BTreeSet<String>,
}

pub fn find(story: &Story) -> Convergence {
    let writes = writes(story);
    let rounds = rounds(story, &writes);
    let mut found = Convergence { differing_at_end: differing_at_end(story), ..Convergence::default() };
    for fault in story.faults.felt() {
        let Some(end) = fault.end else { continue };
        let healed = end.to;
        let still = |other: &&Fault| !other.lasts && other.id != fault.id && other.felt(story.run_end()).from <= healed;
        if story.faults.felt().filter(still).any(|other| other.felt(story.run_end()).to > healed) {
            continue;
        }
        let until = story.faults.next_begin(healed);
        let after: Vec<&Round> = rounds
            .iter()
            .filter(|round| round.complete && round.span.from >= healed && round.span.to <= until)
            .collect();
        let agreed_from = match after.iter().rposition(|round| !round.differing.is_empty()) {
            None => after.first(),
            Some(last) => after.get(last + 1),
        };
        found.heals.push(Heal {
            fault: fault.id,
            kind: fault.kind.clone(),
            at_ms: ms(healed),
            differed_until_ms: after.iter().rfind(|r| !r.differing.is_empty()).map(|r| ms(r.span.to - healed)),
            agreed_after_ms: agreed_from.map(|round| ms(round.span.to - healed)),
            watched_ms: ms(until - healed),
            comparisons: after.len(),
            differing: after
                .last()
                .map(|round| round.differing.iter().take(SHOWN_MAX).cloned().collect())
                .unwrap_or_default(),
        });
    }
    found.divergence = rounds
        .iter()
        .filter(|round| round.nodes > 1)
        .map(|round| Point {
            at_ms: ms(round.span.to),
            nodes: round.nodes,
            distinct_views: round.distinct,
            differing_keys: round.differing.len(),
        })
        .collect();
    found
}

type Writes<'a> = HashMap<Key<'a>, Vec<Span>>;

fn writes<'a>(story: &Story<'a>) -> Writes<'a> {
    let mut writes: Writes = HashMap::new();
    for op in story.ops.iter().filter(|op| op.changes()) {
        writes.entry(op.key()).or_default().push(Span { from: op.invoked, to: op.ended.unwrap_or(op.invoked) });
    }
    for (key, from, to) in story.expiries() {
        writes.entry(key).or_default().push(Span { from, to });
    }
    writes
}

fn rounds(story: &Story, writes: &Writes) -> Vec<Round> {
    let mut latest: BTreeMap<NodeId, &Seen> = BTreeMap::new();
    let mut rounds = Vec::new();
    for seen in &story.views {
        latest.insert(seen.node, seen);
        let now = Span { from: seen.at, to: seen.at };
        let up: Vec<NodeId> =
            story.core().iter().copied().filter(|node| !story.faults.stopped_within(*node, now)).collect();
        let fresh: Vec<&Seen> = up
            .iter()
            .filter_map(|node| latest.get(node).copied())
            .filter(|view| view.from + FRESH_NS >= seen.at)
            .collect();
        let Some(oldest) = fresh.iter().map(|view| view.from).min() else { continue };
        let span = Span { from: oldest, to: seen.at };
        let quiet = |key: Key| {
            let recent = Span { from: span.from.saturating_sub(SETTLE_NS), to: span.to };
            !writes.get(&key).is_some_and(|spans| spans.iter().any(|write| write.touches(recent)))
        };
        let (distinct, differing) = compare(&fresh, quiet);
        rounds.push(Round { span, nodes: fresh.len(), complete: fresh.len() == up.len(), distinct, differing });
    }
    rounds
}

/// How many different views there are, and on which keys they differ.
fn compare(views: &[&Seen], counts: impl Fn(Key) -> bool) -> (usize, BTreeSet<String>) {
    let names: BTreeSet<&str> = views.iter().flat_map(|seen| seen.view.names.keys().map(String::as_str)).collect();
    let groups: BTreeSet<&str> = views.iter().flat_map(|seen| seen.view.groups.keys().map(String::as_str)).collect();
    let mut prints: Vec<Vec<usize>> = vec![Vec::new(); views.len()];
    let mut differing = BTreeSet::new();
    let mut column = |key: &str, classes: Vec<usize>| {
        if classes.iter().any(|class| *class != 0) {
            differing.insert(key.to_owned());
        }
        prints.iter_mut().zip(classes).for_each(|(print, class)| print.push(class));
    };
    for name in names.into_iter().filter(|name| counts(Key::Name(name))) {
        column(name, classes(views.iter().map(|seen| seen.view.names.get(name)).collect()));
    }
    for group in groups.into_iter().filter(|group| counts(Key::Group(group))) {
        // A group that nobody is in is as good as none.
        let members = views.iter().map(|seen| seen.view.groups.get(group).filter(|members| !members.is_empty()));
        column(group, classes(members.collect()));
    }
    let distinct: BTreeSet<Vec<usize>> = prints.into_iter().collect();
    (distinct.len(), differing)
}

/// For each value, the place of the first value that equals it.
fn classes<T: PartialEq>(values: Vec<T>) -> Vec<usize> {
    values.iter().map(|value| values.iter().position(|other| other == value).unwrap_or_default()).collect()
}

fn differing_at_end(story: &Story) -> Vec<String> {
    let mut last: BTreeMap<NodeId, &Seen> = BTreeMap::new();
    story.views.iter().filter(|seen| story.in_core(seen.node)).for_each(|seen| {
        last.insert(seen.node, seen);
    });
    let views: Vec<&Seen> = last.into_values().collect();
    let oldest = views.iter().map(|seen| seen.from).min().unwrap_or(0);
    compare(&views, |key| story.final_from(key).is_some_and(|from| from <= oldest)).1.into_iter().collect()
}

impl Convergence {
    /// The longest time that any heal took which was seen to end in agreement.
    pub fn slowest_ms(&self) -> Option<f64> {
        self.heals.iter().filter_map(|heal| heal.agreed_after_ms).max_by(f64::total_cmp)
    }

    /// Heals after which nodes were seen to differ later than `bound`.
    pub fn failures(&self, bound: Duration) -> Vec<&Heal> {
        let bound_ms = ms(ns(bound));
        self.heals.iter().filter(|heal| heal.differed_until_ms.is_some_and(|until| until > bound_ms)).collect()
    }
}
