//! Controls: nodes with one planted flaw each, and the promise by which a whole run convicts it. A checker that convicts nobody proves
//! nothing; so every checker has its control here, and `cargo test --test referee controls` runs them all.

use quorate::referee::analysis::verdict::Verdict;
use quorate::systems::clocks;

use crate::comparison::{Run, shown};

/// At least one of these was promised and is broken.
async fn convicts(run: Run, ids: &[&str]) {
    let (findings, verdict) = run.judged().await;
    let found = &findings[0];
    let broken =
        |id: &&&str| found.promises.iter().any(|p| p.id == **id && p.promised && p.verdict == Verdict::Violated);
    assert!(ids.iter().any(|id| broken(&id)), "{}", shown(found));
    assert_eq!(verdict, Some(Verdict::Violated));
}

fn run(system: &'static [&'static str], faults: &'static str, seed: u64) -> Run {
    Run { systems: system, nodes: 3, seconds: 10, faults, seed }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cp_that_reads_locally_is_convicted() {
    convicts(run(&["cp-local-reads"], "halves", 3), &["linearizable-names"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cp_that_acknowledges_before_replication_is_convicted() {
    convicts(run(&["cp-ack-early"], "halves", 4), &["linearizable-names", "nothing-lost", "minority-refuses"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cp_that_ends_leases_early_is_convicted() {
    convicts(run(&["cp-expires-early"], "none", 8), &["no-early-expiry"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cp_that_ends_leases_late_is_convicted() {
    convicts(run(&["cp-expires-late"], "none", 9), &["no-late-expiry"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cp_that_judges_leases_by_the_wall_clock_is_convicted() {
    if clocks::library().is_none() {
        return crate::skipped("libfaketime is not installed (apt-get install libfaketime)");
    }
    convicts(run(&["cp-wall-clock-leases"], "skew", 10), &["no-early-expiry"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cp_whose_tokens_fence_nobody_off_is_convicted_twice() {
    convicts(run(&["cp-no-fencing"], "halves", 11), &["tokens-rise"]).await;
    // Long enough for somebody to write after he lost a name: in ten seconds that once did not happen.
    let long = Run { seconds: 20, ..run(&["cp-no-fencing"], "none", 11) };
    convicts(long, &["stale-owners-fenced"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cp_that_lists_a_member_twice_is_convicted() {
    convicts(run(&["cp-duplicate-member"], "none", 12), &["no-member-twice"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cp_whose_watch_leaves_out_what_it_missed_is_convicted() {
    convicts(run(&["cp-drops-on-resume"], "none", 13), &["watch-exact"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ap_that_never_resolves_a_conflict_is_convicted() {
    convicts(run(&["ap-never-resolves"], "halves", 5), &["agreement", "one-record-per-loser"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ap_whose_state_transfer_forgets_what_was_removed_is_convicted() {
    convicts(run(&["ap-forgets-context"], "halves", 6), &["nothing-resurrected"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ap_where_whatever_comes_from_elsewhere_wins_is_convicted() {
    convicts(run(&["ap-remote-wins"], "halves", 14), &["one-record-per-loser"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ap_that_keeps_no_record_of_a_conflict_is_convicted() {
    convicts(run(&["ap-forgets-records"], "halves", 15), &["one-record-per-loser"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ap_that_tells_no_loser_is_convicted() {
    // Long enough for a loser under a lease to keep it alive until everybody knows, before the next cut.
    let long = Run { seconds: 20, ..run(&["ap-mute-losers"], "halves", 16) };
    convicts(long, &["losers-told"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ap_whose_watch_leaves_out_what_it_missed_is_convicted() {
    convicts(run(&["ap-drops-on-resume"], "none", 17), &["watch-at-least-once"]).await;
}
