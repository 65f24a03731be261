//! A sled database whose commits survive a power cut, and the data directory it lies in.
//!
//! sled 0.34 flushes with `pwrite` and `sync_file_range`: no journal commit, no device flush, so a freshly extended file may lose
//! what was acknowledged. Therefore a second descriptor on sled's one data file, and `fdatasync` on it after every flush.

use std::cell::Cell;
use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Once;

use crate::model::ident::NodeId;

/// The layout of the data directory. Another number is refused.
pub const FORMAT_VERSION: u16 = 1;

/// Large enough that no leaf of sixteen full values becomes a blob file, which sled never syncs.
const SEGMENT_LEN: usize = 8 * 1024 * 1024;
/// Reads come from RAM of our own; this is for sled's own pages alone.
const CACHE_LEN: u64 = 32 * 1024 * 1024;

/// Beside the databases, so that somebody else's are refused before anything in them is touched.
///
/// The node's own file of identity, a directory further up, cannot say this in its place: it is written before there are databases, this one
/// once they are whole. So a first start that was cut short is told from databases that are gone, and a `raft` directory that was copied
/// here from another node is noticed.
const OWNER_FILE: &str = "cp.owner";
const OWNER_TITLE: &str = "quorate cp data";

/// Why a node cannot start. Each is one line that says what to do; nothing on disk was changed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot use the data directory {}: {source}; choose another with --data, or see to its permissions", path.display())]
    Unusable { path: PathBuf, source: io::Error },
    #[error("the data directory {} is in use by another process; stop that one, or choose another with --data", path.display())]
    InUse { path: PathBuf },
    #[error("the data directory {} belongs to node {found}, not to node {wanted}; start with --id {found}, or choose another with --data", path.display())]
    OtherNode { path: PathBuf, found: NodeId, wanted: NodeId },
    #[error("the data directory {} belongs to the cluster {found:?}, not to {wanted:?}; choose another with --data", path.display())]
    OtherCluster { path: PathBuf, found: String, wanted: String },
    #[error("the data directory {} is of format {found}, this program reads format {FORMAT_VERSION}; use the version of quorate that wrote it", path.display())]
    OtherVersion { path: PathBuf, found: String },
    #[error("the data in {} is damaged: {why}; nothing was changed. Restore the directory from a copy, or remove this node and add it again under a new id with an empty directory", path.display())]
    Damaged { path: PathBuf, why: String },
    #[error("Raft cannot start: {0}")]
    Raft(String),
}

/// Makes written bytes stay. The seam through which tests watch, and at which a flaw is planted.
pub trait Barrier: Send + 'static {
    /// Returns once everything written to the file so far is on the device.
    fn sync(&mut self, file: &File) -> io::Result<()>;
}

/// The real barrier: `fdatasync`, or what the system has in its place.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fdatasync;

impl Barrier for Fdatasync {
    fn sync(&mut self, file: &File) -> io::Result<()> {
        file.sync_data()
    }
}

/// A sled database of one tree. Used by one thread at a time, never by one that serves requests.
pub struct Disk {
    // Dropped in this order: the tree's handle, then the database, then our descriptor.
    tree: sled::Tree,
    db: sled::Db,
    file: File,
    barrier: Box<dyn Barrier>,
    path: PathBuf,
}

impl Disk {
    /// Opens or creates the database in this directory.
    pub fn open(path: &Path, barrier: Box<dyn Barrier>) -> Result<Self, StartError> {
        let unusable = |source| StartError::Unusable { path: path.to_owned(), source };
        let new = !path.join("db").exists();
        fs::create_dir_all(path).map_err(unusable)?;
        remove_unfinished(path).map_err(unusable)?;
        let db = match open_sled(path) {
            // The index snapshots of sled's are made from the data alone, and are made anew when they are gone.
            Err(StartError::Damaged { .. }) if remove_index(path).map_err(unusable)? => open_sled(path)?,
            other => other?,
        };
        let damaged = |e: sled::Error| StartError::Damaged { path: path.to_owned(), why: e.to_string() };
        let tree = guarded(path, || db.open_tree("quorate"))?.map_err(damaged)?;
        if fs::read_dir(path.join("blobs")).is_ok_and(|mut blobs| blobs.next().is_some()) {
            return Err(StartError::Damaged {
                path: path.to_owned(),
                why: "it holds blob files, which we never write".into(),
            });
        }
        let file = File::options().read(true).write(true).open(path.join("db")).map_err(unusable)?;
        let mut disk = Self { tree, db, file, barrier, path: path.to_owned() };
        disk.commit().map_err(unusable)?;
        if new {
            // The names of the new files have to stay, too.
            for directory in [Some(path), path.parent()].into_iter().flatten() {
                File::open(directory).and_then(|directory| directory.sync_all()).map_err(unusable)?;
            }
        }
        Ok(disk)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        Ok(self.tree.get(key).map_err(to_io)?.map(|value| value.to_vec()))
    }

    /// Keys and values from `start` on, in order of the keys.
    pub fn scan(&self, start: &[u8]) -> impl Iterator<Item = io::Result<(Vec<u8>, Vec<u8>)>> + use<> {
        self.tree.range(start.to_vec()..).map(|row| {
            let (key, value) = row.map_err(to_io)?;
            Ok((key.to_vec(), value.to_vec()))
        })
    }

    /// The last key not after this one, and its value.
    pub fn at_or_before(&self, key: &[u8]) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
        let row = self.tree.range(..=key.to_vec()).next_back().transpose().map_err(to_io)?;
        Ok(row.map(|(key, value)| (key.to_vec(), value.to_vec())))
    }

    /// Writes one value. It stays from the next [`commit`](Self::commit) on.
    pub fn insert(&self, key: &[u8], value: Vec<u8>) -> io::Result<()> {
        debug_assert!(value.len() <= super::keys::CHUNK_LEN_MAX);
        self.tree.insert(key, value).map_err(to_io)?;
        Ok(())
    }

    /// Writes many values, all or none of which survive a crash.
    pub fn apply(&self, batch: sled::Batch) -> io::Result<()> {
        self.tree.apply_batch(batch).map_err(to_io)
    }

    /// Returns once everything written so far survives a power cut. After an error nothing more may be believed: a repeated
    /// `fsync` can report success for pages that the kernel has already given up.
    pub fn commit(&mut self) -> io::Result<()> {
        self.db.flush().map_err(to_io)?;
        self.barrier.sync(&self.file)
    }
}

fn to_io(e: sled::Error) -> io::Error {
    match e {
        sled::Error::Io(e) => e,
        other => io::Error::other(other),
    }
}

/// A kill while sled opened leaves `snap.<lsn>.generating`, cut short, which the next open would trip over.
fn remove_unfinished(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Removes sled's index snapshots. False: there were none.
pub fn remove_index(path: &Path) -> io::Result<bool> {
    let mut found = false;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("snap.") {
            fs::remove_file(entry.path())?;
            found = true;
        }
    }
    Ok(found)
}

fn open_sled(path: &Path) -> Result<sled::Db, StartError> {
    let config = sled::Config::new()
        .path(path)
        .segment_size(SEGMENT_LEN)
        .cache_capacity(CACHE_LEN)
        // We flush; sled's own thread would only move pages while we do not look.
        .flush_every_ms(None);
    guarded(path, || config.open())?.map_err(|e| match e {
        sled::Error::Io(e) if e.to_string().contains("could not acquire lock") => {
            StartError::InUse { path: path.to_owned() }
        }
        sled::Error::Io(source) if source.kind() != io::ErrorKind::UnexpectedEof => {
            StartError::Unusable { path: path.to_owned(), source }
        }
        other => StartError::Damaged { path: path.to_owned(), why: other.to_string() },
    })
}

/// sled panics on some kinds of damage; to the operator that is damage like any other, and one line.
fn guarded<T>(path: &Path, work: impl FnOnce() -> T) -> Result<T, StartError> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !GUARDED.get() {
                usual(panic);
            }
        }));
    });
    GUARDED.set(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(false);
    result.map_err(|cause| {
        let why = cause.downcast_ref::<String>().cloned();
        let why = why.or_else(|| cause.downcast_ref::<&str>().map(|s| s.to_string())).unwrap_or_default();
        StartError::Damaged {
            path: path.to_owned(),
            why: format!("sled gave up: {}", why.lines().next().unwrap_or("")),
        }
    })
}

thread_local! {
    /// This thread's panics are caught and told of otherwise.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Whom a data directory belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub cluster: String,
    pub node: NodeId,
}

impl Owner {
    /// Makes sure that the directory is this node's. True: it has been claimed before, so data has to be there.
    pub fn check(&self, data: &Path) -> Result<bool, StartError> {
        let path = || data.to_owned();
        let text = match fs::read_to_string(data.join(OWNER_FILE)) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(source) => return Err(StartError::Unusable { path: path(), source }),
        };
        let mut lines = text.lines();
        let damaged = || StartError::Damaged { path: path(), why: format!("its file {OWNER_FILE:?} is unreadable") };
        let mut field =
            |name: &str| lines.next().and_then(|line| line.strip_prefix(name)).map(str::to_owned).ok_or_else(damaged);
        field(OWNER_TITLE)?;
        let format = field("format ")?;
        if format != FORMAT_VERSION.to_string() {
            return Err(StartError::OtherVersion { path: path(), found: format });
        }
        let cluster = field("cluster ")?;
        if cluster != self.cluster {
            return Err(StartError::OtherCluster { path: path(), found: cluster, wanted: self.cluster.clone() });
        }
        let node = field("node ")?.parse().map_err(|_| damaged())?;
        if node != self.node {
            return Err(StartError::OtherNode { path: path(), found: node, wanted: self.node });
        }
        Ok(true)
    }

    /// Writes the directory's owner down. After this the databases in it have to be there.
    pub fn claim(&self, data: &Path) -> io::Result<()> {
        let new = data.join("cp.owner.new");
        let Self { cluster, node } = self;
        fs::write(&new, format!("{OWNER_TITLE}\nformat {FORMAT_VERSION}\ncluster {cluster}\nnode {node}\n"))?;
        File::open(&new)?.sync_all()?;
        fs::rename(&new, data.join(OWNER_FILE))?;
        File::open(data)?.sync_all()
    }
}
