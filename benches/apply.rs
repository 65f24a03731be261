//! How long the replicated table takes for one command, whatever it holds already.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use quorate::model::command::{Action, Command, Condition};
use quorate::model::ident::{Meta, Name};
use quorate::model::query::{Page, Query};
use quorate::model::table::{News, Table};
use quorate::model::time::UnixMillis;

fn name(at: usize) -> Name {
    format!("services/billing/instance-{at:08}").parse().unwrap()
}

fn register(at: usize) -> Command {
    let action = Action::Register {
        name: name(at),
        owner: format!("10.0.{}.{}:4000", at / 250 % 250, at % 250).parse().unwrap(),
        meta: Meta::empty(),
        lease: None,
        condition: Condition::Free,
    };
    Command { action, node: 1, at: UnixMillis(1_600_000_000_000) }
}

fn filled(names: usize) -> Table {
    let mut table = Table::default();
    for at in 0..names {
        table.apply(&register(at), &mut News::default());
    }
    table
}

fn apply(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("apply");
    group.throughput(Throughput::Elements(1));
    for names in [1_000, 100_000] {
        let table = filled(names);
        // The clone keeps the old state alive, as a snapshot being written does.
        let fresh = register(names);
        group.bench_function(format!("register, {names} names, beside a snapshot"), |bencher| {
            bencher.iter_batched_ref(
                || table.clone(),
                |table| table.apply(&fresh, &mut News::default()),
                BatchSize::SmallInput,
            );
        });
        let taken = Command {
            action: Action::Register {
                name: name(names / 2),
                owner: "somebody else".parse().unwrap(),
                meta: Meta::empty(),
                lease: None,
                condition: Condition::Free,
            },
            ..register(0)
        };
        let mut same = table.clone();
        group.bench_function(format!("refused, {names} names"), |bencher| {
            bencher.iter(|| same.apply(black_box(&taken), &mut News::default()));
        });
        let mut own = table.clone();
        let mut at = names;
        group.bench_function(format!("register, {names} names and rising"), |bencher| {
            bencher.iter_batched(
                || {
                    at += 1;
                    register(at)
                },
                |command| own.apply(&command, &mut News::default()),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn query(criterion: &mut Criterion) {
    let table = filled(100_000);
    let whereis = Query::Whereis { name: name(50_000), token: None };
    criterion.bench_function("whereis, 100000 names", |bencher| bencher.iter(|| table.query(black_box(&whereis))));
    let page = Query::Names { page: Page { prefix: "services/".to_owned(), after: None, limit: 100 } };
    criterion.bench_function("a page of 100, 100000 names", |bencher| bencher.iter(|| table.query(black_box(&page))));
}

criterion_group!(benches, apply, query);
criterion_main!(benches);
