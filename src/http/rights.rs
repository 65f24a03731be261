//! What a caller may do, ask and see: names and groups by the prefixes of its credential, leases that it made, and all if it is an
//! admin or no credentials are asked for.

use axum::http::request::Parts;

use super::caller::Caller;
use super::reply::Rejection;
use crate::model::command::Action;
use crate::model::entry::{Entry, Holder};
use crate::model::event::{Change, Subject, Told, WatchMessage};
use crate::model::lease::LeaseInfo;
use crate::model::outcome::Refusal;
use crate::model::query::{Answer, Query};

/// Refuses everybody but admins: what changes the cluster, its faults or its data as a whole is theirs.
pub fn admin_only(parts: &Parts) -> Result<(), Rejection> {
    match Caller::of(parts).is_admin() {
        true => Ok(()),
        false => Err(Rejection::forbidden("change", "the cluster")),
    }
}

/// Refuses a caller who may not do this.
pub fn to_do(caller: &Caller, action: &Action) -> Result<(), Rejection> {
    let key = match action {
        Action::Register { name, .. } | Action::Unregister { name, .. } => name.as_str(),
        Action::Join { group, .. } | Action::Leave { group, .. } => group.as_str(),
        // Whose lease it is only the registry knows.
        Action::CreateLease { .. } | Action::RevokeLease { .. } => return Ok(()),
    };
    if caller.may_write(key) { Ok(()) } else { Err(Rejection::forbidden("write", key)) }
}

/// Refuses a caller who may not know of what this asks for. Of a list everybody sees a part.
pub fn to_ask(caller: &Caller, query: &Query) -> Result<(), Rejection> {
    let key = match query {
        Query::Whereis { name, .. } => name.as_str(),
        Query::Membership { group, .. } | Query::Members { group, .. } => group.as_str(),
        Query::Names { .. } | Query::Groups { .. } | Query::Lease { .. } | Query::Leases { .. } => return Ok(()),
    };
    if caller.may_read(key) { Ok(()) } else { Err(Rejection::forbidden("read", key)) }
}

/// The part of an answer that the caller may see. Pages keep their `next`, however little of them is left.
pub fn answer(mut answer: Answer, caller: &Caller) -> Answer {
    if caller.is_admin() {
        return answer;
    }
    match &mut answer {
        Answer::Leases { leases, .. } => leases.retain(|lease| owns(caller, lease)),
        Answer::Lease(status) if owns(caller, &status.info) => {
            status.entries.retain(|entry| may_read(caller, entry));
        }
        Answer::Lease(_) => return Answer::Refused(Refusal::LeaseForeign),
        // Whether one may read these was asked before anybody looked them up.
        Answer::Entry(_) | Answer::Entries { .. } | Answer::Groups { .. } | Answer::Refused(_) => {}
    }
    answer
}

/// The part of a message that the caller may see; none if nothing of it is.
pub fn message(mut message: WatchMessage, caller: &Caller) -> Option<WatchMessage> {
    if caller.is_admin() {
        return Some(message);
    }
    match &mut message.told {
        Told::State(entries) => entries.retain(|entry| may_read(caller, entry)),
        Told::Change(event) => {
            let about_something = |change: &Change| match change.subject() {
                Some(subject) => caller.may_read(text(subject)),
                None => false,
            };
            // The end of a lease is told along with something that ended with it.
            if !event.changes.iter().any(about_something) {
                return None;
            }
            event.changes.retain(|change| change.subject().is_none_or(|subject| caller.may_read(text(subject))));
        }
        Told::Synced | Told::Progress { .. } | Told::Stalled | Told::Resync | Told::Overflow => {}
    }
    Some(message)
}

fn may_read(caller: &Caller, entry: &Entry) -> bool {
    match &entry.holder {
        Holder::Owner(name, _) => caller.may_read(name.as_str()),
        Holder::Member(group, _) => caller.may_read(group.as_str()),
    }
}

fn text(subject: Subject<'_>) -> &str {
    match subject {
        Subject::Name(name) => name.as_str(),
        Subject::Group(group) => group.as_str(),
    }
}

fn owns(caller: &Caller, lease: &LeaseInfo) -> bool {
    lease.credential == caller.name()
}
