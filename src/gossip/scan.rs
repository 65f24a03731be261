//! All that is shown at one instant, read without holding anybody up for long.
//!
//! The keys are looked at a thousand at a time, and what changes in between is looked at again: the events name it. Once nothing is
//! left to look at again, what was found is the state of that instant.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included, Unbounded};

use crate::feed::{Feed, Gone};
use crate::model::entry::{Entry, Holder};
use crate::model::event::{Event, Filter};
use crate::model::ident::{Group, Member, Name};

use super::core::Core;
use super::grants::{Grants, Held, Slot};
use super::view::Shown;

/// Keys that are looked at while nobody can write.
const STEP_LEN: usize = 1_000;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Name(Name),
    Member(Group, Member),
}

impl Key {
    fn of(holder: &Holder) -> Self {
        match holder {
            Holder::Owner(name, _) => Key::Name(name.clone()),
            Holder::Member(group, member) => Key::Member(group.clone(), member.clone()),
        }
    }

    fn slot<'a>(&self, grants: &'a Grants) -> Option<&'a Slot> {
        match self {
            Key::Name(name) => grants.names().get(name),
            Key::Member(group, member) => grants.groups().get(group)?.slots.get(member),
        }
    }
}

/// What an entry is put together from: a third of its size.
struct Found {
    best: Held,
    newest: Option<Held>,
}

impl Found {
    fn of(slot: &Slot, grants: &Grants) -> Option<Self> {
        let shown = Shown::of(slot, &grants.lens)?;
        let newest = shown.siblings.iter().copied().find(|held| held.changed() == shown.changed());
        let newest = newest.filter(|held| held.grant.id != shown.best.grant.id).cloned();
        Some(Self { best: shown.best.clone(), newest })
    }

    fn entry(&self) -> Entry {
        let newest = self.newest.as_ref().unwrap_or(&self.best);
        Shown { best: &self.best, siblings: vec![newest], hidden: false }.entry()
    }
}

/// What is yet to be looked at for the first time.
enum Ahead {
    Names { prefix: String, only: bool, after: Option<Name> },
    Groups { prefix: String, only: bool, after: Option<(Group, Member)> },
}

pub struct Scan {
    ahead: Vec<Ahead>,
    /// The number of the first event that has not been looked at.
    next: u64,
    found: BTreeMap<Key, Found>,
}

impl Scan {
    /// A scan of what the filter wants. The history has to have been written since before `next`.
    pub fn new(filter: &Filter, next: u64) -> Self {
        let mut ahead = Vec::new();
        let names = |prefix: &str, only| Ahead::Names { prefix: prefix.to_owned(), only, after: None };
        let groups = |prefix: &str, only| Ahead::Groups { prefix: prefix.to_owned(), only, after: None };
        if filter.is_everything() {
            ahead.extend([names("", false), groups("", false)]);
        }
        ahead.extend(filter.names.iter().map(|name| names(name.as_str(), true)));
        ahead.extend(filter.name_prefixes.iter().map(|prefix| names(prefix, false)));
        ahead.extend(filter.groups.iter().map(|group| groups(group.as_str(), true)));
        ahead.extend(filter.group_prefixes.iter().map(|prefix| groups(prefix, false)));
        Self { ahead, next, found: BTreeMap::new() }
    }

    /// Looks at some more, while the caller keeps the core from changing. True: all that was found is the state of now, and the next
    /// event is of this number.
    pub fn step(&mut self, core: &Core, feed: &Feed<Event>, filter: &Filter) -> Result<Option<u64>, Gone> {
        let grants = &core.map().grants;
        match self.ahead.pop() {
            Some(Ahead::Names { prefix, only, after }) => self.names(grants, prefix, only, after),
            Some(Ahead::Groups { prefix, only, after }) => self.groups(grants, prefix, only, after),
            None => {
                let events = feed.read(self.next, STEP_LEN)?;
                for change in events.iter().flat_map(|event| &event.changes) {
                    if let Some(entry) = change.entry()
                        && change.subject().is_some_and(|subject| filter.wants(subject))
                    {
                        self.look(grants, Key::of(&entry.holder));
                    }
                }
                self.next += events.len() as u64;
                if events.len() < STEP_LEN {
                    return Ok(Some(self.next));
                }
            }
        }
        Ok(None)
    }

    fn look(&mut self, grants: &Grants, key: Key) {
        match key.slot(grants).and_then(|slot| Found::of(slot, grants)) {
            Some(found) => self.found.insert(key, found),
            None => self.found.remove(&key),
        };
    }

    fn names(&mut self, grants: &Grants, prefix: String, only: bool, after: Option<Name>) {
        let start = match &after {
            Some(after) => Excluded(after.as_str()),
            None => Included(prefix.as_str()),
        };
        let fits = |name: &Name| if only { name.as_str() == prefix } else { name.as_str().starts_with(&prefix) };
        let names = grants.names().range::<str, _>((start, Unbounded)).take_while(|(name, _)| fits(name));
        let mut last = None;
        for (at, (name, slot)) in names.take(STEP_LEN).enumerate() {
            if let Some(found) = Found::of(slot, grants) {
                self.found.insert(Key::Name(name.clone()), found);
            }
            last = (at + 1 == STEP_LEN).then(|| name.clone());
        }
        if last.is_some() {
            self.ahead.push(Ahead::Names { prefix, only, after: last });
        }
    }

    fn groups(&mut self, grants: &Grants, prefix: String, only: bool, after: Option<(Group, Member)>) {
        let start = match &after {
            Some((group, _)) => Included(group.as_str()),
            None => Included(prefix.as_str()),
        };
        let fits = |group: &Group| if only { group.as_str() == prefix } else { group.as_str().starts_with(&prefix) };
        let groups = grants.groups().range::<str, _>((start, Unbounded)).take_while(|(group, _)| fits(group));
        let members = groups.flat_map(|(group, members)| {
            let start = match &after {
                Some((last, member)) if last == group => Excluded(member.as_str()),
                _ => Unbounded,
            };
            members.slots.range::<str, _>((start, Unbounded)).map(move |(member, slot)| (group, member, slot))
        });
        let mut last = None;
        for (at, (group, member, slot)) in members.take(STEP_LEN).enumerate() {
            if let Some(found) = Found::of(slot, grants) {
                self.found.insert(Key::Member(group.clone(), member.clone()), found);
            }
            last = (at + 1 == STEP_LEN).then(|| (group.clone(), member.clone()));
        }
        if last.is_some() {
            self.ahead.push(Ahead::Groups { prefix, only, after: last });
        }
    }

    /// Takes a page of what was found out, in the order of keys.
    pub fn take_page(&mut self, len_max: usize) -> Vec<Entry> {
        let page = std::iter::from_fn(|| self.found.pop_first()).take(len_max);
        page.map(|(_, found)| found.entry()).collect()
    }
}
