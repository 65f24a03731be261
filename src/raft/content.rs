//! What a snapshot holds, and how it is written: in pieces, each given away as soon as it is full and read back one after the other, so
//! that a large table never lies beside itself as bytes.

use std::io;

use bytes::Bytes;
use postcard::{de_flavors, ser_flavors};
use serde::{Deserialize, Serialize};

use super::roster::Retired;
use crate::model::table::Table;

/// How the content is written. Another number is another layout, which this version does not read. 1 knew no leases, and no nodes that
/// are gone.
pub const SNAPSHOT_VERSION: u8 = 2;
/// A piece is one value in sled, and one frame on the wire.
pub const PIECE_LEN_MAX: usize = 60 * 1024;

/// What a snapshot holds beside the membership, which openraft keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    pub table: Table,
    pub retired: Retired,
}

/// Writes the content in pieces of at most [`PIECE_LEN_MAX`].
pub fn encode(content: &Content, sink: &mut dyn FnMut(Bytes) -> io::Result<()>) -> io::Result<()> {
    let mut failed = None;
    let pieces = Cutter { sink, failed: &mut failed, current: vec![SNAPSHOT_VERSION] };
    let done = postcard::serialize_with_flavor(content, pieces);
    done.map_err(|e| failed.unwrap_or_else(|| io::Error::other(e)))
}

/// Reads back what [`encode`] wrote, however it is cut: all of it, and nothing else.
pub fn decode<P: AsRef<[u8]>>(pieces: impl Iterator<Item = io::Result<P>>) -> io::Result<Content> {
    let mut joiner = Joiner { pieces, failed: None, current: None, at: 0, gathered: Vec::new() };
    match joiner.byte() {
        Ok(SNAPSHOT_VERSION) => {}
        Ok(_) => return Err(io::Error::other("the snapshot is of another version")),
        Err(e) => return Err(joiner.failed.unwrap_or_else(|| io::Error::other(e))),
    }
    let mut deserializer = postcard::Deserializer::from_flavor(joiner);
    let content = Content::deserialize(&mut deserializer);
    match (content, deserializer.finalize().map_err(io::Error::other)?) {
        (_, Err(failed)) => Err(failed),
        (Err(e), Ok(_)) => Err(io::Error::other(e)),
        (Ok(_), Ok(true)) => Err(io::Error::other("something follows the snapshot")),
        (Ok(content), Ok(false)) => Ok(content),
    }
}

struct Cutter<'s> {
    sink: &'s mut dyn FnMut(Bytes) -> io::Result<()>,
    /// Why the sink took no more: postcard's own errors cannot tell.
    failed: &'s mut Option<io::Error>,
    current: Vec<u8>,
}

impl Cutter<'_> {
    fn give_away(&mut self) -> postcard::Result<()> {
        let piece = std::mem::take(&mut self.current);
        (self.sink)(piece.into()).map_err(|e| {
            *self.failed = Some(e);
            postcard::Error::SerializeBufferFull
        })
    }
}

impl ser_flavors::Flavor for Cutter<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.try_extend(&[byte])
    }

    fn try_extend(&mut self, mut bytes: &[u8]) -> postcard::Result<()> {
        while !bytes.is_empty() {
            let room = PIECE_LEN_MAX - self.current.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.current.extend_from_slice(now);
            if self.current.len() == PIECE_LEN_MAX {
                self.give_away()?;
            }
            bytes = later;
        }
        Ok(())
    }

    fn finalize(mut self) -> postcard::Result<()> {
        if self.current.is_empty() { Ok(()) } else { self.give_away() }
    }
}

struct Joiner<P, I> {
    pieces: I,
    /// Why there are no more pieces, if that is an error: postcard's own errors cannot tell.
    failed: Option<io::Error>,
    current: Option<P>,
    at: usize,
    /// What lay across the end of a piece.
    gathered: Vec<u8>,
}

impl<P: AsRef<[u8]>, I: Iterator<Item = io::Result<P>>> Joiner<P, I> {
    /// What is left of the present piece, or the next one; nothing at the end.
    fn rest(&mut self) -> &[u8] {
        while self.current.as_ref().is_none_or(|piece| self.at >= piece.as_ref().len()) {
            self.at = 0;
            match self.pieces.next() {
                Some(Ok(piece)) => self.current = Some(piece),
                Some(Err(e)) => {
                    self.failed = Some(e);
                    return &[];
                }
                None => return &[],
            }
        }
        self.current.as_ref().map_or(&[], |piece| &piece.as_ref()[self.at..])
    }

    fn byte(&mut self) -> postcard::Result<u8> {
        let byte = *self.rest().first().ok_or(postcard::Error::DeserializeUnexpectedEnd)?;
        self.at += 1;
        Ok(byte)
    }
}

impl<'de, P: AsRef<[u8]> + 'de, I: Iterator<Item = io::Result<P>> + 'de> de_flavors::Flavor<'de> for Joiner<P, I> {
    /// Whether there is more, or why that is not known.
    type Remainder = io::Result<bool>;
    type Source = I;

    fn pop(&mut self) -> postcard::Result<u8> {
        self.byte()
    }

    /// Nothing of a content borrows from the bytes that it is read from.
    fn try_take_n(&mut self, _: usize) -> postcard::Result<&'de [u8]> {
        Err(postcard::Error::WontImplement)
    }

    fn try_take_n_temp<'a>(&'a mut self, len: usize) -> postcard::Result<&'a [u8]>
    where
        'de: 'a,
    {
        if self.rest().len() >= len {
            let from = self.at;
            self.at += len;
            return Ok(self.current.as_ref().map_or(&[], |piece| &piece.as_ref()[from..from + len]));
        }
        // A length is believed no further than there are bytes for it.
        self.gathered.clear();
        while self.gathered.len() < len {
            let missing = len - self.gathered.len();
            let mut gathered = std::mem::take(&mut self.gathered);
            let rest = self.rest();
            let taken = rest.len().min(missing);
            gathered.extend_from_slice(&rest[..taken]);
            (self.gathered, self.at) = (gathered, self.at + taken);
            if taken == 0 {
                return Err(postcard::Error::DeserializeUnexpectedEnd);
            }
        }
        Ok(&self.gathered)
    }

    fn finalize(mut self) -> postcard::Result<io::Result<bool>> {
        let more = self.failed.is_none() && !self.rest().is_empty();
        Ok(self.failed.map_or(Ok(more), Err))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::command::{Action, Command, Condition};
    use crate::model::table::News;
    use crate::model::time::UnixMillis;

    fn content(names: usize) -> Content {
        let mut content = Content { retired: [7, 9].into(), ..Content::default() };
        for at in 0..names {
            let meta = format!("{{\"m\":\"{}\"}}", "x".repeat(at % 500)).parse().unwrap();
            let (name, owner) = (format!("name-{at}").parse().unwrap(), "owner".parse().unwrap());
            let action = Action::Register { name, owner, meta, lease: None, condition: Condition::Free };
            content.table.apply(&Command { action, node: 1, at: UnixMillis(0) }, &mut News::default());
        }
        content
    }

    fn pieces(content: &Content) -> Vec<Bytes> {
        let mut pieces = Vec::new();
        encode(content, &mut |piece| {
            pieces.push(piece);
            Ok(())
        })
        .unwrap();
        pieces
    }

    #[test]
    fn what_was_written_in_pieces_is_read_back_however_it_is_cut() {
        let content = content(1_000);
        let whole = pieces(&content).concat();
        assert!(pieces(&content).len() > 3 && pieces(&content).iter().all(|piece| piece.len() <= PIECE_LEN_MAX));
        assert_eq!(decode(pieces(&content).into_iter().map(Ok)).unwrap(), content);
        for len in [1, 2, 3, 7, 100, 4_096, whole.len()] {
            assert_eq!(decode(whole.chunks(len).map(Ok)).unwrap(), content, "cut into {len}");
        }
    }

    #[test]
    fn what_is_cut_short_or_goes_on_or_is_of_another_version_is_no_content() {
        let whole = pieces(&content(10)).concat();
        for len in 0..whole.len() {
            assert!(decode(whole[..len].chunks(5).map(Ok)).is_err(), "cut at {len}");
        }
        let longer = [&whole[..], b"x"].concat();
        assert!(decode(longer.chunks(5).map(Ok)).is_err());
        let other = [&[SNAPSHOT_VERSION + 1], &whole[1..]].concat();
        assert!(decode(other.chunks(5).map(Ok)).unwrap_err().to_string().contains("another version"));
    }

    #[test]
    fn why_a_piece_cannot_be_had_or_taken_is_told() {
        let content = content(1_000);
        let mut taken = 0;
        let full = encode(&content, &mut |_| {
            taken += 1;
            if taken == 3 { Err(io::Error::other("the disk is full")) } else { Ok(()) }
        });
        assert_eq!(full.unwrap_err().to_string(), "the disk is full");
        let torn = pieces(&content).into_iter().take(2).map(Ok).chain([Err(io::Error::other("piece 2 is missing"))]);
        assert_eq!(decode(torn).unwrap_err().to_string(), "piece 2 is missing");
    }
}
