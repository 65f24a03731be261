//! A stream of events that is taken up at another server when the one that it comes from is gone: what watches and inboxes share.

use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use super::call::Cause;
use super::client::Client;
use super::connection::{Begun, Streamed};
use super::failover::Pace;
use super::judge;
use super::request::Prepared;
use crate::wire::sse::{Decoder, SentEvent};

/// A server that says nothing for so long is given up: it sends something every 5 s.
pub const QUIET_MAX: Duration = Duration::from_secs(20);

/// The servers of one client, of which one after the other is asked for the same stream.
#[derive(Debug)]
pub struct Followed {
    client: Client,
    event_len_max: usize,
    at: usize,
    pace: Pace,
    stream: Option<Stream>,
    /// Not before then is the next server asked.
    not_before: Instant,
    /// An interruption is told once.
    interrupted: bool,
}

#[derive(Debug)]
struct Stream {
    body: Box<Streamed>,
    decoder: Decoder,
    heard: Instant,
}

impl Followed {
    /// Nothing is sent yet. An event that is longer ends the stream.
    pub fn new(client: &Client, event_len_max: usize) -> Self {
        let servers = client.servers();
        Self {
            client: client.clone(),
            event_len_max,
            at: servers.good(),
            pace: Pace::new(servers.callers().len()),
            stream: None,
            not_before: Instant::now(),
            interrupted: false,
        }
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    pub fn is_open(&self) -> bool {
        self.stream.is_some()
    }

    /// Asks a server for the stream, as soon as it may be asked. An error: what it said instead. May be cancelled without loss.
    pub async fn open(&mut self, prepared: Prepared) -> Result<(), Cause> {
        sleep_until(self.not_before).await;
        let caller = &self.client.servers().callers()[self.at];
        match caller.stream(prepared, self.client.options().timeout).await? {
            Begun::Stream(body) => {
                self.stream = Some(Stream { body, decoder: Decoder::new(self.event_len_max), heard: Instant::now() });
                Ok(())
            }
            Begun::Answer(answered) => Err(judge::no_stream(self.client.mode(), &answered)),
        }
    }

    /// The next event. An error: there is no stream any more. May be cancelled without loss.
    pub async fn next(&mut self) -> Result<SentEvent, Cause> {
        let Some(stream) = &mut self.stream else { return Err(Cause::Lost("there is no stream".to_owned())) };
        loop {
            if let Some(sent) = stream.decoder.next_event().map_err(|why| Cause::Garbled(why.to_string()))? {
                return Ok(sent);
            }
            let piece = timeout_at(stream.heard + QUIET_MAX, stream.body.next()).await.unwrap_or(Err(Cause::Late))?;
            stream.heard = Instant::now();
            match piece {
                Some(bytes) => stream.decoder.push(&bytes),
                None => return Err(Cause::Lost("the server ended the stream".to_owned())),
            }
        }
    }

    /// The server has said something: an interruption from now on is another one.
    pub fn heard(&mut self) {
        self.interrupted = false;
    }

    /// The client's next calls begin at this server.
    pub fn remember(&self) {
        self.client.servers().remember(self.at);
    }

    /// After something went well the next pauses are short again.
    pub fn went_well(&mut self) {
        self.pace.reset();
    }

    /// The same server is asked anew.
    pub fn hang_up(&mut self) {
        self.stream = None;
    }

    /// Another server takes it up, after a pause if all were tried.
    pub fn go_on(&mut self) {
        self.stream = None;
        self.at = (self.at + 1) % self.client.servers().callers().len();
        self.not_before = Instant::now() + self.pace.next();
    }

    /// Whether a reader has to know that the stream broke: only once every server was asked, for one that is gone is nothing to it, and
    /// only once.
    pub fn is_news(&mut self) -> bool {
        let news = self.pace.has_gone_round() && !self.interrupted;
        self.interrupted |= news;
        news
    }
}
