//! The one thread that owns the log's sled database.
//!
//! It drains its queue, writes everything drained as one group commit, makes that durable, and only then completes the callbacks,
//! in order. No timer: while one `fdatasync` runs, the next batch gathers. A storage error is reported once and is final.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::storage::IOFlushed;
use tokio::sync::{oneshot, watch};

use super::durable::Disk;
use super::keys::{self, ChunkWriter};
use super::mirror::{self, Mirror};
use super::pieces::{self, Chunks, Place};
use super::types::{Entry, LogId, STEP_LEN_MAX, TypeConfig, Vote};
use super::witness::{Note, Witness};

/// One group commit takes at most so many entries, and so many bytes of them.
const GROUP_ENTRIES_MAX: usize = 4096;
const GROUP_BYTES_MAX: usize = 1024 * 1024;
/// Keys deleted between two commits while purging.
const PURGE_KEYS_MAX: usize = 256;
// A chunk's pieces are deleted at once.
const _: () = assert!(STEP_LEN_MAX / keys::CHUNK_LEN_MAX + 2 < PURGE_KEYS_MAX);
/// An idle log notes the commit index after so long; under load it rides on the next group commit.
const COMMITTED_IDLE: Duration = Duration::from_millis(50);
/// How long that is tried less and less often, while the last entries stay uncommitted.
const COMMITTED_IDLE_MAX: Duration = Duration::from_secs(2);

/// What the thread is asked to do.
pub enum Op {
    Append {
        entries: Vec<Entry>,
        flushed: IOFlushed<TypeConfig>,
    },
    SaveVote {
        vote: Vote,
        done: oneshot::Sender<io::Result<()>>,
    },
    /// Drops what follows this entry.
    Truncate {
        after: Option<LogId>,
        done: oneshot::Sender<io::Result<()>>,
    },
    /// Drops what is not after this entry, sooner or later.
    Purge {
        upto: LogId,
    },
    /// Entries that RAM no longer holds.
    Read {
        from: u64,
        to: u64,
        bytes_max: usize,
        reply: oneshot::Sender<io::Result<Vec<Entry>>>,
    },
}

/// Who learns of a commit.
enum Waiter {
    Flushed(IOFlushed<TypeConfig>),
    Done(oneshot::Sender<io::Result<()>>),
}

pub type Fatal = Arc<dyn Fn(&str) + Send + Sync>;

pub struct LogIo {
    pub disk: Disk,
    pub witness: Witness,
    pub _lock: std::fs::File,
    pub queue: Receiver<Op>,
    pub mirror: Arc<Mutex<Mirror>>,
    /// The log up to, not including, this index is on disk.
    pub durable: watch::Sender<u64>,
    /// Told once, with one line, when the disk fails.
    pub fatal: Fatal,
    pub mirror_bytes_max: usize,
    /// The last of the log as written so far.
    pub last: Option<LogId>,
    pub vote: Option<Vote>,
    /// The last vote that a commit has covered.
    pub durable_vote: Option<Vote>,
    pub committed: Option<LogId>,
    pub chunk: ChunkWriter,
    /// Chunks below this index are still to be deleted.
    pub purge_below: Option<u64>,
    /// Told when the database is closed.
    pub closed: Option<Sender<()>>,
}

enum Waiting {
    Forever,
    For(Duration),
}

impl LogIo {
    /// Runs until every sender of the queue is gone.
    pub fn run(mut self) {
        let mut waiting = Waiting::Forever;
        loop {
            let first = match waiting {
                Waiting::Forever => self.queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Waiting::For(time) => self.queue.recv_timeout(time),
            };
            let result = match first {
                Ok(op) => {
                    waiting = Waiting::For(COMMITTED_IDLE);
                    self.group(op)
                }
                Err(RecvTimeoutError::Timeout) => self.idle(&mut waiting),
                Err(RecvTimeoutError::Disconnected) => break,
            };
            if let Err(e) = result {
                (self.fatal)(&format!(
                    "cannot write the Raft log in {}: {e}; this node stops, since nothing can be promised any more",
                    self.disk.path().display()
                ));
                // Nobody may be told success from here on: whoever asks finds the queue closed.
                return;
            }
        }
        if let Some(closed) = self.closed.take() {
            drop(self);
            let _ = closed.send(());
        }
    }

    /// Notes how far the log is committed, so that a restart serves at once what was served before it.
    fn idle(&mut self, waiting: &mut Waiting) -> io::Result<()> {
        if self.purge_below.is_some() {
            self.purge_some()?;
        } else if let Waiting::For(time) = waiting {
            let all = self.committed >= self.last;
            *waiting = if all { Waiting::Forever } else { Waiting::For((*time * 2).min(COMMITTED_IDLE_MAX)) };
        }
        if self.note_committed()? {
            self.disk.commit()?;
        }
        Ok(())
    }

    fn group(&mut self, first: Op) -> io::Result<()> {
        let mut waiters = Vec::new();
        let mut next = Some(first);
        let (mut entries, mut bytes) = (0, 0);
        let mut result = Ok(());
        while let Some(op) = next.take() {
            if let Op::Append { entries: more, .. } = &op {
                entries += more.len();
                bytes += more.iter().map(mirror::size).sum::<usize>();
            }
            result = self.write(op, &mut waiters);
            if result.is_err() {
                break;
            }
            if entries < GROUP_ENTRIES_MAX && bytes < GROUP_BYTES_MAX {
                next = self.queue.try_recv().ok();
            }
        }
        let result = result.and_then(|()| self.end_chunk()).and_then(|()| {
            if waiters.is_empty() {
                return Ok(());
            }
            self.note_committed()?;
            self.disk.commit()?;
            self.durable_vote = self.vote;
            self.witness.note(Note { last: self.last, vote: self.vote })
        });
        if result.is_ok() && !waiters.is_empty() {
            let next = self.last.map_or(0, |last| last.index() + 1);
            // Before the waiters: whoever is told must find it so.
            self.durable.send_if_modified(|durable| std::mem::replace(durable, next) != next);
        }
        for waiter in waiters {
            let result = result.as_ref().copied().map_err(|e| io::Error::new(e.kind(), e.to_string()));
            match waiter {
                Waiter::Flushed(flushed) => flushed.io_completed(result),
                Waiter::Done(done) => {
                    let _ = done.send(result);
                }
            }
        }
        if result.is_ok() && entries > 0 {
            let keep_from = self.committed.map_or(0, |committed| committed.index());
            self.mirror().evict(self.mirror_bytes_max, keep_from);
        }
        if self.purge_below.is_some() {
            self.purge_some()?;
        }
        result
    }

    fn write(&mut self, op: Op, waiters: &mut Vec<Waiter>) -> io::Result<()> {
        match op {
            Op::Append { entries, flushed } => {
                waiters.push(Waiter::Flushed(flushed));
                for entry in &entries {
                    if let Some((first, bytes)) = self.chunk.push(entry) {
                        self.write_chunk(first, bytes)?;
                    }
                    self.last = Some(entry.log_id);
                }
            }
            Op::SaveVote { vote, done } => {
                waiters.push(Waiter::Done(done));
                // What was appended before the vote must not be younger on disk than the vote.
                self.end_chunk()?;
                self.disk.insert(keys::VOTE, postcard::to_stdvec(&vote).expect("a vote can be encoded"))?;
                self.vote = Some(vote);
            }
            Op::Truncate { after, done } => {
                waiters.push(Waiter::Done(done));
                self.end_chunk()?;
                self.truncate(after)?;
            }
            Op::Purge { upto } => {
                self.end_chunk()?;
                self.disk.insert(keys::PURGED, postcard::to_stdvec(&upto).expect("a log id can be encoded"))?;
                self.last = self.last.max(Some(upto));
                self.purge_below = Some(upto.index() + 1);
                let next = upto.index() + 1;
                self.durable.send_if_modified(|durable| next > *durable && std::mem::replace(durable, next) != next);
            }
            Op::Read { from, to, bytes_max, reply } => {
                self.end_chunk()?;
                let _ = reply.send(self.read(from, to, bytes_max));
            }
        }
        Ok(())
    }

    fn end_chunk(&mut self) -> io::Result<()> {
        match self.chunk.finish() {
            Some((first, bytes)) => self.write_chunk(first, bytes),
            None => Ok(()),
        }
    }

    fn write_chunk(&mut self, first: u64, bytes: Vec<u8>) -> io::Result<()> {
        if bytes.len() <= keys::CHUNK_LEN_MAX {
            self.disk.insert(&keys::chunk_key(first), bytes)
        } else {
            self.disk.apply(pieces::cut(first, &bytes))
        }
    }

    /// Writes the commit index if it has moved. Never beyond what is in the log: a restart applies up to it.
    fn note_committed(&mut self) -> io::Result<bool> {
        let committed = self.mirror().committed;
        let committed = match (committed, self.last) {
            (Some(committed), Some(last)) if committed <= last => committed,
            // The same leader's log, as far as it is written.
            (Some(committed), Some(last)) if committed.committed_leader_id() == last.committed_leader_id() => last,
            // What is written may still be an older leader's tail, about to be truncated.
            _ => return Ok(false),
        };
        if Some(committed) <= self.committed {
            return Ok(false);
        }
        self.disk.insert(keys::COMMITTED, postcard::to_stdvec(&committed).expect("a log id can be encoded"))?;
        self.committed = Some(committed);
        Ok(true)
    }

    fn truncate(&mut self, after: Option<LogId>) -> io::Result<()> {
        // The vote as it is on disk for certain: one that is still on its way here must not be demanded either.
        self.witness.take_back(Note { last: after, vote: self.durable_vote })?;
        let keep = after.map_or(0, |after| after.index() + 1);
        let mut batch = sled::Batch::default();
        // The chunk that the cut goes through is written anew without its end. One in pieces holds one entry, and stays.
        if keep > 0
            && let Some((key, value)) = self.disk.at_or_before(&keys::chunk_key(keep - 1))?
            && let Some(Place { first, piece: 0 }) = Place::of(&key)
            && !pieces::is_cut(&value)
        {
            let entries = keys::read_chunk(first, value.into()).map_err(io::Error::other)?;
            let mut chunk = ChunkWriter::default();
            for entry in entries.iter().take_while(|entry| entry.log_id.index() < keep) {
                assert!(chunk.push(entry).is_none(), "a part of a chunk fits a chunk");
            }
            if let Some((first, bytes)) = chunk.finish() {
                batch.insert(&keys::chunk_key(first), bytes);
            }
        }
        for row in self.disk.scan(&keys::chunk_key(keep)) {
            let (key, _) = row?;
            if Place::of(&key).is_none() {
                break;
            }
            batch.remove(key);
        }
        self.disk.apply(batch)?;
        self.last = after;
        Ok(())
    }

    /// Deletes the next few chunks that lie wholly below the purged index. Needs no commit of its own: a chunk that comes back
    /// is ignored, because of [`keys::PURGED`].
    fn purge_some(&mut self) -> io::Result<()> {
        let Some(below) = self.purge_below else { return Ok(()) };
        // The chunk that holds `below - 1` may go on beyond it; it stays until a later purge.
        let mut keys = Vec::new();
        for row in self.disk.scan(&keys::chunk_key(0)) {
            let (key, _) = row?;
            match Place::of(&key) {
                Some(place) if place.first <= below && keys.len() <= PURGE_KEYS_MAX => keys.push((place.first, key)),
                _ => break,
            }
        }
        let log_is_empty = self.last.is_none_or(|last| last.index() < below);
        let full = keys.len() > PURGE_KEYS_MAX;
        // The last chunk is needed to tell where the one before it ends, unless nothing at all is left after it; and a chunk of
        // which only some pieces are gone would be taken for damage.
        if full || !log_is_empty {
            let last = keys.last().map(|(first, _)| *first);
            while keys.last().map(|(first, _)| *first) == last && keys.pop().is_some() {}
        }
        if !full {
            self.purge_below = None;
        }
        if keys.is_empty() {
            return Ok(());
        }
        let mut batch = sled::Batch::default();
        for (_, key) in keys {
            batch.remove(key);
        }
        self.disk.apply(batch)
    }

    fn read(&self, from: u64, to: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let start = match self.disk.at_or_before(&keys::chunk_key(from))? {
            Some((key, _)) => Place::of(&key).map_or(from, |place| place.first),
            None => from,
        };
        let mut entries = Vec::<Entry>::new();
        let mut bytes = 0;
        for chunk in Chunks::new(self.disk.scan(&keys::chunk_key(start))) {
            for entry in chunk? {
                let index = entry.log_id.index();
                if index < from {
                    continue;
                }
                bytes += mirror::size(&entry);
                if index >= to || (bytes > bytes_max && !entries.is_empty()) {
                    return Ok(entries);
                }
                if index != from + entries.len() as u64 {
                    return Err(io::Error::other(format!("the log has a hole before entry {index}")));
                }
                entries.push(entry);
            }
        }
        Ok(entries)
    }

    fn mirror(&self) -> std::sync::MutexGuard<'_, Mirror> {
        self.mirror.lock().expect("no panic while held")
    }
}
