//! Whether this node hears a leader: what a watcher has to know, since a cut-off node's silence looks like peace.

use std::sync::Arc;

use tokio::sync::watch;

use super::Timing;
use super::leadership::Leadership;

/// Whether a leader is heard, and how often none was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pulse {
    /// This node has contact to a majority that has a leader.
    pub has_quorum: bool,
    /// No leader has been heard of for two election timeouts.
    pub is_stalled: bool,
    /// How many times this node has stalled so far, this time included.
    pub stalls: u64,
}

/// One watcher's knowledge of its node's pulse.
pub struct PulseReader {
    pulse: watch::Receiver<Pulse>,
    told: u64,
    owes_relief: bool,
}

/// What a watcher is to be told of its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// No leader is heard, since long enough to say so.
    Stalled,
    /// The one that was told of is over.
    Recovered,
}

impl PulseReader {
    /// A node that is stalled already is news to a watcher that has just begun.
    pub fn new(pulse: watch::Receiver<Pulse>) -> Self {
        let now = *pulse.borrow();
        Self { pulse, told: now.stalls - u64::from(now.is_stalled), owes_relief: false }
    }

    pub fn has_quorum(&self) -> bool {
        self.pulse.borrow().has_quorum
    }

    /// What has not been told yet. A stall that is over before it could be told is not told.
    pub fn news(&mut self) -> Option<News> {
        let now = *self.pulse.borrow_and_update();
        if now.is_stalled && now.stalls > self.told {
            self.told = now.stalls;
            self.owes_relief = true;
            return Some(News::Stalled);
        }
        if !now.is_stalled && self.owes_relief {
            self.owes_relief = false;
            return Some(News::Recovered);
        }
        None
    }

    /// Returns when there may be news. False: the node has stopped. May be cancelled without loss.
    pub async fn changed(&mut self) -> bool {
        self.pulse.changed().await.is_ok()
    }
}

/// Keeps the pulse up to date until it is cancelled.
pub async fn keep(leadership: Arc<Leadership>, timing: Timing, pulse: watch::Sender<Pulse>) {
    let mut ticks = tokio::time::interval(timing.election_min / 2);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let is_stalled = leadership.staleness() >= timing.election_max * 2;
        let has_quorum = !is_stalled && leadership.has_quorum();
        pulse.send_if_modified(|pulse| {
            let stalls = pulse.stalls + u64::from(is_stalled && !pulse.is_stalled);
            let now = Pulse { has_quorum, is_stalled, stalls };
            std::mem::replace(pulse, now) != now
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stalled(is_stalled: bool, stalls: u64) -> Pulse {
        Pulse { has_quorum: !is_stalled, is_stalled, stalls }
    }

    #[test]
    fn each_stall_is_told_once_and_so_is_its_end() {
        let (sender, pulse) = watch::channel(Pulse::default());
        let mut reader = PulseReader::new(pulse.clone());
        assert_eq!(reader.news(), None);
        sender.send_replace(stalled(true, 1));
        assert_eq!(reader.news(), Some(News::Stalled));
        assert_eq!(reader.news(), None);
        // One who comes now has to know as well.
        assert_eq!(PulseReader::new(pulse.clone()).news(), Some(News::Stalled));
        sender.send_replace(stalled(false, 1));
        assert_eq!(PulseReader::new(pulse).news(), None);
        assert_eq!(reader.news(), Some(News::Recovered));
        assert_eq!(reader.news(), None);
        // Over and back again between two looks: the second one is told.
        sender.send_replace(stalled(true, 3));
        assert_eq!(reader.news(), Some(News::Stalled));
    }
}
