//! One number for every change: each once, in order, without a gap, whole, the same for everyone.

use std::collections::{BTreeMap, BTreeSet};

use super::Watches;
use crate::referee::analysis::story::Story;
use crate::referee::analysis::streams::{Stream, Told};
use crate::referee::watched::{Change, ChangeKind, ChangeRevision};

/// What a revision changed, as far as it has to be the same for everyone.
type Content<'a> = BTreeSet<(ChangeKind, &'a str, &'a str, &'a str)>;

pub(super) fn judge(story: &Story, streams: &[Stream], found: &mut Watches) {
    let mut known: BTreeMap<u64, Content> = BTreeMap::new();
    let mut first: BTreeMap<u64, u64> = BTreeMap::new();
    for stream in streams.iter().filter(|stream| stream.prefix.is_none()) {
        for (at, revision, changes) in stream.changes() {
            let ChangeRevision::Number(number) = revision else { continue };
            let earliest = first.entry(*number).or_insert(at);
            *earliest = at.min(*earliest);
            let content = content(changes);
            match known.get(number) {
                Some(other) if *other != content => {
                    found.untrue.push(format!("revision {number} is told differently to watcher {}", stream.watcher));
                }
                Some(_) => {}
                None => drop(known.insert(*number, content)),
            }
        }
    }
    let granted = grants(story, &mut known, found);
    for stream in streams {
        // Whoever has caught up was told all that anybody had been told by then.
        let by_then = |until: u64| first.iter().filter(|(_, at)| **at < until).map(|(number, _)| *number).max();
        let owed = stream.told_until().and_then(by_then).unwrap_or(0);
        one(stream, owed, &known, &granted, found);
    }
}

fn content(changes: &[Change]) -> Content<'_> {
    let entries = changes.iter().filter(|change| !change.key.is_empty());
    entries.map(|change| (change.kind, change.key.as_str(), change.owner.as_str(), change.token.as_str())).collect()
}

/// Every acknowledged grant is a change at the revision that is its token. Those of which no watcher was told, by revision.
fn grants<'a>(
    story: &Story<'a>,
    known: &mut BTreeMap<u64, Content<'a>>,
    found: &mut Watches,
) -> BTreeMap<u64, &'a str> {
    let mut untold = BTreeMap::new();
    let of = |kind: ChangeKind| {
        move |grant: &crate::referee::analysis::grants::Grant<'a>| (kind, grant.key, grant.owner, grant.token)
    };
    let names = story.names.all().filter(|grant| grant.fresh).map(of(ChangeKind::Registered));
    let groups = story.groups.all().filter(|grant| grant.fresh).map(of(ChangeKind::Joined));
    for (kind, key, owner, token) in names.chain(groups) {
        let Ok(revision) = token.parse::<u64>() else { continue };
        match known.get(&revision) {
            Some(told) if told.contains(&(kind, key, owner, token)) => {}
            Some(_) => {
                found.untrue.push(format!("revision {revision} granted {key} to {owner}, and is told otherwise"))
            }
            None => drop(untold.insert(revision, key)),
        }
    }
    untold
}

fn one(stream: &Stream, owed: u64, known: &BTreeMap<u64, Content>, untold: &BTreeMap<u64, &str>, found: &mut Watches) {
    let watcher = stream.watcher;
    let mut told: BTreeSet<u64> = BTreeSet::new();
    let mut last: Option<u64> = None;
    let mut bookmark = 0;
    // From where on, without a break, everything is to be told.
    let mut from: Option<u64> = None;
    let gaps = |from: Option<u64>, to: u64, told: &BTreeSet<u64>, found: &mut Watches| {
        let Some(from) = from.filter(|from| *from < to) else { return };
        let wanted = |content: &Content| content.iter().any(|(_, key, _, _)| stream.wants(key));
        let changes = known.range(from + 1..=to).filter(|(_, content)| wanted(content)).map(|(revision, _)| revision);
        let grants = untold.range(from + 1..=to).filter(|(_, key)| stream.wants(key)).map(|(revision, _)| revision);
        for revision in changes.chain(grants).filter(|revision| !told.contains(revision)) {
            found.missed.push(format!("watcher {watcher} was never told of revision {revision}"));
        }
    };
    for message in &stream.told {
        match message {
            Told::Change { revision: ChangeRevision::Number(number), .. } => {
                let _ = from.get_or_insert(number.saturating_sub(1));
                if !told.insert(*number) {
                    found.repeated.push(format!("watcher {watcher} was told of revision {number} twice"));
                } else if last.is_some_and(|last| *number < last) {
                    found.disordered.push(format!(
                        "watcher {watcher} was told of revision {number} after {}",
                        last.unwrap_or_default()
                    ));
                } else if *number <= bookmark {
                    found.disordered.push(format!(
                        "watcher {watcher} was told of revision {number} after it was told that all up to {bookmark} had been told"
                    ));
                }
                last = last.max(Some(*number));
            }
            Told::Change { .. } | Told::Resumed => {}
            Told::Progress { revision } => {
                bookmark = bookmark.max(revision.unwrap_or(0));
                from = from.or(*revision);
            }
            Told::Resync => {
                gaps(from.take(), last.unwrap_or(0).max(bookmark), &told, found);
                (last, bookmark) = (None, 0);
            }
        }
    }
    gaps(from, last.unwrap_or(0).max(bookmark).max(owed), &told, found);
}
