//! The replicated table: golden scripts of what it answers, and what holds after any commands whatever.

use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;

use goldenscript::{Command as Line, Context, Runner};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use quorate::model::command::{Action, Command, Condition};
use quorate::model::entry::{Entry, Holder};
use quorate::model::ident::{Meta, NodeId, Revision, Token};
use quorate::model::outcome::{Ended, Outcome, Refusal};
use quorate::model::query::{Answer, PAGE_LIMIT_DEFAULT, Page, Query};
use quorate::model::table::Table;
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
    /// Which node the following commands come in at.
    At(NodeId),
}

#[derive(Default)]
struct Script {
    table: Table,
    node: NodeId,
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
            Told::At(node) => {
                self.node = node;
                "from now on".to_owned()
            }
        })
    }

    fn apply(&mut self, action: Action) -> String {
        let before = self.table.revision();
        let outcome = self.table.apply(&Command { action, node: self.node, at: UnixMillis(0) });
        let after = self.table.revision();
        let step = if before == after { String::new() } else { format!(" [{after}]") };
        outcome_text(&outcome) + &step
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
            Answer::Lease(status) => format!("{}, {} ms", status.info.lease, status.info.ttl_ms),
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

fn run(script: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts/table").join(script);
    goldenscript::run(&mut Script::default(), path).unwrap();
}

#[test]
fn a_name_has_one_owner() {
    run("register.txt");
}

#[test]
fn a_grant_ends_by_its_token_alone() {
    run("unregister.txt");
}

#[test]
fn takeover_and_hand_over_are_told_apart() {
    run("takeover.txt");
}

#[test]
fn conditions_are_held_against_what_stands_there() {
    run("conditions.txt");
}

#[test]
fn a_group_has_any_number_of_members() {
    run("groups.txt");
}

#[test]
fn a_list_comes_in_pages_in_byte_order() {
    run("pages.txt");
}

fn action() -> impl Strategy<Value = Action> {
    let key = || prop_oneof![Just("a"), Just("b"), Just("c")];
    let meta = || prop_oneof![Just("{}"), Just(r#"{"m":1}"#)];
    let lease = || option::weighted(0.1, Just("l"));
    let token = || (0..40_u64).prop_map(Token::Cp);
    let condition = prop_oneof![
        4 => Just(Condition::Free),
        1 => Just(Condition::Takeover),
        2 => token().prop_map(Condition::Token),
        2 => (0..40_u64).prop_map(|revision| Condition::Unchanged(Revision::Cp(revision))),
        1 => Just(Condition::Present),
        1 => Just(Condition::Absent),
    ];
    prop_oneof![
        3 => (key(), key(), meta(), lease(), condition).prop_map(|(name, owner, meta, lease, condition)| {
            Action::Register {
                name: name.parse().unwrap(),
                owner: owner.parse().unwrap(),
                meta: meta.parse().unwrap(),
                lease: lease.map(|id| id.parse().unwrap()),
                condition,
            }
        }),
        1 => (key(), option::of(token())).prop_map(|(name, token)| Action::Unregister { name: name.parse().unwrap(), token }),
        2 => (key(), key(), meta(), lease()).prop_map(|(group, member, meta, lease)| Action::Join {
            group: group.parse().unwrap(),
            member: member.parse().unwrap(),
            meta: meta.parse().unwrap(),
            lease: lease.map(|id| id.parse().unwrap()),
        }),
        1 => (key(), key(), option::of(token())).prop_map(|(group, member, token)| Action::Leave {
            group: group.parse().unwrap(),
            member: member.parse().unwrap(),
            token,
        }),
    ]
}

fn commands() -> impl Strategy<Value = Vec<Command>> {
    let command = (action(), 1..4_u64, 0..1_000_u64);
    vec(command.prop_map(|(action, node, at)| Command { action, node, at: UnixMillis(at) }), 0..60)
}

fn changes(outcome: &Outcome, before: &Table, command: &Command) -> bool {
    match outcome {
        Outcome::Granted { .. } | Outcome::LeaseCreated { .. } | Outcome::Ended(Ended::Now) => true,
        Outcome::Ended(Ended::Before) | Outcome::LeaseHeld { .. } | Outcome::Refused(_) => false,
        // Held: only if it was not just so already.
        Outcome::Held { entry } => {
            let earlier = match &command.action {
                Action::Register { name, .. } => before.name(name),
                Action::Join { group, member, .. } => before.member(group, member),
                Action::Unregister { .. }
                | Action::Leave { .. }
                | Action::CreateLease { .. }
                | Action::RevokeLease { .. } => None,
            };
            earlier.as_ref() != Some(entry)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_revision_counts_changes_and_a_refusal_is_none(commands in commands()) {
        let mut table = Table::default();
        for command in &commands {
            let before = table.clone();
            let outcome = table.apply(command);
            if changes(&outcome, &before, command) {
                prop_assert_eq!(table.revision(), before.revision() + 1);
            } else {
                prop_assert_eq!(&table, &before);
            }
        }
    }

    #[test]
    fn tokens_only_rise_and_are_never_given_twice(commands in commands()) {
        let mut table = Table::default();
        let mut last = 0;
        for command in &commands {
            if let Outcome::Granted { entry, .. } = table.apply(command) {
                let Token::Cp(token) = entry.token else { panic!("{entry:?}") };
                prop_assert!(token > last);
                prop_assert_eq!(token, table.revision());
                last = token;
            }
        }
    }

    #[test]
    fn what_was_granted_is_what_is_found(commands in commands()) {
        let mut table = Table::default();
        for command in &commands {
            let outcome = table.apply(command);
            let found = match &command.action {
                Action::Register { name, .. } | Action::Unregister { name, .. } => table.name(name),
                Action::Join { group, member, .. } | Action::Leave { group, member, .. } => table.member(group, member),
                Action::CreateLease { .. } | Action::RevokeLease { .. } => None,
            };
            match outcome {
                Outcome::Granted { entry, .. } | Outcome::Held { entry } => prop_assert_eq!(found, Some(entry)),
                Outcome::Ended(Ended::Now) | Outcome::Refused(Refusal::NotFound) => prop_assert_eq!(found, None),
                Outcome::LeaseCreated { .. } | Outcome::LeaseHeld { .. } => prop_assert_eq!(found, None),
                Outcome::Ended(Ended::Before) => {}
                Outcome::Refused(_) => {}
            }
        }
    }

    #[test]
    fn a_safe_retry_finds_the_first_one_done(commands in commands(), last in action()) {
        let mut table = Table::default();
        for command in &commands {
            table.apply(command);
        }
        let last = Command { action: last, node: 1, at: UnixMillis(7) };
        let first = table.apply(&last);
        let between = table.clone();
        if !last.action.retry_is_safe() {
            return Ok(());
        }
        let second = table.apply(&last);
        prop_assert_eq!(&table, &between);
        match (first, second) {
            (Outcome::Granted { entry: first, .. } | Outcome::Held { entry: first }, Outcome::Held { entry: second }) => {
                prop_assert_eq!(first, second);
            }
            (Outcome::Ended(_), Outcome::Ended(Ended::Before)) => {}
            (Outcome::Refused(first), Outcome::Refused(second)) => prop_assert_eq!(first, second),
            (first, second) => prop_assert!(false, "{:?} then {:?}", first, second),
        }
    }

    #[test]
    fn every_replica_computes_the_same_and_a_copy_of_its_bytes_goes_on_alike(commands in commands(), cut in 0..60_usize) {
        let mut one = Table::default();
        let mut other = Table::default();
        for (at, command) in commands.iter().enumerate() {
            if at == cut {
                let bytes = postcard::to_allocvec(&other).unwrap();
                other = postcard::from_bytes(&bytes).unwrap();
                prop_assert_eq!(&other, &one);
            }
            prop_assert_eq!(one.apply(command), other.apply(command));
        }
        prop_assert_eq!(&one, &other);
        let bytes = postcard::to_allocvec(&commands).unwrap();
        prop_assert_eq!(postcard::from_bytes::<Vec<Command>>(&bytes).unwrap(), commands);
    }

    #[test]
    fn pages_of_any_length_make_up_the_whole_list(commands in commands(), limit in 1..5_usize) {
        let mut table = Table::default();
        for command in &commands {
            table.apply(command);
        }
        let whole = Query::Names { page: Page::default() };
        let Answer::Entries { entries: whole, next: None } = table.query(&whole) else { panic!("one page holds all") };
        let (mut pieces, mut after) = (Vec::new(), None);
        loop {
            let query = Query::Names { page: Page { prefix: String::new(), after: after.clone(), limit } };
            let Answer::Entries { entries, next } = table.query(&query) else { panic!("names are entries") };
            prop_assert!(entries.len() <= limit);
            pieces.extend(entries);
            after = next;
            if after.is_none() {
                break;
            }
        }
        prop_assert_eq!(pieces, whole);
    }
}
