//! Leases under a virtual clock: how long they live, who keeps them, and how they end.

use quorate::model::command::Action;
use quorate::model::ident::{CredentialName, LeaseId};
use quorate::model::lease::LeaseStatus;
use quorate::model::outcome::{Ended, Outcome, Refusal};
use quorate::model::query::{Answer, Page, Query};

use super::world::{Weather, World, granted};

fn calm(size: u64) -> World {
    World::new(1, size, Weather { down_after_ms: 4_000, ..Weather::default() })
}

fn all(owner: &str, nodes: usize) -> Vec<Option<String>> {
    vec![Some(owner.to_owned()); nodes]
}

fn nobody(nodes: usize) -> Vec<Option<String>> {
    vec![None; nodes]
}

fn status(world: &World, node: u64, lease: &LeaseId) -> Result<LeaseStatus, Refusal> {
    match world.query(node, &Query::Lease { lease: lease.clone(), page: Page::default() }) {
        Answer::Lease(status) => Ok(status),
        Answer::Refused(refusal) => Err(refusal),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_bound_to_a_lease_stays_for_its_ttl_and_is_gone_within_a_second_more() {
    for kept_at in [1, 2] {
        let mut world = calm(3);
        let lease = world.lease(1, 3_000);
        world.run(50);
        // Bound at any node.
        granted(world.register_with(2, "x", "o", &lease));
        granted(world.register_with(1, "y", "o", &lease));
        world.run(2_000);
        let sent_ms = world.now_ms;
        let kept = world.keep(kept_at, &lease).unwrap();
        assert_eq!((kept.expires_in_ms, kept.moved, kept.lost.len()), (3_000, false, 0));
        while world.now_ms < sent_ms + 3_000 {
            for name in ["x", "y"] {
                assert_eq!(world.owners(name), all("o", 3), "{} ms after the keep-alive", world.now_ms - sent_ms);
            }
            world.run(10);
        }
        world.run(1_000);
        for name in ["x", "y"] {
            assert_eq!(world.owners(name), nobody(3));
        }
        assert_eq!(world.keep(1, &lease), Err(Refusal::LeaseExpired));
        assert_eq!(world.keep(3, &lease), Err(Refusal::LeaseExpired));
        assert_eq!(status(&world, 2, &lease), Err(Refusal::LeaseExpired));
        let refused = world.register_with(2, "x", "o", &lease);
        assert_eq!(refused, Outcome::Refused(Refusal::LeaseExpired));
        granted(world.register(3, "x", "next"));
    }
}

/// How long a lease lives, by the word of its keeper; else by what this node knows itself.
fn left(world: &mut World, node: u64, lease: &LeaseId) -> (Option<u64>, u64) {
    world.left.clear();
    world.with(node, |core, _, effects| core.ask_left(7, lease, effects));
    world.run(50);
    (world.left.iter().filter_map(|(_, left)| *left).max(), status(world, node, lease).unwrap().expires_in_ms)
}

#[test]
fn away_from_its_keeper_a_leases_time_is_the_keepers_word_or_the_most_that_it_can_be() {
    let mut world = calm(3);
    let lease = world.lease(1, 30_000);
    world.run(10_000);
    let (asked, own) = left(&mut world, 1, &lease);
    assert_eq!((asked, own), (None, 19_950), "kept here, nobody is asked");
    let (asked, own) = left(&mut world, 2, &lease);
    assert!(asked.is_some_and(|left| (19_890..=19_950).contains(&left)), "{asked:?}");
    assert_eq!(own, 30_000, "it may have been kept alive just now");
    world.cut(&[&[1], &[2, 3]]);
    world.run(5_000);
    let (asked, own) = left(&mut world, 2, &lease);
    assert_eq!(asked, None, "its keeper is out of reach");
    assert!((25_000..27_000).contains(&own), "it counts here so long: {own}");
    // Adopted, it is kept at a second node too.
    world.keep(3, &lease).unwrap();
    world.run(50);
    let (asked, _) = left(&mut world, 2, &lease);
    assert!(asked.is_some_and(|left| (29_000..=30_000).contains(&left)), "{asked:?}");
}

#[test]
fn a_revoked_lease_takes_everything_with_it_in_one_operation() {
    let mut world = calm(3);
    let lease = world.lease(1, 60_000);
    world.run(50);
    granted(world.register_with(2, "x", "o", &lease));
    granted(world.register_with(3, "y", "o", &lease));
    world.run(50);
    let entries = status(&world, 3, &lease).unwrap().entries;
    assert_eq!(entries.len(), 2);
    assert!(entries.iter().all(|entry| entry.lease.as_ref() == Some(&lease)));
    let made = world.made.len();
    let revoke = Action::RevokeLease { lease: lease.clone(), by: None };
    assert_eq!(world.execute(3, revoke.clone()), Outcome::Ended(Ended::Now));
    assert_eq!(world.made.len(), made + 1);
    world.run(50);
    assert_eq!((world.owners("x"), world.owners("y")), (nobody(3), nobody(3)));
    for node in 1..=3 {
        assert_eq!(world.execute(node, revoke.clone()), Outcome::Ended(Ended::Before));
        assert_eq!(world.keep(node, &lease), Err(Refusal::LeaseExpired));
        let Answer::Leases { leases, .. } = world.query(node, &Query::Leases { page: Page::default() }) else {
            panic!()
        };
        assert!(leases.is_empty());
    }
    world.holds();
}

#[test]
fn a_lease_under_a_chosen_id_can_be_created_again_without_harm() {
    let mut world = calm(2);
    let create = |id: &str, ttl_ms| Action::CreateLease { lease: Some(id.parse().unwrap()), ttl_ms, credential: None };
    let id: LeaseId = "worker-7".parse().unwrap();
    let created = Outcome::LeaseCreated { lease: id.clone(), ttl_ms: 5_000 };
    assert_eq!(world.execute(1, create("worker-7", 5_000)), created);
    world.run(50);
    for node in [1, 2] {
        let held = Outcome::LeaseHeld { lease: id.clone(), ttl_ms: 5_000 };
        assert_eq!(world.execute(node, create("worker-7", 5_000)), held);
        let taken = world.execute(node, create("worker-7", 6_000));
        assert_eq!(taken, Outcome::Refused(Refusal::LeaseTaken));
    }
    // An id of the registry's own form would prove the end of a lease that never was.
    assert_eq!(world.execute(1, create("1.1.1", 5_000)), Outcome::Refused(Refusal::LeaseTaken));
    assert_eq!(world.keep(2, &"never-made".parse().unwrap()), Err(Refusal::LeaseUnknown));
}

#[test]
fn a_new_lease_under_an_old_id_brings_nothing_back() {
    let mut world = calm(2);
    let id: LeaseId = "worker-7".parse().unwrap();
    let create = Action::CreateLease { lease: Some(id.clone()), ttl_ms: 1_000, credential: None };
    world.execute(1, create.clone());
    granted(world.register_with(1, "x", "o", &id));
    world.run(50);
    world.cut(&[&[1], &[2]]);
    world.run(4_000);
    // The lease has ended here, and nothing has been removed: the other side may keep it alive.
    assert_eq!(world.owner(1, "x"), None);
    assert!(matches!(world.execute(1, create), Outcome::LeaseCreated { .. }));
    assert_eq!(world.owner(1, "x"), None);
}

#[test]
fn a_lease_is_kept_and_ended_only_by_whom_it_belongs_to() {
    let mut world = calm(2);
    let name = |text: &str| Some(text.parse::<CredentialName>().unwrap());
    let create = Action::CreateLease { lease: None, ttl_ms: 5_000, credential: name("a") };
    let Outcome::LeaseCreated { lease, .. } = world.execute(1, create) else { panic!() };
    let open = world.lease(1, 5_000);
    world.run(50);
    for node in [1, 2] {
        let mut keep = |lease: &LeaseId, by| {
            let keep = quorate::registry::KeepAlive { leases: vec![lease.clone()], seen: Vec::new(), by };
            world.keep_all(node, &keep).remove(0).map(|_| ())
        };
        assert_eq!(keep(&lease, name("b")), Err(Refusal::LeaseForeign));
        assert_eq!(keep(&open, name("b")), Err(Refusal::LeaseForeign));
        assert_eq!(keep(&lease, name("a")), Ok(()));
        assert_eq!(keep(&lease, None), Ok(()));
        let revoke = Action::RevokeLease { lease: lease.clone(), by: name("b") };
        assert_eq!(world.execute(node, revoke), Outcome::Refused(Refusal::LeaseForeign));
    }
    let revoke = Action::RevokeLease { lease, by: name("a") };
    assert_eq!(world.execute(2, revoke), Outcome::Ended(Ended::Now));
}
