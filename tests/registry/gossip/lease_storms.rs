//! Seeded storms with leases: clients keep theirs alive through any node, or stop; after the heal all agree on which live.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng, rngs::StdRng};

use quorate::gossip::core::Flaws;
use quorate::gossip::rank::Policy;
use quorate::model::command::Action;
use quorate::model::ident::{LeaseId, NodeId};
use quorate::model::outcome::{Outcome, Refusal};

use super::world::{Weather, World};

struct Client {
    lease: LeaseId,
    ttl_ms: u64,
    /// When the last keep-alive that was acknowledged was sent.
    kept_ms: u64,
    /// It goes on keeping its lease alive to the end.
    faithful: bool,
    lost: bool,
}

fn up(world: &World, rng: &mut StdRng) -> Option<NodeId> {
    let up = world.nodes.keys().copied().filter(|node| world.nodes[node].is_serving()).collect::<Vec<_>>();
    (!up.is_empty()).then(|| up[rng.random_range(0..up.len())])
}

fn act(world: &mut World, clients: &mut Vec<Client>, rng: &mut StdRng) {
    let Some(node) = up(world, rng) else { return };
    match rng.random_range(0..10) {
        0 if clients.len() < 12 => {
            let ttl_ms = rng.random_range(1_000..6_000);
            let sent_ms = world.now_ms;
            let lease = world.lease(node, ttl_ms);
            clients.push(Client { lease, ttl_ms, kept_ms: sent_ms, faithful: rng.random_bool(0.5), lost: false });
        }
        1..=3 if !clients.is_empty() => {
            let at = rng.random_range(0..clients.len());
            let name = format!("n{}", rng.random_range(0..6));
            world.register_with(node, &name, &format!("c{at}"), &clients[at].lease.clone());
        }
        4 if !clients.is_empty() && rng.random_bool(0.2) => {
            let at = rng.random_range(0..clients.len());
            let client = &mut clients[at];
            if let Outcome::Ended(_) =
                world.execute(node, Action::RevokeLease { lease: client.lease.clone(), by: None })
            {
                (client.faithful, client.lost) = (false, true);
            }
        }
        _ if !clients.is_empty() => {
            let at = rng.random_range(0..clients.len());
            keep(world, node, &mut clients[at]);
        }
        _ => {}
    }
}

fn keep(world: &mut World, node: NodeId, client: &mut Client) {
    let sent_ms = world.now_ms;
    match world.keep(node, &client.lease) {
        Ok(_) => client.kept_ms = sent_ms,
        Err(Refusal::LeaseExpired) => client.lost = true,
        Err(_) => {}
    }
}

fn storm(seed: u64, kills: bool, kept_operations: usize) -> (World, Vec<Client>) {
    let mut rng = StdRng::seed_from_u64(seed);
    let size = rng.random_range(2..=5);
    let weather = Weather {
        policy: Policy::Oldest,
        loss: 0.05,
        twice: 0.05,
        delay_ms_max: 60,
        down_after_ms: 3_000,
        kept_operations,
        flaws: Flaws::default(),
    };
    let mut world = World::new(seed, size, weather);
    let mut clients = Vec::new();
    for _ in 0..rng.random_range(3..7) {
        match rng.random_range(0..5) {
            0 | 1 => {
                let left = rng.random_range(1..(1u64 << size) - 1);
                let (a, b): (Vec<NodeId>, Vec<NodeId>) = (1..=size).partition(|node| left >> (node - 1) & 1 == 1);
                world.cut(&[&a, &b]);
            }
            2 => world.heal(),
            3 if kills && world.nodes.len() > 1 => world.kill(rng.random_range(1..=size)),
            _ => {}
        }
        for _ in 0..rng.random_range(5..40) {
            world.run(rng.random_range(1..150));
            act(&mut world, &mut clients, &mut rng);
        }
        for node in 1..=size {
            if !world.nodes.contains_key(&node) && rng.random_bool(0.7) {
                world.restart(node);
            }
        }
    }
    for node in 1..=size {
        if !world.nodes.contains_key(&node) {
            world.restart(node);
        }
    }
    world.heal();
    let until_ms = world.now_ms + 25_000;
    while world.now_ms < until_ms {
        world.run(200);
        for client in clients.iter_mut().filter(|client| client.faithful && !client.lost) {
            if let Some(node) = up(&world, &mut rng) {
                keep(&mut world, node, client);
            }
        }
    }
    // What was lost on the way has its time to be pulled.
    world.run(400);
    (world, clients)
}

fn verdict(seed: u64, kills: bool, kept_operations: usize) {
    let (mut world, clients) = storm(seed, kills, kept_operations);
    for client in &clients {
        let due = world.now_ms - client.kept_ms;
        let lives = world.nodes.iter().map(|(node, core)| {
            let map = core.map();
            (*node, (map.vouches.lives(&client.lease), map.grants.bound_to(&client.lease).count()))
        });
        let lives = lives.collect::<BTreeMap<_, _>>();
        for (node, (lives, bound)) in &lives {
            let told = format!("seed {seed}: node {node}: {}, kept {due} ms ago of {}", client.lease, client.ttl_ms);
            if due < client.ttl_ms {
                assert_eq!(*lives, Some(true), "{told}");
            } else if due > client.ttl_ms + 10_000 {
                assert_eq!((*lives, *bound), (None, 0), "{told}");
            }
        }
    }
    let live = clients.iter().filter(|client| client.faithful && !client.lost).count();
    let kept = clients.iter().filter(|client| world.now_ms - client.kept_ms < client.ttl_ms).count();
    assert!(kept <= live, "seed {seed}");
    // Nobody keeps anything alive any more, and all has its time to arrive.
    world.run(20_000);
    world.holds();
}

#[test]
fn after_any_storm_a_lease_lives_if_and_only_if_it_is_kept_alive() {
    for seed in 0..50 {
        verdict(seed, false, 10_000);
    }
}

#[test]
fn leases_survive_nodes_that_lose_their_state() {
    for seed in 3_000..3_040 {
        verdict(seed, true, 10_000);
    }
}

#[test]
fn leases_survive_a_kept_log_that_is_too_short() {
    for seed in 4_000..4_025 {
        // The world reads what a node has just done from its log: a restart may replace all leases at once.
        verdict(seed, true, 40);
    }
}
