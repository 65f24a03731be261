//! What losers of conflicts are told (protocol A6), and who is none (A7).

use quorate::gossip::conflicts::{RECORDS_MAX, Record, Records};
use quorate::gossip::context::{Context, OpId, Run};
use quorate::gossip::operation::{Defeat, Stamp};
use quorate::model::command::Action;
use quorate::model::conflict::ConflictRecord;
use quorate::model::entry::Entry;
use quorate::model::ident::{LeaseId, Meta, RecordId};
use quorate::model::outcome::{Hidden, Outcome, Refusal};
use quorate::model::query::{Answer, Page, Query};
use quorate::model::time::UnixMillis;
use quorate::registry::KeepAlive;

use super::world::{Weather, World, granted, whereis};

fn calm(size: u64) -> World {
    World::new(1, size, Weather { down_after_ms: 4_000, ..Weather::default() })
}

/// Two nodes on whose sides `x` was registered: first on the left, then on the right, with this lease. Healed, and settled.
fn conflict() -> (World, LeaseId) {
    let mut world = calm(2);
    let lease = world.lease(2, 60_000);
    world.run(100);
    world.cut(&[&[1], &[2]]);
    granted(world.register(1, "x", "left"));
    world.run(10);
    granted(world.register_with(2, "x", "right", &lease));
    world.run(3_000);
    world.heal();
    world.run(3_000);
    (world, lease)
}

fn lost(world: &mut World, node: u64, lease: &LeaseId, seen: &[RecordId]) -> Vec<ConflictRecord> {
    let keep = KeepAlive { leases: vec![lease.clone()], seen: seen.to_vec(), by: None };
    world.keep_all(node, &keep).remove(0).unwrap().lost
}

#[test]
fn a6_a_loser_is_told_with_each_keep_alive_until_it_says_that_it_has_seen_it() {
    let (mut world, lease) = conflict();
    world.holds();
    let told = lost(&mut world, 2, &lease, &[]);
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].name.as_str(), told[0].loser.owner.as_str()), ("x", "right"));
    // The answer may have been lost: it is told again, through whichever node it asks.
    assert_eq!(lost(&mut world, 2, &lease, &[]), told);
    assert_eq!(lost(&mut world, 1, &lease, &[]), told);
    // Another's id acknowledges nothing of this.
    assert_eq!(lost(&mut world, 2, &lease, &["1.1.1".parse().unwrap()]), told);
    assert!(lost(&mut world, 1, &lease, &[told[0].id.clone()]).is_empty());
    world.run(100);
    for node in [1, 2] {
        assert!(lost(&mut world, node, &lease, &[]).is_empty(), "node {node} knows of the acknowledgement");
        assert_eq!(world.losers(node), ["right"], "the record is kept for a while");
    }
    world.run(3_700_000);
    assert!(world.losers(1).is_empty() && world.losers(2).is_empty(), "an hour later it is gone");
}

#[test]
fn a6_the_winner_is_told_nothing() {
    let mut world = calm(2);
    let (left, right) = (world.lease(1, 60_000), world.lease(2, 60_000));
    world.run(100);
    world.cut(&[&[1], &[2]]);
    granted(world.register_with(1, "x", "left", &left));
    world.run(10);
    granted(world.register_with(2, "x", "right", &right));
    world.run(3_000);
    world.heal();
    world.run(3_000);
    assert!(lost(&mut world, 1, &left, &[]).is_empty());
    assert_eq!(lost(&mut world, 2, &right, &[]).len(), 1);
}

#[test]
fn a6_a_registration_over_a_hidden_grant_says_whose_it_is_and_only_then() {
    let mut world = calm(2);
    let first = granted(world.register(1, "x", "away"));
    world.run(100);
    world.cut(&[&[1], &[2]]);
    world.run(8_000);
    let Outcome::Granted { hides, .. } = world.register(2, "y", "new") else { panic!("it is free") };
    assert_eq!(hides, None);
    let Outcome::Granted { hides, .. } = world.register(2, "x", "new") else { panic!("it is free here") };
    assert_eq!(hides, Some(Hidden { owner: "away".parse().unwrap(), token: first.token }));
}

#[test]
fn what_a_node_hides_is_shown_as_such_to_those_who_ask_for_it_where_nothing_else_stands() {
    let mut world = calm(2);
    let first = granted(world.register(1, "x", "away"));
    let join =
        Action::Join { group: "g".parse().unwrap(), member: "m".parse().unwrap(), meta: Meta::empty(), lease: None };
    assert!(matches!(world.execute(1, join), Outcome::Granted { .. }));
    world.run(100);
    let members = Query::Members { group: "g".parse().unwrap(), page: Page::default(), node: None };
    let shown = world.query(2, &members);
    assert_eq!(world.query_hidden(2, &members), shown, "what is shown is not hidden");
    world.cut(&[&[1], &[2]]);
    world.run(8_000);
    let hidden = Entry { hidden: true, ..first.clone() };
    assert_eq!(world.query(2, &whereis("x", None)), Answer::Refused(Refusal::NotFound));
    for token in [None, Some(first.token)] {
        assert_eq!(world.query_hidden(2, &whereis("x", token)), Answer::Entry(hidden.clone()));
    }
    let names = Query::Names { page: Page::default() };
    assert_eq!(world.query_hidden(2, &names), Answer::Entries { entries: vec![hidden], next: None });
    let Answer::Entries { entries, .. } = world.query_hidden(2, &members) else { panic!("a list") };
    assert!(matches!(&entries[..], [Entry { hidden: true, .. }]), "{entries:?}");
    assert_eq!(world.query(2, &members), Answer::Entries { entries: Vec::new(), next: None });
    // Its own side hides nothing, and what this side registers is what stands here.
    assert_eq!(world.query_hidden(1, &whereis("x", None)), Answer::Entry(first));
    let next = granted(world.register(2, "x", "new"));
    assert_eq!(world.query_hidden(2, &whereis("x", None)), Answer::Entry(next));
}

#[test]
fn a7_the_same_owner_with_two_leases_stands_twice_and_loses_nothing() {
    let mut world = calm(2);
    let (left, right) = (world.lease(1, 60_000), world.lease(2, 2_000));
    world.run(100);
    world.cut(&[&[1], &[2]]);
    granted(world.register_with(1, "x", "same", &left));
    granted(world.register_with(2, "x", "same", &right));
    world.run(800);
    world.heal();
    world.run(1_000);
    assert!(world.losers(1).is_empty());
    // Each stands by its own lease: when one has run out, the other one still does.
    world.run(10_000);
    world.holds();
    assert_eq!(world.owners("x"), vec![Some("same".to_owned()); 2]);
    assert!(world.losers(2).is_empty());
}

fn record(number: u64, hlc: u64) -> Record {
    let run = Run { node: 1, bits: 7 };
    let token = OpId { run, number }.token(number);
    let defeat = Defeat {
        name: "x".parse().unwrap(),
        loser: ("loser".parse().unwrap(), token),
        lease: Some("l".parse().unwrap()),
        winner: ("winner".parse().unwrap(), token),
        at: UnixMillis(0),
    };
    let id = OpId { run: Run { node: 2, bits: 7 }, number: hlc };
    Record::new(Stamp { hlc, id }, defeat)
}

#[test]
fn records_are_bounded_and_the_oldest_go_first() {
    let mut records = Records::default();
    for number in 1..=RECORDS_MAX as u64 + 10 {
        records.add(record(number, number));
    }
    assert_eq!(records.count(), RECORDS_MAX);
    let lease = "l".parse().unwrap();
    assert_eq!(records.lost(&lease).count(), RECORDS_MAX, "nor are those forgotten ones told");
    assert!(records.get(record(10, 10).loser()).is_none());
    assert!(records.get(record(11, 11).loser()).is_some());
}

#[test]
fn one_grant_that_two_nodes_withdraw_has_one_record() {
    let mut records = Records::default();
    let (late, early) = (record(1, 9), record(1, 4));
    let lease = "l".parse().unwrap();
    records.add(late.clone());
    records.add(early.clone());
    records.add(late.clone());
    assert_eq!((records.count(), records.lost(&lease).count()), (1, 1));
    assert_eq!(records.get(early.loser()), Some(&early), "the smallest stamp stays");
    let by = OpId { run: Run { node: 3, bits: 7 }, number: 1 };
    records.acknowledge(early.loser(), early.stamp.id, by, &Context::default());
    records.add(late);
    assert_eq!((records.count(), records.lost(&lease).count()), (1, 0), "acknowledged is acknowledged");
}
