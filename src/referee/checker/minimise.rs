//! From a whole history to the few calls that contradict each other.
//!
//! Dropping a call may *make* a contradiction (who wrote what was read?), so calls are not simply dropped. What remains is a genuine
//! violation of the original, because every change only allows more orders:
//! - The history is cut at the first event that nothing explains. What returned later stays as a ghost.
//! - A call left out becomes a *ghost*: it may take effect at any time, any number of times, or never. A ghost that only reads can
//!   be forgotten.
//! - What returned before the first call kept is replaced by "any state": any that the search reached at all.
//!
//! So the kept calls have no order that explains them, whatever all others did. Within that, calls are left out in ever smaller
//! pieces while the contradiction remains (Zeller & Hildebrandt 2002, *Simplifying and isolating failure-inducing input*). Tests
//! are bounded by steps, not by time: the result is the same on every machine, though it need not be the very smallest.

use super::STATES_SHOWN_MAX;
use super::frontier::Frontier;
use super::history::{Prepared, Problem};
use super::race::{Budget, Found, Watch};
use super::spec::Spec;

/// What the frontier knows about the event that it failed at.
pub(super) struct Unexplained<T> {
    pub steps: u64,
    pub states_before: Vec<T>,
    /// Every state met in the search.
    pub all_states: Vec<T>,
}

pub(super) struct Explanation {
    pub culprit: u32,
    pub states_before: Vec<String>,
    /// Whether `states_before` are all of them.
    pub states_complete: bool,
    pub calls: Vec<u32>,
    pub from_any_state: bool,
}

/// How long the frontier may take for the states; beyond it the explanation does without them.
const STATES_STEPS_MAX: u64 = 3_000_000;
/// How long all tests may take; one may take about a hundred steps for each call kept, so that ghosts whose states have no end (one
/// that appends) do not use up everything.
const TESTS_STEPS_MAX: u64 = 500_000;
const TEST_STEPS_LEAST: u64 = 2_000;
const TEST_STEPS_PER_CALL: u64 = 100;
const TEST_STEPS_PER_STATE: u64 = 10;
const TESTS_STEPS_PER_STATE: u64 = 20;

/// Explains why the return of `found` is inexplicable; `known` is what the frontier found, if it ran to that event.
///
/// Where the specification concludes from later answers, `found` may lie before the event that is inexplicable by what happened until
/// then; that event is looked for, and told if it is found.
pub(super) fn explain<S: Spec>(
    spec: &S,
    problem: &Problem<'_, S>,
    found: u32,
    known: Option<Unexplained<S::State>>,
) -> Explanation {
    let plain = spec.plain();
    let (culprit, known) = match plain.as_ref().and_then(|plain| first_event(plain, problem)) {
        Some((culprit, known)) => (culprit, Some(known)),
        // Whether the frontier was asked before must not show in the result.
        None => match known {
            Some(known) => (found, (known.steps <= STATES_STEPS_MAX).then_some(known)),
            None => (found, first_event(spec, problem).map(|(_, known)| known)),
        },
    };
    let state_count = known.as_ref().map_or(0, |known| known.all_states.len() as u64);
    let steps_left = TESTS_STEPS_MAX + TESTS_STEPS_PER_STATE * state_count;
    let spec = plain.as_ref().unwrap_or(spec);
    let mut search = Search { spec, problem, culprit, known: known.as_ref(), steps_left };
    let (calls, from_any_state) = search.run();
    let states = known.as_ref().map_or(&[][..], |known| &known.states_before);
    Explanation {
        culprit,
        states_before: states.iter().take(STATES_SHOWN_MAX).map(|state| format!("{state:?}")).collect(),
        states_complete: states.len() <= STATES_SHOWN_MAX,
        calls,
        from_any_state,
    }
}

/// The first event that nothing explains, and what is known about it; none if that takes too long to tell.
fn first_event<S: Spec>(spec: &S, problem: &Problem<'_, S>) -> Option<(u32, Unexplained<S::State>)> {
    let mut frontier = Frontier::new(spec, problem, spec.initial(), &[]);
    match frontier.run(&mut Watch::new(Budget::steps(STATES_STEPS_MAX), None)) {
        Found::Unexplained(call) => frontier.unexplained().map(|known| (call, known)),
        Found::Explained | Found::Stopped(_) => None,
    }
}

struct Search<'p, 'a, S: Spec> {
    spec: &'p S,
    problem: &'p Problem<'a, S>,
    culprit: u32,
    known: Option<&'p Unexplained<S::State>>,
    steps_left: u64,
}

impl<S: Spec> Search<'_, '_, S> {
    fn run(&mut self) -> (Vec<u32>, bool) {
        let end = self.problem.call(self.culprit).complete;
        // In the order of their invocations.
        let whole: Vec<u32> =
            (0..self.problem.calls.len() as u32).filter(|&call| self.problem.call(call).complete <= end).collect();
        let (mut kept, from) = self.window(&whole);
        let mut piece = kept.len().div_ceil(2);
        while piece > 0 && self.steps_left > 0 {
            let mut at = 0;
            while at < kept.len() {
                let (start, stop) = (at, (at + piece).min(kept.len()));
                let fewer: Vec<u32> = (0..kept.len())
                    .filter(|position| !(start..stop).contains(position) || kept[*position] == self.culprit)
                    .map(|position| kept[position])
                    .collect();
                if fewer.len() < kept.len() && self.contradicts(&fewer, from) {
                    kept = fewer;
                } else {
                    at = stop;
                }
            }
            piece = if piece == 1 { 0 } else { piece.div_ceil(2) };
        }
        (kept, from.is_some())
    }

    /// The last calls before the culprit's return that contradict each other from any state, and since when; or all calls.
    fn window(&mut self, whole: &[u32]) -> (Vec<u32>, Option<u64>) {
        let position = whole.binary_search(&self.culprit).expect("the culprit is in the history");
        let mut size = 1;
        while self.known.is_some() && size < position && self.steps_left > 0 {
            let from = self.problem.call(whole[position + 1 - size]).invoke;
            let kept: Vec<u32> = whole.iter().copied().filter(|&call| self.problem.call(call).invoke >= from).collect();
            if self.contradicts(&kept, Some(from)) {
                return (kept, Some(from));
            }
            size *= 2;
        }
        (whole.to_vec(), None)
    }

    /// Whether the kept calls have no order, all others of the time being ghosts; false also if that takes too long to tell.
    fn contradicts(&mut self, kept: &[u32], from: Option<u64>) -> bool {
        let end = self.problem.call(self.culprit).complete;
        let start = from.unwrap_or(0);
        let mut ghosts = Vec::new();
        for (call, prepared) in self.problem.calls.iter().enumerate() {
            let Prepared { invoke, complete, read, class, .. } = *prepared;
            if !read && invoke <= end && complete >= start && kept.binary_search(&(call as u32)).is_err() {
                ghosts.push(class);
            }
        }
        ghosts.sort_unstable();
        ghosts.dedup();
        let part = self.problem.part(kept);
        let initial = match (from, self.known) {
            (Some(_), Some(known)) => known.all_states.clone(),
            (None, _) | (_, None) => self.spec.initial(),
        };
        let most =
            TEST_STEPS_LEAST + TEST_STEPS_PER_CALL * kept.len() as u64 + TEST_STEPS_PER_STATE * initial.len() as u64;
        let mut watch = Watch::new(Budget::steps(most.min(self.steps_left)), None);
        let found = Frontier::new(self.spec, &part, initial, &ghosts).run(&mut watch);
        // Preparing a test is work as well.
        self.steps_left = self.steps_left.saturating_sub(watch.steps + 1 + self.problem.calls.len() as u64 / 2);
        matches!(found, Found::Unexplained(_))
    }
}
