//! How long the map of `ap` takes: to apply operations, to give its state away, to take another's in.

use std::collections::BTreeSet;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

use quorate::gossip::context::{Context, OpId, Run};
use quorate::gossip::core::{Core, CoreConfig, Effects, Flaws, Now};
use quorate::gossip::hlc::Hlc;
use quorate::gossip::map::Map;
use quorate::gossip::operation::{Grant, Operation};
use quorate::gossip::rank::Policy;
use quorate::model::command::{Action, Condition};
use quorate::model::entry::Holder;
use quorate::model::ident::Meta;
use quorate::model::query::Query;
use quorate::model::time::UnixMillis;

const ENTRIES: u64 = 100_000;

fn add(node: u64, number: u64) -> Operation {
    let id = OpId { run: Run { node, bits: 7 }, number };
    Operation::Add(Arc::new(Grant {
        id,
        hlc: number,
        lineage: None,
        holder: Holder::Owner(
            format!("service/{node}/{:08}", number * 7_919 % ENTRIES).parse().unwrap(),
            format!("10.0.0.{node}:{number}").parse().unwrap(),
        ),
        lease: None,
        meta: Meta::empty(),
        since: UnixMillis(number),
        takes: Vec::new(),
    }))
}

fn filled(node: u64) -> Map {
    let mut map = Map::default();
    for number in 1..=ENTRIES {
        map.apply(&add(node, number));
    }
    map
}

fn merge(c: &mut Criterion) {
    let mut group = c.benchmark_group("map with 100,000 entries");
    group.sample_size(10);
    let (one, two) = (filled(1), filled(2));
    let mut growing = one.clone();
    let mut number = ENTRIES;
    group.bench_function("apply one more", |b| {
        b.iter(|| {
            number += 1;
            black_box(growing.apply(&add(1, number)))
        });
    });
    let operations = (1..=ENTRIES).map(|number| add(1, number)).collect::<Vec<_>>();
    group.bench_function("apply all", |b| {
        b.iter_batched(
            Map::default,
            |mut map| {
                for operation in &operations {
                    map.apply(operation);
                }
                map
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function("state for a node with nothing", |b| b.iter(|| black_box(one.state_for(&Context::default()))));
    group.bench_function("state for a node with all", |b| b.iter(|| black_box(one.state_for(&one.context))));
    group.bench_function("merge as many others", |b| {
        b.iter_batched(
            || (one.clone(), two.state_for(&one.context)),
            |(mut map, state)| {
                map.merge(state);
                map
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function("merge nothing new", |b| {
        b.iter_batched(
            || (one.clone(), one.state_for(&one.context)),
            |(mut map, state)| {
                map.merge(state);
                map
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

/// A node alone with so many names.
fn node(names: u64) -> Core {
    let config = CoreConfig {
        run: Run { node: 1, bits: 7 },
        peers: Vec::new(),
        retired: BTreeSet::new(),
        entering: false,
        policy: Policy::Oldest,
        down_after_ms: 30_000,
        kept_operations: 200_000,
        seed: 1,
        flaws: Flaws::default(),
    };
    let now = Now { ms: 0, wall_ms: 0 };
    let mut core = Core::new(config, Hlc::default(), now);
    for number in 0..names {
        core.execute(&register(number), now, &mut Effects::new());
    }
    core
}

fn register(number: u64) -> Action {
    Action::Register {
        name: format!("service/{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).parse().unwrap(),
        owner: format!("10.0.0.1:{number}").parse().unwrap(),
        meta: Meta::empty(),
        lease: None,
        condition: Condition::Free,
    }
}

fn commands(c: &mut Criterion) {
    let mut group = c.benchmark_group("node");
    group.sample_size(10);
    for names in [1_000, 1_000_000] {
        let mut core = node(names);
        let now = Now { ms: 0, wall_ms: 0 };
        let mut next = names;
        group.bench_function(format!("register one more than {names} names"), |b| {
            b.iter(|| {
                next += 1;
                black_box(core.execute(&register(next), now, &mut Effects::new()))
            });
        });
        let mut number = 0;
        group.bench_function(format!("whereis among {names} names"), |b| {
            b.iter(|| {
                number = (number + 7_919) % names;
                let Action::Register { name, .. } = register(number) else { unreachable!() };
                black_box(core.query(&Query::Whereis { name, token: None }, false, now))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, merge, commands);
criterion_main!(benches);
