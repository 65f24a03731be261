//! Snapshots on disk, in a sled database of their own: the log's `fdatasync` is not queued behind them.
//!
//! A snapshot is published in this order: its pieces, made durable; the record that it is the current one, made durable; then the old
//! one is deleted. So there is a whole current snapshot at every moment. One lock for building and installing: a build that took long
//! never replaces a newer snapshot that was installed meanwhile.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};

use bytes::Bytes;
use postcard::ser_flavors::Flavor;
use serde::{Deserialize, Serialize};

use super::durable::{Barrier, Disk, StartError};
use super::log_store::Closed;
use super::roster::Retired;
use super::state_machine::SnapshotData;
use super::types::{Snapshot, SnapshotMeta};
use crate::model::table::Table;

/// How the content is written. Another number is another layout, which this version does not read. 1 knew no leases, and no nodes that
/// are gone.
pub const SNAPSHOT_VERSION: u8 = 2;
/// A piece is one value in sled, and one frame on the wire.
pub const PIECE_LEN_MAX: usize = 60 * 1024;
const CURRENT: &[u8] = b"M:current";
/// Keys deleted in one batch.
const DELETE_KEYS_MAX: usize = 256;

/// The snapshots of one node: a current one, or none yet. Calls block the thread.
pub struct SnapshotStore {
    disk: Mutex<Disk>,
    /// Dropped after the database: whoever waits for that then knows that it is closed.
    _open: mpsc::Sender<()>,
    when_closed: Mutex<Option<Closed>>,
}

/// What a snapshot holds beside the membership, which openraft keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    pub table: Table,
    pub retired: Retired,
}

/// Names a snapshot that was current once.
#[derive(Clone)]
pub struct StoredSnapshot {
    store: Arc<SnapshotStore>,
    pub record: Record,
}

/// What is kept of the current snapshot beside its pieces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    id: u64,
    meta: SnapshotMeta,
    pieces: u32,
    crc: u32,
}

impl StoredSnapshot {
    pub fn pieces(&self) -> u32 {
        self.record.pieces
    }

    /// One piece. An error: the snapshot has been replaced meanwhile.
    pub fn piece(&self, at: u32) -> io::Result<Bytes> {
        self.store.piece(self.record.id, at)
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
        let store = Self { disk: Mutex::new(Disk::open(path, barrier)?), _open, when_closed };
        store.record().map_err(|e| damaged(e.to_string()))?;
        Ok(Arc::new(store))
    }

    /// What is told when the database is closed. None: it was taken before.
    pub fn when_closed(&self) -> Option<Closed> {
        self.when_closed.lock().expect("no panic while held").take()
    }

    /// The current snapshot.
    pub fn current(self: &Arc<Self>) -> io::Result<Option<Snapshot>> {
        let record = self.record()?;
        Ok(record.map(|record| Snapshot {
            meta: record.meta.clone(),
            snapshot: SnapshotData::Stored(StoredSnapshot { store: self.clone(), record }),
        }))
    }

    /// Writes a snapshot of this content, and makes it the current one unless that is newer.
    pub fn build(self: &Arc<Self>, meta: &SnapshotMeta, content: &Content) -> io::Result<Snapshot> {
        let pieces = encode(content)?;
        let record = self.publish(meta, &pieces)?;
        let meta = record.meta.clone();
        Ok(Snapshot { meta, snapshot: SnapshotData::Stored(StoredSnapshot { store: self.clone(), record }) })
    }

    /// Makes this the current snapshot, unless it is already; returns its content.
    pub fn install(self: &Arc<Self>, meta: &SnapshotMeta, data: SnapshotData) -> io::Result<Content> {
        let pieces = match data {
            SnapshotData::Stored(stored) if Arc::ptr_eq(self, &stored.store) => {
                return self.load(&stored.record).and_then(|bytes| decode(&bytes));
            }
            SnapshotData::Stored(stored) => {
                (0..stored.pieces()).map(|at| stored.piece(at)).collect::<Result<_, _>>()?
            }
            SnapshotData::Received(pieces) => pieces,
        };
        // Decoded before anything is written: what cannot be read must not replace what can.
        let content = decode(&pieces.concat())?;
        self.publish(meta, &pieces)?;
        Ok(content)
    }

    fn publish(&self, meta: &SnapshotMeta, pieces: &[Bytes]) -> io::Result<Record> {
        let mut disk = self.disk.lock().expect("no panic while held");
        let current = read_record(&disk)?;
        if let Some(current) = &current
            && current.meta.last_log_id > meta.last_log_id
        {
            return Ok(current.clone());
        }
        let id = current.as_ref().map_or(1, |current| current.id + 1);
        // Left over from a publication that was cut short.
        delete(&disk, id)?;
        let mut crc = 0;
        for (at, piece) in pieces.iter().enumerate() {
            crc = crc32c::crc32c_append(crc, piece);
            disk.insert(&key(id, at as u32), piece.to_vec())?;
        }
        disk.commit()?;
        let record = Record { id, meta: meta.clone(), pieces: pieces.len() as u32, crc };
        let mut bytes = postcard::to_extend(&record, vec![SNAPSHOT_VERSION]).map_err(io::Error::other)?;
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        disk.insert(CURRENT, bytes)?;
        disk.commit()?;
        if let Some(old) = current {
            delete(&disk, old.id)?;
        }
        Ok(record)
    }

    fn record(&self) -> io::Result<Option<Record>> {
        read_record(&self.disk.lock().expect("no panic while held"))
    }

    fn piece(&self, id: u64, at: u32) -> io::Result<Bytes> {
        let piece = self.disk.lock().expect("no panic while held").get(&key(id, at))?;
        piece.map(Bytes::from).ok_or_else(|| io::Error::other(format!("piece {at} of snapshot {id} is missing")))
    }

    fn load(&self, record: &Record) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for at in 0..record.pieces {
            bytes.extend_from_slice(&self.piece(record.id, at)?);
        }
        if crc32c::crc32c(&bytes) != record.crc {
            return Err(io::Error::other(format!("snapshot {} does not match its checksum", record.id)));
        }
        Ok(bytes)
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

fn delete(disk: &Disk, id: u64) -> io::Result<()> {
    loop {
        let mut batch = sled::Batch::default();
        let mut count = 0;
        for row in disk.scan(&key(id, 0)).take(DELETE_KEYS_MAX) {
            let (found, _) = row?;
            if !found.starts_with(&key(id, 0)[..9]) {
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

/// The content in pieces of at most [`PIECE_LEN_MAX`].
pub fn encode(content: &Content) -> io::Result<Vec<Bytes>> {
    let mut pieces = Pieces::default();
    pieces.current.push(SNAPSHOT_VERSION);
    postcard::serialize_with_flavor(content, pieces).map_err(io::Error::other)
}

/// Reads back what [`encode`] wrote, put together.
pub fn decode(bytes: &[u8]) -> io::Result<Content> {
    match bytes.split_first() {
        Some((&SNAPSHOT_VERSION, content)) => postcard::from_bytes(content).map_err(io::Error::other),
        _ => Err(io::Error::other("the snapshot is of another version")),
    }
}

/// Cuts what is encoded into pieces, so that a large table never lies in one block.
#[derive(Default)]
struct Pieces {
    done: Vec<Bytes>,
    current: Vec<u8>,
}

impl Flavor for Pieces {
    type Output = Vec<Bytes>;

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.try_extend(&[byte])
    }

    fn try_extend(&mut self, mut bytes: &[u8]) -> postcard::Result<()> {
        while !bytes.is_empty() {
            let room = PIECE_LEN_MAX - self.current.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.current.extend_from_slice(now);
            if self.current.len() == PIECE_LEN_MAX {
                self.done.push(std::mem::take(&mut self.current).into());
            }
            bytes = later;
        }
        Ok(())
    }

    fn finalize(mut self) -> postcard::Result<Vec<Bytes>> {
        if !self.current.is_empty() {
            self.done.push(self.current.into());
        }
        Ok(self.done)
    }
}
