//! What of an answer the caller may see: names and groups that it may read, leases that it made.

use super::caller::Caller;
use crate::model::entry::{Entry, Holder};
use crate::model::event::{Change, Subject, Told, WatchMessage};
use crate::model::lease::LeaseInfo;
use crate::model::outcome::Refusal;
use crate::model::query::Answer;

/// The part of an answer that the caller may see. Pages keep their `next`, however little of them is left.
pub fn answer(mut answer: Answer, caller: &Caller) -> Answer {
    if caller.is_admin() {
        return answer;
    }
    match &mut answer {
        Answer::Entries { entries, .. } => entries.retain(|entry| may_read(caller, entry)),
        Answer::Groups { groups, .. } => groups.retain(|group| caller.may_read(group.group.as_str())),
        Answer::Leases { leases, .. } => leases.retain(|lease| owns(caller, lease)),
        Answer::Lease(status) if owns(caller, &status.info) => {
            status.entries.retain(|entry| may_read(caller, entry));
        }
        Answer::Lease(_) => return Answer::Refused(Refusal::LeaseForeign),
        // Whether one may read a single entry was asked before anybody looked it up.
        Answer::Entry(_) | Answer::Refused(_) => {}
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
