//! What a watch tells, a line for each thing: for a person, or as JSON.

use serde::Serialize;
use serde_json::value::RawValue;

use super::watch::interrupted;
use crate::client::watch::Seen;
use crate::model::entry::{Entry, Holder};
use crate::model::event::{Change, EndReason, Event, Told};
use crate::model::ident::Revision;
use crate::wire::event;

/// One line: the event's kind, where to go on after it, and what the API says.
pub fn json(seen: &Seen, position: Option<&Revision>) -> Vec<String> {
    #[derive(Serialize)]
    struct Line<'a> {
        event: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        position: Option<String>,
        data: Box<RawValue>,
    }
    let told = match seen {
        Seen::State(entries) => Told::State(entries.clone()),
        Seen::Synced => Told::Synced,
        Seen::Change(event) => Told::Change(event.clone()),
        Seen::Progress { quorum } => Told::Progress { quorum: *quorum },
        Seen::Stalled => Told::Stalled,
        Seen::Resync => Told::Resync,
        Seen::Interrupted(cause) => {
            // Not of the API: of this program alone.
            eprintln!("{}", interrupted(cause));
            return Vec::new();
        }
    };
    let data = String::from_utf8(event::data(&told, position)).expect("JSON is UTF-8");
    let data = RawValue::from_string(data).expect("what was written as JSON is JSON");
    let line = Line { event: event::event_name(&told), position: position.map(Revision::to_string), data };
    vec![serde_json::to_string(&line).expect("a line of texts is JSON")]
}

/// A line for each change; notes go to standard error.
pub fn human(seen: &Seen) -> Vec<String> {
    match seen {
        Seen::State(entries) => entries.iter().map(|entry| line(&entry.revision, "stands", entry, "")).collect(),
        Seen::Change(event) => event.changes.iter().map(|change| change_line(event, change)).collect(),
        Seen::Synced | Seen::Progress { .. } => Vec::new(),
        Seen::Stalled => note("note: this server hears of no leader; another one is asked".to_owned()),
        Seen::Resync => note("note: something was missed; what was told before may be out of date".to_owned()),
        Seen::Interrupted(cause) => note(interrupted(cause)),
    }
}

fn note(text: String) -> Vec<String> {
    eprintln!("{text}");
    Vec::new()
}

fn change_line(event: &Event, change: &Change) -> String {
    let revision = &event.revision;
    match change {
        Change::Registered { entry, previous, .. } => {
            let from = previous.as_ref().map(|previous| format!("  from {}", previous.holder_text()));
            line(revision, "registered", entry, &from.unwrap_or_default())
        }
        Change::Updated { entry, .. } => line(revision, "updated", entry, &format!("  {}", entry.meta.as_str())),
        Change::Ended { entry, reason, .. } => line(revision, "ended", entry, &format!("  {}", told(reason))),
        Change::Joined { entry } => line(revision, "joined", entry, ""),
        Change::Left { entry, reason } => line(revision, "left", entry, &format!("  {}", told(reason))),
        Change::Hidden { entry } => line(revision, "hidden", entry, ""),
        Change::Shown { entry } => line(revision, "shown", entry, ""),
        Change::LeaseExpired { lease } => format!("{revision}  lease_expired  {lease}"),
        Change::Conflict { record } => format!(
            "{revision}  conflict  {}  {} lost to {}  record {}",
            record.name, record.loser.owner, record.winner.owner, record.id
        ),
    }
}

fn line(revision: &Revision, what: &str, entry: &Entry, more: &str) -> String {
    let (key, holder) = match &entry.holder {
        Holder::Owner(name, owner) => (name.as_str(), owner.as_str()),
        Holder::Member(group, member) => (group.as_str(), member.as_str()),
    };
    format!("{revision}  {what}  {key}  {holder}  token {}{more}", entry.token)
}

fn told(reason: &EndReason) -> &'static str {
    match reason {
        EndReason::Given => "given up",
        EndReason::Taken => "taken over",
        EndReason::LeaseExpired => "its lease ran out",
        EndReason::LeaseRevoked => "its lease was revoked",
        EndReason::Conflict { .. } => "lost a conflict",
    }
}
