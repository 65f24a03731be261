//! What the tasks of one run share: the system, the history, what is in force, the workload.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::client::{Client, Completion, Running};
use super::contest::Contest;
use super::generator::Generator;
use super::history::{ANSWER_DROPPED, Process, Side, What};
use super::recorder::Recorder;
use super::resource::Resources;
use super::situation::Situation;
use crate::model::ident::NodeId;

/// How long a call may take beyond its deadline before the referee gives up on its own client.
const GRACE: Duration = Duration::from_millis(500);

/// How often the referee looks whether it is late itself.
const TICK: Duration = Duration::from_millis(20);

/// How a run is to be made, whatever the system and the faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Calls per second, all clients together.
    pub rate: u32,
    /// How long a call may take.
    pub timeout: Duration,
    /// Clients per node that make random calls.
    pub clients_per_node: usize,
    /// How often each node's own view is looked at.
    pub view_period: Duration,
    /// How long all nodes may take to show the same after the last call.
    pub settle: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            rate: 200,
            timeout: Duration::from_millis(1_000),
            clients_per_node: 2,
            view_period: Duration::from_millis(250),
            settle: Duration::from_secs(10),
        }
    }
}

/// One run's common things.
pub struct Scene {
    pub running: Box<dyn Running>,
    pub recorder: Recorder,
    pub settings: Settings,
    /// The longest time by which the referee itself was late, in milliseconds.
    lateness_ms: AtomicU64,
    /// Held while links or clocks are made what the situation says.
    pub turn: tokio::sync::Mutex<()>,
    situation: Mutex<Situation>,
    /// Which answers a fault loses.
    chance: Mutex<Xoshiro256PlusPlus>,
    dropped: AtomicU64,
    generator: Mutex<Generator>,
    contest: Mutex<Contest>,
    pub resources: Resources,
}

impl Scene {
    /// `seed` decides which answers are lost, where a fault loses some.
    pub fn new(
        running: Box<dyn Running>,
        settings: Settings,
        generator: Generator,
        contest: Contest,
        seed: u64,
    ) -> Self {
        let situation = Mutex::new(Situation::new(running.nodes()));
        let chance = Mutex::new(Xoshiro256PlusPlus::seed_from_u64(seed));
        let (generator, contest) = (Mutex::new(generator), Mutex::new(contest));
        let lateness_ms = AtomicU64::new(0);
        let (recorder, turn, dropped) = (Recorder::start(), tokio::sync::Mutex::default(), AtomicU64::new(0));
        let resources = Resources::default();
        Self {
            running,
            recorder,
            settings,
            lateness_ms,
            turn,
            situation,
            chance,
            dropped,
            generator,
            contest,
            resources,
        }
    }

    /// Locks are held for a few lines, never across an await; a panic inside one ends the run as the referee's failure anyway.
    pub fn situation(&self) -> MutexGuard<'_, Situation> {
        self.situation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn generator(&self) -> MutexGuard<'_, Generator> {
        self.generator.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn contest(&self) -> MutexGuard<'_, Contest> {
        self.contest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn side(&self, node: NodeId) -> Side {
        self.situation().side(node)
    }

    /// The nodes that are neither killed nor paused.
    pub fn up(&self) -> Vec<NodeId> {
        let situation = self.situation();
        situation.nodes().iter().copied().filter(|node| situation.is_up(*node)).collect()
    }

    /// Those that are up and in reach of a majority: all, once everything is mended.
    pub fn core(&self) -> Vec<NodeId> {
        let situation = self.situation();
        let inside = |node: &NodeId| matches!(situation.side(*node), Side::Whole | Side::Majority);
        situation.nodes().iter().copied().filter(inside).collect()
    }

    /// How many answers were dropped since this was asked last.
    pub fn answers_dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::Relaxed)
    }

    /// Whether a fault loses this answer.
    fn drops_answer(&self, node: NodeId) -> bool {
        let percent = self.situation().answers_lost(node);
        percent > 0 && self.chance.lock().unwrap_or_else(PoisonError::into_inner).random_ratio(percent.into(), 100)
    }

    /// Notes how late the referee's own timers are, until the task is ended.
    pub async fn watch_lateness(self: Arc<Self>) {
        loop {
            let wanted = tokio::time::Instant::now() + TICK;
            tokio::time::sleep_until(wanted).await;
            let late = u64::try_from(wanted.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.lateness_ms.fetch_max(late, Ordering::Relaxed);
        }
    }

    pub fn lateness(&self) -> Duration {
        Duration::from_millis(self.lateness_ms.load(Ordering::Relaxed))
    }

    /// Since the run began.
    pub fn now(&self) -> Duration {
        self.recorder.began().elapsed()
    }

    /// That long after the run began.
    pub fn instant(&self, since: Duration) -> tokio::time::Instant {
        (self.recorder.began() + since).into()
    }

    /// One client's call, recorded.
    pub async fn call(&self, caller: &mut Caller, what: &What) -> Completion {
        let process = Process::Client(caller.process);
        let invoked = self.recorder.invoke(process, caller.node, self.side(caller.node), what);
        let deadline = Instant::now() + self.settings.timeout;
        let answer = tokio::time::timeout_at((deadline + GRACE).into(), caller.client.call(what, deadline)).await;
        let nothing_known = |why: &str| match what.is_read() {
            true => Completion::Fail(why.to_owned()),
            false => Completion::Info(why.to_owned()),
        };
        let mut completion = answer.unwrap_or_else(|_| nothing_known("the client never returned"));
        if matches!(completion, Completion::Ok(_)) && self.drops_answer(caller.node) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            completion = nothing_known(ANSWER_DROPPED);
        }
        if let Completion::Info(_) = completion {
            // The call may take effect at any later time, so the process can never be said to have gone on to another one.
            caller.process += caller.step;
            caller.client = self.running.client(caller.node);
        }
        self.recorder.complete(invoked, completion.clone());
        completion
    }
}

/// One process of the history, and the client that it calls with.
pub struct Caller {
    pub process: u64,
    /// What is added to the process when it retires.
    pub step: u64,
    pub node: NodeId,
    pub client: Box<dyn Client>,
}
