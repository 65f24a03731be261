//! Which leases are live, what is bound to each, how much each has left, and which have ended.
//!
//! A lease's number is the revision that created it: it names this very lease, as a token names a grant. What is bound stands in one
//! ordered set for all leases, so that to end one takes time for its own entries alone.

use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};

use super::Table;
use super::ask::keys;
use super::news::{LeaseNews, News};
use crate::model::event::{Change, EndReason};
use crate::model::ident::{CredentialName, Group, LeaseId, Member, Name};
use crate::model::lease::LeaseInfo;
use crate::model::outcome::{Ended, Outcome, Refusal};
use crate::model::query::Page;
use crate::model::step::EXPIRE_RELEASES_MAX;

/// How many ended leases are remembered, to be told from those that never were; the oldest are forgotten first.
pub const ENDED_KEPT_MAX: usize = 100_000;
/// How many entries end in one revision when their lease does; a lease that has more ends in several, one right after the other.
pub const RELEASES_PER_EVENT_MAX: usize = EXPIRE_RELEASES_MAX as usize;
/// Of so many past leaderships it is remembered how long they lasted. Forgetting one only lets old leases live longer.
const AGES_KEPT_MAX: usize = 1_000;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Leases {
    #[serde(deserialize_with = "super::decode::map")]
    live: OrdMap<LeaseId, Lease>,
    #[serde(deserialize_with = "super::decode::map")]
    ids: OrdMap<u64, LeaseId>,
    /// The number of the lease first. No key at all is less than any key: where a lease's own begin. It is never in the set.
    #[serde(deserialize_with = "super::decode::set")]
    bound: OrdSet<(u64, Option<Key>)>,
    #[serde(deserialize_with = "super::decode::map")]
    ended: OrdMap<LeaseId, u64>,
    /// The same in the order in which they ended, by the revision.
    #[serde(deserialize_with = "super::decode::map")]
    ended_at: OrdMap<u64, LeaseId>,
    /// The leadership whose steps are being applied.
    leadership: u64,
    /// For how long past leaderships, and this one, have seen leases that nobody kept alive; those of no time are left out.
    #[serde(deserialize_with = "super::decode::map")]
    ages: OrdMap<u64, u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Lease {
    number: u64,
    ttl_ms: u64,
    credential: Option<CredentialName>,
    /// How many entries are bound to it.
    entries: u64,
    /// The last leadership under which it was granted or kept alive.
    renewed_under: u64,
}

/// What is bound to a lease.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Key {
    Name(Name),
    Member(Group, Member),
}

/// What whoever keeps a live lease's time has to know of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseFacts {
    pub number: u64,
    pub ttl_ms: u64,
    /// What a leader that begins now has to give it.
    pub left_ms: u64,
    /// How many entries end with it.
    pub entries: u64,
    /// The last leadership whose steps show it granted or kept alive.
    pub renewed_under: u64,
}

impl Leases {
    pub fn lead(&mut self, leadership: u64) {
        self.leadership = self.leadership.max(leadership);
    }

    /// Every live lease counts as just kept alive.
    pub fn begin_anew(&mut self) {
        self.ages = OrdMap::new();
    }

    pub fn number(&self, lease: &LeaseId) -> Option<u64> {
        self.live.get(lease).map(|lease| lease.number)
    }

    /// Why nothing can be done with this lease; none if it is live.
    pub fn refusal(&self, lease: &LeaseId) -> Option<Refusal> {
        match () {
            () if self.live.contains_key(lease) => None,
            () if self.ended.contains_key(lease) => Some(Refusal::LeaseExpired),
            () => Some(Refusal::LeaseUnknown),
        }
    }

    fn facts(&self, lease: &Lease) -> LeaseFacts {
        // A leader gives back what the ones before it have not used up, and all to those kept alive under the last one.
        let since = (std::ops::Bound::Excluded(lease.renewed_under), std::ops::Bound::Unbounded);
        let used = self.ages.range::<_, u64>(since).map(|(_, ms)| *ms).sum::<u64>();
        let left_ms = lease.ttl_ms.saturating_sub(used);
        LeaseFacts {
            number: lease.number,
            ttl_ms: lease.ttl_ms,
            left_ms,
            entries: lease.entries,
            renewed_under: lease.renewed_under,
        }
    }

    pub fn bind(&mut self, lease: &LeaseId, key: Key) {
        let lease = self.live.get_mut(lease).expect("only live leases are bound to");
        if self.bound.insert((lease.number, Some(key))).is_none() {
            lease.entries += 1;
        }
    }

    pub fn unbind(&mut self, lease: &LeaseId, key: Key) {
        // Gone already when it is the lease itself that ends.
        let Some(lease) = self.live.get_mut(lease) else { return };
        if self.bound.remove(&(lease.number, Some(key))).is_some() {
            lease.entries -= 1;
        }
    }

    /// What is bound to a lease, in order, from this key on (exclusive).
    pub fn keys(&self, number: u64, after: Option<Key>) -> impl Iterator<Item = &Key> {
        use std::ops::Bound::{Excluded, Unbounded};
        let own = self.bound.range((Excluded((number, after)), Unbounded::<(u64, Option<Key>)>));
        own.take_while(move |(of, _)| *of == number).filter_map(|(_, key)| key.as_ref())
    }

    pub fn kept_alive(&mut self, number: u64) {
        if let Some(lease) = self.ids.get(&number).and_then(|id| self.live.get_mut(id)) {
            lease.renewed_under = self.leadership;
        }
    }

    pub fn aged(&mut self, ms: u64) {
        self.ages.insert(self.leadership, ms);
        while self.ages.len() > AGES_KEPT_MAX {
            let oldest = self.ages.get_min().map(|(leadership, _)| *leadership).expect("there are many");
            self.ages.remove(&oldest);
        }
    }

    fn create(&mut self, id: LeaseId, number: u64, ttl_ms: u64, credential: Option<CredentialName>) {
        if let Some(at) = self.ended.remove(&id) {
            self.ended_at.remove(&at);
        }
        self.ids.insert(number, id.clone());
        self.live.insert(id, Lease { number, ttl_ms, credential, entries: 0, renewed_under: self.leadership });
    }

    /// Takes a lease away; what was bound to it, in order.
    fn end(&mut self, number: u64, at: u64) -> Vec<Key> {
        let id = self.ids.remove(&number).expect("it is live");
        self.live.remove(&id);
        let keys = self.keys(number, None).cloned().collect::<Vec<_>>();
        for key in &keys {
            self.bound.remove(&(number, Some(key.clone())));
        }
        self.ended.insert(id.clone(), at);
        self.ended_at.insert(at, id);
        while self.ended_at.len() > ENDED_KEPT_MAX {
            let (oldest, id) = self.ended_at.get_min().cloned().expect("there are many");
            self.ended_at.remove(&oldest);
            self.ended.remove(&id);
        }
        keys
    }
}

impl Lease {
    fn info(&self, id: &LeaseId) -> LeaseInfo {
        LeaseInfo { lease: id.clone(), ttl_ms: self.ttl_ms, credential: self.credential.clone() }
    }

    /// Whether this caller may renew or revoke it. One without a name may do all.
    fn obeys(&self, by: Option<&CredentialName>) -> bool {
        by.is_none() || self.credential.as_ref() == by
    }
}

impl Table {
    pub(super) fn create_lease(
        &mut self,
        lease: Option<&LeaseId>,
        ttl_ms: u64,
        credential: Option<&CredentialName>,
        news: &mut News,
    ) -> Outcome {
        let lease = lease.cloned().unwrap_or_else(|| self.free_lease_id());
        if let Some(live) = self.leases.live.get(&lease) {
            let same = live.ttl_ms == ttl_ms && live.credential.as_ref() == credential;
            return if same { Outcome::LeaseHeld { lease, ttl_ms } } else { Outcome::Refused(Refusal::LeaseTaken) };
        }
        let number = self.revision + 1;
        self.leases.create(lease.clone(), number, ttl_ms, credential.cloned());
        news.leases.push(LeaseNews::Began { number, ttl_ms, under: self.leases.leadership });
        self.changed(Vec::new(), news);
        Outcome::LeaseCreated { lease, ttl_ms }
    }

    fn free_lease_id(&self) -> LeaseId {
        let mut ids = (self.revision + 1..).map(|number| number.to_string().parse().expect("digits make an id"));
        ids.find(|id| !self.leases.live.contains_key(id)).expect("there are more numbers than leases")
    }

    pub(super) fn revoke_lease(&mut self, lease: &LeaseId, by: Option<&CredentialName>, news: &mut News) -> Outcome {
        match self.leases.live.get(lease) {
            Some(live) if !live.obeys(by) => Outcome::Refused(Refusal::LeaseForeign),
            Some(live) => {
                self.end_lease(live.number, &EndReason::LeaseRevoked, news);
                Outcome::Ended(Ended::Now)
            }
            // Sent again, most likely: nothing is left to be done.
            None if self.leases.ended.contains_key(lease) => Outcome::Ended(Ended::Before),
            None => Outcome::Refused(Refusal::LeaseUnknown),
        }
    }

    /// A lease has run out, unless it has ended before.
    pub(super) fn expire(&mut self, number: u64, news: &mut News) {
        if self.leases.ids.contains_key(&number) {
            self.end_lease(number, &EndReason::LeaseExpired, news);
        }
    }

    fn end_lease(&mut self, number: u64, reason: &EndReason, news: &mut News) {
        let id = self.leases.ids.get(&number).cloned().expect("it is live");
        let keys = self.leases.end(number, self.revision + 1);
        self.lost.forget_lease(number);
        news.leases.push(LeaseNews::Ended { number });
        let expired = (*reason == EndReason::LeaseExpired).then_some(Change::LeaseExpired { lease: id });
        let mut changes = Vec::from_iter(expired);
        let mut releases = 0;
        for key in &keys {
            if releases == RELEASES_PER_EVENT_MAX {
                self.changed(std::mem::take(&mut changes), news);
                releases = 0;
            }
            changes.extend(match key {
                Key::Name(name) => self.end_name(name, reason.clone()),
                Key::Member(group, member) => self.end_member(group, member, reason.clone()),
            });
            releases += 1;
        }
        self.changed(changes, news);
    }

    /// The live lease that this caller may renew, or why there is none.
    pub fn renewable(&self, lease: &LeaseId, by: Option<&CredentialName>) -> Result<LeaseFacts, Refusal> {
        match self.leases.live.get(lease) {
            Some(live) if live.obeys(by) => Ok(self.leases.facts(live)),
            Some(_) => Err(Refusal::LeaseForeign),
            None => Err(self.leases.refusal(lease).expect("it is not live")),
        }
    }

    /// The live lease of this number.
    pub fn lease_numbered(&self, number: u64) -> Option<LeaseFacts> {
        let id = self.leases.ids.get(&number)?;
        self.leases.live.get(id).map(|lease| self.leases.facts(lease))
    }

    /// All live leases, oldest first.
    pub fn leases(&self) -> impl Iterator<Item = LeaseFacts> {
        self.leases.ids.keys().filter_map(|number| self.lease_numbered(*number))
    }

    /// What a list shows of live leases, from this id on.
    pub(super) fn lease_infos<'a>(&'a self, page: &'a Page) -> impl Iterator<Item = LeaseInfo> + 'a {
        keys(&self.leases.live, page).map(|(id, lease)| lease.info(id))
    }

    /// A live lease's number, and what a list shows of it.
    pub(super) fn lease_info(&self, id: &LeaseId) -> Result<(u64, LeaseInfo), Refusal> {
        match self.leases.live.get(id) {
            Some(lease) => Ok((lease.number, lease.info(id))),
            None => Err(self.leases.refusal(id).expect("it is not live")),
        }
    }
}
