//! Events: what operations, states and this node's view did, as watchers are told it (protocol A10).
//!
//! While nobody watches, nothing is told. An event made when its operation came is the same as one made from the log later, but for
//! `current`, which is what this node shows when it is made: so the last event about a key always says what stands there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::entry::{Entry, Holder};
use crate::model::event::{Change, EndReason, Event};
use crate::model::ident::{Revision, Token};

use super::context::{Context, OpId, Run};
use super::core::Core;
use super::cursor;
use super::grants::Held;
use super::log::Logged;
use super::map::Map;
use super::operation::{DropReason, Grant, Operation, Reason};
use super::rank::Rank;
use super::trail::Step;
use super::view;

/// Changes that one event holds if it is of no operation: a state can bring any number.
const CHANGES_MAX: usize = 100;

/// What a watcher has missed, as far as it is kept.
pub struct Missed {
    pub events: Vec<Event>,
    /// What the watcher has been told with these.
    pub told: Context,
    /// These are all.
    pub all: bool,
}

impl Core {
    /// From now on there are events.
    pub fn begin_telling(&mut self) {
        self.map.grants.trail.watched = true;
    }

    pub fn is_telling(&self) -> bool {
        self.map.grants.trail.watched
    }

    /// The events since the last call, in order.
    pub fn take_events(&mut self) -> Vec<Event> {
        self.tell_view();
        std::mem::take(&mut self.events)
    }

    /// Keeps an operation that was just applied, and tells of it.
    pub(super) fn note(&mut self, operation: Operation) {
        let mut steps = self.map.grants.trail.take();
        if self.is_telling() {
            let changes = of_operation(&self.map, &operation, &steps, |_| None);
            if !changes.is_empty() {
                self.events.push(Event { revision: view::revision(operation.stamp()), changes });
            }
        }
        steps.retain(Step::is_kept);
        self.log.push(operation, steps);
    }

    /// Tells what has changed by this node's view alone. To be called before what comes next is applied.
    pub(super) fn tell_view(&mut self) {
        if !self.map.grants.trail.is_empty() {
            self.tell_state();
        }
    }

    /// Tells what a state has changed that was just taken in. Which operations did it is not known, and so the events are numbered by
    /// none; they are told all the same.
    pub(super) fn tell_state(&mut self) {
        let steps = self.map.grants.trail.take();
        if !self.is_telling() {
            return;
        }
        let changes = of_state(&self.map, steps);
        let revision = self.map.context.revision();
        let mut changes = changes.into_iter().peekable();
        while changes.peek().is_some() {
            let changes = changes.by_ref().take(CHANGES_MAX).collect();
            self.events.push(Event { revision: revision.clone(), changes });
        }
    }

    /// The position of a watcher that has been told all that is here, and goes on at this number of this process's history.
    pub fn position(&self, next: u64) -> Revision {
        match self.hides() {
            true => cursor::local(self.config.run, next),
            false => cursor::position(&self.map.context, self.config.run, next),
        }
    }

    /// Whether this node hides something. Then whoever comes from another node, where it may have been shown, has to look anew.
    pub fn hides(&self) -> bool {
        self.map.grants.hides()
    }

    /// The run of this process.
    pub fn run(&self) -> Run {
        self.config.run
    }

    /// The planted flaw: a watch that goes on leaves out what it has missed.
    pub fn skips_missed(&self) -> bool {
        self.config.flaws.drop_on_resume
    }

    /// Up to `len_max` events of operations that are here and that a watcher has not been told of. None: some are kept no longer.
    pub fn missed(&self, told: &Context, len_max: usize) -> Option<Missed> {
        let (operations, all) = self.log.since(&self.map.context, told, len_max)?;
        let mut missed = Missed { events: Vec::new(), told: told.clone(), all };
        // Which of these tells last that a grant has ended: by what it did, for one that ended what another had ended here tells nothing.
        let mut last_end = BTreeMap::new();
        for (at, logged) in operations.iter().enumerate() {
            last_end.extend(logged.steps().iter().flat_map(Step::ended).map(|grant| (grant, at)));
        }
        for (at, logged) in operations.into_iter().enumerate() {
            let Logged { operation, .. } = logged;
            missed.told.raise(operation.id().run, operation.id().number);
            let lost = |id: &OpId| self.map.context.covers(*id) && self.log.get(*id).is_none();
            if logged.steps().iter().any(|step| matches!(step, Step::Early(id) if lost(id))) {
                return None;
            }
            let come = |id| match self.log.get(id) {
                Some(Operation::Add(grant)) => Some(Held { grant: grant.clone(), change: None }),
                _ => None,
            };
            let mut changes = of_operation(&self.map, operation, logged.steps(), come);
            changes.extend(shown_by_vouches(&self.map, operation));
            // What ended it may have been told before: elsewhere, where this had not come yet, or here, for whoever ended it by its token
            // alone knew nothing of it, and so may have done it with an earlier stamp.
            if let Operation::Add(grant) = operation
                && self.map.grants.get(grant.id).is_none()
                && last_end.get(&grant.id).is_none_or(|told| *told < at)
                && !logged.steps().contains(&Step::Stillborn)
            {
                let held = Held { grant: grant.clone(), change: None };
                changes.push(end(&self.map, &held, reason_of(&self.map, &held)));
            }
            if !changes.is_empty() {
                missed.events.push(Event { revision: view::revision(operation.stamp()), changes });
            }
        }
        Some(missed)
    }
}

/// What an operation changed. `come` finds a grant that has come after what was done to it early.
fn of_operation(map: &Map, operation: &Operation, steps: &[Step], come: impl Fn(OpId) -> Option<Held>) -> Vec<Change> {
    let mut changes = Vec::new();
    let ended = |reason: EndReason| move |held: &Held| end(map, held, reason.clone());
    match operation {
        Operation::Add(grant) => granted(map, grant, steps, &come, &mut changes),
        Operation::Meta { grant, change } => changes.extend(steps.iter().find_map(|step| match step {
            Step::Changed(before) => {
                let after = Held { grant: before.grant.clone(), change: Some(Box::new(change.clone())) };
                Some(updated(map, &after, Some(view::alone(before))))
            }
            // It is told with the grant when that comes; and later again, to those who know the grant already.
            Step::Early(_) => come(*grant).and_then(|_| map.grants.held(*grant)).map(|held| updated(map, held, None)),
            _ => None,
        })),
        Operation::Remove { reason, .. } => {
            let reason_told = match reason {
                Reason::Given => EndReason::Given,
                Reason::LeaseEnded => EndReason::LeaseExpired,
                Reason::Conflict(defeat) => EndReason::Conflict { winner: Token::Ap(defeat.winner.1) },
            };
            changes.extend(gone(steps, &come).iter().map(ended(reason_told)));
        }
        Operation::Drop { why, .. } => {
            let reason = match why {
                DropReason::Revoked { .. } => EndReason::LeaseRevoked,
                DropReason::Expired | DropReason::Moved(_) => EndReason::LeaseExpired,
            };
            let mut told = BTreeSet::new();
            for step in steps {
                let Step::LeaseEnded { lease, grants } = step else { continue };
                if reason == EndReason::LeaseExpired {
                    changes.push(Change::LeaseExpired { lease: lease.clone() });
                }
                changes.extend(grants.iter().map(ended(reason.clone())));
                told.extend(grants.iter().map(|held| held.grant.id));
            }
            let rest = gone(steps, &come).into_iter().filter(|held| !told.contains(&held.grant.id));
            changes.extend(rest.collect::<Vec<_>>().iter().map(ended(reason)));
        }
        Operation::Vouch(_) | Operation::Acknowledge { .. } => {}
    }
    changes.extend(steps.iter().filter_map(|step| match step {
        Step::Recorded(loser) => record(map, *loser),
        _ => None,
    }));
    let seen = seen(map, steps, &changes);
    changes.extend(seen);
    changes
}

/// What a lease's vouches let this node show, told later: whoever was told of a grant elsewhere, before the vouch for its lease had come
/// there, was told that it is hidden.
fn shown_by_vouches(map: &Map, operation: &Operation) -> Vec<Change> {
    let leases = match operation {
        Operation::Vouch(vouch) => vec![&vouch.lease],
        Operation::Drop { why: DropReason::Moved(newer), .. } => newer.iter().map(|vouch| &vouch.lease).collect(),
        _ => Vec::new(),
    };
    let holders = leases.into_iter().flat_map(|lease| map.grants.bound_to(lease)).map(|grant| &grant.holder);
    let shown = holders.filter_map(|holder| view::current(&map.grants, holder));
    shown.map(|entry| Change::Shown { entry }).collect()
}

/// What a state, or a change of this node's view, has changed.
fn of_state(map: &Map, steps: Vec<Step>) -> Vec<Change> {
    let mut changes = Vec::new();
    for step in &steps {
        match step {
            Step::Up(held) => granted(map, &held.grant, &[], &|_| None, &mut changes),
            Step::Down(held) => changes.push(end(map, held, reason_of(map, held))),
            Step::Changed(before) => {
                if let Some(held) = map.grants.held(before.grant.id) {
                    changes.push(updated(map, held, Some(view::alone(before))));
                }
            }
            Step::Recorded(loser) => changes.extend(record(map, *loser)),
            Step::Early(_) | Step::Stillborn | Step::LeaseEnded { .. } | Step::Seen { .. } => {}
        }
    }
    let seen = seen(map, &steps, &changes);
    changes.extend(seen);
    changes
}

/// Why a grant has ended that another node's state does not have any more: a record or its lease may tell; if neither does, it counts
/// as given up.
fn reason_of(map: &Map, held: &Held) -> EndReason {
    let lease = held.grant.lease.as_ref();
    match map.records.get(held.grant.id) {
        Some(record) => EndReason::Conflict { winner: Token::Ap(record.defeat.winner.1) },
        None if lease.is_some_and(|lease| map.grants.lens.lease(lease).is_none()) => EndReason::LeaseExpired,
        None => EndReason::Given,
    }
}

fn granted(
    map: &Map,
    grant: &Arc<Grant>,
    steps: &[Step],
    come: &impl Fn(OpId) -> Option<Held>,
    changes: &mut Vec<Change>,
) {
    let policy = map.grants.lens.policy;
    let held = map.grants.held(grant.id).cloned().unwrap_or_else(|| Held { grant: grant.clone(), change: None });
    let taken = gone(steps, come);
    let current = view::current(&map.grants, &grant.holder).map(Box::new);
    let entry = view::alone(&held);
    match &grant.holder {
        Holder::Owner(..) => {
            changes.extend(taken.iter().map(|taken| end(map, taken, EndReason::Taken)));
            let previous = taken.iter().min_by_key(|held| Rank::of(policy, &held.grant)).map(view::alone);
            changes.push(Change::Registered { entry, previous, current });
        }
        // Joining with another lease moves the membership there: nobody has left.
        Holder::Member(..) if !taken.is_empty() => changes.extend(taken.iter().map(|taken| Change::Updated {
            entry: entry.clone(),
            previous: Some(view::alone(taken)),
            current: current.clone(),
        })),
        Holder::Member(..) => {
            changes.push(Change::Joined { entry: entry.clone() });
            if current.is_none() && map.grants.get(grant.id).is_some() {
                changes.push(Change::Hidden { entry });
            }
        }
    }
    if steps.contains(&Step::Stillborn) {
        changes.push(end(map, &held, EndReason::Given));
    }
}

/// The grants that were taken down, and those that were to be and have come since.
fn gone(steps: &[Step], come: &impl Fn(OpId) -> Option<Held>) -> Vec<Held> {
    let gone = steps.iter().filter_map(|step| match step {
        Step::Down(held) => Some(held.clone()),
        Step::Early(id) => come(*id),
        _ => None,
    });
    gone.collect()
}

fn end(map: &Map, held: &Held, reason: EndReason) -> Change {
    let entry = view::alone(held);
    let current = view::current(&map.grants, &held.grant.holder).map(Box::new);
    match (&held.grant.holder, current) {
        (Holder::Owner(..), current) => Change::Ended { entry, reason, current },
        (Holder::Member(..), None) => Change::Left { entry, reason },
        // Another grant of the same member still stands: the member is there.
        (Holder::Member(..), Some(current)) => {
            Change::Updated { entry: (*current).clone(), previous: Some(entry), current: Some(current) }
        }
    }
}

fn updated(map: &Map, held: &Held, previous: Option<Entry>) -> Change {
    let current = view::current(&map.grants, &held.grant.holder).map(Box::new);
    Change::Updated { entry: view::alone(held), previous, current }
}

fn record(map: &Map, loser: OpId) -> Option<Change> {
    map.records.get(loser).map(|record| Change::Conflict { record: record.shown() })
}

/// What is shown, or not shown any more, without having been registered or ended.
fn seen(map: &Map, steps: &[Step], told: &[Change]) -> Vec<Change> {
    if !steps.iter().any(|step| matches!(step, Step::Seen { .. })) {
        return Vec::new();
    }
    let ended = told.iter().filter_map(|change| match change {
        Change::Ended { entry, .. } | Change::Left { entry, .. } => Some(entry.token),
        Change::Updated { previous, .. } => previous.as_ref().map(|previous| previous.token),
        _ => None,
    });
    let ended = ended.collect::<BTreeSet<_>>();
    let mut changes = Vec::new();
    for step in steps {
        let Step::Seen { before, after } = step else { continue };
        if let Some(held) = before.as_ref().filter(|held| !ended.contains(&Token::Ap(held.grant.token()))) {
            let lens = &map.grants.lens;
            match held.grant.lease.as_ref().filter(|lease| lens.lease(lease).is_none()) {
                // Nobody vouches for its lease any more: that is no matter of this node's view.
                Some(_) => changes.push(end(map, held, EndReason::LeaseExpired)),
                None if !lens.counts(&held.grant) => changes.push(Change::Hidden { entry: view::alone(held) }),
                None => {}
            }
        }
        changes.extend(after.clone().map(|entry| Change::Shown { entry }));
    }
    changes
}
