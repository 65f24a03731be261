//! The laws of the map: its state depends on the set of operations alone.

use std::sync::Arc;

use proptest::prelude::*;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use quorate::gossip::context::{Context, OpId, Run};
use quorate::gossip::map::{Applied, Map, State};
use quorate::gossip::message::{self, Message};
use quorate::gossip::operation::{Defeat, DropReason, Grant, MetaChange, Operation, Reason, Stamp};
use quorate::gossip::vouch::Vouch;
use quorate::model::entry::Holder;
use quorate::model::ident::Meta;
use quorate::model::time::UnixMillis;

const RUNS: usize = 3;

/// Operations of a few runs, each of which may refer to any earlier one of any run.
fn operations(choices: &[(usize, u8, u16)]) -> Vec<Operation> {
    let mut made: Vec<Operation> = Vec::new();
    let mut numbers = [0; RUNS];
    for (at, (run, kind, pick)) in choices.iter().enumerate() {
        numbers[*run] += 1;
        let id = OpId { run: Run { node: *run as u64 + 1, bits: 9 }, number: numbers[*run] };
        let stamp = Stamp { hlc: at as u64 + 1, id };
        let pick = usize::from(*pick);
        let grants = made.iter().filter_map(|made| match made {
            Operation::Add(grant) => Some(Arc::clone(grant)),
            _ => None,
        });
        let grants = grants.collect::<Vec<_>>();
        let defeats = made.iter().filter_map(|made| match made {
            Operation::Remove { grants, reason: Reason::Conflict(_), stamp } => Some((grants[0], stamp.id)),
            _ => None,
        });
        let defeats = defeats.collect::<Vec<_>>();
        let vouches = made.iter().filter_map(|made| match made {
            Operation::Vouch(vouch) => Some(Arc::clone(vouch)),
            _ => None,
        });
        let vouches = vouches.collect::<Vec<_>>();
        // Of a lease, the later vouch takes over from the earlier one.
        let moved = vouches.iter().enumerate().filter_map(|(at, older)| {
            let newer = vouches[at + 1..].iter().find(|newer| newer.lease == older.lease)?;
            Some((older.id, Arc::clone(newer)))
        });
        let moved = moved.collect::<Vec<_>>();
        let some = (!grants.is_empty()).then(|| &grants[pick % grants.len().max(1)]);
        made.push(match (kind % 12, some) {
            (3, Some(grant)) => Operation::Meta {
                grant: grant.id,
                change: MetaChange { stamp, meta: format!("{{\"at\":{at}}}").parse().unwrap() },
            },
            (4, Some(grant)) => Operation::Remove { stamp, grants: vec![grant.id], reason: Reason::Given },
            (5, Some(grant)) => {
                let owner = "o".parse().unwrap();
                let loser = ("l".parse().unwrap(), grant.token());
                let winner = (owner, id.token(at as u64));
                let (name, at) = ("n".parse().unwrap(), UnixMillis(at as u64));
                let defeat = Defeat { name, loser, lease: grant.lease.clone(), winner, at };
                Operation::Remove { stamp, grants: vec![grant.id], reason: Reason::Conflict(Box::new(defeat)) }
            }
            (6, _) if !defeats.is_empty() => {
                let (loser, record) = defeats[pick % defeats.len()];
                Operation::Acknowledge { stamp, loser, record }
            }
            // A Remove that was asked for with a token whose Add was never seen.
            (7, _) => {
                let unseen = OpId { run: Run { node: (pick % RUNS) as u64 + 1, bits: 9 }, number: pick as u64 % 9 + 1 };
                Operation::Remove { stamp, grants: vec![unseen], reason: Reason::Given }
            }
            (8, _) => Operation::Vouch(Arc::new(Vouch {
                id,
                hlc: stamp.hlc,
                lease: format!("l{}", pick % 2).parse().unwrap(),
                ttl_ms: 1_000 * (1 + pick as u64 % 3),
                credential: None,
                origin: stamp,
            })),
            (9, _) if !vouches.is_empty() => {
                Operation::Drop { stamp, vouches: vec![vouches[pick % vouches.len()].id], why: DropReason::Expired }
            }
            (10, _) if !moved.is_empty() => {
                let (older, newer) = moved[pick % moved.len()].clone();
                Operation::Drop { stamp, vouches: vec![older], why: DropReason::Moved(vec![newer]) }
            }
            (11, _) if !vouches.is_empty() => {
                let lease = &vouches[pick % vouches.len()].lease;
                let of_lease = vouches.iter().filter(|vouch| vouch.lease == *lease).map(|vouch| vouch.id);
                let bound = grants.iter().filter(|grant| grant.lease.as_ref() == Some(lease)).map(|grant| grant.id);
                let why = DropReason::Revoked { grants: bound.collect() };
                Operation::Drop { stamp, vouches: of_lease.collect(), why }
            }
            (kind, some) => Operation::Add(Arc::new(Grant {
                id,
                hlc: stamp.hlc,
                lineage: None,
                holder: match pick % 2 {
                    0 => Holder::Owner(format!("n{}", pick % 3).parse().unwrap(), format!("o{run}").parse().unwrap()),
                    _ => Holder::Member("g".parse().unwrap(), format!("m{}", pick % 3).parse().unwrap()),
                },
                lease: (pick % 3 != 0).then(|| format!("l{}", pick % 2).parse().unwrap()),
                meta: Meta::empty(),
                since: UnixMillis(0),
                takes: some.filter(|_| kind == 2).map(|grant| vec![grant.id]).unwrap_or_default(),
            })),
        });
    }
    made
}

/// A map that these operations reached in some order, each run's in order; of each run a part.
fn some_of(operations: &[Operation], rng: &mut StdRng) -> Map {
    let mut map = Map::default();
    let parts = [(); RUNS].map(|()| rng.random_range(0..=operations.len() as u64));
    let mut left =
        operations.iter().filter(|op| op.id().number <= parts[op.id().run.node as usize - 1]).collect::<Vec<_>>();
    while !left.is_empty() {
        let at = rng.random_range(0..left.len());
        match map.apply(left[at]) {
            Applied::Now => {
                assert_eq!(map.apply(left[at]), Applied::Before, "once");
                left.swap_remove(at);
            }
            Applied::Gap => {}
            Applied::Before => panic!("it was not applied before"),
        }
    }
    map
}

/// What the operations that a context covers come to, in the order in which they were made.
fn straight(operations: &[Operation], context: &Context) -> State {
    let mut map = Map::default();
    for operation in operations.iter().filter(|operation| context.covers(operation.id())) {
        assert_eq!(map.apply(operation), Applied::Now);
    }
    map.snapshot()
}

/// Through the encoding, made for what the receiver has.
fn merged(receiver: &Map, giver: &Map) -> Map {
    let mut merged = receiver.clone();
    let pieces =
        message::pieces(1, &giver.state_for(&receiver.context), &[], 0).into_iter().map(|message| match message {
            Message::Piece(piece) => piece.bytes,
            other => panic!("{other:?}"),
        });
    merged.merge(message::join(&pieces.collect::<Vec<_>>()).unwrap());
    merged
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_same_operations_by_any_route_make_the_same_state(
        choices in prop::collection::vec((0..RUNS, 0u8..12, any::<u16>()), 1..40),
        seed in any::<u64>(),
    ) {
        let operations = operations(&choices);
        let rng = &mut StdRng::seed_from_u64(seed);
        let (a, b, c) = (some_of(&operations, rng), some_of(&operations, rng), some_of(&operations, rng));
        prop_assert_eq!(a.snapshot(), straight(&operations, &a.context), "the order does not matter");
        let ab = merged(&a, &b);
        prop_assert_eq!(ab.snapshot(), straight(&operations, &ab.context), "nor does the way");
        prop_assert_eq!(ab.snapshot(), merged(&b, &a).snapshot(), "commutative");
        prop_assert_eq!(merged(&ab, &c).snapshot(), merged(&a, &merged(&b, &c)).snapshot(), "associative");
        prop_assert_eq!(merged(&ab, &b).snapshot(), ab.snapshot(), "idempotent");
        let tally = ab.grants.tally();
        let mut afresh = Map::default();
        afresh.merge(ab.snapshot());
        prop_assert_eq!(afresh.grants.tally(), tally, "the sums are those of a fresh count");
    }

    #[test]
    fn a_state_made_for_an_older_context_does_no_harm(
        choices in prop::collection::vec((0..RUNS, 0u8..12, any::<u16>()), 1..40),
        seed in any::<u64>(),
    ) {
        let operations = operations(&choices);
        let rng = &mut StdRng::seed_from_u64(seed);
        let (mut a, b) = (some_of(&operations, rng), some_of(&operations, rng));
        let state = b.state_for(&a.context);
        // More has come in the meantime.
        for operation in &operations {
            if rng.random_bool(0.5) {
                a.apply(operation);
            }
        }
        a.merge(state);
        prop_assert_eq!(a.snapshot(), straight(&operations, &a.context));
    }
}
