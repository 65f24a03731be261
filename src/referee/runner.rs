//! One run of one system: clients, nemesis and observer side by side, then everything healed, settled and read once more.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::client::{Abilities, Running, System};
use super::contest::{Ahead, Contest};
use super::generator::Generator;
use super::history::{Event, Header};
use super::nemesis::{Course, NemesisError, carry_out, lift_all};
use super::scene::{Caller, Scene, Settings};
use super::schedule::Schedule;
use super::workload::{self, Callers, Used};
use super::{holders, observer, watching};

/// What a run left.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub header: Header,
    pub events: Vec<Event>,
    pub schedule: Schedule,
    /// What the system says of itself: program, version, settings.
    pub facts: Vec<(&'static str, String)>,
    /// What the referee has to say of its own work; not the system's fault.
    pub warnings: Vec<String>,
    /// From the order to start to the last answer.
    pub took: Duration,
}

/// Why there is no run to judge. None of these can ever be a pass.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    #[error("interrupted")]
    Interrupted,
    #[error("{system} did not start: {why:#}")]
    Start { system: String, why: anyhow::Error },
    #[error("{system}: {why}")]
    Nemesis { system: String, why: NemesisError },
    #[error("{system}: the history has outgrown its limit; choose fewer seconds or a lower rate")]
    TooLong { system: String },
    #[error("{system}: a task of the referee has died: {why}")]
    Died { system: String, why: tokio::task::JoinError },
}

/// Runs it. When `stop` becomes true everything is ended and [`RunnerError::Interrupted`] returned; nothing that was started is
/// left in either case. `tell` is told the name of each phase as it begins.
pub async fn run(
    system: &dyn System,
    course: &Course,
    nodes: usize,
    settings: Settings,
    mut stop: watch::Receiver<bool>,
    tell: &(dyn Fn(&str) + Sync),
) -> Result<Recorded, RunnerError> {
    let ordered = std::time::Instant::now();
    let name = || system.name().to_owned();
    tell("starting");
    let running = tokio::select! {
        started = system.start(nodes, course.seed()) => started.map_err(|why| RunnerError::Start { system: name(), why })?,
        () = stopped(&mut stop) => return Err(RunnerError::Interrupted),
    };
    let scene = Arc::new(scene(running, system.abilities(), course, settings));
    let mut tasks = Tasks::default();
    let conducted = tokio::select! {
        conducted = conduct(&scene, course, system.abilities(), &mut tasks, &name, tell) => conducted,
        () = stopped(&mut stop) => Err(RunnerError::Interrupted),
    };
    tasks.clients.shutdown().await;
    tasks.holders.shutdown().await;
    tasks.watchers.shutdown().await;
    tasks.observers.shutdown().await;
    let (schedule, mut warnings) = conducted?;
    let header = Header {
        format: 1,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        system: name(),
        seed: course.seed(),
        nodes: scene.running.nodes(),
        schedule: schedule.hash(),
        concurrency: (scene.running.nodes().len()
            * (settings.clients_per_node + 1 + usize::from(system.abilities().leases))) as u64,
    };
    let facts = scene.running.facts().await;
    let events = scene.recorder.take();
    tell("stopping");
    // All tasks have ended, so that nobody else holds it; were it otherwise, dropping it ends the system too.
    if let Some(scene) = Arc::into_inner(scene)
        && let Err(why) = scene.running.stop().await
    {
        warnings.push(format!("it did not stop in good order: {why:#}"));
    }
    Ok(Recorded { header, events, schedule, facts, warnings, took: ordered.elapsed() })
}

#[derive(Default)]
struct Tasks {
    clients: JoinSet<Caller>,
    /// With the names and groups that they used.
    holders: JoinSet<(Caller, Vec<String>, Vec<String>)>,
    watchers: JoinSet<()>,
    observers: JoinSet<()>,
}

fn scene(running: Box<dyn Running>, abilities: Abilities, course: &Course, settings: Settings) -> Scene {
    let mut calm_since = Duration::ZERO;
    let mut ahead = Vec::new();
    // What belongs together has its names before the first of it.
    for times in course.times() {
        if times.group == times.id {
            ahead.push(Ahead { id: times.id, at: times.at, calm_since: calm_since.min(times.at) });
        }
        calm_since = calm_since.max(times.until.unwrap_or(times.at));
    }
    // Contests are about names: without them there is nobody to make them.
    let contest = match abilities.names {
        true => Contest::new(running.nodes(), abilities, &ahead),
        false => Contest::new(Vec::new(), abilities, &[]),
    };
    let generator = Generator::new(course.seed(), abilities);
    Scene::new(running, settings, generator, contest, course.seed())
}

async fn conduct(
    scene: &Arc<Scene>,
    course: &Course,
    abilities: Abilities,
    tasks: &mut Tasks,
    name: &(dyn Fn() -> String + Sync),
    tell: &(dyn Fn(&str) + Sync),
) -> Result<(Schedule, Vec<String>), RunnerError> {
    tell("calm");
    for node in scene.running.nodes() {
        tasks.observers.spawn(observer::watch(scene.clone(), node));
    }
    tasks.observers.spawn(scene.clone().watch_lateness());
    // The last tenth is for the final reads.
    let end = course.length() - (course.length() / 10).min(Duration::from_millis(1_500));
    let Callers { random, planned, holding } = workload::callers(scene, abilities);
    let clients = random.len();
    for caller in holding {
        tasks.holders.spawn(workload::holding(scene.clone(), caller, abilities, course.seed(), end));
    }
    let (finish, finished) = watch::channel(false);
    if abilities.watch {
        for habits in watching::all(&scene.running.nodes(), holders::PREFIX) {
            tasks.watchers.spawn(watching::follow(scene.clone(), habits, finished.clone()));
        }
    }
    for caller in random {
        tasks.clients.spawn(workload::random_calls(scene.clone(), caller, course.seed(), clients, end));
    }
    for caller in planned {
        tasks.clients.spawn(workload::planned_calls(scene.clone(), caller, end));
    }
    let carried_out = carry_out(scene, course, tell).await;
    // Also after a failure: nothing is left cut or paused behind us.
    let lifted = lift_all(scene).await;
    let nemesis = |why| RunnerError::Nemesis { system: name(), why };
    let schedule = carried_out.map_err(nemesis)?;
    lifted.map_err(nemesis)?;

    let mut callers = Vec::new();
    while let Some(done) = tasks.clients.join_next().await {
        callers.push(done.map_err(|why| RunnerError::Died { system: name(), why })?);
    }
    let mut held = Used::default();
    while let Some(done) = tasks.holders.join_next().await {
        let (caller, names, groups) = done.map_err(|why| RunnerError::Died { system: name(), why })?;
        callers.push(caller);
        held.names.extend(names);
        held.groups.extend(groups);
    }
    tasks.observers.shutdown().await;
    tell("settling");
    let agreed = observer::settle(scene).await;
    tell("reading");
    workload::final_reads(scene, callers, &held).await;
    finish.send_replace(true);
    while let Some(done) = tasks.watchers.join_next().await {
        done.map_err(|why| RunnerError::Died { system: name(), why })?;
    }
    if scene.recorder.is_full() {
        return Err(RunnerError::TooLong { system: name() });
    }
    let mut warnings = Vec::new();
    if !agreed {
        let within = scene.settings.settle.as_secs();
        warnings.push(format!("its nodes did not show the same within {within} s of the last call"));
    }
    let late = scene.lateness();
    if late * 4 > scene.settings.timeout {
        let late = late.as_millis();
        warnings.push(format!(
            "the machine was so busy that the referee itself stood still for up to {late} ms: calls may have missed their \
             deadlines for that alone"
        ));
    }
    Ok((schedule, warnings))
}

/// Returns when `stop` has become true; never if nobody can make it so any more.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending().await
    }
}
