//! From JSON back to what the model returns. Everything is parsed again: a server's word is checked like a client's.

use jiff::Timestamp;
use serde::Deserialize;

use super::body::{EndedBody, GroupsBody, HiddenBody, MembersBody, Membership, NameEntry, NamesBody, ProblemBody};
use super::lease::{self, LeaseBody};
use super::status::{Certainty, Code};
use crate::model::command::Action;
use crate::model::entry::{Entry, Holder};
use crate::model::ident::{IdentError, Mode, NodeId, Revision, Token};
use crate::model::outcome::{Hidden, Outcome, Refusal};
use crate::model::query::{Answer, GroupCount, Query};
use crate::model::time::UnixMillis;

/// Why bytes are not an answer of this API.
#[derive(Debug, thiserror::Error)]
pub enum Garbled {
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    #[error("{0}")]
    Ident(#[from] IdentError),
    #[error("{0}")]
    Time(#[from] jiff::Error),
    #[error("status {0} does not answer such a call")]
    Status(u16),
    #[error("the code {0:?} is none of ours")]
    Code(String),
    #[error("an entry is missing in the answer")]
    NoEntry,
    #[error("{wanted} results are wanted, there are {found}")]
    Count { wanted: usize, found: usize },
    #[error("a message is to one name or one group")]
    NoAddress,
    #[error("a change of an unknown kind: {0}")]
    Change(String),
}

/// A problem body, read as far as it goes without knowing the call.
#[derive(Debug)]
pub struct Problem {
    pub code: Code,
    pub detail: Option<String>,
    pub outcome: Option<Certainty>,
    pub retryable: bool,
    pub leader: Option<NodeId>,
    pub leader_http: Option<String>,
    pub applied: Option<Revision>,
    pub oldest: Option<Revision>,
    current: Option<Box<serde_json::value::RawValue>>,
}

impl Problem {
    /// A problem of which nothing is known but its code.
    pub(super) fn of(code: Code) -> Self {
        Self {
            code,
            detail: None,
            outcome: None,
            retryable: false,
            leader: None,
            leader_http: None,
            applied: None,
            oldest: None,
            current: None,
        }
    }
}

/// Reads a problem body (also that of a redirect to the leader).
pub fn problem(mode: Mode, body: &[u8]) -> Result<Problem, Garbled> {
    let read: ProblemBody = serde_json::from_slice(body)?;
    Ok(Problem {
        code: Code::parse(&read.code).ok_or(Garbled::Code(read.code))?,
        detail: read.detail,
        outcome: read.outcome.as_deref().and_then(Certainty::parse),
        retryable: read.retryable,
        leader: read.leader,
        leader_http: read.leader_http,
        applied: read.applied.map(|text| Revision::parse(mode, &text)).transpose()?,
        oldest: read.oldest.map(|text| Revision::parse(mode, &text)).transpose()?,
        current: read.current,
    })
}

/// The refusal that a problem's code stands for. `Ok(None)`: it stands for none.
pub fn refusal(mode: Mode, problem: &Problem) -> Result<Option<Refusal>, Garbled> {
    let current = || problem.current.as_ref().map(|raw| entry(mode, raw.get().as_bytes())).transpose();
    let needed = || current()?.ok_or(Garbled::NoEntry);
    Ok(Some(match problem.code {
        Code::NameTaken => Refusal::NameTaken { current: needed()? },
        Code::NotFound => Refusal::NotFound,
        Code::TokenStale => Refusal::TokenStale { current: current()? },
        Code::RevisionStale => Refusal::RevisionStale { current: current()? },
        Code::NameExists => Refusal::NameExists { current: needed()? },
        Code::LeaseUnknown => Refusal::LeaseUnknown,
        Code::LeaseExpired => Refusal::LeaseExpired,
        Code::LeaseTaken => Refusal::LeaseTaken,
        Code::LeaseForeign => Refusal::LeaseForeign,
        Code::Malformed
        | Code::NodeUnknown
        | Code::NodeRemoved
        | Code::NodeExists
        | Code::NodeBehind
        | Code::QuorumAtRisk
        | Code::CannotLead
        | Code::ChangeUnderWay
        | Code::RevisionCompacted
        | Code::Unauthorized
        | Code::Forbidden
        | Code::ForeignOrigin
        | Code::NoSuchRoute
        | Code::MethodNotAllowed
        | Code::BodyLate
        | Code::TooLarge
        | Code::WrongShape
        | Code::Overloaded
        | Code::NoLeader
        | Code::NoQuorum
        | Code::Starting
        | Code::Behind
        | Code::NotLeader
        | Code::Timeout
        | Code::Internal => return Ok(None),
    }))
}

/// The outcome that a status below 300 and its body stand for, as the answer to this command.
pub fn outcome(mode: Mode, action: &Action, status: u16, body: &[u8]) -> Result<Outcome, Garbled> {
    match (action, status) {
        (Action::Register { .. } | Action::Join { .. }, 201) => {
            let (entry, hides) = granted(mode, body)?;
            Ok(Outcome::Granted { entry, hides })
        }
        (Action::Register { .. } | Action::Join { .. }, 200) => Ok(Outcome::Held { entry: entry(mode, body)? }),
        (Action::CreateLease { .. }, 200 | 201) => {
            let read: LeaseBody = serde_json::from_slice(body)?;
            let (lease, ttl_ms) = (read.lease.parse()?, read.ttl_ms);
            Ok(if status == 201 {
                Outcome::LeaseCreated { lease, ttl_ms }
            } else {
                Outcome::LeaseHeld { lease, ttl_ms }
            })
        }
        (Action::Unregister { .. } | Action::Leave { .. } | Action::RevokeLease { .. }, 200) => {
            let read: EndedBody = serde_json::from_slice(body)?;
            Ok(Outcome::Ended(read.ended))
        }
        (
            Action::Register { .. }
            | Action::Join { .. }
            | Action::Unregister { .. }
            | Action::Leave { .. }
            | Action::CreateLease { .. }
            | Action::RevokeLease { .. },
            _,
        ) => Err(Garbled::Status(status)),
    }
}

/// The answer that a 200's body stands for.
pub fn answer(mode: Mode, query: &Query, body: &[u8]) -> Result<Answer, Garbled> {
    Ok(match query {
        Query::Whereis { .. } | Query::Membership { .. } => Answer::Entry(entry(mode, body)?),
        Query::Names { .. } => {
            let read: NamesBody = serde_json::from_slice(body)?;
            let entries = read.names.into_iter().map(|name| name.entry(mode)).collect::<Result<_, _>>()?;
            Answer::Entries { entries, next: read.next }
        }
        Query::Members { .. } => {
            let read: MembersBody = serde_json::from_slice(body)?;
            let entries = read.members.into_iter().map(|member| member.entry(mode)).collect::<Result<_, _>>()?;
            Answer::Entries { entries, next: read.next }
        }
        Query::Lease { .. } => Answer::Lease(lease::read_status(mode, body)?),
        Query::Leases { .. } => {
            let (leases, next) = lease::read_list(body)?;
            Answer::Leases { leases, next }
        }
        Query::Groups { .. } => {
            let read: GroupsBody = serde_json::from_slice(body)?;
            let groups = read.groups.into_iter();
            let groups = groups
                .map(|g| Ok(GroupCount { group: g.group.parse()?, count: g.count }))
                .collect::<Result<_, Garbled>>()?;
            Answer::Groups { groups, next: read.next }
        }
    })
}

/// Milliseconds of a time in RFC 3339.
pub fn time(text: &str) -> Result<UnixMillis, Garbled> {
    let stamp: Timestamp = text.parse()?;
    Ok(UnixMillis(stamp.as_millisecond().try_into().unwrap_or(0)))
}

/// One entry, of a name or of a member.
pub(super) fn entry(mode: Mode, body: &[u8]) -> Result<Entry, Garbled> {
    granted(mode, body).map(|(entry, _)| entry)
}

fn granted(mode: Mode, body: &[u8]) -> Result<(Entry, Option<Hidden>), Garbled> {
    #[derive(Deserialize)]
    struct Kind {
        group: Option<serde::de::IgnoredAny>,
    }
    // Two passes: a raw value does not pass through an untagged enum.
    let Kind { group } = serde_json::from_slice(body)?;
    if group.is_some() {
        let mut read: Membership = serde_json::from_slice(body)?;
        let hides = read.hides.take().map(|hidden| hidden.hidden(mode)).transpose()?;
        Ok((read.entry(mode)?, hides))
    } else {
        let mut read: NameEntry = serde_json::from_slice(body)?;
        let hides = read.hides.take().map(|hidden| hidden.hidden(mode)).transpose()?;
        Ok((read.entry(mode)?, hides))
    }
}

impl HiddenBody {
    fn hidden(self, mode: Mode) -> Result<Hidden, Garbled> {
        Ok(Hidden { owner: self.owner.parse()?, token: Token::parse(mode, &self.token)? })
    }
}

impl NameEntry {
    /// The entry that this body was written from.
    pub fn entry(self, mode: Mode) -> Result<Entry, Garbled> {
        Ok(Entry {
            holder: Holder::Owner(self.name.parse()?, self.owner.parse()?),
            meta: self.meta.get().parse()?,
            lease: self.lease.map(|id| id.parse()).transpose()?,
            token: Token::parse(mode, &self.token)?,
            revision: Revision::parse(mode, &self.revision)?,
            node: self.node,
            since: time(&self.registered_at)?,
            hidden: self.hidden,
        })
    }
}

impl Membership {
    /// The entry that this body was written from.
    pub fn entry(self, mode: Mode) -> Result<Entry, Garbled> {
        Ok(Entry {
            holder: Holder::Member(self.group.parse()?, self.member.parse()?),
            meta: self.meta.get().parse()?,
            lease: self.lease.map(|id| id.parse()).transpose()?,
            token: Token::parse(mode, &self.token)?,
            revision: Revision::parse(mode, &self.revision)?,
            node: self.node,
            since: time(&self.joined_at)?,
            hidden: self.hidden,
        })
    }
}
