//! The runs of the protocol page that break an implementation without its rules.

use quorate::gossip::context::OpId;
use quorate::gossip::core::Now;
use quorate::gossip::message::Message;
use quorate::gossip::peers::Contact;
use quorate::gossip::rank::{Policy, Rank};
use quorate::model::command::{Action, Condition};
use quorate::model::ident::{Meta, Token};
use quorate::model::outcome::{Ended, Hidden, Outcome, Refusal};
use quorate::model::query::{Answer, Page, Query};

use super::world::{Weather, World, granted, register, unregister, whereis};

fn calm(size: u64) -> World {
    World::new(1, size, Weather { down_after_ms: 4_000, ..Weather::default() })
}

fn all(owner: &str, nodes: usize) -> Vec<Option<String>> {
    vec![Some(owner.to_owned()); nodes]
}

#[test]
fn a4_of_three_sides_that_grant_a_name_the_best_ranked_one_keeps_it() {
    let mut world = calm(3);
    let g1 = granted(world.register(1, "x", "one"));
    world.run(100);
    world.cut(&[&[1], &[2], &[3]]);
    // Node 3 still counts node 1 and takes its grant over; node 2 has hidden it and grants the name anew.
    world.run(1_000);
    let taken = granted(world.execute(3, register("x", "three", Condition::Takeover)));
    world.run(8_000);
    let Outcome::Granted { hides, .. } = world.register(2, "x", "two") else { panic!("it is free here") };
    assert_eq!(hides, Some(Hidden { owner: "one".parse().unwrap(), token: g1.token }));
    let rank = |world: &World, token| Rank::of(Policy::Oldest, world.grant(token));
    assert!(rank(&world, taken.token) < rank(&world, g1.token), "a takeover is above its victim");
    world.heal();
    world.run(5_000);
    world.holds();
    assert_eq!(world.owners("x"), all("three", 3));
    assert_eq!(world.losers(1), ["two"], "the victim of a takeover has lost no conflict");
}

#[test]
fn a4_newest_keeps_the_last_and_a_takeover_is_above_what_it_took() {
    let mut world = World::new(3, 2, Weather { policy: Policy::Newest, ..Weather::default() });
    world.skew(1, 60_000);
    granted(world.register(1, "x", "ahead"));
    world.run(100);
    world.cut(&[&[1], &[2]]);
    granted(world.execute(2, register("x", "behind", Condition::Takeover)));
    world.run(5_000);
    world.heal();
    world.run(3_000);
    world.holds();
    assert_eq!(world.owners("x"), all("behind", 2));
}

#[test]
fn a5_a_rival_is_not_withdrawn_for_a_grant_that_has_ended_already() {
    let mut world = calm(2);
    let c1 = granted(world.register(1, "x", "c1"));
    world.run(100);
    world.cut(&[&[1], &[2]]);
    world.run(8_000);
    assert_eq!(world.execute(1, unregister("x", Some(c1.token))), Outcome::Ended(Ended::Now));
    granted(world.register(2, "x", "c2"));
    world.heal();
    world.run(5_000);
    world.holds();
    assert_eq!(world.owners("x"), all("c2", 2));
    assert!(world.losers(2).is_empty());
}

#[test]
fn a5_nobody_is_judged_in_an_absent_homes_stead_before_what_let_it_in_has_arrived() {
    let mut world = calm(5);
    let c1 = granted(world.register(1, "x", "c1"));
    world.run(100);
    world.cut(&[&[1, 3], &[2, 4, 5]]);
    world.run(100);
    assert_eq!(world.execute(2, unregister("x", Some(c1.token))), Outcome::Ended(Ended::Now));
    world.run(100);
    granted(world.register(4, "x", "c2"));
    world.run(2_500);
    // Node 2 is heard again, node 4 not yet; and what node 4 did arrives before what node 2 did.
    let operations = world.made.values().filter(|operation| operation.id().run.node == 4).cloned().collect();
    world.with(1, |core, now, effects| {
        core.peer_up(2, now, effects);
        assert_eq!((core.contact(2), core.contact(4)), (Some(Contact::Returning), Some(Contact::Down)));
        core.handle(2, Message::Push { operations }, now, effects);
    });
    world.heal();
    world.run(5_000);
    world.holds();
    assert_eq!(world.owners("x"), all("c2", 5));
    assert!(world.losers(1).is_empty());
}

#[test]
fn a5_a_returning_peer_is_counted_only_after_catching_up() {
    let mut world = calm(2);
    granted(world.register(1, "x", "c1"));
    world.run(100);
    world.cut(&[&[1], &[2]]);
    world.run(8_000);
    assert_eq!(world.owner(2, "x"), None, "hidden");
    world.with(2, |core, now, effects| {
        core.peer_up(1, now, effects);
        assert_eq!(core.contact(1), Some(Contact::Returning));
    });
    assert_eq!(world.owner(2, "x"), None, "still hidden");
    world.heal();
    world.run(3_000);
    assert_eq!(world.nodes[&2].contact(1), Some(Contact::Reachable));
    assert_eq!(world.owners("x"), all("c1", 2));
}

#[test]
fn a6_a_hidden_owner_who_was_there_first_wins_at_the_heal() {
    let mut world = calm(3);
    granted(world.register(1, "x", "established"));
    world.run(100);
    world.cut(&[&[1], &[2, 3]]);
    world.run(8_000);
    granted(world.register(2, "x", "replacement"));
    world.run(1_000);
    assert!(world.losers(3).is_empty(), "no record while one side is hidden");
    world.heal();
    world.run(3_000);
    world.holds();
    assert_eq!(world.owners("x"), all("established", 3));
    for node in 1..=3 {
        assert_eq!(world.losers(node), ["replacement"]);
    }
}

#[test]
fn a6_the_lowest_live_node_withdraws_for_a_home_that_is_away() {
    let mut world = World::new(2, 4, Weather::default());
    world.cut(&[&[1, 2, 3], &[4]]);
    granted(world.register(2, "x", "first"));
    world.run(5_000);
    granted(world.register(4, "x", "second"));
    // Node 4's grant comes through to one node, and node 4 is gone before it can have looked at anything.
    let operations = world.made.values().filter(|operation| operation.id().run.node == 4).cloned().collect();
    world.with(3, |core, now, effects| core.handle(4, Message::Push { operations }, now, effects));
    world.kill(4);
    world.run(5_000);
    world.holds();
    for node in 1..=3 {
        assert_eq!(world.losers(node), ["second"]);
    }
}

#[test]
fn a6_an_acknowledged_record_is_acknowledged_everywhere() {
    let mut world = calm(3);
    world.cut(&[&[1], &[2, 3]]);
    granted(world.register(1, "x", "a"));
    granted(world.register(2, "x", "b"));
    world.run(3_000);
    world.heal();
    world.run(3_000);
    let records = world.nodes[&3].conflicts(None, 10);
    assert_eq!(records.len(), 1);
    assert!(!world.with(3, |core, now, effects| core.acknowledge(&"1.1.1".parse().unwrap(), now, effects)));
    assert!(world.with(3, |core, now, effects| core.acknowledge(&records[0].id, now, effects)));
    world.run(100);
    for node in 1..=3 {
        assert!(world.nodes[&node].conflicts(None, 10)[0].acknowledged);
        assert!(world.nodes[&node].conflicts(Some(&records[0].id), 10).is_empty());
    }
}

#[test]
fn a7_the_same_owner_on_both_sides_is_no_conflict() {
    let mut world = calm(2);
    world.cut(&[&[1], &[2]]);
    let left = granted(world.register(1, "x", "same"));
    world.run(10);
    let right = granted(world.register(2, "x", "same"));
    world.run(5_000);
    world.heal();
    world.run(3_000);
    world.holds();
    assert!(world.losers(1).is_empty());
    // Listed once, by the better rank; either token is still that grant.
    let Answer::Entries { entries, .. } = world.query(1, &Query::Names { page: Page::default() }) else { panic!() };
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].token, left.token);
    assert_eq!(world.nodes[&1].status().names, 1);
    for token in [left.token, right.token] {
        assert!(matches!(world.query(1, &whereis("x", Some(token))), Answer::Entry(_)));
    }
    assert_eq!(world.execute(1, unregister("x", Some(right.token))), Outcome::Ended(Ended::Now));
    world.run(100);
    assert_eq!(world.owners("x"), [None, None], "any of the tokens ends all");
    assert_eq!(world.execute(2, unregister("x", Some(left.token))), Outcome::Ended(Ended::Before));
}

#[test]
fn a_remove_that_overtakes_its_add_is_remembered() {
    let mut world = World::new(1, 3, Weather { kept_operations: 2, ..Weather::default() });
    world.cut(&[&[1], &[2, 3]]);
    let entry = granted(world.register(1, "x", "a"));
    // The owner moves on to the other side and gives the name up there, where it was never seen.
    world.run(3_000);
    assert_eq!(world.execute(2, unregister("x", Some(entry.token))), Outcome::Ended(Ended::Now));
    world.run(2_000);
    assert_eq!(world.owner(1, "x").map(|entry| entry.holder_text().to_owned()), Some("a".into()));
    world.heal();
    world.run(3_000);
    world.holds();
    assert_eq!(world.owners("x"), [None, None, None]);
}

#[test]
fn a_token_that_was_never_issued_is_refused() {
    let mut world = calm(2);
    let entry = granted(world.register(1, "x", "a"));
    world.run(100);
    let Token::Ap(token) = entry.token else { panic!() };
    for forged in [
        Token::Ap(quorate::model::ident::ApToken { number: token.number + 1, run: 99, ..token }),
        Token::Ap(quorate::model::ident::ApToken { node: 77, ..token }),
        Token::Ap(quorate::model::ident::ApToken { number: 0, ..token }),
        Token::Ap(quorate::model::ident::ApToken { hlc: 1, ..token }),
        Token::Cp(1),
    ] {
        let refused = world.execute(2, unregister("x", Some(forged)));
        assert!(matches!(refused, Outcome::Refused(Refusal::TokenStale { current: Some(_) })), "{forged}: {refused:?}");
    }
    assert_eq!(world.owners("x"), all("a", 2));
}

#[test]
fn a_node_away_for_long_brings_nothing_back() {
    let mut world = World::new(5, 3, Weather { kept_operations: 4, ..Weather::default() });
    for at in 0..30 {
        granted(world.register(1, &format!("n{at}"), "a"));
    }
    world.run(500);
    world.cut(&[&[1, 2], &[3]]);
    world.run(3_000);
    for at in 0..30 {
        world.execute(1, unregister(&format!("n{at}"), None));
    }
    granted(world.register(2, "fresh", "b"));
    world.run(60_000);
    granted(world.register(3, "lonely", "c"));
    world.heal();
    world.run(3_000);
    world.holds();
    assert_eq!(world.nodes[&3].status().names, 2);
}

#[test]
fn a_clock_that_jumps_stalls_nothing_and_undoes_no_order() {
    let mut world = calm(2);
    world.skew(1, 3_600_000);
    granted(world.register(1, "x", "from-the-future"));
    world.run(100);
    world.skew(1, -3_600_000);
    let taken = granted(world.execute(1, register("x", "next", Condition::Takeover)));
    let again = granted(world.execute(2, register("x", "last", Condition::Takeover)));
    assert!(taken.token < again.token, "tokens rise wherever one has seen the other");
    world.run(1_000);
    world.holds();
}

#[test]
fn conditions_are_checked_in_the_contracts_order() {
    let mut world = calm(1);
    let first = granted(world.execute(1, register("x", "a", Condition::Absent)));
    let exists = world.execute(1, register("x", "a", Condition::Absent));
    assert!(matches!(exists, Outcome::Refused(Refusal::NameExists { .. })));
    assert_eq!(world.register(1, "x", "a"), Outcome::Held { entry: first.clone() }, "the same owner, the same token");
    let handed = granted(world.execute(1, register("x", "b", Condition::Token(first.token))));
    let retried = world.execute(1, register("x", "b", Condition::Token(first.token)));
    assert_eq!(retried, Outcome::Held { entry: handed.clone() }, "a retried hand-over finds its grant");
    let stale = world.execute(1, register("x", "c", Condition::Token(first.token)));
    assert!(matches!(stale, Outcome::Refused(Refusal::TokenStale { .. })));
    let changed = world.execute(
        1,
        Action::Register {
            name: "x".parse().unwrap(),
            owner: "b".parse().unwrap(),
            meta: "{\"k\":1}".parse().unwrap(),
            lease: None,
            condition: Condition::Unchanged(handed.revision.clone()),
        },
    );
    let Outcome::Held { entry } = changed else { panic!("{changed:?}") };
    assert_eq!((entry.token, entry.meta.as_str()), (handed.token, "{\"k\":1}"));
    assert_ne!(entry.revision, handed.revision);
    let stale = world.execute(1, register("x", "b", Condition::Unchanged(handed.revision)));
    assert!(matches!(stale, Outcome::Refused(Refusal::RevisionStale { .. })));
    let taken = world.register(1, "x", "c");
    assert!(matches!(taken, Outcome::Refused(Refusal::NameTaken { current }) if current == entry));
    let absent = world.execute(1, register("y", "c", Condition::Present));
    assert_eq!(absent, Outcome::Refused(Refusal::RevisionStale { current: None }));
    let leased = world.execute(
        1,
        Action::Join {
            group: "g".parse().unwrap(),
            member: "m".parse().unwrap(),
            meta: Meta::empty(),
            lease: Some("l1".parse().unwrap()),
        },
    );
    assert_eq!(leased, Outcome::Refused(Refusal::LeaseUnknown));
    assert_eq!(world.execute(1, unregister("y", None)), Outcome::Refused(Refusal::NotFound));
    assert!(OpId::parse("x").is_none());
}

#[test]
fn a_bridge_keeps_every_node_working() {
    let mut world = calm(5);
    // From whole to bridge nobody is given up, and from pieces to bridge everybody is found again.
    for split_first in [false, true] {
        if split_first {
            world.cut(&[&[1, 2], &[3], &[4, 5]]);
            world.run(8_000);
        }
        world.cut_but_for(3, &[&[1, 2], &[3], &[4, 5]]);
        world.run(8_000);
        let name = format!("x-{split_first}");
        granted(world.register(1, &name, "a"));
        world.run(8_000);
        assert_eq!(world.owners(&name), all("a", 5));
        for (at, peer) in [(1, 5), (5, 1), (2, 4), (1, 3)] {
            assert_eq!(world.nodes[&at].contact(peer), Some(Contact::Reachable), "{at} counts {peer}");
        }
        world.heal();
        world.run(3_000);
        world.holds();
    }
}

#[test]
fn a5_a_process_that_stood_still_catches_up_before_it_counts_anybody() {
    let mut world = calm(2);
    world.run(100);
    world.with(2, |core, now, effects| {
        let later = Now { ms: now.ms + 4_000, ..now };
        core.tick(later, effects);
        assert_eq!(core.contact(1), Some(Contact::Returning));
    });
    world.run(5_000);
    assert_eq!(world.nodes[&2].contact(1), Some(Contact::Reachable));
}

#[test]
fn a13_a_new_process_serves_once_it_has_asked() {
    let mut world = calm(3);
    granted(world.register(1, "x", "a"));
    world.run(100);
    world.kill(3);
    world.restart(3);
    assert!(!world.nodes[&3].is_serving());
    while !world.nodes[&3].is_serving() {
        world.run(1);
    }
    assert_eq!(world.owners("x"), all("a", 3));
    // Alone, it knows at once that nobody answers; if it cannot know, it waits two seconds.
    world.cut(&[&[1, 2], &[3]]);
    world.kill(3);
    world.restart(3);
    world.run(1_900);
    assert!(!world.nodes[&3].is_serving());
    world.run(200);
    assert!(world.nodes[&3].is_serving());
    world.restart(3);
    world.with(3, |core, _, _| {
        core.unreachable(1);
        core.unreachable(2);
        assert!(core.is_serving());
    });
}
