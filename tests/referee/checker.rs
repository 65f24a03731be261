//! The checker held against brute force, its engines against each other, and planted flaws that it has to convict.

use std::fmt::Debug;

use quorate::referee::checker::groups::OneGroup;
use quorate::referee::checker::kv::Kv;
use quorate::referee::checker::multi::MultiRegister;
use quorate::referee::checker::mutex::Mutex;
use quorate::referee::checker::names::{NameCall, NameOp, NameRet, OneName};
use quorate::referee::checker::register::{Register, RegisterOp, RegisterRet, Value};
use quorate::referee::checker::token::Token;
use quorate::referee::checker::{self, Budget, Call, Engines, Spec, Verdict};

use crate::toys::{self, Dice, FLAWS, Shape, Toy, ToyGroup, ToyKv, ToyMutex, ToyName, ToyRegister, ToyRegisters};

/// How many histories of each kind are tried.
const ROUNDS: u64 = 1_500;

struct Counted {
    legal: usize,
    illegal: usize,
}

/// Small histories, sound and flawed: both engines and the race have to say what brute force says, and a violation has to be true.
fn agree_with_brute_force<T: Toy, S: Spec>(
    toy: impl Fn(&mut Dice) -> T,
    convert: impl Fn(Vec<Call<T::Op, T::Ret>>) -> Vec<Call<S::Op, S::Ret>>,
    spec: impl Fn(&[&Call<S::Op, S::Ret>]) -> S,
) -> Counted
where
    S::Op: Clone,
    S::Ret: Clone,
{
    let mut counted = Counted { legal: 0, illegal: 0 };
    for seed in 0..ROUNDS {
        let mut dice = Dice::new(seed);
        let flaw = dice.percent(70).then(|| (dice.below(7), FLAWS[dice.below(FLAWS.len())]));
        let shape = Shape {
            calls: 3 + dice.below(6),
            processes: 2 + dice.below(3),
            open_percent: [0, 20, 40][dice.below(3)],
            flaw,
        };
        let calls = convert(toys::run(toy(&mut dice), shape, &mut dice));
        if calls.is_empty() {
            continue;
        }
        let spec = spec(&calls.iter().collect::<Vec<_>>());
        let expected = toys::brute_force(&spec, &calls);
        // What is concluded from the whole history may only make the search shorter.
        let plain = spec.plain().unwrap_or_else(|| spec.clone());
        assert_eq!(toys::brute_force(&plain, &calls), expected, "seed {seed}: {calls:#?}");
        assert!(expected || flaw.is_some(), "seed {seed}: a sound history is called illegal: {calls:#?}");
        let verdicts = [Engines::Race, Engines::DepthFirst, Engines::Frontier]
            .map(|engines| checker::check_with(&spec, &calls, &Budget::unlimited(), engines));
        for verdict in &verdicts {
            assert_eq!(verdict.is_linearizable(), expected, "seed {seed}: {verdict:?} of {calls:#?}");
            assert_eq!(verdict, &verdicts[0], "seed {seed}");
        }
        match &verdicts[0] {
            Verdict::NotLinearizable(violation) => {
                counted.illegal += 1;
                assert!(calls_known(&calls, violation), "seed {seed}");
                prefix_tells(&plain, &calls, violation.at, seed);
                if !violation.from_any_state {
                    let kept: Vec<_> = violation.calls.iter().map(|&index| calls[index].clone()).collect();
                    assert!(
                        !toys::brute_force(&spec, &kept),
                        "seed {seed}: {violation:?} explains nothing: {calls:#?}"
                    );
                }
            }
            Verdict::Linearizable => counted.legal += 1,
            Verdict::Unknown(why) => panic!("seed {seed}: {why}"),
        }
    }
    assert!(counted.legal > 100 && counted.illegal > 50, "{} legal, {} illegal", counted.legal, counted.illegal);
    counted
}

fn calls_known<O: Debug, R: Debug>(calls: &[Call<O, R>], violation: &checker::Violation) -> bool {
    violation.calls.contains(&violation.call)
        && violation.calls.is_sorted_by_key(|&index| calls[index].invoke)
        && calls[violation.call].complete == Some(violation.at)
}

/// Up to the violation's event nothing explains the history; without that event something does.
fn prefix_tells<S: Spec>(spec: &S, calls: &[Call<S::Op, S::Ret>], at: u64, seed: u64)
where
    S::Op: Clone,
    S::Ret: Clone,
{
    let until = |end: u64| -> Vec<Call<S::Op, S::Ret>> {
        let begun = calls.iter().filter(|call| call.invoke <= at);
        // What returns later still returns what it returned: it is open only in time.
        let cut =
            begun.map(|call| Call { complete: call.complete.filter(|&complete| complete <= end), ..call.clone() });
        cut.collect()
    };
    assert!(!toys::brute_force(spec, &until(at)), "seed {seed}: the event at {at} is explicable");
    assert!(toys::brute_force(spec, &until(at - 1)), "seed {seed}: an event before {at} is inexplicable already");
}

#[test]
fn registers_are_judged_as_brute_force_judges_them() {
    agree_with_brute_force(|dice| ToyRegister::new(1 + dice.below(4), true), |calls| calls, Register::of);
}

#[test]
fn mutexes_are_judged_as_brute_force_judges_them() {
    agree_with_brute_force(|_| ToyMutex::default(), |calls| calls, |_| Mutex);
}

#[test]
fn kv_stores_are_judged_as_brute_force_judges_them() {
    agree_with_brute_force(|_| ToyKv::new(100), |calls| calls, Kv::of);
}

#[test]
fn transactions_are_judged_as_brute_force_judges_them() {
    agree_with_brute_force(|_| ToyRegisters::default(), toys::as_txns, |_| MultiRegister);
}

#[test]
fn names_are_judged_as_brute_force_judges_them() {
    let toy = |dice: &mut Dice| ToyName::new(2 + dice.below(3));
    agree_with_brute_force(toy, |calls| calls, OneName::of);
}

#[test]
fn groups_are_judged_as_brute_force_judges_them() {
    let toy = |dice: &mut Dice| ToyGroup::new(dice.percent(60));
    agree_with_brute_force(toy, |calls| calls, OneGroup::of);
}

/// Sound histories much too long for brute force: no specification may refuse what its toy does.
#[test]
fn long_sound_histories_are_linearizable() {
    for seed in 0..20 {
        let mut dice = Dice::new(seed);
        let shape = Shape { calls: 3_000, processes: 6, open_percent: (seed % 2) as usize, flaw: None };
        let budget = Budget::unlimited();
        let register = toys::run(ToyRegister::new(5, true), shape, &mut dice);
        assert_eq!(
            checker::check(&Register::of(&register.iter().collect::<Vec<_>>()), &register, &budget),
            Verdict::Linearizable,
            "seed {seed}"
        );
        let kv = toys::run(ToyKv::new(100), shape, &mut dice);
        let spec = Kv::of(&kv.iter().collect::<Vec<_>>());
        assert_eq!(checker::check(&spec, &kv, &budget), Verdict::Linearizable, "seed {seed}");
        let name = toys::run(ToyName::new(4), shape, &mut dice);
        let spec = OneName::of(&name.iter().collect::<Vec<_>>());
        assert_eq!(checker::check(&spec, &name, &budget), Verdict::Linearizable, "seed {seed}");
        let group = toys::run(ToyGroup::new(seed % 3 != 0), shape, &mut dice);
        let spec = OneGroup::of(&group.iter().collect::<Vec<_>>());
        assert_eq!(checker::check(&spec, &group, &budget), Verdict::Linearizable, "seed {seed}");
    }
}

/// A read of what has been overwritten, late in a long history.
#[test]
fn a_stale_read_in_a_long_history_is_convicted_and_told_in_a_few_calls() {
    for seed in 0..5 {
        let shape = Shape { calls: 2_000, processes: 5, open_percent: 0, flaw: None };
        let mut calls = toys::run(ToyRegister::new(0, false), shape, &mut Dice::new(seed));
        let end = calls.iter().filter_map(|call| call.complete).max().unwrap();
        let call = |op, ret, invoke| Call { process: 9, op, invoke, complete: Some(invoke + 1), result: Some(ret) };
        calls.push(call(RegisterOp::Write(Value::Int(-1)), RegisterRet::Done, end + 1));
        calls.push(call(RegisterOp::Write(Value::Int(-2)), RegisterRet::Done, end + 3));
        calls.push(call(RegisterOp::Read, RegisterRet::Read(Value::Int(-1)), end + 5));
        let verdict = checker::check(&Register::of(&calls.iter().collect::<Vec<_>>()), &calls, &Budget::unlimited());
        let violation = verdict.violation().expect("it is illegal");
        let count = calls.len();
        assert_eq!(violation.call, count - 1);
        assert_eq!(violation.states_before, ["a value that was never read"]);
        assert_eq!(violation.calls, [count - 2, count - 1], "{violation:?}");
        assert!(violation.from_any_state);
    }
}

fn name_call(process: u64, op: NameOp, invoke: u64, complete: Option<u64>, result: Option<NameRet>) -> NameCall {
    NameCall { name: "billing".to_owned(), call: Call { process, op, invoke, complete, result } }
}

fn token(number: u64) -> Option<Token> {
    Some(Token::Number(number))
}

fn names(calls: &[NameCall]) -> Verdict {
    checker::names::check(calls, &Budget::unlimited())
}

#[test]
fn a_name_granted_twice_at_once_is_a_violation() {
    let register = |process, owner: &str, invoke, number| {
        let op = NameOp::Register { owner: owner.into() };
        name_call(process, op, invoke, Some(invoke + 1), Some(NameRet::Granted { token: token(number) }))
    };
    let calls = [register(1, "a", 0, 5), register(2, "b", 2, 6)];
    let verdict = names(&calls);
    let violation = verdict.violation().expect("two owners at once");
    assert_eq!((violation.key.as_deref(), violation.call, &violation.calls[..]), (Some("billing"), 1, &[0, 1][..]));
    assert_eq!(violation.states_before, ["a (token 5)"]);
}

#[test]
fn a_token_that_does_not_rise_is_a_violation() {
    let calls = |second| {
        let granted = |number| Some(NameRet::Granted { token: token(number) });
        let register = || NameOp::Register { owner: "a".into() };
        [
            name_call(1, register(), 0, Some(1), granted(5)),
            name_call(1, NameOp::Unregister { token: token(5) }, 2, Some(3), Some(NameRet::EndedNow)),
            name_call(1, register(), 4, Some(5), granted(second)),
        ]
    };
    assert_eq!(names(&calls(6)), Verdict::Linearizable);
    assert!(names(&calls(5)).violation().is_some());
    assert!(names(&calls(4)).violation().is_some());
}

#[test]
fn an_open_register_explains_one_token_and_no_second() {
    let open = || name_call(1, NameOp::Register { owner: "a".into() }, 0, None, None);
    let found = |invoke, number| {
        let ret = NameRet::Found { owner: "a".into(), token: token(number) };
        name_call(2, NameOp::Whereis, invoke, Some(invoke + 1), Some(ret))
    };
    let nobody = |invoke| name_call(2, NameOp::Whereis, invoke, Some(invoke + 1), Some(NameRet::Nobody));
    assert_eq!(names(&[open(), nobody(1), found(3, 7), found(5, 7)]), Verdict::Linearizable);
    assert!(names(&[open(), found(1, 7), found(3, 8)]).violation().is_some());
    assert!(names(&[open(), found(1, 7), nobody(3)]).violation().is_some());
    assert!(names(&[found(1, 7)]).violation().is_some(), "nobody registered");
}

#[test]
fn a_grant_seen_only_after_it_was_ended_by_its_token_had_been_issued() {
    let end = |invoke, ret| name_call(2, NameOp::Unregister { token: token(7) }, invoke, Some(invoke + 1), Some(ret));
    let found = NameRet::Found { owner: "a".into(), token: token(7) };
    let calls = [
        name_call(1, NameOp::Register { owner: "a".into() }, 0, None, None),
        name_call(2, NameOp::Whereis, 1, Some(2), Some(found)),
        end(3, NameRet::EndedNow),
        end(5, NameRet::EndedBefore),
    ];
    assert_eq!(names(&calls), Verdict::Linearizable);
    assert!(names(&calls[3..]).violation().is_some(), "that token was never issued");
}

#[test]
fn no_calls_are_unknown() {
    assert!(matches!(names(&[]), Verdict::Unknown(_)));
    assert!(matches!(checker::check(&Register::default(), &[], &Budget::unlimited()), Verdict::Unknown(_)));
}

#[test]
fn a_budget_that_runs_out_is_unknown() {
    // Many overlapping writes of few values, and a read of a value that nobody wrote: nothing but the whole search can tell.
    let op = |value| RegisterOp::Write(Value::Int(value));
    let mut calls: Vec<Call<RegisterOp, RegisterRet>> = (0..40)
        .map(|n| Call {
            process: n,
            op: op(n as i64),
            invoke: n,
            complete: Some(1_000 + n),
            result: Some(RegisterRet::Done),
        })
        .collect();
    for n in 0..20 {
        let ret = Some(RegisterRet::Read(Value::Int((n * 7 % 40) as i64)));
        calls.push(Call {
            process: 50,
            op: RegisterOp::Read,
            invoke: 100 + 2 * n,
            complete: Some(101 + 2 * n),
            result: ret,
        });
    }
    let ret = Some(RegisterRet::Read(Value::Int(99)));
    calls.push(Call { process: 50, op: RegisterOp::Read, invoke: 2_000, complete: Some(2_001), result: ret });
    assert!(matches!(
        checker::check(&Register::of(&calls.iter().collect::<Vec<_>>()), &calls, &Budget::steps(20_000)),
        Verdict::Unknown(_)
    ));
    assert!(matches!(
        checker::check(&Register::of(&calls.iter().collect::<Vec<_>>()), &calls, &Budget::until(&|| true)),
        Verdict::Unknown(_)
    ));
}
