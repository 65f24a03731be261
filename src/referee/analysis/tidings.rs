//! Whether the owners of what lost a conflict were told so, by the answers to the keep-alives of their leases.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::evidence::Evidence;
use super::faults::{Span, ms, ns};
use super::story::Story;
use crate::referee::history::{Conflict, KeptAlive, What};
use crate::referee::watched::{ChangeKind, Watched};

#[derive(Clone, Debug, Default, Serialize)]
pub struct Tidings {
    /// Losing grants whose leases were kept alive for long enough after their loss.
    pub owed: usize,
    /// Those of them whose owners were told.
    pub told: usize,
    pub missing: Vec<Evidence>,
    /// Told to a lease of which no grant was the loser, or not as the nodes' records have it.
    pub wrong: Vec<Evidence>,
}

pub fn find(story: &Story) -> Tidings {
    let mut found = Tidings::default();
    let records =
        story.told.iter().flat_map(|told| told.records).map(|r| (r.id.as_str(), r)).collect::<BTreeMap<_, _>>();
    let mut told: BTreeSet<(&str, &str)> = BTreeSet::new();
    for (at, op) in story.ops.iter().enumerate() {
        let What::KeepAlive { lease, result: Some(KeptAlive::Alive { lost, .. }), .. } = op.what else { continue };
        for record in lost {
            told.insert((lease, &record.id));
            wrong_party(story, at, lease, record, &records, &mut found);
        }
    }
    let known = known_since(story);
    for record in records.values() {
        let Some(grant) = story.grant(&record.name, &record.loser.1) else { continue };
        let (Some(id), Some(since)) = (grant.lease, known.get(&(grant.key, grant.token))) else { continue };
        let Some(lease) = story.leases.get(id) else { continue };
        let late = since + ns(story.run.bounds.confirmation);
        let Some(first) = lease.proofs.iter().find(|proof| proof.sent > late) else { continue };
        found.owed += 1;
        if told.contains(&(id, record.id.as_str())) {
            found.told += 1;
            continue;
        }
        let (loser, at) = (&record.loser.0, ms(*since) / 1e3);
        let what = format!("{loser} lost it before {at:.3} s, kept its lease alive after that, and was never told");
        let kept = story
            .ops
            .iter()
            .position(|op| op.invoked == first.sent && matches!(op.what, What::KeepAlive { lease, .. } if lease == id));
        let calls = [grant.op].into_iter().chain(kept).collect::<Vec<_>>();
        found.missing.push(Evidence::new(&record.name, what, Span { from: *since, to: first.acked }, calls));
    }
    found.wrong.sort_by(|a, b| a.line.cmp(&b.line));
    found.wrong.dedup_by(|a, b| a.line == b.line);
    found
}

/// When a watcher was first told that a grant had lost.
fn known_since<'a>(story: &Story<'a>) -> BTreeMap<(&'a str, &'a str), u64> {
    let mut since = BTreeMap::new();
    for event in &story.run.events {
        let What::Watched(Watched::Change { changes, .. }) = &event.what else { continue };
        for change in changes.iter().filter(|change| change.kind == ChangeKind::Conflict) {
            since.entry((change.key.as_str(), change.token.as_str())).or_insert(event.time);
        }
    }
    since
}

fn wrong_party(
    story: &Story,
    at: usize,
    lease: &str,
    record: &Conflict,
    records: &BTreeMap<&str, &Conflict>,
    found: &mut Tidings,
) {
    let op = &story.ops[at];
    let span = Span { from: op.invoked, to: op.ended.unwrap_or(op.invoked) };
    let mine = story.names.of(&record.name).iter().any(|g| g.token == record.loser.1 && g.lease == Some(lease));
    let silent = story.names.silent(&record.name).iter().any(|silent| silent.owner == record.loser.0);
    if !mine && !silent {
        let what = format!("lease {lease} was told of the loss of {}, which is not bound to it", record.loser.0);
        found.wrong.push(Evidence::new(&record.name, what, span, [at]));
    }
    if records.get(record.id.as_str()).is_some_and(|other| *other != record) {
        let what = format!("record {} was told to its loser otherwise than nodes have it", record.id);
        found.wrong.push(Evidence::new(&record.name, what, span, [at]));
    }
}
