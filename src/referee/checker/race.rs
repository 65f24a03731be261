//! One object's history, two engines: the first to know decides.
//!
//! Both are sound and complete, so the verdict does not depend on which one is quicker; only whether there is one before the budget
//! ends does. The depth-first search has a head start, because most histories are legal and it explains those in one pass; then both
//! run, each on a thread.

use std::sync::atomic::{AtomicBool, Ordering};

use super::dfs::Dfs;
use super::frontier::Frontier;
use super::history::{Call, Problem};
use super::minimise::{self, Unexplained};
use super::spec::Spec;
use super::{Verdict, Violation};

/// How long a check may go on. The clock, if there is one, is the caller's.
#[derive(Clone, Copy)]
pub struct Budget<'a> {
    stop: Option<&'a (dyn Fn() -> bool + Sync)>,
    steps: u64,
}

impl<'a> Budget<'a> {
    /// Until it is done, or memory for the search (about 1 GB an object) is used up.
    pub fn unlimited() -> Self {
        Self { stop: None, steps: u64::MAX }
    }

    /// Until `stop` says true; it is asked every few thousand steps.
    pub fn until(stop: &'a (dyn Fn() -> bool + Sync)) -> Self {
        Self { stop: Some(stop), steps: u64::MAX }
    }

    /// At most so many steps of each engine for each object: a verdict that is the same on every machine.
    pub fn steps(steps: u64) -> Self {
        Self { stop: None, steps }
    }
}

/// Which engines to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engines {
    Race,
    DepthFirst,
    Frontier,
}

/// What an engine found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Explained,
    /// The return of this call is the first event that nothing explains.
    Unexplained(u32),
    Stopped(&'static str),
}

/// Tells an engine when to stop.
pub(super) struct Watch<'a> {
    budget: Budget<'a>,
    cancelled: Option<&'a AtomicBool>,
    pub steps: u64,
    look_at: u64,
}

const STEPS_BETWEEN_LOOKS: u64 = 4_096;

impl<'a> Watch<'a> {
    pub fn new(budget: Budget<'a>, cancelled: Option<&'a AtomicBool>) -> Self {
        Self { budget, cancelled, steps: 0, look_at: STEPS_BETWEEN_LOOKS.min(budget.steps) }
    }

    /// Counts a step; why to stop, if so.
    pub fn step(&mut self) -> Option<&'static str> {
        self.steps += 1;
        if self.steps < self.look_at { None } else { self.look() }
    }

    #[cold]
    fn look(&mut self) -> Option<&'static str> {
        self.look_at = (self.steps + STEPS_BETWEEN_LOOKS).min(self.budget.steps);
        if self.cancelled.is_some_and(|cancelled| cancelled.load(Ordering::Relaxed)) {
            Some("cancelled")
        } else if self.steps >= self.budget.steps || self.budget.stop.is_some_and(|stop| stop()) {
            Some("the budget ran out")
        } else {
            None
        }
    }
}

pub(super) fn check_object<S: Spec>(
    spec: &S,
    history: &[&Call<S::Op, S::Ret>],
    budget: &Budget,
    engines: Engines,
) -> Verdict {
    let problem = Problem::new(spec, history);
    let mut frontier = Frontier::new(spec, &problem, spec.initial(), &[]);
    let mut watch = Watch::new(*budget, None);
    let found = match engines {
        Engines::DepthFirst => Dfs::new(spec, &problem).run(&mut watch),
        Engines::Frontier => frontier.run(&mut watch),
        Engines::Race => {
            let head_start = Budget { steps: budget.steps.min(20 * problem.calls.len() as u64 + 10_000), ..*budget };
            let mut dfs = Dfs::new(spec, &problem);
            match dfs.run(&mut Watch::new(head_start, None)) {
                Found::Stopped(_) => race(&mut dfs, &mut frontier, budget),
                found => found,
            }
        }
    };
    match found {
        Found::Explained => Verdict::Linearizable,
        Found::Stopped(why) => Verdict::Unknown(why.to_owned()),
        Found::Unexplained(call) => {
            let known = (engines != Engines::DepthFirst).then(|| frontier.unexplained()).flatten();
            Verdict::NotLinearizable(Box::new(describe(spec, &problem, history, call, known)))
        }
    }
}

fn race<S: Spec>(dfs: &mut Dfs<'_, '_, S>, frontier: &mut Frontier<'_, '_, S>, budget: &Budget) -> Found {
    let done = AtomicBool::new(false);
    let decided = |found: &Found| {
        if !matches!(found, Found::Stopped(_)) {
            done.store(true, Ordering::Relaxed);
        }
    };
    let (by_depth, by_frontier) = std::thread::scope(|scope| {
        let by_depth = scope.spawn(|| {
            let found = dfs.run(&mut Watch::new(*budget, Some(&done)));
            decided(&found);
            found
        });
        let by_frontier = frontier.run(&mut Watch::new(*budget, Some(&done)));
        decided(&by_frontier);
        (by_depth.join().expect("an engine does not panic"), by_frontier)
    });
    match (by_depth, by_frontier) {
        (Found::Stopped(_), Found::Stopped(why)) => Found::Stopped(why),
        (Found::Stopped(_), found) | (found, _) => found,
    }
}

fn describe<S: Spec>(
    spec: &S,
    problem: &Problem<'_, S>,
    history: &[&Call<S::Op, S::Ret>],
    call: u32,
    known: Option<Unexplained<S::State>>,
) -> Violation {
    let explanation = minimise::explain(spec, problem, call, known);
    let culprit = problem.call(explanation.culprit);
    let what = history[culprit.index as usize];
    let returned = match &what.result {
        Some(result) => format!("returned {result:?}"),
        None => "returned".to_owned(),
    };
    let states = match &explanation.states_before[..] {
        [] => "no order of the calls explains it".to_owned(),
        [state] => format!("the state can only have been {state}"),
        states if explanation.states_complete => format!("the state can only have been one of {}", states.join(", ")),
        states => format!("no possible state explains it, among them {}", states.join(", ")),
    };
    Violation {
        key: None,
        call: culprit.index as usize,
        at: culprit.complete,
        reason: format!("{:?} of process {} {returned}, but {states}", what.op, what.process),
        states_before: explanation.states_before,
        calls: explanation.calls.iter().map(|&call| problem.call(call).index as usize).collect(),
        from_any_state: explanation.from_any_state,
    }
}
