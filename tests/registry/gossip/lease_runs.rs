//! The runs of the protocol page that are about leases, each also with the flaw planted that it is for.

use quorate::gossip::core::{Flaws, LeaseFlaw};
use quorate::model::command::Action;
use quorate::model::ident::{LeaseId, NodeId};
use quorate::model::outcome::{Ended, Outcome, Refusal};
use quorate::registry::KeepAlive;

use super::world::{Weather, World, granted};

fn calm(size: u64, flaw: Option<LeaseFlaw>) -> World {
    let flaws = Flaws { leases: flaw, ..Flaws::default() };
    World::new(1, size, Weather { down_after_ms: 4_000, flaws, ..Weather::default() })
}

/// A lease of this ttl that the first node keeps, and to which this one has bound `x` for `o`.
fn bound_lease(world: &mut World, ttl_ms: u64, at: NodeId) -> LeaseId {
    let lease = world.lease(1, ttl_ms);
    world.run(50);
    granted(world.register_with(at, "x", "o", &lease));
    lease
}

/// Lets time pass, and says when a node first showed another owner than this.
fn differs_within(world: &mut World, ms: u64, nodes: &[NodeId], name: &str, owner: Option<&str>) -> Option<u64> {
    let (from_ms, until_ms) = (world.now_ms, world.now_ms + ms);
    while world.now_ms < until_ms {
        world.run(10);
        let shows = |node: &NodeId| world.owner(*node, name).map(|entry| entry.holder_text().to_owned());
        if nodes.iter().any(|node| shows(node).as_deref() != owner) {
            return Some(world.now_ms - from_ms);
        }
    }
    None
}

fn bound(world: &World, node: NodeId, lease: &LeaseId) -> usize {
    world.nodes[&node].map().grants.bound_to(lease).count()
}

fn vouches(world: &World, node: NodeId, lease: &LeaseId) -> Vec<NodeId> {
    world.nodes[&node].map().vouches.of(lease).iter().map(|vouch| vouch.id.run.node).collect()
}

#[test]
fn a2_a_node_that_dies_takes_no_lease_with_it_that_is_kept_alive_elsewhere() {
    let mut world = calm(3, None);
    let lease = bound_lease(&mut world, 3_000, 2);
    world.run(1_000);
    world.kill(1);
    let kept = world.keep(2, &lease).unwrap();
    assert!(kept.moved, "its keeper does not answer");
    for through in [3, 2, 3, 2, 3] {
        assert_eq!(differs_within(&mut world, 2_000, &[2, 3], "x", Some("o")), None);
        world.keep(through, &lease).unwrap();
    }
    assert_eq!(differs_within(&mut world, 3_000, &[2, 3], "x", Some("o")), None, "its full time after the last one");
    world.run(1_000);
    assert_eq!(world.owners("x"), [None, None]);
    world.restart(1);
    assert_eq!(differs_within(&mut world, 8_000, &[1, 2, 3], "x", None), None);
    assert_eq!(vouches(&world, 1, &lease), Vec::<NodeId>::new());
    assert_eq!(bound(&world, 3, &lease), 0);
    world.holds();
}

/// One keep-alive strays through the other side of a cut, while its own side keeps the lease alive.
fn stray(flaw: Option<LeaseFlaw>) -> Option<u64> {
    let mut world = calm(3, flaw);
    let lease = bound_lease(&mut world, 4_000, 1);
    world.run(50);
    world.cut(&[&[1], &[2, 3]]);
    world.run(3_000);
    world.keep(1, &lease).unwrap();
    assert!(world.keep(2, &lease).unwrap().moved);
    let mut differs = None;
    for at in 0..10 {
        world.keep(1, &lease).unwrap_or_else(|refusal| panic!("{refusal:?}"));
        // The other side's vouch runs out during this, and then they meet.
        if at == 8 {
            world.heal();
        }
        differs = differs.or(differs_within(&mut world, 1_000, &[1], "x", Some("o")));
        if differs.is_some() {
            return differs;
        }
    }
    world.run(3_000);
    assert_eq!(vouches(&world, 3, &lease), [1]);
    assert_eq!(world.owners("x"), vec![Some("o".to_owned()); 3]);
    world.holds();
    None
}

#[test]
fn a2_one_stray_keep_alive_does_not_end_a_lease_that_its_own_side_keeps_alive() {
    assert_eq!(stray(None), None);
}

/// Two nodes that vouch for one lease meet, and the one that was kept alive last has to make way.
fn meeting(flaw: Option<LeaseFlaw>) -> Option<u64> {
    let mut world = calm(3, flaw);
    let lease = bound_lease(&mut world, 6_000, 1);
    world.run(50);
    world.cut(&[&[1], &[2, 3]]);
    world.run(3_000);
    assert!(world.keep(2, &lease).unwrap().moved);
    world.run(2_500);
    world.keep(1, &lease).unwrap();
    let kept_ms = world.now_ms;
    world.heal();
    world.run(2_000);
    assert_eq!(vouches(&world, 1, &lease), [2], "the older one makes way");
    let differs = differs_within(&mut world, kept_ms + 6_000 - (kept_ms + 2_000), &[1, 2, 3], "x", Some("o"));
    world.run(1_100);
    assert_eq!(world.owners("x"), [None, None, None]);
    world.run(10_000);
    world.holds();
    differs
}

#[test]
fn a2_of_two_that_meet_the_older_passes_its_last_keep_alive_on() {
    assert_eq!(meeting(None), None);
    assert!(meeting(Some(LeaseFlaw::ForgetsDeadlines)).is_some(), "a planted flaw is seen");
}

/// One side of a cut keeps a lease alive that has run out on the side of its keeper.
fn adopted_across(flaw: Option<LeaseFlaw>) -> Option<String> {
    let mut world = calm(3, flaw);
    let lease = bound_lease(&mut world, 3_000, 1);
    world.run(50);
    world.cut(&[&[1], &[2, 3]]);
    for _ in 0..10 {
        world.keep(2, &lease).unwrap();
        world.run(1_000);
    }
    assert_eq!(world.owner(1, "x"), None, "here nobody has kept it alive");
    assert_eq!(world.keep(1, &lease), Err(Refusal::LeaseUnknown), "and it may live on the other side");
    world.heal();
    for _ in 0..4 {
        world.keep(2, &lease).unwrap();
        world.run(1_000);
    }
    if bound(&world, 2, &lease) == 0 {
        return Some("what its other side kept alive was removed".into());
    }
    assert_eq!(world.owners("x"), vec![Some("o".to_owned()); 3]);
    world.run(6_000);
    assert_eq!(world.owners("x"), [None, None, None]);
    for node in 1..=3 {
        assert_eq!(bound(&world, node, &lease), 0, "cleaned once all members have been heard");
    }
    world.holds();
    None
}

#[test]
fn a3_nothing_is_removed_while_an_away_member_may_keep_the_lease_alive() {
    assert_eq!(adopted_across(None), None);
    assert!(adopted_across(Some(LeaseFlaw::CleansAtOnce)).is_some(), "a planted flaw is seen");
    assert!(adopted_across(Some(LeaseFlaw::ExpiryDropsAll)).is_none(), "the other side's vouch was not known here");
}

/// The side of the keeper keeps a lease alive; the timer of a stray adopter runs out where both vouches are known.
fn expiry_of_one_of_two(flaw: Option<LeaseFlaw>) -> bool {
    let mut world = calm(3, flaw);
    let lease = bound_lease(&mut world, 4_000, 1);
    world.run(50);
    world.cut(&[&[1], &[2, 3]]);
    world.run(2_000);
    // Node 2 knows of both vouches, and its own runs out.
    assert!(world.keep(2, &lease).unwrap().moved);
    for _ in 0..8 {
        world.keep(1, &lease).unwrap();
        world.run(1_000);
    }
    world.heal();
    world.run(500);
    let kept = world.keep(1, &lease).is_ok();
    world.run(2_000);
    kept && world.owners("x") == vec![Some("o".to_owned()); 3]
}

#[test]
fn a2_a_timer_that_runs_out_drops_its_own_vouch_alone() {
    assert!(expiry_of_one_of_two(None));
    assert!(!expiry_of_one_of_two(Some(LeaseFlaw::ExpiryDropsAll)), "a planted flaw is seen");
}

/// A node has given the keeper up, and yet it is heard of, by whichever way.
fn one_way(flaw: Option<LeaseFlaw>) -> Option<u64> {
    let mut world = calm(3, flaw);
    let lease = bound_lease(&mut world, 2_000, 1);
    world.run(1_000);
    world.with(2, |core, now, effects| core.peer_down(1, now, effects));
    for _ in 0..15 {
        world.keep(1, &lease).unwrap();
        let differs = differs_within(&mut world, 1_000, &[1, 2, 3], "x", Some("o"));
        if differs.is_some() {
            return differs;
        }
    }
    None
}

#[test]
fn a1_a_keeper_that_is_heard_by_any_way_is_not_hidden() {
    assert_eq!(one_way(None), None);
    assert!(one_way(Some(LeaseFlaw::HidesWithContact)).is_some(), "a planted flaw is seen");
    // A bridge between the pieces.
    let mut world = calm(5, None);
    let lease = bound_lease(&mut world, 8_000, 1);
    world.run(50);
    world.cut_but_for(3, &[&[1, 2], &[3], &[4, 5]]);
    for through in [1, 5, 3, 4, 2, 5, 1, 4, 5, 3] {
        world.keep(through, &lease).unwrap();
        assert_eq!(differs_within(&mut world, 1_000, &[1, 2, 3, 4, 5], "x", Some("o")), None);
    }
}

#[test]
fn a1_a_keeper_out_of_reach_is_hidden_when_its_time_is_over_and_back_after_the_heal() {
    let mut world = calm(3, None);
    let lease = bound_lease(&mut world, 3_000, 2);
    world.run(1_000);
    world.keep(1, &lease).unwrap();
    let cut_ms = world.now_ms;
    world.cut(&[&[1], &[2, 3]]);
    // The adopted lease at its home's own side: the grant's home does not matter.
    while world.now_ms < cut_ms + 12_000 {
        world.keep(1, &lease).unwrap();
        world.run(100);
        let since = world.now_ms - cut_ms;
        for node in [2, 3] {
            let shown = world.owner(node, "x").is_some();
            assert!(shown || since >= 3_000, "hidden {since} ms after the last sign of life");
            assert!(!shown || since <= 4_600, "shown {since} ms after the last sign of life");
        }
        assert!(world.owner(1, "x").is_some(), "its own side keeps it alive");
    }
    // Free to be registered on this side, and told so.
    let Outcome::Granted { hides, .. } = world.register(3, "x", "next") else { panic!("it is free here") };
    assert_eq!(hides.unwrap().owner.as_str(), "o");
    world.heal();
    for _ in 0..40 {
        world.keep(1, &lease).unwrap();
        world.run(100);
    }
    assert_eq!(world.owners("x"), vec![Some("o".to_owned()); 3], "who was there first keeps it");
    assert_eq!(world.losers(2), ["next"]);
    world.holds();
}

/// Suspicion is a view of one node. Where it is written down as a removal, a healed partition deletes what was alive all the time.
#[test]
fn a1_who_is_taken_for_dead_is_hidden_and_nothing_of_that_is_written_down() {
    let mut world = calm(3, None);
    let lease = bound_lease(&mut world, 3_000, 1);
    granted(world.register(1, "free", "o"));
    world.run(200);
    let before = world.made.len();
    world.cut(&[&[1], &[2, 3]]);
    for _ in 0..15 {
        world.keep(1, &lease).unwrap();
        world.run(1_000);
    }
    for name in ["x", "free"] {
        assert_eq!(world.owners(name), [Some("o".to_owned()), None, None], "{name}");
    }
    assert_eq!(world.made.len(), before, "{:?}", world.made.iter().skip(before).collect::<Vec<_>>());
    assert_eq!(bound(&world, 2, &lease), 1, "hidden, and still there");
    world.heal();
    for _ in 0..3 {
        world.keep(1, &lease).unwrap();
        world.run(1_000);
    }
    for name in ["x", "free"] {
        assert_eq!(world.owners(name), vec![Some("o".to_owned()); 3], "{name}");
    }
    assert_eq!(world.made.len(), before);
    world.holds();
}

/// A lease is kept alive on its own side of a cut and revoked there shortly before the heal; its name has been granted on the other one.
fn revoked_across(seed: u64, flaw: Option<LeaseFlaw>) -> Result<(), String> {
    let flaws = Flaws { leases: flaw, ..Flaws::default() };
    let mut world =
        World::new(seed, 2, Weather { delay_ms_max: 100, down_after_ms: 4_000, flaws, ..Weather::default() });
    let lease = bound_lease(&mut world, 3_000, 1);
    world.run(200);
    world.cut(&[&[1], &[2]]);
    for _ in 0..8 {
        world.keep(1, &lease).unwrap();
        world.run(1_000);
    }
    granted(world.register(2, "x", "c2"));
    assert_eq!(world.execute(1, Action::RevokeLease { lease, by: None }), Outcome::Ended(Ended::Now));
    world.heal();
    world.run(8_000);
    world.verdict()?;
    match (world.losers(2).len(), world.owners("x") == vec![Some("c2".to_owned()); 2]) {
        (0, true) => Ok(()),
        found => Err(format!("seed {seed}: {found:?}: withdrawn for what had ended")),
    }
}

#[test]
fn a5_a_lease_that_was_revoked_on_its_side_wins_nothing_at_the_heal() {
    for seed in 0..20 {
        revoked_across(seed, None).unwrap();
    }
    let hasty = |seed| revoked_across(seed, Some(LeaseFlaw::CountsOnContact)).is_err();
    assert!((0..20).any(hasty), "a planted flaw is seen");
}

#[test]
fn a6_a_loser_is_told_by_its_keep_alives_until_it_has_seen_it() {
    let mut world = calm(3, None);
    let (first, second) = (world.lease(1, 20_000), world.lease(2, 20_000));
    world.run(50);
    world.cut(&[&[1], &[2, 3]]);
    granted(world.register_with(1, "x", "first", &first));
    world.run(10);
    granted(world.register_with(2, "x", "second", &second));
    world.run(3_000);
    world.heal();
    world.run(4_000);
    world.holds();
    assert_eq!(world.losers(3), ["second"]);
    assert!(world.keep(1, &first).unwrap().lost.is_empty());
    for node in [2, 3, 1] {
        let lost = world.keep(node, &second).unwrap().lost;
        assert_eq!(lost.len(), 1, "told again");
        assert_eq!(lost[0].winner.owner.as_str(), "first");
    }
    let id = world.keep(3, &second).unwrap().lost[0].id.clone();
    let keep = KeepAlive { leases: vec![second.clone()], seen: vec![id], by: None };
    assert!(world.keep_all(3, &keep).remove(0).unwrap().lost.is_empty());
    world.run(50);
    assert!(world.keep(2, &second).unwrap().lost.is_empty());
}

#[test]
fn a13_a_graceful_stop_hands_its_leases_to_a_peer_first() {
    let mut world = calm(3, None);
    let leases = (0..5).map(|_| world.lease(1, 4_000)).collect::<Vec<_>>();
    world.run(50);
    granted(world.register_with(1, "x", "o", &leases[0]));
    world.run(500);
    world.with(1, |core, now, effects| core.hand_over(now, effects));
    let mut waited = 0;
    while world.nodes[&1].has_leases_to_hand_over() {
        assert_eq!(differs_within(&mut world, 10, &[1, 2, 3], "x", Some("o")), None);
        waited += 10;
        assert!(waited < 500, "handed over in vain");
    }
    world.run(20);
    world.kill(1);
    for lease in &leases {
        assert_eq!(vouches(&world, 3, lease), [2]);
        let kept = world.keep(3, lease).unwrap();
        assert!(!kept.moved, "nobody had to adopt it");
    }
    assert_eq!(differs_within(&mut world, 3_900, &[2, 3], "x", Some("o")), None);
    world.run(1_100);
    assert_eq!(world.owners("x"), [None, None]);
}

/// A keeper is away for longer than its lease, and returns as a new process.
fn restarted_late(flaw: Option<LeaseFlaw>) -> Option<u64> {
    let mut world = calm(3, flaw);
    let lease = bound_lease(&mut world, 2_000, 2);
    world.run(1_000);
    world.kill(1);
    world.run(6_000);
    assert_eq!(world.owners("x"), [None, None], "it has run out");
    world.restart(1);
    let differs = differs_within(&mut world, 4_000, &[1, 2, 3], "x", None);
    if flaw.is_none() {
        assert_eq!(vouches(&world, 2, &lease), Vec::<NodeId>::new());
        assert_eq!(world.keep(2, &lease), Err(Refusal::LeaseExpired));
        world.run(5_000);
        assert_eq!(bound(&world, 2, &lease), 0);
        world.holds();
    }
    differs
}

#[test]
fn a13_a_restart_revives_no_lease_that_had_run_out() {
    assert_eq!(restarted_late(None), None);
    assert!(restarted_late(Some(LeaseFlaw::RestartRevives)).is_some(), "a planted flaw is seen");
}

#[test]
fn a13_a_restart_in_time_keeps_its_leases() {
    let mut world = calm(3, None);
    let lease = bound_lease(&mut world, 5_000, 1);
    world.run(1_000);
    world.keep(1, &lease).unwrap();
    world.kill(1);
    world.run(300);
    world.restart(1);
    assert_eq!(differs_within(&mut world, 3_000, &[2, 3], "x", Some("o")), None);
    assert_eq!(world.owners("x"), vec![Some("o".to_owned()); 3]);
    for through in [1, 2, 3] {
        assert!(world.keep(through, &lease).is_ok());
        assert_eq!(differs_within(&mut world, 4_000, &[1, 2, 3], "x", Some("o")), None);
    }
    assert_eq!(vouches(&world, 2, &lease), [1]);
    world.run(6_000);
    assert_eq!(world.owners("x"), [None, None, None]);
    world.holds();
}

#[test]
fn a_member_that_is_removed_for_good_holds_nothing_up() {
    let mut world = calm(3, None);
    let (mine, other) = (world.lease(1, 2_000), world.lease(3, 2_000));
    world.run(50);
    granted(world.register_with(1, "x", "o", &mine));
    granted(world.register_with(1, "y", "o", &other));
    world.run(500);
    world.kill(3);
    world.run(8_000);
    assert_eq!((world.owner(1, "x"), world.owner(1, "y")), (None, None));
    assert_eq!((bound(&world, 1, &mine), bound(&world, 1, &other)), (1, 1), "node 3 may keep both alive");
    for node in [1, 2] {
        world.with(node, |core, now, effects| core.follow(&[1, 2].into(), &[3].into(), now, effects));
    }
    world.run(8_000);
    assert_eq!((bound(&world, 2, &mine), bound(&world, 2, &other)), (0, 0));
    assert_eq!(vouches(&world, 2, &other), Vec::<NodeId>::new());
    assert_eq!(world.execute(2, Action::RevokeLease { lease: mine, by: None }), Outcome::Ended(Ended::Before));
}
