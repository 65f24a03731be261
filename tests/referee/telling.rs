//! What watchers, losers and readers of lists are told: each analysis convicts a history with the fault that it is for, and lets its
//! clean twin pass.

use std::collections::BTreeSet;

use quorate::referee::analysis::evidence::lines;
use quorate::referee::analysis::verdict::Verdict::{Holds, Unknown, Violated};
use quorate::referee::history::Side::{Majority, Minority, Whole};
use quorate::referee::history::{KeptAlive, Membership, What};
use quorate::referee::watched::{Change, ChangeKind, ChangeRevision, Watched};

use crate::analysis::{ap, cp, verdict};
use crate::logs::{Log, alive, claim, create_lease, join, keep_alive, members, record, register, unregister};

fn change(kind: ChangeKind, key: &str, owner: &str, token: &str) -> Change {
    let (key, owner, token) = (key.to_owned(), owner.to_owned(), token.to_owned());
    Change { kind, key, owner, token, lease: None, current: None }
}

fn numbered(number: u64, change: Change) -> Watched {
    Watched::Change { revision: ChangeRevision::Number(number), changes: vec![change] }
}

fn operation(origin: &str, number: u64, change: Change) -> Watched {
    let revision = ChangeRevision::Operation { origin: origin.to_owned(), number };
    Watched::Change { revision, changes: vec![change] }
}

fn begun(after: Option<&str>) -> Watched {
    Watched::Begun { after: after.map(str::to_owned), prefix: None }
}

/// Three names registered, one given up: revisions 1 to 4. One watcher is told all, another one what is given, resumed once.
fn watched(second: &[(f64, Watched)]) -> Log {
    let mut log = Log::default();
    log.told(0, 0.0, begun(None));
    log.told(1, 0.0, begun(None));
    for (number, name) in [(1, "x"), (2, "y"), (3, "z")] {
        let at = number as f64 * 100.0;
        let token = number.to_string();
        log.ok(0, 1, Whole, at, at + 5.0, register(name, "a", &token));
        log.told(0, at + 6.0, numbered(number, change(ChangeKind::Registered, name, "a", &token)));
    }
    log.ok(0, 1, Whole, 400.0, 405.0, unregister("y", "2"));
    log.told(0, 406.0, numbered(4, change(ChangeKind::Ended, "y", "a", "2")));
    log.told(0, 410.0, begun(Some("4")));
    for (at, told) in second {
        log.told(1, *at, told.clone());
    }
    for watcher in [0, 1] {
        log.told(watcher, 3_000.0, Watched::CaughtUp);
    }
    log
}

fn whole() -> Vec<(f64, Watched)> {
    let x = numbered(1, change(ChangeKind::Registered, "x", "a", "1"));
    let y = numbered(2, change(ChangeKind::Registered, "y", "a", "2"));
    let z = numbered(3, change(ChangeKind::Registered, "z", "a", "3"));
    let gone = numbered(4, change(ChangeKind::Ended, "y", "a", "2"));
    let bookmark = Watched::Progress { revision: Some(2) };
    vec![(110.0, x), (210.0, y), (220.0, bookmark), (310.0, z), (410.0, gone)]
}

#[test]
fn a_watch_that_tells_all_in_order_holds() {
    let found = cp(watched(&whole()));
    assert_eq!(verdict(&found, "watch-exact"), Holds, "{:?}", found.watches);
    assert_eq!(found.watches.told, 8);
}

#[test]
fn a_gap_a_repetition_a_wrong_order_and_a_split_bookmark_are_found() {
    let without = |left_out: usize| {
        let mut told = whole();
        told.remove(left_out);
        cp(watched(&told)).watches
    };
    assert_eq!(lines(&without(3).missed), ["z: watcher 1 was never told of revision 3"]);
    assert_eq!(
        lines(&without(4).missed),
        ["y: watcher 1 was never told of revision 4"],
        "it says that it has caught up"
    );
    // The calls that show it: what granted z; and what granted and what ended y.
    assert_eq!([without(3).missed[0].calls.len(), without(4).missed[0].calls.len()], [1, 2]);
    let mut twice = whole();
    twice.push((500.0, twice[3].1.clone()));
    assert_eq!(cp(watched(&twice)).watches.repeated.len(), 1);
    let mut swapped = whole();
    swapped[3].0 = 420.0;
    assert_eq!(cp(watched(&swapped)).watches.disordered.len(), 1);
    let mut early = whole();
    early[2].1 = Watched::Progress { revision: Some(3) };
    assert_eq!(cp(watched(&early)).watches.disordered.len(), 1, "the bookmark was not true");
    assert_eq!(verdict(&cp(watched(&early)), "watch-exact"), Violated);
}

#[test]
fn what_is_told_differently_or_never_happened_is_untrue() {
    let mut other = whole();
    other[3].1 = numbered(3, change(ChangeKind::Registered, "z", "b", "3"));
    let found = cp(watched(&other)).watches;
    assert!(lines(&found.untrue).iter().any(|line| line.contains("differently")), "{found:?}");
    assert!(lines(&found.untrue).iter().any(|line| line.contains("nobody ever asked for")), "{found:?}");
}

#[test]
fn after_a_resync_what_was_before_is_not_owed() {
    let mut told = whole();
    told[1].1 = Watched::Resync;
    assert_eq!(cp(watched(&told)).watches.missed, []);
    assert_eq!(cp(watched(&told)).watches.resyncs, 1);
}

#[test]
fn a_watcher_with_a_filter_is_told_that_and_nothing_else() {
    let history = |keys: &[(&str, u64)]| {
        let mut log = watched(&whole());
        log.told(2, 0.0, Watched::Begun { after: None, prefix: Some("z".to_owned()) });
        log.told(2, 1.0, Watched::Progress { revision: Some(0) });
        for (key, number) in keys {
            let token = number.to_string();
            log.told(2, 350.0, numbered(*number, change(ChangeKind::Registered, key, "a", &token)));
        }
        log.told(2, 3_000.0, Watched::CaughtUp);
        cp(log).watches
    };
    let right = history(&[("z", 3)]);
    assert_eq!((right.missed.len(), right.untrue.len()), (0, 0), "{right:?}");
    assert_eq!(history(&[]).missed.len(), 1);
    assert_eq!(history(&[("x", 1), ("z", 3)]).untrue.len(), 1);
}

/// Without one order: two origins, operations 1 and 2 of each.
fn gossiped(second: &[(f64, Watched)]) -> Log {
    let mut log = Log::default();
    for watcher in [0, 1] {
        log.told(watcher, 0.0, begun(None));
    }
    let all = every_operation();
    for (at, told) in &all {
        log.told(0, *at, told.clone());
    }
    log.ok(0, 1, Whole, 1_500.0, 1_505.0, register("x", "a", "1.1.a.1"));
    log.ok(1, 2, Whole, 1_500.0, 1_505.0, register("y", "b", "1.2.b.1"));
    log.ok(0, 1, Whole, 1_600.0, 1_605.0, unregister("x", "1.1.a.1"));
    log.ok(1, 2, Whole, 1_600.0, 1_605.0, register("z", "c", "2.2.b.2"));
    for (at, told) in second {
        log.told(1, *at, told.clone());
    }
    for watcher in [0, 1] {
        log.told(watcher, 2_500.0, begun(Some("there")));
        log.told(watcher, 5_000.0, Watched::CaughtUp);
    }
    for node in 1..=5 {
        log.view(node, 6_000.0 + node as f64, &[("y", "b", "1.2.b.1"), ("z", "c", "2.2.b.2")]);
    }
    log
}

fn every_operation() -> Vec<(f64, Watched)> {
    let x = operation("1.a", 1, change(ChangeKind::Registered, "x", "a", "1.1.a.1"));
    let gone = operation("1.a", 2, change(ChangeKind::Ended, "x", "a", "1.1.a.1"));
    let y = operation("2.b", 1, change(ChangeKind::Registered, "y", "b", "1.2.b.1"));
    let z = operation("2.b", 2, change(ChangeKind::Registered, "z", "c", "2.2.b.2"));
    vec![(1_510.0, x), (1_512.0, y), (1_610.0, gone), (1_612.0, z)]
}

#[test]
fn without_one_order_each_origin_has_its_own_and_twice_is_no_harm() {
    let mut told = every_operation();
    // The other origin first, and something once more.
    told.swap(0, 1);
    (told[0].0, told[1].0) = (told[1].0, told[0].0);
    told.push((1_700.0, told[3].1.clone()));
    let found = ap(gossiped(&told));
    assert_eq!(verdict(&found, "watch-at-least-once"), Holds, "{:?}", found.watches);
    assert!(found.watches.compared_at_end > 3);
}

#[test]
fn without_one_order_what_is_never_told_or_told_before_its_turn_convicts() {
    let mut missed = every_operation();
    missed.remove(2);
    let found = ap(gossiped(&missed));
    assert_eq!(verdict(&found, "watch-at-least-once"), Violated);
    assert_eq!(found.watches.wrong_at_end.len(), 1, "{:?}", found.watches);
    let mut turned = every_operation();
    turned[0].0 = 1_650.0;
    assert_eq!(ap(gossiped(&turned)).watches.disordered.len(), 1);
}

/// `a` and `b` joined `g`, the watcher's position went, and `c` joined.
fn after_a_resync(told: &[Watched], shown: &[&str]) -> Vec<String> {
    let mut log = Log::default();
    log.ok(0, 1, Whole, 1_500.0, 1_505.0, join("g", "a", "1.1.a.1"));
    log.ok(1, 2, Whole, 1_500.0, 1_505.0, join("g", "b", "1.2.b.1"));
    log.ok(1, 2, Whole, 1_700.0, 1_705.0, join("g", "c", "2.2.b.2"));
    log.told(0, 0.0, begun(None));
    for (at, told) in told.iter().enumerate() {
        log.told(0, 1_800.0 + at as f64, told.clone());
    }
    log.told(0, 5_000.0, Watched::CaughtUp);
    for node in 1..=5 {
        log.full_view(node, 6_000.0 + node as f64, &[], &[("g", shown)]);
    }
    lines(&ap(log).watches.wrong_at_end)
}

#[test]
fn without_one_order_what_a_lost_position_hid_may_be_so_and_what_was_told_after_it_must() {
    let here = |member: &str| change(ChangeKind::Joined, "g", member, "t");
    let joined = operation("2.b", 2, here("c"));
    let left = operation("2.b", 3, change(ChangeKind::Left, "g", "b", "t"));
    let none = Vec::<String>::new();
    let unfinished = [Watched::Resync, joined.clone()];
    assert_eq!(after_a_resync(&unfinished, &["a", "b", "c"]), none);
    assert_eq!(after_a_resync(&unfinished, &["a", "b"]).len(), 1, "it was told of c");
    assert_eq!(after_a_resync(&[Watched::Resync, joined.clone(), left], &["a", "b", "c"]).len(), 1, "b had left");
    let state = Watched::Change { revision: ChangeRevision::Local, changes: vec![here("a"), here("b")] };
    let whole = [Watched::Resync, state, Watched::Progress { revision: None }, joined];
    assert_eq!(after_a_resync(&whole, &["a", "b", "c"]), none);
    assert_eq!(after_a_resync(&whole, &["a", "b", "c", "d"]).len(), 1, "all that there was, and no d");
}

#[test]
fn watches_that_nobody_resumed_prove_nothing() {
    let mut log = Log::default();
    log.ok(0, 1, Whole, 100.0, 105.0, register("x", "a", "1"));
    log.told(0, 0.0, begun(None));
    log.told(0, 106.0, numbered(1, change(ChangeKind::Registered, "x", "a", "1")));
    assert_eq!(verdict(&cp(log), "watch-exact"), Unknown);
}

/// Both sides of a cut register `x` under leases that they keep alive; `a` loses, and a watcher is told so.
fn contested(told: Option<(&str, &str)>) -> Log {
    let mut log = unwatched(told);
    log.told(0, 2_100.0, operation("1.a", 9, change(ChangeKind::Conflict, "x", "a", "1.1.a.1")));
    log
}

/// The same, and no watcher is there.
fn unwatched(told: Option<(&str, &str)>) -> Log {
    let lost = record("r", "x", ("a", "1.1.a.1"), ("b", "1.2.b.1"));
    let mut log = Log::default();
    log.ok(0, 1, Whole, 0.0, 5.0, create_lease("a", 3_000));
    log.ok(1, 3, Whole, 0.0, 5.0, create_lease("b", 3_000));
    log.cut(100.0, 2_000.0);
    log.ok(0, 1, Minority, 200.0, 205.0, claim("x", "a", "1.1.a.1"));
    log.ok(1, 3, Majority, 300.0, 305.0, claim("x", "b", "1.2.b.1"));
    log.view(1, 1_900.0, &[("x", "a", "1.1.a.1")]);
    for node in 1..=5 {
        log.view(node, 2_200.0 + node as f64, &[("x", "b", "1.2.b.1")]);
    }
    for at in [1_000.0, 2_500.0, 4_000.0, 6_000.0] {
        log.ok(0, 1, Whole, at, at + 5.0, alive("a"));
        log.ok(1, 3, Whole, at, at + 5.0, alive("b"));
    }
    if let Some((lease, id)) = told {
        let lost = vec![record(id, "x", ("a", "1.1.a.1"), ("b", "1.2.b.1"))];
        log.ok(2, 1, Whole, 6_500.0, 6_505.0, keep_alive(lease, KeptAlive::Alive { lost, moved: false }));
    }
    for node in 1..=5 {
        log.view(node, 6_000.0 + node as f64, &[("x", "b", "1.2.b.1")]);
        log.records(node, 7_000.0 + node as f64, std::slice::from_ref(&lost));
    }
    log
}

#[test]
fn a_loser_that_is_never_told_and_one_that_is_told_of_anothers_loss_convict() {
    let found = ap(contested(Some(("a", "r"))));
    assert_eq!(verdict(&found, "losers-told"), Holds, "{:?}", found.tidings);
    assert_eq!(verdict(&ap(contested(None)), "losers-told"), Violated);
    assert_eq!(verdict(&ap(unwatched(None)), "losers-told"), Violated, "all nodes showed that they knew");
    let mut cut_again = unwatched(None);
    cut_again.cut(2_300.0, 8_000.0);
    assert_eq!(ap(cut_again).tidings.owed, 0, "whoever answered may not have known");
    let found = ap(contested(Some(("b", "r"))));
    assert_eq!((found.tidings.missing.len(), found.tidings.wrong.len()), (1, 1), "{:?}", found.tidings);
}

#[test]
fn a_contested_name_that_everybody_lost_is_convicted() {
    let history = |last: &[(&str, &str, &str)]| {
        let mut log = Log::default();
        log.cut(100.0, 2_000.0);
        log.ok(0, 1, Minority, 200.0, 205.0, register("x", "a", "1.1.a.1"));
        log.ok(1, 3, Majority, 300.0, 305.0, register("x", "b", "1.2.b.1"));
        let a_lost = record("r", "x", ("a", "1.1.a.1"), ("b", "1.2.b.1"));
        let b_lost = record("s", "x", ("b", "1.2.b.1"), ("a", "1.1.a.1"));
        let records = if last.is_empty() { vec![a_lost, b_lost] } else { vec![b_lost] };
        for node in 1..=5 {
            log.view(node, 6_000.0 + node as f64, last);
            log.records(node, 7_000.0 + node as f64, &records);
        }
        log
    };
    assert_eq!(verdict(&ap(history(&[("x", "a", "1.1.a.1")])), "one-record-per-loser"), Holds);
    assert_eq!(verdict(&ap(history(&[])), "one-record-per-loser"), Violated);
}

#[test]
fn a_member_that_is_listed_twice_convicts_and_lists_are_measured_as_sets() {
    let history = |twice: &[&str]| {
        let mut log = Log::default();
        log.ok(0, 1, Whole, 0.0, 5.0, join("g", "a", "1"));
        log.ok(1, 2, Whole, 10.0, 15.0, members("g", &[], None));
        let members = BTreeSet::from(["a".to_owned()]);
        let twice = twice.iter().map(|member| member.to_string()).collect();
        let result = Some(Membership { members, twice, revision: None });
        log.ok(1, 2, Whole, 20.0, 25.0, What::Members { group: "g".to_owned(), result });
        ap(log)
    };
    let found = history(&[]);
    assert_eq!(verdict(&found, "no-member-twice"), Holds);
    let sets = &found.sets;
    assert_eq!((sets.members, sets.stable, sets.stale, sets.stable_after_max_ms), (1, 1, 1, 5.0));
    assert_eq!(verdict(&history(&["a"]), "no-member-twice"), Violated);
}
