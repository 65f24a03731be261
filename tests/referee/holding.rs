//! Leases, tokens, certainty and sessions: each analysis convicts a history with the fault that it is for, and lets its clean twin pass.

use quorate::referee::analysis::verdict::Verdict::{Holds, Unknown, Violated};
use quorate::referee::history::Side::Whole;
use quorate::referee::history::{Installed, KeptAlive, Kind, Unregistered, What};
use quorate::referee::watched::{Change, ChangeKind, ChangeRevision, Watched};

use crate::analysis::{ap, cp, verdict};
use crate::logs::{Log, alive, claim, create_lease, join, keep_alive, members, register, taken, unregister, whereis};

/// `a` holds `x` under a lease of 1,000 ms that was last kept alive at 500 ms, so that it may run out at 1,500 ms.
fn held() -> Log {
    let mut log = Log::default();
    log.ok(0, 1, Whole, 0.0, 5.0, create_lease("a", 1_000));
    log.ok(0, 1, Whole, 10.0, 15.0, claim("x", "a", "1"));
    log.ok(0, 1, Whole, 500.0, 505.0, alive("a"));
    log
}

/// The same, and another owner is granted the name at `at`.
fn followed(at: f64) -> Log {
    let mut log = held();
    log.ok(1, 2, Whole, at, at + 5.0, register("x", "b", "2"));
    log.ok(1, 2, Whole, 9_000.0, 9_005.0, whereis("x", Some(("b", "2"))));
    log
}

#[test]
fn a_name_granted_to_another_before_the_lease_was_due_ended_too_early() {
    let found = cp(followed(1_600.0));
    assert_eq!(verdict(&found, "no-early-expiry"), Holds, "{:?}", found.expiry);
    assert_eq!(verdict(&found, "linearizable-names"), Holds);
    let found = cp(followed(1_200.0));
    assert_eq!(verdict(&found, "no-early-expiry"), Violated);
    assert_eq!(verdict(&found, "linearizable-names"), Violated, "no machine ends a lease before its time");
    assert_eq!(verdict(&found, "one-certain-owner"), Violated);
    assert_eq!(verdict(&found, "one-owner"), Violated);
}

#[test]
fn a_fault_without_an_answered_keep_alive_proves_nothing_unless_there_was_nobody_to_answer() {
    let history = |killed: &[u64]| {
        let mut log = followed(1_600.0);
        log.fault("kill", 3_000.0, 6_000.0, Vec::new(), killed.to_vec(), Installed::Installed);
        cp(log)
    };
    assert_eq!(verdict(&history(&[1, 2]), "no-early-expiry"), Unknown);
    assert_eq!(verdict(&history(&[1, 2, 3, 4, 5]), "no-early-expiry"), Holds);
}

#[test]
fn what_is_told_ended_before_its_time_ended_too_early_in_either_mode() {
    let history = |at| {
        let mut log = held();
        log.ok(0, 1, Whole, at, at + 5.0, keep_alive("a", KeptAlive::Ended));
        log.ok(1, 2, Whole, 9_000.0, 9_005.0, whereis("x", None));
        log
    };
    for judge in [cp, ap] {
        assert_eq!(judge(history(1_300.0)).expiry.early.len(), 1);
        assert_eq!(judge(history(1_600.0)).expiry.early.len(), 0);
    }
}

/// A watcher is told that the lease ran out, first one and then another.
fn told_expired(at: f64) -> Log {
    expiry_told_after(held(), at)
}

fn expiry_told_after(mut log: Log, at: f64) -> Log {
    let change = Change {
        kind: ChangeKind::Expired,
        key: "x".to_owned(),
        owner: "a".to_owned(),
        token: "1".to_owned(),
        lease: Some("a".to_owned()),
        current: None,
    };
    for (watcher, at) in [(0, at), (1, at + 3_000.0)] {
        let changes = vec![change.clone()];
        log.told(watcher, at, Watched::Change { revision: ChangeRevision::Number(2), changes });
    }
    log.ok(1, 2, Whole, 9_000.0, 9_005.0, whereis("x", None));
    log
}

#[test]
fn a_watcher_that_was_told_of_an_expiry_too_early_convicts() {
    assert_eq!(verdict(&ap(told_expired(1_300.0)), "no-early-expiry"), Violated);
    assert_eq!(verdict(&ap(told_expired(1_600.0)), "no-early-expiry"), Holds);
}

#[test]
fn watchers_that_are_all_told_of_an_expiry_too_late_convict_unless_a_new_leader_gave_it_more_time() {
    assert_eq!(verdict(&cp(told_expired(2_600.0)), "no-late-expiry"), Holds, "one of them was told in time");
    assert_eq!(verdict(&cp(told_expired(3_500.0)), "no-late-expiry"), Violated);
    let mut elected = told_expired(3_500.0);
    elected.cut(900.0, 1_000.0);
    assert_eq!(verdict(&cp(elected), "no-late-expiry"), Holds);
}

#[test]
fn of_a_lease_that_nobody_was_told_of_nobody_knows_when_it_is_due() {
    let mut log = Log::default();
    log.call(0, 1, Whole, 0.0, create_lease("a", 1_000), Some((1_000.0, Kind::Info)));
    let found = cp(expiry_told_after(log, 8_000.0)).expiry;
    assert_eq!((found.late.len(), found.shown_after_max_ms), (0, 0.0), "{found:?}");
}

#[test]
fn a_keep_alive_without_an_answer_proves_nothing_and_excuses_a_late_end() {
    let history = |unanswered: bool, seen_at| {
        let mut log = held();
        if unanswered {
            log.call(0, 1, Whole, 1_400.0, alive("a"), Some((2_400.0, Kind::Info)));
        }
        log.ok(1, 2, Whole, seen_at, seen_at + 5.0, taken("x", "b", "a", "1"));
        log.ok(1, 2, Whole, 9_000.0, 9_005.0, whereis("x", None));
        log
    };
    assert_eq!(verdict(&cp(history(false, 2_600.0)), "no-late-expiry"), Holds, "ttl and a second");
    assert_eq!(verdict(&cp(history(false, 3_500.0)), "no-late-expiry"), Violated);
    assert_eq!(verdict(&cp(history(true, 3_500.0)), "no-late-expiry"), Holds);
    assert_eq!(verdict(&cp(history(true, 5_500.0)), "no-late-expiry"), Violated);
}

#[test]
fn a_new_leader_may_give_a_lease_its_full_time_again() {
    let history = |cut: bool| {
        let mut log = held();
        if cut {
            log.cut(900.0, 1_000.0);
        }
        log.ok(1, 2, Whole, 3_500.0, 3_505.0, taken("x", "b", "a", "1"));
        log.ok(1, 2, Whole, 19_000.0, 19_005.0, whereis("x", None));
        log
    };
    assert_eq!(cp(history(false)).expiry.late.len(), 1);
    assert_eq!(cp(history(true)).expiry.late.len(), 0);
}

#[test]
fn what_was_bound_to_a_revoked_lease_is_gone_once_that_is_answered() {
    let history = |seen: Option<(&str, &str)>| {
        let mut log = held();
        let revoke = What::Revoke { lease: "a".to_owned(), result: Some(Unregistered::Now) };
        log.ok(0, 1, Whole, 700.0, 705.0, revoke);
        log.ok(1, 2, Whole, 800.0, 805.0, whereis("x", seen));
        log.ok(1, 2, Whole, 9_000.0, 9_005.0, whereis("x", seen));
        log
    };
    let found = cp(history(None));
    assert_eq!(verdict(&found, "linearizable-names"), Holds, "{:?}", found.names);
    assert_eq!(verdict(&found, "nothing-lost"), Unknown, "it was ended");
    let found = cp(history(Some(("a", "1"))));
    assert_eq!(verdict(&found, "linearizable-names"), Violated);
    assert_eq!(verdict(&found, "nothing-resurrected"), Violated);
}

#[test]
fn members_end_with_their_lease_and_not_before() {
    let history = |at, seen: &[&str]| {
        let mut log = Log::default();
        log.ok(0, 1, Whole, 0.0, 5.0, create_lease("a", 1_000));
        let What::Join { group, member, result, .. } = join("g", "a", "1") else { unreachable!() };
        log.ok(0, 1, Whole, 10.0, 15.0, What::Join { group, member, lease: Some("a".to_owned()), result });
        log.ok(1, 2, Whole, at, at + 5.0, members("g", seen, Some(if seen.is_empty() { 2 } else { 1 })));
        log
    };
    assert_eq!(verdict(&cp(history(500.0, &["a"])), "linearizable-groups"), Holds);
    assert_eq!(verdict(&cp(history(500.0, &[])), "linearizable-groups"), Violated);
    assert_eq!(verdict(&cp(history(1_500.0, &[])), "linearizable-groups"), Holds);
}

#[test]
fn a_client_is_certain_only_while_its_lease_surely_lives() {
    let mut log = held();
    // From 1,500 ms on it cannot know; at 2,000 ms it is told that the lease lives.
    log.ok(0, 1, Whole, 1_990.0, 2_000.0, alive("a"));
    log.ok(1, 2, Whole, 1_600.0, 1_605.0, register("x", "b", "2"));
    log.ok(1, 2, Whole, 9_000.0, 9_005.0, whereis("x", Some(("b", "2"))));
    let found = cp(log);
    let overlaps = found.certainties.overlaps.iter().map(|o| (o.from_ms, o.to_ms)).collect::<Vec<_>>();
    assert_eq!(overlaps, [(2_000.0, 2_990.0)]);
}

#[test]
fn tokens_have_to_rise_and_to_be_one_owners() {
    let history = |second: &str| {
        let mut log = Log::default();
        log.ok(0, 1, Whole, 0.0, 5.0, register("x", "a", "5"));
        log.ok(0, 1, Whole, 10.0, 15.0, unregister("x", "5"));
        log.ok(1, 2, Whole, 20.0, 25.0, register("x", "b", second));
        log
    };
    assert_eq!(verdict(&cp(history("6")), "tokens-rise"), Holds);
    assert_eq!(verdict(&cp(history("4")), "tokens-rise"), Violated);
    assert_eq!(verdict(&cp(history("5")), "tokens-rise"), Violated);
}

#[test]
fn a_sleepers_write_is_to_be_stopped_and_a_certain_owners_is_not() {
    let history = |writes: &[(f64, &str, &str, bool)]| {
        let mut log = followed(1_600.0);
        for (at, owner, token, accepted) in writes {
            log.wrote(*at, "x", owner, token, *accepted);
        }
        log
    };
    let stopped = cp(history(&[(100.0, "a", "1", true), (2_000.0, "b", "2", true), (2_500.0, "a", "1", false)]));
    assert_eq!(verdict(&stopped, "stale-owners-fenced"), Holds);
    assert_eq!(stopped.fencing.saves, 1);
    let let_through = cp(history(&[(2_000.0, "b", "2", true), (2_500.0, "a", "1", true)]));
    assert_eq!(verdict(&let_through, "stale-owners-fenced"), Violated);
    let wrongly_stopped = cp(history(&[(100.0, "a", "1", false)]));
    assert_eq!(verdict(&wrongly_stopped, "stale-owners-fenced"), Violated);
    let untried = cp(history(&[(100.0, "a", "1", true)]));
    assert_eq!(verdict(&untried, "stale-owners-fenced"), Unknown);
}

#[test]
fn a_client_that_misses_its_own_write_or_reads_backwards_is_an_anomaly() {
    let mut log = Log::default();
    log.ok(0, 1, Whole, 0.0, 5.0, register("x", "a", "1"));
    log.ok(0, 1, Whole, 10.0, 15.0, whereis("x", None));
    log.ok(0, 1, Whole, 20.0, 25.0, unregister("x", "1"));
    log.ok(1, 2, Whole, 30.0, 35.0, register("x", "b", "2"));
    log.ok(2, 2, Whole, 40.0, 45.0, whereis("x", Some(("b", "2"))));
    log.ok(2, 2, Whole, 50.0, 55.0, whereis("x", Some(("a", "1"))));
    let sessions = ap(log).sessions;
    assert_eq!((sessions.reads, sessions.read_your_writes, sessions.monotonic_reads), (3, 1, 1));
    assert_eq!(sessions.monotonic_writes, 0, "two clients wrote");
    assert_eq!(sessions.per_10_000(1), 3_333.3);
}

#[test]
fn a_node_that_shows_a_clients_writes_in_the_wrong_order_is_an_anomaly() {
    let mut log = Log::default();
    log.ok(0, 1, Whole, 0.0, 5.0, register("x", "a", "1"));
    log.ok(0, 1, Whole, 6.0, 7.0, whereis("x", Some(("a", "1"))));
    log.ok(0, 1, Whole, 10.0, 15.0, unregister("x", "1"));
    log.ok(0, 1, Whole, 20.0, 25.0, register("x", "b", "2"));
    log.ok(1, 2, Whole, 40.0, 45.0, whereis("x", Some(("b", "2"))));
    log.ok(2, 2, Whole, 50.0, 55.0, whereis("x", Some(("a", "1"))));
    let sessions = ap(log).sessions;
    assert_eq!((sessions.monotonic_writes, sessions.writes_follow_reads), (1, 1));
}
