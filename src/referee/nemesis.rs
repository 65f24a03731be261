//! Carries the schedule out, and makes sure that it did: after each cut and heal every node tries every link.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{sleep, sleep_until, timeout};

use super::client::Reach;
use super::history::{FaultEvent, Installed, What};
use super::observer::at_all;
use super::scene::Scene;
use super::schedule::{Fault, FaultKind, Plan, Schedule};
use super::situation::Situation;

/// How long before a fault the leader is looked for, and how long after its time it is waited for.
const LEADER_BEFORE: Duration = Duration::from_millis(100);
const LEADER_AFTER: Duration = Duration::from_millis(1_000);
/// How long a node may take to try its links and say so. It is busy, and a link that is cut is tried for a while.
const PROBE_MAX: Duration = Duration::from_millis(1_500);
/// How long links may take to become as they are meant to be. After a heal nodes may be busy with what they have to tell each other.
const PROBE_FOR: Duration = Duration::from_millis(2_000);
/// How long a heal is tried for before the run is given up.
const HEAL_FOR: Duration = Duration::from_secs(5);
/// How long a fault may take to be put in force.
const ACT_MAX: Duration = Duration::from_secs(5);
/// How long killed nodes may take to come back.
const RESTART_MAX: Duration = Duration::from_secs(20);

/// What faults a run is to meet.
#[derive(Clone, Debug)]
pub enum Course {
    /// Targets are looked up as each fault fires.
    Symbolic(Plan),
    /// As another run met them.
    Resolved(Schedule),
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

    /// Id, kind and times of each fault.
    pub fn times(&self) -> Vec<(u64, FaultKind, Duration, Duration)> {
        let ms = Duration::from_millis;
        match self {
            Course::Symbolic(plan) => plan.slots.iter().map(|s| (s.id, s.kind, ms(s.at_ms), ms(s.until_ms))).collect(),
            Course::Resolved(course) => {
                course.faults.iter().map(|f| (f.id, f.kind, ms(f.at_ms), ms(f.until_ms))).collect()
            }
        }
    }
}

/// Why a fault could not be made or mended: the referee's failure, whatever the system did.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {why:#}")]
pub struct NemesisError {
    what: String,
    why: anyhow::Error,
}

fn failed(what: impl Into<String>) -> impl FnOnce(anyhow::Error) -> NemesisError {
    let what = what.into();
    move |why| NemesisError { what, why }
}

/// Makes and mends all faults of the course, each at its time; returns what they were.
pub async fn carry_out(
    scene: &Arc<Scene>,
    course: &Course,
    tell: &(dyn Fn(&str) + Sync),
) -> Result<Schedule, NemesisError> {
    let nodes = scene.running.nodes();
    let mut faults = Vec::new();
    for (place, (_, kind, at, until)) in course.times().into_iter().enumerate() {
        sleep_until(scene.instant(at.saturating_sub(LEADER_BEFORE))).await;
        let fault = match course {
            Course::Resolved(schedule) => schedule.faults[place].clone(),
            Course::Symbolic(plan) => {
                plan.slots[place].resolve(plan.seed, &nodes, leader(scene, at + LEADER_AFTER).await)
            }
        };
        sleep_until(scene.instant(at)).await;
        match scene.running.cannot(kind) {
            Some(why) => {
                note(scene, &fault, true, Installed::Skipped, &why);
                note(scene, &fault, false, Installed::Skipped, &why);
            }
            None => {
                tell(kind.as_str());
                begin(scene, &fault).await?;
                sleep_until(scene.instant(until)).await;
                end(scene, &fault).await?;
                tell("healed");
            }
        }
        faults.push(fault);
    }
    let length_ms = u64::try_from(course.length().as_millis()).unwrap_or(u64::MAX);
    Ok(Schedule { format: 1, seed: course.seed(), nodes, length_ms, faults })
}

/// Lifts whatever is in force.
pub async fn lift_all(scene: &Arc<Scene>) -> Result<(), NemesisError> {
    let (killed, paused, cut) = {
        let situation = scene.situation();
        (situation.killed(), situation.paused(), situation.cut())
    };
    for node in paused {
        scene.running.resume(node).await.map_err(failed(format!("resuming node {node}")))?;
        scene.situation().set_paused(node, false);
    }
    restart(scene, &killed).await?;
    if !cut.is_empty() {
        heal(scene, &cut).await?;
    }
    Ok(())
}

async fn leader(scene: &Scene, until: Duration) -> Option<u64> {
    loop {
        let answer = timeout(Duration::from_millis(500), scene.running.leader()).await.ok().flatten();
        if answer.is_some() || !scene.running.has_leader() || scene.now() >= until {
            return answer;
        }
        sleep(Duration::from_millis(50)).await;
    }
}

async fn begin(scene: &Arc<Scene>, fault: &Fault) -> Result<(), NemesisError> {
    note(scene, fault, true, Installed::Indeterminate, "under way");
    let doing = || format!("{} (fault {})", fault.kind, fault.id);
    match fault.kind {
        FaultKind::Halves | FaultKind::IsolateLeader => {
            let cut = {
                let mut situation = scene.situation();
                situation.add_cut(&fault.cut);
                situation.cut()
            };
            in_time(scene.running.cut(&cut)).await.map_err(failed(doing()))?;
        }
        FaultKind::Kill => {
            for node in &fault.nodes {
                scene.situation().set_killed(*node, true);
                in_time(scene.running.kill(*node)).await.map_err(failed(doing()))?;
            }
        }
        FaultKind::Pause => {
            for node in &fault.nodes {
                scene.situation().set_paused(*node, true);
                in_time(scene.running.pause(*node)).await.map_err(failed(doing()))?;
            }
        }
    }
    note(scene, fault, true, Installed::Installed, "");
    let situation = scene.situation().clone();
    scene.contest().began(fault, &situation, scene.now());
    if fault.kind.cuts()
        && let Err(unlike) = probe(scene).await
    {
        note(scene, fault, true, Installed::Indeterminate, &unlike);
    }
    Ok(())
}

async fn end(scene: &Arc<Scene>, fault: &Fault) -> Result<(), NemesisError> {
    note(scene, fault, false, Installed::Indeterminate, "under way");
    match fault.kind {
        FaultKind::Halves | FaultKind::IsolateLeader => heal(scene, &fault.cut).await?,
        FaultKind::Kill => restart(scene, &fault.nodes).await?,
        FaultKind::Pause => {
            for node in &fault.nodes {
                in_time(scene.running.resume(*node)).await.map_err(failed(format!("resuming node {node}")))?;
                scene.situation().set_paused(*node, false);
            }
        }
    }
    note(scene, fault, false, Installed::Installed, "");
    scene.contest().ended(fault, scene.now());
    if fault.kind.cuts()
        && let Err(unlike) = probe(scene).await
    {
        note(scene, fault, false, Installed::Indeterminate, &unlike);
    }
    Ok(())
}

/// A node may be too busy to take the word at once; one that never takes it would spoil all that comes after.
async fn heal(scene: &Scene, cut: &[(u64, u64)]) -> Result<(), NemesisError> {
    let rest = {
        let mut healed = scene.situation().clone();
        healed.remove_cut(cut);
        healed.cut()
    };
    let end = Instant::now() + HEAL_FOR;
    loop {
        match in_time(scene.running.cut(&rest)).await {
            Ok(()) => break,
            Err(_) if Instant::now() < end => sleep(Duration::from_millis(100)).await,
            Err(why) => return Err(failed("healing")(why)),
        }
    }
    scene.situation().remove_cut(cut);
    Ok(())
}

async fn restart(scene: &Arc<Scene>, nodes: &[u64]) -> Result<(), NemesisError> {
    let mut tasks = tokio::task::JoinSet::new();
    for node in nodes.iter().copied() {
        let scene = scene.clone();
        tasks.spawn(async move {
            let restarted = timeout(RESTART_MAX, scene.running.restart(node)).await;
            let restarted = restarted.unwrap_or_else(|_| Err(anyhow::anyhow!("it does not answer its clients")));
            restarted.map_err(failed(format!("restarting node {node}")))?;
            scene.situation().set_killed(node, false);
            Ok(())
        });
    }
    tasks.join_all().await.into_iter().collect()
}

/// Every node that is up tries its links, until they are as they are meant to be or time is up. The error says which are not.
async fn probe(scene: &Arc<Scene>) -> Result<(), String> {
    let end = Instant::now() + PROBE_FOR;
    loop {
        let answers =
            at_all(scene, |scene, node| async move { scene.running.reached(node, Instant::now() + PROBE_MAX).await })
                .await;
        let situation = scene.situation().clone();
        let unlike = answers.iter().filter_map(|(node, reach)| match reach {
            Ok(reach) => differs(&situation, *node, reach),
            Err(why) => Some(format!("node {node} did not try its links: {why:#}")),
        });
        let unlike = unlike.collect::<Vec<_>>();
        if unlike.is_empty() || Instant::now() >= end {
            let reached = answers.into_iter().filter_map(|(node, reach)| {
                let reach = reach.ok()?;
                Some((node, reach.fully.union(&reach.partly).copied().collect()))
            });
            let reached = reached.collect::<BTreeMap<_, _>>();
            scene.recorder.nemesis(What::Probe { reached, as_intended: unlike.is_empty() });
            return if unlike.is_empty() { Ok(()) } else { Err(unlike.join("; ")) };
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// How what a node reaches differs from what it is meant to reach. Links to nodes that are stopped may pass or not.
fn differs(situation: &Situation, node: u64, reach: &Reach) -> Option<String> {
    let up =
        |peers: &BTreeSet<u64>| peers.iter().copied().filter(|peer| situation.is_up(*peer)).collect::<BTreeSet<_>>();
    let (fully, partly) = (up(&reach.fully), up(&reach.partly));
    let wanted = situation.reach(node);
    if !partly.is_empty() || fully != wanted {
        return Some(format!("node {node} reaches {fully:?} fully and {partly:?} in part, not {wanted:?}"));
    }
    let heard_by = up(reach.heard_by.as_ref()?);
    let wanted = situation.heard_by(node);
    (heard_by != wanted).then(|| format!("node {node} is heard by {heard_by:?}, not by {wanted:?}"))
}

async fn in_time(act: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    timeout(ACT_MAX, act).await.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {ACT_MAX:?}")))
}

fn note(scene: &Scene, fault: &Fault, begins: bool, state: Installed, detail: &str) {
    scene.recorder.nemesis(What::Fault(FaultEvent {
        id: fault.id,
        kind: fault.kind.to_string(),
        begins,
        cut: fault.cut.clone(),
        nodes: fault.nodes.clone(),
        state,
        detail: detail.to_owned(),
    }));
}
