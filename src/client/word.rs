//! What calls take and give: the registry's words from texts, and its outcomes as results.

use super::call::{Cause, CommandError};
use super::error::Error;
use crate::model::entry::Entry;
use crate::model::ident::Revision;
use crate::model::outcome::{Ended, Hidden, Outcome, Refusal};
use crate::model::query::Answer;
use crate::registry::{Provenance, Reply};

/// One of the registry's words, or a text that is to become one.
pub trait Word<T>: TryInto<T, Error: Into<Error>> {}

impl<T, W: TryInto<T, Error: Into<Error>>> Word<T> for W {}

/// A name or membership that is the caller's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    pub entry: Entry,
    /// Whether this call made the grant; it stood already otherwise.
    pub new: bool,
    /// `ap`: the grant from the other side of a partition that this one stands over. One of the two will lose after the heal.
    pub hides: Option<Hidden>,
    /// How far the answering server was.
    pub revision: Revision,
    pub provenance: Provenance,
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed<T> {
    pub items: Vec<T>,
    /// The next page's `after`; none at the end.
    pub next: Option<String>,
    /// How far the answering server was: watch from here, and nothing is missed.
    pub revision: Revision,
}

pub fn word<T>(word: impl Word<T>) -> Result<T, Error> {
    word.try_into().map_err(Into::into)
}

pub fn granted(result: Result<Reply<Outcome>, CommandError>) -> Result<Granted, Error> {
    let Reply { value, revision, provenance } = result?;
    match value {
        Outcome::Granted { entry, hides } => Ok(Granted { entry, new: true, hides, revision, provenance }),
        Outcome::Held { entry } => Ok(Granted { entry, new: false, hides: None, revision, provenance }),
        Outcome::Refused(refusal) => Err(Error::refused(refusal)),
        Outcome::Ended(_) | Outcome::LeaseCreated { .. } | Outcome::LeaseHeld { .. } => Err(strange_outcome(&value)),
    }
}

pub fn ended(result: Result<Reply<Outcome>, CommandError>) -> Result<Ended, Error> {
    match result?.value {
        Outcome::Ended(ended) => Ok(ended),
        Outcome::Refused(refusal) => Err(Error::refused(refusal)),
        value @ (Outcome::Granted { .. }
        | Outcome::Held { .. }
        | Outcome::LeaseCreated { .. }
        | Outcome::LeaseHeld { .. }) => Err(strange_outcome(&value)),
    }
}

pub fn one(result: Result<Reply<Answer>, Cause>) -> Result<Option<Entry>, Error> {
    match result.map_err(Error::Unanswered)?.value {
        Answer::Entry(entry) => Ok(Some(entry)),
        Answer::Refused(Refusal::NotFound) => Ok(None),
        Answer::Refused(refusal) => Err(Error::refused(refusal)),
        other => Err(strange(&other)),
    }
}

pub fn entries(result: Result<Reply<Answer>, Cause>) -> Result<Listed<Entry>, Error> {
    let reply = result.map_err(Error::Unanswered)?;
    match reply.value {
        Answer::Entries { entries, next } => Ok(Listed { items: entries, next, revision: reply.revision }),
        Answer::Refused(refusal) => Err(Error::refused(refusal)),
        other => Err(strange(&other)),
    }
}

/// An answer to another question: it proves nothing.
pub fn strange(answer: &Answer) -> Error {
    Error::Unanswered(Cause::Garbled(format!("it does not fit the question: {answer:?}")))
}

/// An outcome of another command: whatever it means, it is no proof that nothing was done.
pub fn strange_outcome(outcome: &Outcome) -> Error {
    Error::Unknown(Cause::Garbled(format!("it does not fit the command: {outcome:?}")))
}
