//! What each watcher was told, put together from the events of a history.

use std::collections::{BTreeMap, BTreeSet};

use super::story::Story;
use crate::referee::history::{Event, Process, What};
use crate::referee::watched::{Change, ChangeRevision, Watched};

/// One watcher's whole life: one stream after another.
#[derive(Clone, Debug, Default)]
pub struct Stream<'a> {
    pub watcher: u64,
    /// It wanted to hear of keys that begin so only.
    pub prefix: Option<&'a str>,
    /// When it first watched.
    pub begun: u64,
    pub told: Vec<Told<'a>>,
    /// When nothing more had come for a while, after the last call of the run: what had happened before that while was told.
    pub caught_up: Option<u64>,
    pub resumed: usize,
    pub overflows: usize,
    pub stalls: usize,
}

/// One thing that it was told.
#[derive(Clone, Copy, Debug)]
pub enum Told<'a> {
    Change {
        at: u64,
        revision: &'a ChangeRevision,
        changes: &'a [Change],
    },
    /// Everything up to that revision has been told; none: the system has no such number.
    Progress {
        revision: Option<u64>,
    },
    /// Another stream takes it up, after the last position that was told.
    Resumed,
    /// Whatever lies between what was told before and what comes next is not told.
    Resync,
}

/// By watcher.
pub fn of<'a>(events: &'a [Event]) -> Vec<Stream<'a>> {
    let mut streams: BTreeMap<u64, Stream<'a>> = BTreeMap::new();
    for event in events {
        let (Process::Watcher(watcher), What::Watched(watched)) = (event.process, &event.what) else { continue };
        let stream =
            streams.entry(watcher).or_insert_with(|| Stream { watcher, begun: event.time, ..Stream::default() });
        match watched {
            Watched::Begun { after, prefix } => {
                stream.prefix = prefix.as_deref();
                stream.told.push(Told::Resumed);
                stream.resumed += usize::from(after.is_some());
            }
            Watched::Change { revision, changes } => {
                stream.told.push(Told::Change { at: event.time, revision, changes });
            }
            Watched::Progress { revision } => stream.told.push(Told::Progress { revision: *revision }),
            Watched::Resync => stream.told.push(Told::Resync),
            Watched::Stalled => stream.stalls += 1,
            Watched::Overflow => stream.overflows += 1,
            Watched::Ended { .. } => {}
            Watched::CaughtUp => stream.caught_up = Some(event.time),
        }
    }
    streams.into_values().collect()
}

/// Nothing came for this long before a watcher is said to have been told all; more than that is allowed for on the way.
const QUIET_NS: u64 = 1_000_000_000;

impl<'a> Stream<'a> {
    /// Until when everything that happened was told to it; none: it did not catch up.
    pub fn told_until(&self) -> Option<u64> {
        self.caught_up.map(|at| at.saturating_sub(QUIET_NS))
    }

    pub fn wants(&self, key: &str) -> bool {
        self.prefix.is_none_or(|prefix| key.starts_with(prefix))
    }

    pub fn resyncs(&self) -> usize {
        self.told.iter().filter(|told| matches!(told, Told::Resync)).count()
    }

    pub fn changes(&self) -> impl Iterator<Item = (u64, &'a ChangeRevision, &'a [Change])> + '_ {
        self.told.iter().filter_map(|told| match told {
            Told::Change { at, revision, changes } => Some((*at, *revision, *changes)),
            Told::Progress { .. } | Told::Resumed | Told::Resync => None,
        })
    }
}

/// Every owner and member that a client ever asked for.
pub fn asked_for<'a>(story: &Story<'a>) -> BTreeSet<(&'a str, &'a str)> {
    let asked = story.ops.iter().filter_map(|op| match op.what {
        What::Register { name, owner, .. } => Some((name.as_str(), owner.as_str())),
        What::Join { group, member, .. } => Some((group.as_str(), member.as_str())),
        _ => None,
    });
    asked.collect()
}
