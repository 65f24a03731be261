//! How keep-alives are passed on: those of many calls to one node in one message, and by way of others if no answer comes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::ident::{CredentialName, LeaseId, NodeId};
use crate::net::pace::Pace;

use super::core::{Core, Effects, LeaseFlaw, Now};
use super::keep_alive::{Slot, Word};
use super::message::{BATCH_BYTES_MAX, Message};

/// After this long without an answer it is asked again, by way of others: a bridge may lead there.
pub(super) const DETOUR_AFTER_MS: u64 = 50;

/// Keep-alives of many callers are gathered for so long.
const SPACING_MS: u64 = 50;
/// What waits goes with a tick, and so perhaps this much later: [`Core::tick`] comes about so often.
const TICK_MS: u64 = 50;

/// The leases of one call that go to one node. The id tells the answers apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    pub id: u64,
    pub leases: Vec<Passed>,
    pub by: Option<CredentialName>,
}

/// What became of them, by their slots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    pub id: u64,
    pub words: Vec<(u32, Word)>,
}

/// One lease of a call, on its way to a node that may vouch for it. The slot is its place in the call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passed {
    pub slot: u32,
    pub lease: LeaseId,
}

/// What is to be sent, to whom.
#[derive(Debug)]
pub struct Outbox {
    waiting: BTreeMap<NodeId, Vec<Asked>>,
    /// How many calls that makes.
    calls: usize,
    pace: Pace,
    due_ms: u64,
}

impl Default for Outbox {
    fn default() -> Self {
        Self { waiting: BTreeMap::new(), calls: 0, pace: Pace::new(SPACING_MS), due_ms: 0 }
    }
}

impl Outbox {
    /// A call has come whose leases are to be [put](Self::put) in: when they will have been sent, at the latest.
    pub(super) fn open(&mut self, now: Now) -> u64 {
        self.due_ms = self.pace.came(now.ms);
        self.calls += 1;
        if self.due_ms > now.ms { self.due_ms + TICK_MS } else { now.ms }
    }

    pub(super) fn put(&mut self, to: NodeId, asked: Asked) {
        self.waiting.entry(to).or_default().push(asked);
    }

    /// What is to be sent now.
    fn take_due(&mut self, now: Now) -> BTreeMap<NodeId, Vec<Asked>> {
        if self.waiting.is_empty() || now.ms < self.due_ms {
            return BTreeMap::new();
        }
        self.pace.went(std::mem::take(&mut self.calls), now.ms);
        std::mem::take(&mut self.waiting)
    }
}

impl Core {
    /// Sends on what waits, if it is time.
    pub(super) fn send_waiting(&mut self, now: Now, effects: &mut Effects) {
        for (to, calls) in self.calls.outbox.take_due(now) {
            let (mut message, mut bytes) = (Vec::new(), 0);
            for call in calls {
                bytes += call.weight();
                if bytes > BATCH_BYTES_MAX && !message.is_empty() {
                    bytes = call.weight();
                    effects.push(self.post(to, Message::Keep { calls: std::mem::take(&mut message) }));
                }
                message.push(call);
            }
            effects.push(self.post(to, Message::Keep { calls: message }));
        }
    }

    /// Asks those that have not answered by way of others.
    pub(super) fn ask_again(&mut self, now: Now, effects: &mut Effects) {
        if self.config.flaws.leases == Some(LeaseFlaw::GoesStraight) {
            return;
        }
        let mut again = Vec::new();
        for (id, call) in &mut self.calls.pending {
            if call.detour_ms.take_if(|at_ms| *at_ms <= now.ms).is_none() {
                continue;
            }
            for (to, passed) in &call.passed {
                let waiting = |passed: &&Passed| matches!(call.slots[passed.slot as usize], Slot::Waiting { .. });
                let leases = passed.iter().filter(waiting).cloned().collect::<Vec<_>>();
                if !leases.is_empty() {
                    again.push((*to, Message::Keep { calls: vec![Asked { id: *id, leases, by: call.by.clone() }] }));
                }
            }
        }
        for (to, message) in again {
            self.post_by_every_way(to, message, effects);
        }
    }
}

impl Asked {
    /// About how many bytes it takes in a message.
    fn weight(&self) -> usize {
        self.leases.iter().map(|passed| passed.lease.as_str().len() + 4).sum()
    }
}
