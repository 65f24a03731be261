//! The latest operations of each run, kept so that a peer that lags a little gets these and not the whole state.

use std::collections::{BTreeMap, VecDeque};

use super::context::{Context, OpId, Run};
use super::operation::Operation;

/// Operations of each run without a gap, up to the last one applied; the oldest of all go first.
#[derive(Clone, Debug, Default)]
pub struct Log {
    runs: BTreeMap<Run, Kept>,
    /// In the order in which they came, for letting the oldest go.
    order: VecDeque<Run>,
    len_max: usize,
}

#[derive(Clone, Debug, Default)]
struct Kept {
    first: u64,
    operations: VecDeque<Operation>,
}

impl Log {
    /// A log of at most so many operations.
    pub fn new(len_max: usize) -> Self {
        Self { len_max, ..Self::default() }
    }

    /// Keeps an operation that was just applied.
    pub fn push(&mut self, operation: Operation) {
        let id = operation.id();
        let kept = self.runs.entry(id.run).or_default();
        // After a state transfer the run goes on with a leap: what came before it is no longer kept without a gap.
        if kept.first + kept.operations.len() as u64 != id.number {
            kept.operations.clear();
            kept.first = id.number;
        }
        kept.operations.push_back(operation);
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
        kept.operations.get(usize::try_from(id.number.checked_sub(kept.first)?).ok()?)
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
            let kept = self.runs.get(&run)?;
            if kept.first > covered + 1 || kept.first + kept.operations.len() as u64 != last + 1 {
                return None;
            }
            for operation in kept.operations.range((covered + 1 - kept.first) as usize..) {
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
}
