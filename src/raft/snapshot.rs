//! Snapshots on disk, in a sled database of their own: the log's `fdatasync` is not queued behind them.
//!
//! A snapshot is published in this order: its pieces, made durable; the record that it is the current one, made durable; then the old
//! one is deleted. So there is a whole current snapshot at every moment, and a build that took long never replaces a newer one that was
//! installed meanwhile. Pieces go to the disk as they come and are read back one by one: beside the table itself, a snapshot takes no
//! memory to speak of.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, mpsc};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::content::{self, Content, SNAPSHOT_VERSION};
use super::durable::{Barrier, Disk, StartError};
use super::log_store::Closed;
use super::types::{Snapshot, SnapshotMeta};

const CURRENT: &[u8] = b"M:current";
/// Keys deleted in one batch.
const DELETE_KEYS_MAX: usize = 256;
/// Pieces written between two syncs, about 15 MB: one sync of everything would hold up the log's, which is on the same disk.
const SYNC_EVERY: u32 = 256;

/// The snapshots of one node: a current one, or none yet. Calls block the thread.
pub struct SnapshotStore {
    disk: Mutex<Disk>,
    /// What the next snapshot's pieces lie under.
    next_id: AtomicU64,
    /// Begun, and given up: their pieces are to be deleted.
    abandoned: Mutex<Vec<u64>>,
    /// Dropped after the database: whoever waits for that then knows that it is closed.
    _open: mpsc::Sender<()>,
    when_closed: Mutex<Option<Closed>>,
}

/// A snapshot that was current once, or may become so.
#[derive(Clone)]
pub enum SnapshotData {
    /// It was current.
    Stored(StoredSnapshot),
    /// It has come from the leader.
    Received(Arc<Draft>),
}

/// Names a snapshot that was current once.
#[derive(Clone)]
pub struct StoredSnapshot {
    store: Arc<SnapshotStore>,
    record: Record,
}

/// A snapshot that is being written, piece by piece. Dropped before it has become the current one, it leaves nothing.
pub struct Draft {
    store: Arc<SnapshotStore>,
    id: u64,
    pieces: u32,
    crc: u32,
    published: AtomicBool,
}

/// What is kept of the current snapshot beside its pieces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    id: u64,
    meta: SnapshotMeta,
    pieces: u32,
    crc: u32,
}

impl SnapshotData {
    pub fn pieces(&self) -> u32 {
        match self {
            SnapshotData::Stored(stored) => stored.record.pieces,
            SnapshotData::Received(draft) => draft.pieces,
        }
    }

    /// One piece. An error: the snapshot has been replaced meanwhile.
    pub fn piece(&self, at: u32) -> io::Result<Bytes> {
        match self {
            SnapshotData::Stored(stored) => stored.store.piece(stored.record.id, at),
            SnapshotData::Received(draft) => draft.store.piece(draft.id, at),
        }
    }
}

impl Draft {
    /// Writes the next piece.
    pub fn push(&mut self, piece: &[u8]) -> io::Result<()> {
        let mut disk = self.store.disk();
        disk.insert(&key(self.id, self.pieces), piece.to_vec())?;
        self.crc = crc32c::crc32c_append(self.crc, piece);
        self.pieces += 1;
        if self.pieces.is_multiple_of(SYNC_EVERY) { disk.commit() } else { Ok(()) }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.published.load(Ordering::Relaxed) {
            // Deleted by whoever writes next: this may be a thread that must not wait for the disk.
            self.store.abandoned.lock().expect("no panic while held").push(self.id);
        }
    }
}

impl SnapshotStore {
    /// Opens or creates the store. `required`: it has been there before.
    pub fn open(path: &Path, required: bool, barrier: Box<dyn Barrier>) -> Result<Arc<Self>, StartError> {
        let damaged = |why: String| StartError::Damaged { path: path.to_owned(), why };
        if required && !path.join("db").exists() {
            return Err(damaged("the snapshots are missing".into()));
        }
        let (_open, closed) = mpsc::channel();
        let when_closed = Mutex::new(Some(Closed::new(closed)));
        let disk = Disk::open(path, barrier)?;
        let current = read_record(&disk).map_err(|e| damaged(e.to_string()))?.map_or(0, |record| record.id);
        // Left over from what was cut short.
        let swept = delete(&disk, 0..current).and_then(|()| delete(&disk, current + 1..u64::MAX));
        swept.map_err(|e| damaged(e.to_string()))?;
        let (next_id, abandoned) = (AtomicU64::new(current + 1), Mutex::default());
        Ok(Arc::new(Self { disk: Mutex::new(disk), next_id, abandoned, _open, when_closed }))
    }

    /// What is told when the database is closed. None: it was taken before.
    pub fn when_closed(&self) -> Option<Closed> {
        self.when_closed.lock().expect("no panic while held").take()
    }

    /// The current snapshot.
    pub fn current(self: &Arc<Self>) -> io::Result<Option<Snapshot>> {
        let record = read_record(&self.disk())?;
        Ok(record.map(|record| Snapshot {
            meta: record.meta.clone(),
            snapshot: SnapshotData::Stored(StoredSnapshot { store: self.clone(), record }),
        }))
    }

    /// Begins a snapshot.
    pub fn draft(self: &Arc<Self>) -> io::Result<Draft> {
        let abandoned = std::mem::take(&mut *self.abandoned.lock().expect("no panic while held"));
        for id in abandoned {
            delete(&self.disk(), id..id + 1)?;
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        Ok(Draft { store: self.clone(), id, pieces: 0, crc: 0, published: AtomicBool::new(false) })
    }

    /// Writes a snapshot of this content, and makes it the current one unless that is newer.
    pub fn build(self: &Arc<Self>, meta: &SnapshotMeta, content: &Content) -> io::Result<Snapshot> {
        let mut draft = self.draft()?;
        content::encode(content, &mut |piece| draft.push(&piece))?;
        let record = self.publish(meta, &draft)?;
        let meta = record.meta.clone();
        Ok(Snapshot { meta, snapshot: SnapshotData::Stored(StoredSnapshot { store: self.clone(), record }) })
    }

    /// Makes this the current snapshot, unless it is already; returns its content.
    pub fn install(self: &Arc<Self>, meta: &SnapshotMeta, data: &SnapshotData) -> io::Result<Content> {
        let draft = match data {
            SnapshotData::Stored(StoredSnapshot { store, record }) if Arc::ptr_eq(self, store) => {
                return self.load(record.id, record.pieces, record.crc);
            }
            SnapshotData::Received(draft) if Arc::ptr_eq(self, &draft.store) => draft.clone(),
            SnapshotData::Stored(_) | SnapshotData::Received(_) => {
                let mut draft = self.draft()?;
                (0..data.pieces()).try_for_each(|at| draft.push(&data.piece(at)?))?;
                Arc::new(draft)
            }
        };
        // Read before it becomes the current one: what cannot be read must not replace what can.
        let content = self.load(draft.id, draft.pieces, draft.crc)?;
        self.publish(meta, &draft)?;
        Ok(content)
    }

    fn publish(&self, meta: &SnapshotMeta, draft: &Draft) -> io::Result<Record> {
        let mut disk = self.disk();
        let current = read_record(&disk)?;
        if let Some(current) = &current
            && current.meta.last_log_id > meta.last_log_id
        {
            return Ok(current.clone());
        }
        disk.commit()?;
        let record = Record { id: draft.id, meta: meta.clone(), pieces: draft.pieces, crc: draft.crc };
        let mut bytes = postcard::to_extend(&record, vec![SNAPSHOT_VERSION]).map_err(io::Error::other)?;
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        disk.insert(CURRENT, bytes)?;
        disk.commit()?;
        draft.published.store(true, Ordering::Relaxed);
        if let Some(old) = current.filter(|current| current.id != draft.id) {
            delete(&disk, old.id..old.id + 1)?;
        }
        Ok(record)
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().expect("no panic while held")
    }

    fn piece(&self, id: u64, at: u32) -> io::Result<Bytes> {
        let piece = self.disk().get(&key(id, at))?;
        piece.map(Bytes::from).ok_or_else(|| io::Error::other(format!("piece {at} of snapshot {id} is missing")))
    }

    fn load(&self, id: u64, pieces: u32, expected: u32) -> io::Result<Content> {
        let mut crc = 0;
        let mut pieces = (0..pieces).map(|at| {
            let piece = self.piece(id, at)?;
            crc = crc32c::crc32c_append(crc, &piece);
            Ok::<_, io::Error>(piece)
        });
        let content = content::decode(pieces.by_ref());
        // To the end, whatever was made of it: a wrong checksum says more than what came of it.
        pieces.try_for_each(|piece| piece.map(drop))?;
        if crc != expected {
            return Err(io::Error::other(format!("snapshot {id} does not match its checksum")));
        }
        content
    }
}

fn key(id: u64, piece: u32) -> [u8; 13] {
    let mut key = [b'S'; 13];
    key[1..9].copy_from_slice(&id.to_be_bytes());
    key[9..].copy_from_slice(&piece.to_be_bytes());
    key
}

fn read_record(disk: &Disk) -> io::Result<Option<Record>> {
    let Some(bytes) = disk.get(CURRENT)? else { return Ok(None) };
    let damaged = || io::Error::other("the record of the current snapshot is damaged");
    let (content, crc) = bytes.split_last_chunk::<4>().ok_or_else(damaged)?;
    if crc32c::crc32c(content).to_le_bytes() != *crc {
        return Err(damaged());
    }
    match content.split_first() {
        Some((&SNAPSHOT_VERSION, record)) => postcard::from_bytes(record).map(Some).map_err(io::Error::other),
        _ => Err(io::Error::other("the current snapshot is of another version")),
    }
}

/// Deletes the pieces of these snapshots.
fn delete(disk: &Disk, ids: std::ops::Range<u64>) -> io::Result<()> {
    let (first, end) = (key(ids.start, 0), key(ids.end, 0));
    loop {
        let mut batch = sled::Batch::default();
        let mut count = 0;
        for row in disk.scan(&first).take(DELETE_KEYS_MAX) {
            let (found, _) = row?;
            if found.as_slice() >= &end[..] {
                break;
            }
            batch.remove(found);
            count += 1;
        }
        if count == 0 {
            return Ok(());
        }
        disk.apply(batch)?;
    }
}
