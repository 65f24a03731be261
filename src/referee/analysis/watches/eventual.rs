//! No order over all: in every stream each origin's operations in their order, and at the end what stands.
//!
//! Which operation ended a grant may differ from node to node (two can have done so at once), and so not every operation is told by
//! every node. But what stands at the end cannot be right if something was never told.

use std::collections::{BTreeMap, BTreeSet};

use super::{Watches, calls_of};
use crate::referee::analysis::evidence::Evidence;
use crate::referee::analysis::faults::Span;
use crate::referee::analysis::grants::Grant;
use crate::referee::analysis::story::Story;
use crate::referee::analysis::streams::{Stream, Told};
use crate::referee::history::Key;
use crate::referee::watched::{Change, ChangeKind, ChangeRevision};

/// Calls that are shown of what stands wrongly.
const LAST_CALLS: usize = 8;

type Operation<'a> = (&'a str, u64);

/// What a watcher was told of one key.
#[derive(Default)]
struct Standing<'a> {
    /// Owners or members that hold it, with their tokens.
    holders: BTreeSet<(&'a str, &'a str)>,
    /// Whose holding was told to have ended, and no later one.
    gone: BTreeSet<&'a str>,
    /// When it was last told of the key.
    told: u64,
}

impl<'a> Standing<'a> {
    fn owners(&self) -> BTreeSet<&'a str> {
        self.holders.iter().map(|(owner, _)| *owner).collect()
    }

    /// Whether this can be so if all was told; unless that was the whole, others, never told of, may hold it too.
    fn allows(&self, shown: &BTreeSet<&str>, of_group: bool, whole: bool) -> bool {
        let owners = self.owners();
        match (of_group, whole) {
            (true, true) => owners == *shown,
            (true, false) => owners.is_subset(shown) && self.ended(&owners).all(|gone| !shown.contains(gone)),
            // Of several that stand beside each other one is shown.
            (false, true) => shown.is_subset(&owners) && shown.is_empty() == owners.is_empty(),
            (false, false) => {
                (owners.is_empty() || !shown.is_empty()) && self.ended(&owners).all(|gone| !shown.contains(gone))
            }
        }
    }

    fn ended(&self, owners: &BTreeSet<&'a str>) -> impl Iterator<Item = &'a str> {
        self.gone.iter().copied().filter(|owner| !owners.contains(owner))
    }
}

pub(super) fn judge(story: &Story, streams: &[Stream], found: &mut Watches) {
    for stream in streams {
        in_order(story, stream, found);
        if stream.caught_up.is_some() {
            at_end(story, stream, found);
        }
    }
}

fn in_order(story: &Story, stream: &Stream, found: &mut Watches) {
    let mut greatest: BTreeMap<&str, u64> = BTreeMap::new();
    let mut told: BTreeSet<Operation> = BTreeSet::new();
    for message in &stream.told {
        match message {
            Told::Change { at, revision: ChangeRevision::Operation { origin, number }, changes } => {
                let last = greatest.entry(origin).or_default();
                // At least once: what was told before may be told again.
                if told.insert((origin, *number)) && *number < *last {
                    let what =
                        format!("watcher {} was told of operation {number} of {origin} after {last}", stream.watcher);
                    let calls =
                        changes.iter().flat_map(|change| calls_of(story, change.kind, &change.key, &change.token));
                    let key = changes.first().map_or("", |change| &change.key);
                    let span = Span { from: *at, to: *at };
                    found.disordered.push(Evidence::new(key, what, span, calls.collect::<Vec<_>>()));
                }
                *last = (*last).max(*number);
            }
            // It may begin some way before where the last one ended.
            Told::Resumed | Told::Resync => greatest.clear(),
            Told::Change { .. } | Told::Progress { .. } => {}
        }
    }
}

/// What stands by all that the watcher was told, against what the nodes show.
fn at_end(story: &Story, stream: &Stream, found: &mut Watches) {
    let groups = story.ops.iter().filter_map(|op| match op.key() {
        Key::Group(group) => Some(group),
        Key::Name(_) | Key::Other => None,
    });
    let groups = groups.collect::<BTreeSet<_>>();
    let mut standing: BTreeMap<(&str, bool), Standing> = BTreeMap::new();
    let (mut whole, mut begins_anew) = (true, false);
    for message in &stream.told {
        match message {
            Told::Change { at, changes, .. } => {
                changes.iter().for_each(|change| take_in(&mut standing, &groups, change, *at));
            }
            // What was told before counts no more. The state follows, and a position when all of it has come.
            Told::Resync => {
                standing.clear();
                (whole, begins_anew) = (false, true);
            }
            Told::Progress { .. } => whole |= std::mem::take(&mut begins_anew),
            Told::Resumed => begins_anew = false,
        }
    }
    for ((key, of_group), standing) in standing {
        let last_change = story.final_from(if of_group { Key::Group(key) } else { Key::Name(key) });
        // What changed after it was said to have caught up may be told later than anybody looked.
        if last_change.is_none_or(|at| stream.told_until().is_none_or(|until| at >= until)) {
            continue;
        }
        let shown = if of_group { members_at_end(story, key) } else { owner_at_end(story, key) };
        // A lease's end is nobody's call: it may have come after the nodes were last looked at.
        let Some((shown, seen)) = shown.filter(|(_, seen)| *seen > standing.told) else { continue };
        found.compared_at_end += 1;
        let owners = standing.owners();
        if !standing.allows(&shown, of_group, whole) {
            let list = |set: &BTreeSet<&str>| match set.is_empty() {
                true => "nobody".to_owned(),
                false => set.iter().copied().collect::<Vec<_>>().join(", "),
            };
            let what = format!(
                "by what watcher {} was told there is {}, but the nodes show {}",
                stream.watcher,
                list(&owners),
                list(&shown)
            );
            let grants = if of_group { &story.groups } else { &story.names };
            let holds = |grant: &&Grant| owners.contains(grant.owner) || shown.contains(grant.owner);
            // The last ones of those that it is about.
            let calls =
                grants.of(key).iter().filter(holds).flat_map(|grant| {
                    std::iter::once(grant.op).chain(grants.endings_of(grant).map(|ending| ending.op))
                });
            let mut calls = calls.collect::<Vec<_>>();
            calls.sort_unstable();
            let calls = calls.split_off(calls.len().saturating_sub(LAST_CALLS));
            found.wrong_at_end.push(Evidence::new(key, what, Span { from: standing.told, to: seen }, calls));
        }
    }
}

fn take_in<'a>(
    standing: &mut BTreeMap<(&'a str, bool), Standing<'a>>,
    groups: &BTreeSet<&str>,
    change: &'a Change,
    at: u64,
) {
    if matches!(change.kind, ChangeKind::LeaseExpired | ChangeKind::Conflict) {
        return;
    }
    // What is hidden, shown or updated does not say of itself whether it is a name or a membership.
    let of_group = change.kind.is_of_group() || groups.contains(change.key.as_str());
    let Standing { holders, gone, told } = standing.entry((change.key.as_str(), of_group)).or_default();
    *told = at;
    let holder = (change.owner.as_str(), change.token.as_str());
    // Of grants of one owner that stand beside each other one is shown: when that one ends, the next is told as its update.
    if change.kind == ChangeKind::Updated {
        holders.retain(|(owner, _)| *owner != change.owner);
    }
    match change.kind.stands() {
        true => (holders.insert(holder), gone.remove(holder.0)),
        false => (holders.remove(&holder), gone.insert(holder.0)),
    };
}

/// Who holds it, and since when all nodes have shown that: the earliest of their last words. None: the nodes do not agree, or were not
/// looked at after the last change.
fn owner_at_end<'a>(story: &'a Story, name: &str) -> Option<(BTreeSet<&'a str>, u64)> {
    let words = story.last_words(name);
    let (first, seen) = (words.first()?.owner, words.iter().map(|word| word.at).min()?);
    words.iter().all(|word| word.owner == first).then(|| (first.into_iter().collect(), seen))
}

fn members_at_end<'a>(story: &'a Story, group: &str) -> Option<(BTreeSet<&'a str>, u64)> {
    let from = story.final_from(Key::Group(group))?;
    let mut last = BTreeMap::new();
    for seen in story.views_from(from).filter(|seen| story.in_core(seen.node)) {
        let members = seen.view.groups.get(group).map(|members| members.iter().map(String::as_str).collect());
        last.insert(seen.node, (members.unwrap_or_default(), seen.from));
    }
    let mut views = last.into_values();
    let (first, mut seen): (BTreeSet<&str>, u64) = views.next()?;
    for (members, from) in views {
        if members != first {
            return None;
        }
        seen = seen.min(from);
    }
    Some((first, seen))
}
