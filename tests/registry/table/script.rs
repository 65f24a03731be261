//! Commands of a golden script, carried out on a table, and what is said of them.

use std::error::Error;
use std::fmt::Write as _;

use goldenscript::{Command as Line, Context, Runner};
use quorate::model::command::{Action, Command, Condition};
use quorate::model::conflict::ConflictRecord;
use quorate::model::entry::{Entry, Holder};
use quorate::model::event::{Change, Event};
use quorate::model::ident::{LeaseId, Meta, NodeId, Revision, Token};
use quorate::model::outcome::{Ended, Outcome, Refusal};
use quorate::model::query::{Answer, PAGE_LIMIT_DEFAULT, Page, Query};
use quorate::model::step::{LostKey, Outcomes, Step};
use quorate::model::table::{News, Table};
use quorate::model::time::UnixMillis;

#[derive(goldenscript::Command)]
enum Told {
    /// register NAME OWNER [meta=JSON] [lease=ID] [token=T] [unchanged=R] [takeover=true] [present=true] [absent=true]
    Register {
        name: String,
        owner: String,
        #[arg(key)]
        meta: Option<String>,
        #[arg(key)]
        lease: Option<String>,
        #[arg(key)]
        token: Option<u64>,
        #[arg(key)]
        unchanged: Option<u64>,
        #[arg(key, optional)]
        takeover: bool,
        #[arg(key, optional)]
        present: bool,
        #[arg(key, optional)]
        absent: bool,
    },
    Unregister {
        name: String,
        #[arg(key)]
        token: Option<u64>,
    },
    Whereis {
        name: String,
        #[arg(key)]
        token: Option<u64>,
    },
    Names {
        #[arg(key)]
        prefix: Option<String>,
        #[arg(key)]
        after: Option<String>,
        #[arg(key)]
        limit: Option<usize>,
    },
    Join {
        group: String,
        member: String,
        #[arg(key)]
        meta: Option<String>,
        #[arg(key)]
        lease: Option<String>,
    },
    Leave {
        group: String,
        member: String,
        #[arg(key)]
        token: Option<u64>,
    },
    Members {
        group: String,
        #[arg(key)]
        after: Option<String>,
        #[arg(key)]
        limit: Option<usize>,
        #[arg(key)]
        node: Option<NodeId>,
    },
    Groups {
        #[arg(key)]
        prefix: Option<String>,
        #[arg(key)]
        limit: Option<usize>,
    },
    /// lease ID [ttl=MS] [by=CREDENTIAL]: creates one. `any` lets the table choose the id.
    Lease {
        id: String,
        #[arg(key)]
        ttl: Option<u64>,
        #[arg(key)]
        by: Option<String>,
    },
    Revoke {
        id: String,
        #[arg(key)]
        by: Option<String>,
    },
    /// status ID [after=CURSOR] [limit=N]: shows a lease.
    Status {
        id: String,
        #[arg(key)]
        after: Option<String>,
        #[arg(key)]
        limit: Option<usize>,
    },
    Leases {
        #[arg(key)]
        after: Option<String>,
        #[arg(key)]
        limit: Option<usize>,
    },
    /// What a keep-alive would be told by the table.
    Renew {
        id: String,
        #[arg(key)]
        by: Option<String>,
    },
    /// The leader's notes, in one step each.
    Expire(Vec<String>),
    Kept(Vec<String>),
    Aged(u64),
    Seen(String),
    /// Another leadership begins.
    Lead(u64),
    /// What has happened since this was asked last.
    Events,
    /// Which node the following commands come in at.
    At(NodeId),
}

#[derive(Default)]
pub struct Script {
    table: Table,
    node: NodeId,
    news: News,
}

impl Runner for Script {
    type Command = Line;

    fn run(&mut self, line: &Line, _: &Context) -> Result<String, Box<dyn Error>> {
        let said = self.told(Told::try_from(line)?)?;
        Ok(format!("{line} ⇒ {said}"))
    }
}

impl Script {
    fn told(&mut self, told: Told) -> Result<String, Box<dyn Error>> {
        let meta = |text: Option<String>| text.map_or(Ok(Meta::empty()), |text| text.parse());
        let cp = |token: Option<u64>| token.map(Token::Cp);
        let page = |prefix: Option<String>, after, limit: Option<usize>| Page {
            prefix: prefix.unwrap_or_default(),
            after,
            limit: limit.unwrap_or(PAGE_LIMIT_DEFAULT),
        };
        Ok(match told {
            Told::Register { name, owner, meta: text, lease, token, unchanged, takeover, present, absent } => {
                let condition = match (token, unchanged, takeover, present, absent) {
                    (Some(token), ..) => Condition::Token(Token::Cp(token)),
                    (_, Some(revision), ..) => Condition::Unchanged(Revision::Cp(revision)),
                    (_, _, true, ..) => Condition::Takeover,
                    (_, _, _, true, _) => Condition::Present,
                    (_, _, _, _, true) => Condition::Absent,
                    (None, None, false, false, false) => Condition::Free,
                };
                let lease = lease.map(|id| id.parse()).transpose()?;
                let (name, owner) = (name.parse()?, owner.parse()?);
                self.apply(Action::Register { name, owner, meta: meta(text)?, lease, condition })
            }
            Told::Unregister { name, token } => {
                self.apply(Action::Unregister { name: name.parse()?, token: cp(token) })
            }
            Told::Join { group, member, meta: text, lease } => {
                let lease = lease.map(|id| id.parse()).transpose()?;
                self.apply(Action::Join { group: group.parse()?, member: member.parse()?, meta: meta(text)?, lease })
            }
            Told::Leave { group, member, token } => {
                self.apply(Action::Leave { group: group.parse()?, member: member.parse()?, token: cp(token) })
            }
            Told::Whereis { name, token } => self.ask(Query::Whereis { name: name.parse()?, token: cp(token) }),
            Told::Names { prefix, after, limit } => self.ask(Query::Names { page: page(prefix, after, limit) }),
            Told::Members { group, after, limit, node } => {
                self.ask(Query::Members { group: group.parse()?, page: page(None, after, limit), node })
            }
            Told::Groups { prefix, limit } => self.ask(Query::Groups { page: page(prefix, None, limit) }),
            Told::Lease { id, ttl, by } => {
                let lease = (id != "any").then(|| id.parse()).transpose()?;
                let credential = by.map(|by| by.parse()).transpose()?;
                self.apply(Action::CreateLease { lease, ttl_ms: ttl.unwrap_or(1_000), credential })
            }
            Told::Revoke { id, by } => {
                self.apply(Action::RevokeLease { lease: id.parse()?, by: by.map(|by| by.parse()).transpose()? })
            }
            Told::Status { id, after, limit } => {
                self.ask(Query::Lease { lease: id.parse()?, page: page(None, after, limit) })
            }
            Told::Leases { after, limit } => self.ask(Query::Leases { page: page(None, after, limit) }),
            Told::Renew { id, by } => {
                let by = by.map(|by| by.parse()).transpose()?;
                match self.table.renewable(&id.parse()?, by.as_ref()) {
                    Ok(facts) => {
                        let lost = self.table.lost(facts.number).iter().map(record_text).collect::<Vec<_>>();
                        let lost = if lost.is_empty() { String::new() } else { format!(", lost {}", lost.join("; ")) };
                        format!("lease {} may be renewed, {} ms left{lost}", facts.number, facts.left_ms)
                    }
                    Err(refusal) => refusal_text(&refusal),
                }
            }
            Told::Expire(ids) => {
                let leases = self.numbers(&ids)?;
                self.step(Step::Expire { leases })
            }
            Told::Kept(ids) => {
                let leases = self.numbers(&ids)?;
                self.step(Step::KeptAlive { leases })
            }
            Told::Aged(ms) => self.step(Step::Aged { ms }),
            Told::Seen(id) => match LostKey::parse(&id.parse()?) {
                Some(key) => self.step(Step::Seen { records: vec![key] }),
                None => "no record's id".to_owned(),
            },
            Told::Lead(leadership) => {
                self.table.lead(leadership);
                "from now on".to_owned()
            }
            Told::Events => {
                let events = std::mem::take(&mut self.news.events);
                events.iter().map(event_text).collect::<Vec<_>>().join(" | ")
            }
            Told::At(node) => {
                self.node = node;
                "from now on".to_owned()
            }
        })
    }

    fn apply(&mut self, action: Action) -> String {
        let before = self.table.revision();
        let outcome = self.table.apply(&Command { action, node: self.node, at: UnixMillis(0) }, &mut self.news);
        let after = self.table.revision();
        let step = if before == after { String::new() } else { format!(" [{after}]") };
        outcome_text(&outcome) + &step
    }

    fn step(&mut self, step: Step) -> String {
        assert_eq!(self.table.take(&step, &mut self.news), Outcomes::None);
        format!("done [{}]", self.table.revision())
    }

    /// A lease by its id while it lives, or by its number.
    fn numbers(&self, ids: &[String]) -> Result<Vec<u64>, Box<dyn Error>> {
        let number = |id: &String| match self.table.renewable(&id.parse::<LeaseId>()?, None) {
            Ok(facts) => Ok(facts.number),
            Err(_) => Ok(id.parse::<u64>()?),
        };
        ids.iter().map(number).collect()
    }

    fn ask(&self, query: Query) -> String {
        match self.table.query(&query) {
            Answer::Entry(entry) => entry_text(&entry),
            Answer::Entries { entries, next } => {
                let entries = entries.iter().map(item_text).collect::<Vec<_>>().join("; ");
                list_text(entries, next)
            }
            Answer::Groups { groups, next } => {
                let groups = groups.iter().map(|g| format!("{} has {}", g.group, g.count)).collect::<Vec<_>>();
                list_text(groups.join("; "), next)
            }
            Answer::Lease(status) => {
                let entries = status.entries.iter().map(key_text).collect::<Vec<_>>().join("; ");
                let by = status.info.credential.map_or(String::new(), |by| format!(" of {by}"));
                let (id, left, ttl) = (status.info.lease, status.expires_in_ms, status.info.ttl_ms);
                format!("{id}{by}, {left} of {ttl} ms left: {}", list_text(entries, status.next))
            }
            Answer::Leases { leases, next } => {
                list_text(leases.iter().map(|info| info.lease.to_string()).collect::<Vec<_>>().join("; "), next)
            }
            Answer::Refused(refusal) => refusal_text(&refusal),
        }
    }
}

fn list_text(items: String, next: Option<String>) -> String {
    let items = if items.is_empty() { "nothing".to_owned() } else { items };
    match next {
        Some(next) => format!("{items}; more after {next}"),
        None => items,
    }
}

fn item_text(entry: &Entry) -> String {
    match &entry.holder {
        Holder::Owner(name, _) => format!("{name}: {}", entry_text(entry)),
        Holder::Member(..) => entry_text(entry),
    }
}

fn entry_text(entry: &Entry) -> String {
    let mut text = format!("{} (token {}", entry.holder_text(), entry.token);
    if entry.token.to_string() != entry.revision.to_string() {
        write!(text, ", changed at {}", entry.revision).unwrap();
    }
    if entry.node != 0 {
        write!(text, ", node {}", entry.node).unwrap();
    }
    if entry.meta != Meta::empty() {
        write!(text, ", {}", entry.meta.as_str()).unwrap();
    }
    text + ")"
}

fn key_text(entry: &Entry) -> String {
    match &entry.holder {
        Holder::Owner(name, owner) => format!("{name} of {owner}"),
        Holder::Member(group, member) => format!("{member} in {group}"),
    }
}

fn record_text(record: &ConflictRecord) -> String {
    let (loser, winner) = (&record.loser, &record.winner);
    format!("{} ({}, by token {}) to {} (token {})", record.name, record.id, loser.token, winner.owner, winner.token)
}

fn event_text(event: &Event) -> String {
    let changes = event.changes.iter().map(change_text).collect::<Vec<_>>().join(", ");
    let changes = if changes.is_empty() { "no entry".to_owned() } else { changes };
    format!("{}: {changes}", event.revision)
}

fn change_text(change: &Change) -> String {
    let from = |previous: &Option<Entry>| {
        previous.as_ref().map_or(String::new(), |entry| format!(" after {}", entry.holder_text()))
    };
    match change {
        Change::Registered { entry, previous, .. } => format!("registered {}{}", key_text(entry), from(previous)),
        Change::Updated { entry, .. } => format!("updated {}", key_text(entry)),
        Change::Ended { entry, reason, .. } => format!("ended {} ({reason:?})", key_text(entry)),
        Change::Joined { entry } => format!("joined {}", key_text(entry)),
        Change::Left { entry, reason } => format!("left {} ({reason:?})", key_text(entry)),
        Change::LeaseExpired { lease } => format!("expired {lease}"),
        Change::Conflict { .. } | Change::Hidden { .. } | Change::Shown { .. } => {
            panic!("of the other mode: {change:?}")
        }
    }
}

fn outcome_text(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Granted { entry, .. } => format!("granted to {}", entry_text(entry)),
        Outcome::Held { entry } => format!("held by {}", entry_text(entry)),
        Outcome::Ended(Ended::Now) => "ended now".to_owned(),
        Outcome::Ended(Ended::Before) => "ended before".to_owned(),
        Outcome::LeaseCreated { lease, ttl_ms } => format!("lease {lease} created, {ttl_ms} ms"),
        Outcome::LeaseHeld { lease, ttl_ms } => format!("lease {lease} lives, {ttl_ms} ms"),
        Outcome::Refused(refusal) => refusal_text(refusal),
    }
}

fn refusal_text(refusal: &Refusal) -> String {
    let now = |current: &Option<Entry>| match current {
        Some(entry) => format!("now it is {}", entry_text(entry)),
        None => "nobody has it now".to_owned(),
    };
    match refusal {
        Refusal::NameTaken { current } => format!("refused: taken by {}", entry_text(current)),
        Refusal::NotFound => "refused: not found".to_owned(),
        Refusal::TokenStale { current } => format!("refused: stale token, {}", now(current)),
        Refusal::RevisionStale { current } => format!("refused: stale revision, {}", now(current)),
        Refusal::NameExists { current } => format!("refused: there is {}", entry_text(current)),
        Refusal::LeaseUnknown => "refused: no such lease".to_owned(),
        Refusal::LeaseExpired => "refused: the lease has ended".to_owned(),
        Refusal::LeaseTaken => "refused: another lease has that id".to_owned(),
        Refusal::LeaseForeign => "refused: another's lease".to_owned(),
    }
}
