//! Carries the schedule out, each fault at its time, several at once where they overlap; what was done is written down with what came
//! of it. [`acts`] does and undoes; [`probes`] makes sure of links.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};

use super::acts::{self, Done};
use super::history::{FaultEvent, Installed, What};
use super::plan::{Plan, Slot};
use super::probes;
use super::scene::Scene;
use super::schedule::{FORMAT, Fault, Schedule};

/// How long before a fault the leader is looked for, and how long after its time it is waited for.
const LEADER_BEFORE: Duration = Duration::from_millis(100);
const LEADER_AFTER: Duration = Duration::from_millis(1_000);

/// What faults a run is to meet.
#[derive(Clone, Debug)]
pub enum Course {
    /// Targets are looked up as each fault fires.
    Symbolic(Plan),
    /// As another run met them.
    Resolved(Schedule),
}

/// When a fault will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    pub id: u64,
    /// The id of the first of those that belong together.
    pub group: u64,
    pub at: Duration,
    /// None: it lasts.
    pub until: Option<Duration>,
}

impl Course {
    pub fn seed(&self) -> u64 {
        match self {
            Course::Symbolic(plan) => plan.seed,
            Course::Resolved(schedule) => schedule.seed,
        }
    }

    pub fn length(&self) -> Duration {
        Duration::from_millis(match self {
            Course::Symbolic(plan) => plan.length_ms,
            Course::Resolved(schedule) => schedule.length_ms,
        })
    }

    /// When each fault will be.
    pub fn times(&self) -> Vec<Times> {
        let times = |id, group, at_ms, until_ms: Option<u64>| {
            let (at, until) = (Duration::from_millis(at_ms), until_ms.map(Duration::from_millis));
            Times { id, group, at, until }
        };
        match self {
            Course::Symbolic(plan) => plan.slots.iter().map(|s| times(s.id, s.group, s.at_ms, s.until_ms)).collect(),
            Course::Resolved(course) => {
                course.faults.iter().map(|f| times(f.id, f.group, f.at_ms, f.until_ms)).collect()
            }
        }
    }

    fn entries(&self) -> Vec<Entry> {
        match self {
            Course::Symbolic(plan) => plan.slots.iter().map(|slot| Entry::Meant(*slot, plan.seed)).collect(),
            Course::Resolved(schedule) => schedule.faults.iter().cloned().map(Entry::Known).collect(),
        }
    }
}

enum Entry {
    Meant(Slot, u64),
    Known(Fault),
}

/// Why a fault could not be made or mended: the referee's failure, whatever the system did.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {why:#}")]
pub struct NemesisError {
    what: String,
    why: anyhow::Error,
}

pub(super) fn failed(what: impl Into<String>) -> impl FnOnce(anyhow::Error) -> NemesisError {
    let what = what.into();
    move |why| NemesisError { what, why }
}

/// Makes and mends all faults of the course, each at its time; returns what they were. Those that are to last are in force still.
pub async fn carry_out(
    scene: &Arc<Scene>,
    course: &Course,
    tell: &(dyn Fn(&str) + Sync),
) -> Result<Schedule, NemesisError> {
    let (phases, mut told) = unbounded_channel();
    let mut tasks = JoinSet::new();
    for entry in course.entries() {
        tasks.spawn(one(scene.clone(), entry, phases.clone()));
    }
    drop(phases);
    let mut faults = Vec::new();
    loop {
        tokio::select! {
            Some(phase) = told.recv() => tell(phase),
            done = tasks.join_next() => match done {
                Some(Ok(fault)) => faults.push(fault?),
                Some(Err(died)) => return Err(failed("a fault")(died.into())),
                None => break,
            },
        }
    }
    faults.sort_by_key(|fault| fault.id);
    let length_ms = u64::try_from(course.length().as_millis()).unwrap_or(u64::MAX);
    Ok(Schedule { format: FORMAT, seed: course.seed(), nodes: scene.running.nodes(), length_ms, faults })
}

/// One fault from before its beginning to its end.
async fn one(scene: Arc<Scene>, entry: Entry, phases: UnboundedSender<&'static str>) -> Result<Fault, NemesisError> {
    let ms = Duration::from_millis;
    let fault = match entry {
        Entry::Known(fault) => fault,
        Entry::Meant(slot, seed) => {
            sleep_until(scene.instant(ms(slot.at_ms).saturating_sub(LEADER_BEFORE))).await;
            let leader = match slot.aim.wants_leader() {
                true => leader(&scene, ms(slot.at_ms) + LEADER_AFTER).await,
                false => None,
            };
            slot.resolve(seed, &scene.running.nodes(), leader)
        }
    };
    sleep_until(scene.instant(ms(fault.at_ms))).await;
    if let Some(why) = scene.running.cannot(&fault.harm) {
        skip(&scene, &fault, &why);
        return Ok(fault);
    }
    let _ = phases.send(fault.kind.as_str());
    let Some(late) = begin(&scene, &fault).await? else { return Ok(fault) };
    if let Some(until_ms) = fault.until_ms {
        // One that had to wait for another's end lasts as long as it would have.
        sleep_until(scene.instant(ms(until_ms) + late)).await;
        end(&scene, &fault).await?;
        let _ = phases.send("healed");
    }
    Ok(fault)
}

/// Who leads; waited for if nobody does, for the lot may not fall on the same one in every run.
async fn leader(scene: &Scene, latest: Duration) -> Option<u64> {
    let has_leader = scene.running.has_leader();
    loop {
        match scene.running.leader().await {
            None if has_leader && scene.now() < latest => sleep(Duration::from_millis(50)).await,
            leader => return leader,
        }
    }
}

fn skip(scene: &Scene, fault: &Fault, why: &str) {
    note(scene, fault, true, Installed::Skipped, why);
    note(scene, fault, false, Installed::Skipped, why);
}

/// None: there is nothing to be mended later. Else how late it was begun.
async fn begin(scene: &Arc<Scene>, fault: &Fault) -> Result<Option<Duration>, NemesisError> {
    if let Some(node) = acts::still_down(scene, fault).await {
        skip(scene, fault, &format!("node {node} was stopped already"));
        return Ok(None);
    }
    let late = scene.now().saturating_sub(Duration::from_millis(fault.at_ms));
    note(scene, fault, true, Installed::Indeterminate, "under way");
    match acts::begin(scene, fault).await? {
        Done::Perhaps(why) => note(scene, fault, true, Installed::Indeterminate, &why),
        Done::Surely(detail) => note(scene, fault, true, Installed::Installed, &detail),
    }
    let situation = scene.situation().clone();
    scene.contest().began(fault, &situation, scene.now());
    if !fault.harm.cut().is_empty() {
        // One that is over soon is probed for as long as it lasts.
        let until = fault.until_ms.map(|until| scene.instant(Duration::from_millis(until) + late).into_std());
        if let Err(unlike) = probes::probe(scene, until).await {
            note(scene, fault, true, Installed::Indeterminate, &unlike);
        }
    }
    Ok(Some(late))
}

async fn end(scene: &Arc<Scene>, fault: &Fault) -> Result<(), NemesisError> {
    note(scene, fault, false, Installed::Indeterminate, "under way");
    match acts::end(scene, fault).await? {
        Done::Surely(detail) => note(scene, fault, false, Installed::Installed, &detail),
        Done::Perhaps(why) => note(scene, fault, false, Installed::Indeterminate, &why),
    }
    scene.contest().ended(fault, scene.now());
    if !fault.harm.cut().is_empty()
        && let Err(unlike) = probes::probe(scene, None).await
    {
        note(scene, fault, false, Installed::Indeterminate, &unlike);
    }
    Ok(())
}

/// Lifts whatever is in force, but for what is to last.
pub async fn lift_all(scene: &Arc<Scene>) -> Result<(), NemesisError> {
    let in_force = scene.situation().in_force();
    for fault in in_force.into_iter().filter(|fault| fault.until_ms.is_some()) {
        acts::end(scene, &fault).await?;
    }
    Ok(())
}

fn note(scene: &Scene, fault: &Fault, begins: bool, state: Installed, detail: &str) {
    scene.recorder.nemesis(What::Fault(FaultEvent {
        id: fault.id,
        kind: fault.kind.to_string(),
        harm: fault.harm.word().to_owned(),
        begins,
        lasts: fault.until_ms.is_none(),
        cut: fault.harm.cut().to_vec(),
        nodes: fault.harm.nodes(),
        state,
        detail: detail.to_owned(),
    }));
}
