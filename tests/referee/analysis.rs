//! Every analysis convicts a history with the fault that it is for, and lets its clean twin pass.

use quorate::referee::analysis::verdict::Verdict::{self, Holds, Violated};
use quorate::referee::analysis::{Findings, analyse};
use quorate::referee::history::Installed::Installed;
use quorate::referee::history::Side::{Majority, Minority, Whole};
use quorate::referee::history::{Kind, Unregistered, What};

use crate::logs::{AP, CP, LEFT, Log, RIGHT, between, join, leave, members, record, register, unregister, whereis};

pub fn verdict(found: &Findings, id: &str) -> Verdict {
    let promise = found.promises.iter().find(|promise| promise.id == id);
    promise.unwrap_or_else(|| panic!("{id} is not among {:?}", found.promises)).verdict
}

pub fn cp(log: Log) -> Findings {
    analyse(&log.run("cp", CP))
}

pub fn ap(log: Log) -> Findings {
    analyse(&log.run("ap", AP))
}

/// All nodes show the same, twice, from `at` on.
fn all_show(log: &mut Log, at: f64, names: &[(&str, &str, &str)]) {
    for round in 0..2 {
        for node in 1..=5 {
            log.view(node, at + round as f64 * 100.0 + node as f64, names);
        }
    }
}

// --- linearizability

#[test]
fn a_read_that_misses_an_acknowledged_name_is_not_linearizable() {
    let history = |seen: Option<(&str, &str)>| {
        let mut log = Log::default();
        log.ok(0, 1, Whole, 0.0, 5.0, register("x", "a", "1"));
        log.ok(1, 2, Whole, 10.0, 15.0, whereis("x", seen));
        log
    };
    assert_eq!(verdict(&cp(history(Some(("a", "1")))), "linearizable-names"), Holds);
    let found = cp(history(None));
    assert_eq!(verdict(&found, "linearizable-names"), Violated);
    assert_eq!(found.verdict, Violated);
    let example = &found.names.counter_examples[0];
    assert_eq!(example.key, "x");
    assert!(example.calls.iter().any(|call| call.culprit && call.call == "whereis x: nobody"), "{example:?}");
}

#[test]
fn what_ap_does_not_promise_is_shown_and_is_no_failure() {
    let mut log = Log::default();
    log.ok(0, 1, Whole, 0.0, 5.0, register("x", "a", "1"));
    log.ok(1, 2, Whole, 10.0, 15.0, whereis("x", None));
    all_show(&mut log, 5_000.0, &[("x", "a", "1")]);
    let found = ap(log);
    let promise = found.promises.iter().find(|promise| promise.id == "linearizable-names").expect("it is there");
    assert_eq!((promise.verdict, promise.promised), (Violated, false));
    assert_ne!(found.verdict, Violated);
}

#[test]
fn a_list_of_members_at_a_revision_holds_what_had_joined_by_then() {
    let history = |seen: &[&str], revision| {
        let mut log = Log::default();
        log.ok(0, 1, Whole, 0.0, 5.0, join("g", "a", "1"));
        log.ok(1, 2, Whole, 1.0, 20.0, join("g", "b", "2"));
        log.ok(2, 3, Whole, 6.0, 9.0, members("g", seen, Some(revision)));
        log
    };
    assert_eq!(verdict(&cp(history(&["a"], 1)), "linearizable-groups"), Holds);
    assert_eq!(verdict(&cp(history(&["a", "b"], 2)), "linearizable-groups"), Holds);
    assert_eq!(verdict(&cp(history(&["a"], 2)), "linearizable-groups"), Violated);
    assert_eq!(verdict(&cp(history(&["b"], 2)), "linearizable-groups"), Violated);
}

#[test]
fn an_open_leave_may_have_happened_or_not() {
    for seen in [&["a"][..], &[]] {
        let mut log = Log::default();
        log.ok(0, 1, Whole, 0.0, 5.0, join("g", "a", "1"));
        log.call(1, 2, Whole, 6.0, leave("g", "a", "1"), Some((8.0, Kind::Info)));
        log.ok(2, 3, Whole, 10.0, 12.0, members("g", seen, Some(if seen.is_empty() { 2 } else { 1 })));
        assert_eq!(verdict(&cp(log), "linearizable-groups"), Holds, "{seen:?}");
    }
}

// --- duplicate owners

#[test]
fn two_owners_who_were_both_told_so_are_duplicates_for_as_long() {
    let mut log = Log::default();
    log.ok(0, 1, Whole, 0.0, 100.0, register("x", "a", "1"));
    log.ok(1, 3, Whole, 200.0, 300.0, register("x", "b", "2"));
    log.ok(0, 1, Whole, 1_300.0, 1_400.0, unregister("x", "1"));
    let found = cp(log);
    assert_eq!(verdict(&found, "one-owner"), Violated);
    assert_eq!(found.duplicates.seconds, 1.0, "from the second grant until the first owner begins to give up");
    assert_eq!((found.duplicates.list[0].from_ms, found.duplicates.list[0].to_ms), (300.0, 1_300.0));
    assert!(found.duplicates.list[0].seen_by_clients && !found.duplicates.list[0].seen_by_nodes);
}

#[test]
fn an_owner_who_has_begun_to_give_up_is_no_duplicate() {
    let mut log = Log::default();
    log.ok(0, 1, Whole, 0.0, 100.0, register("x", "a", "1"));
    log.call(0, 1, Whole, 150.0, unregister("x", "1"), Some((190.0, Kind::Info)));
    log.ok(1, 3, Whole, 200.0, 300.0, register("x", "b", "2"));
    // A node that lags still shows the first owner for a long time.
    for at in [400.0, 600.0, 800.0] {
        log.view(1, at, &[("x", "a", "1")]);
        log.view(3, at, &[("x", "b", "2")]);
    }
    let found = cp(log);
    assert_eq!(verdict(&found, "one-owner"), Holds, "{:?}", found.duplicates);
}

#[test]
fn two_nodes_that_show_different_owners_witness_a_grant_that_nobody_was_told_of() {
    let mut log = Log::default();
    log.ok(0, 1, Whole, 0.0, 100.0, register("x", "a", "1"));
    log.call(1, 3, Whole, 200.0, register("x", "b", "2"), Some((300.0, Kind::Info)));
    for at in [400.0, 900.0] {
        log.view(1, at, &[("x", "a", "1")]);
        log.view(3, at, &[("x", "b", "2")]);
    }
    let found = cp(log);
    assert_eq!(found.duplicates.list.len(), 1);
    assert!(found.duplicates.list[0].seen_by_nodes && !found.duplicates.list[0].seen_by_clients);
    assert_eq!((found.duplicates.list[0].from_ms, found.duplicates.list[0].to_ms), (401.0, 900.0));
}

// --- lost and resurrected

#[test]
fn an_acknowledged_name_that_is_gone_at_the_end_is_lost() {
    let history = |last: &[(&str, &str, &str)]| {
        let mut log = Log::default();
        log.ok(0, 1, Whole, 0.0, 5.0, register("x", "a", "1"));
        log.ok(0, 1, Whole, 6.0, 9.0, register("y", "b", "2"));
        log.call(0, 1, Whole, 10.0, unregister("y", "2"), Some((19.0, Kind::Info)));
        all_show(&mut log, 5_000.0, last);
        log
    };
    assert_eq!(verdict(&cp(history(&[("x", "a", "1")])), "nothing-lost"), Holds, "y may have been ended");
    for promises in [CP, AP] {
        let found = analyse(&history(&[]).run("either", promises));
        assert_eq!(verdict(&found, "nothing-lost"), Violated);
        assert_eq!(found.losses.lost.len(), 1);
        assert_eq!(found.losses.lost[0].key, "x");
    }
}

#[test]
fn a_member_that_never_left_and_is_gone_is_lost() {
    let history = |last: &[&str]| {
        let mut log = Log::default();
        log.ok(0, 1, Whole, 0.0, 5.0, join("g", "a", "1"));
        for node in 1..=5 {
            log.full_view(node, 5_000.0 + node as f64, &[], &[("g", last)]);
        }
        log
    };
    assert_eq!(verdict(&ap(history(&["a"])), "nothing-lost"), Holds);
    assert_eq!(verdict(&ap(history(&[])), "nothing-lost"), Violated);
}

#[test]
fn what_only_a_killed_node_had_was_at_risk_and_is_not_lost() {
    // Accepted at node 3 at 1,000; node 3 is killed so many milliseconds later, and its grant does not come back.
    let history = |killed_after: f64| {
        let mut log = Log::default();
        log.ok(0, 3, Whole, 990.0, 1_000.0, register("x", "a", "1.3.0.1"));
        let killed = 1_000.0 + killed_after;
        log.fault("kill", killed, killed + 2_000.0, Vec::new(), vec![3], Installed);
        all_show(&mut log, 9_000.0, &[]);
        log
    };
    let at_once = ap(history(50.0));
    assert_eq!((at_once.losses.lost.len(), at_once.losses.at_risk.len()), (0, 1));
    let later = ap(history(1_500.0));
    assert_eq!((later.losses.lost.len(), later.losses.at_risk.len()), (1, 0), "a peer had confirmed it by then");
    let cp = cp(history(50.0));
    assert_eq!(cp.losses.lost.len(), 1, "acknowledged by cp is on disk at a majority");
}

#[test]
fn a_node_that_was_cut_off_until_its_death_told_nobody() {
    let mut log = Log::default();
    log.fault("isolate", 500.0, 8_000.0, between(&[3], &[1, 2, 4, 5]), Vec::new(), Installed);
    log.ok(0, 3, Minority, 990.0, 1_000.0, register("x", "a", "1.3.0.1"));
    log.fault("kill", 4_000.0, 6_000.0, Vec::new(), vec![3], Installed);
    all_show(&mut log, 15_000.0, &[]);
    let found = ap(log);
    assert_eq!((found.losses.lost.len(), found.losses.at_risk.len()), (0, 1));
}

#[test]
fn a_name_that_was_ended_and_is_there_at_the_end_has_come_back() {
    let history = |last: &[(&str, &str, &str)]| {
        let mut log = Log::default();
        log.ok(0, 1, Whole, 0.0, 5.0, register("x", "a", "1.1.0.1"));
        log.ok(0, 1, Whole, 10.0, 15.0, unregister("x", "1.1.0.1"));
        all_show(&mut log, 5_000.0, last);
        log
    };
    assert_eq!(verdict(&ap(history(&[])), "nothing-resurrected"), Holds);
    assert_eq!(verdict(&ap(history(&[("x", "a", "2.1.0.9")])), "nothing-resurrected"), Holds, "another grant");
    assert_eq!(verdict(&ap(history(&[("x", "a", "1.1.0.1")])), "nothing-resurrected"), Violated);
}

#[test]
fn a_member_that_left_and_is_there_at_the_end_has_come_back_unless_it_joined_again() {
    let history = |again: bool| {
        let mut log = Log::default();
        log.ok(0, 1, Whole, 0.0, 5.0, join("g", "a", "1.1.0.1"));
        log.ok(0, 1, Whole, 10.0, 15.0, leave("g", "a", "1.1.0.1"));
        if again {
            log.call(1, 2, Whole, 20.0, join("g", "a", "2.2.0.1"), None);
        }
        for node in 1..=5 {
            log.full_view(node, 5_000.0 + node as f64, &[], &[("g", &["a"])]);
        }
        log
    };
    assert_eq!(verdict(&ap(history(false)), "nothing-resurrected"), Violated);
    assert_ne!(verdict(&ap(history(true)), "nothing-resurrected"), Violated);
}

#[test]
fn a_node_that_was_told_a_foreign_token_did_not_end_what_it_knew_of_the_member_itself() {
    // Cut in two: node 3 and node 1 each let m join; node 3 is asked to end node 1's grant, of which it knows nothing.
    let mut log = Log::default();
    log.cut(1_000.0, 5_000.0);
    log.ok(0, 3, Majority, 2_000.0, 2_001.0, join("g", "m", "1.3.0.1"));
    log.ok(1, 1, Minority, 2_100.0, 2_101.0, join("g", "m", "2.1.0.1"));
    log.ok(2, 3, Majority, 4_900.0, 4_901.0, leave("g", "m", "2.1.0.1"));
    for node in 1..=5 {
        log.full_view(node, 15_000.0 + node as f64, &[], &[("g", &["m"])]);
    }
    assert_ne!(verdict(&ap(log), "nothing-resurrected"), Violated);
}

#[test]
fn a_token_that_had_ended_before_ends_nothing_that_came_after_it() {
    // Found by a campaign: m leaves without a token, joins again, and a last call leaves with the first token.
    let history = |late: bool| {
        let mut log = Log::default();
        log.ok(0, 1, Whole, 0.0, 5.0, join("g", "m", "1.1.0.1"));
        let mut bare = leave("g", "m", "1.1.0.1");
        if let What::Leave { token, .. } = &mut bare {
            *token = None;
        }
        log.ok(1, 1, Whole, 2_000.0, 2_005.0, bare);
        log.ok(2, 2, Whole, 3_000.0, 3_005.0, join("g", "m", "2.2.0.1"));
        let mut last = leave("g", "m", "1.1.0.1");
        if let What::Leave { result, .. } = &mut last {
            *result = Some(if late { Unregistered::Before } else { Unregistered::Now });
        }
        log.ok(3, 3, Whole, 28_000.0, 28_005.0, last);
        for node in 1..=5 {
            log.full_view(node, 45_000.0 + node as f64, &[], &[("g", &["m"])]);
        }
        log
    };
    for judge in [ap, cp] {
        assert_ne!(verdict(&judge(history(true)), "nothing-resurrected"), Violated);
        assert_eq!(verdict(&judge(history(false)), "nothing-resurrected"), Violated, "it ended all that stood");
    }
}

#[test]
fn a_loser_that_no_node_ever_showed_held_the_name_until_its_node_was_looked_at() {
    let mut log = Log::default();
    log.ok(0, 1, Whole, 0.0, 5.0, register("x", "a", "1.1.0.1"));
    log.ok(1, 2, Whole, 0.0, 6.0, register("x", "b", "1.2.0.1"));
    log.view(2, 100.0, &[("x", "a", "1.1.0.1")]);
    log.ok(2, 2, Whole, 9_000.0, 9_005.0, whereis("x", Some(("a", "1.1.0.1"))));
    log.records(2, 9_500.0, &[record("r", "x", ("b", "1.2.0.1"), ("a", "1.1.0.1"))]);
    let found = ap(log);
    assert_eq!((found.duplicates.list[0].from_ms, found.duplicates.list[0].to_ms), (6.0, 101.0));
}

// --- stale reads

#[test]
fn a_read_is_stale_by_the_age_of_what_superseded_it() {
    let mut log = Log::default();
    log.ok(0, 1, Whole, 0.0, 5.0, register("x", "a", "1"));
    log.ok(0, 1, Whole, 10.0, 20.0, unregister("x", "1"));
    log.ok(1, 2, Whole, 15.0, 40.0, whereis("x", Some(("a", "1"))));
    log.ok(1, 2, Whole, 270.0, 280.0, whereis("x", Some(("a", "1"))));
    log.ok(1, 2, Whole, 300.0, 310.0, whereis("x", None));
    let found = ap(log);
    assert_eq!((found.stale_reads.reads, found.stale_reads.stale), (3, 1));
    assert_eq!(found.stale_reads.age_max_ms, 250.0);
}

#[test]
fn a_list_without_a_member_that_had_joined_is_stale() {
    let mut log = Log::default();
    log.ok(0, 1, Whole, 0.0, 5.0, join("g", "a", "1"));
    log.ok(1, 2, Whole, 105.0, 110.0, members("g", &[], None));
    log.ok(0, 1, Whole, 200.0, 205.0, leave("g", "a", "1"));
    log.ok(1, 2, Whole, 305.0, 310.0, members("g", &["a"], None));
    log.ok(1, 2, Whole, 405.0, 410.0, members("g", &[], None));
    let found = cp(log);
    assert_eq!((found.stale_reads.reads, found.stale_reads.stale), (3, 2));
}

// --- convergence and conflicts

/// A name registered on both sides of a cut from 1 to 5 s; what all nodes show after, and which records they have.
fn contested(after: &[(&str, &str, &str)], records: impl Fn(u64) -> Vec<quorate::referee::history::Conflict>) -> Log {
    let mut log = Log::default();
    log.cut(1_000.0, 5_000.0);
    log.ok(0, 1, Minority, 2_000.0, 2_002.0, register("x", "a", "2.1.0.1"));
    log.ok(1, 3, Majority, 2_100.0, 2_102.0, register("x", "b", "3.3.0.1"));
    for at in [3_100.0, 3_600.0, 4_100.0, 4_600.0] {
        for node in LEFT {
            log.view(node, at + node as f64, &[("x", "a", "2.1.0.1")]);
        }
        for node in RIGHT {
            log.view(node, at + node as f64, &[("x", "b", "3.3.0.1")]);
        }
    }
    all_show(&mut log, 5_400.0, after);
    all_show(&mut log, 12_000.0, after);
    for node in 1..=5 {
        log.records(node, 12_500.0, &records(node));
    }
    log
}

const A_WINS: &[(&str, &str, &str)] = &[("x", "a", "2.1.0.1")];

fn b_lost(id: &str) -> quorate::referee::history::Conflict {
    record(id, "x", ("b", "3.3.0.1"), ("a", "2.1.0.1"))
}

#[test]
fn a_settled_conflict_is_clean_and_its_duplicate_owners_end_with_it() {
    let found = ap(contested(A_WINS, |_| vec![b_lost("r1")]));
    assert_eq!(verdict(&found, "one-record-per-loser"), Holds, "{:?}", found.conflicts);
    assert_eq!(verdict(&found, "agreement"), Holds);
    assert_eq!(found.convergence.heals[0].agreed_after_ms, Some(405.0), "{:?}", found.convergence.heals);
    assert_eq!(found.conflicts.losing_grants, 1);
    assert!(found.losses.lost.is_empty(), "a grant that lost a conflict is not lost");
    let duplicate = &found.duplicates.list[0];
    assert_eq!(duplicate.from_ms, 2_102.0);
    assert!((4_600.0..=5_410.0).contains(&duplicate.to_ms), "{duplicate:?}");
    let most = found.convergence.divergence.iter().map(|point| point.distinct_views).max();
    assert_eq!(most, Some(2));
}

#[test]
fn a_loser_without_a_record_with_two_or_with_one_that_differs_between_nodes_is_convicted() {
    let missing = ap(contested(A_WINS, |_| vec![]));
    assert_eq!(verdict(&missing, "one-record-per-loser"), Violated);
    assert_eq!(missing.conflicts.missing.len(), 1);
    let twice = ap(contested(A_WINS, |_| vec![b_lost("r1"), b_lost("r2")]));
    assert_eq!(twice.conflicts.duplicate.len(), 1);
    let here_only = ap(contested(A_WINS, |node| if node == 4 { vec![] } else { vec![b_lost("r1")] }));
    assert_eq!(here_only.conflicts.wrong.len(), 1, "{:?}", here_only.conflicts);
    assert_eq!(verdict(&here_only, "one-record-per-loser"), Violated);
    let own_ids = ap(contested(A_WINS, |node| vec![b_lost(if node < 3 { "r1" } else { "r2" })]));
    assert_eq!(verdict(&own_ids, "one-record-per-loser"), Violated);
}

#[test]
fn a_record_that_blames_the_owner_or_a_stranger_is_wrong() {
    let blames_winner = record("r2", "x", ("a", "2.1.0.1"), ("b", "3.3.0.1"));
    let found = ap(contested(A_WINS, |_| vec![b_lost("r1"), blames_winner.clone()]));
    let told = |what: &str| found.conflicts.wrong.iter().filter(|line| line.contains(what)).count();
    assert_eq!(told("but it holds the name at the end"), 1, "{:?}", found.conflicts);
    // b asked later: the name was not its to take.
    assert_eq!((told("ms before b asked for it"), found.conflicts.wrong.len()), (1, 2));
    let stranger = record("r1", "x", ("b", "3.3.0.1"), ("z", "9.9.0.9"));
    let found = ap(contested(A_WINS, |_| vec![stranger.clone()]));
    assert_eq!(found.conflicts.wrong.len(), 1, "{:?}", found.conflicts);
}

#[test]
fn nodes_that_never_agree_after_a_heal_are_convicted() {
    let mut log = contested(A_WINS, |_| vec![b_lost("r1")]);
    for at in [12_900.0, 13_900.0] {
        for node in 1..=5 {
            let shows = if node == 5 { &[("x", "b", "3.3.0.1")] } else { A_WINS };
            log.view(node, at + node as f64, shows);
        }
    }
    let found = ap(log);
    assert_eq!(verdict(&found, "agreement"), Violated);
    assert_eq!(found.convergence.differing_at_end, ["x"]);
}

#[test]
fn a_name_written_to_just_now_is_no_disagreement() {
    let mut log = Log::default();
    log.cut(1_000.0, 2_000.0);
    log.ok(0, 1, Whole, 7_990.0, 8_000.0, register("x", "a", "1.1.0.1"));
    for node in 1..=5 {
        log.view(node, 8_000.0 + node as f64, if node < 3 { &[("x", "a", "1.1.0.1")] } else { &[] });
    }
    all_show(&mut log, 9_500.0, &[("x", "a", "1.1.0.1")]);
    let found = ap(log);
    assert!(found.convergence.divergence.iter().all(|point| point.differing_keys == 0));
    assert_eq!(verdict(&found, "agreement"), Holds);
}
