//! When each process that vouches was last heard of, by whichever way, and which vouches count for that (protocol A1).
//!
//! Every process counts its own heartbeats, and each node passes on what it has heard of the others: a count that rises is a sign of
//! life even if it comes through a bridge. A count says how old it was when it was passed on; one that does not rise says nothing, so
//! that nobody stays alive by hearsay.

use std::collections::BTreeMap;

use rand::RngExt;
use serde::{Deserialize, Serialize};

use super::context::Run;
use super::core::{Core, Effect, Effects, LeaseFlaw, Now};
use super::message::Message;
use super::peers::Contact;

/// Twice in each second of [`GRACE_MS`]: what a process acknowledged between two beats is within the grace.
const BEAT_PERIOD_MS: u64 = 500;
/// How much longer than its time-to-live a lease counts whose keeper is not heard.
const GRACE_MS: u64 = 1_000;
/// Beats of others that one message passes on, at most; of more, a part that changes.
const BEATS_MAX: usize = 64;
/// Peers that are sent beats at once, at most.
const FANOUT_MAX: usize = 16;

/// A process's count of heartbeats, and how long ago it was seen to rise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    pub run: Run,
    pub count: u64,
    pub age_ms: u64,
}

#[derive(Debug, Default)]
pub struct Hearing {
    heard: BTreeMap<Run, Heard>,
    next_beat_ms: u64,
}

#[derive(Clone, Copy, Debug)]
struct Heard {
    count: u64,
    at_ms: u64,
}

impl Hearing {
    /// When a process was last heard of.
    pub(super) fn last(&self, run: Run) -> Option<u64> {
        self.heard.get(&run).map(|heard| heard.at_ms)
    }
}

impl Core {
    /// The beats of all processes that vouch for something, this one's own first.
    pub(super) fn beats(&self, now: Now) -> Vec<Beat> {
        let own = Beat { run: self.config.run, count: now.ms, age_ms: 0 };
        let heard = self.hearing.heard.iter();
        let others = heard.map(|(run, Heard { count, at_ms })| Beat {
            run: *run,
            count: *count,
            age_ms: now.ms.saturating_sub(*at_ms),
        });
        std::iter::once(own).chain(others).collect()
    }

    pub(super) fn on_beats(&mut self, beats: &[Beat], now: Now) {
        for Beat { run, count, age_ms } in beats.iter().filter(|beat| beat.run != self.config.run) {
            let at_ms = now.ms.saturating_sub(*age_ms);
            let heard = self.hearing.heard.entry(*run).or_insert(Heard { count: *count, at_ms });
            if *count > heard.count {
                *heard = Heard { count: *count, at_ms: heard.at_ms.max(at_ms) };
            }
        }
    }

    /// The process has spoken itself.
    pub(super) fn heard_itself(&mut self, run: Run, now: Now) {
        let heard = self.hearing.heard.entry(run).or_insert(Heard { count: 0, at_ms: now.ms });
        heard.at_ms = now.ms;
    }

    /// Tells peers that this process lives and what it has heard of others, while there is anything that hangs on it.
    pub(super) fn beat(&mut self, now: Now, effects: &mut Effects) {
        if now.ms < self.hearing.next_beat_ms {
            return;
        }
        self.hearing.next_beat_ms = now.ms + BEAT_PERIOD_MS;
        let vouches = &self.map.vouches;
        self.hearing.heard.retain(|run, _| vouches.has_run(*run));
        self.map.vouches.forget_idle();
        if self.map.vouches.leases().is_empty() {
            return;
        }
        let mut beats = self.beats(now);
        if beats.len() > BEATS_MAX {
            let from = self.rng.random_range(1..beats.len());
            beats[1..].rotate_left(from - 1);
            beats.truncate(BEATS_MAX);
        }
        let mut peers = self.live_peers();
        while peers.len() > FANOUT_MAX {
            peers.swap_remove(self.rng.random_range(0..peers.len()));
        }
        for peer in peers {
            effects.push(self.post(peer, Message::Beats { beats: beats.clone() }));
        }
    }

    /// Whether this very process answers, and this node has caught up with what it announced.
    pub(super) fn is_present(&self, run: Run) -> bool {
        let Some(peer) = self.peers.get(&run.node) else { return run == self.config.run };
        self.is_caught_up_with(peer.contact) && peer.run == Some(run.bits)
    }

    fn is_caught_up_with(&self, contact: Contact) -> bool {
        match self.config.flaws.leases {
            Some(LeaseFlaw::CountsOnContact) => contact != Contact::Down,
            _ => contact == Contact::Reachable,
        }
    }

    /// Lets vouches count, or not: while their process is present, and then until their time has passed since it was last heard of.
    /// A process of a node's past is never present: its node vouches anew, or not.
    pub(super) fn listen(&mut self, now: Now, effects: &mut Effects) {
        let mut changed = false;
        let hasty = self.config.flaws.leases == Some(LeaseFlaw::HidesWithContact);
        for run in self.map.vouches.runs().collect::<Vec<_>>() {
            let former = self.map.vouches.silence_of(run);
            let silence = match self.is_present(run) {
                true => None,
                false if hasty => Some(u64::MAX),
                false => {
                    let upto = self.hearing.last(run).map_or(u64::MAX, |at_ms| now.ms.saturating_sub(at_ms + GRACE_MS));
                    // What is hidden stays hidden until this node has caught up: what was heard may be older than its end.
                    Some(upto.max(former.unwrap_or(0)))
                }
            };
            if silence != former {
                changed |= self.map.set_silence(run, silence);
            }
        }
        if changed {
            self.settle(false, now, effects);
            effects.push(Effect::Advanced);
        }
    }

    /// When a lease ends whose keeper is not heard any more.
    pub(super) fn hidden_at_ms(&self, run: Run, ttl_ms: u64) -> Option<u64> {
        self.hearing.last(run).map(|at_ms| at_ms + ttl_ms + GRACE_MS)
    }
}
