//! Where the state machine, keep-alives and the expiry of leases meet: the timers of the present leadership, if this node leads.

use std::sync::{Mutex, MutexGuard};

use tokio::sync::watch;
use tokio::time::Instant;

use super::lease_timers::Timers;
use crate::model::table::LeaseNews;

/// One node's lease timers, which are there while it leads.
#[derive(Debug)]
pub struct LeaseClock {
    phase: Mutex<Phase>,
    /// Told when a keep-alive that waits should look again: the phase has changed, or an expiry has been settled.
    settled: watch::Sender<()>,
}

#[derive(Debug)]
enum Phase {
    /// Another node leads, or this one does not know yet that it does.
    Idle,
    /// The timers are about to start: what the state machine reports meanwhile is kept.
    Loading(Vec<LeaseNews>),
    Leading(Timers),
}

impl Default for LeaseClock {
    fn default() -> Self {
        Self { phase: Mutex::new(Phase::Idle), settled: watch::Sender::new(()) }
    }
}

impl LeaseClock {
    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().expect("no panic while held")
    }

    /// Takes in what was applied, after readers can see it.
    pub fn hear(&self, news: &[LeaseNews]) {
        if news.is_empty() {
            return;
        }
        match &mut *self.phase() {
            Phase::Idle => return,
            Phase::Loading(missed) => return missed.extend_from_slice(news),
            Phase::Leading(timers) => {
                let now = Instant::now();
                news.iter().for_each(|news| timers.hear(news, now));
            }
        }
        if news.iter().any(|news| matches!(news, LeaseNews::Ended { .. })) {
            self.settled.send_replace(());
        }
    }

    /// From here on, what is applied is not missed by the timers that are to [`start`](Self::start).
    pub fn load(&self) {
        *self.phase() = Phase::Loading(Vec::new());
    }

    /// Starts timers made of a state that was published after [`load`](Self::load).
    pub fn start(&self, mut timers: Timers) {
        let mut phase = self.phase();
        let now = Instant::now();
        if let Phase::Loading(missed) = &*phase {
            missed.iter().for_each(|news| timers.hear(news, now));
        }
        *phase = Phase::Leading(timers);
        drop(phase);
        self.settled.send_replace(());
    }

    /// The leadership is over, and its timers with it.
    pub fn stop(&self) {
        *self.phase() = Phase::Idle;
        self.settled.send_replace(());
    }

    /// Looks at the timers, or changes them. None: there are none, for this node does not lead, or not yet.
    pub fn timers<T>(&self, work: impl FnOnce(&mut Timers) -> T) -> Option<T> {
        match &mut *self.phase() {
            Phase::Leading(timers) => Some(work(timers)),
            Phase::Idle | Phase::Loading(_) => None,
        }
    }

    /// As [`timers`](Self::timers), of this leadership alone.
    pub fn timers_of<T>(&self, leadership: u64, work: impl FnOnce(&mut Timers) -> T) -> Option<T> {
        self.timers(|timers| (timers.leadership() == leadership).then(|| work(timers))).flatten()
    }

    /// An expiry surely was not proposed.
    pub fn spare(&self, leadership: u64, numbers: &[u64]) {
        self.timers_of(leadership, |timers| timers.spare(numbers, Instant::now()));
        self.settled.send_replace(());
    }

    /// Changes whenever a keep-alive that waits should look again. Subscribe first, then look.
    pub fn settled(&self) -> watch::Receiver<()> {
        self.settled.subscribe()
    }
}
