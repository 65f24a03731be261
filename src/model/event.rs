//! What a watcher is told: one event for each revision, with all that changed in it.

use serde::{Deserialize, Serialize};

use super::conflict::ConflictRecord;
use super::entry::{Entry, Holder};
use super::ident::{Group, LeaseId, Name, Revision, Token};

/// All that changed at one revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// `cp`: the revision, without gaps from one event to the next. `ap`: names one operation of one run; or, where a state or this
    /// node's own view changed things, what this node had applied.
    pub revision: Revision,
    pub changes: Vec<Change>,
}

/// One thing that changed. `previous` is the entry as it was, where there was one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// A new grant of a name; `previous` if it was taken over or handed over.
    Registered {
        entry: Entry,
        previous: Option<Entry>,
        current: Option<Box<Entry>>,
    },
    /// The same grant or membership with another meta, or another lease.
    Updated {
        entry: Entry,
        previous: Option<Entry>,
        current: Option<Box<Entry>>,
    },
    /// The end of a grant of a name; `entry` as it was.
    Ended {
        entry: Entry,
        reason: EndReason,
        current: Option<Box<Entry>>,
    },
    Joined {
        entry: Entry,
    },
    /// The end of a membership; `entry` as it was.
    Left {
        entry: Entry,
        reason: EndReason,
    },
    /// A lease has ended by itself. What was bound to it ends in the same event.
    LeaseExpired {
        lease: LeaseId,
    },
    /// A grant lost its name.
    Conflict {
        record: ConflictRecord,
    },
    /// `ap`: this node no longer shows the entry, for its home or lease is out of reach. Local, and no delete.
    Hidden {
        entry: Entry,
    },
    /// `ap`: this node shows the entry again.
    Shown {
        entry: Entry,
    },
}

/// Why a grant ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndReason {
    /// Its owner (member) gave it up, or somebody did for it.
    Given,
    /// Another registration took the name over.
    Taken,
    /// Its lease ran out.
    LeaseExpired,
    /// Its lease was revoked.
    LeaseRevoked,
    /// It lost a conflict to this token.
    Conflict { winner: Token },
}

impl Change {
    /// The entry that it changes; none for a conflict and for a lease's end, which only say more of what other changes say.
    pub fn entry(&self) -> Option<&Entry> {
        match self {
            Change::Registered { entry, .. }
            | Change::Updated { entry, .. }
            | Change::Ended { entry, .. }
            | Change::Joined { entry }
            | Change::Left { entry, .. }
            | Change::Hidden { entry }
            | Change::Shown { entry } => Some(entry),
            Change::Conflict { .. } | Change::LeaseExpired { .. } => None,
        }
    }

    /// What it is about; none for a lease's end.
    pub fn subject(&self) -> Option<Subject<'_>> {
        match self {
            Change::Conflict { record } => Some(Subject::Name(&record.name)),
            other => other.entry().map(|entry| Subject::of(&entry.holder)),
        }
    }
}

/// One message to a watcher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchMessage {
    pub told: Told,
    /// Where to go on, on any node, once this message has been taken in. None: where one would have gone on before it.
    pub position: Option<Revision>,
}

/// What a watcher is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A page of what stands at the beginning.
    State(Vec<Entry>),
    /// That was all of it.
    Synced,
    Change(Event),
    /// Everything up to the position has been told. `cp`: whether this node has contact to a majority.
    Progress {
        quorum: Option<bool>,
    },
    /// `cp`: no leader has been heard of for two election timeouts: nothing may come although things change.
    Stalled,
    /// The position asked for is gone: read the state anew. What comes next follows on this message's position.
    Resync,
    /// This reader was too slow: what it has not read is gone. Nothing follows.
    Overflow,
}

/// The key that something is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject<'a> {
    Name(&'a Name),
    Group(&'a Group),
}

impl<'a> Subject<'a> {
    pub fn of(holder: &'a Holder) -> Self {
        match holder {
            Holder::Owner(name, _) => Subject::Name(name),
            Holder::Member(group, _) => Subject::Group(group),
        }
    }
}

/// What a watcher wants to hear of. Nothing at all given: everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    pub names: Vec<Name>,
    pub name_prefixes: Vec<String>,
    pub groups: Vec<Group>,
    pub group_prefixes: Vec<String>,
}

impl Filter {
    pub fn is_everything(&self) -> bool {
        self.names.is_empty()
            && self.name_prefixes.is_empty()
            && self.groups.is_empty()
            && self.group_prefixes.is_empty()
    }

    pub fn wants(&self, subject: Subject) -> bool {
        if self.is_everything() {
            return true;
        }
        match subject {
            Subject::Name(name) => {
                self.names.contains(name) || self.name_prefixes.iter().any(|prefix| name.as_str().starts_with(prefix))
            }
            Subject::Group(group) => {
                self.groups.contains(group)
                    || self.group_prefixes.iter().any(|prefix| group.as_str().starts_with(prefix))
            }
        }
    }

    /// The part of an event that is wanted; none if nothing of it is. The end of a lease is told to those who watch everything, and
    /// along with something that ended with it.
    pub fn apply(&self, event: &Event) -> Option<Event> {
        if self.is_everything() {
            return Some(event.clone());
        }
        let wanted = |change: &&Change| change.subject().is_none_or(|subject| self.wants(subject));
        let changes = event.changes.iter().filter(wanted).cloned().collect::<Vec<_>>();
        let about_something = changes.iter().any(|change| change.subject().is_some());
        about_something.then(|| Event { revision: event.revision.clone(), changes })
    }
}
