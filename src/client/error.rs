//! What a call may come to instead of what was wanted.

use super::call::{Cause, CommandError};
use crate::model::ident::IdentError;
use crate::model::outcome::Refusal;
use crate::wire::status::refusal_code;

/// Why a call did not do what it was for. The first four are never mixed up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The registry's no: that is how things stand now. (If an earlier try of the same call was lost, it may have been applied and
    /// undone by somebody since.)
    #[error("refused: {}", refusal_code(.0).row().title)]
    Refused(Box<Refusal>),
    /// Surely not applied, now or later.
    #[error("not applied: {0}")]
    NotApplied(Cause),
    /// Perhaps applied, perhaps to be applied until its deadline: ask, or do what is safe to do twice.
    #[error("unknown, perhaps applied: {0}")]
    Unknown(Cause),
    /// A question that nobody answered.
    #[error("no answer: {0}")]
    Unanswered(Cause),
    /// A text that is none of the registry's words: nothing was sent.
    #[error("{0}")]
    Word(#[from] IdentError),
}

impl Error {
    /// The registry's no, if it is one.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Error::Refused(refusal) => Some(refusal),
            Error::NotApplied(_) | Error::Unknown(_) | Error::Unanswered(_) | Error::Word(_) => None,
        }
    }

    pub(super) fn refused(refusal: Refusal) -> Self {
        Error::Refused(Box::new(refusal))
    }
}

impl From<CommandError> for Error {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::NotApplied(cause) => Error::NotApplied(cause),
            CommandError::Unknown(cause) => Error::Unknown(cause),
        }
    }
}

/// For `TryInto` from what is one of the registry's words already.
impl From<std::convert::Infallible> for Error {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}
