//! The calls of a history, and the form in which the engines read them.

use std::collections::HashMap;

use super::hash::Mixing;
use super::spec::Spec;

/// One call of a client: from its invocation to its return, or for ever.
///
/// Times are of one clock, or positions in a log; only their order counts. Calls that touch (one returns when the other is invoked)
/// count as concurrent. A call that surely had no effect and told nothing is left out of a history altogether.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call<O, R> {
    /// Who called. The engines do not need it: order in a process is order in time.
    pub process: u64,
    pub op: O,
    pub invoke: u64,
    /// None: it never returned, so it may take effect at any later time, or never.
    pub complete: Option<u64>,
    /// None: what it returned is not known.
    pub result: Option<R>,
}

/// No call: an end of a list.
pub(super) const NONE: u32 = u32::MAX;

/// A call as the engines see it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prepared {
    /// Index of (operation, result) in [`Problem::classes`]: calls of one class are interchangeable but for their times.
    pub class: u32,
    pub invoke: u64,
    /// `u64::MAX`: open.
    pub complete: u64,
    /// Never changes the state, so that it may be taken as soon as it fits.
    pub read: bool,
    /// A call of the same class that may be taken to come first, or [`NONE`].
    pub before: u32,
    /// Index in the caller's slice.
    pub index: u32,
}

/// An operation, and what it returned if that is known.
pub(super) type Class<'a, S> = (&'a <S as Spec>::Op, Option<&'a <S as Spec>::Ret>);

/// One object's history, prepared: calls sorted by invocation; open reads, which tell nothing, left out.
pub(super) struct Problem<'a, S: Spec> {
    pub calls: Vec<Prepared>,
    pub classes: Vec<Class<'a, S>>,
    /// The calls that returned, in that order.
    pub returns: Vec<u32>,
    /// The calls that did not.
    pub opens: Vec<u32>,
}

/// How far back to look for an interchangeable call.
const TWINS_LOOKED_AT_MAX: usize = 16;

impl<'a, S: Spec> Problem<'a, S> {
    pub fn new(spec: &S, history: &[&'a Call<S::Op, S::Ret>]) -> Self {
        let mut classes = Vec::new();
        let mut class_of: HashMap<Class<'a, S>, u32, Mixing> = HashMap::default();
        let mut merged: HashMap<(u32, Option<&S::Ret>), u32, Mixing> = HashMap::default();
        let mut reads = Vec::new();
        let mut calls = Vec::with_capacity(history.len());
        for (index, call) in history.iter().enumerate() {
            let key = (&call.op, call.result.as_ref());
            let new_class = || {
                classes.push(key);
                reads.push(spec.reads(key.0, key.1));
                classes.len() as u32 - 1
            };
            let class = match spec.merged(key.0, key.1) {
                Some(number) => *merged.entry((number, key.1)).or_insert_with(new_class),
                None => *class_of.entry(key).or_insert_with(new_class),
            };
            let read = reads[class as usize];
            let complete = call.complete.unwrap_or(u64::MAX);
            if read && complete == u64::MAX {
                continue;
            }
            calls.push(Prepared { class, invoke: call.invoke, complete, read, before: NONE, index: index as u32 });
        }
        calls.sort_by_key(|call| (call.invoke, call.complete, call.index));
        link_twins(&mut calls, classes.len());
        Self::of(calls, classes)
    }

    /// The same history with these calls only, given in the order of their invocations; all else has to be argued by the caller.
    pub fn part(&self, kept: &[u32]) -> Self {
        let mut calls: Vec<Prepared> = kept.iter().map(|&call| *self.call(call)).collect();
        link_twins(&mut calls, self.classes.len());
        Self::of(calls, self.classes.clone())
    }

    fn of(calls: Vec<Prepared>, classes: Vec<Class<'a, S>>) -> Self {
        let (mut returns, opens): (Vec<u32>, Vec<u32>) =
            (0..calls.len() as u32).partition(|&call| calls[call as usize].complete != u64::MAX);
        returns.sort_by_key(|&call| (calls[call as usize].complete, call));
        Self { calls, classes, returns, opens }
    }

    pub fn call(&self, call: u32) -> &Prepared {
        &self.calls[call as usize]
    }
}

/// Links each call to one of its class that was invoked before it and returned no later.
///
/// If some order explains the history and the later one comes first in it, then exchanging the two explains it as well: each then
/// stands between the invocations and returns of both. So the engines need only look at orders that keep the links.
fn link_twins(calls: &mut [Prepared], class_count: usize) {
    let mut earlier: Vec<Vec<u32>> = vec![Vec::new(); class_count];
    for call in 0..calls.len() {
        let Prepared { class, invoke, complete, read, .. } = calls[call];
        // Reads are taken as soon as they fit: a link would only delay them.
        if read {
            continue;
        }
        let twins = &mut earlier[class as usize];
        let found = twins.iter().rev().take(TWINS_LOOKED_AT_MAX).copied().find(|&twin| {
            let twin = &calls[twin as usize];
            twin.complete <= complete && twin.complete >= invoke
        });
        calls[call].before = found.unwrap_or(NONE);
        twins.push(call as u32);
    }
}
