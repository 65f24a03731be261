//! Messages to names and groups: what callers may rely on.
//!
//! A message goes to whoever holds the name, or is a member of the group, at that moment, and there to everybody who reads that
//! owner's (member's) inbox, at whatever node. At most once: nothing is kept for those who do not read, and nothing is sent again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::model::entry::Holder;
use crate::model::ident::{Group, Mode, Name, Token};
use crate::registry::{CommandFailure, Reply};

/// The longest message, in bytes of JSON as it was sent.
pub const MESSAGE_LEN_MAX: usize = 64 * 1024;
/// Messages that wait for one reader. What comes beyond is lost to it, and it is told so.
pub const INBOX_LEN_MAX: usize = 256;
/// The same bound, in bytes.
pub const INBOX_BYTES_MAX: usize = 1024 * 1024;

/// Whom a message is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Address {
    /// The owner of the name.
    Name(Name),
    /// Every member of the group.
    Group(Group),
}

impl Address {
    /// The name or group, for whoever holds prefixes against it.
    pub fn key(&self) -> &str {
        match self {
            Address::Name(name) => name.as_str(),
            Address::Group(group) => group.as_str(),
        }
    }
}

/// Sends messages, and opens inboxes.
#[async_trait]
pub trait Messages: Send + Sync + 'static {
    /// Sends a message; `text` is JSON. The value: how many inboxes have it, none if nobody was reading; nothing if nobody holds
    /// the name. An inbox at a node that did not answer in time is not counted, though it may have the message.
    ///
    /// Not applied: nothing was sent, for it was not found out to whom. Unknown: it went to some members of a large group.
    async fn send(
        &self,
        mode: Mode,
        to: Address,
        text: Arc<str>,
        deadline: Instant,
    ) -> Result<Reply<Option<u64>>, CommandFailure>;

    /// Opens an inbox: what is sent from now on to names that this owner holds and to groups that it is a member of. Each of an
    /// owner's inboxes gets everything.
    fn open(&self, mode: Mode, owner: &str) -> Inbox;
}

/// A message as an inbox gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    pub to: Address,
    /// The grant that it was sent to.
    pub token: Token,
    /// The message: JSON.
    pub text: Arc<str>,
}

impl Letter {
    /// The grant's key and holder.
    pub fn holder(&self, owner: &str) -> Option<Holder> {
        Some(match &self.to {
            Address::Name(name) => Holder::Owner(name.clone(), owner.parse().ok()?),
            Address::Group(group) => Holder::Member(group.clone(), owner.parse().ok()?),
        })
    }
}

/// What a reader is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    Letter(Arc<Letter>),
    /// So many messages came here that this reader was too slow for.
    Gap(u64),
}

/// One reader's messages. Dropping it closes the inbox.
pub struct Inbox {
    queue: Arc<InboxQueue>,
}

/// The end of an inbox that messages are put into.
#[derive(Default)]
pub struct InboxQueue {
    waiting: Mutex<Waiting>,
    some: Notify,
}

#[derive(Default)]
struct Waiting {
    deliveries: VecDeque<Delivery>,
    bytes: usize,
}

impl Inbox {
    pub fn new() -> (Self, Arc<InboxQueue>) {
        let queue = Arc::<InboxQueue>::default();
        (Self { queue: queue.clone() }, queue)
    }

    /// The next message, as soon as there is one. May be cancelled without loss.
    pub async fn next(&mut self) -> Delivery {
        loop {
            if let Some(delivery) = self.queue.take() {
                return delivery;
            }
            self.queue.some.notified().await;
        }
    }
}

impl InboxQueue {
    /// Puts a message in. False: there is no room, and the reader will find a gap in this place.
    pub fn put(&self, letter: &Arc<Letter>) -> bool {
        let mut waiting = self.waiting();
        let fits = waiting.deliveries.len() < INBOX_LEN_MAX && waiting.bytes + letter.text.len() <= INBOX_BYTES_MAX;
        match waiting.deliveries.back_mut() {
            _ if fits => {
                waiting.bytes += letter.text.len();
                waiting.deliveries.push_back(Delivery::Letter(letter.clone()));
            }
            Some(Delivery::Gap(lost)) => *lost += 1,
            Some(Delivery::Letter(_)) | None => waiting.deliveries.push_back(Delivery::Gap(1)),
        }
        drop(waiting);
        self.some.notify_one();
        fits
    }

    fn take(&self) -> Option<Delivery> {
        let mut waiting = self.waiting();
        let delivery = waiting.deliveries.pop_front()?;
        if let Delivery::Letter(letter) = &delivery {
            waiting.bytes -= letter.text.len();
        }
        Some(delivery)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(text: &str) -> Arc<Letter> {
        Arc::new(Letter { to: Address::Name("n".parse().unwrap()), token: Token::Cp(1), text: text.into() })
    }

    #[tokio::test]
    async fn a_slow_reader_finds_a_gap_where_messages_were_lost() {
        let (mut inbox, queue) = Inbox::new();
        for at in 0..INBOX_LEN_MAX + 3 {
            assert_eq!(queue.put(&letter(&at.to_string())), at < INBOX_LEN_MAX);
        }
        for at in 0..INBOX_LEN_MAX {
            assert_eq!(inbox.next().await, Delivery::Letter(letter(&at.to_string())));
        }
        // What comes after the gap stands after it.
        assert!(queue.put(&letter("later")));
        assert_eq!(inbox.next().await, Delivery::Gap(3));
        assert_eq!(inbox.next().await, Delivery::Letter(letter("later")));
    }

    #[tokio::test]
    async fn the_bound_in_bytes_holds_too_and_is_given_back() {
        let (mut inbox, queue) = Inbox::new();
        let large = letter(&"x".repeat(MESSAGE_LEN_MAX));
        let fit = INBOX_BYTES_MAX / MESSAGE_LEN_MAX;
        for at in 0..=fit {
            assert_eq!(queue.put(&large), at < fit);
        }
        for _ in 0..fit {
            assert_eq!(inbox.next().await, Delivery::Letter(large.clone()));
        }
        assert_eq!(inbox.next().await, Delivery::Gap(1));
        assert!(queue.put(&large));
    }
}
