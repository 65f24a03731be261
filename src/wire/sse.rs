//! Server-sent events: as they are written, and as a reader takes them apart. Fed with bytes as they come, it gives one event after
//! the other.

use serde::Serialize;

use crate::model::ident::Revision;

/// One event as it goes over the wire, with the empty line that ends it.
///
/// JSON has no line break but within its white space, of which none is written: it is one `data:` line always.
pub fn event(name: &str, id: Option<&Revision>, data: &impl Serialize) -> Vec<u8> {
    let mut text = Vec::with_capacity(512);
    text.extend_from_slice(b"event: ");
    text.extend_from_slice(name.as_bytes());
    if let Some(id) = id {
        text.extend_from_slice(b"\nid: ");
        text.extend_from_slice(id.to_string().as_bytes());
    }
    text.extend_from_slice(b"\ndata: ");
    serde_json::to_writer(&mut text, data).expect("what was parsed at the door is JSON");
    text.extend_from_slice(b"\n\n");
    text
}

/// One event of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SentEvent {
    /// What kind it is; empty if the stream does not say.
    pub event: String,
    /// The last id that the stream has given, with this event or before it.
    pub id: Option<String>,
    /// The lines of its data, joined by line breaks.
    pub data: String,
    /// Whether the id came with this very event.
    pub has_id: bool,
}

/// The stream says one event longer than this reader takes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event is longer than {max} bytes")]
pub struct TooLong {
    pub max: usize,
}

/// Takes a stream apart. Comments, and fields of later versions, are passed over.
#[derive(Debug)]
pub struct Decoder {
    /// What has come and was not taken out yet.
    buffer: Vec<u8>,
    /// How much of the buffer is known to hold no line's end.
    searched: usize,
    current: SentEvent,
    has_data: bool,
    last_id: Option<String>,
    event_len_max: usize,
}

impl Decoder {
    /// A reader of a new stream that takes in events of so many bytes.
    pub fn new(event_len_max: usize) -> Self {
        Self {
            buffer: Vec::new(),
            searched: 0,
            current: SentEvent::default(),
            has_data: false,
            last_id: None,
            event_len_max,
        }
    }

    /// Takes in the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole event; none until more has come.
    pub fn next_event(&mut self) -> Result<Option<SentEvent>, TooLong> {
        let mut begin = 0;
        let found = loop {
            let Some(end) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') else { break None };
            let end = self.searched + end;
            let line = String::from_utf8_lossy(&self.buffer[begin..end]).into_owned();
            begin = end + 1;
            self.searched = begin;
            if let Some(event) = self.line(line.trim_end_matches('\r')) {
                break Some(event);
            }
        };
        self.buffer.drain(..begin);
        self.searched = if found.is_some() { 0 } else { self.buffer.len() };
        if found.is_none() && self.buffer.len() + self.current.data.len() > self.event_len_max {
            return Err(TooLong { max: self.event_len_max });
        }
        Ok(found)
    }

    fn line(&mut self, line: &str) -> Option<SentEvent> {
        if line.is_empty() {
            let mut event = std::mem::take(&mut self.current);
            event.id = self.last_id.clone();
            // An event without data is none: so says the standard.
            return std::mem::take(&mut self.has_data).then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.current.event),
            "data" => {
                if self.has_data {
                    self.current.data.push('\n');
                }
                self.current.data.push_str(value);
                self.has_data = true;
            }
            "id" => {
                self.last_id = Some(value.to_owned());
                self.current.has_id = true;
            }
            // Comments (an empty field), retry, and what is not known.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(decoder: &mut Decoder) -> Vec<SentEvent> {
        std::iter::from_fn(|| decoder.next_event().unwrap()).collect()
    }

    #[test]
    fn a_stream_is_taken_apart_wherever_it_is_cut() {
        let stream = ": hello\r\nretry: 5\n\nevent: a\nid: 1\ndata: x\ndata:y\n\n\n:\n\ndata: é\n\nevent: c\n\nevent: d\ndata\n\n";
        let event = |event: &str, data: &str, has_id| SentEvent {
            event: event.to_owned(),
            id: Some("1".to_owned()),
            data: data.to_owned(),
            has_id,
        };
        let expected = [event("a", "x\ny", true), event("", "é", false), event("d", "", false)];
        for piece in 1..stream.len() {
            let mut decoder = Decoder::new(100);
            let mut found = Vec::new();
            for bytes in stream.as_bytes().chunks(piece) {
                decoder.push(bytes);
                found.extend(all(&mut decoder));
            }
            assert_eq!(found, expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn an_event_without_end_is_given_up() {
        let mut decoder = Decoder::new(10);
        decoder.push(b"data: 0123456789\n");
        assert_eq!(decoder.next_event(), Ok(None));
        decoder.push(b"data: 0");
        assert_eq!(decoder.next_event(), Err(TooLong { max: 10 }));
    }
}
