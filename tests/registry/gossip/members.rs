//! Nodes that come and go for good: what a newcomer serves, and what a removed one leaves behind (protocol A3, A13, C12).

use std::collections::BTreeSet;

use quorate::gossip::core::{Flaws, LeaseFlaw};
use quorate::gossip::operation::{Operation, Reason};
use quorate::model::command::Condition;
use quorate::model::ident::NodeId;
use quorate::model::outcome::{Ended, Outcome};

use super::world::{Weather, World, granted, register, unregister};

fn calm(size: u64) -> World {
    World::new(1, size, Weather { down_after_ms: 4_000, ..Weather::default() })
}

/// Tells these nodes that they are the cluster, and that the others of it were removed for good.
fn remain(world: &mut World, members: &[NodeId], retired: &[NodeId]) {
    let (members, retired) = (members.iter().copied().collect::<BTreeSet<_>>(), retired.iter().copied().collect());
    for node in members.clone() {
        world.with(node, |core, now, effects| core.follow(&members, &retired, now, effects));
    }
}

#[test]
fn a13_a_newcomer_serves_once_it_has_been_let_in_and_has_asked() {
    let mut world = calm(3);
    granted(world.register(1, "x", "a"));
    world.kill(3);
    world.run(100);
    world.cut(&[&[1, 2], &[3]]);
    world.start(3, true);
    // Whoever it dials may refuse it, and no time makes a member of it.
    world.with(3, |core, _, _| [1, 2].into_iter().for_each(|peer| core.unreachable(peer)));
    world.run(10_000);
    assert!(!world.nodes[&3].is_serving(), "it would show an empty registry");
    // Let in, it asks first.
    world.heal();
    world.with(3, |core, now, effects| core.follow(&[1, 2, 3].into(), &BTreeSet::new(), now, effects));
    assert!(!world.nodes[&3].is_serving());
    let mut waited = 0;
    while !world.nodes[&3].is_serving() {
        world.run(1);
        waited += 1;
    }
    assert!(waited <= 2_050, "{waited} ms");
    assert_eq!(world.owners("x"), vec![Some("a".to_owned()); 3]);
    // One that finds nobody is alone, and waits no longer than any other.
    world.cut(&[&[1, 2], &[3]]);
    world.start(3, true);
    world.with(3, |core, now, effects| core.follow(&[1, 2, 3].into(), &BTreeSet::new(), now, effects));
    world.run(1_900);
    assert!(!world.nodes[&3].is_serving());
    world.run(200);
    assert!(world.nodes[&3].is_serving());
}

#[test]
fn a3_what_stood_without_a_lease_at_a_home_removed_for_good_is_removed() {
    removed_home(None).unwrap();
    removed_home(Some(LeaseFlaw::KeepsRetired)).expect_err("a planted flaw is seen");
}

/// Of a removed node only what is bound to a lease stays: at once, and when more of it arrives later.
fn removed_home(flaw: Option<LeaseFlaw>) -> Result<(), String> {
    let flaws = Flaws { leases: flaw, ..Flaws::default() };
    let mut world = World::new(1, 4, Weather { down_after_ms: 4_000, flaws, ..Weather::default() });
    let lease = world.lease(1, 60_000);
    world.run(50);
    let plain = granted(world.register(4, "plain", "o"));
    granted(world.register_with(4, "leased", "o", &lease));
    granted(world.register(4, "taken", "o"));
    granted(world.register(1, "elsewhere", "o"));
    world.run(100);
    // Node 3 has what the others lack, and is away.
    world.cut(&[&[3, 4], &[1, 2]]);
    granted(world.register(4, "late", "o"));
    world.run(100);
    world.kill(4);
    world.run(6_000);
    assert_eq!(world.owner(1, "plain"), None, "hidden");
    granted(world.register(2, "taken", "next"));
    let grants_of_4 = |world: &World, node: NodeId| {
        let map = world.nodes[&node].map();
        let runs = map.grants.runs().iter().filter(|(run, _)| run.node == 4);
        runs.flat_map(|(_, granted)| granted.values()).map(|grant| grant.holder.clone()).collect::<Vec<_>>()
    };
    world.run(10_000);
    assert_eq!(grants_of_4(&world, 1).len(), 3, "a node that may return is waited for");
    remain(&mut world, &[1, 2, 3], &[4]);
    world.run(2_000);
    match grants_of_4(&world, 2).len() {
        1 => {}
        0 => panic!("what is bound to a lease lives by it"),
        more => return Err(format!("{more} grants stand for ever")),
    }
    assert_eq!(world.owners("leased")[0], Some("o".to_owned()));
    assert_eq!(world.owner(2, "taken").unwrap().holder_text(), "next");
    // What arrives later is hidden, and goes the same way.
    world.heal();
    for at in 0..30 {
        world.run(200);
        for node in 1..=2 {
            assert_eq!(world.owner(node, "late"), None, "{at}");
            assert_eq!(world.owner(node, "plain"), None, "{at}");
        }
        world.keep(1, &lease).unwrap();
    }
    for node in 1..=3 {
        assert_eq!(grants_of_4(&world, node).len(), 1);
        assert_eq!(world.losers(node), Vec::<String>::new(), "nobody has lost a conflict");
    }
    assert_eq!(world.owners("elsewhere"), vec![Some("o".to_owned()); 3]);
    let ended = world.execute(2, unregister("plain", Some(plain.token)));
    assert_eq!(ended, Outcome::Ended(Ended::Before));
    granted(world.execute(3, register("plain", "again", Condition::Absent)));
    let given = |operation: &&Operation| matches!(operation, Operation::Remove { reason: Reason::Given, .. });
    let removes = world.made.values().filter(given).collect::<Vec<_>>();
    assert!(removes.iter().all(|remove| matches!(remove.id().run.node, 1 | 3)), "by the lowest live node: {removes:?}");
    world.run(500);
    world.verdict()
}

#[test]
fn a_node_that_is_not_known_as_a_member_yet_loses_nothing() {
    let mut world = calm(3);
    world.run(50);
    // Node 1 has not heard that node 3 is a member; it knows what node 3 did.
    remain(&mut world, &[1, 2], &[]);
    granted(world.register(3, "x", "o"));
    let lease = world.lease(3, 2_000);
    granted(world.register_with(3, "y", "o", &lease));
    for _ in 0..40 {
        world.run(500);
        world.keep(3, &lease).unwrap();
    }
    assert_eq!(world.owner(3, "x").unwrap().holder_text(), "o");
    assert_eq!(world.owner(3, "y").unwrap().holder_text(), "o");
}
