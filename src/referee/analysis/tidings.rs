//! Whether the owners of what lost a conflict were told so, by the answers to the keep-alives of their leases.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::evidence::Evidence;
use super::faults::{Span, ms, ns};
use super::grants::Grant;
use super::story::Story;
use super::views::Seen;
use crate::referee::history::{Conflict, KeptAlive, What};
use crate::referee::watched::{ChangeKind, Watched};

#[derive(Clone, Debug, Default, Serialize)]
pub struct Tidings {
    /// Losing grants whose leases were kept alive for long enough after their loss was known.
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
        let Some((id, lease)) = grant.lease.and_then(|id| Some((id, story.leases.get(id)?))) else { continue };
        let kept_after = |since: u64, until_fault: bool| {
            let kept = lease.proofs.iter().find(|proof| proof.sent > since + ns(story.run.bounds.confirmation))?;
            let counts = !until_fault || story.faults.steady(Span { from: since, to: kept.acked });
            counts.then_some((since, kept))
        };
        let told_of = known.get(&(grant.key, grant.token)).and_then(|since| kept_after(*since, false));
        let owed = told_of.or_else(|| kept_after(shown_lost(story, grant)?, true));
        let Some((since, first)) = owed else { continue };
        found.owed += 1;
        if told.contains(&(id, record.id.as_str())) {
            found.told += 1;
            continue;
        }
        let (loser, at) = (&record.loser.0, ms(since) / 1e3);
        let what = format!("{loser} lost it before {at:.3} s, kept its lease alive after that, and was never told");
        let kept = story
            .ops
            .iter()
            .position(|op| op.invoked == first.sent && matches!(op.what, What::KeepAlive { lease, .. } if lease == id));
        let calls = [grant.op].into_iter().chain(kept).collect::<Vec<_>>();
        found.missing.push(Evidence::new(&record.name, what, Span { from: since, to: first.acked }, calls));
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

/// When a grant that lost had last been shown and all nodes had been looked at since: by then they all knew. No watcher need have been
/// told, since one that begins anew is told what stands and not what was decided.
fn shown_lost(story: &Story, grant: &Grant) -> Option<u64> {
    let shows = |seen: &&Seen| seen.view.names.get(grant.key).is_some_and(|(_, token)| token == grant.token);
    let last = story.views[story.showing(grant.key)].iter().filter(shows).map(|seen| seen.at).max()?;
    let mut looked_at = BTreeMap::new();
    for seen in story.views_from(last) {
        looked_at.entry(seen.node).or_insert(seen.at);
        if looked_at.len() == story.run.header.nodes.len() {
            return looked_at.into_values().max();
        }
    }
    None
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
