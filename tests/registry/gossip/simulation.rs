//! Seeded storms over the core: faults first, then heal, then all must agree, and on what the model says.

use rand::{RngExt, SeedableRng, rngs::StdRng};

use quorate::gossip::core::Flaws;
use quorate::gossip::rank::Policy;
use quorate::model::command::{Action, Condition};
use quorate::model::ident::{NodeId, Token};
use quorate::model::outcome::Outcome;
use quorate::model::query::Answer;

use super::world::{Weather, World, register, unregister, whereis};

/// One storm: random commands under random faults, then a heal and quiet.
fn storm(seed: u64, weather: Weather, kills: bool) -> World {
    let mut rng = StdRng::seed_from_u64(seed);
    let size = rng.random_range(2..=6);
    let mut world = World::new(seed, size, weather);
    let mut tokens: Vec<(String, Token)> = Vec::new();
    for _ in 0..rng.random_range(3..8) {
        match rng.random_range(0..6) {
            0 | 1 => {
                let left = rng.random_range(1..(1u64 << size) - 1);
                let (a, b): (Vec<NodeId>, Vec<NodeId>) = (1..=size).partition(|node| left >> (node - 1) & 1 == 1);
                world.cut(&[&a, &b]);
            }
            2 => {
                let alone = (1..=size).map(|node| [node]).collect::<Vec<_>>();
                world.cut(&alone.iter().map(|side| &side[..]).collect::<Vec<_>>());
            }
            3 if rng.random_bool(0.5) => {
                let alone = (1..=size).map(|node| [node]).collect::<Vec<_>>();
                world.cut_but_for(rng.random_range(1..=size), &alone.iter().map(|side| &side[..]).collect::<Vec<_>>());
            }
            3 => world.heal(),
            4 if kills && world.nodes.len() > 1 => {
                let node = rng.random_range(1..=size);
                world.kill(node);
            }
            _ => {
                let node = rng.random_range(1..=size);
                world.skew(node, rng.random_range(-5_000..5_000));
            }
        }
        if kills {
            let node = rng.random_range(1..=size);
            if !world.nodes.contains_key(&node) {
                world.restart(node);
            }
        }
        for _ in 0..rng.random_range(5..40) {
            world.run(rng.random_range(1..200));
            let up = world.nodes.keys().copied().filter(|node| world.nodes[node].is_serving()).collect::<Vec<_>>();
            if let Some(node) = (!up.is_empty()).then(|| up[rng.random_range(0..up.len())]) {
                command(&mut world, node, &mut rng, &mut tokens);
            }
        }
    }
    for node in 1..=size {
        if !world.nodes.contains_key(&node) {
            world.restart(node);
        }
    }
    world.heal();
    world.run(15_000);
    world
}

pub fn command(world: &mut World, node: NodeId, rng: &mut StdRng, tokens: &mut Vec<(String, Token)>) {
    let name = format!("n{}", rng.random_range(0..5));
    // Owners are mostly their own node's, sometimes everybody's: the same owner twice is no conflict.
    let owner = if rng.random_bool(0.2) { "roaming".to_owned() } else { format!("o{node}-{}", rng.random_range(0..2)) };
    let token = (!tokens.is_empty()).then(|| tokens[rng.random_range(0..tokens.len())].clone());
    let member = format!("m{}", rng.random_range(0..3)).parse().unwrap();
    let group = format!("g{}", rng.random_range(0..2)).parse().unwrap();
    let meta = format!("{{\"at\":{}}}", rng.random_range(0..3)).parse().unwrap();
    let action = match rng.random_range(0..12) {
        0..=3 => register(&name, &owner, Condition::Free),
        4 => {
            let (name, owner) = (name.parse().unwrap(), owner.parse().unwrap());
            Action::Register { name, owner, meta, lease: None, condition: Condition::Free }
        }
        5 => register(&name, &owner, Condition::Takeover),
        6 => unregister(&name, None),
        7 | 8 => match &token {
            Some((name, token)) => unregister(name, Some(*token)),
            None => unregister(&name, None),
        },
        9 => match &token {
            Some((name, token)) => register(name, &owner, Condition::Token(*token)),
            None => register(&name, &owner, Condition::Absent),
        },
        10 => Action::Join { group, member, meta, lease: None },
        _ => Action::Leave { group, member, token: None },
    };
    let key = match &action {
        Action::Register { name, .. } => Some(name.to_string()),
        _ => None,
    };
    if let (Outcome::Granted { entry, .. }, Some(name)) = (world.execute(node, action), key) {
        let shown = world.query(node, &whereis(&name, Some(entry.token)));
        assert!(matches!(shown, Answer::Entry(_)) || world.is_flawed(), "a node shows its own write: {shown:?}");
        tokens.push((name, entry.token));
    }
}

pub fn rough(policy: Policy, flaws: Flaws) -> Weather {
    Weather { policy, loss: 0.05, twice: 0.05, delay_ms_max: 60, down_after_ms: 3_000, kept_operations: 10_000, flaws }
}

#[test]
fn after_any_storm_all_agree_on_what_has_not_ended() {
    for seed in 0..150 {
        let policy = if seed % 3 == 0 { Policy::Newest } else { Policy::Oldest };
        let mut weather = rough(policy, Flaws::default());
        if seed % 2 == 0 {
            weather.down_after_ms = 30_000;
        }
        storm(seed, weather, false).holds();
    }
}

#[test]
fn a_kept_log_that_is_too_short_changes_nothing() {
    for seed in 1_000..1_080 {
        let weather = Weather { kept_operations: 12, ..rough(Policy::Oldest, Flaws::default()) };
        // The world reads the operations that a command makes from the log: twelve are enough for that, seldom for a peer.
        storm(seed, weather, false).holds();
    }
}

#[test]
fn nodes_that_lose_their_state_take_it_back() {
    for seed in 2_000..2_100 {
        storm(seed, rough(Policy::Oldest, Flaws::default()), true).holds();
    }
}

#[test]
fn one_seed_gives_one_run() {
    let run = || {
        let world = storm(7, rough(Policy::Oldest, Flaws::default()), true);
        world.nodes.values().map(|core| (core.status(), core.context().clone())).collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}

#[test]
fn a_node_that_never_resolves_is_convicted() {
    let flaws = Flaws { never_resolve: true, ..Flaws::default() };
    let convicted = (0..20).filter(|seed| storm(*seed, rough(Policy::Oldest, flaws), false).verdict().is_err());
    assert!(convicted.count() > 10);
}

#[test]
fn a_state_transfer_without_context_is_convicted() {
    let flaws = Flaws { transfer_without_context: true, ..Flaws::default() };
    let convicted = (0..20).filter_map(|seed| storm(seed, rough(Policy::Oldest, flaws), false).verdict().err());
    let returned = convicted.filter(|wrong| wrong.contains("has ended")).count();
    assert!(returned > 10, "{returned}");
}
