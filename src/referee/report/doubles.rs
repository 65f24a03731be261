//! Stretches in which a name had more than one owner, numbered, so that the timeline and the list of anomalies speak of the same one.

use serde::Serialize;

use crate::referee::analysis::Findings;
use crate::referee::analysis::duplicates::Duplicate;

/// From, to (milliseconds), its number in the run, and whether the owners themselves believed it: if not, nodes showed it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Double(pub f64, pub f64, pub usize, pub bool);

/// All of a run by their beginning, each with its name. The numbers count from 1.
pub(super) fn numbered<'f>(found: &'f Findings) -> Vec<(Double, &'f str)> {
    let mut list: Vec<&'f Duplicate> = found.duplicates.list.iter().collect();
    list.sort_by(|a, b| a.from_ms.total_cmp(&b.from_ms).then_with(|| a.name.cmp(&b.name)));
    let numbered = |(at, dup): (usize, &'f Duplicate)| {
        (Double(dup.from_ms, dup.to_ms, at + 1, dup.seen_by_clients), dup.name.as_str())
    };
    list.into_iter().enumerate().map(numbered).collect()
}
