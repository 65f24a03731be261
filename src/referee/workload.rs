//! The clients: processes pinned to nodes, each with one call under way at most, at a rate that does not wait for the answers of others.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::client::{Abilities, Completion};
use super::history::What;
use super::holders::{Holder, Step};
use super::scene::{Caller, Scene};

/// How often a client looks for planned calls.
const PLANNED_PERIOD: Duration = Duration::from_millis(20);
/// How often, and how far apart, a final read is made until it gets an answer.
const READ_TRIES: usize = 8;
const READ_PAUSE: Duration = Duration::from_millis(250);

/// The clients of a run.
pub struct Callers {
    /// Make random calls; round the nodes.
    pub random: Vec<Caller>,
    /// One a node, for the planned calls.
    pub planned: Vec<Caller>,
    /// One a node that holds names under leases, if the system has any.
    pub holding: Vec<Caller>,
}

/// Who makes which calls.
pub fn callers(scene: &Scene, abilities: Abilities) -> Callers {
    let nodes = scene.running.nodes();
    let random = nodes.len() * scene.settings.clients_per_node;
    let planned = random + nodes.len();
    let all = planned + if abilities.leases { nodes.len() } else { 0 };
    let step = all as u64;
    let caller = |slot: usize| {
        let node = nodes[slot % nodes.len()];
        Caller { process: slot as u64, step, node, client: scene.running.client(node) }
    };
    Callers {
        random: (0..random).map(caller).collect(),
        planned: (random..planned).map(caller).collect(),
        holding: (planned..all).map(caller).collect(),
    }
}

/// Makes random calls until `end`. Arrivals are drawn, not paced by answers; those that fall into a call under way are left out.
pub async fn random_calls(scene: Arc<Scene>, mut caller: Caller, seed: u64, clients: usize, end: Duration) -> Caller {
    let mut chance = Xoshiro256PlusPlus::seed_from_u64(seed ^ (caller.process + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mean = clients as f64 / f64::from(scene.settings.rate);
    let end = scene.instant(end);
    let mut next = scene.instant(Duration::ZERO);
    loop {
        // Exponential: a Poisson process, as if every call came from somebody else.
        next += Duration::from_secs_f64((-mean * (1.0 - chance.random::<f64>()).ln()).min(1.0));
        if next < Instant::now() {
            continue;
        }
        if next >= end || scene.recorder.is_full() {
            return caller;
        }
        sleep_until(next).await;
        let what = scene.generator().next_call();
        let completion = scene.call(&mut caller, &what).await;
        scene.generator().learn(&what, &completion);
    }
}

/// Makes the planned calls of its node until `end`.
pub async fn planned_calls(scene: Arc<Scene>, mut caller: Caller, end: Duration) -> Caller {
    while scene.now() < end {
        let planned = scene.contest().next(caller.node, scene.now());
        let Some(planned) = planned else {
            sleep(PLANNED_PERIOD).await;
            continue;
        };
        let completion = scene.call(&mut caller, &planned.what).await;
        scene.contest().learn(caller.node, planned, &completion, scene.now());
    }
    caller
}

/// Lives through lease after lease until `end`. Returns the names and groups that it used.
pub async fn holding(
    scene: Arc<Scene>,
    mut caller: Caller,
    abilities: Abilities,
    seed: u64,
    end: Duration,
) -> (Caller, Vec<String>, Vec<String>) {
    let home = caller.node;
    let mut holder = Holder::new(caller.process, home, scene.running.nodes(), abilities, seed);
    while scene.now() < end && !scene.recorder.is_full() {
        match holder.next(scene.now()) {
            Step::Wait(long) => sleep(long).await,
            Step::Write { name, owner, token } => scene.resources.write(&scene.recorder, &name, &owner, &token),
            Step::Call { what, node } => {
                if caller.node != node {
                    caller.node = node;
                    caller.client = scene.running.client(node);
                }
                let sent = scene.now();
                let completion = scene.call(&mut caller, &what).await;
                holder.learn(&what, &completion, sent, scene.now());
            }
        }
    }
    if caller.node != home {
        caller.node = home;
        caller.client = scene.running.client(home);
    }
    let (names, groups) = holder.used();
    (caller, names.to_vec(), groups.to_vec())
}

/// Reads every name and group once, spread over the callers whose nodes are up and in reach of a majority. Reads that got no answer are
/// made again a few times.
pub async fn final_reads(scene: &Arc<Scene>, callers: Vec<Caller>, held: &Used) {
    let core = scene.core();
    let mut shares =
        callers.into_iter().filter(|c| core.contains(&c.node)).map(|c| (c, VecDeque::new())).collect::<Vec<_>>();
    if shares.is_empty() {
        return;
    }
    for (at, what) in every_read(scene, held).into_iter().enumerate() {
        let share = at % shares.len();
        shares[share].1.push_back(what);
    }
    let mut tasks = JoinSet::new();
    for (mut caller, reads) in shares {
        let scene = scene.clone();
        tasks.spawn(async move {
            for what in reads {
                for _ in 0..READ_TRIES {
                    match scene.call(&mut caller, &what).await {
                        Completion::Ok(_) => break,
                        Completion::Fail(_) | Completion::Info(_) => sleep(READ_PAUSE).await,
                    }
                }
            }
        });
    }
    tasks.join_all().await;
}

/// Names and groups of the holders' calls.
#[derive(Debug, Default)]
pub struct Used {
    pub names: BTreeSet<String>,
    pub groups: BTreeSet<String>,
}

fn every_read(scene: &Scene, held: &Used) -> Vec<What> {
    let mut names = scene.contest().used().clone();
    names.extend(held.names.iter().cloned());
    let generator = scene.generator();
    let (more, groups) = generator.used();
    names.extend(more.iter().cloned());
    let names = names.into_iter().map(|name| What::Whereis { name, result: None });
    let groups = groups.union(&held.groups);
    names.chain(groups.map(|group| What::Members { group: group.clone(), result: None })).collect()
}
