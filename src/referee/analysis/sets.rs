//! Groups as sets that only have to become right (Jepsen's `set-full`): for each membership whether it came to be seen, how soon, and
//! whether it stayed. The measure for systems whose lists carry no revision.

use serde::Serialize;

use super::evidence::Evidence;
use super::faults::{Span, ms};
use super::story::Story;
use crate::referee::history::What;

#[derive(Clone, Debug, Default, Serialize)]
pub struct Sets {
    /// Memberships that nobody may have ended.
    pub members: usize,
    /// In every list from some moment on.
    pub stable: usize,
    /// In some list once, and not in the last ones.
    pub lost: usize,
    /// In no list.
    pub never_read: usize,
    /// Those that a list missed although it was asked for after the join was answered.
    pub stale: usize,
    /// From the answer to the join until the last list without it, in milliseconds.
    pub stable_after_p50_ms: f64,
    pub stable_after_p99_ms: f64,
    pub stable_after_max_ms: f64,
    /// Lists that named a member more than once.
    pub twice: Vec<Evidence>,
    /// Lists that were read.
    pub lists: usize,
}

pub fn find(story: &Story) -> Sets {
    let mut found = Sets::default();
    let lists =
        story.ops.iter().enumerate().filter(|(_, op)| op.acked().is_some()).filter_map(|(at, op)| match op.what {
            What::Members { group, result: Some(list) } => Some((at, op, group.as_str(), list)),
            _ => None,
        });
    let lists = lists.collect::<Vec<_>>();
    found.lists = lists.len();
    for (place, op, group, list) in &lists {
        if let Some(member) = list.twice.first() {
            let at = ms(op.invoked) / 1e3;
            let what = format!("{member} is listed more than once, at {at:.3} s: {}", op.tell());
            let span = Span { from: op.invoked, to: op.ended.unwrap_or(op.invoked) };
            found.twice.push(Evidence::new(group, what, span, [*place]));
        }
    }
    let mut after = Vec::new();
    for grant in story.groups.all().filter(|grant| story.groups.may_end_at(grant).is_none()) {
        let of_group = lists.iter().filter(|(_, op, group, _)| *group == grant.key && op.invoked > grant.acked);
        let seen =
            of_group.map(|(_, op, _, list)| (op.invoked, list.members.contains(grant.owner))).collect::<Vec<_>>();
        found.members += 1;
        let (last_with, last_without) = (
            seen.iter().filter(|(_, there)| *there).map(|(at, _)| *at).max(),
            seen.iter().filter(|(_, there)| !*there).map(|(at, _)| *at).max(),
        );
        match (last_with, last_without) {
            (None, _) => found.never_read += 1,
            (Some(_), None) => {
                found.stable += 1;
                after.push(0);
            }
            (Some(with), Some(without)) => {
                found.stale += 1;
                if with > without {
                    found.stable += 1;
                    after.push(without - grant.acked);
                } else {
                    found.lost += 1;
                }
            }
        }
    }
    after.sort_unstable();
    let quantile = |q: f64| after.get(((after.len() as f64 * q).ceil() as usize).max(1) - 1).copied().map_or(0.0, ms);
    (found.stable_after_p50_ms, found.stable_after_p99_ms, found.stable_after_max_ms) =
        (quantile(0.5), quantile(0.99), quantile(1.0));
    found
}
