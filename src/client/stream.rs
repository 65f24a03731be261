//! One stream of events from one server, until it breaks. What takes it up elsewhere is [`follow`](super::follow)'s.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::call::{Caller, Cause};
use super::connection::{Begun, Streamed};
use super::judge;
use super::request::{self, Prepared};
use crate::model::event::WatchMessage;
use crate::model::ident::Mode;
use crate::registry::Watch;
use crate::wire::event::read_message;
use crate::wire::sse::{Decoder, SentEvent};

/// A server that says nothing for so long is given up: it sends something every 5 s.
pub const QUIET_MAX: Duration = Duration::from_secs(20);
/// The longest message that is read: 10,000 entries that end with one lease may be in one.
pub const MESSAGE_LEN_MAX: usize = 256 << 20;

/// A stream that has begun.
#[derive(Debug)]
pub struct EventStream {
    body: Box<Streamed>,
    decoder: Decoder,
    heard: Instant,
}

impl EventStream {
    /// An error: what the server said instead. An event that is longer than `event_len_max` ends the stream.
    pub(super) async fn open(
        caller: &Caller,
        mode: Mode,
        prepared: Prepared,
        timeout: Duration,
        event_len_max: usize,
    ) -> Result<Self, Cause> {
        match caller.stream(prepared, timeout).await? {
            Begun::Stream(body) => Ok(Self { body, decoder: Decoder::new(event_len_max), heard: Instant::now() }),
            Begun::Answer(answered) => Err(judge::no_stream(mode, &answered)),
        }
    }

    /// The next event. An error: the stream is over. May be cancelled without loss.
    pub(super) async fn next(&mut self) -> Result<SentEvent, Cause> {
        loop {
            if let Some(sent) = self.decoder.next_event().map_err(|why| Cause::Garbled(why.to_string()))? {
                return Ok(sent);
            }
            let piece = timeout_at(self.heard + QUIET_MAX, self.body.next()).await.unwrap_or(Err(Cause::Late))?;
            self.heard = Instant::now();
            match piece {
                Some(bytes) => self.decoder.push(&bytes),
                None => return Err(Cause::Lost("the server ended the stream".to_owned())),
            }
        }
    }
}

/// One watch at one server: it never goes on elsewhere, and never begins anew.
#[derive(Debug)]
pub struct WatchStream {
    mode: Mode,
    stream: EventStream,
}

impl Caller {
    /// Begins a watch. The time is for the beginning alone.
    pub async fn watch(&self, mode: Mode, watch: &Watch, timeout: Duration) -> Result<WatchStream, Cause> {
        let prepared = request::watch(mode, watch, timeout);
        let stream = EventStream::open(self, mode, prepared, timeout, MESSAGE_LEN_MAX).await?;
        Ok(WatchStream { mode, stream })
    }
}

impl WatchStream {
    /// The next message. An error: the stream is over. May be cancelled without loss.
    pub async fn next(&mut self) -> Result<WatchMessage, Cause> {
        loop {
            let sent = self.stream.next().await?;
            let id = sent.id.as_deref().filter(|_| sent.has_id);
            let read = read_message(self.mode, &sent.event, id, &sent.data);
            if let Some(message) = read.map_err(|why| Cause::Garbled(why.to_string()))? {
                return Ok(message);
            }
        }
    }
}
