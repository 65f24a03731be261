//! How fast histories are judged. The goals: 100,000 calls over 100 names in less than 0.3 s; on one name, either verdict, in less
//! than 2 s; ahead of porcupine. `QUORATE_PORCUPINE=DIR` (a checkout of its source; Go is needed) has it judge the same histories in
//! the same run.

#[path = "../tests/referee/porcupine.rs"]
mod porcupine;
#[path = "../tests/referee/toys.rs"]
#[allow(dead_code, reason = "the tests use more of them")]
mod toys;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use quorate::referee::checker::kv::{Kv, KvOp, KvRet};
use quorate::referee::checker::names::{self, NameCall, NameOp, NameRet};
use quorate::referee::checker::register::{Register, RegisterOp, RegisterRet, Value};
use quorate::referee::checker::token::Token;
use quorate::referee::checker::{self, Budget, Call, Verdict};
use quorate::referee::formats::export;
use toys::{Dice, FLAWS, Shape, ToyKv, ToyName, ToyRegister};

fn shape(calls: usize, processes: usize, open_percent: usize) -> Shape {
    Shape { calls, processes, open_percent, flaw: None }
}

/// Calls over many names, each used by so many processes at once.
fn many_names(name_count: usize, calls: usize, processes: usize, open_percent: usize) -> Vec<NameCall> {
    let mut all = Vec::new();
    for name in 0..name_count {
        let made =
            toys::run(ToyName::new(0), shape(calls / name_count, processes, open_percent), &mut Dice::new(name as u64));
        all.extend(made.into_iter().map(|call| NameCall { name: format!("name-{name}"), call }));
    }
    all
}

/// Behind all other calls: a name is given up, and found to be held still.
fn stale_name(mut calls: Vec<NameCall>) -> Vec<NameCall> {
    let end = calls.iter().filter_map(|call| call.call.complete).max().unwrap();
    let name = calls[0].name.clone();
    let owner = || std::sync::Arc::from("late");
    let token = || Some(Token::Number(1 << 60));
    let mut add = |op, ret, at| {
        let call = Call { process: 1 << 40, op, invoke: end + at, complete: Some(end + at + 1), result: Some(ret) };
        calls.push(NameCall { name: name.clone(), call });
    };
    add(NameOp::Takeover { owner: owner() }, NameRet::Granted { token: token() }, 1);
    add(NameOp::Unregister { token: token() }, NameRet::EndedNow, 3);
    add(NameOp::Whereis, NameRet::Found { owner: owner(), token: token() }, 5);
    calls
}

/// Behind all other calls: a register is written twice, and the first value is read.
fn stale_register(mut calls: Vec<Call<RegisterOp, RegisterRet>>) -> Vec<Call<RegisterOp, RegisterRet>> {
    let end = calls.iter().filter_map(|call| call.complete).max().unwrap();
    let mut add = |op, ret, at| {
        calls.push(Call { process: 1 << 40, op, invoke: end + at, complete: Some(end + at + 1), result: Some(ret) });
    };
    add(RegisterOp::Write(Value::Int(0)), RegisterRet::Done, 1);
    add(RegisterOp::Write(Value::Int(1)), RegisterRet::Done, 3);
    add(RegisterOp::Read, RegisterRet::Read(Value::Int(0)), 5);
    calls
}

/// Histories of the size and kind of Jepsen's etcd runs of 2014, some flawed.
fn like_etcd(seeds: u64) -> Vec<Vec<Call<RegisterOp, RegisterRet>>> {
    (0..seeds)
        .map(|seed| {
            let mut dice = Dice::new(seed);
            let flaw = dice.percent(70).then(|| (20 + dice.below(50), FLAWS[dice.below(FLAWS.len())]));
            let shape = Shape { calls: 90, processes: 5, open_percent: 15, flaw };
            toys::run(ToyRegister::new(5, true), shape, &mut dice)
        })
        .collect()
}

fn kv(seeds: u64) -> Vec<Vec<Call<KvOp, KvRet>>> {
    (0..seeds)
        .map(|seed| {
            let mut dice = Dice::new(seed);
            let flaw = dice.percent(70).then(|| (dice.below(180), FLAWS[dice.below(FLAWS.len())]));
            toys::run(ToyKv::new(100), Shape { calls: 200, processes: 12, open_percent: 0, flaw }, &mut dice)
        })
        .collect()
}

fn judge(calls: &[Call<RegisterOp, RegisterRet>]) -> Verdict {
    let verdict = checker::check(&Register::of(&calls.iter().collect::<Vec<_>>()), calls, &Budget::unlimited());
    assert!(!matches!(verdict, Verdict::Unknown(_)));
    verdict
}

fn judge_names(calls: &[NameCall]) -> Verdict {
    let verdict = names::check(calls, &Budget::unlimited());
    assert!(!matches!(verdict, Verdict::Unknown(_)));
    verdict
}

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("checker");
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));

    let calls = many_names(100, 100_000, 10, 1);
    group.bench_function("100,000 calls, 100 names, 1 % open", |b| b.iter(|| judge_names(black_box(&calls))));
    let calls = many_names(1, 100_000, 10, 0);
    group.bench_function("100,000 calls, one name", |b| b.iter(|| judge_names(black_box(&calls))));
    let calls = stale_name(calls);
    group.bench_function("100,000 calls, one name, a stale read", |b| b.iter(|| judge_names(black_box(&calls))));
    let calls = toys::run(ToyRegister::new(5, true), shape(100_000, 10, 0), &mut Dice::new(0));
    group.bench_function("100,000 calls, one register of 5 values", |b| b.iter(|| judge(black_box(&calls))));
    let calls = stale_register(calls);
    group.bench_function("100,000 calls, one register of 5 values, a stale read", |b| {
        b.iter(|| judge(black_box(&calls)));
    });
    let calls = like_etcd(100);
    group.bench_function("100 histories like etcd's of 2014", |b| {
        b.iter(|| calls.iter().for_each(|calls| drop(judge(black_box(calls)))));
    });
    let calls = kv(10);
    group.bench_function("10 keys of a kv store, 200 calls each, 12 at once", |b| {
        b.iter(|| {
            for calls in &calls {
                let spec = Kv::of(&calls.iter().collect::<Vec<_>>());
                drop(black_box(checker::check(&spec, calls, &Budget::unlimited())));
            }
        });
    });
    group.finish();
}

/// The same histories, one after the other, by both; each once, for porcupine may take minutes.
fn beside_porcupine(_: &mut Criterion) {
    let porcupine = match porcupine::Porcupine::build() {
        Ok(porcupine) => porcupine,
        Err(why) => return println!("beside porcupine: skipped: {why}"),
    };
    let one_register = toys::run(ToyRegister::new(5, true), shape(100_000, 10, 0), &mut Dice::new(0));
    let a_tenth = toys::run(ToyRegister::new(5, true), shape(10_000, 10, 0), &mut Dice::new(0));
    let cases = [
        ("100 histories like etcd's of 2014", like_etcd(100)),
        (
            "100,000 calls, 100 names, 1 % open",
            export::registers(&many_names(100, 100_000, 10, 1)).into_values().collect(),
        ),
        ("10,000 calls, one register of 5 values", vec![a_tenth.clone()]),
        ("10,000 calls, one register of 5 values, a stale read", vec![stale_register(a_tenth)]),
        ("100,000 calls, one register of 5 values", vec![one_register]),
    ];
    for (what, histories) in cases {
        let dir = tempfile::tempdir().unwrap();
        let files = histories.iter().enumerate().map(|(at, history)| {
            let path = dir.path().join(format!("{at}.log"));
            std::fs::write(&path, export::log(history)).unwrap();
            path
        });
        let theirs = porcupine.judge(&files.collect::<Vec<_>>());
        let began = Instant::now();
        let ours = histories.iter().map(|history| judge(black_box(history)).is_linearizable()).collect::<Vec<_>>();
        let took = began.elapsed();
        let mut finished = 0;
        for (ours, theirs) in ours.iter().zip(&theirs).filter(|(_, theirs)| theirs.verdict != "unknown") {
            assert_eq!(*ours, theirs.verdict == "linearizable", "{what}");
            finished += 1;
        }
        let their_time: Duration = theirs.iter().map(|judged| judged.took).sum();
        println!(
            "{what}: {took:.2?}; porcupine {their_time:.2?} ({finished} of {} finished), {:.1} times as long",
            theirs.len(),
            their_time.as_secs_f64() / took.as_secs_f64()
        );
    }
}

criterion_group!(checker, benches, beside_porcupine);
criterion_main!(checker);
