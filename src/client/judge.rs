//! What an answer proves, by the table in `wire::status`. What does not fit the table proves nothing.

use hyper::HeaderMap;
use serde::de::DeserializeOwned;

use super::call::{Cause, CommandError};
use super::connection::Answered;
use crate::model::command::Action;
use crate::model::ident::{Mode, Revision};
use crate::model::outcome::{Outcome, Refusal};
use crate::model::query::{Answer, Query};
use crate::registry::{Provenance, Reason, Reply};
use crate::wire::header;
use crate::wire::read::{self, Garbled, Problem};
use crate::wire::status::{Certainty, Code};

/// What became of a command.
pub fn outcome(mode: Mode, action: &Action, answered: &Answered) -> Result<Reply<Outcome>, CommandError> {
    let Reply { value, revision, provenance } =
        settled(mode, answered, |body| read::outcome(mode, action, answered.status, body))?;
    Ok(Reply { value: value.unwrap_or_else(Outcome::Refused), revision, provenance })
}

/// What became of a call that may have changed something, if `read` understands the body of a status below 300.
pub fn settled<T>(
    mode: Mode,
    answered: &Answered,
    read: impl FnOnce(&[u8]) -> Result<T, Garbled>,
) -> Result<Reply<Result<T, Refusal>>, CommandError> {
    let garbled = |why: Garbled| CommandError::Unknown(unreadable(answered, &why));
    if answered.status < 300 {
        let value = read(&answered.body).map_err(garbled)?;
        return reply(mode, answered, Ok(value)).map_err(CommandError::Unknown);
    }
    let problem = read::problem(mode, &answered.body).map_err(garbled)?;
    if let Some(refusal) = read::refusal(mode, &problem).map_err(garbled)? {
        if problem.code.row().status != answered.status {
            return Err(garbled(Garbled::Status(answered.status)));
        }
        return reply(mode, answered, Err(refusal)).map_err(CommandError::Unknown);
    }
    let certainty = problem.code.certainty(answered.status, problem.outcome);
    let cause = cause(mode, problem);
    Err(match certainty {
        Certainty::NotApplied => CommandError::NotApplied(cause),
        Certainty::Unknown => CommandError::Unknown(cause),
    })
}

/// Why no stream began.
pub fn no_stream(mode: Mode, answered: &Answered) -> Cause {
    match read::problem(mode, &answered.body) {
        Ok(problem) => cause(mode, problem),
        Err(why) => unreadable(answered, &why),
    }
}

/// The same for a call of no mode: no token or revision is in such a problem.
pub fn no_answer(answered: &Answered) -> Cause {
    no_stream(Mode::Cp, answered)
}

/// What was answered to a query.
pub fn answer(mode: Mode, query: &Query, answered: &Answered) -> Result<Reply<Answer>, Cause> {
    let garbled = |why: Garbled| unreadable(answered, &why);
    if answered.status == 200 {
        let value = read::answer(mode, query, &answered.body).map_err(garbled)?;
        return reply(mode, answered, value);
    }
    let problem = read::problem(mode, &answered.body).map_err(garbled)?;
    match read::refusal(mode, &problem).map_err(garbled)? {
        Some(refusal) => reply(mode, answered, Answer::Refused(refusal)),
        None => Err(cause(mode, problem)),
    }
}

/// What was answered to a call that is neither.
pub fn plain<T: DeserializeOwned>(answered: &Answered) -> Result<T, Cause> {
    if answered.status < 300 {
        return serde_json::from_slice(&answered.body).map_err(|why| unreadable(answered, &why.into()));
    }
    Err(no_answer(answered))
}

/// What became of a change of the cluster. A refusal is [`Cause::Rejected`].
pub fn change<T: DeserializeOwned>(answered: &Answered) -> Result<T, CommandError> {
    let garbled = |why: Garbled| CommandError::Unknown(unreadable(answered, &why));
    if answered.status < 300 {
        return serde_json::from_slice(&answered.body).map_err(|why| garbled(why.into()));
    }
    let problem = read::problem(Mode::Cp, &answered.body).map_err(garbled)?;
    let certainty = problem.code.certainty(answered.status, problem.outcome);
    let cause = cause(Mode::Cp, problem);
    Err(match certainty {
        Certainty::NotApplied => CommandError::NotApplied(cause),
        Certainty::Unknown => CommandError::Unknown(cause),
    })
}

/// A reason in words.
pub fn told(reason: &Reason) -> String {
    match reason {
        Reason::NoLeader => Code::NoLeader.row().title.to_owned(),
        Reason::NoQuorum => Code::NoQuorum.row().title.to_owned(),
        Reason::Starting => Code::Starting.row().title.to_owned(),
        Reason::Behind { applied } => format!("{} It is at {applied}.", Code::Behind.row().title),
        Reason::Overloaded => Code::Overloaded.row().title.to_owned(),
        Reason::Timeout => Code::Timeout.row().title.to_owned(),
        Reason::NotLeader { leader: Some(leader) } => format!("The leader is node {leader}."),
        Reason::NotLeader { leader: None } => Code::NotLeader.row().title.to_owned(),
        Reason::Internal(what) => format!("{} {what}", Code::Internal.row().title),
    }
}

fn cause(mode: Mode, problem: Problem) -> Cause {
    let reason = match problem.code {
        Code::NoLeader => Reason::NoLeader,
        Code::NoQuorum => Reason::NoQuorum,
        Code::Starting => Reason::Starting,
        Code::Behind => match problem.applied {
            Some(applied) => Reason::Behind { applied },
            None => return Cause::Garbled(format!("{mode}: behind, but not where it is")),
        },
        Code::Overloaded => Reason::Overloaded,
        Code::NotLeader => Reason::NotLeader { leader: problem.leader },
        Code::Timeout => Reason::Timeout,
        Code::Internal => Reason::Internal(problem.detail.unwrap_or_default()),
        Code::Malformed
        | Code::Unauthorized
        | Code::Forbidden
        | Code::ForeignOrigin
        | Code::NoSuchRoute
        | Code::MethodNotAllowed
        | Code::BodyLate
        | Code::TooLarge
        | Code::WrongShape
        | Code::NameTaken
        | Code::NotFound
        | Code::TokenStale
        | Code::RevisionStale
        | Code::NameExists
        | Code::LeaseUnknown
        | Code::LeaseExpired
        | Code::LeaseTaken
        | Code::LeaseForeign
        | Code::NodeUnknown
        | Code::NodeRemoved
        | Code::NodeExists
        | Code::NodeBehind
        | Code::QuorumAtRisk
        | Code::CannotLead
        | Code::ChangeUnderWay
        | Code::RevisionCompacted => {
            return Cause::Rejected { code: problem.code, detail: problem.detail.unwrap_or_default() };
        }
    };
    Cause::Server(reason)
}

fn reply<T>(mode: Mode, answered: &Answered, value: T) -> Result<Reply<T>, Cause> {
    let revision = text(&answered.headers, header::REVISION)
        .and_then(|text| Revision::parse(mode, text).ok())
        .ok_or_else(|| Cause::Garbled(format!("status {} without a revision", answered.status)))?;
    let share = |name| text(&answered.headers, name).and_then(header::parse_share);
    let provenance = Provenance {
        peers: share(header::PEERS),
        staleness_ms: text(&answered.headers, header::STALENESS_MS).and_then(|text| text.parse().ok()),
        acks: share(header::ACKS),
    };
    Ok(Reply { value, revision, provenance })
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

fn unreadable(answered: &Answered, why: &Garbled) -> Cause {
    Cause::Garbled(format!("status {}: {why}", answered.status))
}
