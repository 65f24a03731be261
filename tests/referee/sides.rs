//! Sides of a partition, figures over time, and runs that prove nothing.

use std::time::Duration;

use quorate::referee::analysis::analyse;
use quorate::referee::analysis::verdict::Verdict::{Holds, Unknown, Violated};
use quorate::referee::client::Abilities;
use quorate::referee::history::Installed::{Indeterminate, Installed, Skipped};
use quorate::referee::history::Kind;
use quorate::referee::history::Side::{Majority, Minority, Stopped, Whole};
use quorate::referee::report::data::Run;

use crate::analysis::{ap, cp, verdict};
use crate::logs::{CP, Log, PLAIN, join, register, taken, unregister, whereis};

// --- sides of a partition

#[test]
fn an_acknowledged_write_in_the_middle_of_a_minority_is_convicted() {
    let history = |kind: Kind| {
        let mut log = Log::default();
        log.cut(1_000.0, 9_000.0);
        log.call(0, 1, Minority, 2_000.0, register("x", "a", "1"), Some((4_000.0, kind)));
        log.ok(1, 3, Majority, 5_000.0, 5_005.0, register("y", "b", "2"));
        log
    };
    assert_eq!(verdict(&cp(history(Kind::Fail)), "minority-refuses"), Holds);
    assert_eq!(verdict(&cp(history(Kind::Info)), "minority-refuses"), Holds);
    assert_eq!(verdict(&cp(history(Kind::Ok)), "minority-refuses"), Violated);
}

#[test]
fn a_write_answered_after_the_heal_was_not_the_minoritys_doing() {
    let mut log = Log::default();
    log.cut(1_000.0, 3_000.0);
    log.call(0, 1, Minority, 1_500.0, register("w", "a", "3"), Some((1_600.0, Kind::Fail)));
    log.ok(0, 1, Minority, 2_500.0, 3_400.0, register("x", "a", "1"));
    assert_eq!(verdict(&cp(log), "minority-refuses"), Holds);
}

#[test]
fn a_majority_that_stands_still_after_the_election_is_convicted() {
    let history = |late: Kind| {
        let mut log = Log::default();
        log.cut(1_000.0, 9_000.0);
        log.call(1, 3, Majority, 1_100.0, register("early", "b", "1"), Some((2_100.0, Kind::Fail)));
        log.call(1, 3, Majority, 5_000.0, register("y", "b", "2"), Some((5_900.0, late)));
        log
    };
    assert_eq!(verdict(&cp(history(Kind::Ok)), "majority-goes-on"), Holds);
    assert_eq!(verdict(&cp(history(Kind::Fail)), "majority-goes-on"), Violated);
}

#[test]
fn a_majority_goes_on_by_its_nodes_however_often_the_others_refuse() {
    let history = |going_on: u64| {
        let mut log = Log::default();
        log.cut(1_000.0, 9_000.0);
        for node in 3..=5 {
            let (calls, kind) = if node < 3 + going_on { (1, Kind::Ok) } else { (9, Kind::Fail) };
            for call in 0..calls {
                let (at, token) = (5_000.0 + f64::from(call) * 100.0, format!("{node}{call}"));
                log.call(node, node, Majority, at, register(&token, "b", &token), Some((at + 50.0, kind)));
            }
        }
        log
    };
    assert_eq!(verdict(&cp(history(2)), "majority-goes-on"), Holds);
    assert_eq!(verdict(&cp(history(1)), "majority-goes-on"), Violated);
}

#[test]
fn a_node_that_is_up_and_does_not_answer_breaks_availability_a_stopped_one_does_not() {
    let history = |side, at: f64| {
        let mut log = Log::default();
        log.cut(1_000.0, 9_000.0);
        log.fault("pause", 10_000.0, 12_000.0, Vec::new(), vec![2], Installed);
        log.ok(0, 1, Minority, 2_000.0, 2_001.0, register("x", "a", "1.1.0.1"));
        log.ok(0, 1, Minority, 2_010.0, 2_011.0, taken("x", "b", "a", "1.1.0.1"));
        log.call(1, 2, side, at, register("y", "b", "2.2.0.1"), Some((at + 500.0, Kind::Info)));
        log
    };
    assert_eq!(verdict(&ap(history(Stopped, 10_500.0)), "all-answer"), Holds);
    let caught = ap(history(Majority, 9_900.0));
    assert_eq!(verdict(&caught, "all-answer"), Holds, "it was paused before it could answer");
    let silent = ap(history(Minority, 4_000.0));
    assert_eq!(verdict(&silent, "all-answer"), Violated);
    let minority = silent.availability.sides[&Minority];
    assert_eq!((minority.ok, minority.info), (2, 1), "a definite refusal is an answer");
    assert_eq!(silent.availability.longest_unavailable_ms[&Minority], 500.0);
}

#[test]
fn the_pause_of_writes_around_a_fault_is_measured() {
    let mut log = Log::default();
    log.cut(1_000.0, 9_000.0);
    for at in [900.0, 2_400.0, 2_500.0, 9_500.0] {
        log.ok(1, 3, Majority, at - 5.0, at, register(&format!("n{at}"), "b", &at.to_string()));
    }
    log.ok(1, 3, Majority, 5_000.0, 5_010.0, register("late", "b", "5010"));
    let gaps = cp(log).availability.write_gaps;
    assert_eq!((gaps[0].gap_ms, gaps[0].from_ms), (4_490.0, 5_010.0));
}

#[test]
fn latency_is_told_by_phase_and_call() {
    let mut log = Log::default();
    log.ok(0, 1, Whole, 0.0, 4.0, register("x", "a", "1"));
    log.cut(1_000.0, 2_000.0);
    log.ok(0, 3, Majority, 1_500.0, 1_540.0, whereis("x", Some(("a", "1"))));
    let found = cp(log);
    use quorate::referee::analysis::latency::Phase::{Before, During};
    let close = |measured: f64, wanted: f64| (measured - wanted).abs() < wanted / 500.0;
    assert!(close(found.latency.by_phase[&Before]["register"].max_ms, 4.0));
    assert!(close(found.latency.by_phase[&During]["whereis"].p50_ms, 40.0));
    assert_eq!(found.latency.seconds.len(), 3);
}

// --- a run that checked nothing proves nothing

fn small_clean_run() -> Log {
    let mut log = Log::default();
    log.ok(0, 3, Whole, 0.0, 4.0, register("w", "a", "1"));
    log.ok(0, 3, Whole, 10.0, 14.0, unregister("w", "1"));
    log.ok(0, 3, Whole, 20.0, 24.0, join("g", "m", "3"));
    log.cut(1_000.0, 5_000.0);
    log.call(1, 1, Minority, 2_000.0, register("x", "a", "9"), Some((3_000.0, Kind::Fail)));
    log.ok(0, 3, Majority, 4_000.0, 4_004.0, register("y", "b", "4"));
    log.ok(0, 3, Majority, 4_010.0, 4_014.0, join("g", "n", "5"));
    log.ok(0, 3, Majority, 4_020.0, 4_024.0, register("z", "b", "6"));
    log.ok(0, 3, Majority, 4_030.0, 4_034.0, unregister("z", "6"));
    for round in [6_000.0, 7_000.0] {
        for node in 1..=5 {
            log.full_view(node, round + node as f64, &[("y", "b", "4")], &[("g", &["m", "n"])]);
        }
    }
    log
}

fn required(log: Log, kinds: &[&str]) -> Run {
    let required = kinds.iter().map(|kind| kind.to_string()).collect();
    Run { required, abilities: Abilities { groups: false, ..PLAIN }, ..log.run("cp", CP) }
}

#[test]
fn a_small_run_that_tests_everything_holds() {
    let found = analyse(&required(small_clean_run(), &["halves"]));
    assert_eq!(found.verdict, Holds, "{:#?}", found.promises);
}

#[test]
fn a_required_fault_that_was_skipped_or_doubtful_makes_the_verdict_unknown() {
    for state in [Skipped, Indeterminate] {
        let mut log = small_clean_run();
        log.fault("pause", 5_200.0, 5_300.0, Vec::new(), vec![1], state);
        let found = analyse(&required(log, &["halves", "pause"]));
        assert_eq!(verdict(&found, "tested"), Unknown, "{state:?}");
        assert_eq!(found.verdict, Unknown);
    }
    assert_eq!(analyse(&required(small_clean_run(), &["halves", "kill"])).verdict, Unknown);
}

#[test]
fn a_cut_that_the_probe_does_not_confirm_makes_the_verdict_unknown() {
    let mut log = small_clean_run();
    log.probe(1_100.0, false);
    assert_eq!(verdict(&cp(log), "tested"), Unknown);
}

#[test]
fn a_kind_of_call_never_answered_in_a_fault_makes_the_verdict_unknown() {
    let mut log = small_clean_run();
    log.ok(0, 3, Whole, 8_000.0, 8_001.0, whereis("y", Some(("b", "4"))));
    assert_eq!(verdict(&cp(log), "tested"), Unknown);
}

#[test]
fn an_empty_run_is_unknown() {
    assert_eq!(cp(Log::default()).verdict, Unknown);
    assert_eq!(ap(Log::default()).verdict, Unknown);
}

#[test]
fn the_worst_verdict_wins() {
    assert!(Violated > Unknown && Unknown > Holds);
    let mut run = required(small_clean_run(), &["kill"]);
    run.bounds.convergence = Duration::from_secs(1);
    assert_eq!(analyse(&run).verdict, Unknown);
}
