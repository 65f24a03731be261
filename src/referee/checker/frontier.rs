//! All configurations that explain the history so far, carried from one return to the next.
//!
//! A configuration is a state with the set of pending calls that have been taken. Calls are taken just in time: only when one of
//! them returns, and only in orders that end with it (Lowe 2017, *Testing for linearizability*, section 5). The search ends at the first
//! return that no configuration survives, and names it; memory depends on how many calls overlap, not on how long the history is.

use std::collections::{HashMap, VecDeque};

use super::hash::Mixing;
use super::history::{NONE, Problem};
use super::machine::{Machine, Next};
use super::minimise::Unexplained;
use super::open_sets::{EMPTY, OpenSet, OpenSets, Smallest};
use super::race::{Found, Watch};
use super::spec::Spec;

/// How many configurations may be looked at for one return, about 60 bytes each.
const CONFIGURATIONS_MAX: usize = 6_000_000;
/// How many returned calls may overlap: the width of [`Slots`].
const SLOT_COUNT: usize = 128;

/// Which pending calls are taken, by slot.
type Slots = u128;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    taken: Slots,
    state: u32,
}

/// A pending call that will return.
#[derive(Clone, Copy)]
struct Slot {
    call: u32,
    class: u32,
    /// The slot of the call of its class to be taken first, if that one is pending still.
    before: u32,
}

/// Open calls of one class, in the order of their invocations, which is the order in which they are taken.
struct OpenClass {
    class: u32,
    positions: Vec<u32>,
}

pub(super) struct Frontier<'p, 'a, S: Spec> {
    problem: &'p Problem<'a, S>,
    machine: Machine<'p, 'a, S>,
    sets: OpenSets,
    /// Classes of calls that may be taken any number of times at any time; see [`super::minimise`].
    ghosts: &'p [u32],
    slots: [Slot; SLOT_COUNT],
    pending: Slots,
    pending_reads: Slots,
    opens: Vec<OpenClass>,
    configurations: Vec<(Key, OpenSet)>,
    reached: Smallest<Key>,
    survivors: Smallest<Key>,
    queue: VecDeque<(Key, OpenSet)>,
    /// Pending reads that fit a state, for the return at hand.
    fitting: HashMap<u32, Slots, Mixing>,
    steps: u64,
    failed_at: Option<u32>,
}

impl<'p, 'a, S: Spec> Frontier<'p, 'a, S> {
    pub fn new(spec: &'p S, problem: &'p Problem<'a, S>, initial: Vec<S::State>, ghosts: &'p [u32]) -> Self {
        let mut machine = Machine::new(spec, problem);
        let configurations =
            initial.into_iter().map(|state| (Key { taken: 0, state: machine.number(state) }, EMPTY)).collect();
        Self {
            problem,
            machine,
            sets: OpenSets::new(problem.opens.len()),
            ghosts,
            slots: [Slot { call: NONE, class: 0, before: NONE }; SLOT_COUNT],
            pending: 0,
            pending_reads: 0,
            opens: Vec::new(),
            configurations,
            reached: Smallest::new(),
            survivors: Smallest::new(),
            queue: VecDeque::new(),
            fitting: HashMap::default(),
            steps: 0,
            failed_at: None,
        }
    }

    /// Runs to the end, or until it is told to stop; to be called once.
    pub fn run(&mut self, watch: &mut Watch) -> Found {
        let (mut invoked, mut opened) = (0, 0);
        for &call in &self.problem.returns {
            let returned = self.problem.call(call).complete;
            while let Some(pending) = self.problem.calls.get(invoked)
                && pending.invoke <= returned
            {
                if pending.complete == u64::MAX {
                    self.admit_open(invoked as u32, opened);
                    opened += 1;
                } else if !self.admit(invoked as u32) {
                    return Found::Stopped("more than 128 calls overlap");
                }
                invoked += 1;
            }
            let slot =
                (0..SLOT_COUNT).find(|&slot| self.slots[slot].call == call).expect("a returning call is pending");
            if let Some(why) = self.explain(1 << slot, watch) {
                self.steps = watch.steps;
                return Found::Stopped(why);
            }
            if self.configurations.is_empty() {
                self.steps = watch.steps;
                self.failed_at = Some(call);
                return Found::Unexplained(call);
            }
            self.release(slot);
        }
        Found::Explained
    }

    /// What is known about the event that ended the run, if one did.
    pub fn unexplained(&self) -> Option<Unexplained<S::State>> {
        self.failed_at?;
        let mut numbers = Vec::new();
        self.reached.for_each(|key, _| numbers.push(key.state));
        numbers.sort_unstable();
        numbers.dedup();
        let states = self.machine.states();
        Some(Unexplained {
            steps: self.steps,
            states_before: numbers.into_iter().map(|number| states[number as usize].clone()).collect(),
            all_states: states.to_vec(),
        })
    }

    fn admit(&mut self, call: u32) -> bool {
        let slot = (!self.pending).trailing_zeros() as usize;
        if slot == SLOT_COUNT {
            return false;
        }
        let prepared = self.problem.call(call);
        let before = match prepared.before {
            NONE => NONE,
            twin => (0..SLOT_COUNT as u32).find(|&slot| self.slots[slot as usize].call == twin).unwrap_or(NONE),
        };
        self.slots[slot] = Slot { call, class: prepared.class, before };
        self.pending |= 1 << slot;
        if prepared.read {
            self.pending_reads |= 1 << slot;
        }
        true
    }

    fn admit_open(&mut self, call: u32, position: u32) {
        let class = self.problem.call(call).class;
        match self.opens.iter_mut().find(|open| open.class == class) {
            Some(open) => open.positions.push(position),
            None => self.opens.push(OpenClass { class, positions: vec![position] }),
        }
    }

    fn release(&mut self, slot: usize) {
        self.pending &= !(1 << slot);
        self.pending_reads &= !(1 << slot);
        self.slots[slot].call = NONE;
        let mut rest = self.pending;
        while rest != 0 {
            let other = &mut self.slots[rest.trailing_zeros() as usize];
            if other.before == slot as u32 {
                other.before = NONE;
            }
            rest &= rest - 1;
        }
    }

    /// Replaces the configurations by those that explain the return of the call in `slot`; why it had to stop, if so.
    fn explain(&mut self, slot: Slots, watch: &mut Watch) -> Option<&'static str> {
        self.reached.clear();
        self.survivors.clear();
        self.fitting.clear();
        self.queue.clear();
        for (key, open) in std::mem::take(&mut self.configurations) {
            self.reach(key, open, slot, false);
        }
        while let Some((key, open)) = self.queue.pop_front() {
            if let Some(why) = watch.step() {
                return Some(why);
            }
            if self.reached.len() + self.survivors.len() > CONFIGURATIONS_MAX {
                return Some("the memory allowed for the search ran out");
            }
            // A way with fewer open calls may have been found since.
            if self.reached.holds(key, open) {
                self.expand(key, open, slot, watch);
            }
        }
        let configurations = &mut self.configurations;
        self.survivors.for_each(|key, open| configurations.push((key, open)));
        None
    }

    /// Every configuration that one more call leads to.
    fn expand(&mut self, key: Key, open: OpenSet, slot: Slots, watch: &mut Watch) {
        let mut rest = self.pending & !self.pending_reads & !key.taken;
        while rest != 0 {
            let at = rest.trailing_zeros();
            rest &= rest - 1;
            let Slot { class, before, .. } = self.slots[at as usize];
            if before == NONE || key.taken & (1 << before) != 0 {
                self.follow(Key { taken: key.taken | 1 << at, ..key }, class, open, slot, false);
            }
            watch.steps += 1;
        }
        for ghost in 0..self.ghosts.len() {
            self.follow(key, self.ghosts[ghost], open, slot, false);
            watch.steps += 1;
        }
        for at in 0..self.opens.len() {
            let OpenClass { class, positions } = &self.opens[at];
            let class = *class;
            let position = positions.iter().copied().find(|&position| !self.sets.contains(open, position));
            if let Some(position) = position
                && self.machine.step(key.state, class) != Next::Nowhere
            {
                let open = self.sets.with(open, position);
                self.follow(key, class, open, slot, true);
            }
            watch.steps += 1;
        }
    }

    /// Steps by a call of `class`; `key.taken` holds it already.
    fn follow(&mut self, key: Key, class: u32, open: OpenSet, slot: Slots, by_open: bool) {
        let next = self.machine.step(key.state, class);
        let mut choice = 0;
        while let Some(state) = self.machine.choose(next, choice) {
            self.reach(Key { state, ..key }, open, slot, by_open);
            choice += 1;
        }
    }

    fn reach(&mut self, mut key: Key, open: OpenSet, slot: Slots, by_open: bool) {
        key.taken |= self.fitting_reads(key.state);
        if key.taken & slot != 0 {
            self.survivors.insert(&self.sets, Key { taken: key.taken & !slot, ..key }, open);
        } else if self.reached.insert(&self.sets, key, open) {
            // Ways with fewer open calls first: the others then mostly need not be followed.
            if by_open {
                self.queue.push_back((key, open));
            } else {
                self.queue.push_front((key, open));
            }
        }
    }

    fn fitting_reads(&mut self, state: u32) -> Slots {
        if self.pending_reads == 0 {
            return 0;
        }
        if let Some(&fitting) = self.fitting.get(&state) {
            return fitting;
        }
        let (mut fitting, mut rest) = (0, self.pending_reads);
        while rest != 0 {
            let slot = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            if self.machine.step(state, self.slots[slot].class) != Next::Nowhere {
                fitting |= 1 << slot;
            }
        }
        self.fitting.insert(state, fitting);
        fitting
    }
}
