//! A cluster in pieces that one node holds together: messages go by way of it, and nothing flickers meanwhile.

use quorate::gossip::core::{Effect, Effects, Flaws, LeaseFlaw, Now};
use quorate::gossip::message::Message;
use quorate::model::ident::{LeaseId, NodeId};
use quorate::registry::KeepAlive;

use super::world::{Weather, World, granted};

const NODES: [NodeId; 5] = [1, 2, 3, 4, 5];

/// Keeps a lease of two seconds alive through every node in turn while a bridge forms and goes, and says when who showed otherwise.
fn bridged(seed: u64, flaw: Option<LeaseFlaw>) -> Result<(), String> {
    let flaws = Flaws { leases: flaw, ..Flaws::default() };
    let mut world = World::new(seed, 5, Weather { down_after_ms: 4_000, flaws, ..Weather::default() });
    let period_ms = 400 + seed % 7 * 100;
    let lease = world.lease(1 + seed % 5, 2_000);
    world.run(50);
    granted(world.register_with(1 + seed / 5 % 5, "x", "o", &lease));
    world.run(50 + seed * 37 % 1_000);
    let through = |round: u64| 1 + (seed + round * (1 + seed % 3)) % 5;
    for round in 0..20 {
        match round {
            2 => world.cut_but_for(3, &[&[1, 2], &[3], &[4, 5]]),
            14 => world.heal(),
            _ => {}
        }
        let kept = world.keep(through(round), &lease);
        let begun = world.now_ms;
        if let Err(refusal) = kept {
            return Err(format!("seed {seed}: round {round} through {}: {refusal:?}", through(round)));
        }
        while world.now_ms < begun + period_ms {
            world.run(10);
            if let Some(node) = NODES.into_iter().find(|node| world.owner(*node, "x").is_none()) {
                let since = world.now_ms - begun;
                return Err(format!("seed {seed}: round {round} + {since} ms: hidden at {node}"));
            }
        }
    }
    world.run(3_000);
    match world.owners("x").iter().all(Option::is_none) {
        true => world.verdict(),
        false => Err(format!("seed {seed}: it lives on without being kept alive")),
    }
}

#[test]
fn a1_a_short_lease_does_not_flicker_while_a_bridge_forms() {
    let flickers = |flaw| (0..60).filter_map(|seed| bridged(seed, flaw).err()).collect::<Vec<_>>();
    assert_eq!(flickers(None), Vec::<String>::new());
    let flawed = flickers(Some(LeaseFlaw::GoesStraight));
    assert!(flawed.iter().any(|flicker| flicker.contains("hidden")), "a planted flaw is seen: {flawed:?}");
}

/// What node 5 sends to have these leases kept alive that node 1 vouches for.
fn passed_on(world: &mut World, leases: &[LeaseId]) -> Vec<(NodeId, usize)> {
    let keep = KeepAlive { leases: leases.to_vec(), ..KeepAlive::default() };
    let mut sent = Vec::new();
    world.with(5, |core, now, effects| {
        core.keep_alive(&keep, now, effects);
        sent.extend(effects.iter().filter_map(|effect| match effect {
            Effect::Send { to, message: Message::Keep { calls } } => {
                Some((*to, calls.iter().map(|call| call.leases.len()).sum()))
            }
            _ => None,
        }));
    });
    sent
}

#[test]
fn a9_one_call_for_many_leases_is_one_message_to_each_keeper() {
    let mut world = World::new(1, 5, Weather::default());
    let mut leases = (0..300).map(|at| world.lease(1 + at % 2, 60_000)).collect::<Vec<_>>();
    leases.push(world.lease(5, 60_000));
    world.run(50);
    assert_eq!(passed_on(&mut world, &leases), [(1, 150), (2, 150)]);
    // Calls that come in shortly one after another go together, with a tick.
    let messages = |effects: &Effects| {
        let keeps = effects.iter().filter_map(|effect| match effect {
            Effect::Send { to, message: Message::Keep { calls } } => Some((*to, calls.len())),
            _ => None,
        });
        keeps.collect::<Vec<_>>()
    };
    let later = world.with(5, |core, now, effects| {
        let mut own = Effects::new();
        for lease in leases.iter().take(40) {
            let keep = KeepAlive { leases: vec![lease.clone()], ..KeepAlive::default() };
            core.keep_alive(&keep, now, &mut own);
        }
        let few = std::mem::take(&mut own);
        core.tick(Now { ms: now.ms + 50, ..now }, &mut own);
        let sent = (messages(&few).len(), messages(&own));
        effects.extend(few);
        effects.append(&mut own);
        sent
    });
    // Two more at once, for few had come by then; and what follows is those again, by other ways.
    assert_eq!((later.0, &later.1[..2]), (2, &[(1, 19), (2, 19)][..]));
    world.run(500);
    let keep = KeepAlive { leases, ..KeepAlive::default() };
    assert!(world.keep_all(5, &keep).iter().all(|kept| kept.as_ref().is_ok_and(|kept| !kept.moved)));
}
