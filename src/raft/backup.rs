//! A backup: the whole table of `cp` at one revision, in one file that tells whether it is whole.
//!
//! Layout: a magic, the head (what it is of, how long and with which checksum) behind its own length and checksum, the table in pieces
//! as a snapshot has them. Nothing follows. Every length is checked against what is there before it is believed.

use std::path::Path;
use std::{fmt, fs, io};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::content::{self, Content, SNAPSHOT_VERSION};
use crate::model::table::Table;
use crate::model::time::UnixMillis;

const MAGIC: &[u8; 8] = b"QRTBKUP1";
/// The head's length and checksum.
const PREFIX_LEN: usize = 8;
/// Longer than any head.
const HEAD_LEN_MAX: usize = 4 * 1024;

/// What a backup is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// How the table is written.
    layout: u8,
    /// Which release wrote it.
    pub release: String,
    /// The cluster that it was taken of.
    pub cluster: String,
    pub revision: u64,
    /// Raft's term then: leaderships of a cluster that is restored from this come after it.
    pub term: u64,
    pub taken_at: UnixMillis,
    len: u64,
    crc: u32,
}

/// Why a file is not restored. Nothing was.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("cannot read {file}: {source}")]
    Unreadable { file: String, source: io::Error },
    #[error("{file} is no backup: give the file that `quorate backup` wrote")]
    NoBackup { file: String },
    #[error(
        "{file} was written by quorate {release}, in a layout that this release does not read: restore it with that one"
    )]
    OtherLayout { file: String, release: String },
    #[error("{file} is damaged ({why}): take it from another copy, or restore an older backup")]
    Damaged { file: String, why: Why },
}

/// What is wrong with bytes that should be a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    NoBackup,
    Short,
    Long,
    Checksum,
    Content,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::NoBackup => "it is no backup at all",
            Why::Short => "its end is missing",
            Why::Long => "something was added to it",
            Why::Checksum => "it does not match its checksum",
            Why::Content => "it holds no table",
        })
    }
}

/// Tells whether a backup that comes piece by piece is whole and unchanged. Keeps none of it but the head.
#[derive(Debug, Default)]
pub struct Check {
    /// What came before the head was complete.
    begin: Vec<u8>,
    head: Option<Head>,
    /// Of the table.
    len: u64,
    crc: u32,
}

impl Check {
    /// Takes in what comes next. An error: whatever follows, it is no backup.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Why> {
        if self.head.is_some() {
            return self.push_table(bytes);
        }
        self.begin.extend_from_slice(bytes);
        let begin = std::mem::take(&mut self.begin);
        match read_head(&begin)? {
            Some((head, table)) => {
                self.head = Some(head);
                self.push_table(table)
            }
            None => {
                self.begin = begin;
                Ok(())
            }
        }
    }

    fn push_table(&mut self, bytes: &[u8]) -> Result<(), Why> {
        self.len += bytes.len() as u64;
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        if self.head.as_ref().is_some_and(|head| self.len > head.len) { Err(Why::Long) } else { Ok(()) }
    }

    /// That was all. What it is of, if it is whole.
    pub fn end(self) -> Result<Head, Why> {
        let head = self.head.ok_or(if self.begin.starts_with(MAGIC) { Why::Short } else { Why::NoBackup })?;
        if self.len < head.len {
            return Err(Why::Short);
        }
        if self.crc != head.crc { Err(Why::Checksum) } else { Ok(head) }
    }
}

/// The head, and what follows it; none before it is complete.
fn read_head(begin: &[u8]) -> Result<Option<(Head, &[u8])>, Why> {
    let (magic, rest) = begin.split_at(begin.len().min(MAGIC.len()));
    if !MAGIC.starts_with(magic) {
        return Err(Why::NoBackup);
    }
    let Some((prefix, rest)) = rest.split_at_checked(PREFIX_LEN) else { return Ok(None) };
    let number = |at: usize| u32::from_le_bytes(prefix[at..at + 4].try_into().expect("four bytes"));
    let (len, crc) = (number(0) as usize, number(4));
    if len > HEAD_LEN_MAX {
        return Err(Why::Checksum);
    }
    let Some((head, table)) = rest.split_at_checked(len) else { return Ok(None) };
    if crc32c::crc32c(head) != crc {
        return Err(Why::Checksum);
    }
    let head = postcard::from_bytes(head).map_err(|_| Why::Content)?;
    Ok(Some((head, table)))
}

/// The bytes of a backup, in pieces. May take as long as the table is large.
pub fn write(cluster: &str, table: Table, term: u64, taken_at: UnixMillis) -> io::Result<Vec<Bytes>> {
    let revision = table.revision();
    let mut pieces = Vec::new();
    content::encode(&Content { table, ..Content::default() }, &mut |piece| {
        pieces.push(piece);
        Ok(())
    })?;
    let head = Head {
        layout: SNAPSHOT_VERSION,
        release: env!("CARGO_PKG_VERSION").to_owned(),
        cluster: cluster.to_owned(),
        revision,
        term,
        taken_at,
        len: pieces.iter().map(|piece| piece.len() as u64).sum(),
        crc: pieces.iter().fold(0, |crc, piece| crc32c::crc32c_append(crc, piece)),
    };
    let head = postcard::to_stdvec(&head).map_err(io::Error::other)?;
    let mut first = MAGIC.to_vec();
    first.extend((head.len() as u32).to_le_bytes());
    first.extend(crc32c::crc32c(&head).to_le_bytes());
    first.extend(head);
    Ok(std::iter::once(first.into()).chain(pieces).collect())
}

/// Reads a backup, whole and unchanged or not at all.
pub fn read(path: &Path) -> Result<(Head, Table), BackupError> {
    let file = || path.display().to_string();
    let bytes = fs::read(path).map_err(|source| BackupError::Unreadable { file: file(), source })?;
    let unfit = |why| match why {
        Why::NoBackup => BackupError::NoBackup { file: file() },
        Why::Short | Why::Long | Why::Checksum | Why::Content => BackupError::Damaged { file: file(), why },
    };
    let mut check = Check::default();
    let head = check.push(&bytes).and_then(|()| check.end()).map_err(unfit)?;
    if head.layout != SNAPSHOT_VERSION {
        return Err(BackupError::OtherLayout { file: file(), release: head.release });
    }
    let content = &bytes[bytes.len() - head.len as usize..];
    let Content { table, .. } = content::decode(std::iter::once(Ok(content))).map_err(|_| unfit(Why::Content))?;
    if table.revision() != head.revision {
        return Err(unfit(Why::Content));
    }
    Ok((head, table))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::command::{Action, Command, Condition};
    use crate::model::ident::Meta;
    use crate::model::table::News;

    fn table() -> Table {
        let mut table = Table::default();
        for at in 0..50 {
            let name = format!("name-{at}").parse().unwrap();
            let owner = "owner".parse().unwrap();
            let condition = Condition::Free;
            let action = Action::Register { name, owner, meta: Meta::empty(), lease: None, condition };
            table.apply(&Command { action, node: 1, at: UnixMillis(1_600_000_000_000) }, &mut News::default());
        }
        table
    }

    #[test]
    fn a_backup_is_read_back_as_it_was_and_no_flipped_cut_or_added_byte_goes_unnoticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("backup");
        let bytes = write("c", table(), 7, UnixMillis(1)).unwrap().concat();
        fs::write(&path, &bytes).unwrap();
        let (head, back) = read(&path).unwrap();
        assert_eq!((head.cluster.as_str(), head.revision, head.term), ("c", 50, 7));
        assert_eq!(back, table());
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << (at % 8);
            fs::write(&path, &bad).unwrap();
            assert!(read(&path).is_err(), "byte {at}");
        }
        for len in 0..bytes.len() {
            fs::write(&path, &bytes[..len]).unwrap();
            assert!(read(&path).is_err(), "cut at {len}");
        }
        fs::write(&path, [&bytes[..], b"x"].concat()).unwrap();
        assert!(matches!(read(&path), Err(BackupError::Damaged { why: Why::Long, .. })));
    }

    #[test]
    fn in_whatever_pieces_a_backup_comes_it_is_told_whether_it_is_whole() {
        let bytes = write("c", table(), 7, UnixMillis(1)).unwrap().concat();
        let checked = |bytes: &[u8], piece: usize| {
            let mut check = Check::default();
            bytes.chunks(piece).try_for_each(|piece| check.push(piece))?;
            check.end()
        };
        for piece in [1, 7, 64, bytes.len()] {
            assert_eq!(checked(&bytes, piece).unwrap().revision, 50);
            assert_eq!(checked(&bytes[..bytes.len() - 1], piece), Err(Why::Short));
            assert_eq!(checked(&bytes[..10], piece), Err(Why::Short));
            assert_eq!(checked(&[&bytes[..], b"x"].concat(), piece), Err(Why::Long));
            assert_eq!(checked(b"#!/bin/sh", piece), Err(Why::NoBackup));
        }
        assert_eq!(checked(b"", 1), Err(Why::NoBackup));
    }
}
