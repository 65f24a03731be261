//! One number for every change: each once, in order, without a gap, whole, the same for everyone.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use super::{Watches, calls_of};
use crate::referee::analysis::evidence::Evidence;
use crate::referee::analysis::faults::Span;
use crate::referee::analysis::grants::Grant;
use crate::referee::analysis::story::Story;
use crate::referee::analysis::streams::{Stream, Told};
use crate::referee::watched::{Change, ChangeKind, ChangeRevision};

/// What a revision changed, as far as it has to be the same for everyone.
type Content<'a> = BTreeSet<(ChangeKind, &'a str, &'a str, &'a str)>;

pub(super) fn judge(story: &Story, streams: &[Stream], found: &mut Watches) {
    let revisions = Revisions::of(story, streams, found);
    for stream in streams {
        // Whoever has caught up was told all that anybody had been told by then.
        let owed = stream.told_until().map_or(0, |until| revisions.told_by(until));
        one(stream, owed, &revisions, found);
    }
}

/// What there was to tell.
struct Revisions<'a> {
    story: &'a Story<'a>,
    /// As the watchers of everything were told it, and when the first of them was.
    told: BTreeMap<u64, (Content<'a>, u64)>,
    /// Acknowledged grants of which none of them was told. Each is a change at the revision that is its token.
    untold: BTreeMap<u64, &'a Grant<'a>>,
}

impl<'a> Revisions<'a> {
    fn of(story: &'a Story<'a>, streams: &'a [Stream<'a>], found: &mut Watches) -> Self {
        let mut revisions = Self { story, told: BTreeMap::new(), untold: BTreeMap::new() };
        for stream in streams.iter().filter(|stream| stream.prefix.is_none()) {
            for (at, revision, changes) in stream.changes() {
                let ChangeRevision::Number(number) = revision else { continue };
                let content = content(changes);
                let differs = match revisions.told.entry(*number) {
                    Entry::Vacant(unknown) => {
                        unknown.insert((content, at));
                        false
                    }
                    Entry::Occupied(mut known) => {
                        let (known, first) = known.get_mut();
                        *first = at.min(*first);
                        *known != content
                    }
                };
                if differs {
                    let what = format!("revision {number} is told differently to watcher {}", stream.watcher);
                    found.untrue.push(revisions.evidence(*number, Some(at), what));
                }
            }
        }
        let names = story.names.all().map(|grant| (ChangeKind::Registered, grant));
        let groups = story.groups.all().map(|grant| (ChangeKind::Joined, grant));
        for (kind, grant) in names.chain(groups).filter(|(_, grant)| grant.fresh) {
            let Ok(revision) = grant.token.parse::<u64>() else { continue };
            match revisions.told.get(&revision) {
                Some((told, _)) if told.contains(&(kind, grant.key, grant.owner, grant.token)) => {}
                Some((_, at)) => {
                    let what = format!("revision {revision} granted it to {}, and is told otherwise", grant.owner);
                    let span = Span { from: grant.acked.min(*at), to: grant.acked.max(*at) };
                    found.untrue.push(Evidence::new(grant.key, what, span, [grant.op]));
                }
                None => drop(revisions.untold.insert(revision, grant)),
            }
        }
        revisions
    }

    fn told_by(&self, until: u64) -> u64 {
        self.told.iter().filter(|(_, (_, first))| *first < until).map(|(number, _)| *number).max().unwrap_or(0)
    }

    /// What these say of a revision: what it changed, the calls that did, and from when it was known until it was told so, if it was.
    fn evidence(&self, revision: u64, told: Option<u64>, what: String) -> Evidence {
        let known = self.told.get(&revision);
        let untold = self.untold.get(&revision);
        let first = known.map(|(_, first)| *first).or(untold.map(|grant| grant.acked));
        let from = first.or(told).unwrap_or_default();
        let span = Span { from, to: told.unwrap_or(from).max(from) };
        let changes = known.iter().flat_map(|(content, _)| content);
        let mut calls =
            changes.flat_map(|(kind, key, _, token)| calls_of(self.story, *kind, key, token)).collect::<Vec<_>>();
        calls.extend(untold.map(|grant| grant.op));
        let key = known.and_then(|(content, _)| content.first()).map(|(_, key, ..)| *key);
        Evidence::new(key.or(untold.map(|grant| grant.key)).unwrap_or_default(), what, span, calls)
    }
}

fn content(changes: &[Change]) -> Content<'_> {
    let entries = changes.iter().filter(|change| !change.key.is_empty());
    entries.map(|change| (change.kind, change.key.as_str(), change.owner.as_str(), change.token.as_str())).collect()
}

fn one(stream: &Stream, owed: u64, revisions: &Revisions, found: &mut Watches) {
    let watcher = stream.watcher;
    let mut told: BTreeSet<u64> = BTreeSet::new();
    let mut last: Option<u64> = None;
    let mut bookmark = 0;
    // From where on, without a break, everything is to be told.
    let mut from: Option<u64> = None;
    let gaps = |from: Option<u64>, to: u64, told: &BTreeSet<u64>, found: &mut Watches| {
        let Some(from) = from.filter(|from| *from < to) else { return };
        let wanted = |content: &Content| content.iter().any(|(_, key, _, _)| stream.wants(key));
        let changes = revisions.told.range(from + 1..=to).filter(|(_, (content, _))| wanted(content)).map(|(at, _)| at);
        let grants =
            revisions.untold.range(from + 1..=to).filter(|(_, grant)| stream.wants(grant.key)).map(|(at, _)| at);
        for revision in changes.chain(grants).filter(|revision| !told.contains(revision)) {
            let what = format!("watcher {watcher} was never told of revision {revision}");
            found.missed.push(revisions.evidence(*revision, None, what));
        }
    };
    for message in &stream.told {
        match message {
            Told::Change { at, revision: ChangeRevision::Number(number), .. } => {
                let _ = from.get_or_insert(number.saturating_sub(1));
                let evidence = |what: &str| {
                    let what = format!("watcher {watcher} was told of revision {number} {what}");
                    revisions.evidence(*number, Some(*at), what)
                };
                if !told.insert(*number) {
                    found.repeated.push(evidence("twice"));
                } else if let Some(last) = last.filter(|last| number < last) {
                    found.disordered.push(evidence(&format!("after {last}")));
                } else if *number <= bookmark {
                    let what = format!("after it was told that all up to {bookmark} had been told");
                    found.disordered.push(evidence(&what));
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
