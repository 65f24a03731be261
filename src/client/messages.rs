//! Messages, as a client sends and publishes them. [`super::inbox`] is where they arrive.

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::client::Client;
use super::error::Error;
use super::word::{Word, word};
use crate::messages::{Address, MESSAGE_LEN_MAX};
use crate::model::ident::{Group, IdentError, Name};

impl Client {
    /// Sends a message to whoever holds the name; how many inboxes have it. None: its owner has no inbox open anywhere, and the message
    /// is gone.
    ///
    /// It arrives at most once, and is never sent again once it may be on its way: [`Error::Unknown`] means that it may arrive.
    /// [`Error::Refused`]: nobody holds the name.
    ///
    /// ```no_run
    /// # async fn example(client: quorate::client::client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let read = client.send("billing", &serde_json::json!({ "do": "invoice", "number": 17 })).await?;
    /// println!("{read} inboxes have it");
    /// # Ok(()) }
    /// ```
    pub async fn send(&self, name: impl Word<Name>, message: &(impl Serialize + ?Sized)) -> Result<u64, Error> {
        self.post(Address::Name(word(name)?), message).await
    }

    /// Sends a message to every member of the group; how many inboxes have it, in which it arrives at most once. A group that nobody
    /// is in is one like any other.
    ///
    /// [`Error::Unknown`]: some members, or all, may have it.
    pub async fn publish(&self, group: impl Word<Group>, message: &(impl Serialize + ?Sized)) -> Result<u64, Error> {
        self.post(Address::Group(word(group)?), message).await
    }

    async fn post(&self, to: Address, message: &(impl Serialize + ?Sized)) -> Result<u64, Error> {
        let message = written(message)?;
        // A message that may be on its way would come twice.
        let mut tries = self.tries(false);
        loop {
            let (caller, options) = self.next(&tries);
            let result = caller.send(self.mode(), &to, &message, &options).await;
            if let Some(ended) = tries.end(result).await {
                return ended?.map_err(Error::refused);
            }
        }
    }
}

fn written(message: &(impl Serialize + ?Sized)) -> Result<Box<RawValue>, IdentError> {
    const WHAT: &str = "a message";
    let message =
        to_raw_value(message).map_err(|_| IdentError::Malformed { what: WHAT, why: "it cannot be written as JSON" })?;
    match message.get().len() {
        0..=MESSAGE_LEN_MAX => Ok(message),
        len => Err(IdentError::TooLong { what: WHAT, len, max: MESSAGE_LEN_MAX }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn what_is_no_message_is_not_sent() {
        assert_eq!(written("a").unwrap().get(), "\"a\"");
        assert_eq!(written(&"x".repeat(MESSAGE_LEN_MAX - 2)).unwrap().get().len(), MESSAGE_LEN_MAX);
        assert!(matches!(written(&"x".repeat(MESSAGE_LEN_MAX - 1)), Err(IdentError::TooLong { .. })));
        assert!(matches!(written(&BTreeMap::from([(vec![1], 2)])), Err(IdentError::Malformed { .. })));
    }
}
