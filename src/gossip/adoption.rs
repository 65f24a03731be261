//! Vouches that make way for others (protocol A2, A13): of two nodes that meet, of a process's former self, of a node that stops.
//!
//! Whoever makes way passes its deadline on first, and drops its own vouch only when that has been confirmed: no keep-alive that was
//! acknowledged is forgotten on the way.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::ident::{LeaseId, NodeId};
use crate::model::lease::TTL_MS_MAX;

use super::context::OpId;
use super::core::{Core, Effect, Effects, LeaseFlaw, Now};
use super::message::Message;
use super::operation::{DropReason, Operation};
use super::peers::Contact;
use super::vouch::Vouch;

/// What is passed on and not confirmed is passed on again after this long.
const PASS_AGAIN_MS: u64 = 500;
/// Leases of one message or operation, at most.
const LEASES_MAX: usize = 1_000;

/// What this node has passed on.
#[derive(Debug, Default)]
pub struct Meeting {
    passed: BTreeMap<LeaseId, PassedOn>,
}

#[derive(Clone, Debug)]
struct PassedOn {
    /// The vouch that this node's makes way for.
    to: OpId,
    /// The deadline as it was then.
    deadline_ms: u64,
    again_ms: u64,
}

impl Core {
    /// Passes on what this node has to make way for, and takes the place of its own former processes.
    pub(super) fn meet(&mut self, now: Now, effects: &mut Effects) {
        self.replace_former_runs(now, effects);
        self.drop_for_removed(now, effects);
        if self.map.vouches.contested().is_empty() {
            self.meeting.passed.clear();
            return;
        }
        let contested = self.map.vouches.contested();
        self.meeting.passed.retain(|lease, _| contested.contains(lease));
        let mut passed = BTreeMap::<NodeId, Vec<(LeaseId, u64)>>::new();
        for lease in contested {
            let Some(kept) = self.keeper.get(lease) else { continue };
            let Some(newer) = self.makes_way_for(lease, kept.vouch) else { continue };
            let before = self.meeting.passed.get(lease);
            if before.is_some_and(|passed| passed.to == newer.id && now.ms < passed.again_ms) {
                continue;
            }
            let (to, deadline_ms) = (newer.id, kept.deadline_ms);
            let passing = PassedOn { to, deadline_ms, again_ms: now.ms + PASS_AGAIN_MS };
            self.meeting.passed.insert(lease.clone(), passing);
            let left = passed.entry(to.run.node).or_default();
            left.push((lease.clone(), deadline_ms.saturating_sub(now.ms)));
        }
        self.pass_on(passed, false, effects);
    }

    /// The vouch of a node in reach that this one has to make way for: of one lease the latest. Of several leases that were created
    /// under one id the first one stays.
    fn makes_way_for(&self, lease: &LeaseId, mine: OpId) -> Option<&Arc<Vouch>> {
        let standing = self.map.vouches.of(lease);
        let place = |vouch: &Vouch| {
            let same = standing.iter().filter(|other| other.has_terms_of(vouch));
            (Reverse(same.map(|other| other.origin).min()), vouch.stamp())
        };
        let mine = standing.iter().find(|vouch| vouch.id == mine)?;
        let others = standing.iter().filter(|vouch| vouch.id.run != self.config.run && self.is_present(vouch.id.run));
        others.max_by_key(|vouch| place(vouch)).filter(|other| place(other) > place(mine))
    }

    fn pass_on(&self, passed: BTreeMap<NodeId, Vec<(LeaseId, u64)>>, adopt: bool, effects: &mut Effects) {
        for (to, leases) in passed {
            for leases in leases.chunks(LEASES_MAX) {
                effects.push(self.post(to, Message::PassOn { leases: leases.to_vec(), adopt }));
            }
        }
    }

    /// Another node passes its keep-alives on: so long each of these leases has still to live.
    pub(super) fn on_pass_on(
        &mut self,
        from: NodeId,
        (leases, adopt): (Vec<(LeaseId, u64)>, bool),
        now: Now,
        effects: &mut Effects,
    ) {
        let mut taken = Vec::with_capacity(leases.len());
        let before = self.map.context.get(self.config.run);
        for (lease, left_ms) in leases {
            let deadline_ms = now.ms + left_ms.min(TTL_MS_MAX);
            if self.kept_here(&lease).is_some() {
                if self.config.flaws.leases != Some(LeaseFlaw::ForgetsDeadlines) {
                    self.keeper.extend(&lease, deadline_ms);
                }
                taken.push(lease);
            } else if let Some(terms) = self.terms(&lease).filter(|_| adopt) {
                let stamp = self.next_stamp(now);
                let vouch = Vouch { id: stamp.id, hlc: stamp.hlc, ..terms.as_ref().clone() };
                self.vouch_for(vouch, deadline_ms, now.ms);
            }
        }
        if self.map.context.get(self.config.run) > before {
            effects.extend([Effect::Pushable, Effect::Advanced]);
        }
        if !taken.is_empty() {
            effects.push(self.post(from, Message::PassedOn { leases: taken }));
        }
    }

    /// The other node keeps them as long as this one would have.
    pub(super) fn on_passed_on(&mut self, from: NodeId, leases: Vec<LeaseId>, now: Now, effects: &mut Effects) {
        let mut moved = Vec::new();
        for lease in leases {
            let Some(PassedOn { to, deadline_ms, .. }) = self.meeting.passed.get(&lease).cloned() else { continue };
            let Some(kept) = self.kept_here(&lease) else { continue };
            if to.run.node != from {
                continue;
            }
            // Kept alive here in the meantime: that has to be passed on too.
            self.meeting.passed.remove(&lease);
            let Some(newer) = self.map.vouches.get(to).filter(|_| kept.deadline_ms <= deadline_ms) else { continue };
            moved.push((kept.vouch, Arc::clone(newer)));
            self.keeper.end(&lease);
        }
        self.drop_moved(moved, now, effects);
    }

    fn drop_moved(&mut self, moved: Vec<(OpId, Arc<Vouch>)>, now: Now, effects: &mut Effects) {
        for moved in moved.chunks(LEASES_MAX) {
            let (vouches, newer) = moved.iter().cloned().unzip();
            let stamp = self.next_stamp(now);
            self.commit(Operation::Drop { stamp, vouches, why: DropReason::Moved(newer) });
        }
        if !moved.is_empty() {
            effects.extend([Effect::Pushable, Effect::Advanced]);
        }
    }

    /// A new process vouches in the place of the one before it at this node: for as long as the others would have counted that one.
    /// What had run out by then stays so.
    fn replace_former_runs(&mut self, now: Now, effects: &mut Effects) {
        let me = self.config.run;
        let former = self.map.vouches.runs().filter(|run| run.node == me.node && *run != me).collect::<Vec<_>>();
        let (mut moved, mut expired) = (Vec::new(), Vec::new());
        for run in former {
            for vouch in self.map.vouches.of_run(run).cloned().collect::<Vec<_>>() {
                // Who sent it will say when that process was last heard of.
                let Some(mut until_ms) = self.hidden_at_ms(run, vouch.ttl_ms) else { continue };
                if self.config.flaws.leases == Some(LeaseFlaw::RestartRevives) {
                    until_ms = now.ms + vouch.ttl_ms;
                }
                if until_ms <= now.ms {
                    expired.push(vouch.id);
                    continue;
                }
                let own = match self.kept_here(&vouch.lease) {
                    Some(kept) => {
                        self.keeper.extend(&vouch.lease, until_ms);
                        kept.vouch
                    }
                    None => {
                        let stamp = self.next_stamp(now);
                        let own = Vouch { id: stamp.id, hlc: stamp.hlc, ..vouch.as_ref().clone() };
                        self.vouch_for(own, until_ms, now.ms);
                        stamp.id
                    }
                };
                moved.push((vouch.id, Arc::clone(self.map.vouches.get(own).expect("this node vouches"))));
            }
        }
        self.drop_moved(moved, now, effects);
        self.drop_expired(expired, now, effects);
    }

    /// A member that was removed for good drops nothing any more: the lowest live node does, once its time has run out.
    fn drop_for_removed(&mut self, now: Now, effects: &mut Effects) {
        let runs = self.map.vouches.runs().filter(|run| self.is_retired(run.node)).collect::<Vec<_>>();
        if runs.is_empty() || !self.is_lowest_live() {
            return;
        }
        let vouches = &self.map.vouches;
        let given = runs.into_iter().flat_map(|run| vouches.of_run(run));
        let expired = given.filter(|vouch| !vouches.counts(vouch)).map(|vouch| vouch.id).collect();
        self.drop_expired(expired, now, effects);
    }

    /// This node is going: asks a peer to vouch in its place. It makes way for that peer as for any other.
    pub fn hand_over(&self, now: Now, effects: &mut Effects) {
        let reachable = |node: &NodeId| self.contact(*node) == Some(Contact::Reachable);
        let Some(to) = self.live_peers().into_iter().find(reachable) else { return };
        let left = |deadline_ms: u64| deadline_ms.saturating_sub(now.ms);
        let leases = self.keeper.leases().map(|(lease, kept)| (lease.clone(), left(kept.deadline_ms)));
        self.pass_on(BTreeMap::from([(to, leases.collect())]), true, effects);
    }

    /// Whether it has leases that a peer could keep in its place.
    pub fn has_leases_to_hand_over(&self) -> bool {
        let reachable = self.live_peers().into_iter().any(|node| self.contact(node) == Some(Contact::Reachable));
        reachable && self.keeper.leases().any(|(_, kept)| self.map.vouches.get(kept.vouch).is_some())
    }
}
