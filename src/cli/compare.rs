//! `quorate compare`: one workload, one schedule of faults, several systems, one page.

use std::convert::Infallible;
use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
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
use crate::referee::report::{self, Judged, data::Fact};
use crate::referee::runner::RunnerError;
use crate::referee::scene::Settings;
use crate::referee::schedule::{Faults, Plan};
use crate::systems::netns::{self, Network};
use crate::systems::{self, Place};

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
    /// Kinds of fault that take turns, joined by commas: halves, isolate-leader, kill, pause; or none
    #[arg(long, value_name = "LIST", default_value = "halves")]
    pub faults: Faults,
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
    fn as_str(self) -> &'static str {
        match self {
            Net::Loopback => "loopback",
            Net::Netns => "netns",
        }
    }
}

fn parse_net(text: &str) -> Result<Net, String> {
    let known = [Net::Loopback, Net::Netns].into_iter().find(|net| net.as_str() == text);
    known.ok_or_else(|| format!("{text:?} is no way to cut links; there are loopback and netns"))
}

/// Runs the comparison, prints the table and the page's path.
pub fn run(args: CompareArgs) -> anyhow::Result<Exit> {
    let seed = args.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let plan = match Plan::new(&args.faults, args.seconds_per_system, usize::from(args.nodes), seed) {
        Ok(plan) => plan,
        Err(why) => return Ok(usage(&why)),
    };
    let started = Timestamp::now();
    let out = args.out.clone().unwrap_or_else(|| {
        PathBuf::from("quorate-runs").join(format!("{}-{seed}", started.strftime("%Y%m%dT%H%M%SZ")))
    });
    let net = match args.net {
        Net::Loopback => None,
        Net::Netns => match netns::missing() {
            Some(why) => return Ok(usage(&why)),
            None => Some(Arc::new(network(usize::from(args.nodes))?)),
        },
    };
    let program = std::env::current_exe().context("cannot find this very program")?;
    let place = Place { program, dir: out.clone(), net };
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
    let done = run_in(&args, plan, entrants, &out, started);
    if made && matches!(&done, Ok(Exit::NotDone)) {
        fs::remove_dir_all(&out).with_context(|| format!("cannot remove {}", out.display()))?;
    }
    done
}

/// `out` exists. `NotDone`: interrupted, with nothing worth keeping.
fn run_in(
    args: &CompareArgs,
    plan: Plan,
    entrants: Vec<Entrant>,
    out: &Path,
    started: Timestamp,
) -> anyhow::Result<Exit> {
    let mut facts =
        environment::facts(out).with_context(|| format!("cannot measure the disk under {}", out.display()))?;
    let cutter = match args.net {
        Net::Loopback => "by the nodes themselves, below gossip, Raft and forwarding alike",
        Net::Netns => "by the kernel: each node in a network namespace of its own, its packets dropped at the receiver",
    };
    facts.push(Fact::new("links are cut", cutter));
    let comparison = Comparison {
        entrants,
        skipped: Vec::new(),
        settings: Settings { rate: args.rate, ..Settings::default() },
        out: out.to_owned(),
        command: command(args, plan.seed),
        started_at: started.to_string(),
        facts,
        plan,
    };
    let progress = Progress::new(comparison.entrants.len(), comparison.plan.length_ms);
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

/// Before there is a thread: the whole process moves.
fn network(nodes: usize) -> anyhow::Result<Network> {
    netns::own_network().context("cannot move into a network namespace")?;
    Network::new(nodes)
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

fn usage(why: &str) -> Exit {
    eprintln!("quorate: {why}");
    Exit::Usage
}

fn entrants(names: &[String], place: &Place) -> Result<Vec<Entrant>, String> {
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
    format!(
        "quorate compare --systems {} --nodes {} --seconds-per-system {} --seed {seed} --faults {} --net {} --rate {}",
        args.systems.join(","),
        args.nodes,
        args.seconds_per_system,
        args.faults,
        args.net.as_str(),
        args.rate
    )
}

/// Becomes true at SIGINT or SIGTERM.
fn interrupted() -> watch::Receiver<bool> {
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
