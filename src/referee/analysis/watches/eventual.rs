//! No order over all: every operation at least once, each origin's in their order, and at the end what stands.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Watches;
use crate::referee::analysis::ops::Key;
use crate::referee::analysis::story::Story;
use crate::referee::analysis::streams::{Stream, Told};
use crate::referee::watched::{Change, ChangeKind, ChangeRevision};

/// A watcher that began later than this before an operation was first told to anybody may have begun after it.
const BEGINNING_NS: u64 = 1_000_000_000;

type Operation<'a> = (&'a str, u64);

pub(super) fn judge(story: &Story, streams: &[Stream], found: &mut Watches) {
    // Each operation, when it was first told, and what it was about.
    let mut known: HashMap<Operation, (u64, BTreeSet<&str>)> = HashMap::new();
    for (at, revision, changes) in streams.iter().flat_map(Stream::changes) {
        let ChangeRevision::Operation { origin, number } = revision else { continue };
        let (first, keys) = known.entry((origin, *number)).or_insert((at, BTreeSet::new()));
        *first = at.min(*first);
        keys.extend(changes.iter().map(|change| change.key.as_str()).filter(|key| !key.is_empty()));
    }
    for stream in streams {
        in_order(stream, found);
        if stream.caught_up.is_some() && stream.resyncs() == 0 {
            missed(stream, &known, found);
        }
        if stream.caught_up.is_some() {
            at_end(story, stream, found);
        }
    }
    found.missed.sort();
}

fn in_order(stream: &Stream, found: &mut Watches) {
    let mut greatest: BTreeMap<&str, u64> = BTreeMap::new();
    let mut told: BTreeSet<Operation> = BTreeSet::new();
    for message in &stream.told {
        match message {
            Told::Change { revision: ChangeRevision::Operation { origin, number }, .. } => {
                let last = greatest.entry(origin).or_default();
                // At least once: what was told before may be told again.
                if told.insert((origin, *number)) && *number < *last {
                    found.disordered.push(format!(
                        "watcher {} was told of operation {number} of {origin} after {last}",
                        stream.watcher
                    ));
                }
                *last = (*last).max(*number);
            }
            Told::Resync => {
                greatest.clear();
                told.clear();
            }
            Told::Change { .. } | Told::Progress { .. } => {}
        }
    }
}

fn missed(stream: &Stream, known: &HashMap<Operation, (u64, BTreeSet<&str>)>, found: &mut Watches) {
    let mut told: BTreeSet<Operation> = BTreeSet::new();
    // A node that took over a state whole tells what differs, key by key.
    let mut whole: BTreeSet<&str> = BTreeSet::new();
    for (_, revision, changes) in stream.changes() {
        match revision {
            ChangeRevision::Operation { origin, number } => drop(told.insert((origin, *number))),
            ChangeRevision::Local | ChangeRevision::Number(_) => {
                whole.extend(changes.iter().map(|change| change.key.as_str()));
            }
        }
    }
    for (operation, (first, keys)) in known {
        let of_interest = keys.iter().any(|key| stream.wants(key)) && !keys.iter().any(|key| whole.contains(key));
        let in_its_time =
            *first > stream.begun + BEGINNING_NS && stream.told_until().is_some_and(|until| *first < until);
        if of_interest && in_its_time && !told.contains(operation) {
            let keys = keys.iter().copied().collect::<Vec<_>>().join(", ");
            found.missed.push(format!(
                "watcher {} was never told of operation {} of {} ({keys})",
                stream.watcher, operation.1, operation.0
            ));
        }
    }
}

/// What stands by all that the watcher was told, against what the nodes show.
fn at_end(story: &Story, stream: &Stream, found: &mut Watches) {
    let mut standing: BTreeMap<(&str, bool), BTreeSet<(&str, &str)>> = BTreeMap::new();
    for message in &stream.told {
        match message {
            Told::Change { changes, .. } => changes.iter().for_each(|change| take_in(&mut standing, change)),
            // Of what was not told since, nothing is known.
            Told::Resync => standing.clear(),
            Told::Progress { .. } => {}
        }
    }
    for ((key, of_group), holders) in standing {
        let owners = holders.iter().map(|(owner, _)| *owner).collect::<BTreeSet<_>>();
        let shown = if of_group { members_at_end(story, key) } else { owner_at_end(story, key) };
        let Some(shown) = shown else { continue };
        found.compared_at_end += 1;
        let right = match of_group {
            true => owners == shown,
            // Of several that stand beside each other one is shown.
            false => shown.is_subset(&owners) && shown.is_empty() == owners.is_empty(),
        };
        if !right {
            let list = |set: &BTreeSet<&str>| match set.is_empty() {
                true => "nobody".to_owned(),
                false => set.iter().copied().collect::<Vec<_>>().join(", "),
            };
            found.wrong_at_end.push(format!(
                "{key}: by what watcher {} was told there is {}, but the nodes show {}",
                stream.watcher,
                list(&owners),
                list(&shown)
            ));
        }
    }
}

fn take_in<'a>(standing: &mut BTreeMap<(&'a str, bool), BTreeSet<(&'a str, &'a str)>>, change: &'a Change) {
    let begins = match change.kind {
        ChangeKind::Registered | ChangeKind::Joined | ChangeKind::Updated | ChangeKind::Shown => true,
        ChangeKind::Ended | ChangeKind::Expired | ChangeKind::Left | ChangeKind::LeftExpired | ChangeKind::Hidden => {
            false
        }
        ChangeKind::LeaseExpired | ChangeKind::Conflict => return,
    };
    // What is hidden or shown does not say of itself whether it is a name or a membership.
    let known_group = standing.contains_key(&(change.key.as_str(), true));
    let shows = matches!(change.kind, ChangeKind::Hidden | ChangeKind::Shown | ChangeKind::Updated);
    let of_group = change.kind.is_of_group() || (shows && known_group);
    let holders = standing.entry((change.key.as_str(), of_group)).or_default();
    let holder = (change.owner.as_str(), change.token.as_str());
    match begins {
        true => holders.insert(holder),
        false => holders.remove(&holder),
    };
}

/// None: the nodes do not agree, or were not looked at after the last change.
fn owner_at_end<'a>(story: &'a Story, name: &str) -> Option<BTreeSet<&'a str>> {
    let words = story.last_words(name);
    let first = words.first()?.owner;
    words.iter().all(|word| word.owner == first).then(|| first.into_iter().collect())
}

fn members_at_end<'a>(story: &'a Story, group: &str) -> Option<BTreeSet<&'a str>> {
    let from = story.final_from(Key::Group(group))?;
    let mut last = BTreeMap::new();
    for seen in story.views.iter().filter(|seen| seen.from >= from) {
        last.insert(seen.node, seen.view.groups.get(group).map(|members| members.iter().map(String::as_str).collect()));
    }
    let mut views = last.into_values().map(Option::unwrap_or_default);
    let first: BTreeSet<&str> = views.next()?;
    views.all(|other| other == first).then_some(first)
}
