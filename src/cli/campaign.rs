//! `quorate campaign`: many short comparisons, of which only those are kept that failed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use jiff::Timestamp;
use tokio::sync::watch;

use super::Exit;
use super::compare::{Net, entrants, facts, interrupted, parse_net, place, usage};
use crate::referee::campaign::{Counts, FILE, Line, Log, LogError, Seeds, Terms};
use crate::referee::compare::{CompareError, Comparison, compare};
use crate::referee::environment;
use crate::referee::kinds::{FaultKind, Faults};
use crate::referee::nemesis::Course;
use crate::referee::report::{self, Judged};
use crate::referee::runner::RunnerError;
use crate::referee::scene::Settings;
use crate::systems::{Place, leftovers, netns};

/// Runs a short comparison for each seed; with each, other faults have their turn. What holds is removed; a seed in which a promise was
/// broken, or nothing could be told, keeps its schedule, histories and page. The same command again goes on where it was
#[derive(Args, Clone, Debug)]
pub struct CampaignArgs {
    /// First and last seed, both included
    #[arg(long, value_name = "FIRST..LAST", default_value = "1..100")]
    seeds: Seeds,
    /// What to compare, joined by commas
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "cp,ap")]
    systems: Vec<String>,
    /// Nodes of each system
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=15))]
    nodes: u16,
    /// Kinds of fault to draw from, joined by commas, as for compare  [default: all of them]
    #[arg(long, value_name = "LIST")]
    faults: Option<Faults>,
    /// Kinds of fault in one run
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=FaultKind::ALL.len() as i64))]
    faults_per_run: u16,
    /// How long each system is run  [default: as short as the faults of the run allow]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(8..=600))]
    seconds_per_system: Option<u64>,
    /// What cuts links: loopback or netns, as for compare
    #[arg(long, value_name = "NET", default_value = "loopback", value_parser = parse_net)]
    net: Net,
    /// Calls per second on each system, all clients together
    #[arg(long, value_name = "OPS", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=5_000))]
    rate: u32,
    /// Where failures are kept; on a real disk
    #[arg(long, value_name = "DIR", default_value = "quorate-campaign")]
    out: PathBuf,
}

impl CampaignArgs {
    fn terms(&self) -> Terms {
        Terms {
            format: 1,
            systems: self.systems.clone(),
            nodes: usize::from(self.nodes),
            faults: self.faults.as_ref().map_or_else(|| FaultKind::ALL.to_vec(), |faults| faults.0.clone()),
            per_run: usize::from(self.faults_per_run),
            seconds: self.seconds_per_system,
            net: self.net.as_str().to_owned(),
            rate: self.rate,
        }
    }
}

/// Runs the campaign, prints a line for each seed and the counts.
pub fn run(args: CampaignArgs) -> anyhow::Result<Exit> {
    let terms = args.terms();
    for seed in args.seeds.0.clone() {
        if let Err(why) = terms.plan(seed) {
            return Ok(usage(&format!("seed {seed}: {why}")));
        }
    }
    if let Some(why) = netns::missing().filter(|_| args.net == Net::Netns) {
        return Ok(usage(&why));
    }
    if environment::in_memory(&args.out) {
        let why = "is in memory, where nothing is durable: choose --out on a disk";
        return Ok(usage(&format!("{} {why}", args.out.display())));
    }
    if let Err(why) = entrants(&args.systems, &place(&args.out)?) {
        return Ok(usage(&why));
    }
    if !args.out.join(FILE).exists() && fs::read_dir(&args.out).is_ok_and(|mut dir| dir.next().is_some()) {
        return Ok(usage(&format!("{} is there already and holds no campaign", args.out.display())));
    }
    fs::create_dir_all(&args.out).with_context(|| format!("cannot make {}", args.out.display()))?;
    let log = match Log::open(&args.out, &terms) {
        Ok(log) => log,
        Err(why @ LogError::Other { .. }) => return Ok(usage(&why.to_string())),
        Err(why) => return Err(why.into()),
    };
    let place = place(&args.out)?.prepared(&terms.faults, args.net == Net::Netns, terms.nodes)?;
    let runtime = super::runtime()?;
    let exit = runtime.block_on(all(&args, &terms, log, &place));
    runtime.shutdown_background();
    exit
}

async fn all(args: &CampaignArgs, terms: &Terms, mut log: Log, place: &Place) -> anyhow::Result<Exit> {
    let stop = interrupted();
    let done = log.seeds();
    for seed in args.seeds.0.clone().filter(|seed| !done.contains(seed)) {
        let Some(line) = one(args, terms, seed, place, stop.clone()).await? else {
            eprintln!("quorate: interrupted; the same command goes on from here");
            return Ok(Exit::NotDone);
        };
        tell(&line);
        log.add(line)?;
    }
    let counts = Counts::of(log.lines.iter().filter(|line| args.seeds.0.contains(&line.seed)));
    println!(
        "{} held, {} violated, {} unknown, {} not finished; {}",
        counts.held,
        counts.violated,
        counts.unknown,
        counts.failed,
        args.out.display()
    );
    Ok(match counts {
        Counts { violated: 1.., .. } => Exit::No,
        Counts { failed: 1.., .. } => Exit::NotDone,
        Counts { unknown: 1.., .. } => Exit::Unknown,
        _ => Exit::Yes,
    })
}

/// None: interrupted.
async fn one(
    args: &CampaignArgs,
    terms: &Terms,
    seed: u64,
    place: &Place,
    stop: watch::Receiver<bool>,
) -> anyhow::Result<Option<Line>> {
    let plan = terms.plan(seed).map_err(anyhow::Error::msg)?;
    let faults = terms.faults_of(seed);
    let out = args.out.join(format!("seed-{seed}"));
    // What an interrupted one left.
    if out.exists() {
        fs::remove_dir_all(&out).with_context(|| format!("cannot remove {}", out.display()))?;
    }
    fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    let place = Place { dir: out.clone(), ..place.clone() };
    let seconds = plan.length_ms / 1_000;
    let command = format!(
        "quorate compare --systems {} --nodes {} --seconds-per-system {seconds} --seed {seed} --faults {faults} --net {} --rate {}",
        terms.systems.join(","),
        terms.nodes,
        terms.net,
        terms.rate
    );
    leftovers::mark(&out, &command)?;
    let comparison = Comparison {
        entrants: entrants(&args.systems, &place).map_err(anyhow::Error::msg)?,
        skipped: Vec::new(),
        settings: Settings { rate: args.rate, ..Settings::default() },
        out: out.clone(),
        command,
        started_at: Timestamp::now().to_string(),
        facts: facts(&out, args.net)?,
        nodes: plan.nodes,
        course: Course::Symbolic(plan),
    };
    let judged = match compare(comparison, stop, &|_, _| {}).await {
        Ok(set) => tokio::task::spawn_blocking(|| report::judge(set)).await.map_err(CompareError::Died),
        Err(why) => Err(why),
    };
    let line = match judged {
        Ok(judged) => kept(seed, faults, &judged, &out)?,
        Err(CompareError::Runner(RunnerError::Interrupted)) => {
            fs::remove_dir_all(&out)?;
            return Ok(None);
        }
        Err(why) => Line::failed(seed, faults.0, why.to_string()),
    };
    Ok(Some(line))
}

/// Writes the page of a run in which something was amiss, and removes one in which all is well.
fn kept(seed: u64, faults: Faults, judged: &Judged, out: &Path) -> anyhow::Result<Line> {
    let line = Line::of(seed, faults.0, judged);
    if line.holds() {
        fs::remove_dir_all(out)?;
    } else {
        report::write(judged, out)?;
    }
    Ok(line)
}

fn tell(line: &Line) {
    let faults = Faults(line.faults.clone());
    let verdicts = line.verdicts.iter().map(|(system, verdict)| format!("{system} {verdict}")).collect::<Vec<_>>();
    let verdicts = if verdicts.is_empty() { "not finished".to_owned() } else { verdicts.join(", ") };
    println!("seed {}: {faults}: {verdicts}", line.seed);
    line.why.iter().for_each(|why| println!("  {why}"));
}
