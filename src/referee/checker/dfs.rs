//! Depth-first search for an order that explains a history.
//!
//! Wing & Gong 1993, *Testing and verifying concurrent objects*, section 4: take any call that was invoked before the earliest return
//! still to be explained; undo when stuck. With the memo of Lowe 2017, *Testing for linearizability*, section 4: the same calls
//! taken and the same state need no second look. The set of taken calls is kept as a Zobrist hash, so that a step costs the same
//! however long the history is.

use super::hash::zobrist;
use super::history::{NONE, Problem};
use super::machine::{Machine, Next};
use super::open_sets::{EMPTY, OpenSet, OpenSets, Smallest};
use super::race::{Found, Watch};
use super::spec::Spec;

/// How many (calls taken, state) the memo holds, about 50 bytes each.
const MEMO_LEN_MAX: usize = 10_000_000;

/// A search that can be stopped and taken up again by another [`run`](Dfs::run).
pub(super) struct Dfs<'p, 'a, S: Spec> {
    problem: &'p Problem<'a, S>,
    machine: Machine<'p, 'a, S>,
    sets: OpenSets,
    seen: Smallest<[u64; 2]>,
    /// States that no search has begun in yet.
    beginnings: Vec<u32>,
    /// Returned calls not taken yet, in the order of their invocations: a list with its head and end at index `calls.len()`.
    after: Vec<u32>,
    before: Vec<u32>,
    taken: Vec<bool>,
    path: Vec<Taken>,
    at: Node,
    /// The most returns that any order explained.
    furthest: usize,
}

#[derive(Clone, Copy)]
struct Node {
    state: u32,
    /// How many returns are explained: all calls of `returns[..explained]` are taken.
    explained: usize,
    /// Of the returned calls that are taken.
    hash: u128,
    open: OpenSet,
}

struct Taken {
    call: u32,
    /// Which of the states that the call may lead to; none if nothing else needs to be tried here.
    choice: Option<u32>,
    from: Node,
}

/// The next thing to try at a node.
#[derive(Clone, Copy)]
enum Cursor {
    /// A returned call, and which of its outcomes.
    Returned(u32, u32),
    /// A position in `opens`, and which outcome.
    Open(u32, u32),
}

impl<'p, 'a, S: Spec> Dfs<'p, 'a, S> {
    pub fn new(spec: &'p S, problem: &'p Problem<'a, S>) -> Self {
        let mut machine = Machine::new(spec, problem);
        let mut beginnings: Vec<u32> = spec.initial().into_iter().map(|state| machine.number(state)).collect();
        beginnings.reverse();
        let first = beginnings.pop().expect("a specification has an initial state");
        let count = problem.calls.len();
        let (mut after, mut before) = (vec![NONE; count + 1], vec![NONE; count + 1]);
        let mut last = count as u32;
        for call in (0..count as u32).filter(|&call| problem.call(call).complete != u64::MAX) {
            after[last as usize] = call;
            before[call as usize] = last;
            last = call;
        }
        after[last as usize] = count as u32;
        before[count] = last;
        Self {
            problem,
            machine,
            sets: OpenSets::new(problem.opens.len()),
            seen: Smallest::new(),
            beginnings,
            after,
            before,
            taken: vec![false; count],
            path: Vec::new(),
            at: Node { state: first, explained: 0, hash: 0, open: EMPTY },
            furthest: 0,
        }
    }

    pub fn run(&mut self, watch: &mut Watch) -> Found {
        loop {
            if let Some(why) = watch.step() {
                return Found::Stopped(why);
            }
            self.skip_explained();
            self.take_reads();
            self.furthest = self.furthest.max(self.at.explained);
            if self.at.explained == self.problem.returns.len() {
                return Found::Explained;
            }
            let key = self.at.hash ^ zobrist(u64::from(self.at.state) * 2 + 1);
            let fresh = self.seen.insert(&self.sets, [key as u64, (key >> 64) as u64], self.at.open);
            if self.seen.len() > MEMO_LEN_MAX {
                return Found::Stopped("the memory allowed for the search ran out");
            }
            let mut cursor = fresh.then(|| Cursor::Returned(self.after[self.problem.calls.len()], 0));
            loop {
                if let Some(cursor) = cursor
                    && self.take_next(cursor, watch)
                {
                    break;
                }
                cursor = match self.undo() {
                    Some(cursor) => Some(cursor),
                    None => match self.beginnings.pop() {
                        Some(state) => {
                            self.at.state = state;
                            break;
                        }
                        None => return Found::Unexplained(self.problem.returns[self.furthest]),
                    },
                }
            }
        }
    }

    /// The time of the earliest return that is not explained: only calls invoked by then may be taken.
    fn limit(&self) -> u64 {
        self.problem.returns.get(self.at.explained).map_or(u64::MAX, |&call| self.problem.call(call).complete)
    }

    fn skip_explained(&mut self) {
        while self.problem.returns.get(self.at.explained).is_some_and(|&call| self.taken[call as usize]) {
            self.at.explained += 1;
        }
    }

    /// Takes every call that only reads and fits the state: taking it now can only help.
    fn take_reads(&mut self) {
        let end = self.problem.calls.len() as u32;
        let mut call = self.after[end as usize];
        let mut limit = self.limit();
        while call != end && self.problem.call(call).invoke <= limit {
            let next = self.after[call as usize];
            let prepared = self.problem.call(call);
            if prepared.read && self.machine.step(self.at.state, prepared.class) != Next::Nowhere {
                self.take_returned(call, self.at.state, None);
                self.skip_explained();
                limit = self.limit();
            }
            call = next;
        }
    }

    /// Takes the first call at or after the cursor that the state allows.
    fn take_next(&mut self, cursor: Cursor, watch: &mut Watch) -> bool {
        let end = self.problem.calls.len() as u32;
        let limit = self.limit();
        let (mut open, mut choice) = (0, 0);
        if let Cursor::Open(at, outcome) = cursor {
            (open, choice) = (at, outcome);
        }
        if let Cursor::Returned(mut call, mut choice) = cursor {
            while call != end && self.problem.call(call).invoke <= limit {
                let prepared = self.problem.call(call);
                if !prepared.read && self.twin_is_taken(prepared.before) {
                    watch.steps += 1;
                    let next = self.machine.step(self.at.state, prepared.class);
                    if let Some(state) = self.machine.choose(next, choice) {
                        self.take_returned(call, state, Some(choice));
                        return true;
                    }
                }
                call = self.after[call as usize];
                choice = 0;
            }
        }
        while let Some(&call) = self.problem.opens.get(open as usize)
            && self.problem.call(call).invoke <= limit
        {
            let prepared = self.problem.call(call);
            if !self.taken[call as usize] && self.twin_is_taken(prepared.before) {
                watch.steps += 1;
                let next = self.machine.step(self.at.state, prepared.class);
                while let Some(state) = self.machine.choose(next, choice) {
                    // Without effect it is better not taken.
                    if state != self.at.state {
                        self.taken[call as usize] = true;
                        self.path.push(Taken { call, choice: Some(choice), from: self.at });
                        self.at.state = state;
                        self.at.open = self.sets.with(self.at.open, open);
                        return true;
                    }
                    choice += 1;
                }
            }
            open += 1;
            choice = 0;
        }
        false
    }

    fn twin_is_taken(&self, twin: u32) -> bool {
        twin == NONE || self.taken[twin as usize]
    }

    fn take_returned(&mut self, call: u32, state: u32, choice: Option<u32>) {
        self.path.push(Taken { call, choice, from: self.at });
        self.taken[call as usize] = true;
        let (before, after) = (self.before[call as usize], self.after[call as usize]);
        self.after[before as usize] = after;
        self.before[after as usize] = before;
        self.at.state = state;
        self.at.hash ^= zobrist(u64::from(call) * 2);
    }

    /// Goes back to the last node with something left to try, and says from where on.
    fn undo(&mut self) -> Option<Cursor> {
        while let Some(Taken { call, choice, from }) = self.path.pop() {
            self.at = from;
            self.taken[call as usize] = false;
            let open = self.problem.call(call).complete == u64::MAX;
            if !open {
                let (before, after) = (self.before[call as usize], self.after[call as usize]);
                self.after[before as usize] = call;
                self.before[after as usize] = call;
            }
            match choice {
                Some(choice) if open => {
                    let position =
                        self.problem.opens.binary_search(&call).expect("an open call is among the open calls");
                    return Some(Cursor::Open(position as u32, choice + 1));
                }
                Some(choice) => return Some(Cursor::Returned(call, choice + 1)),
                None => {}
            }
        }
        None
    }
}
