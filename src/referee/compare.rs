//! Several systems under one resolved schedule: the library side of `quorate compare`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;

use super::client::System;
use super::formats::{export, own};
use super::nemesis::Course;
use super::recorder;
use super::report::data::{Bounds, Fact, Run, RunSet, Skipped};
use super::runner::{self, Recorded, RunnerError};
use super::scene::Settings;
use super::schedule::Schedule;

/// What a fact of a run is called that tells what the referee has to say against its own work.
pub const WARNING: &str = "the referee warns";

/// The shortest fault in which a majority must elect somebody and go on.
const SHORTEST_JUDGED: Duration = Duration::from_millis(2_000);

/// What is to be compared.
pub struct Comparison {
    /// In the order of the report.
    pub entrants: Vec<Entrant>,
    pub skipped: Vec<Skipped>,
    /// Looked up in the first run, or as another comparison met it.
    pub course: Course,
    pub nodes: usize,
    pub settings: Settings,
    /// An existing directory. The schedule and each system's history are written there.
    pub out: PathBuf,
    /// The exact command that makes these runs again.
    pub command: String,
    /// RFC 3339 in UTC.
    pub started_at: String,
    /// What holds for all runs.
    pub facts: Vec<Fact>,
}

/// A system that takes part.
pub struct Entrant {
    pub system: Box<dyn System>,
    /// Whether its verdict decides the comparison's.
    pub decides: bool,
}

/// Why there is nothing to report.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    #[error(transparent)]
    Runner(#[from] RunnerError),
    #[error("cannot write {}: {error}", path.display())]
    Unwritable { path: PathBuf, error: io::Error },
    #[error("the judgement has died: {0}")]
    Died(tokio::task::JoinError),
}

/// Runs all, one after the other. The first one with a leader fixes the schedule and the others meet it as it was; `tell` is told
/// system and phase as each phase begins.
///
/// When `stop` becomes true everything is ended at once, and nothing is left running.
pub async fn compare(
    comparison: Comparison,
    stop: watch::Receiver<bool>,
    tell: &(dyn Fn(&str, &str) + Sync),
) -> Result<RunSet, CompareError> {
    let mut order = (0..comparison.entrants.len()).collect::<Vec<_>>();
    // "The leader" is looked up in the first run, so a system that has one goes first.
    order.sort_by_key(|at| !comparison.entrants[*at].system.promises().linearizable);
    let mut course = comparison.course.clone();
    let (mut runs, mut skipped) = (Vec::new(), comparison.skipped);
    for at in order {
        let entrant = &comparison.entrants[at];
        let name = entrant.system.name();
        let mut skip = |why: String| skipped.push(Skipped { system: name.to_owned(), why });
        if let Some(why) = entrant.system.missing() {
            skip(why);
            continue;
        }
        let (nodes, settings) = (comparison.nodes, comparison.settings);
        let tell_phase = |phase: &str| tell(name, phase);
        let recorded = match runner::run(&*entrant.system, &course, nodes, settings, stop.clone(), &tell_phase).await {
            Ok(recorded) => recorded,
            // Another's trouble with this machine says nothing of the systems that are judged.
            Err(why @ (RunnerError::Start { .. } | RunnerError::Nemesis { .. })) if !entrant.decides => {
                skip(why.to_string());
                continue;
            }
            Err(why) => return Err(why.into()),
        };
        if runs.is_empty() {
            write_schedule(&comparison.out, &recorded.schedule)?;
        }
        if let Course::Symbolic(_) = course {
            course = Course::Resolved(recorded.schedule.clone());
        }
        write_history(&comparison.out, &recorded)?;
        runs.push((at, run_of(entrant, &comparison.course, recorded)));
    }
    runs.sort_by_key(|(at, _)| *at);
    let schedule = match &course {
        Course::Resolved(schedule) => json!(schedule),
        Course::Symbolic(_) => json!(null),
    };
    Ok(RunSet {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        seed: comparison.course.seed(),
        command: comparison.command,
        started_at: comparison.started_at,
        schedule,
        facts: comparison.facts,
        runs: runs.into_iter().map(|(_, run)| run).collect(),
        skipped,
    })
}

fn run_of(entrant: &Entrant, course: &Course, recorded: Recorded) -> Run {
    let required = recorded.schedule.kinds().iter().map(ToString::to_string).collect();
    let mut facts =
        vec![Fact::new("took", format!("{:.1} s, starting and stopping included", recorded.took.as_secs_f64()))];
    facts.extend(recorded.facts.into_iter().map(|(what, value)| Fact::new(what, value)));
    facts.extend(recorded.warnings.into_iter().map(|warning| Fact::new(WARNING, warning)));
    Run {
        header: recorded.header,
        promises: entrant.system.promises(),
        abilities: entrant.system.abilities(),
        decides: entrant.decides,
        events: recorded.events,
        required,
        bounds: bounds(course),
        facts,
    }
}

/// In a short run the majority has less time to elect somebody, so that there is a moment left in which it is judged.
fn bounds(course: &Course) -> Bounds {
    let usual = Bounds::default();
    let spans = course.times().into_iter().filter_map(|times| Some(times.until? - times.at));
    // What is shorter is too short to judge anybody by.
    let shortest = spans.filter(|span| *span >= SHORTEST_JUDGED).min();
    let judged = shortest.map(|span| span - Duration::from_millis(500));
    Bounds { election: judged.map_or(usual.election, |judged| judged.min(usual.election)), ..usual }
}

fn write_schedule(out: &Path, schedule: &Schedule) -> Result<(), CompareError> {
    let path = out.join("schedule.json");
    let text = serde_json::to_string_pretty(schedule).expect("numbers and fixed words are JSON");
    fs::write(&path, text + "\n").map_err(|error| CompareError::Unwritable { path, error })
}

fn write_history(out: &Path, recorded: &Recorded) -> Result<(), CompareError> {
    let dir = out.join(&recorded.header.system);
    let path = dir.join("history.ndjson");
    fs::create_dir_all(&dir)
        .and_then(|()| recorder::write(&path, &recorded.header, &recorded.events))
        .map_err(|error| CompareError::Unwritable { path, error })?;
    // A history that cannot be read as calls has its verdict, unknown, from the analysis.
    let Ok(calls) = own::calls(&recorded.events) else { return Ok(()) };
    let path = dir.join("history.edn");
    fs::write(&path, export::edn_of_many(&export::registers(&calls.names)))
        .map_err(|error| CompareError::Unwritable { path, error })
}
