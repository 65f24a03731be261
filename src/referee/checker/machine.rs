//! A specification with its states numbered and its steps remembered, so that the engines handle small numbers only.

use std::collections::HashMap;

use super::hash::Mixing;
use super::history::Problem;
use super::spec::Spec;

/// Where a step may lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Nowhere,
    One(u32),
    /// A range of [`Machine::many`].
    Many {
        start: u32,
        end: u32,
    },
}

/// One engine's view of the object: states are numbers, equal iff the states are.
pub(super) struct Machine<'p, 'a, S: Spec> {
    spec: &'p S,
    problem: &'p Problem<'a, S>,
    states: Vec<S::State>,
    number_of: HashMap<S::State, u32, Mixing>,
    steps: HashMap<(u32, u32), Next, Mixing>,
    many: Vec<u32>,
    scratch: Vec<S::State>,
}

impl<'p, 'a, S: Spec> Machine<'p, 'a, S> {
    pub fn new(spec: &'p S, problem: &'p Problem<'a, S>) -> Self {
        Self {
            spec,
            problem,
            states: Vec::new(),
            number_of: HashMap::default(),
            steps: HashMap::default(),
            many: Vec::new(),
            scratch: Vec::new(),
        }
    }

    pub fn number(&mut self, state: S::State) -> u32 {
        let next = self.states.len() as u32;
        let states = &mut self.states;
        *self.number_of.entry(state).or_insert_with_key(|state| {
            states.push(state.clone());
            next
        })
    }

    /// Every state seen so far, by number.
    pub fn states(&self) -> &[S::State] {
        &self.states
    }

    /// Where a call of `class` leads from `state`.
    pub fn step(&mut self, state: u32, class: u32) -> Next {
        if let Some(&next) = self.steps.get(&(state, class)) {
            return next;
        }
        let (op, ret) = self.problem.classes[class as usize];
        let mut found = std::mem::take(&mut self.scratch);
        self.spec.step(&self.states[state as usize], op, ret, &mut found);
        let next = match found.len() {
            0 => Next::Nowhere,
            1 => Next::One(found.pop().map(|state| self.number(state)).expect("one was found")),
            _ => {
                let start = self.many.len() as u32;
                for state in found.drain(..) {
                    let number = self.number(state);
                    if !self.many[start as usize..].contains(&number) {
                        self.many.push(number);
                    }
                }
                Next::Many { start, end: self.many.len() as u32 }
            }
        };
        found.clear();
        self.scratch = found;
        self.steps.insert((state, class), next);
        next
    }

    /// The `choice`-th state of `next`, if there are that many.
    pub fn choose(&self, next: Next, choice: u32) -> Option<u32> {
        match next {
            Next::Nowhere => None,
            Next::One(state) => (choice == 0).then_some(state),
            Next::Many { start, end } => (start + choice < end).then(|| self.many[(start + choice) as usize]),
        }
    }
}
