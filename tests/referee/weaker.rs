//! Our own nodes, asked for less than they can give: each keeps what is promised of that, and the checkers see what it costs.

use quorate::referee::analysis::verdict::Verdict;

use super::comparison::{Run, shown, verdict_on};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stale_reads_of_cp_are_found_and_its_writes_are_linearizable() {
    let run = Run { systems: &["cp-stale"], nodes: 3, seconds: 10, faults: "halves", seed: 21 };
    let (findings, verdict) = run.judged().await;
    let found = &findings[0];
    assert_eq!(verdict, Some(Verdict::Holds), "{}", shown(found));
    assert_eq!(verdict_on(found, "linearizable-writes"), Verdict::Holds, "{}", shown(found));
    // Not promised, and so no failure.
    assert_eq!(verdict_on(found, "linearizable-names"), Verdict::Violated, "{}", shown(found));
    assert!(found.stale_reads.stale > 0, "{:?}", found.stale_reads);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_by_the_leaders_lease_are_linearizable_through_cuts_and_pauses() {
    let run = Run { systems: &["cp-leader"], nodes: 3, seconds: 14, faults: "halves,pause", seed: 22 };
    let (findings, verdict) = run.judged().await;
    assert_eq!(verdict, Some(Verdict::Holds), "{}", shown(&findings[0]));
    assert_eq!(verdict_on(&findings[0], "linearizable-names"), Verdict::Holds);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quorums_of_reads_and_writes_do_not_make_gossip_linearizable() {
    let run = Run { systems: &["ap-quorum"], nodes: 3, seconds: 10, faults: "halves", seed: 23 };
    let (findings, verdict) = run.judged().await;
    let found = &findings[0];
    assert_eq!(verdict, Some(Verdict::Holds), "{}", shown(found));
    assert_eq!(verdict_on(found, "linearizable-names"), Verdict::Violated, "{}", shown(found));
    assert!(!found.names.counter_examples.is_empty());
    // Whoever is cut off from the majority gets no answer.
    assert_eq!(verdict_on(found, "all-answer"), Verdict::Violated);
}
