//! `quorate compare`: one workload, one schedule of faults, several systems, one page.

use std::convert::Infallible;
use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use tokio::sync::watch;

use super::Exit;
use crate::referee::analysis::verdict::Verdict;
use crate::referee::compare::{CompareError, Comparison, Entrant, WARNING, compare};
use crate::referee::environment;
use crate::referee::kinds::{FaultKind, Faults};
use crate::referee::nemesis::Course;
use crate::referee::plan::Plan;
use crate::referee::report::{self, Judged, data::Fact};
use crate::referee::runner::RunnerError;
use crate::referee::scene::Settings;
use crate::referee::schedule::Schedule;
use crate::systems::{self, Place, leftovers, netns};

#[derive(Args, Clone, Debug)]
pub struct CompareArgs {
    /// What to compare, joined by commas: cp, ap, cp-stale, cp-leader, ap-quorum, reference; and others: etcd, etcd-stale, zookeeper,
    /// erlang-global, erlang-global-overlap, erlang-global-redial, erlang-pg, postgresql, postgresql-2pc
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "cp,ap")]
    pub systems: Vec<String>,
    /// Nodes of each system
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=15))]
    pub nodes: u16,
    /// How long each system is run
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(8..=600))]
    pub seconds_per_system: u64,
    /// Makes the same workload and the same faults again; drawn at random unless given
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Kinds of fault that take turns, joined by commas; none: no fault. There are halves, isolate-leader, ring, bridge, oneway, flap,
    /// kill, kill-all, power-cut, pause, skew, loss, delay, drop-response, membership, transfer, disk-full, corrupt, chaos, core-only
    #[arg(long, value_name = "LIST", default_value = "halves")]
    pub faults: Faults,
    /// Makes the very faults of another run again: its schedule.json
    #[arg(long, value_name = "FILE", conflicts_with_all = ["faults", "seed", "nodes", "seconds_per_system"])]
    pub schedule: Option<PathBuf>,
    /// What cuts links: the nodes themselves, on loopback; or, with netns (Linux, root), the kernel, each node in a namespace of its own
    #[arg(long, value_name = "NET", default_value = "loopback", value_parser = parse_net)]
    pub net: Net,
    /// Calls per second on each system, all clients together
    #[arg(long, value_name = "OPS", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=5_000))]
    pub rate: u32,
    /// Where everything is written; on a real disk  [default: quorate-runs/TIME-SEED]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Opens the page in the browser
    #[arg(long)]
    pub open: bool,
}

/// What cuts the links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Net {
    /// The nodes themselves.
    Loopback,
    /// The kernel, between network namespaces.
    Netns,
}

impl Net {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Net::Loopback => "loopback",
            Net::Netns => "netns",
        }
    }
}

pub(super) fn parse_net(text: &str) -> Result<Net, String> {
    let known = [Net::Loopback, Net::Netns].into_iter().find(|net| net.as_str() == text);
    known.ok_or_else(|| format!("{text:?} is no way to cut links; there are loopback and netns"))
}

/// Runs the comparison, prints the table and the page's path.
pub fn run(args: CompareArgs) -> anyhow::Result<Exit> {
    let course = match course(&args) {
        Ok(course) => course,
        Err(why) => return Ok(usage(&why)),
    };
    let seed = course.seed();
    let started = Timestamp::now();
    let out = args.out.clone().unwrap_or_else(|| {
        PathBuf::from("quorate-runs").join(format!("{}-{seed}", started.strftime("%Y%m%dT%H%M%SZ")))
    });
    if let Some(why) = netns::missing().filter(|_| args.net == Net::Netns) {
        return Ok(usage(&why));
    }
    let place = place(&out)?.prepared(&kinds(&course), args.net == Net::Netns, nodes(&course))?;
    let entrants = match entrants(&args.systems, &place) {
        Ok(entrants) => entrants,
        Err(why) => return Ok(usage(&why)),
    };
    if fs::read_dir(&out).is_ok_and(|mut dir| dir.next().is_some()) {
        return Ok(usage(&format!("{} is there already and not empty", out.display())));
    }
    if environment::in_memory(&out) {
        return Ok(usage(&format!("{} is in memory, where nothing is durable: choose --out on a disk", out.display())));
    }
    let made = !out.exists();
    fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    let done = run_in(&args, course, entrants, &out, started);
    if made && matches!(&done, Ok(Exit::NotDone)) {
        fs::remove_dir_all(&out).with_context(|| format!("cannot remove {}", out.display()))?;
    }
    done
}

/// `out` exists. `NotDone`: interrupted, with nothing worth keeping.
fn run_in(
    args: &CompareArgs,
    course: Course,
    entrants: Vec<Entrant>,
    out: &Path,
    started: Timestamp,
) -> anyhow::Result<Exit> {
    let comparison = Comparison {
        entrants,
        skipped: Vec::new(),
        settings: Settings { rate: args.rate, ..Settings::default() },
        out: out.to_owned(),
        command: command(args, course.seed()),
        started_at: started.to_string(),
        facts: facts(out, args.net)?,
        nodes: nodes(&course),
        course,
    };
    leftovers::mark(out, &comparison.command).with_context(|| format!("cannot write to {}", out.display()))?;
    let progress = Progress::new(
        comparison.entrants.len(),
        u64::try_from(comparison.course.length().as_millis()).unwrap_or(u64::MAX),
    );
    let runtime = super::runtime()?;
    let judged = runtime.block_on(async {
        tokio::select! {
            judged = compare_and_judge(comparison, &progress) => judged,
            never = progress.tick() => match never {},
        }
    });
    // A judgement that was interrupted is not waited for.
    runtime.shutdown_background();
    let judged = match judged {
        Ok(judged) => judged,
        Err(CompareError::Runner(RunnerError::Interrupted)) => {
            progress.finish();
            eprintln!("quorate: interrupted; everything that was started is stopped");
            return Ok(Exit::NotDone);
        }
        Err(why) => {
            progress.finish();
            return Err(anyhow::Error::new(why)
                .context(format!("the referee could not finish; what there is lies in {}", out.display())));
        }
    };
    let page = report::write(&judged, out).with_context(|| format!("cannot write the report to {}", out.display()))?;
    progress.finish();
    println!("{}", report::table(&judged, width()));
    for run in &judged.set.runs {
        for fact in run.facts.iter().filter(|fact| fact.what == WARNING) {
            eprintln!("quorate: {}: {}", run.header.system, fact.value);
        }
    }
    println!("{}", page.display());
    if args.open {
        open(&page);
    }
    if judged.set.runs.is_empty() {
        // Nothing ran, so nothing is known.
        return Ok(Exit::Unknown);
    }
    Ok(match judged.verdict() {
        Some(Verdict::Holds) | None => Exit::Yes,
        Some(Verdict::Violated) => Exit::No,
        Some(Verdict::Unknown) => Exit::Unknown,
    })
}

/// What the run is to meet, and how many nodes.
fn course(args: &CompareArgs) -> Result<Course, String> {
    if let Some(path) = &args.schedule {
        let text = fs::read_to_string(path).map_err(|why| format!("cannot read {}: {why}", path.display()))?;
        let schedule = Schedule::read(&text).map_err(|why| format!("{}: {why}", path.display()))?;
        return Ok(Course::Resolved(schedule));
    }
    let seed = args.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    Plan::new(&args.faults, args.seconds_per_system, usize::from(args.nodes), seed).map(Course::Symbolic)
}

fn kinds(course: &Course) -> Vec<FaultKind> {
    match course {
        Course::Symbolic(plan) => plan.slots.iter().map(|slot| slot.kind).collect(),
        Course::Resolved(schedule) => schedule.kinds(),
    }
}

fn nodes(course: &Course) -> usize {
    match course {
        Course::Symbolic(plan) => plan.nodes,
        Course::Resolved(schedule) => schedule.nodes.len(),
    }
}

/// Systems write below `out`.
pub(super) fn place(out: &Path) -> anyhow::Result<Place> {
    let program = std::env::current_exe().context("cannot find this very program")?;
    Ok(Place::new(program, out.to_owned()))
}

/// The machine, the disk under `out`, and what cuts links.
pub(super) fn facts(out: &Path, net: Net) -> anyhow::Result<Vec<Fact>> {
    let facts = environment::facts(out);
    let mut facts = facts.with_context(|| format!("cannot measure the disk under {}", out.display()))?;
    let cutter = match net {
        Net::Loopback => "by the nodes themselves, below gossip, Raft and forwarding alike",
        Net::Netns => "by the kernel: each node in a network namespace of its own, its packets dropped at the receiver",
    };
    facts.push(Fact::new("links are cut", cutter));
    Ok(facts)
}

async fn compare_and_judge(comparison: Comparison, progress: &Progress) -> Result<Judged, CompareError> {
    let mut stop = interrupted();
    let set = compare(comparison, stop.clone(), &|system, phase| progress.tell(system, phase)).await?;
    progress.tell("all", "checking");
    tokio::select! {
        judged = tokio::task::spawn_blocking(|| report::judge(set)) => judged.map_err(CompareError::Died),
        _ = stop.wait_for(|stop| *stop) => Err(CompareError::Runner(RunnerError::Interrupted)),
    }
}

pub(super) fn usage(why: &str) -> Exit {
    eprintln!("quorate: {why}");
    Exit::Usage
}

pub(super) fn entrants(names: &[String], place: &Place) -> Result<Vec<Entrant>, String> {
    let mut entrants = Vec::<Entrant>::new();
    for name in names {
        if entrants.iter().any(|other| other.system.name() == name) {
            return Err(format!("{name} is given twice"));
        }
        entrants.push(Entrant { system: systems::named(name, place)?, decides: systems::is_ours(name) });
    }
    Ok(entrants)
}

fn command(args: &CompareArgs, seed: u64) -> String {
    let systems = args.systems.join(",");
    let faults = match &args.schedule {
        Some(path) => format!("--schedule {}", path.display()),
        None => format!(
            "--nodes {} --seconds-per-system {} --seed {seed} --faults {}",
            args.nodes, args.seconds_per_system, args.faults
        ),
    };
    format!("quorate compare --systems {systems} {faults} --net {} --rate {}", args.net.as_str(), args.rate)
}

/// Becomes true at SIGINT or SIGTERM.
pub(super) fn interrupted() -> watch::Receiver<bool> {
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        super::serve::stop_signal().await;
        let _ = sender.send(true);
        sender.closed().await;
    });
    receiver
}

fn width() -> u16 {
    std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()).unwrap_or(110)
}

/// A browser that cannot be started is no reason to fail: the path has been printed.
fn open(page: &Path) {
    let opener = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let quiet = Command::new(opener).arg(page).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    if let Err(why) = quiet {
        eprintln!("quorate: cannot open the page ({opener}: {why})");
    }
}

/// A bar on a terminal; elsewhere one line a phase.
struct Progress {
    bar: ProgressBar,
    length_ms: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Runs that are behind us.
    done: u64,
    /// When the present one made its first call.
    began: Option<Instant>,
}

impl Progress {
    fn new(systems: usize, length_ms: u64) -> Self {
        let bar = ProgressBar::new(systems as u64 * length_ms);
        let style = ProgressStyle::with_template("{elapsed:>4} {bar:40} {percent:>3} %  {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { bar, length_ms, state: Mutex::default() }
    }

    fn tell(&self, system: &str, phase: &str) {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match phase {
            "calm" => state.began = Some(Instant::now()),
            "stopping" => *state = State { done: state.done + 1, began: None },
            _ => {}
        }
        let message = format!("{system}: {phase}");
        if !std::io::stderr().is_terminal() {
            eprintln!("{message}");
        }
        self.bar.set_message(message);
    }

    async fn tick(&self) -> Infallible {
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let run = state.began.map_or(0, |began| began.elapsed().as_millis() as u64).min(self.length_ms);
            self.bar.set_position(state.done * self.length_ms + run);
        }
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
