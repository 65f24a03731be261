//! Many short comparisons: the library side of `quorate campaign`. What each seed came to is appended to one file, from which a campaign
//! that was interrupted goes on; of the runs themselves only those are kept in which something was amiss.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use super::analysis::verdict::Verdict;
use super::kinds::{FaultKind, Faults};
use super::plan::{Plan, SECONDS_MIN};
use super::report::Judged;

/// The file of a campaign's directory: what is run, then one line for each seed that has been.
pub const FILE: &str = "campaign.ndjson";
/// The longest that a run is made so that its faults fit.
const SECONDS_MAX: u64 = 600;
/// How long each fault lasts at least: an election, and some calls of every kind after it.
const FAULT_MS: u64 = 3_500;
const SEEDS_MAX: u64 = 100_000;

/// First and last seed, as `--seeds` gives them: `1..200`, both included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seeds(pub RangeInclusive<u64>);

impl FromStr for Seeds {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not FIRST..LAST");
        let (first, last) = text.split_once("..").ok_or_else(wrong)?;
        let (first, last): (u64, u64) = (first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?);
        if first > last || last - first >= SEEDS_MAX {
            return Err(format!("FIRST..LAST are between 1 and {SEEDS_MAX} seeds, both ends included"));
        }
        Ok(Self(first..=last))
    }
}

/// What a campaign runs; the same in every call that is to go on with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// Always 1.
    pub format: u32,
    pub systems: Vec<String>,
    pub nodes: usize,
    pub faults: Vec<FaultKind>,
    /// Kinds of fault in one run.
    pub per_run: usize,
    /// None: as short as the faults of a run allow.
    pub seconds: Option<u64>,
    pub net: String,
    pub rate: u32,
}

impl Terms {
    /// The faults of one seed. With each seed the next kind has its turn; the others are drawn. Those that a few nodes make nothing of are
    /// left out.
    pub fn faults_of(&self, seed: u64) -> Faults {
        let fit = self.faults.iter().copied().filter(|kind| kind.least_nodes() <= self.nodes).collect::<Vec<_>>();
        if fit.is_empty() {
            return Faults(Vec::new());
        }
        let first = fit[(seed % fit.len() as u64) as usize];
        let mut others = fit.into_iter().filter(|kind| *kind != first).collect::<Vec<_>>();
        others.shuffle(&mut Xoshiro256PlusPlus::seed_from_u64(seed));
        Faults([first].into_iter().chain(others).take(self.per_run.max(1)).collect())
    }

    pub fn plan(&self, seed: u64) -> Result<Plan, String> {
        let faults = self.faults_of(seed);
        let with = |seconds| Plan::new(&faults, seconds, self.nodes, seed);
        match self.seconds {
            Some(seconds) => with(seconds),
            None => {
                let long = |plan: Plan| plan.shortest_ms().is_none_or(|shortest| shortest >= FAULT_MS);
                let least = (SECONDS_MIN..SECONDS_MAX).find(|seconds| with(*seconds).is_ok_and(long));
                with(least.unwrap_or(SECONDS_MAX))
            }
        }
    }
}

/// What one seed came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    pub seed: u64,
    pub faults: Vec<FaultKind>,
    /// By system: `holds`, `unknown` or `violated`. Empty: the referee could not finish.
    pub verdicts: BTreeMap<String, String>,
    /// What was amiss, a line each.
    pub why: Vec<String>,
}

impl Line {
    pub fn of(seed: u64, faults: Vec<FaultKind>, judged: &Judged) -> Self {
        let mut line = Self { seed, faults, verdicts: BTreeMap::new(), why: Vec::new() };
        for found in &judged.findings {
            line.verdicts.insert(found.system.clone(), found.verdict.as_str().to_owned());
            let amiss = found.promises.iter().filter(|promise| promise.promised && promise.verdict != Verdict::Holds);
            for promise in amiss {
                let first = promise.evidence.first().map(|line| format!(" ({line})")).unwrap_or_default();
                let what = format!("{}: {} {}", found.system, promise.id, promise.verdict.as_str());
                line.why.push(format!("{what}: {}{first}", promise.detail));
            }
        }
        line
    }

    pub fn failed(seed: u64, faults: Vec<FaultKind>, why: String) -> Self {
        Self { seed, faults, verdicts: BTreeMap::new(), why: vec![why] }
    }

    /// Nothing was amiss.
    pub fn holds(&self) -> bool {
        !self.verdicts.is_empty() && self.verdicts.values().all(|verdict| verdict == Verdict::Holds.as_str())
    }
}

/// How many seeds came to what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub held: usize,
    pub violated: usize,
    pub unknown: usize,
    /// The referee could not finish.
    pub failed: usize,
}

impl Counts {
    pub fn of<'a>(lines: impl IntoIterator<Item = &'a Line>) -> Self {
        let mut counts = Self::default();
        for line in lines {
            let has = |verdict: Verdict| line.verdicts.values().any(|of| of == verdict.as_str());
            match () {
                () if line.verdicts.is_empty() => counts.failed += 1,
                () if has(Verdict::Violated) => counts.violated += 1,
                () if has(Verdict::Unknown) => counts.unknown += 1,
                () => counts.held += 1,
            }
        }
        counts
    }
}

/// The file of a campaign.
pub struct Log {
    path: PathBuf,
    pub lines: Vec<Line>,
}

/// Why a campaign cannot begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("{}: line {line} cannot be read: {why}", path.display())]
    Garbled { path: PathBuf, line: usize, why: String },
    #[error("{} is of a campaign with other arguments; choose another --out", path.display())]
    Other { path: PathBuf },
}

impl Log {
    /// Begins one, or goes on with what is there. A last line that was cut short by a crash is left out and made anew.
    pub fn open(dir: &Path, terms: &Terms) -> Result<Self, LogError> {
        let path = dir.join(FILE);
        let io = |error| LogError::Io { path: path.clone(), error };
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(absent) if absent.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(io(error)),
        };
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        let garbled = |line: usize, why: serde_json::Error| LogError::Garbled {
            path: path.clone(),
            line: line + 1,
            why: why.to_string(),
        };
        let mut lines = whole.lines();
        if let Some(first) = lines.next() {
            let there: Terms = serde_json::from_str(first).map_err(|why| garbled(0, why))?;
            if there != *terms {
                return Err(LogError::Other { path });
            }
        }
        let done = lines.enumerate().map(|(at, line)| serde_json::from_str(line).map_err(|why| garbled(at + 1, why)));
        let done = done.collect::<Result<Vec<Line>, _>>()?;
        let mut log = Self { path: path.clone(), lines: done };
        if whole.is_empty() {
            fs::write(&path, "").map_err(io)?;
            log.append(terms)?;
        } else if whole.len() < text.len() {
            fs::write(&path, whole).map_err(io)?;
        }
        Ok(log)
    }

    /// Seeds that have been run.
    pub fn seeds(&self) -> BTreeSet<u64> {
        self.lines.iter().map(|line| line.seed).collect()
    }

    pub fn add(&mut self, line: Line) -> Result<(), LogError> {
        self.append(&line)?;
        self.lines.push(line);
        Ok(())
    }

    fn append(&mut self, line: &impl Serialize) -> Result<(), LogError> {
        let text = serde_json::to_string(line).expect("numbers and words are JSON") + "\n";
        let file = OpenOptions::new().append(true).open(&self.path);
        let written = file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_data()));
        written.map_err(|error| LogError::Io { path: self.path.clone(), error })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms() -> Terms {
        Terms {
            format: 1,
            systems: vec!["cp".to_owned()],
            nodes: 3,
            faults: FaultKind::ALL.to_vec(),
            per_run: 2,
            seconds: None,
            net: "loopback".to_owned(),
            rate: 200,
        }
    }

    fn line(seed: u64, verdict: &str) -> Line {
        let verdicts = BTreeMap::from([("cp".to_owned(), verdict.to_owned())]);
        Line { seed, faults: Vec::new(), verdicts, why: Vec::new() }
    }

    #[test]
    fn every_kind_has_its_turn_and_every_seed_a_plan() {
        let kinds = FaultKind::ALL.len() - 1;
        let firsts = (1..=kinds as u64).map(|seed| {
            let faults = terms().faults_of(seed);
            assert_eq!((faults.0.len(), terms().faults_of(seed)), (2, faults.clone()));
            terms().plan(seed).unwrap();
            faults.0[0]
        });
        // A ring takes more than three nodes.
        assert_eq!(firsts.collect::<BTreeSet<_>>().len(), kinds);
    }

    #[test]
    fn a_campaign_goes_on_where_it_was_and_with_no_other_arguments() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::open(dir.path(), &terms()).unwrap();
        log.add(line(1, "holds")).unwrap();
        log.add(line(2, "violated")).unwrap();
        // As a crash leaves it.
        let path = dir.path().join(FILE);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{text}{{\"seed\":3,")).unwrap();
        let again = Log::open(dir.path(), &terms()).unwrap();
        assert_eq!(again.seeds(), BTreeSet::from([1, 2]));
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        assert!(matches!(Log::open(dir.path(), &Terms { nodes: 5, ..terms() }), Err(LogError::Other { .. })));
    }

    #[test]
    fn the_worst_of_a_seed_is_counted() {
        let mut mixed = line(3, "holds");
        mixed.verdicts.insert("ap".to_owned(), "unknown".to_owned());
        let failed = Line::failed(4, Vec::new(), "no port".to_owned());
        let lines = [line(1, "holds"), line(2, "violated"), mixed, failed];
        assert_eq!(Counts::of(&lines), Counts { held: 1, violated: 1, unknown: 1, failed: 1 });
        assert_eq!(lines.map(|line| line.holds()), [true, false, false, false]);
    }

    #[test]
    fn seeds_are_a_range_with_both_ends() {
        assert_eq!("1..200".parse(), Ok(Seeds(1..=200)));
        for wrong in ["5", "5..1", "a..b", "1...3", "1..1000000"] {
            assert!(wrong.parse::<Seeds>().is_err(), "{wrong}");
        }
    }
}
