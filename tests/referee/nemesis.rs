//! Faults that overlap, last, or touch nothing but answers, on a registry that cannot go wrong.

use std::collections::BTreeSet;

use quorate::referee::analysis::verdict::Verdict;
use quorate::referee::compare::{Comparison, Entrant, compare};
use quorate::referee::history::{ANSWER_DROPPED, Event, Installed, Kind, Process, Side, What};
use quorate::referee::nemesis::Course;
use quorate::referee::plan::Plan;
use quorate::referee::report;
use tokio::sync::watch;

use super::comparison::{shown, verdict_on};
use super::runner::{Odd, comparison, run_on};

async fn judged(odd: Odd, faults: &str, seconds: u64) -> quorate::referee::analysis::Findings {
    let out = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (_keep, stop) = watch::channel(false);
    let plan = Plan::new(&faults.parse().unwrap(), seconds, 5, 11).unwrap();
    let entrants = vec![Entrant { system: Box::new(odd), decides: true }];
    let wanted = Comparison { entrants, course: Course::Symbolic(plan), ..comparison(out.path(), "none") };
    report::judge(compare(wanted, stop, &|_, _| {}).await.unwrap()).findings.remove(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_core_that_goes_on_holds_and_one_that_does_not_is_convicted() {
    let (good, dead) = tokio::join!(
        judged(Odd::default(), "core-only", 12),
        judged(Odd { unknown_every: 1, ..Odd::default() }, "core-only", 12)
    );
    assert_eq!(good.verdict, Verdict::Holds, "{}", shown(&good));
    let lasting = good.faults.iter().filter(|fault| fault.to_ms.is_none()).collect::<Vec<_>>();
    assert_eq!(lasting.len(), 2, "{:?}", good.faults);
    assert!(lasting.iter().all(|fault| fault.state == Installed::Installed));
    assert_eq!(verdict_on(&dead, "majority-goes-on"), Verdict::Violated, "{}", shown(&dead));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_answers_leave_calls_open_and_are_nobodys_fault() {
    let recorded = run_on(&Odd::default(), "drop-response", 8, 3).await.unwrap();
    let lost = recorded.events.iter().filter(|event| event.error.as_deref() == Some(ANSWER_DROPPED));
    let lost = lost.collect::<Vec<&Event>>();
    let kinds = lost.iter().map(|event| (event.what.is_read(), event.kind == Kind::Info)).collect::<BTreeSet<_>>();
    assert_eq!(
        kinds,
        BTreeSet::from([(true, false), (false, true)]),
        "a lost read had no effect, a lost write may have"
    );
    let share =
        lost.len() as f64 / recorded.events.iter().filter(|event| event.side == Some(Side::Majority)).count() as f64;
    assert!((0.02..0.25).contains(&share), "{share}");
    let found = judged(Odd::default(), "drop-response", 8).await;
    assert_eq!(found.verdict, Verdict::Holds, "{}", shown(&found));
    assert_eq!(verdict_on(&found, "all-answer"), Verdict::Holds, "{}", shown(&found));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overlapping_faults_are_each_begun_and_lifted_and_nothing_is_left_of_them() {
    let recorded = run_on(&Odd::default(), "chaos", 24, 4).await.unwrap();
    let mut open = BTreeSet::new();
    let mut most = 0;
    for event in &recorded.events {
        let What::Fault(told) = &event.what else { continue };
        match (told.state, told.begins) {
            (Installed::Installed, true) => assert!(open.insert(told.id), "{told:?}"),
            (Installed::Installed, false) => assert!(open.remove(&told.id), "{told:?}"),
            // What this registry cannot have done to it.
            (Installed::Skipped, _) => assert!(["lose", "replace"].contains(&told.harm.as_str()), "{told:?}"),
            (Installed::Indeterminate, _) => assert_eq!(told.detail, "under way"),
        }
        most = most.max(open.len());
    }
    assert!(open.is_empty() && most >= 3, "{most} at once, {open:?} left");
    let last =
        recorded.events.iter().rfind(|event| matches!(event.process, Process::Client(_)) && event.side.is_some());
    assert_eq!(last.unwrap().side, Some(Side::Whole));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_system_meets_overlapping_and_lasting_faults_as_the_first_did() {
    let first = run_on(&Odd::default(), "flap,core-only", 24, 5).await.unwrap();
    let (_keep, stop) = watch::channel(false);
    let course = Course::Resolved(first.schedule.clone());
    let settings = quorate::referee::scene::Settings::default();
    let second = quorate::referee::runner::run(&Odd::default(), &course, 5, settings, stop, &|_| {}).await.unwrap();
    assert_eq!(first.schedule, second.schedule);
    assert_eq!(first.header.schedule, second.header.schedule);
}
