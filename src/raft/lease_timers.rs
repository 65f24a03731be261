//! When leases run out: what one leadership knows, and nothing else does (protocol C4). Pure: time is an argument.
//!
//! A keep-alive only moves a deadline. The queue is put right when the old time comes: each lease stands in it once, never later than its
//! deadline, so that renewing a lease many times costs a hash each.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use super::flaws::Pace;
use crate::model::step::{EXPIRE_LEN_MAX, EXPIRE_RELEASES_MAX};
use crate::model::table::{LeaseFacts, LeaseNews};

/// How soon an expiry that surely was not proposed is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// The timers of one leadership.
#[derive(Debug)]
pub struct Timers {
    leadership: u64,
    began: Instant,
    leases: HashMap<u64, Timer>,
    queue: BinaryHeap<Reverse<(Instant, u64)>>,
    /// How many leases the log does not show granted or kept alive under this leadership.
    unproven: usize,
    /// Right, but for a planted flaw.
    pace: Pace,
}

#[derive(Debug)]
struct Timer {
    ttl: Duration,
    deadline: Instant,
    /// The log shows it granted or kept alive under this leadership.
    proven: bool,
    /// Its expiry has been proposed, and its outcome is not known yet.
    expiring: bool,
}

/// What became of a keep-alive's arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The deadline is moved. It counts for the next leader too, as soon as it is `proven`.
    Renewed { proven: bool },
    /// Its expiry is on the way: wait for what becomes of that.
    Expiring,
    /// No such lease is being timed.
    Unknown,
}

impl Timers {
    /// Starts the timers of a leadership that has applied its first own entry by now.
    pub fn begin(leadership: u64, leases: impl Iterator<Item = LeaseFacts>, now: Instant, pace: Pace) -> Self {
        let (leases_timed, queue) = (HashMap::new(), BinaryHeap::new());
        let mut timers = Self { leadership, began: now, leases: leases_timed, queue, unproven: 0, pace };
        for facts in leases {
            let (ttl, left) = (Duration::from_millis(facts.ttl_ms), Duration::from_millis(facts.left_ms));
            timers.insert(facts.number, ttl, left, facts.renewed_under == leadership, now);
        }
        timers
    }

    pub fn leadership(&self) -> u64 {
        self.leadership
    }

    fn insert(&mut self, number: u64, ttl: Duration, left: Duration, proven: bool, now: Instant) {
        let deadline = now + self.granted(left);
        if self.leases.insert(number, Timer { ttl, deadline, proven, expiring: false }).is_none() {
            self.queue.push(Reverse((deadline, number)));
            self.unproven += usize::from(!proven);
        }
    }

    fn granted(&self, time: Duration) -> Duration {
        self.pace.of(time)
    }

    /// Takes in that a lease has begun or ended. It does no harm to hear of one twice.
    pub fn hear(&mut self, news: &LeaseNews, now: Instant) {
        match *news {
            LeaseNews::Began { number, .. } if self.leases.contains_key(&number) => {}
            LeaseNews::Began { number, ttl_ms, under } => {
                let ttl = Duration::from_millis(ttl_ms);
                self.insert(number, ttl, ttl, under == self.leadership, now);
            }
            // Its place in the queue is cleared when its time comes.
            LeaseNews::Ended { number } => {
                if let Some(timer) = self.leases.remove(&number) {
                    self.unproven -= usize::from(!timer.proven);
                }
            }
        }
    }

    /// A keep-alive has arrived: the deadline is moved at once, before anything is waited for.
    pub fn arrive(&mut self, number: u64, now: Instant) -> Arrival {
        let pace = self.pace;
        match self.leases.get_mut(&number) {
            None => Arrival::Unknown,
            Some(timer) if timer.expiring => Arrival::Expiring,
            Some(timer) => {
                timer.deadline = timer.deadline.max(now + pace.of(timer.ttl));
                Arrival::Renewed { proven: timer.proven }
            }
        }
    }

    /// What a keep-alive would find, without moving anything.
    pub fn state(&self, number: u64) -> Arrival {
        match self.leases.get(&number) {
            None => Arrival::Unknown,
            Some(timer) if timer.expiring => Arrival::Expiring,
            Some(timer) => Arrival::Renewed { proven: timer.proven },
        }
    }

    /// The log shows these kept alive under this leadership.
    pub fn prove(&mut self, numbers: &[u64]) {
        for number in numbers {
            if let Some(timer) = self.leases.get_mut(number)
                && !std::mem::replace(&mut timer.proven, true)
            {
                self.unproven -= 1;
            }
        }
    }

    /// The leases whose time has come, as many as one log entry may hold; their expiry is to be proposed. `entries` tells how much
    /// ends with each.
    pub fn due(&mut self, now: Instant, entries: impl Fn(u64) -> u64) -> Vec<u64> {
        let (mut due, mut releases) = (Vec::new(), 0);
        while let Some(Reverse((at, number))) = self.queue.peek().copied()
            && at <= now
        {
            match self.leases.get_mut(&number) {
                // It has ended, or stands here for what was spared and is on its way again.
                None => {}
                Some(timer) if timer.expiring => {}
                Some(timer) if timer.deadline > now => {
                    let deadline = timer.deadline;
                    self.queue.pop();
                    self.queue.push(Reverse((deadline, number)));
                    continue;
                }
                Some(timer) => {
                    releases += entries(number);
                    let full = due.len() == EXPIRE_LEN_MAX || releases > EXPIRE_RELEASES_MAX;
                    if full && !due.is_empty() {
                        return due;
                    }
                    timer.expiring = true;
                    due.push(number);
                }
            }
            self.queue.pop();
        }
        due
    }

    /// The expiry of these has surely not been proposed: they live on for a moment.
    pub fn spare(&mut self, numbers: &[u64], now: Instant) {
        for number in numbers {
            if let Some(timer) = self.leases.get_mut(number) {
                timer.expiring = false;
                self.queue.push(Reverse((now + RETRY, *number)));
            }
        }
    }

    /// When to look for what is due; perhaps too early, never too late.
    pub fn next_due(&self) -> Option<Instant> {
        self.queue.peek().map(|Reverse((at, _))| *at)
    }

    /// How long this leadership has lasted, if it has leases that nobody has kept alive under it: they have that much less to live.
    pub fn age(&self, now: Instant) -> Option<Duration> {
        (self.unproven > 0).then(|| now.saturating_duration_since(self.began))
    }

    /// How long a lease lives from now on if nobody keeps it alive.
    pub fn left(&self, number: u64, now: Instant) -> Option<Duration> {
        self.leases.get(&number).map(|timer| timer.deadline.saturating_duration_since(now))
    }
}
