//! The runner, on a registry that cannot go wrong and on clusters that do not obey the nemesis.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use quorate::model::ident::NodeId;
use quorate::referee::analysis::verdict::Verdict;
use quorate::referee::client::{Abilities, Client, Completion, Promises, Reach, Running, System, Watcher};
use quorate::referee::compare::{Comparison, Entrant, compare};
use quorate::referee::history::{Conflict, Event, Header, Installed, Kind, Process, Registered, Side, View, What};
use quorate::referee::nemesis::Course;
use quorate::referee::plan::Plan;
use quorate::referee::report;
use quorate::referee::runner::{Recorded, RunnerError, run};
use quorate::referee::scene::Settings;
use quorate::referee::schedule::{Harm, Schedule};
use quorate::referee::situation::Links;
use quorate::systems::reference::Reference;
use tokio::sync::watch;

/// A registry that is a reference but for what a test wants of it.
pub struct Odd {
    /// What cutting links returns.
    pub cut: fn(cuts_so_far: usize) -> anyhow::Result<()>,
    /// Whether the nodes say that they reach everyone, cut or not.
    pub leaks: bool,
    /// Every so many-th write gets no answer.
    pub unknown_every: usize,
    pub stopped: std::sync::Arc<Mutex<bool>>,
    pub missing: Option<&'static str>,
    /// Why links cannot be cut at all.
    pub uncuttable: Option<&'static str>,
}

impl Default for Odd {
    fn default() -> Self {
        let (stopped, unknown_every) = (Default::default(), usize::MAX);
        Self { cut: |_| Ok(()), leaks: false, unknown_every, stopped, missing: None, uncuttable: None }
    }
}

#[async_trait]
impl System for Odd {
    fn name(&self) -> &str {
        "odd"
    }

    fn promises(&self) -> Promises {
        Reference.promises()
    }

    fn abilities(&self) -> Abilities {
        Reference.abilities()
    }

    fn missing(&self) -> Option<String> {
        self.missing.map(str::to_owned)
    }

    async fn start(&self, nodes: usize, seed: u64) -> anyhow::Result<Box<dyn Running>> {
        let inner = Reference.start(nodes, seed).await?;
        let (cut, leaks, unknown_every) = (self.cut, self.leaks, self.unknown_every);
        let (stopped, uncuttable) = (self.stopped.clone(), self.uncuttable);
        Ok(Box::new(RunningOdd { inner, cut, leaks, unknown_every, cuts: Mutex::new(0), stopped, uncuttable }))
    }
}

struct RunningOdd {
    inner: Box<dyn Running>,
    cut: fn(usize) -> anyhow::Result<()>,
    leaks: bool,
    unknown_every: usize,
    cuts: Mutex<usize>,
    stopped: std::sync::Arc<Mutex<bool>>,
    uncuttable: Option<&'static str>,
}

impl Drop for RunningOdd {
    fn drop(&mut self) {
        *self.stopped.lock().unwrap() = true;
    }
}

#[async_trait]
impl Running for RunningOdd {
    fn nodes(&self) -> Vec<NodeId> {
        self.inner.nodes()
    }
    fn client(&self, node: NodeId) -> Box<dyn Client> {
        Box::new(OddClient { inner: self.inner.client(node), unknown_every: self.unknown_every, writes: 0 })
    }
    fn has_leader(&self) -> bool {
        true
    }
    async fn leader(&self) -> Option<NodeId> {
        Some(2)
    }
    fn cannot(&self, harm: &Harm) -> Option<String> {
        let uncuttable = self.uncuttable.filter(|_| !harm.cut().is_empty()).map(str::to_owned);
        uncuttable.or_else(|| self.inner.cannot(harm))
    }
    async fn set_links(&self, links: &Links) -> anyhow::Result<()> {
        let so_far = {
            let mut cuts = self.cuts.lock().unwrap();
            *cuts += 1;
            *cuts - 1
        };
        (self.cut)(so_far)?;
        self.inner.set_links(links).await
    }
    async fn reached(&self, node: NodeId, deadline: Instant) -> anyhow::Result<Reach> {
        if self.leaks {
            let fully = self.nodes().into_iter().filter(|peer| *peer != node).collect();
            return Ok(Reach { fully, ..Reach::default() });
        }
        self.inner.reached(node, deadline).await
    }
    async fn kill(&self, node: NodeId) -> anyhow::Result<()> {
        self.inner.kill(node).await
    }
    async fn restart(&self, node: NodeId) -> anyhow::Result<()> {
        self.inner.restart(node).await
    }
    async fn pause(&self, node: NodeId) -> anyhow::Result<()> {
        self.inner.pause(node).await
    }
    async fn resume(&self, node: NodeId) -> anyhow::Result<()> {
        self.inner.resume(node).await
    }
    async fn view(&self, node: NodeId, deadline: Instant) -> anyhow::Result<View> {
        self.inner.view(node, deadline).await
    }
    async fn conflicts(&self, node: NodeId, deadline: Instant) -> anyhow::Result<Option<Vec<Conflict>>> {
        self.inner.conflicts(node, deadline).await
    }
    async fn watch(
        &self,
        node: NodeId,
        after: Option<&str>,
        prefix: Option<&str>,
        deadline: Instant,
    ) -> anyhow::Result<Box<dyn Watcher>> {
        self.inner.watch(node, after, prefix, deadline).await
    }
    async fn stop(self: Box<Self>) -> anyhow::Result<()> {
        Ok(())
    }
}

struct OddClient {
    inner: Box<dyn Client>,
    unknown_every: usize,
    writes: usize,
}

#[async_trait]
impl Client for OddClient {
    async fn call(&mut self, what: &What, deadline: Instant) -> Completion {
        let answer = self.inner.call(what, deadline).await;
        self.writes += usize::from(!what.is_read());
        match !what.is_read() && self.writes.is_multiple_of(self.unknown_every) {
            true => Completion::Info("lost".to_owned()),
            false => answer,
        }
    }
}

pub async fn run_on(system: &dyn System, faults: &str, seconds: u64, seed: u64) -> Result<Recorded, RunnerError> {
    let plan = Plan::new(&faults.parse().unwrap(), seconds, 5, seed).unwrap();
    let (_keep, stop) = watch::channel(false);
    run(system, &Course::Symbolic(plan), 5, Settings::default(), stop, &|_| {}).await
}

/// What Jepsen's histories promise, held against ours.
fn assert_well_formed(recorded: &Recorded) {
    let events = &recorded.events;
    let mut open = BTreeMap::<Process, &Event>::new();
    let mut retired = BTreeSet::new();
    for (place, event) in events.iter().enumerate() {
        assert_eq!(event.index, place as u64);
        assert!(place == 0 || events[place - 1].time <= event.time, "{event:?}");
        let Process::Client(id) = event.process else { continue };
        assert!(!retired.contains(&id), "{event:?} comes after its process retired");
        match event.kind {
            Kind::Invoke => {
                assert!(event.node.is_some() && event.side.is_some());
                assert_eq!(open.insert(event.process, event), None, "{event:?} while another call is under way");
            }
            Kind::Ok | Kind::Fail | Kind::Info => {
                let invoked = open.remove(&event.process).expect("a completion has its invocation");
                assert_eq!((event.end_of, event.node), (Some(invoked.index), invoked.node));
                if event.kind == Kind::Info {
                    retired.insert(id);
                }
            }
        }
    }
    assert!(open.is_empty(), "calls without an end: {open:?}");
}

fn faults(recorded: &Recorded) -> Vec<(u64, bool, Installed)> {
    let faults = recorded.events.iter().filter_map(|event| match &event.what {
        What::Fault(fault) => Some((fault.id, fault.begins, fault.state)),
        _ => None,
    });
    faults.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_a_well_formed_history_that_reads_everything_at_its_end() {
    let recorded = run_on(&Odd::default(), "halves", 8, 1).await.unwrap();
    assert_well_formed(&recorded);
    let unsettled = recorded.warnings.iter().find(|warning| warning.contains("did not show the same"));
    assert_eq!(unsettled, None);
    let by_client = |event: &&Event| matches!(event.process, Process::Client(_));
    let calls = recorded.events.iter().filter(by_client).filter(|event| event.kind == Kind::Invoke).count();
    assert!((700..3_000).contains(&calls), "{calls} calls at 200 a second for 7.2 s");
    let done = faults(&recorded);
    let wanted = [1, 2].map(|id| {
        let of = |begins| [(id, begins, Installed::Indeterminate), (id, begins, Installed::Installed)];
        [of(true), of(false)].concat()
    });
    assert_eq!(done, wanted.concat());

    // The leader is node 2, as the cluster said.
    let side = |fault: usize| {
        let cut = recorded.schedule.faults[fault].harm.cut();
        cut.iter().filter(|(from, _)| *from == 2).count()
    };
    assert_eq!((side(0), side(1)), (3, 2), "once in the minority, once in the majority");

    let last_write = recorded.events.iter().rposition(|event| {
        matches!(event.process, Process::Client(_)) && event.kind == Kind::Invoke && !event.what.is_read()
    });
    let after = &recorded.events[last_write.unwrap()..];
    let viewed = after.iter().filter(|e| e.kind == Kind::Ok && matches!(e.what, What::View(_))).filter_map(|e| e.node);
    assert_eq!(viewed.collect::<BTreeSet<_>>(), BTreeSet::from([1, 2, 3, 4, 5]));
    let name = |event: &Event| match &event.what {
        What::Register { name, .. } | What::Unregister { name, .. } | What::Whereis { name, .. } => Some(name.clone()),
        _ => None,
    };
    let read = after.iter().filter(|e| e.kind == Kind::Ok && e.what.is_read()).filter_map(name);
    let read = read.collect::<BTreeSet<_>>();
    let used = recorded.events.iter().filter_map(name).collect::<BTreeSet<_>>();
    assert_eq!(used.difference(&read).collect::<Vec<_>>(), Vec::<&String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_partition_has_names_that_both_sides_registered() {
    let recorded = run_on(&Odd::default(), "halves", 8, 2).await.unwrap();
    for fault in &recorded.schedule.faults {
        let mut sides = BTreeMap::<&str, BTreeSet<Side>>::new();
        let in_force = recorded.events.iter().find(|event| match &event.what {
            What::Fault(told) => told.id == fault.id && told.begins && told.state == Installed::Installed,
            _ => false,
        });
        // Refused ones are made anew for as long as the fault lasts.
        let first_second = in_force.unwrap().time..in_force.unwrap().time + 1_000_000_000;
        for event in recorded.events.iter().filter(|event| event.kind == Kind::Invoke) {
            match &event.what {
                What::Register { name, .. } if name.starts_with(&format!("contested-{}-", fault.id)) => {
                    assert!(event.time >= first_second.start, "{event:?}");
                    if !first_second.contains(&event.time) {
                        continue;
                    }
                    sides.entry(name).or_default().insert(event.side.unwrap());
                }
                _ => {}
            }
        }
        assert_eq!(sides.len(), 4);
        assert!(sides.values().all(|sides| *sides == BTreeSet::from([Side::Majority, Side::Minority])), "{sides:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_without_an_answer_retires_and_goes_on_under_another_number() {
    let odd = Odd { unknown_every: 7, ..Odd::default() };
    let recorded = run_on(&odd, "none", 8, 3).await.unwrap();
    assert_well_formed(&recorded);
    let unknown = recorded.events.iter().filter(|event| event.kind == Kind::Info && event.error.is_some());
    let retired = unknown.map(|event| match event.process {
        Process::Client(id) => id,
        other => panic!("{other:?}"),
    });
    let retired = retired.collect::<Vec<_>>();
    assert!(retired.len() > 20, "{}", retired.len());
    let seen = recorded.events.iter().map(|event| event.process).collect::<BTreeSet<_>>();
    let next = retired.iter().filter(|id| seen.contains(&Process::Client(*id + recorded.header.concurrency)));
    // The last of each of the 15 may find no further call to make.
    assert!(next.count() + 15 >= retired.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_nodes_are_marked_and_come_back() {
    let recorded = run_on(&Odd::default(), "kill,pause", 10, 4).await.unwrap();
    assert_well_formed(&recorded);
    let invoked = recorded.events.iter().filter(|event| event.kind == Kind::Invoke);
    let sides = invoked.filter_map(|event| event.side).collect::<BTreeSet<_>>();
    assert_eq!(sides, BTreeSet::from([Side::Whole, Side::Majority, Side::Stopped]));
    assert!(recorded.schedule.faults.iter().all(|fault| fault.harm.stopped().contains(&2)));
    assert_eq!(recorded.events.iter().rev().find_map(|event| event.side), Some(Side::Whole));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_system_meets_the_very_faults_of_the_first() {
    let first = run_on(&Odd::default(), "halves", 8, 5).await.unwrap();
    let (_keep, stop) = watch::channel(false);
    let course = Course::Resolved(first.schedule.clone());
    let second = run(&Reference, &course, 5, Settings::default(), stop, &|_| {}).await.unwrap();
    assert_eq!(first.schedule, second.schedule);
    assert_eq!(first.header.schedule, second.header.schedule);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_that_cannot_be_made_is_the_referees_failure() {
    let odd = Odd { cut: |_| anyhow::bail!("no such device"), ..Odd::default() };
    let why = run_on(&odd, "halves", 8, 6).await.unwrap_err();
    assert!(matches!(why, RunnerError::Nemesis { .. }));
    assert!(*odd.stopped.lock().unwrap(), "the system was left running");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_heal_that_fails_at_first_is_tried_again() {
    let odd = Odd { cut: |so_far| if so_far == 1 { anyhow::bail!("busy") } else { Ok(()) }, ..Odd::default() };
    let recorded = run_on(&odd, "halves", 8, 7).await.unwrap();
    assert_eq!(faults(&recorded).last(), Some(&(2, false, Installed::Installed)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_that_leaks_is_indeterminate() {
    let odd = Odd { leaks: true, ..Odd::default() };
    let recorded = run_on(&odd, "halves", 8, 8).await.unwrap();
    for id in [1, 2] {
        let last = faults(&recorded).into_iter().rfind(|(fault, begins, _)| *fault == id && *begins).unwrap();
        assert_eq!(last.2, Installed::Indeterminate);
    }
    let probed = recorded.events.iter().filter_map(|event| match event.what {
        What::Probe { as_intended, .. } => Some(as_intended),
        _ => None,
    });
    // After a heal everything may pass, and does.
    assert_eq!(probed.collect::<Vec<_>>(), [false, true, false, true]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interruption_ends_the_run_at_once_and_stops_the_system() {
    let odd = Odd::default();
    let plan = Plan::new(&"halves".parse().unwrap(), 20, 5, 9).unwrap();
    let (interrupt, stop) = watch::channel(false);
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let _ = interrupt.send(true);
        // Kept, as the command line does.
        std::future::pending::<()>().await;
    });
    let began = Instant::now();
    let why = run(&odd, &Course::Symbolic(plan), 5, Settings::default(), stop, &|_| {}).await.unwrap_err();
    assert!(matches!(why, RunnerError::Interrupted) && began.elapsed() < Duration::from_secs(3));
    assert!(*odd.stopped.lock().unwrap(), "the system was left running");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reference_grants_each_token_once() {
    let recorded = run_on(&Reference, "none", 8, 10).await.unwrap();
    let granted = recorded.events.iter().filter_map(|event| match &event.what {
        What::Register { result: Some(Registered::Granted { token }), .. } => Some(token),
        _ => None,
    });
    let granted = granted.collect::<Vec<_>>();
    assert!(granted.len() > 50, "{}", granted.len());
    assert_eq!(granted.iter().collect::<BTreeSet<_>>().len(), granted.len());
}

pub fn comparison(out: &std::path::Path, faults: &str) -> Comparison {
    Comparison {
        entrants: vec![Entrant { system: Box::new(Reference), decides: true }],
        skipped: Vec::new(),
        course: Course::Symbolic(Plan::new(&faults.parse().unwrap(), 8, 5, 11).unwrap()),
        nodes: 5,
        settings: Settings::default(),
        out: out.to_owned(),
        command: "quorate compare --systems reference".to_owned(),
        started_at: "2026-01-01T00:00:00Z".to_owned(),
        facts: Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_comparison_of_a_system_without_flaw_passes_and_leaves_schedule_history_and_page() {
    let out = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (_keep, stop) = watch::channel(false);
    let set = compare(comparison(out.path(), "halves"), stop, &|_, _| {}).await.unwrap();
    let judged = report::judge(set);
    let promises = judged.findings[0].promises.iter().filter(|promise| promise.promised);
    let broken = promises.filter(|promise| promise.verdict != Verdict::Holds).collect::<Vec<_>>();
    assert!(broken.is_empty(), "{broken:#?}");
    assert_eq!(judged.verdict(), Some(Verdict::Holds));

    let page = report::write(&judged, out.path()).unwrap();
    assert!(std::fs::metadata(page).unwrap().len() > 10_000);
    let schedule = std::fs::read_to_string(out.path().join("schedule.json")).unwrap();
    let schedule: Schedule = serde_json::from_str(&schedule).unwrap();
    let history = std::fs::read_to_string(out.path().join("reference/history.ndjson")).unwrap();
    let mut lines = history.lines();
    let header: Header = serde_json::from_str(lines.next().unwrap()).unwrap();
    assert_eq!(header.schedule, schedule.hash());
    let events = lines.map(|line| serde_json::from_str::<Event>(line).unwrap()).collect::<Vec<_>>();
    assert_eq!(events, judged.set.runs[0].events);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_that_never_took_hold_is_no_pass() {
    let out = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (_keep, stop) = watch::channel(false);
    let leaky = Entrant { system: Box::new(Odd { leaks: true, ..Odd::default() }), decides: true };
    let leaky = Comparison { entrants: vec![leaky], ..comparison(out.path(), "halves") };
    let judged = report::judge(compare(leaky, stop, &|_, _| {}).await.unwrap());
    assert_eq!(judged.verdict(), Some(Verdict::Unknown));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_system_that_cannot_be_run_is_skipped_with_the_mend_and_takes_nothing_from_the_others() {
    let out = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (_keep, stop) = watch::channel(false);
    let odd = Odd { missing: Some("no such program: apt-get install odd"), ..Odd::default() };
    let broken = Odd { cut: |_| anyhow::bail!("no such device"), ..Odd::default() };
    let mut wanted = comparison(out.path(), "halves");
    wanted.entrants.insert(0, Entrant { system: Box::new(odd), decides: false });
    wanted.entrants.push(Entrant { system: Box::new(broken), decides: false });
    let judged = report::judge(compare(wanted, stop, &|_, _| {}).await.unwrap());
    let skipped = judged.set.skipped.iter().map(|skipped| skipped.why.as_str()).collect::<Vec<_>>();
    assert_eq!(skipped[0], "no such program: apt-get install odd");
    assert!(skipped[1].contains("no such device"), "{skipped:?}");
    assert_eq!(judged.set.runs.len(), 1);
    assert_eq!(judged.verdict(), Some(Verdict::Holds));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_that_a_system_cannot_have_is_skipped_and_says_why() {
    let out = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (_keep, stop) = watch::channel(false);
    let odd = Odd { uncuttable: Some("needs --net netns"), ..Odd::default() };
    let odd = Entrant { system: Box::new(odd), decides: true };
    let odd = Comparison { entrants: vec![odd], ..comparison(out.path(), "halves") };
    let judged = report::judge(compare(odd, stop, &|_, _| {}).await.unwrap());
    let found = &judged.findings[0];
    assert!(found.faults.iter().all(|fault| fault.state == Installed::Skipped && fault.detail == "needs --net netns"));
    assert_eq!(found.faults.len(), 2);
    let tested = found.promises.iter().find(|promise| promise.id == "tested").unwrap();
    assert_eq!(tested.verdict, Verdict::Unknown);
    assert!(tested.detail.contains("needs --net netns"), "{}", tested.detail);
}
