//! The log in RAM: what replication and applying read, so that sled is only written to.
//!
//! All of the un-purged log, as long as it stays below a bound; beyond that the oldest entries that are on disk and committed are
//! dropped here, and a peer that lags so far is served from disk.

use std::collections::VecDeque;
use std::ops::Range;

use super::types::{Entry, LogId, Vote};
use openraft::EntryPayload;

/// Counted on top of a command's bytes for each entry held.
const ENTRY_OVERHEAD_BYTES: usize = 96;

/// The log as its users see it. Behind a mutex that is held for microseconds.
#[derive(Default)]
pub struct Mirror {
    pub vote: Option<Vote>,
    pub committed: Option<LogId>,
    purged: Option<LogId>,
    last: Option<LogId>,
    /// Index of the very first entry that was ever pushed; 0 in a log that Raft began.
    origin: u64,
    /// Index of the first entry held; entries from here on are consecutive.
    first: u64,
    entries: VecDeque<Entry>,
    bytes: usize,
}

impl Mirror {
    pub fn purged(&self) -> Option<LogId> {
        self.purged
    }

    /// The last entry's, or else the last purged one's.
    pub fn last(&self) -> Option<LogId> {
        self.last
    }

    /// Index that the next entry will have.
    pub fn next_index(&self) -> u64 {
        self.last.map_or(0, |last| last.index() + 1)
    }

    /// Index of the first entry that is not purged.
    pub fn begin(&self) -> u64 {
        self.purged.map_or(self.origin, |purged| purged.index() + 1)
    }

    pub fn push(&mut self, entry: Entry) {
        if self.entries.is_empty() {
            self.first = entry.log_id.index();
            if self.last.is_none() {
                self.origin = self.first;
            }
        }
        assert_eq!(entry.log_id.index(), self.first + self.entries.len() as u64, "the log has no hole");
        self.last = Some(entry.log_id);
        self.bytes += size(&entry);
        self.entries.push_back(entry);
    }

    /// Drops entries after this one.
    pub fn truncate_after(&mut self, after: Option<LogId>) {
        let keep = after.map_or(0, |after| after.index() + 1);
        while self.entries.back().is_some_and(|entry| entry.log_id.index() >= keep) {
            let dropped = self.entries.pop_back().expect("just seen");
            self.bytes -= size(&dropped);
        }
        if self.last.is_some_and(|last| last.index() >= keep) {
            self.last = after.max(self.purged);
        }
    }

    /// Drops entries up to this one, which may be beyond the end: a snapshot has taken their place.
    pub fn purge(&mut self, upto: LogId) {
        self.purged = self.purged.max(Some(upto));
        self.last = self.last.max(self.purged);
        while self.entries.front().is_some_and(|entry| entry.log_id.index() <= upto.index()) {
            self.pop_front();
        }
    }

    /// Drops the oldest entries beyond `bytes_max`, but none from `keep_from` on.
    pub fn evict(&mut self, bytes_max: usize, keep_from: u64) {
        while self.bytes > bytes_max && self.first < keep_from && self.entries.len() > 1 {
            self.pop_front();
        }
    }

    fn pop_front(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= size(&entry);
            self.first += 1;
        }
    }

    /// The entries in this range: first those indexes that are in the log, but only on disk; then those held here, as many as
    /// `bytes_max` allows, at least one.
    pub fn read(&self, range: Range<u64>, bytes_max: usize) -> (Range<u64>, Vec<Entry>) {
        let start = range.start.max(self.begin());
        let end = range.end.min(self.next_index());
        let held_from = if self.entries.is_empty() { self.next_index() } else { self.first };
        let on_disk = start..end.min(held_from.max(start));
        let mut bytes = 0;
        let mut entries = Vec::new();
        for index in start.max(held_from)..end {
            let entry = &self.entries[(index - self.first) as usize];
            bytes += size(entry);
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
        }
        (on_disk, entries)
    }
}

/// About what an entry takes in RAM.
pub fn size(entry: &Entry) -> usize {
    ENTRY_OVERHEAD_BYTES
        + match &entry.payload {
            EntryPayload::Normal(proposal) => proposal.bytes().len(),
            EntryPayload::Blank | EntryPayload::Membership(_) => 0,
        }
}
