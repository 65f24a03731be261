//! Real comparisons: our nodes as processes, cut off and killed.

use std::path::Path;
use std::process::Command;

use quorate::referee::analysis::Findings;
use quorate::referee::analysis::verdict::Verdict;
use quorate::referee::compare::{Comparison, Entrant, compare};
use quorate::referee::nemesis::Course;
use quorate::referee::plan::Plan;
use quorate::referee::report;
use quorate::referee::scene::Settings;
use quorate::systems::{Place, clocks, is_ours, named};
use serde_json::Value;
use tokio::sync::{Mutex, watch};

/// One comparison at a time: each has a machine's worth of processes.
pub static TURN: Mutex<()> = Mutex::const_new(());

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
        let plan = Plan::new(&self.faults.parse().unwrap(), self.seconds, self.nodes, self.seed).unwrap();
        let mut place = Place::new(env!("CARGO_BIN_EXE_quorate").into(), out.to_owned());
        place.clocks = clocks::library().filter(|_| self.faults.contains("skew"));
        let entrant = |name: &&str| Entrant { system: named(name, &place).unwrap(), decides: is_ours(name) };
        Comparison {
            entrants: self.systems.iter().map(entrant).collect(),
            skipped: Vec::new(),
            course: Course::Symbolic(plan),
            nodes: self.nodes,
            settings: Settings::default(),
            out: out.to_owned(),
            command: String::new(),
            started_at: "2026-01-01T00:00:00Z".to_owned(),
            facts: Vec::new(),
        }
    }
}

/// A comparison by the program itself, for only a process with one thread can move into namespaces of its own: the exit code, the report,
/// and what was told.
pub fn by_program(out: &Path, args: &[&str]) -> (Option<i32>, Value, String) {
    let _turn = TURN.blocking_lock();
    let done = Command::new(env!("CARGO_BIN_EXE_quorate")).arg("compare").args(args).arg("--out").arg(out).output();
    let done = done.unwrap();
    let told = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    let report = std::fs::read_to_string(out.join("report.json")).unwrap_or_else(|why| panic!("{why}: {told}"));
    (done.status.code(), serde_json::from_str(&report).unwrap(), told)
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
