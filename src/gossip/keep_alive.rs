//! Keep-alives at any node (protocol A2): extended here, passed to a node that vouches, or adopted if none of these answers.
//!
//! Keep-alives are the one thing that is passed on. All leases of one call that go to one node go in one message, and so do those of
//! calls that come in shortly one after another.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::ident::{CredentialName, LeaseId, NodeId};
use crate::model::lease::KeptAlive;
use crate::model::outcome::Refusal;
use crate::registry::KeepAlive;

use super::context::OpId;
use super::core::{Core, Effect, Effects, Now};
use super::keeper::may_act;
use super::message::Message;
use super::passing::{Answered, Asked, DETOUR_AFTER_MS, Outbox, Passed};
use super::peers::Contact;
use super::vouch::Vouch;

/// How long a node that vouches has for answering, at most; a quarter of the time-to-live if that is less.
const PATIENCE_MS: u64 = 200;

/// What a node says of a lease that was passed to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Word {
    Kept {
        ttl_ms: u64,
        moved: bool,
    },
    /// It does not vouch for it, or no longer.
    NotKept,
    /// The caller's credential is not the one that created it.
    Foreign,
}

/// What became of each lease of a call, in order.
pub type KeptResults = Vec<Result<KeptAlive, Refusal>>;

/// What came of a call.
#[derive(Clone, Debug, PartialEq)]
pub enum Keeping {
    Done(KeptResults),
    /// [`Effect::Kept`] with this id follows, in less than half a second.
    Pending(u64),
}

/// The calls whose leases have been passed on.
#[derive(Debug, Default)]
pub struct Calls {
    pub(super) pending: BTreeMap<u64, Call>,
    last_id: u64,
    pub(super) outbox: Outbox,
}

#[derive(Debug)]
pub(super) struct Call {
    leases: Vec<LeaseId>,
    pub by: Option<CredentialName>,
    pub slots: Vec<Slot>,
    waiting: usize,
    /// Who was asked for what.
    pub passed: BTreeMap<NodeId, Vec<Passed>>,
    /// When those that have not answered are asked again by other ways. None: they have been.
    pub detour_ms: Option<u64>,
}

#[derive(Clone, Debug)]
pub(super) enum Slot {
    Done(Result<KeptAlive, Refusal>),
    Waiting {
        until_ms: u64,
        /// How many of those that were asked have not answered.
        asked: usize,
        /// Somebody has answered that it does not vouch for the lease, whatever this node has heard so far.
        denied: bool,
    },
}

impl Core {
    /// Keeps leases alive, as far as that can be done at once.
    pub fn keep_alive(&mut self, keep: &KeepAlive, now: Now, effects: &mut Effects) -> Keeping {
        for record in &keep.seen {
            self.acknowledge(record, now, effects);
        }
        let by = keep.by.as_ref();
        let mut passed = BTreeMap::<NodeId, Vec<Passed>>::new();
        let before = self.map.context.get(self.config.run);
        let mut slots = Vec::with_capacity(keep.leases.len());
        for (at, lease) in keep.leases.iter().enumerate() {
            slots.push(self.keep_one(lease, by, now).unwrap_or_else(|(to, patience_ms)| {
                let asked = to.len();
                for node in to {
                    passed.entry(node).or_default().push(Passed { slot: at as u32, lease: lease.clone() });
                }
                Slot::Waiting { until_ms: patience_ms, asked, denied: false }
            }));
        }
        if self.map.context.get(self.config.run) > before {
            self.settle(false, now, effects);
            effects.extend([Effect::Pushable, Effect::Advanced]);
        }
        let waiting = slots.iter().filter(|slot| matches!(slot, Slot::Waiting { .. })).count();
        let (leases, by) = (keep.leases.clone(), keep.by.clone());
        let mut call = Call { leases, by, slots, waiting, passed, detour_ms: None };
        if waiting == 0 {
            return Keeping::Done(call.results());
        }
        call.patience_begins(self.calls.outbox.open(now));
        self.calls.last_id += 1;
        let id = self.calls.last_id;
        for (to, leases) in &call.passed {
            let asked = Asked { id, leases: leases.clone(), by: keep.by.clone() };
            self.calls.outbox.put(*to, asked);
        }
        self.calls.pending.insert(id, call);
        self.send_waiting(now, effects);
        Keeping::Pending(id)
    }

    /// Keeps a lease alive here; or says whom to ask, and how long to wait for them.
    fn keep_one(&mut self, lease: &LeaseId, by: Option<&CredentialName>, now: Now) -> Result<Slot, (Vec<NodeId>, u64)> {
        match self.keep_here(lease, by, now) {
            Word::Kept { ttl_ms, moved } => return Ok(Slot::Done(Ok(self.told_kept(lease, ttl_ms, moved)))),
            Word::Foreign => return Ok(Slot::Done(Err(Refusal::LeaseForeign))),
            Word::NotKept => {}
        }
        let Some(terms) = self.terms(lease) else {
            // Nobody is known to vouch for it. It may have been created a moment ago, at a node that this one is behind.
            let live = self.live_peers();
            return match (self.has_ended(lease), live.is_empty()) {
                (true, _) => Ok(Slot::Done(Err(Refusal::LeaseExpired))),
                (false, true) => Ok(Slot::Done(Err(Refusal::LeaseUnknown))),
                (false, false) => Err((live, PATIENCE_MS)),
            };
        };
        if !may_act(by, &terms) {
            return Ok(Slot::Done(Err(Refusal::LeaseForeign)));
        }
        // The latest of them is the one that the others make way for.
        let vouching = self.map.vouches.of(lease).iter().rev().map(|vouch| vouch.id.run.node);
        let mut in_contact =
            vouching.filter(|node| self.contact(*node).is_some_and(|contact| contact != Contact::Down));
        match in_contact.next() {
            Some(node) => Err((vec![node], PATIENCE_MS.min(terms.ttl_ms / 4))),
            None => Ok(Slot::Done(Ok(self.adopt(lease, &terms, now)))),
        }
    }

    /// Moves the deadline on if this node vouches for the lease.
    fn keep_here(&mut self, lease: &LeaseId, by: Option<&CredentialName>, now: Now) -> Word {
        let Some(kept) = self.kept_here(lease) else { return Word::NotKept };
        let vouch = self.map.vouches.get(kept.vouch).expect("it is kept here");
        if !may_act(by, vouch) {
            return Word::Foreign;
        }
        let ttl_ms = vouch.ttl_ms;
        self.keeper.extend(lease, now.ms + ttl_ms);
        Word::Kept { ttl_ms, moved: now.ms < kept.moved_until_ms }
    }

    /// Vouches for a lease whose keeper does not answer.
    fn adopt(&mut self, lease: &LeaseId, terms: &Vouch, now: Now) -> KeptAlive {
        let ttl_ms = terms.ttl_ms;
        tracing::debug!(%lease, "adopted: nobody who vouches for it answers");
        let stamp = self.next_stamp(now);
        let vouch = Vouch { id: stamp.id, hlc: stamp.hlc, ..terms.clone() };
        self.vouch_for(vouch, now.ms + ttl_ms, now.ms + ttl_ms / 4);
        self.told_kept(lease, ttl_ms, true)
    }

    fn told_kept(&self, lease: &LeaseId, ttl_ms: u64, moved: bool) -> KeptAlive {
        let lost = match self.config.flaws.mute_losers {
            true => Vec::new(),
            false => self.map.records.lost(lease).map(|record| record.shown()).collect(),
        };
        KeptAlive { expires_in_ms: ttl_ms, lost, moved }
    }

    /// A peer has passed keep-alives on.
    pub(super) fn on_keep(&mut self, from: NodeId, calls: Vec<Asked>, now: Now, effects: &mut Effects) {
        let mut answer = |Asked { id, leases, by }: Asked| {
            let words = leases.iter().map(|passed| (passed.slot, self.keep_here(&passed.lease, by.as_ref(), now)));
            Answered { id, words: words.collect() }
        };
        let calls = calls.into_iter().map(&mut answer).collect();
        effects.push(self.post(from, Message::Kept { calls }));
    }

    /// A peer has answered.
    pub(super) fn on_kept(&mut self, id: u64, words: Vec<(u32, Word)>, effects: &mut Effects) {
        // Taken out while it is worked on. An answer that comes too late finds nothing.
        let Some(mut call) = self.calls.pending.remove(&id) else { return };
        for (at, word) in words {
            let at = at as usize;
            let Some(Slot::Waiting { asked, denied, .. }) = call.slots.get_mut(at) else { continue };
            match word {
                Word::Kept { ttl_ms, moved } => {
                    let kept = self.told_kept(&call.leases[at], ttl_ms, moved);
                    call.settle(at, Slot::Done(Ok(kept)));
                }
                Word::Foreign => call.settle(at, Slot::Done(Err(Refusal::LeaseForeign))),
                Word::NotKept => {
                    *asked = asked.saturating_sub(1);
                    *denied = true;
                    // The end of a lease is known as soon as its operation is here.
                    if *asked == 0 && self.has_ended(&call.leases[at]) {
                        call.settle(at, Slot::Done(Err(Refusal::LeaseExpired)));
                    }
                }
            }
        }
        self.put_back(id, call, effects);
    }

    /// Ends the waiting for answers that have not come.
    pub(super) fn keep_alive_tick(&mut self, now: Now, effects: &mut Effects) {
        self.send_waiting(now, effects);
        self.ask_again(now, effects);
        let due = |call: &Call| call.slots.iter().any(|slot| slot.is_due(now.ms));
        let ids = self.calls.pending.iter().filter(|(_, call)| due(call)).map(|(id, _)| *id).collect::<Vec<_>>();
        if ids.is_empty() {
            return;
        }
        let before = self.map.context.get(self.config.run);
        for id in ids {
            let mut call = self.calls.pending.remove(&id).expect("it was just there");
            for at in 0..call.slots.len() {
                if call.slots[at].is_due(now.ms) {
                    let slot = self.conclude(&call, at, now);
                    call.settle(at, slot);
                }
            }
            self.put_back(id, call, effects);
        }
        if self.map.context.get(self.config.run) > before {
            self.settle(false, now, effects);
            effects.extend([Effect::Pushable, Effect::Advanced]);
        }
    }

    /// The patience for a lease is at its end.
    fn conclude(&mut self, call: &Call, at: usize, now: Now) -> Slot {
        let lease = &call.leases[at];
        // What was unknown when the call came may be known by now.
        match self.keep_here(lease, call.by.as_ref(), now) {
            Word::Kept { ttl_ms, moved } => return Slot::Done(Ok(self.told_kept(lease, ttl_ms, moved))),
            Word::Foreign => return Slot::Done(Err(Refusal::LeaseForeign)),
            Word::NotKept => {}
        }
        let denied = matches!(call.slots[at], Slot::Waiting { denied: true, .. });
        Slot::Done(match self.terms(lease) {
            Some(terms) if !may_act(call.by.as_ref(), &terms) => Err(Refusal::LeaseForeign),
            // Its keeper lives and says that it keeps it no longer: an operation that tells more is on its way here.
            Some(_) if denied => Err(Refusal::LeaseUnknown),
            Some(terms) => Ok(self.adopt(lease, &terms, now)),
            None if self.has_ended(lease) => Err(Refusal::LeaseExpired),
            None => Err(Refusal::LeaseUnknown),
        })
    }

    fn put_back(&mut self, id: u64, call: Call, effects: &mut Effects) {
        if call.waiting == 0 {
            effects.push(Effect::Kept { id, results: call.results() });
        } else {
            self.calls.pending.insert(id, call);
        }
    }

    /// Pulls from the node that a lease's id names: it knows whether that lease was ever made.
    pub(super) fn look_for(&mut self, lease: &LeaseId, now: Now, effects: &mut Effects) {
        let node = OpId::parse(lease.as_str()).map(|id| id.run.node);
        if let Some(node) = node.filter(|node| self.live_peers().contains(node)) {
            self.want(node);
            self.start_pull(now, effects);
        }
    }
}

impl Slot {
    fn is_due(&self, now_ms: u64) -> bool {
        matches!(self, Slot::Waiting { until_ms, .. } if *until_ms <= now_ms)
    }
}

impl Call {
    /// Until now it was only known how long each lease is to be waited for.
    fn patience_begins(&mut self, sent_ms: u64) {
        self.detour_ms = Some(sent_ms + DETOUR_AFTER_MS);
        for slot in &mut self.slots {
            if let Slot::Waiting { until_ms, .. } = slot {
                *until_ms += sent_ms;
            }
        }
    }

    fn settle(&mut self, at: usize, done: Slot) {
        if let Slot::Waiting { .. } = self.slots[at] {
            self.waiting -= 1;
        }
        self.slots[at] = done;
    }

    /// Of a call that waits for nothing.
    fn results(self) -> KeptResults {
        let mut results = Vec::with_capacity(self.slots.len());
        for slot in self.slots {
            results.push(match slot {
                Slot::Done(result) => result,
                Slot::Waiting { .. } => unreachable!("it waits for nothing"),
            });
        }
        results
    }
}
