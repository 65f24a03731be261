//! Names, as a client registers, finds and gives them up.

use super::client::Client;
use super::error::Error;
use super::word::{Granted, Listed, Word, ended, entries, granted, one, word};
use crate::model::command::{Action, Condition};
use crate::model::entry::Entry;
use crate::model::ident::{LeaseId, Meta, Name, Owner, Revision, Token};
use crate::model::outcome::{Ended, Refusal};
use crate::model::query::{Answer, Page, Query};

impl Client {
    /// Registers a name for an owner, if nobody else holds it and unless the call is told otherwise before it is sent.
    pub fn register(&self, name: impl Word<Name>, owner: impl Word<Owner>) -> Register<'_> {
        let words = word(name).and_then(|name| Ok((name, word(owner)?)));
        Register { client: self, words, meta: Ok(Meta::empty()), lease: None, condition: Condition::Free }
    }

    /// Who holds a name, if anybody does.
    pub async fn whereis(&self, name: impl Word<Name>) -> Result<Option<Entry>, Error> {
        one(self.query(&Query::Whereis { name: word(name)?, token: None }).await)
    }

    /// Whether that very grant of a name still stands: what a resource asks that is to serve none but the current owner.
    pub async fn is_current(&self, name: impl Word<Name>, token: Token) -> Result<bool, Error> {
        let answer = self.query(&Query::Whereis { name: word(name)?, token: Some(token) }).await;
        match answer.map_err(Error::Unanswered)?.value {
            Answer::Entry(_) => Ok(true),
            Answer::Refused(Refusal::NotFound | Refusal::TokenStale { .. }) => Ok(false),
            Answer::Refused(refusal) => Err(Error::refused(refusal)),
            other => Err(super::word::strange(&other)),
        }
    }

    /// Ends a registration: with its token that very one, never a successor's; without, whatever stands there. [`Ended::Before`]: that
    /// grant had ended already.
    pub async fn unregister(&self, name: impl Word<Name>, token: impl Into<Option<Token>>) -> Result<Ended, Error> {
        ended(self.execute(&Action::Unregister { name: word(name)?, token: token.into() }).await)
    }

    /// One page of names in byte order.
    pub async fn names(&self, page: Page) -> Result<Listed<Entry>, Error> {
        entries(self.query(&Query::Names { page }).await)
    }
}

/// A registration that has not been sent yet.
#[derive(Debug)]
#[must_use = "nothing is sent before `send`"]
pub struct Register<'c> {
    client: &'c Client,
    words: Result<(Name, Owner), Error>,
    meta: Result<Meta, Error>,
    lease: Option<LeaseId>,
    condition: Condition,
}

impl Register<'_> {
    /// A JSON object that rides on it.
    pub fn meta(mut self, meta: impl Word<Meta>) -> Self {
        self.meta = word(meta);
        self
    }

    /// The lease that it is to end with.
    pub fn lease(mut self, lease: &LeaseId) -> Self {
        self.lease = Some(lease.clone());
        self
    }

    /// Whoever holds the name loses it.
    pub fn takeover(self) -> Self {
        self.only_if(Condition::Takeover)
    }

    /// Only if that grant still stands; with another owner or lease it is handed over.
    pub fn only_if_current(self, token: Token) -> Self {
        self.only_if(Condition::Token(token))
    }

    /// Only if the entry has not changed since that revision of it.
    pub fn only_if_unchanged(self, revision: Revision) -> Self {
        self.only_if(Condition::Unchanged(revision))
    }

    /// Only if nobody holds the name, not even this owner.
    pub fn only_if_absent(self) -> Self {
        self.only_if(Condition::Absent)
    }

    fn only_if(mut self, condition: Condition) -> Self {
        self.condition = condition;
        self
    }

    /// Sends it.
    pub async fn send(self) -> Result<Granted, Error> {
        let client = self.client;
        granted(client.execute(&self.action()?).await)
    }

    /// The command that would be sent.
    pub fn action(self) -> Result<Action, Error> {
        let (name, owner) = self.words?;
        Ok(Action::Register { name, owner, meta: self.meta?, lease: self.lease, condition: self.condition })
    }
}
