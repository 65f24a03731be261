//! The grants that stand, found by key and by id, and what of them this node shows.
//!
//! One registration costs the same whatever else stands: an index per name and per run, and sums kept up to date. Only when a
//! home is hidden or shown are all of its grants visited.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::entry::Holder;
use crate::model::ident::{Group, LeaseId, Member, Name, NodeId};

use super::context::{OpId, Run};
use super::lens::Lens;
use super::operation::{Grant, MetaChange, Stamp};
use super::text::Fingerprint;
use super::trail::{Step, Trail};
use super::view;

/// A grant that stands, with the newest change of its meta.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub grant: Arc<Grant>,
    pub change: Option<Box<MetaChange>>,
}

impl Held {
    /// When it last changed.
    pub fn changed(&self) -> Stamp {
        match &self.change {
            Some(change) => change.stamp,
            None => Stamp { hlc: self.grant.hlc, id: self.grant.id },
        }
    }
}

/// All grants of one name, or of one member of one group, in the order in which they came here.
#[derive(Clone, Debug, Default)]
pub struct Slot(Vec<Held>);

impl Slot {
    pub fn all(&self) -> &[Held] {
        &self.0
    }

    /// The best-ranked grant that counts.
    pub fn shown(&self, lens: &Lens) -> Option<&Held> {
        match &self.0[..] {
            [only] => lens.counts(&only.grant).then_some(only),
            all => lens.best(all.iter().filter(|held| lens.counts(&held.grant))),
        }
    }

    /// The best-ranked grant that is hidden, of somebody else than this holder.
    pub fn hidden(&self, lens: &Lens, holder: &Holder) -> Option<&Held> {
        lens.best(self.0.iter().filter(|held| lens.hides(&held.grant) && held.grant.holder != *holder))
    }

    fn is_contested(&self) -> bool {
        self.0.len() > 1 && self.0[1..].iter().any(|held| held.grant.holder != self.0[0].grant.holder)
    }
}

/// How much is shown, and a hash of it that does not depend on order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub names: u64,
    pub members: u64,
    /// The sum of the prints of all that is shown.
    pub digest: u128,
}

/// The members of one group, and how many of them are shown.
#[derive(Clone, Debug, Default)]
pub struct Members {
    pub slots: BTreeMap<Member, Slot>,
    pub shown: u64,
}

#[derive(Clone, Debug, Default)]
pub struct Grants {
    pub lens: Lens,
    pub trail: Trail,
    names: BTreeMap<Name, Slot>,
    groups: BTreeMap<Group, Members>,
    by_run: BTreeMap<Run, BTreeMap<u64, Arc<Grant>>>,
    /// The grants that are bound to each lease.
    by_lease: BTreeMap<LeaseId, BTreeSet<OpId>>,
    /// Of these leases, the ones that nobody vouches for.
    orphaned: BTreeSet<LeaseId>,
    /// The grants whose meta has changed: few, so that giving a state away need not look at every slot.
    changed: BTreeSet<OpId>,
    /// Names that several owners hold.
    contested: BTreeSet<Name>,
    /// Of these, the ones that changed since they were last looked at.
    unsettled: BTreeSet<Name>,
    tally: Tally,
}

impl Grants {
    pub fn new(lens: Lens) -> Self {
        Self { lens, ..Self::default() }
    }

    pub fn tally(&self) -> Tally {
        self.tally
    }

    pub fn names(&self) -> &BTreeMap<Name, Slot> {
        &self.names
    }

    pub fn groups(&self) -> &BTreeMap<Group, Members> {
        &self.groups
    }

    pub fn slot(&self, holder: &Holder) -> Option<&Slot> {
        match holder {
            Holder::Owner(name, _) => self.names.get(name),
            Holder::Member(group, member) => self.groups.get(group)?.slots.get(member),
        }
    }

    /// The grant of this id, if it stands.
    pub fn get(&self, id: OpId) -> Option<&Arc<Grant>> {
        self.by_run.get(&id.run)?.get(&id.number)
    }

    /// The grant of this id with its meta, if it stands.
    pub fn held(&self, id: OpId) -> Option<&Held> {
        let grant = self.get(id)?;
        self.slot(&grant.holder)?.0.iter().find(|held| held.grant.id == id)
    }

    /// The change of a grant's meta, if it has changed.
    pub fn change_of(&self, id: OpId) -> Option<&MetaChange> {
        if !self.changed.contains(&id) {
            return None;
        }
        self.held(id)?.change.as_deref()
    }

    /// The grants that are bound to a lease.
    pub fn bound_to(&self, lease: &LeaseId) -> impl Iterator<Item = &Arc<Grant>> {
        let ids = self.by_lease.get(lease).into_iter().flatten();
        ids.map(|id| self.get(*id).expect("both indexes hold the same grants"))
    }

    /// The leases that grants are bound to and nobody vouches for.
    pub fn orphaned(&self) -> &BTreeSet<LeaseId> {
        &self.orphaned
    }

    /// All that stands, by run and number.
    pub fn runs(&self) -> &BTreeMap<Run, BTreeMap<u64, Arc<Grant>>> {
        &self.by_run
    }

    /// Whether this node's view may hide something that another node's shows.
    pub fn hides(&self) -> bool {
        let has_grants = |node: &NodeId| {
            let (first, last) = (Run { node: *node, bits: 0 }, Run { node: *node, bits: u64::MAX });
            self.by_run.range(first..=last).next().is_some()
        };
        self.lens.hides_leases() || self.lens.hidden.iter().any(has_grants)
    }

    /// Puts a grant up. Its id must not stand yet.
    pub fn insert(&mut self, held: Held) {
        let grant = Arc::clone(&held.grant);
        let former = self.by_run.entry(grant.id.run).or_default().insert(grant.id.number, Arc::clone(&grant));
        assert!(former.is_none(), "a grant is put up once");
        if let Some(lease) = &grant.lease {
            self.by_lease.entry(lease.clone()).or_default().insert(grant.id);
            if self.lens.lease(lease).is_none() {
                self.orphaned.insert(lease.clone());
            }
        }
        if held.change.is_some() {
            self.changed.insert(grant.id);
        }
        if self.trail.watched {
            self.trail.push(Step::Up(held.clone()));
        }
        self.change(&grant.holder, |slot| {
            // Nearly every slot has one grant for all its life: no room for four.
            slot.0.reserve_exact(1);
            slot.0.push(held);
        });
    }

    /// Takes a grant down, if it stands.
    pub fn remove(&mut self, id: OpId) -> Option<Held> {
        let run = self.by_run.get_mut(&id.run)?;
        let grant = run.remove(&id.number)?;
        if run.is_empty() {
            self.by_run.remove(&id.run);
        }
        self.changed.remove(&id);
        if let Some(lease) = &grant.lease
            && let Some(bound) = self.by_lease.get_mut(lease)
        {
            bound.remove(&id);
            if bound.is_empty() {
                self.by_lease.remove(lease);
                self.orphaned.remove(lease);
            }
        }
        let mut removed = None;
        self.change(&grant.holder, |slot| {
            let at = slot.0.iter().position(|held| held.grant.id == id).expect("both indexes hold the same grants");
            removed = Some(slot.0.remove(at));
        });
        self.trail.push(Step::Down(removed.clone().expect("it was just taken out")));
        removed
    }

    /// Takes a change of a grant's meta in, unless it has a later one. False: no such grant stands.
    pub fn set_meta(&mut self, id: OpId, change: MetaChange) -> bool {
        let Some(grant) = self.get(id).cloned() else { return false };
        let slot = match &grant.holder {
            Holder::Owner(name, _) => self.names.get_mut(name),
            Holder::Member(group, member) => {
                self.groups.get_mut(group).and_then(|members| members.slots.get_mut(member))
            }
        };
        let held = slot
            .and_then(|slot| slot.0.iter_mut().find(|held| held.grant.id == id))
            .expect("both indexes hold the same grants");
        if held.changed() < change.stamp {
            self.trail.push(Step::Changed(held.clone()));
            held.change = Some(Box::new(change));
            self.changed.insert(id);
        }
        true
    }

    /// Lets the grants of a node that are bound to no lease count, or not.
    pub fn set_hidden(&mut self, node: NodeId, hidden: bool) {
        if self.lens.hidden.contains(&node) == hidden {
            return;
        }
        let first = Run { node, bits: 0 };
        let last = Run { node, bits: u64::MAX };
        let holders: BTreeSet<Holder> = self
            .by_run
            .range(first..=last)
            .flat_map(|(_, grants)| grants.values().filter(|grant| grant.lease.is_none()))
            .map(|grant| key(grant.holder.clone()))
            .collect();
        let before = self.before(&holders);
        for holder in &holders {
            self.count(holder, false);
        }
        if hidden {
            self.lens.hidden.insert(node);
        } else {
            self.lens.hidden.remove(&node);
        }
        for holder in &holders {
            self.count(holder, true);
        }
        self.look_again(&holders, before);
    }

    /// Lets the grants that are bound to a lease count, or not; none: nobody vouches for it.
    pub fn set_lease(&mut self, lease: &LeaseId, lives: Option<bool>) {
        if self.lens.lease(lease) == lives {
            return;
        }
        let holders: BTreeSet<Holder> = self.bound_to(lease).map(|grant| key(grant.holder.clone())).collect();
        let before = self.before(&holders);
        for holder in &holders {
            self.count(holder, false);
        }
        let changed = self.lens.set_lease(lease, lives);
        if lives.is_some() {
            self.orphaned.remove(lease);
        } else if !holders.is_empty() {
            self.orphaned.insert(lease.clone());
        }
        for holder in &holders {
            self.count(holder, true);
            if let Holder::Owner(name, _) = holder
                && changed
                && self.contested.contains(name)
            {
                self.unsettled.insert(name.clone());
            }
        }
        self.look_again(&holders, before);
    }

    /// What is shown under these keys, if somebody wants to be told of changes.
    fn before(&self, holders: &BTreeSet<Holder>) -> Vec<Option<Held>> {
        if !self.trail.watched {
            return Vec::new();
        }
        holders.iter().map(|holder| self.slot(holder).and_then(|slot| slot.shown(&self.lens)).cloned()).collect()
    }

    fn look_again(&mut self, holders: &BTreeSet<Holder>, before: Vec<Option<Held>>) {
        for (holder, before) in holders.iter().zip(before) {
            let after = self.slot(holder).and_then(|slot| slot.shown(&self.lens));
            if after.map(|held| held.grant.id) != before.as_ref().map(|held| held.grant.id) {
                let after = view::current(self, holder);
                self.trail.push(Step::Seen { before, after });
            }
        }
    }

    /// The contested names that changed since the last call; all contested ones if `all`.
    pub fn take_unsettled(&mut self, all: bool) -> Vec<Name> {
        let unsettled = std::mem::take(&mut self.unsettled);
        if all { self.contested.iter().cloned().collect() } else { unsettled.into_iter().collect() }
    }

    /// Changes the slot of a key, keeping the sums and the set of contested names.
    fn change(&mut self, holder: &Holder, change: impl FnOnce(&mut Slot)) {
        self.count(holder, false);
        match holder {
            Holder::Owner(name, _) => {
                let slot = self.names.entry(name.clone()).or_default();
                change(slot);
                if slot.is_contested() {
                    self.contested.insert(name.clone());
                    self.unsettled.insert(name.clone());
                } else if !self.contested.is_empty() {
                    self.contested.remove(name);
                    self.unsettled.remove(name);
                }
                if slot.0.is_empty() {
                    self.names.remove(name);
                }
            }
            Holder::Member(group, member) => {
                let members = self.groups.entry(group.clone()).or_default();
                let slot = members.slots.entry(member.clone()).or_default();
                change(slot);
                if slot.0.is_empty() {
                    members.slots.remove(member);
                    if members.slots.is_empty() {
                        self.groups.remove(group);
                    }
                }
            }
        }
        self.count(holder, true);
    }

    /// Adds what is shown under a key to the sums, or takes it out.
    fn count(&mut self, holder: &Holder, add: bool) {
        let Some(print) =
            self.slot(holder).and_then(|slot| slot.shown(&self.lens)).map(|held| print(&held.grant.holder))
        else {
            return;
        };
        let step = |sum: &mut u64| *sum = if add { *sum + 1 } else { *sum - 1 };
        match holder {
            Holder::Owner(..) => step(&mut self.tally.names),
            Holder::Member(group, _) => {
                step(&mut self.tally.members);
                if let Some(members) = self.groups.get_mut(group) {
                    step(&mut members.shown);
                }
            }
        }
        let digest = &mut self.tally.digest;
        *digest = if add { digest.wrapping_add(print) } else { digest.wrapping_sub(print) };
    }
}

/// One holder for each key, so that a name with several owners is counted once.
fn key(holder: Holder) -> Holder {
    match holder {
        Holder::Owner(name, _) => {
            let nobody = "nobody".parse().expect("a well-formed owner");
            Holder::Owner(name, nobody)
        }
        member => member,
    }
}

fn print(holder: &Holder) -> u128 {
    let mut print = Fingerprint::new();
    match holder {
        Holder::Owner(name, owner) => {
            print.add(b"n");
            print.add(name.as_str().as_bytes());
            print.add(owner.as_str().as_bytes());
        }
        Holder::Member(group, member) => {
            print.add(b"m");
            print.add(group.as_str().as_bytes());
            print.add(member.as_str().as_bytes());
        }
    }
    print.finish()
}
