//! A second opinion on how far the log went, in a small file of its own.
//!
//! sled takes whatever it can read for the whole: if its file is cut short or overwritten in the middle, it opens without a word, and
//! entries that were acknowledged are gone. A voter that has forgotten what it promised breaks the cluster. So after each commit the
//! end of the log and the vote are noted here, at the price of one small write: no sync, since it follows the log's own. What it
//! says is therefore never more than what was durable, and after a mere kill it is exact.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::types::{LogId, Vote};

const VERSION: u8 = 1;
/// The note is written over the last one, in one piece of this length: less than a sector.
const NOTE_LEN: usize = 128;

/// What must be found again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    pub last: Option<LogId>,
    pub vote: Option<Vote>,
}

pub struct Witness {
    file: File,
    noted: Note,
}

impl Witness {
    /// Opens or creates the note. None: there is none that can be read.
    pub fn open(path: &Path) -> io::Result<(Self, Option<Note>)> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut bytes = [0; NOTE_LEN];
        let note = file.read_exact_at(&mut bytes, 0).ok().and_then(|()| decode(&bytes));
        Ok((Self { file, noted: note.unwrap_or_default() }, note))
    }

    /// Notes what has just been made durable.
    pub fn note(&mut self, note: Note) -> io::Result<()> {
        if note != self.noted {
            self.file.write_all_at(&encode(&note), 0)?;
            self.noted = note;
        }
        Ok(())
    }

    /// Takes a promise back, before the log does: a power cut in between must not leave more noted than there is.
    pub fn take_back(&mut self, note: Note) -> io::Result<()> {
        self.note(note)?;
        self.file.sync_data()
    }
}

impl Note {
    /// What is missing from a log that ends so, and a vote like this.
    pub fn missing(&self, found: &Note) -> Option<String> {
        let end = |note: &Note| note.last.map_or("nothing".to_owned(), |last| format!("entry {}", last.index()));
        if self.last.map(|last| last.index()) > found.last.map(|last| last.index()) {
            return Some(format!("the log had gone as far as {}, but only {} is found", end(self), end(found)));
        }
        let forgotten = match (&self.vote, &found.vote) {
            (Some(_), None) => true,
            (Some(noted), Some(found)) => found < noted,
            (None, _) => false,
        };
        forgotten.then(|| "the last vote is missing".to_owned())
    }
}

fn encode(note: &Note) -> [u8; NOTE_LEN] {
    let mut bytes = [0; NOTE_LEN];
    bytes[0] = VERSION;
    let (content, crc) = bytes.split_at_mut(NOTE_LEN - 4);
    postcard::to_slice(note, &mut content[1..]).expect("a note fits");
    crc.copy_from_slice(&crc32c::crc32c(content).to_le_bytes());
    bytes
}

fn decode(bytes: &[u8; NOTE_LEN]) -> Option<Note> {
    let (content, crc) = bytes.split_at(NOTE_LEN - 4);
    if content[0] != VERSION || crc32c::crc32c(content).to_le_bytes() != crc {
        return None;
    }
    postcard::from_bytes(&content[1..]).ok()
}

/// Keeps sled's file as it was until its content has been checked: opening a damaged one, sled overwrites what it cannot read.
pub struct Before {
    directory: PathBuf,
    /// A copy is left from an opening that was cut short, perhaps by a power cut: it may be the better one, or incomplete.
    inherited: bool,
}

impl Before {
    const KEPT: &str = "db.before";

    /// Keeps a copy, unless an older one is there. The directory must be locked.
    pub fn keep(directory: &Path) -> io::Result<Self> {
        let (db, kept, copying) =
            (directory.join("db"), directory.join(Self::KEPT), directory.join("db.before.copying"));
        let inherited = kept.exists();
        if db.exists() && !inherited {
            std::fs::copy(&db, &copying)?;
            std::fs::rename(&copying, &kept)?;
        }
        Ok(Self { directory: directory.to_owned(), inherited })
    }

    /// Puts the file back as it was. The database must be closed.
    pub fn put_back(&self) -> io::Result<()> {
        let kept = self.directory.join(Self::KEPT);
        if self.inherited || !kept.exists() {
            return Ok(());
        }
        // sled's index files may already speak of what it has changed; they are made anew when they are gone.
        super::durable::remove_index(&self.directory)?;
        File::open(&kept)?.sync_all()?;
        std::fs::rename(kept, self.directory.join("db"))
    }

    /// All is well: the copy is not needed any more.
    pub fn discard(&self) -> io::Result<()> {
        match std::fs::remove_file(self.directory.join(Self::KEPT)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }
}

/// Locks a directory against other processes, until this is dropped. None: it is locked already.
pub fn lock(directory: &Path) -> io::Result<Option<File>> {
    let file = File::options().write(true).create(true).truncate(false).open(directory.join("lock"))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(e) => Err(e.into()),
    }
}
