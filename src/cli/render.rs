//! How answers are printed: for a person, or as the JSON that the API gives.

use std::io::Write;
use std::time::Duration;

use comfy_table::{Table, presets};

use super::Exit;
use crate::model::command::Action;
use crate::model::entry::{Entry, Holder};
use crate::model::ident::{LeaseId, Mode};
use crate::model::lease::{KeptAlive, LeaseInfo};
use crate::model::outcome::{Ended, Outcome, Refusal};
use crate::model::query::{Answer, Query};
use crate::registry::{Provenance, Reply};
use crate::wire::cluster::ConflictsBody;
use crate::wire::message::SentBody;
use crate::wire::{batch as batch_body, lease as lease_body, write};

/// For whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Human,
    Json,
}

/// A reader that hangs up (`| head`) ends the printing, not the command.
pub(super) fn print(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

pub(super) fn print_json(json: &[u8]) {
    print(&String::from_utf8_lossy(json));
}

/// Prints what became of a command.
pub fn outcome(action: &Action, reply: &Reply<Outcome>, form: Form) -> Exit {
    let exit = match form {
        Form::Human => told(action, &reply.value),
        Form::Json => shown(action, &reply.value),
    };
    if form == Form::Human && exit == Exit::Yes {
        provenance(&reply.provenance);
    }
    exit
}

fn shown(action: &Action, outcome: &Outcome) -> Exit {
    match outcome {
        Outcome::Granted { entry, hides } => print_json(&write::entry(entry, hides.as_ref())),
        Outcome::Held { entry } => print_json(&write::entry(entry, None)),
        Outcome::Ended(ended) => print_json(&write::ended(*ended)),
        Outcome::LeaseCreated { lease, ttl_ms } | Outcome::LeaseHeld { lease, ttl_ms } => {
            print_json(&lease_body::created(lease, *ttl_ms, *ttl_ms));
        }
        Outcome::Refused(refusal) => return refused(refusal, subject(action), Form::Json),
    }
    Exit::Yes
}

fn told(action: &Action, outcome: &Outcome) -> Exit {
    match outcome {
        Outcome::Granted { entry, hides } => {
            print(&format!("{}, token {}", stands(entry), entry.token));
            if let Some(hidden) = hides {
                print(&format!(
                    "it stands over {}'s grant, which is out of reach: after the heal one of the two loses",
                    hidden.owner
                ));
            }
        }
        Outcome::Held { entry } => print(&format!("{} already, token {}", stands(entry), entry.token)),
        Outcome::LeaseCreated { lease, ttl_ms } => print(&format!("lease {lease}, {ttl_ms} ms")),
        Outcome::LeaseHeld { lease, ttl_ms } => print(&format!("lease {lease} already, {ttl_ms} ms")),
        Outcome::Ended(Ended::Now) => print("ended"),
        Outcome::Ended(Ended::Before) => print("ended before; nothing was done"),
        Outcome::Refused(refusal) => return refused(refusal, subject(action), Form::Human),
    }
    Exit::Yes
}

/// Prints what became of each command of a batch. One refusal makes it a no.
pub fn batch(actions: &[Action], reply: &Reply<Vec<Outcome>>, form: Form) -> Exit {
    if form == Form::Json {
        print_json(&batch_body::results(&reply.value, &reply.revision));
        let refused = reply.value.iter().any(|outcome| matches!(outcome, Outcome::Refused(_)));
        return if refused { Exit::No } else { Exit::Yes };
    }
    let exits = actions.iter().zip(&reply.value).map(|(action, outcome)| told(action, outcome));
    let exit = exits.max().unwrap_or(Exit::Yes);
    provenance(&reply.provenance);
    exit
}

/// Prints a lease that is held.
pub fn lease(lease: &LeaseId, ttl: Duration, form: Form) {
    let ttl_ms = ttl.as_millis() as u64;
    match form {
        Form::Json => print_json(&lease_body::created(lease, ttl_ms, ttl_ms)),
        Form::Human => print(&format!("lease {lease}, {ttl_ms} ms")),
    }
}

/// Prints what became of leases that were to be kept alive. One that was not makes it a no.
pub fn kept_alive(mode: Mode, leases: &[LeaseId], results: &[Result<KeptAlive, Refusal>], form: Form) -> Exit {
    if form == Form::Json {
        print_json(&lease_body::kept_alive_each(mode, leases, results));
        return if results.iter().all(Result::is_ok) { Exit::Yes } else { Exit::No };
    }
    let each = leases.iter().zip(results).map(|(lease, result)| match result {
        Ok(kept) => {
            print(&format!("lease {lease} lives {} ms from when this was sent", kept.expires_in_ms));
            for lost in &kept.lost {
                print(&format!("lost: {} to {}, record {}", lost.name, lost.winner.owner, lost.id));
            }
            Exit::Yes
        }
        Err(refusal) => refused(refusal, lease.as_str(), form),
    });
    each.max().unwrap_or(Exit::Yes)
}

/// Prints the answer to a question.
pub fn answer(query: &Query, reply: &Reply<Answer>, form: Form) -> Exit {
    match (&reply.value, query, form) {
        (Answer::Entry(entry), _, Form::Json) => print_json(&write::entry(entry, None)),
        (Answer::Entries { entries, next }, Query::Members { group, .. }, Form::Json) => {
            print_json(&write::members(group, entries, next.as_deref(), &reply.revision));
        }
        (Answer::Entries { entries, next }, _, Form::Json) => {
            print_json(&write::names(entries, next.as_deref(), &reply.revision));
        }
        (Answer::Groups { groups, next }, _, Form::Json) => {
            print_json(&write::groups(groups, next.as_deref(), &reply.revision));
        }
        (Answer::Entry(entry), _, Form::Human) => print(&table(&[entry])),
        (Answer::Entries { entries, next }, _, Form::Human) => {
            if entries.is_empty() {
                print("none");
            } else {
                print(&table(&entries.iter().collect::<Vec<_>>()));
            }
            more(next.as_deref());
        }
        (Answer::Groups { groups, next }, _, Form::Human) => {
            let rows = groups.iter().map(|group| vec![group.group.to_string(), group.count.to_string()]);
            print(&if groups.is_empty() { "none".to_owned() } else { columns(&["group", "members"], rows) });
            more(next.as_deref());
        }
        (Answer::Lease(status), _, Form::Json) => print_json(&lease_body::status(status, &reply.revision)),
        (Answer::Leases { leases, next }, _, Form::Json) => {
            print_json(&lease_body::list(leases, next.as_deref(), &reply.revision));
        }
        (Answer::Lease(status), _, Form::Human) => {
            let LeaseInfo { lease, ttl_ms, credential } = &status.info;
            let by = credential.as_ref().map_or(String::new(), |by| format!(", of {by}"));
            print(&format!("lease {lease}, {ttl_ms} ms, {} ms left{by}", status.expires_in_ms));
            if !status.entries.is_empty() {
                print(&bound(&status.entries));
            }
            more(status.next.as_deref());
        }
        (Answer::Leases { leases, next }, _, Form::Human) => {
            let rows = leases.iter().map(|info| {
                let by = info.credential.as_ref().map_or(String::new(), |by| by.to_string());
                vec![info.lease.to_string(), info.ttl_ms.to_string(), by]
            });
            print(&if leases.is_empty() {
                "none".to_owned()
            } else {
                columns(&["lease", "ttl_ms", "credential"], rows)
            });
            more(next.as_deref());
        }
        (Answer::Refused(refusal), query, form) => return refused(refusal, asked(query), form),
    }
    if form == Form::Human {
        provenance(&reply.provenance);
    }
    Exit::Yes
}

fn more(next: Option<&str>) {
    if let Some(next) = next {
        print(&format!("more: --after {next}"));
    }
}

/// What an answer says of where it comes from, if it is worth a line.
fn provenance(provenance: &Provenance) {
    if let Some((reached, known)) = provenance.peers.filter(|(reached, known)| reached < known) {
        eprintln!("note: this node reaches {reached} of {known} peers");
    }
    if let Some((have, of)) = provenance.acks.filter(|(have, of)| have < of) {
        eprintln!("note: {have} of {of} nodes have it so far");
    }
}

fn stands(entry: &Entry) -> String {
    match &entry.holder {
        Holder::Owner(name, owner) => format!("{name} is {owner}'s"),
        Holder::Member(group, member) => format!("{member} is in {group}"),
    }
}

fn subject(action: &Action) -> &str {
    match action {
        Action::Register { name, .. } | Action::Unregister { name, .. } => name.as_str(),
        Action::Join { member, .. } | Action::Leave { member, .. } => member.as_str(),
        Action::CreateLease { lease, .. } => lease.as_ref().map_or("", |lease| lease.as_str()),
        Action::RevokeLease { lease, .. } => lease.as_str(),
    }
}

fn asked(query: &Query) -> &str {
    match query {
        Query::Whereis { name, .. } => name.as_str(),
        Query::Membership { member, .. } => member.as_str(),
        Query::Members { group, .. } => group.as_str(),
        Query::Lease { lease, .. } => lease.as_str(),
        Query::Names { .. } | Query::Groups { .. } | Query::Leases { .. } => "",
    }
}

/// Prints a refusal.
pub(super) fn refused(refusal: &Refusal, subject: &str, form: Form) -> Exit {
    let problem = write::Problem::refused(refusal, None);
    let row = problem.code.row();
    match (form, problem.current) {
        (Form::Json, _) => print_json(&write::problem(&problem)),
        (Form::Human, Some(entry)) => eprintln!(
            "refused, {}: {subject} is {}'s, token {}, revision {}",
            row.text,
            entry.holder_text(),
            entry.token,
            entry.revision
        ),
        (Form::Human, None) => eprintln!("{}: {subject}", row.text.replace('_', " ")),
    }
    Exit::No
}

/// Names and memberships in one table.
fn bound(entries: &[Entry]) -> String {
    let rows = entries.iter().map(|entry| {
        let (kind, key, holder) = match &entry.holder {
            Holder::Owner(name, owner) => ("name", name.to_string(), owner.to_string()),
            Holder::Member(group, member) => ("member", group.to_string(), member.to_string()),
        };
        vec![kind.to_owned(), key, holder, entry.token.to_string()]
    });
    columns(&["kind", "key", "holder", "token"], rows)
}

fn table(entries: &[&Entry]) -> String {
    let head = match entries.first().map(|entry| &entry.holder) {
        Some(Holder::Member(..)) => ["group", "member", "token", "node", "joined", "meta"],
        _ => ["name", "owner", "token", "node", "registered", "meta"],
    };
    let rows = entries.iter().map(|entry| {
        let (key, holder) = match &entry.holder {
            Holder::Owner(name, owner) => (name.to_string(), owner.to_string()),
            Holder::Member(group, member) => (group.to_string(), member.to_string()),
        };
        let since = write::time(entry.since).to_string();
        let node = if entry.hidden { format!("{} (hidden)", entry.node) } else { entry.node.to_string() };
        vec![key, holder, entry.token.to_string(), node, since, entry.meta.as_str().to_owned()]
    });
    columns(&head, rows)
}

pub(super) fn columns(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(head.iter().map(|word| word.to_uppercase()));
    for row in rows {
        table.add_row(row);
    }
    table.column_iter_mut().for_each(|column| {
        column.set_padding((0, 2));
    });
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// Prints conflict records.
pub fn conflicts(body: &ConflictsBody, form: Form) -> Exit {
    match form {
        Form::Json => print_json(&write::bytes(256, body)),
        Form::Human if body.conflicts.is_empty() => print("none"),
        Form::Human => {
            let rows = body.conflicts.iter().map(|record| {
                vec![
                    record.id.clone(),
                    record.name.clone(),
                    record.loser.owner.clone(),
                    record.winner.owner.clone(),
                    record.at.clone(),
                    if record.acknowledged { "yes" } else { "no" }.to_owned(),
                ]
            });
            print(&columns(&["id", "name", "lost", "kept", "at", "acknowledged"], rows));
            more(body.next.as_deref());
        }
    }
    Exit::Yes
}

/// Prints that a record was acknowledged.
pub fn acknowledged(id: &str, form: Form) -> Exit {
    match form {
        Form::Json => print("{\"acknowledged\":true}"),
        Form::Human => print(&format!("{id} acknowledged")),
    }
    Exit::Yes
}

/// Prints how many inboxes have a message.
pub fn sent(receivers: u64, form: Form) -> Exit {
    match (form, receivers) {
        (Form::Json, _) => print_json(&write::bytes(32, &SentBody { receivers })),
        (Form::Human, 0) => print("sent, and nobody is reading"),
        (Form::Human, 1) => print("1 inbox has it"),
        (Form::Human, _) => print(&format!("{receivers} inboxes have it")),
    }
    Exit::Yes
}
