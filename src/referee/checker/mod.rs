//! Whether a history of calls is linearizable: each call seems to take effect at one moment between its invocation and its return.
//!
//! [`history`] holds the calls, [`spec`] what an object may do; [`register`], [`multi`], [`kv`], [`mutex`], [`names`] and [`groups`]
//! are the objects known. A history is split by key (Horn & Kroening 2015, *Faster linearizability checking via P-compositionality*):
//! a history is linearizable iff each object's part of it is. For each part `race` asks two engines that fail on different histories:
//! `dfs` (Wing & Gong 1993, with the memo of Lowe 2017, *Testing for linearizability*) is quick to find an explanation,
//! `frontier` (Lowe's just-in-time linearization) is quick to see that there is none. `minimise` makes a violation readable.
//! Nothing here reads a clock: how long a search may take is asked of the [`Budget`].

mod dfs;
mod frontier;
pub mod groups;
mod hash;
pub mod history;
pub mod kv;
mod machine;
mod minimise;
pub mod multi;
pub mod mutex;
pub mod names;
mod open_sets;
mod race;
pub mod register;
pub mod spec;
pub mod token;

use std::collections::BTreeMap;
use std::fmt;

use rayon::prelude::*;

pub use history::Call;
pub use race::{Budget, Engines};
pub use spec::Spec;

/// What a check found. `Unknown` is never a pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Linearizable,
    NotLinearizable(Box<Violation>),
    /// Why it cannot be told: nothing to check, or the budget ran out.
    Unknown(String),
}

impl Verdict {
    pub fn is_linearizable(&self) -> bool {
        *self == Verdict::Linearizable
    }

    pub fn violation(&self) -> Option<&Violation> {
        match self {
            Verdict::NotLinearizable(violation) => Some(violation),
            Verdict::Linearizable | Verdict::Unknown(_) => None,
        }
    }
}

/// Why a history is not linearizable. The same history always gives the same violation, whichever engine found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The object, if the history was split by key.
    pub key: Option<String>,
    /// The call whose return is the first event that nothing explains: index into the slice that was checked.
    pub call: usize,
    /// When it returned.
    pub at: u64,
    /// The states that were possible just before that event, at most [`STATES_SHOWN_MAX`] of them; empty if they were too many to list.
    pub states_before: Vec<String>,
    /// Calls that contradict each other, `call` among them, in the order of their invocations: indexes into the slice that was checked.
    /// They do so whatever the calls left out did: see `minimise` for what that means exactly.
    pub calls: Vec<usize>,
    /// Whether `calls` contradict each other whatever state the object was in before the first of them, rather than from its beginning.
    pub from_any_state: bool,
    /// One sentence for a person.
    pub reason: String,
}

/// How many states a [`Violation`] lists.
pub const STATES_SHOWN_MAX: usize = 16;

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        f.write_str(&self.reason)
    }
}

/// Checks the history of one object. No calls: `Unknown`.
pub fn check<S: Spec>(spec: &S, calls: &[Call<S::Op, S::Ret>], budget: &Budget) -> Verdict {
    check_with(spec, calls, budget, Engines::Race)
}

/// As [`check`], by the engine of the caller's choice: for tests, in which they check each other.
pub fn check_with<S: Spec>(spec: &S, calls: &[Call<S::Op, S::Ret>], budget: &Budget, engines: Engines) -> Verdict {
    if calls.is_empty() {
        return Verdict::Unknown("there are no calls to check".to_owned());
    }
    let calls: Vec<&Call<S::Op, S::Ret>> = calls.iter().collect();
    race::check_object(spec, &calls, budget, engines)
}

/// Checks a history of many objects, each alone, on all threads of the current rayon pool.
///
/// `split` names the object that a call is about, and the call as that object sees it. Of several violations the one whose event
/// came first is returned.
pub fn check_keys<'h, T, K, S, F, M>(history: &'h [T], split: F, spec: M, budget: &Budget) -> Verdict
where
    T: Sync,
    K: Ord + fmt::Display + Sync,
    S: Spec,
    S::Op: 'h,
    S::Ret: 'h,
    F: Fn(&'h T) -> (K, &'h Call<S::Op, S::Ret>),
    M: Fn(&K, &[&Call<S::Op, S::Ret>]) -> S + Sync,
{
    if history.is_empty() {
        return Verdict::Unknown("there are no calls to check".to_owned());
    }
    let mut parts: BTreeMap<K, Part<'h, S>> = BTreeMap::new();
    for (index, item) in history.iter().enumerate() {
        let (key, call) = split(item);
        let part = parts.entry(key).or_default();
        part.0.push(index);
        part.1.push(call);
    }
    let parts: Vec<_> = parts.into_iter().collect();
    let verdicts: Vec<Verdict> = parts
        .par_iter()
        .map(|(key, (indexes, calls))| {
            let spec = spec(key, calls);
            match race::check_object(&spec, calls, budget, Engines::Race) {
                Verdict::NotLinearizable(mut violation) => {
                    violation.key = Some(key.to_string());
                    violation.call = indexes[violation.call];
                    violation.calls.iter_mut().for_each(|call| *call = indexes[*call]);
                    Verdict::NotLinearizable(violation)
                }
                Verdict::Unknown(why) => Verdict::Unknown(format!("{key}: {why}")),
                Verdict::Linearizable => Verdict::Linearizable,
            }
        })
        .collect();
    worst(verdicts)
}

/// One object's calls, and where they stand in the whole history.
type Part<'h, S> = (Vec<usize>, Vec<&'h Call<<S as Spec>::Op, <S as Spec>::Ret>>);

/// One verdict for all parts: a violation over unknown over linearizable; of violations the earliest.
pub fn worst(verdicts: impl IntoIterator<Item = Verdict>) -> Verdict {
    let mut worst = Verdict::Linearizable;
    for verdict in verdicts {
        worst = match (worst, verdict) {
            (Verdict::NotLinearizable(a), Verdict::NotLinearizable(b)) => {
                Verdict::NotLinearizable(if b.at < a.at { b } else { a })
            }
            (Verdict::NotLinearizable(a), Verdict::Linearizable | Verdict::Unknown(_)) => Verdict::NotLinearizable(a),
            (Verdict::Linearizable | Verdict::Unknown(_), Verdict::NotLinearizable(b)) => Verdict::NotLinearizable(b),
            (Verdict::Unknown(why), Verdict::Linearizable | Verdict::Unknown(_)) => Verdict::Unknown(why),
            (Verdict::Linearizable, verdict @ (Verdict::Linearizable | Verdict::Unknown(_))) => verdict,
        };
    }
    worst
}
