//! openraft's log storage: RAM answers every read, [`super::log_io`] makes every write durable.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use serde::de::DeserializeOwned;
use tokio::sync::{oneshot, watch};

use super::durable::{Barrier, Disk, StartError};
use super::keys::{self, ChunkWriter};
use super::log_io::{Fatal, LogIo, Op};
use super::mirror::Mirror;
use super::pieces::Chunks;
use super::types::{Entry, LogId, TypeConfig, Vote};
use super::witness::{self, Before, Note, Witness};

/// How much of the log is kept in RAM, in bytes.
pub const MIRROR_BYTES_MAX: usize = 128 * 1024 * 1024;
/// How much one AppendEntries carries at most, in bytes.
const READ_BYTES_MAX: usize = 1024 * 1024;

/// One node's Raft log and vote. Clones share it; the database is closed when the last one is gone.
#[derive(Clone)]
pub struct LogStore {
    mirror: Arc<Mutex<Mirror>>,
    queue: Sender<Op>,
    durable: watch::Receiver<u64>,
    recovery: Arc<Mutex<Option<u64>>>,
}

/// What is told when a database has been closed, after the last user of its store was dropped.
pub struct Closed(Mutex<Receiver<()>>);

impl Closed {
    /// Told when the other end is dropped.
    pub fn new(when_closed: Receiver<()>) -> Self {
        Self(Mutex::new(when_closed))
    }

    /// Waits for it, but no longer than this. Blocks the thread.
    pub fn wait(self, at_most: Duration) {
        let _ = self.0.into_inner().expect("no panic while held").recv_timeout(at_most);
    }
}

impl LogStore {
    /// Opens or creates the log in this directory, and checks every byte of it. `required`: it has been there before.
    pub fn open(
        path: &Path,
        required: bool,
        barrier: Box<dyn Barrier>,
        mirror_bytes_max: usize,
        fatal: Fatal,
    ) -> Result<(Self, Closed), StartError> {
        let damaged = |why: String| StartError::Damaged { path: path.to_owned(), why };
        let unusable = |source| StartError::Unusable { path: path.to_owned(), source };
        if required && !path.join("db").exists() {
            return Err(damaged("the Raft log is missing".into()));
        }
        std::fs::create_dir_all(path).map_err(unusable)?;
        // Before anything is touched: sled's own lock comes too late for that.
        let Some(lock) = witness::lock(path).map_err(unusable)? else {
            return Err(StartError::InUse { path: path.to_owned() });
        };
        let before = Before::keep(path).map_err(unusable)?;
        let (witness, note) = Witness::open(&path.join("witness")).map_err(unusable)?;
        let checked = Disk::open(path, barrier).and_then(|disk| {
            let mirror = check(&disk, required, note, mirror_bytes_max).map_err(damaged)?;
            Ok((disk, mirror))
        });
        let (mut disk, mirror) = match checked {
            Ok(checked) => checked,
            Err(StartError::Damaged { path, why }) => {
                before.put_back().map_err(unusable)?;
                return Err(StartError::Damaged { path, why });
            }
            Err(other) => {
                before.discard().map_err(unusable)?;
                return Err(other);
            }
        };
        disk.insert(keys::META, vec![keys::LOG_FORMAT]).and_then(|()| disk.commit()).map_err(unusable)?;
        before.discard().map_err(unusable)?;
        let recovery = mirror.last().map(|last| last.index()).filter(|_| mirror.last() > mirror.committed);
        let next = mirror.next_index();
        let (last, committed, vote) = (mirror.last(), mirror.committed, mirror.vote);
        let mirror = Arc::new(Mutex::new(mirror));
        let (queue, ops) = channel();
        let (durable, durable_seen) = watch::channel(next);
        let (closed, when_closed) = channel();
        let io = LogIo {
            disk,
            witness,
            _lock: lock,
            queue: ops,
            mirror: mirror.clone(),
            durable,
            fatal,
            mirror_bytes_max,
            last,
            vote,
            durable_vote: vote,
            committed,
            chunk: ChunkWriter::default(),
            purge_below: None,
            closed: Some(closed),
        };
        std::thread::Builder::new().name("raft-io".into()).spawn(move || io.run()).map_err(unusable)?;
        let store = Self { mirror, queue, durable: durable_seen, recovery: Arc::new(Mutex::new(recovery)) };
        Ok((store, Closed::new(when_closed)))
    }

    /// The log up to, not including, this index is on disk.
    pub fn durable(&self) -> watch::Receiver<u64> {
        self.durable.clone()
    }

    /// What this node may have applied before it was restarted: a read must not be answered before that much is applied again.
    /// None: nothing beyond what was noted as committed.
    ///
    /// The commit index on disk lags by up to one group commit, so the whole log that was found counts, as far as it has not
    /// been truncated since: what is truncated was never committed.
    pub fn recovery(&self) -> Option<u64> {
        *self.recovery.lock().expect("no panic while held")
    }

    /// Whether this node has ever taken part in an election or a log.
    pub fn is_pristine(&self) -> bool {
        let mirror = self.mirror();
        mirror.vote.is_none() && mirror.last().is_none()
    }

    fn mirror(&self) -> MutexGuard<'_, Mirror> {
        self.mirror.lock().expect("no panic while held")
    }

    fn send(&self, op: Op) -> io::Result<()> {
        self.queue.send(op).map_err(|_| gone())
    }

    async fn read(&self, start: u64, end: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let (on_disk, held) = self.mirror().read(start..end, bytes_max);
        if on_disk.is_empty() {
            return Ok(held);
        }
        let (reply, entries) = oneshot::channel();
        self.send(Op::Read { from: on_disk.start, to: on_disk.end, bytes_max, reply })?;
        let mut entries = entries.await.map_err(|_| gone())??;
        if entries.last().is_some_and(|last| last.log_id.index() + 1 == on_disk.end) {
            entries.extend(held);
        } else if bytes_max == usize::MAX {
            return Err(io::Error::other(format!("the log holds no entries {on_disk:?}")));
        }
        Ok(entries)
    }
}

fn gone() -> io::Error {
    io::Error::other("the Raft log is closed")
}

/// Reads all there is, and makes sure that it is all there was.
fn check(disk: &Disk, required: bool, note: Option<Note>, mirror_bytes_max: usize) -> Result<Mirror, String> {
    match disk.get(keys::META).map_err(|e| e.to_string())?.as_deref() {
        Some([keys::LOG_FORMAT]) => {}
        Some(_) => return Err("its log is of another format".into()),
        None if required || note.is_some() => return Err("the beginning of the Raft log is missing".into()),
        None => {}
    }
    let mirror = load(disk, mirror_bytes_max)?;
    let found = Note { last: mirror.last(), vote: mirror.vote };
    match note.and_then(|note| note.missing(&found)) {
        Some(missing) => Err(missing),
        None => Ok(mirror),
    }
}

/// Reads all entries, and keeps the last ones.
fn load(disk: &Disk, mirror_bytes_max: usize) -> Result<Mirror, String> {
    let mut mirror = Mirror::default();
    mirror.vote = value(disk, keys::VOTE)?;
    let committed = value::<LogId>(disk, keys::COMMITTED)?;
    if let Some(purged) = value::<LogId>(disk, keys::PURGED)? {
        mirror.purge(purged);
    }
    let begin = mirror.begin();
    for chunk in Chunks::new(disk.scan(&keys::chunk_key(0))) {
        for entry in chunk.map_err(|e| e.to_string())? {
            let index = entry.log_id.index();
            // Purged, and not deleted yet.
            if index < begin {
                continue;
            }
            if index != mirror.next_index() {
                return Err(format!("the log has a hole: entry {} is missing", mirror.next_index()));
            }
            mirror.push(entry);
        }
        mirror.evict(mirror_bytes_max, u64::MAX);
    }
    if committed > mirror.last() {
        return Err("the end of the log is missing: it was committed further".into());
    }
    mirror.committed = committed;
    Ok(mirror)
}

fn value<T: DeserializeOwned>(disk: &Disk, key: &[u8]) -> Result<Option<T>, String> {
    let name = String::from_utf8_lossy(key);
    let Some(bytes) = disk.get(key).map_err(|e| e.to_string())? else { return Ok(None) };
    postcard::from_bytes(&bytes).map(Some).map_err(|e| format!("{name} is unreadable: {e}"))
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end + 1,
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        self.read(start, end, usize::MAX).await
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.mirror().vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start, end, READ_BYTES_MAX).await
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let mirror = self.mirror();
        Ok(LogState { last_purged_log_id: mirror.purged(), last_log_id: mirror.last() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let (done, saved) = oneshot::channel();
        self.send(Op::SaveVote { vote: *vote, done })?;
        saved.await.map_err(|_| gone())??;
        self.mirror().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        // To disk with the next group commit.
        self.mirror().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.mirror().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries.into_iter().collect::<Vec<_>>();
        {
            // Readable when we return: replication reads the entries straight away.
            let mut mirror = self.mirror();
            entries.iter().for_each(|entry| mirror.push(entry.clone()));
        }
        // On disk when the callback says so: a follower's word is what makes a majority.
        self.send(Op::Append { entries, flushed: callback })
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        self.mirror().truncate_after(last_log_id);
        if let Some(recovery) = &mut *self.recovery.lock().expect("no panic while held") {
            *recovery = (*recovery).min(last_log_id.map_or(0, |last| last.index()));
        }
        let (done, truncated) = oneshot::channel();
        self.send(Op::Truncate { after: last_log_id, done })?;
        truncated.await.map_err(|_| gone())?
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        self.mirror().purge(log_id);
        self.send(Op::Purge { upto: log_id })
    }
}
