//! A stream of events that is taken up at another server when the one that it comes from is gone: what watches and inboxes share.

use tokio::time::{Instant, sleep_until};

use super::call::Cause;
use super::client::Client;
use super::failover::Pace;
use super::request::Prepared;
use super::stream::EventStream;
use crate::wire::sse::SentEvent;

/// The servers of one client, of which one after the other is asked for the same stream.
#[derive(Debug)]
pub struct Followed {
    client: Client,
    event_len_max: usize,
    at: usize,
    pace: Pace,
    stream: Option<EventStream>,
    /// Not before then is the next server asked.
    not_before: Instant,
    /// An interruption is told once.
    interrupted: bool,
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
        let (mode, timeout) = (self.client.mode(), self.client.options().timeout);
        self.stream = Some(EventStream::open(caller, mode, prepared, timeout, self.event_len_max).await?);
        Ok(())
    }

    /// The next event. An error: there is no stream any more. May be cancelled without loss.
    pub async fn next(&mut self) -> Result<SentEvent, Cause> {
        match &mut self.stream {
            Some(stream) => stream.next().await,
            None => Err(Cause::Lost("there is no stream".to_owned())),
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
