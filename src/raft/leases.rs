//! Ends leases whose time has come, while this node leads (protocol C4 and C5).
//!
//! Timers belong to one leadership: they start once it has applied its first own entry, and go with it. What they lead to is proposed
//! under that very leadership, which openraft compares when it appends, and never passed on to another node: a leader that was deposed
//! while it was asleep ends nothing. A lease that nobody has kept alive since the last change of leader has as much time left as the
//! leaders before have not used up; each notes how long it has lasted, once a second while there are such leases.

use std::sync::Arc;
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, ForwardReason};
use openraft::impls::ProgressResponder;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};

use super::flaws::{Pace, WallClock};
use super::leadership::ServerMetrics;
use super::lease_clock::LeaseClock;
use super::lease_timers::Timers;
use super::state_machine::View;
use super::types::{Proposal, Raft};
use crate::model::step::Step;
use crate::registry::Reason;

/// Expiries are gathered for so long.
const TICK: Duration = Duration::from_millis(100);
/// How long a leader looks away from its timers at most: shorter than the shortest lease, so that a new one need not wake it.
const GLANCE: Duration = Duration::from_millis(500);
/// How often a leader notes how long it has lasted.
const AGE_PERIOD: Duration = Duration::from_secs(1);

/// What keeps the time of leases.
pub struct Leases {
    pub raft: Raft,
    pub view: View,
    pub clock: Arc<LeaseClock>,
    /// Right, but for a planted flaw.
    pub pace: Pace,
    /// Without effect, but for a planted flaw.
    pub wall: WallClock,
}

/// Why a leader's note has come to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unnoted {
    /// That leadership is over; the note was not appended.
    NotLeader,
    /// The leader has not heard from a majority for too long; the note was not appended.
    Cut,
    /// Perhaps appended.
    Unknown(Reason),
}

/// Proposes a leader's own note, and waits until it is applied.
pub async fn note(raft: &Raft, leadership: u64, step: &Step) -> Result<(), Unnoted> {
    let stopping = || Unnoted::Unknown(Reason::Internal("the node is stopping".into()));
    let proposal = Proposal::encode(step).expect("notes are short");
    let (responder, done) = ProgressResponder::complete_only();
    raft.write(proposal).with_leader(leadership).responder(responder).await.map_err(|_| stopping())?;
    match done.await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(ClientWriteError::ForwardToLeader(forward))) => Err(match forward.reason {
            ForwardReason::LeaseExpired => Unnoted::Cut,
            ForwardReason::NotLeader | ForwardReason::LeadershipTransfer => Unnoted::NotLeader,
        }),
        Ok(Err(e)) => Err(Unnoted::Unknown(Reason::Internal(e.to_string()))),
        Err(_) => Err(stopping()),
    }
}

impl Leases {
    /// Runs as long as the node does.
    pub async fn run(self) {
        let mut metrics = self.raft.server_metrics();
        loop {
            let now_leading = leading(&metrics);
            if let Some(leadership) = now_leading {
                self.clock.load();
                if self.applied_first_entry(leadership, &mut metrics).await {
                    let leases = self.view.now().table.clone();
                    self.clock.start(Timers::begin(leadership, leases.leases(), Instant::now(), self.pace));
                    self.lead(leadership, &mut metrics).await;
                }
                self.clock.stop();
            }
            if leading(&metrics) == now_leading && metrics.changed().await.is_err() {
                return;
            }
        }
    }

    /// Waits until this leadership has applied an entry of its own. False: it is over before.
    async fn applied_first_entry(&self, leadership: u64, metrics: &mut ServerMetrics) -> bool {
        let applied = self.view.wait_until(|state| state.leadership() == leadership);
        tokio::pin!(applied);
        loop {
            tokio::select! {
                applied = &mut applied => return applied,
                changed = metrics.changed() => if changed.is_err() || leading(metrics) != Some(leadership) {
                    return false;
                }
            }
        }
    }

    /// Returns when this leadership is over.
    async fn lead(&self, leadership: u64, metrics: &mut ServerMetrics) {
        let mut ages = interval_at(Instant::now() + AGE_PERIOD, AGE_PERIOD);
        ages.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looked = Instant::now();
        let mut expiring = None;
        while leading(metrics) == Some(leadership) {
            let next = self.clock.timers(|timers| timers.next_due()).flatten();
            let look = (looked + GLANCE).min(next.unwrap_or(looked + GLANCE)).max(looked + TICK);
            tokio::select! {
                changed = metrics.changed() => if changed.is_err() { return },
                () = sleep_until(look), if expiring.is_none() => {
                    looked = Instant::now();
                    let due = self.due(leadership, looked + self.wall.ahead());
                    if !due.is_empty() {
                        expiring = Some(Box::pin(self.expire(leadership, due)));
                    }
                }
                () = async { expiring.as_mut().expect("only then").await }, if expiring.is_some() => expiring = None,
                _ = ages.tick() => self.note_age(leadership).await,
            }
        }
    }

    fn due(&self, leadership: u64, now: Instant) -> Vec<u64> {
        let state = self.view.now();
        let entries = |number| state.table.lease_numbered(number).map_or(0, |facts| facts.entries);
        self.clock.timers_of(leadership, |timers| timers.due(now, entries)).unwrap_or_default()
    }

    async fn expire(&self, leadership: u64, leases: Vec<u64>) {
        let step = Step::Expire { leases };
        let noted = note(&self.raft, leadership, &step).await;
        let Step::Expire { leases } = step else { unreachable!() };
        match noted {
            // The clock has heard of their end from the state machine.
            Ok(()) => {}
            Err(Unnoted::Cut | Unnoted::NotLeader) => self.clock.spare(leadership, &leases),
            // What becomes of them shows when this leadership is over, or the entry is applied after all.
            Err(Unnoted::Unknown(why)) => tracing::warn!("the expiry of {} leases: {why:?}", leases.len()),
        }
    }

    async fn note_age(&self, leadership: u64) {
        let age = self.clock.timers_of(leadership, |timers| timers.age(Instant::now())).flatten();
        if let Some(age) = age {
            let step = Step::Aged { ms: age.as_millis() as u64 };
            let proposal = Proposal::encode(&step).expect("notes are short");
            // Nobody waits for it: the next one says more.
            let _ = self.raft.write(proposal).with_leader(leadership).await;
        }
    }
}

/// The leadership that this node has now, as far as it knows.
fn leading(metrics: &ServerMetrics) -> Option<u64> {
    let metrics = metrics.borrow_watched();
    (metrics.state == ServerState::Leader).then(|| metrics.vote.leader_id().term)
}
