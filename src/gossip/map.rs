//! The add-wins observed-remove map: applies operations, gives its state away, takes another's in.
//!
//! Its state depends only on the set of operations that have reached it, by whichever way and in whichever order. There are no
//! tombstones: what another node's context covers and its state lacks was removed there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::ident::LeaseId;

use super::conflicts::{EarlyAck, Record, Records};
use super::context::{Context, OpId, Run};
use super::grants::{Grants, Held};
use super::lens::Lens;
use super::operation::{DropReason, Grant, MetaChange, Operation, Reason};
use super::trail::Step;
use super::vouch::{Vouch, Vouches};

#[derive(Clone, Debug, Default)]
pub struct Map {
    pub context: Context,
    pub grants: Grants,
    pub vouches: Vouches,
    pub records: Records,
    /// Removed before their Add or Vouch came here. Part of every state transfer; each goes when its Add comes.
    early_removes: BTreeSet<OpId>,
    /// Changed before their Add came here.
    early_metas: BTreeMap<OpId, MetaChange>,
}

/// A map, or a part of it, on its way to another node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub context: Context,
    /// What stands and the receiver's context did not cover.
    pub fresh: Vec<(Arc<Grant>, Option<MetaChange>)>,
    /// What stands and the receiver's context covered: each number as the distance from the one before.
    pub known: Vec<(Run, Vec<u64>)>,
    /// Vouches that stand and the receiver's context did not cover.
    pub vouches: Vec<Arc<Vouch>>,
    /// As `known`, of vouches.
    pub known_vouches: Vec<(Run, Vec<u64>)>,
    /// Vouches that this context does not cover: they came with the Drop of an older one.
    pub early_vouches: Vec<Arc<Vouch>>,
    /// The changes of those that the receiver's context did not cover.
    pub metas: Vec<(OpId, MetaChange)>,
    pub early_removes: Vec<OpId>,
    pub early_metas: Vec<(OpId, MetaChange)>,
    pub records: Vec<Record>,
    pub early_acks: Vec<EarlyAck>,
}

/// Whether an operation was new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    Now,
    /// It had been applied before.
    Before,
    /// An earlier operation of its run has not come yet.
    Gap,
}

impl Map {
    pub fn new(lens: Lens) -> Self {
        Self { grants: Grants::new(lens.without_leases()), ..Self::default() }
    }

    /// Nothing, looked at as this map is.
    pub fn unfilled(&self) -> Self {
        Self { vouches: self.vouches.unfilled(), ..Self::new(self.grants.lens.without_leases()) }
    }

    /// Applies an operation once, after all earlier ones of its run.
    pub fn apply(&mut self, operation: &Operation) -> Applied {
        let id = operation.id();
        let last = self.context.get(id.run);
        if id.number <= last {
            return Applied::Before;
        }
        if id.number != last + 1 {
            return Applied::Gap;
        }
        self.context.advance(id);
        // What came early for this operation: it may even be no Add, if somebody asked with a forged token.
        let removed_early = self.early_removes.remove(&id);
        let changed_early = self.early_metas.remove(&id);
        match operation {
            Operation::Add(grant) => {
                for taken in &grant.takes {
                    self.remove(*taken);
                }
                if removed_early {
                    self.grants.trail.push(Step::Stillborn);
                } else {
                    self.put_up(Arc::clone(grant), changed_early);
                }
            }
            Operation::Meta { grant, change } => {
                if !self.grants.set_meta(*grant, change.clone()) && !self.context.covers(*grant) {
                    self.early_meta(*grant, change.clone());
                    self.grants.trail.push(Step::Early(*grant));
                }
            }
            Operation::Remove { grants, reason, stamp } => {
                for removed in grants {
                    self.remove(*removed);
                }
                if let Reason::Conflict(defeat) = reason {
                    let loser = OpId::of(&defeat.loser.1);
                    if self.records.get(loser).is_none() {
                        self.grants.trail.push(Step::Recorded(loser));
                    }
                    self.records.add(Record::new(*stamp, (**defeat).clone()));
                }
            }
            Operation::Vouch(vouch) => {
                if !removed_early {
                    self.put_up_vouch(Arc::clone(vouch));
                }
            }
            Operation::Drop { vouches, why, .. } => {
                self.note_leases_ended_by(vouches, why);
                if let DropReason::Moved(newer) = why {
                    newer.iter().for_each(|vouch| self.put_up_early(Arc::clone(vouch)));
                }
                if let DropReason::Revoked { grants } = why {
                    grants.iter().for_each(|grant| self.remove(*grant));
                }
                vouches.iter().for_each(|vouch| self.remove(*vouch));
            }
            Operation::Acknowledge { stamp, loser, record } => {
                self.records.acknowledge(*loser, *record, stamp.id, &self.context);
            }
        }
        Applied::Now
    }

    /// The leases that a Drop ends if it is applied now, each with the grants that are bound to it.
    fn note_leases_ended_by(&mut self, vouches: &[OpId], why: &DropReason) {
        if let DropReason::Moved(_) = why {
            return;
        }
        let dropped = vouches.iter().filter_map(|id| self.vouches.get(*id)).map(|vouch| vouch.lease.clone());
        for lease in dropped.collect::<BTreeSet<_>>() {
            if self.vouches.of(&lease).iter().all(|vouch| vouches.contains(&vouch.id)) {
                let bound = self.grants.bound_to(&lease).filter_map(|grant| self.grants.held(grant.id)).cloned();
                let grants = bound.collect();
                self.grants.trail.push(Step::LeaseEnded { lease, grants });
            }
        }
    }

    fn remove(&mut self, id: OpId) {
        self.take_down(id);
        // A vouch can stand before its operation has come.
        if !self.context.covers(id) {
            self.early_removes.insert(id);
            self.early_metas.remove(&id);
            self.grants.trail.push(Step::Early(id));
        }
    }

    fn take_down(&mut self, id: OpId) {
        if self.grants.remove(id).is_none()
            && let Some(vouch) = self.vouches.remove(id)
        {
            self.look_at(&vouch.lease);
        }
    }

    /// Puts a vouch up, unless it stands.
    pub(super) fn put_up_vouch(&mut self, vouch: Arc<Vouch>) {
        self.vouches.insert(Arc::clone(&vouch));
        self.look_at(&vouch.lease);
    }

    /// Puts up a vouch whose own operation may not have come yet.
    fn put_up_early(&mut self, vouch: Arc<Vouch>) {
        if !self.context.covers(vouch.id) && !self.early_removes.contains(&vouch.id) {
            self.put_up_vouch(vouch);
        }
    }

    /// Whether a lease lives may have changed.
    fn look_at(&mut self, lease: &LeaseId) {
        self.grants.set_lease(lease, self.vouches.lives(lease));
    }

    /// Lets the vouches of a process count only for a time-to-live above this one; all of them if none. True: something changed.
    pub fn set_silence(&mut self, run: Run, upto: Option<u64>) -> bool {
        let leases = self.vouches.set_silence(run, upto);
        leases.iter().for_each(|lease| self.look_at(lease));
        !leases.is_empty()
    }

    fn early_meta(&mut self, id: OpId, change: MetaChange) {
        if self.early_removes.contains(&id) {
            return;
        }
        match self.early_metas.get_mut(&id) {
            Some(known) if known.stamp >= change.stamp => {}
            Some(known) => *known = change,
            None => {
                self.early_metas.insert(id, change);
            }
        }
    }

    /// The state for a node whose context is this one.
    pub fn state_for(&self, receiver: &Context) -> State {
        let mut state = State { context: self.context.clone(), ..State::default() };
        for (run, grants) in self.grants.runs() {
            let covered = receiver.get(*run);
            let mut known = Vec::new();
            let mut last = 0;
            for (number, grant) in grants {
                let change = self.grants.change_of(grant.id);
                if *number > covered {
                    state.fresh.push((Arc::clone(grant), change.cloned()));
                } else {
                    known.push(number - last);
                    last = *number;
                    if let Some(change) = change.filter(|change| !receiver.covers(change.stamp.id)) {
                        state.metas.push((grant.id, change.clone()));
                    }
                }
            }
            if !known.is_empty() {
                state.known.push((*run, known));
            }
        }
        for run in self.vouches.runs() {
            let (applied, covered) = (self.context.get(run), receiver.get(run));
            let mut known = Vec::new();
            let mut last = 0;
            for vouch in self.vouches.of_run(run) {
                let number = vouch.id.number;
                if number > applied {
                    state.early_vouches.push(Arc::clone(vouch));
                } else if number > covered {
                    state.vouches.push(Arc::clone(vouch));
                } else {
                    known.push(number - last);
                    last = number;
                }
            }
            if !known.is_empty() {
                state.known_vouches.push((run, known));
            }
        }
        self.add_early(&mut state);
        state.records = self.records.unknown_to(receiver);
        state.early_acks = self.records.early_acks();
        state
    }

    /// The state of these grants alone and of their leases, with the whole context: what a question about their keys needs.
    pub fn state_of<'a>(&self, held: impl Iterator<Item = &'a Held>) -> State {
        let mut state = State { context: self.context.clone(), ..State::default() };
        state.fresh.extend(held.map(|held| (Arc::clone(&held.grant), held.change.as_deref().cloned())));
        let leases = state.fresh.iter().filter_map(|(grant, _)| grant.lease.as_ref()).collect::<BTreeSet<_>>();
        let vouches = leases.into_iter().flat_map(|lease| self.vouches.of(lease)).cloned();
        (state.vouches, state.early_vouches) = vouches.partition(|vouch| self.context.covers(vouch.id));
        self.add_early(&mut state);
        state
    }

    fn add_early(&self, state: &mut State) {
        state.early_removes = self.early_removes.iter().copied().collect();
        state.early_metas = self.early_metas.iter().map(|(id, change)| (*id, change.clone())).collect();
    }

    /// Takes a state in that was made for a context which this node's covers.
    ///
    /// What is here, absent there and covered by its context was removed; what is there and not covered by this context is new.
    pub fn merge(&mut self, state: State) {
        let State { context, fresh, known, vouches, known_vouches, early_vouches, .. } = state;
        let State { metas, early_removes, early_metas, records, early_acks, .. } = state;
        let stands_there = standing(fresh.iter().map(|(grant, _)| grant.id), &known);
        let removed: Vec<OpId> = self
            .grants
            .runs()
            .iter()
            .flat_map(|(run, grants)| {
                let there = stands_there.get(run);
                grants
                    .range(..=context.get(*run))
                    .filter(move |(number, _)| there.is_none_or(|there| there.binary_search(number).is_err()))
                    .map(|(number, _)| OpId { run: *run, number: *number })
            })
            .collect();
        for id in removed {
            self.grants.remove(id);
        }
        let vouched_there = standing(vouches.iter().map(|vouch| vouch.id), &known_vouches);
        let dropped: Vec<OpId> = self
            .vouches
            .runs()
            .flat_map(|run| self.vouches.of_run(run))
            .map(|vouch| vouch.id)
            .filter(|id| context.covers(*id))
            .filter(|id| vouched_there.get(&id.run).is_none_or(|there| there.binary_search(&id.number).is_err()))
            .collect();
        // First what is new: a lease that moved is never without a vouch on the way.
        for vouch in vouches.into_iter().filter(|vouch| context.covers(vouch.id)).chain(early_vouches) {
            self.put_up_early(vouch);
        }
        dropped.into_iter().for_each(|id| self.take_down(id));
        for (grant, change) in fresh.into_iter().filter(|(grant, _)| context.covers(grant.id)) {
            let id = grant.id;
            if self.context.covers(id) {
                // It stands in both, or was removed here.
                if let Some(change) = change {
                    self.grants.set_meta(id, change);
                }
            } else if !self.early_removes.contains(&id) {
                self.put_up(grant, change);
            }
        }
        let losers = records.iter().map(|record| record.loser()).filter(|loser| self.records.get(*loser).is_none());
        let losers = losers.collect::<Vec<_>>();
        self.records.merge(records, early_acks, &self.context);
        for loser in losers.into_iter().filter(|loser| self.records.get(*loser).is_some()) {
            self.grants.trail.push(Step::Recorded(loser));
        }
        self.finish_merge(&context, metas, early_removes, early_metas);
    }

    /// The planted flaw: whatever the other has and this node lacks is taken as new, whether or not it was removed here, and
    /// nothing is taken as removed there.
    pub fn merge_without_context(&mut self, state: State) {
        let State { context, fresh, vouches, metas, early_removes, early_metas, records, early_acks, .. } = state;
        for vouch in vouches {
            self.put_up_vouch(vouch);
        }
        for (grant, change) in fresh.into_iter().filter(|(grant, _)| context.covers(grant.id)) {
            if self.grants.get(grant.id).is_none() {
                self.put_up(grant, change);
            } else if let Some(change) = change {
                self.grants.set_meta(grant.id, change);
            }
        }
        self.records.merge(records, early_acks, &Context::default());
        self.finish_merge(&context, metas, early_removes, early_metas);
    }

    fn put_up(&mut self, grant: Arc<Grant>, change: Option<MetaChange>) {
        let id = grant.id;
        // A state that names a grant twice is a peer's mistake, not ours.
        if self.grants.get(id).is_some() {
            return;
        }
        self.grants.insert(Held { grant, change: change.map(Box::new) });
        if let Some(change) = self.early_metas.remove(&id) {
            self.grants.set_meta(id, change);
        }
    }

    fn finish_merge(
        &mut self,
        context: &Context,
        metas: Vec<(OpId, MetaChange)>,
        early_removes: Vec<OpId>,
        early_metas: Vec<(OpId, MetaChange)>,
    ) {
        for id in early_removes {
            // Its operation has come here before, or comes with this very state's context from elsewhere.
            self.take_down(id);
            self.early_removes.insert(id);
        }
        self.context.merge(context);
        self.early_removes.retain(|id| !self.context.covers(*id));
        for (id, change) in metas.into_iter().chain(early_metas) {
            if !self.grants.set_meta(id, change.clone()) && !self.context.covers(id) {
                self.early_meta(id, change);
            }
        }
        let (context, removes) = (&self.context, &self.early_removes);
        self.early_metas.retain(|id, _| !context.covers(*id) && !removes.contains(id));
    }

    /// All that a state consists of, for comparing two maps.
    pub fn snapshot(&self) -> State {
        self.state_for(&Context::default())
    }
}

/// The numbers that stand in a state, ascending, by run.
fn standing(fresh: impl Iterator<Item = OpId>, known: &[(Run, Vec<u64>)]) -> BTreeMap<Run, Vec<u64>> {
    let mut standing = BTreeMap::<Run, Vec<u64>>::new();
    for (run, steps) in known {
        let mut last = 0u64;
        let numbers = standing.entry(*run).or_default();
        for step in steps {
            // What a peer sends is data: a sum that does not fit is no reason to stop.
            last = last.saturating_add(*step);
            numbers.push(last);
        }
    }
    for id in fresh {
        standing.entry(id.run).or_default().push(id.number);
    }
    for numbers in standing.values_mut() {
        numbers.sort_unstable();
    }
    standing
}
