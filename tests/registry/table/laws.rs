//! What holds after any steps whatever.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use quorate::model::command::{Action, Command, Condition};
use quorate::model::ident::{LeaseId, Revision, Token};
use quorate::model::outcome::{Ended, Outcome, Refusal};
use quorate::model::query::{Answer, Page, Query};
use quorate::model::step::Step;
use quorate::model::table::{ENDED_KEPT_MAX, LOST_PER_LEASE_MAX, LeaseNews, News, RELEASES_PER_EVENT_MAX, Table};
use quorate::model::time::UnixMillis;

fn action() -> impl Strategy<Value = Action> {
    let key = || prop_oneof![Just("a"), Just("b"), Just("c")];
    let meta = || prop_oneof![Just("{}"), Just(r#"{"m":1}"#)];
    let lease = || option::weighted(0.4, prop_oneof![Just("l"), Just("m")]);
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
        2 => (prop_oneof![Just("l"), Just("m")], 1_000..1_002_u64).prop_map(|(lease, ttl_ms)| Action::CreateLease {
            lease: Some(lease.parse().unwrap()),
            ttl_ms,
            credential: None,
        }),
        1 => prop_oneof![Just("l"), Just("m")].prop_map(|lease| Action::RevokeLease { lease: lease.parse().unwrap(), by: None }),
    ]
}

/// One step, without an id of its own for a lease: it is named by the revision at which one may have begun.
fn step() -> impl Strategy<Value = Step> {
    let number = || vec(1..40_u64, 1..3);
    let command = || {
        (action(), 1..4_u64, 0..1_000_u64).prop_map(|(action, node, at)| Command { action, node, at: UnixMillis(at) })
    };
    prop_oneof![
        8 => command().prop_map(Step::Command),
        1 => vec(command(), 0..4).prop_map(Step::Batch),
        1 => number().prop_map(|leases| Step::Expire { leases }),
        1 => number().prop_map(|leases| Step::KeptAlive { leases }),
        1 => (0..900_u64).prop_map(|ms| Step::Aged { ms }),
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
            let outcome = table.apply(command, &mut News::default());
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
            if let Outcome::Granted { entry, .. } = table.apply(command, &mut News::default()) {
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
            let outcome = table.apply(command, &mut News::default());
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
            table.apply(command, &mut News::default());
        }
        let last = Command { action: last, node: 1, at: UnixMillis(7) };
        let first = table.apply(&last, &mut News::default());
        let between = table.clone();
        if !last.action.retry_is_safe() {
            return Ok(());
        }
        let second = table.apply(&last, &mut News::default());
        prop_assert_eq!(&table, &between);
        match (first, second) {
            (Outcome::Granted { entry: first, .. } | Outcome::Held { entry: first }, Outcome::Held { entry: second }) => {
                prop_assert_eq!(first, second);
            }
            (Outcome::Ended(_), Outcome::Ended(Ended::Before)) => {}
            (Outcome::LeaseCreated { .. } | Outcome::LeaseHeld { .. }, Outcome::LeaseHeld { .. }) => {}
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
            prop_assert_eq!(one.apply(command, &mut News::default()), other.apply(command, &mut News::default()));
        }
        prop_assert_eq!(&one, &other);
        let bytes = postcard::to_allocvec(&commands).unwrap();
        prop_assert_eq!(postcard::from_bytes::<Vec<Command>>(&bytes).unwrap(), commands);
    }

    #[test]
    fn pages_of_any_length_make_up_the_whole_list(commands in commands(), limit in 1..5_usize) {
        let mut table = Table::default();
        for command in &commands {
            table.apply(command, &mut News::default());
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

    #[test]
    fn each_revision_is_one_event_and_nothing_else_changes(steps in vec(step(), 0..60)) {
        let mut table = Table::default();
        for step in &steps {
            let before = table.clone();
            let mut news = News::default();
            table.take(step, &mut news);
            let told = news.events.iter().map(|event| event.revision.clone()).collect::<Vec<_>>();
            let made = (before.revision() + 1..=table.revision()).map(Revision::Cp).collect::<Vec<_>>();
            prop_assert_eq!(told, made);
            if news.events.is_empty() {
                prop_assert_eq!(entries(&table), entries(&before));
            }
        }
    }

    #[test]
    fn what_is_bound_to_a_lease_is_what_names_it_and_nothing_is_bound_to_a_dead_one(steps in vec(step(), 0..60)) {
        let mut table = Table::default();
        let mut live = BTreeSet::new();
        for step in &steps {
            let mut news = News::default();
            table.take(step, &mut news);
            for news in &news.leases {
                match news {
                    LeaseNews::Began { number, .. } => prop_assert!(live.insert(*number)),
                    LeaseNews::Ended { number } => prop_assert!(live.remove(number)),
                }
            }
            prop_assert_eq!(table.leases().map(|facts| facts.number).collect::<BTreeSet<_>>(), live.clone());
            let all = entries(&table);
            let mut bound = 0;
            for lease in ["l", "m"].map(|id| id.parse::<LeaseId>().unwrap()) {
                let named = all.iter().filter(|entry| entry.lease.as_ref() == Some(&lease)).cloned().collect::<Vec<_>>();
                bound += named.len();
                match table.query(&Query::Lease { lease: lease.clone(), page: Page { limit: 1_000, ..Page::default() } }) {
                    Answer::Lease(status) => {
                        prop_assert_eq!(table.renewable(&lease, None).unwrap().entries, named.len() as u64);
                        prop_assert_eq!(status.entries, named);
                    }
                    Answer::Refused(_) => prop_assert!(named.is_empty()),
                    other => prop_assert!(false, "{:?}", other),
                }
            }
            prop_assert_eq!(bound, all.iter().filter(|entry| entry.lease.is_some()).count());
        }
    }
}

/// All names, then all members, as a lease lists them.
fn entries(table: &Table) -> Vec<quorate::model::entry::Entry> {
    let page = || Page { limit: 1_000, ..Page::default() };
    let listed = |query| match table.query(&query) {
        Answer::Entries { entries, .. } => entries,
        other => panic!("{other:?}"),
    };
    let mut all = listed(Query::Names { page: page() });
    for group in ["a", "b", "c"] {
        all.extend(listed(Query::Members { group: group.parse().unwrap(), page: page(), node: None }));
    }
    all
}

fn done(table: &mut Table, action: Action) -> (Outcome, News) {
    let mut news = News::default();
    let outcome = table.apply(&Command { action, node: 1, at: UnixMillis(0) }, &mut news);
    (outcome, news)
}

fn create(lease: &str) -> Action {
    Action::CreateLease { lease: Some(lease.parse().unwrap()), ttl_ms: 1_000, credential: None }
}

fn join(member: usize, lease: &str) -> Action {
    let (group, member) = ("g".parse().unwrap(), format!("m{member:06}").parse().unwrap());
    Action::Join { group, member, meta: "{}".parse().unwrap(), lease: Some(lease.parse().unwrap()) }
}

#[test]
fn a_lease_with_very_many_entries_ends_in_several_revisions_at_once() {
    let mut table = Table::default();
    done(&mut table, create("l"));
    for member in 0..2 * RELEASES_PER_EVENT_MAX + 1 {
        done(&mut table, join(member, "l"));
    }
    let before = table.revision();
    let mut news = News::default();
    table.take(&Step::Expire { leases: vec![1] }, &mut news);
    assert_eq!(table.revision(), before + 3);
    let lengths = news.events.iter().map(|event| event.changes.len()).collect::<Vec<_>>();
    assert_eq!(lengths, [RELEASES_PER_EVENT_MAX + 1, RELEASES_PER_EVENT_MAX, 1]);
    assert_eq!(entries(&table), []);
}

#[test]
fn a_lease_that_ended_long_ago_is_forgotten() {
    let mut table = Table::default();
    for at in 0..=ENDED_KEPT_MAX {
        let lease = format!("lease-{at}");
        done(&mut table, create(&lease));
        done(&mut table, Action::RevokeLease { lease: lease.parse().unwrap(), by: None });
    }
    let refused =
        |at: usize, table: &Table| table.renewable(&format!("lease-{at}").parse().unwrap(), None).unwrap_err();
    assert_eq!(refused(0, &table), Refusal::LeaseUnknown);
    assert_eq!(refused(1, &table), Refusal::LeaseExpired);
    assert_eq!(refused(ENDED_KEPT_MAX, &table), Refusal::LeaseExpired);
}

#[test]
fn of_what_a_lease_lost_the_oldest_is_forgotten_first() {
    let mut table = Table::default();
    for lease in ["l", "m"] {
        done(&mut table, create(lease));
    }
    for at in 0..2 * (LOST_PER_LEASE_MAX + 5) {
        let (owner, lease) = if at % 2 == 0 { ("a", "l") } else { ("b", "m") };
        let register = Action::Register {
            name: "n".parse().unwrap(),
            owner: owner.parse().unwrap(),
            meta: "{}".parse().unwrap(),
            lease: Some(lease.parse().unwrap()),
            condition: Condition::Takeover,
        };
        done(&mut table, register);
    }
    let lost = table.lost(1);
    assert_eq!(lost.len(), LOST_PER_LEASE_MAX);
    assert!(lost.windows(2).all(|pair| pair[0].loser.token < pair[1].loser.token));
    assert_eq!(lost.last().unwrap().winner.token, Token::Cp(table.revision()));
}
