//! Could one machine, taking one call at a time, have given these answers? Each name and each group is asked alone.
//!
//! Groups are replayed by revision where their answers carry one; the checker's model of groups tells how.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use rayon::prelude::*;
use serde::Serialize;

use super::faults::ms;
use super::ops::Op;
use super::story::Story;
use crate::model::ident::NodeId;
use crate::referee::checker::groups::{self, GroupCall};
use crate::referee::checker::names::{self, NameCall};
use crate::referee::checker::{Budget, Verdict, Violation};
use crate::referee::formats::own::{self, Misplaced};
use crate::referee::history::What;

/// Steps of each engine per name or group: the same verdict on every machine, in about a second at worst.
const STEPS_MAX: u64 = 3_000_000;
/// Counter-examples that are told in full.
const SHOWN_MAX: usize = 5;

/// What was found for all names, or all groups.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Linearizability {
    /// Keys that had calls.
    pub checked: usize,
    pub linearizable: usize,
    pub not_linearizable: Vec<String>,
    /// Keys for which the search was given up, and why.
    pub unknown: BTreeMap<String, String>,
    /// By the time of the first event that nothing explains, at most five.
    pub counter_examples: Vec<CounterExample>,
}

/// Calls that contradict each other.
#[derive(Clone, Debug, Serialize)]
pub struct CounterExample {
    pub key: String,
    pub at_ms: f64,
    pub reason: String,
    /// What could be the case just before.
    pub states_before: Vec<String>,
    pub calls: Vec<Told>,
}

/// A call, as a counter-example tells it.
#[derive(Clone, Debug, Serialize)]
pub struct Told {
    pub process: u64,
    pub node: Option<NodeId>,
    pub from_ms: f64,
    /// None: it never returned.
    pub to_ms: Option<f64>,
    pub call: String,
    /// Its return is the first event that nothing explains.
    pub culprit: bool,
    /// The index of its invocation among the run's events.
    #[serde(skip)]
    pub invoked: u64,
}

pub struct Found {
    pub names: Linearizability,
    pub groups: Linearizability,
    /// Both, by the answers to writes alone.
    pub writes: Linearizability,
}

pub fn find(story: &Story) -> Found {
    checked(story).unwrap_or_else(|misplaced| {
        let mut none = Linearizability::default();
        none.unknown.insert("the history".to_owned(), misplaced.to_string());
        Found { names: none.clone(), groups: none.clone(), writes: none }
    })
}

fn checked(story: &Story) -> Result<Found, Misplaced> {
    let calls = own::calls(&story.run.events)?;
    let ops: HashMap<u64, &Op> = story.ops.iter().map(|op| (op.index, op)).collect();
    let invoked = |events: &[usize]| -> Vec<Option<&Op>> {
        events.iter().map(|at| ops.get(&story.run.events[*at].index).copied()).collect()
    };
    let (name_ops, group_ops) = (invoked(&calls.name_events), invoked(&calls.group_events));
    let check_names = |calls: &[NameCall], ops: &[Option<&Op>]| all(calls, ops, |call| &call.name, names::check);
    let check_groups = |calls: &[GroupCall], ops: &[Option<&Op>]| all(calls, ops, |call| &call.group, groups::check);
    // An end of a lease is known from what a keep-alive was answered, too.
    let writes = |op: &Option<&Op>| op.is_some_and(|op| op.writes() || matches!(op.what, What::KeepAlive { .. }));
    let (name_writes, name_write_ops) = only(&calls.names, &name_ops, writes);
    let (group_writes, group_write_ops) = only(&calls.groups, &group_ops, writes);
    Ok(Found {
        names: check_names(&calls.names, &name_ops),
        groups: check_groups(&calls.groups, &group_ops),
        writes: check_names(&name_writes, &name_write_ops).and(check_groups(&group_writes, &group_write_ops)),
    })
}

fn only<'a, C: Clone>(
    calls: &[C],
    ops: &[Option<&'a Op<'a>>],
    wanted: impl Fn(&Option<&'a Op<'a>>) -> bool,
) -> (Vec<C>, Vec<Option<&'a Op<'a>>>) {
    calls.iter().cloned().zip(ops.iter().copied()).filter(|(_, op)| wanted(op)).unzip()
}

fn all<C: Clone + Sync>(
    calls: &[C],
    ops: &[Option<&Op>],
    key: impl Fn(&C) -> &String,
    check: impl Fn(&[C], &Budget) -> Verdict + Sync,
) -> Linearizability {
    let mut parts: BTreeMap<&String, Vec<usize>> = BTreeMap::new();
    for (at, call) in calls.iter().enumerate() {
        parts.entry(key(call)).or_default().push(at);
    }
    let parts: Vec<(&String, Vec<usize>)> = parts.into_iter().collect();
    let verdicts: Vec<Verdict> = parts
        .par_iter()
        .map(|(_, indexes)| {
            let part: Vec<C> = indexes.iter().map(|at| calls[*at].clone()).collect();
            check(&part, &Budget::steps(STEPS_MAX))
        })
        .collect();
    let mut found = Linearizability { checked: parts.len(), ..Linearizability::default() };
    for ((key, indexes), verdict) in parts.iter().zip(verdicts) {
        match verdict {
            Verdict::Linearizable => found.linearizable += 1,
            Verdict::Unknown(why) => {
                found.unknown.insert((*key).clone(), why);
            }
            Verdict::NotLinearizable(violation) => {
                found.not_linearizable.push((*key).clone());
                let of_part: Vec<Option<&Op>> = indexes.iter().map(|at| ops[*at]).collect();
                found.counter_examples.push(tell(key, &violation, &of_part));
            }
        }
    }
    found.in_order()
}

fn tell(key: &str, violation: &Violation, ops: &[Option<&Op>]) -> CounterExample {
    let told = |at: &usize| {
        ops[*at].map(|op| Told {
            process: op.process,
            node: op.node,
            from_ms: ms(op.invoked),
            to_ms: op.acked().map(ms),
            call: op.tell(),
            culprit: *at == violation.call,
            invoked: op.index,
        })
    };
    let culprit = ops[violation.call];
    let states = match &violation.states_before[..] {
        [] => "and no order of the calls before it explains that".to_owned(),
        [state] => format!("but just before only this could be the case: {state}"),
        states => format!("but just before only these could be the case: {}", states.join("; ")),
    };
    CounterExample {
        key: key.to_owned(),
        at_ms: culprit.and_then(Op::acked).map(ms).unwrap_or_default(),
        reason: culprit.map_or_else(|| violation.reason.clone(), |op| format!("{}, {states}", op.tell())),
        states_before: violation.states_before.clone(),
        calls: violation.calls.iter().filter_map(told).collect(),
    }
}

impl Linearizability {
    /// What both found, of different keys.
    fn and(mut self, other: Self) -> Self {
        self.checked += other.checked;
        self.linearizable += other.linearizable;
        self.not_linearizable.extend(other.not_linearizable);
        self.unknown.extend(other.unknown);
        self.counter_examples.extend(other.counter_examples);
        self.in_order()
    }

    fn in_order(mut self) -> Self {
        self.counter_examples.sort_by(|a, b| a.at_ms.total_cmp(&b.at_ms));
        self.counter_examples.truncate(SHOWN_MAX);
        self
    }
}

impl fmt::Display for Linearizability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} explained", self.linearizable, self.checked)
    }
}
