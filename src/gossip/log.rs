//! The latest operations of each run, kept so that a peer that lags a little gets these and not the whole state, and a watcher that
//! comes from another node is told what it has missed.

use std::collections::{BTreeMap, VecDeque};

use super::context::{Context, OpId, Run};
use super::operation::{Operation, Stamp};
use super::trail::Step;

/// Operations of each run without a gap, up to the last one applied; the oldest of all go first.
#[derive(Clone, Debug, Default)]
pub struct Log {
    runs: BTreeMap<Run, Kept>,
    /// In the order in which they came, for letting the oldest go.
    order: VecDeque<Run>,
    len_max: usize,
}

/// An operation that was applied here.
#[derive(Clone, Debug)]
pub struct Logged {
    pub operation: Operation,
    /// What it did here, as far as it does not say so itself. Nearly all operations have none.
    steps: Option<Box<[Step]>>,
}

impl Logged {
    pub fn steps(&self) -> &[Step] {
        self.steps.as_deref().unwrap_or_default()
    }
}

#[derive(Clone, Debug, Default)]
struct Kept {
    first: u64,
    operations: VecDeque<Logged>,
}

impl Kept {
    /// The operations of `covered + 1 ..= last`; none if some of them are kept no longer.
    fn range(&self, covered: u64, last: u64) -> Option<impl Iterator<Item = &Logged>> {
        let complete = self.first <= covered + 1 && self.first + self.operations.len() as u64 == last + 1;
        complete.then(|| self.operations.range((covered + 1 - self.first) as usize..))
    }
}

impl Log {
    /// A log of at most so many operations.
    pub fn new(len_max: usize) -> Self {
        Self { len_max, ..Self::default() }
    }

    /// Keeps an operation that was just applied, with what it did.
    pub fn push(&mut self, operation: Operation, steps: Vec<Step>) {
        let id = operation.id();
        let kept = self.runs.entry(id.run).or_default();
        // After a state transfer the run goes on with a leap: what came before it is no longer kept without a gap.
        if kept.first + kept.operations.len() as u64 != id.number {
            kept.operations.clear();
            kept.first = id.number;
        }
        let steps = (!steps.is_empty()).then(|| steps.into_boxed_slice());
        kept.operations.push_back(Logged { operation, steps });
        self.order.push_back(id.run);
        while self.order.len() > self.len_max {
            let run = self.order.pop_front().expect("it is longer than its bound");
            // A run that was cleared has fewer operations than places in the order.
            if let Some(kept) = self.runs.get_mut(&run)
                && kept.operations.pop_front().is_some()
            {
                kept.first += 1;
            }
        }
    }

    /// The operation, if it is kept.
    pub fn get(&self, id: OpId) -> Option<&Operation> {
        let kept = self.runs.get(&id.run)?;
        let logged = kept.operations.get(usize::try_from(id.number.checked_sub(kept.first)?).ok()?)?;
        Some(&logged.operation)
    }

    /// Of the operations in `have`, those that `lacking` does not cover, in the order of each run, until they weigh `bytes_max`;
    /// and whether that is all. None: some of them are kept no longer.
    pub fn missing(&self, have: &Context, lacking: &Context, bytes_max: usize) -> Option<(Vec<Operation>, bool)> {
        let mut missing = Vec::new();
        let mut bytes = 0;
        let mut all = true;
        for (run, last) in have.iter() {
            let covered = lacking.get(run);
            if covered >= last {
                continue;
            }
            for Logged { operation, .. } in self.runs.get(&run)?.range(covered, last)? {
                if bytes >= bytes_max {
                    all = false;
                    break;
                }
                bytes += operation.weight();
                missing.push(operation.clone());
            }
        }
        Some((missing, all))
    }

    /// Of the operations in `have`, the first `len_max` of those that `lacking` does not cover, by their stamps: each after all that
    /// its maker knew. And whether that is all. None: some of them are kept no longer.
    pub fn since(&self, have: &Context, lacking: &Context, len_max: usize) -> Option<(Vec<&Logged>, bool)> {
        let mut heads = BTreeMap::<Stamp, (&Logged, _)>::new();
        for (run, last) in have.iter() {
            let covered = lacking.get(run);
            if covered < last {
                let mut rest = self.runs.get(&run)?.range(covered, last)?;
                if let Some(first) = rest.next() {
                    heads.insert(first.operation.stamp(), (first, rest));
                }
            }
        }
        let mut found = Vec::new();
        while found.len() < len_max
            && let Some((_, (first, mut rest))) = heads.pop_first()
        {
            found.push(first);
            if let Some(next) = rest.next() {
                heads.insert(next.operation.stamp(), (next, rest));
            }
        }
        Some((found, heads.is_empty()))
    }
}
