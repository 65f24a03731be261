//! An inbox that goes on: at another server when one is gone, and not without a word about what may be missing.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::call::Cause;
use super::client::Client;
use super::error::Error;
use super::follow::Followed;
use super::request;
use super::word::{Word, word};
use crate::messages::{Address, Letter};
use crate::model::ident::{Mode, Owner, Token};
use crate::wire::message::{GapBody, LetterBody};
use crate::wire::read::Garbled;
use crate::wire::sse::SentEvent;
use crate::wire::status::Kind;

/// The longest event that is read: a message has 64 KiB at most.
const EVENT_LEN_MAX: usize = 1 << 20;
/// A stream that has lived so long was a good one.
const STEADY: Duration = Duration::from_secs(5);

/// What an inbox tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrived {
    Message(Letter),
    /// Messages may be missing here. So many, if the server says so, for this reader was too slow; how many, if any, is not known where
    /// the stream broke and was taken up again: messages are not kept for those who do not read.
    Gap {
        lost: Option<u64>,
    },
    /// The stream broke, and no server has taken it up yet.
    Interrupted(Cause),
}

/// What is sent to names that an owner holds, and to groups that it is a member of, while the inbox is open. Every open inbox of an owner
/// gets everything.
///
/// It keeps itself going: when a server is gone, it goes on at another one, and [`Arrived::Gap`] says so. A message arrives at most once
/// in each inbox.
///
/// ```no_run
/// # async fn example(client: quorate::client::client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use quorate::client::inbox::Arrived;
///
/// let mut inbox = client.inbox("worker-1")?;
/// inbox.opened().await?; // what is sent from now on arrives
/// client.register("billing", "worker-1").send().await?;
/// loop {
///     match inbox.next().await? {
///         Arrived::Message(letter) => println!("to {}: {}", letter.to.key(), letter.text),
///         Arrived::Gap { lost } => println!("something is missing: {lost:?}"),
///         Arrived::Interrupted(why) => println!("nothing comes for now: {why}"),
///     }
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct Inbox {
    follow: Followed,
    owner: Owner,
    /// When a server last opened it; none before the first has.
    opened: Option<Instant>,
    waiting: VecDeque<Arrived>,
}

impl Client {
    /// The inbox of an owner, or of a member. Nothing is sent before [`Inbox::opened`] or [`Inbox::next`].
    pub fn inbox(&self, owner: impl Word<Owner>) -> Result<Inbox, Error> {
        let follow = Followed::new(self, EVENT_LEN_MAX);
        Ok(Inbox { follow, owner: word(owner)?, opened: None, waiting: VecDeque::new() })
    }
}

impl Inbox {
    /// Waits until a server keeps the inbox open: what is sent from then on arrives, or a gap in its place. May be cancelled.
    ///
    /// An error: no server gives this caller such an inbox, and none will.
    pub async fn opened(&mut self) -> Result<(), Error> {
        while !self.follow.is_open() {
            self.open().await?;
        }
        Ok(())
    }

    /// What comes next. It waits as long as nothing does, also while no server can be reached. May be cancelled without loss.
    ///
    /// An error as for [`Inbox::opened`].
    pub async fn next(&mut self) -> Result<Arrived, Error> {
        loop {
            if let Some(arrived) = self.waiting.pop_front() {
                return Ok(arrived);
            }
            if !self.follow.is_open() {
                self.open().await?;
                continue;
            }
            let read = self.follow.next().await.and_then(|sent| {
                let read = read(self.follow.client().mode(), &sent);
                read.map_err(|why| Cause::Garbled(why.to_string()))
            });
            match read {
                Ok(Some(arrived)) => {
                    self.follow.went_well();
                    return Ok(arrived);
                }
                // Of a later version.
                Ok(None) => {}
                Err(cause) => self.broke(cause),
            }
        }
    }

    /// Asks one server.
    async fn open(&mut self) -> Result<(), Error> {
        let client = self.follow.client();
        let prepared = request::inbox(client.mode(), &self.owner, client.options().timeout);
        match self.follow.open(prepared).await {
            Ok(()) => {
                self.follow.heard();
                self.follow.remember();
                if self.opened.replace(Instant::now()).is_some() {
                    self.waiting.push_back(Arrived::Gap { lost: None });
                }
                Ok(())
            }
            Err(cause) => match &cause {
                Cause::Rejected { code, .. } if matches!(code.row().kind, Kind::Rejection | Kind::Refusal) => {
                    Err(Error::Unanswered(cause))
                }
                _ => {
                    self.go_on(cause);
                    Ok(())
                }
            },
        }
    }

    fn broke(&mut self, cause: Cause) {
        tracing::debug!(%cause, "an inbox was interrupted");
        // One that ends at once may do so again: such servers are not asked without a pause.
        if self.opened.is_some_and(|opened| opened.elapsed() > STEADY) {
            self.follow.went_well();
        }
        self.go_on(cause);
    }

    fn go_on(&mut self, cause: Cause) {
        self.follow.go_on();
        if self.follow.is_news() {
            self.waiting.push_back(Arrived::Interrupted(cause));
        }
    }
}

fn read(mode: Mode, sent: &SentEvent) -> Result<Option<Arrived>, Garbled> {
    Ok(Some(match sent.event.as_str() {
        "message" => {
            let LetterBody { name, group, token, message } = serde_json::from_str(&sent.data)?;
            let to = match (name, group) {
                (Some(name), None) => Address::Name(name.parse()?),
                (None, Some(group)) => Address::Group(group.parse()?),
                (Some(_), Some(_)) | (None, None) => return Err(Garbled::NoAddress),
            };
            let token = Token::parse(mode, &token)?;
            Arrived::Message(Letter { to, token, text: message.get().into() })
        }
        "gap" => {
            let GapBody { lost } = serde_json::from_str(&sent.data)?;
            Arrived::Gap { lost: Some(lost) }
        }
        _ => return Ok(None),
    }))
}
