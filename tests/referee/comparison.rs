//! Real comparisons: our nodes as processes, cut off and killed, honest ones and flawed ones.

use std::path::Path;

use quorate::referee::analysis::Findings;
use quorate::referee::analysis::verdict::Verdict;
use quorate::referee::compare::{Comparison, Entrant, compare};
use quorate::referee::nemesis::Course;
use quorate::referee::plan::Plan;
use quorate::referee::report;
use quorate::referee::scene::Settings;
use quorate::systems::{Place, is_ours, named};
use tokio::sync::{Mutex, watch};

/// One comparison at a time: each has a machine's worth of processes.
static TURN: Mutex<()> = Mutex::const_new(());

pub struct Run {
    pub systems: &'static [&'static str],
    pub nodes: usize,
    pub seconds: u64,
    pub faults: &'static str,
    pub seed: u64,
}

impl Run {
    pub async fn judged(self) -> (Vec<Findings>, Option<Verdict>) {
        let _turn = TURN.lock().await;
        // Below the target directory: a temporary directory may be in memory.
        let out = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let comparison = self.comparison(out.path());
        let (_keep, stop) = watch::channel(false);
        let set = compare(comparison, stop, &|system, phase| eprintln!("{system}: {phase}")).await.unwrap();
        for system in self.systems {
            assert!(!out.path().join(system).join("node-1").exists(), "{system} left its data behind");
        }
        let judged = tokio::task::spawn_blocking(|| report::judge(set)).await.unwrap();
        let verdict = judged.verdict();
        (judged.findings, verdict)
    }

    fn comparison(&self, out: &Path) -> Comparison {
        let place = Place::new(env!("CARGO_BIN_EXE_quorate").into(), out.to_owned());
        let entrant = |name: &&str| Entrant { system: named(name, &place).unwrap(), decides: is_ours(name) };
        Comparison {
            entrants: self.systems.iter().map(entrant).collect(),
            skipped: Vec::new(),
            course: Course::Symbolic(
                Plan::new(&self.faults.parse().unwrap(), self.seconds, self.nodes, self.seed).unwrap(),
            ),
            nodes: self.nodes,
            settings: Settings::default(),
            out: out.to_owned(),
            command: String::new(),
            started_at: "2026-01-01T00:00:00Z".to_owned(),
            facts: Vec::new(),
        }
    }
}

pub fn shown(found: &Findings) -> String {
    let line = |p: &quorate::referee::analysis::verdict::Promise| {
        format!("{} promised={} {:?}: {} {:#?}", p.id, p.promised, p.verdict, p.detail, p.evidence)
    };
    format!("{}\n{}", found.system, found.promises.iter().map(line).collect::<Vec<_>>().join("\n"))
}

pub fn verdict_on(found: &Findings, id: &str) -> Verdict {
    found.promises.iter().find(|promise| promise.id == id).unwrap_or_else(|| panic!("no {id}")).verdict
}

/// At least one of these was promised and is broken.
async fn convicts(run: Run, ids: &[&str]) {
    let (findings, verdict) = run.judged().await;
    let found = &findings[0];
    let broken =
        |id: &&&str| found.promises.iter().any(|p| p.id == **id && p.promised && p.verdict == Verdict::Violated);
    assert!(ids.iter().any(|id| broken(&id)), "{}", shown(found));
    assert_eq!(verdict, Some(Verdict::Violated));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cp_refuses_and_agrees_where_ap_answers_and_settles() {
    let run = Run { systems: &["cp", "ap"], nodes: 5, seconds: 14, faults: "halves", seed: 1 };
    let (findings, verdict) = run.judged().await;
    let (cp, ap) = (&findings[0], &findings[1]);
    assert_eq!(verdict, Some(Verdict::Holds), "{}\n{}", shown(cp), shown(ap));
    for id in ["linearizable-names", "linearizable-groups", "one-owner", "minority-refuses", "majority-goes-on"] {
        assert_eq!(verdict_on(cp, id), Verdict::Holds, "{id}: {}", shown(cp));
    }
    for id in ["all-answer", "agreement", "one-record-per-loser"] {
        assert_eq!(verdict_on(ap, id), Verdict::Holds, "{id}: {}", shown(ap));
    }
    // The price of always answering, which is no failure.
    assert_eq!(verdict_on(ap, "one-owner"), Verdict::Violated);
    assert!(ap.conflicts.contested.iter().any(|name| name.starts_with("contested-1-")), "{:?}", ap.conflicts);
    assert!(ap.conflicts.contested.iter().any(|name| name.starts_with("contested-2-")), "{:?}", ap.conflicts);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_modes_keep_their_promises_through_kills_and_pauses() {
    let run = Run { systems: &["cp", "ap"], nodes: 3, seconds: 14, faults: "kill,pause", seed: 2 };
    let (findings, verdict) = run.judged().await;
    assert_eq!(verdict, Some(Verdict::Holds), "{}\n{}", shown(&findings[0]), shown(&findings[1]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cp_that_reads_locally_is_convicted() {
    let run = Run { systems: &["cp-local-reads"], nodes: 3, seconds: 10, faults: "halves", seed: 3 };
    convicts(run, &["linearizable-names"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cp_that_acknowledges_before_replication_is_convicted() {
    let run = Run { systems: &["cp-ack-early"], nodes: 3, seconds: 10, faults: "halves", seed: 4 };
    convicts(run, &["linearizable-names", "nothing-lost", "minority-refuses"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ap_that_never_resolves_a_conflict_is_convicted() {
    let run = Run { systems: &["ap-never-resolves"], nodes: 3, seconds: 10, faults: "halves", seed: 5 };
    convicts(run, &["agreement", "one-record-per-loser"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ap_whose_state_transfer_forgets_what_was_removed_is_convicted() {
    let run = Run { systems: &["ap-forgets-context"], nodes: 3, seconds: 10, faults: "halves", seed: 6 };
    convicts(run, &["nothing-resurrected"]).await;
}
