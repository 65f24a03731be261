//! How answers are printed: for a person, or as the JSON that the API gives.

use std::io::Write;

use comfy_table::{Table, presets};

use super::Exit;
use crate::model::command::Action;
use crate::model::entry::{Entry, Holder};
use crate::model::outcome::{Ended, Outcome, Refusal};
use crate::model::query::{Answer, Query};
use crate::registry::{Provenance, Reply};
use crate::wire::cluster::{ClusterBody, ConflictsBody};
use crate::wire::{lease as lease_body, write};

/// For whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Human,
    Json,
}

/// A reader that hangs up (`| head`) ends the printing, not the command.
fn print(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

fn print_json(json: &[u8]) {
    print(&String::from_utf8_lossy(json));
}

/// Prints what became of a command.
pub fn outcome(action: &Action, reply: &Reply<Outcome>, form: Form) -> Exit {
    match (&reply.value, form) {
        (Outcome::Granted { entry, hides }, Form::Json) => print_json(&write::entry(entry, hides.as_ref())),
        (Outcome::Held { entry }, Form::Json) => print_json(&write::entry(entry, None)),
        (Outcome::Ended(ended), Form::Json) => print_json(&write::ended(*ended)),
        (Outcome::Granted { entry, hides }, Form::Human) => {
            print(&format!("{}, token {}", stands(entry), entry.token));
            if let Some(hidden) = hides {
                print(&format!(
                    "it stands over {}'s grant, which is out of reach: after the heal one of the two loses",
                    hidden.owner
                ));
            }
        }
        (Outcome::Held { entry }, Form::Human) => print(&format!("{} already, token {}", stands(entry), entry.token)),
        (Outcome::LeaseCreated { lease, ttl_ms } | Outcome::LeaseHeld { lease, ttl_ms }, Form::Json) => {
            print_json(&lease_body::created(lease, *ttl_ms, *ttl_ms));
        }
        (Outcome::LeaseCreated { lease, ttl_ms } | Outcome::LeaseHeld { lease, ttl_ms }, Form::Human) => {
            print(&format!("lease {lease}, {ttl_ms} ms"));
        }
        (Outcome::Ended(Ended::Now), Form::Human) => print("ended"),
        (Outcome::Ended(Ended::Before), Form::Human) => print("ended before; nothing was done"),
        (Outcome::Refused(refusal), form) => return refused(refusal, subject(action), form),
    }
    if form == Form::Human {
        provenance(&reply.provenance);
    }
    Exit::Yes
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
        (Answer::Lease(_) | Answer::Leases { .. }, _, _) => print("none"),
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

fn refused(refusal: &Refusal, subject: &str, form: Form) -> Exit {
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
        vec![key, holder, entry.token.to_string(), entry.node.to_string(), since, entry.meta.as_str().to_owned()]
    });
    columns(&head, rows)
}

fn columns(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
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

/// Prints the cluster.
pub fn cluster(body: &ClusterBody, form: Form) -> Exit {
    if form == Form::Json {
        print_json(&write::bytes(512, body));
        return Exit::Yes;
    }
    let leader = body.leader.map_or("no leader".to_owned(), |id| format!("leader {id}"));
    print(&format!("cluster {}, seen from node {} ({})", body.cluster, body.node, body.version));
    print(&format!("cp: {leader}, term {}, applied {} of {} committed", body.term, body.applied, body.committed));
    print(&format!(
        "ap: {} names, {} members, {} conflict records, digest {}",
        body.ap.names, body.ap.members, body.ap.conflicts, body.ap.digest
    ));
    let rows = body.nodes.iter().map(|node| {
        let http = node.http.clone().unwrap_or_default();
        let refused = node.refused.clone().unwrap_or_default();
        vec![node.id.to_string(), node.role.clone(), node.state.clone(), node.peer.clone(), http, refused]
    });
    print(&columns(&["node", "role", "state", "peer", "http", "refused"], rows));
    Exit::Yes
}
