//! How the log lies in sled: keys, chunks and entries, all with a version and a checksum.
//!
//! A group commit becomes one key, `L` and the index of its first entry, whose value holds the entries one after another. One key
//! per entry would cost four times the CPU at 128 entries a commit. A chunk that is longer than a value may be holds one entry
//! alone, and is cut into [`super::pieces`].

use bytes::{Buf, BufMut, Bytes};
use openraft::EntryPayload;
use openraft::entry::RaftEntry;

use super::types::{Entry, LogId, Proposal};

/// The longest value in sled. Longer ones could become blob files, which sled never syncs.
pub const CHUNK_LEN_MAX: usize = 64 * 1024;

const CHUNK_VERSION: u8 = 1;
/// In place of the chunk's version: this value only begins it, see [`super::pieces`].
pub const PIECES_VERSION: u8 = 2;
const CHUNK_HEAD_LEN: usize = 1 + 4 + 8;
const CRC_LEN: usize = 4;
const CHUNK_PREFIX: u8 = b'L';

pub const VOTE: &[u8] = b"M:vote";
pub const PURGED: &[u8] = b"M:purged";
pub const COMMITTED: &[u8] = b"M:committed";
/// The version of all that lies in the log database.
pub const META: &[u8] = b"M:meta";
pub const LOG_FORMAT: u8 = 1;

const KIND_BLANK: u8 = 0;
const KIND_COMMAND: u8 = 1;
const KIND_MEMBERSHIP: u8 = 2;

/// What was read is not what was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Damage(pub String);

/// The key of the chunk whose first entry has this index. Keys sort as their indexes do.
pub fn chunk_key(first: u64) -> [u8; 9] {
    let mut key = [CHUNK_PREFIX; 9];
    key[1..].copy_from_slice(&first.to_be_bytes());
    key
}

/// Appends an entry without its index, which its place tells: term, kind, content.
pub fn put_entry(entry: &Entry, out: &mut Vec<u8>) {
    out.put_u64_le(**entry.log_id.committed_leader_id());
    match &entry.payload {
        EntryPayload::Blank => out.put_u8(KIND_BLANK),
        EntryPayload::Normal(proposal) => {
            out.put_u8(KIND_COMMAND);
            out.put_slice(proposal.bytes());
        }
        EntryPayload::Membership(membership) => {
            out.put_u8(KIND_MEMBERSHIP);
            out.put_slice(&postcard::to_stdvec(membership).expect("a membership can be encoded"));
        }
    }
}

/// Reads back what [`put_entry`] wrote. Commands share the given bytes.
pub fn get_entry(index: u64, mut bytes: Bytes) -> Result<Entry, Damage> {
    if bytes.len() < 9 {
        return Err(Damage(format!("entry {index} is too short")));
    }
    let log_id = LogId::new_term_index(bytes.get_u64_le(), index);
    let payload = match bytes.get_u8() {
        KIND_BLANK => EntryPayload::Blank,
        KIND_COMMAND => EntryPayload::Normal(Proposal::from_bytes(bytes)),
        KIND_MEMBERSHIP => EntryPayload::Membership(
            postcard::from_bytes(&bytes).map_err(|e| Damage(format!("entry {index} holds no membership: {e}")))?,
        ),
        kind => return Err(Damage(format!("entry {index} is of an unknown kind, {kind}"))),
    };
    Ok(Entry::new(log_id, payload))
}

/// Collects consecutive entries into chunks of at most [`CHUNK_LEN_MAX`]; one that does not fit by itself gets a longer one.
#[derive(Default)]
pub struct ChunkWriter {
    first: u64,
    count: u32,
    bytes: Vec<u8>,
}

impl ChunkWriter {
    /// Adds an entry. Returns a finished chunk, with its first index, if the entry did not fit on it any more.
    pub fn push(&mut self, entry: &Entry) -> Option<(u64, Vec<u8>)> {
        if self.count == 0 {
            self.begin(entry.log_id.index());
        }
        assert_eq!(entry.log_id.index(), self.first + u64::from(self.count), "entries of a chunk are consecutive");
        let at = self.put(entry);
        if self.bytes.len() + CRC_LEN <= CHUNK_LEN_MAX || self.count == 1 {
            return None;
        }
        let last = self.bytes.split_off(at);
        self.count -= 1;
        let full = self.finish();
        self.begin(entry.log_id.index());
        self.bytes.extend_from_slice(&last);
        self.count = 1;
        full
    }

    /// The chunk begun, if any.
    pub fn finish(&mut self) -> Option<(u64, Vec<u8>)> {
        if self.count == 0 {
            return None;
        }
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes[1..5].copy_from_slice(&self.count.to_le_bytes());
        let crc = crc32c::crc32c(&bytes);
        bytes.put_u32_le(crc);
        self.count = 0;
        Some((self.first, bytes))
    }

    fn begin(&mut self, first: u64) {
        self.first = first;
        self.bytes.clear();
        self.bytes.put_u8(CHUNK_VERSION);
        self.bytes.put_u32_le(0);
        self.bytes.put_u64_le(first);
    }

    /// Writes the entry behind its length; returns where that began.
    fn put(&mut self, entry: &Entry) -> usize {
        let at = self.bytes.len();
        self.bytes.put_u32_le(0);
        put_entry(entry, &mut self.bytes);
        let len = (self.bytes.len() - at - 4) as u32;
        self.bytes[at..at + 4].copy_from_slice(&len.to_le_bytes());
        self.count += 1;
        at
    }
}

/// The entries of the chunk that lies under the key of `first`.
pub fn read_chunk(first: u64, bytes: Bytes) -> Result<Vec<Entry>, Damage> {
    let damage = |why: &str| Damage(format!("the log from entry {first} on {why}"));
    if bytes.len() < CHUNK_HEAD_LEN + CRC_LEN {
        return Err(damage("is cut short"));
    }
    if bytes[0] != CHUNK_VERSION {
        return Err(damage(&format!("is of version {}; this program reads {CHUNK_VERSION}", bytes[0])));
    }
    let (content, crc) = bytes.split_at(bytes.len() - CRC_LEN);
    if crc32c::crc32c(content).to_le_bytes() != crc {
        return Err(damage("does not match its checksum"));
    }
    let mut rest = bytes.slice(1..bytes.len() - CRC_LEN);
    let count = rest.get_u32_le();
    if rest.get_u64_le() != first {
        return Err(damage("lies under the wrong key"));
    }
    // No count is believed for more than the bytes can hold.
    let mut entries = Vec::with_capacity((count as usize).min(rest.len() / 13 + 1));
    for at in 0..u64::from(count) {
        if rest.len() < 4 {
            return Err(damage("is cut short"));
        }
        let len = rest.get_u32_le() as usize;
        if rest.len() < len {
            return Err(damage("is cut short"));
        }
        entries.push(get_entry(first + at, rest.split_to(len))?);
    }
    if !rest.is_empty() {
        return Err(damage("has bytes left over"));
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(index: u64, len: usize) -> Entry {
        let bytes = vec![index as u8; len];
        Entry::new(LogId::new_term_index(7, index), EntryPayload::Normal(Proposal::from_bytes(bytes.into())))
    }

    #[test]
    fn what_was_written_is_read_back_in_chunks_of_bounded_length() {
        let entries = (5..200).map(|index| command(index, 2_000)).collect::<Vec<_>>();
        let mut writer = ChunkWriter::default();
        let mut chunks = entries.iter().filter_map(|entry| writer.push(entry)).collect::<Vec<_>>();
        chunks.extend(writer.finish());
        assert!(chunks.len() > 1 && chunks.iter().all(|(_, bytes)| bytes.len() <= CHUNK_LEN_MAX));
        let back = chunks.into_iter().flat_map(|(first, bytes)| read_chunk(first, bytes.into()).unwrap());
        assert_eq!(back.collect::<Vec<_>>(), entries);
    }

    #[test]
    fn no_flipped_bit_goes_unnoticed() {
        let mut writer = ChunkWriter::default();
        assert_eq!(writer.push(&command(3, 20)), None);
        let (first, good) = writer.finish().unwrap();
        for at in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[at / 8] ^= 1 << (at % 8);
            assert!(read_chunk(first, bad.into()).is_err(), "bit {at}");
        }
        for len in 0..good.len() {
            assert!(read_chunk(first, good[..len].to_vec().into()).is_err(), "cut at {len}");
        }
        assert!(read_chunk(first + 1, good.into()).is_err());
    }

    /// The bytes on disk outlive this program: a change here needs a new version number.
    #[test]
    fn a_chunk_is_laid_out_as_it_was_in_version_1() {
        let mut writer = ChunkWriter::default();
        assert_eq!(writer.push(&Entry::new(LogId::new_term_index(2, 9), EntryPayload::Blank)), None);
        assert_eq!(writer.push(&command(10, 3)), None);
        let (_, bytes) = writer.finish().unwrap();
        let hex = bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert_eq!(hex, "01020000000900000000000000090000000200000000000000000c0000000700000000000000010a0a0a86bf255a");
    }
}
