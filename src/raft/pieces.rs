//! Chunks longer than one sled value may be: cut into pieces when they are written, put together when they are read.
//!
//! A long chunk holds a single long entry. Its first piece lies under the chunk's own key and says how many there are; each other piece
//! lies right behind it, under that key and its number. All are written by one sled batch, of which a crash leaves everything or
//! nothing; and the chunk's checksum is over the whole, so that it counts only when every piece is there and is the right one.

use std::io;

use bytes::{Buf, BufMut, Bytes};

use super::keys::{CHUNK_LEN_MAX, Damage, PIECES_VERSION, chunk_key, read_chunk};
use super::types::Entry;

/// Version and count, before the first piece's part.
const HEAD_LEN: usize = 1 + 4;

/// Where a row of the log belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The index of the chunk's first entry.
    pub first: u64,
    /// Which piece of it; 0 begins it.
    pub piece: u32,
}

impl Place {
    /// None: another kind of key.
    pub fn of(key: &[u8]) -> Option<Self> {
        let (first, piece) = key.split_at_checked(chunk_key(0).len())?;
        let (&prefix, mut first) = first.split_first()?;
        if prefix != chunk_key(0)[0] {
            return None;
        }
        let piece = match piece {
            [] => 0,
            piece => u32::from_be_bytes(piece.try_into().ok()?),
        };
        Some(Self { first: first.get_u64(), piece })
    }
}

/// The key of a piece that does not begin its chunk. It sorts behind the chunk's key, and before the next chunk's.
pub fn piece_key(first: u64, piece: u32) -> [u8; 13] {
    let mut key = [0; 13];
    key[..9].copy_from_slice(&chunk_key(first));
    key[9..].copy_from_slice(&piece.to_be_bytes());
    key
}

/// Cuts a chunk that is longer than [`CHUNK_LEN_MAX`] into rows: all of them are to be written, or none.
pub fn cut(first: u64, chunk: &[u8]) -> sled::Batch {
    let (head, rest) = chunk.split_at(CHUNK_LEN_MAX - HEAD_LEN);
    let pieces = 1 + rest.len().div_ceil(CHUNK_LEN_MAX) as u32;
    let mut value = Vec::with_capacity(CHUNK_LEN_MAX);
    value.put_u8(PIECES_VERSION);
    value.put_u32_le(pieces);
    value.put_slice(head);
    let mut batch = sled::Batch::default();
    batch.insert(&chunk_key(first), value);
    for (piece, part) in (1..).zip(rest.chunks(CHUNK_LEN_MAX)) {
        batch.insert(&piece_key(first, piece), part);
    }
    batch
}

/// Whether this value only begins a chunk.
pub fn is_cut(value: &[u8]) -> bool {
    value.first() == Some(&PIECES_VERSION)
}

/// Reads the chunks from rows in the order of their keys, to the end of the log's rows.
pub struct Chunks<R> {
    rows: R,
}

impl<R> Chunks<R> {
    pub fn new(rows: R) -> Self {
        Self { rows }
    }
}

impl<R: Iterator<Item = io::Result<(Vec<u8>, Vec<u8>)>>> Iterator for Chunks<R> {
    /// The entries of one chunk.
    type Item = io::Result<Vec<Entry>>;

    fn next(&mut self) -> Option<Self::Item> {
        let (place, value) = match self.row()? {
            Ok(row) => row,
            Err(e) => return Some(Err(e)),
        };
        Some(self.whole(place, value).and_then(|chunk| read_chunk(place.first, chunk).map_err(io::Error::other)))
    }
}

impl<R: Iterator<Item = io::Result<(Vec<u8>, Vec<u8>)>>> Chunks<R> {
    /// The next row of the log; none at its end.
    fn row(&mut self) -> Option<io::Result<(Place, Vec<u8>)>> {
        match self.rows.next()? {
            Ok((key, value)) => Place::of(&key).map(|place| Ok((place, value))),
            Err(e) => Some(Err(e)),
        }
    }

    fn whole(&mut self, at: Place, value: Vec<u8>) -> io::Result<Bytes> {
        let damage = |why: String| io::Error::other(Damage(format!("the log from entry {} on {why}", at.first)));
        if at.piece != 0 {
            return Err(damage(format!("has no beginning: piece {} lies alone", at.piece)));
        }
        if !is_cut(&value) {
            return Ok(value.into());
        }
        let mut head = value.as_slice();
        if head.len() < HEAD_LEN {
            return Err(damage("is cut short".into()));
        }
        head.advance(1);
        let pieces = head.get_u32_le();
        let mut chunk = head.to_vec();
        for piece in 1..pieces {
            let missing = || damage(format!("lacks piece {piece} of {pieces}"));
            let (place, part) = self.row().ok_or_else(missing)??;
            if place != (Place { first: at.first, piece }) {
                return Err(missing());
            }
            chunk.extend_from_slice(&part);
        }
        Ok(chunk.into())
    }
}

#[cfg(test)]
mod tests {
    use openraft::EntryPayload;
    use openraft::entry::RaftEntry;

    use super::*;
    use crate::raft::keys::ChunkWriter;
    use crate::raft::types::{LogId, Proposal};

    type Row = (Vec<u8>, Vec<u8>);

    fn entry(index: u64, len: usize) -> Entry {
        let bytes = (0..len).map(|at| (at / 7 + index as usize) as u8).collect::<Vec<_>>();
        Entry::new(LogId::new_term_index(7, index), EntryPayload::Normal(Proposal::from_bytes(bytes.into())))
    }

    /// The rows that sled would give back.
    fn rows(entries: &[Entry]) -> Vec<Row> {
        let db = sled::Config::new().temporary(true).open().unwrap();
        let mut writer = ChunkWriter::default();
        let mut chunks = entries.iter().filter_map(|entry| writer.push(entry)).collect::<Vec<_>>();
        chunks.extend(writer.finish());
        for (first, chunk) in chunks {
            if chunk.len() > CHUNK_LEN_MAX {
                db.apply_batch(cut(first, &chunk)).unwrap();
            } else {
                db.insert(chunk_key(first), chunk).unwrap();
            }
        }
        db.iter().map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap()).collect()
    }

    fn read(rows: &[Row]) -> io::Result<Vec<Entry>> {
        let chunks = Chunks::new(rows.iter().cloned().map(Ok)).collect::<io::Result<Vec<_>>>()?;
        Ok(chunks.concat())
    }

    #[test]
    fn long_and_short_entries_are_read_back_in_order_and_no_value_is_too_long() {
        let lens = [10, 65_000, 65_536, 20, 20, 1_200_000, 131_072, 5, CHUNK_LEN_MAX - 30, CHUNK_LEN_MAX];
        let entries = (3..).zip(lens).map(|(index, len)| entry(index, len)).collect::<Vec<_>>();
        let rows = rows(&entries);
        assert!(rows.iter().all(|(_, value)| value.len() <= CHUNK_LEN_MAX));
        assert_eq!(read(&rows).unwrap(), entries);
    }

    #[test]
    fn a_missing_doubled_or_exchanged_piece_is_found_wherever_it_is() {
        let entries = [entry(4, 10), entry(5, 400_000), entry(6, 400_000), entry(7, 10)];
        let rows = rows(&entries);
        assert_eq!(rows.len(), 2 + 2 * 7);
        for at in 0..rows.len() {
            let mut torn = rows.clone();
            torn.remove(at);
            // What begins or ends a chunk of its own is missed by its index alone.
            let found = read(&torn);
            let is_whole_chunk = rows[at].0.len() == 9 && !is_cut(&rows[at].1);
            assert_eq!(found.is_ok(), is_whole_chunk, "without row {at}");
            let mut flipped = rows.clone();
            let middle = flipped[at].1.len() / 2;
            flipped[at].1[middle] ^= 1;
            assert!(read(&flipped).is_err(), "with a flipped bit in row {at}");
            let mut short = rows.clone();
            short[at].1.pop();
            assert!(read(&short).is_err(), "with row {at} cut short");
        }
        // The end of the rows, right behind any of them.
        for len in 0..rows.len() {
            let whole = read(&rows[..len]).is_ok();
            let complete = [0, 1, 8, 15].contains(&len);
            assert_eq!(whole, complete, "cut behind {len} rows");
        }
        let mut exchanged = rows.clone();
        let (one, other) = (exchanged[3].1.clone(), exchanged[10].1.clone());
        (exchanged[3].1, exchanged[10].1) = (other, one);
        assert!(read(&exchanged).is_err());
    }

    #[test]
    fn pieces_lie_between_their_chunk_and_the_next_one() {
        let keys = [chunk_key(5).to_vec(), piece_key(5, 1).to_vec(), piece_key(5, 300).to_vec(), chunk_key(6).to_vec()];
        assert!(keys.is_sorted());
        let place = |first, piece| Some(Place { first, piece });
        let places = [place(5, 0), place(5, 1), place(5, 300), place(6, 0)];
        assert_eq!(keys.each_ref().map(|key| Place::of(key)), places);
        assert_eq!(Place::of(b"M:vote"), None);
        assert_eq!(Place::of(b"M:committed"), None);
    }
}
