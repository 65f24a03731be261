//! The leases that this node vouches for: their deadlines, and how they begin and end (protocol A1, A2).
//!
//! A keep-alive at the node that vouches moves a deadline and nothing else: it writes no operation and sends no message. Each lease
//! has one timer, which looks at the deadline when it fires: so a lease that is kept alive costs one timer in each time-to-live.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::model::ident::{CredentialName, LeaseId};
use crate::model::lease::{self, LeaseInfo, LeaseStatus, TTL_MS_MAX};
use crate::model::outcome::{Ended, Outcome, Refusal};
use crate::model::query::{Answer, Page};

use super::commands::Executed;
use super::context::OpId;
use super::core::{Core, Effect, Effects, LeaseFlaw, Now};
use super::message::Message;
use super::operation::{DropReason, Operation, Reason};
use super::peers::Contact;
use super::view;
use super::vouch::Vouch;

/// Vouches that one operation drops, at most.
const DROP_LEN_MAX: usize = 1_000;

/// What this node vouches for.
#[derive(Debug, Default)]
pub struct Keeper {
    /// Looked up for every keep-alive.
    own: HashMap<LeaseId, Kept>,
    timers: BTreeSet<(u64, LeaseId)>,
}

/// A lease that this node vouches for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    pub vouch: OpId,
    /// It ends then, unless it is kept alive.
    pub deadline_ms: u64,
    /// Until then its keep-alives are told that it has moved here: the answer that said so first may have been lost.
    pub moved_until_ms: u64,
}

impl Keeper {
    pub(super) fn get(&self, lease: &LeaseId) -> Option<Kept> {
        self.own.get(lease).copied()
    }

    /// Moves a lease's deadline on, never back.
    pub(super) fn extend(&mut self, lease: &LeaseId, deadline_ms: u64) {
        if let Some(kept) = self.own.get_mut(lease) {
            kept.deadline_ms = kept.deadline_ms.max(deadline_ms);
        }
    }

    pub(super) fn begin(&mut self, lease: LeaseId, kept: Kept) {
        self.timers.insert((kept.deadline_ms, lease.clone()));
        self.own.insert(lease, kept);
    }

    pub(super) fn end(&mut self, lease: &LeaseId) {
        self.own.remove(lease);
    }

    /// In byte order of their ids.
    pub(super) fn leases(&self) -> impl Iterator<Item = (&LeaseId, &Kept)> {
        self.own.iter().collect::<BTreeMap<_, _>>().into_iter()
    }

    /// The leases whose time has run out.
    fn take_expired(&mut self, now_ms: u64) -> Vec<OpId> {
        let mut expired = Vec::new();
        while let Some((due, _)) = self.timers.first()
            && *due <= now_ms
        {
            let (_, lease) = self.timers.pop_first().expect("there is a first");
            let Some(kept) = self.own.get(&lease) else { continue };
            if kept.deadline_ms <= now_ms {
                let kept = self.own.remove(&lease).expect("it was just there");
                expired.push(kept.vouch);
            } else {
                self.timers.insert((kept.deadline_ms, lease));
            }
        }
        expired
    }
}

impl Core {
    /// What this node vouches for under this id. Somebody else may have dropped it: then it is forgotten.
    pub(super) fn kept_here(&mut self, lease: &LeaseId) -> Option<Kept> {
        let kept = self.keeper.get(lease)?;
        if self.map.vouches.get(kept.vouch).is_none() {
            self.keeper.end(lease);
            return None;
        }
        Some(kept)
    }

    pub(super) fn create_lease(
        &mut self,
        lease: Option<&LeaseId>,
        ttl_ms: u64,
        credential: Option<&CredentialName>,
        now: Now,
    ) -> Executed {
        if let Some(lease) = lease {
            // The registry's own ids prove by their form which operation made them: none may be chosen that would prove what never was.
            if OpId::parse(lease.as_str()).is_some() && self.map.vouches.of(lease).is_empty() {
                return Refusal::LeaseTaken.into();
            }
            if let Some(vouch) = self.terms(lease) {
                if vouch.ttl_ms != ttl_ms || vouch.credential.as_ref() != credential {
                    return Refusal::LeaseTaken.into();
                }
                let outcome = Outcome::LeaseHeld { lease: lease.clone(), ttl_ms };
                return Executed { outcome, operation: Some(vouch.id) };
            }
            // A lease of this id has ended, and what was bound to it has not been removed yet: the new one must not bring it back.
            let former = self.map.grants.bound_to(lease).map(|grant| grant.id).collect::<Vec<_>>();
            if !former.is_empty() {
                let stamp = self.next_stamp(now);
                self.commit(Operation::Remove { stamp, grants: former, reason: Reason::LeaseEnded });
            }
        }
        let stamp = self.next_stamp(now);
        let lease = lease.cloned().unwrap_or_else(|| lease_id(stamp.id));
        let vouch = Vouch {
            id: stamp.id,
            hlc: stamp.hlc,
            lease: lease.clone(),
            ttl_ms,
            credential: credential.cloned(),
            origin: stamp,
        };
        self.vouch_for(vouch, now.ms + ttl_ms, now.ms);
        Executed { outcome: Outcome::LeaseCreated { lease, ttl_ms }, operation: Some(stamp.id) }
    }

    /// Vouches from now on, until this deadline at first.
    pub(super) fn vouch_for(&mut self, vouch: Vouch, deadline_ms: u64, moved_until_ms: u64) {
        let (lease, id) = (vouch.lease.clone(), vouch.id);
        self.commit(Operation::Vouch(Arc::new(vouch)));
        self.keeper.begin(lease, Kept { vouch: id, deadline_ms, moved_until_ms });
    }

    /// Ends a lease with all that is bound to it, as far as this node knows, in one operation.
    pub(super) fn revoke_lease(&mut self, lease: &LeaseId, by: Option<&CredentialName>, now: Now) -> Executed {
        let Some(terms) = self.terms(lease) else {
            return match self.has_ended(lease) {
                true => Executed { outcome: Outcome::Ended(Ended::Before), operation: None },
                false => Refusal::LeaseUnknown.into(),
            };
        };
        if !may_act(by, &terms) {
            return Refusal::LeaseForeign.into();
        }
        let stamp = self.next_stamp(now);
        let vouches = self.map.vouches.of(lease).iter().map(|vouch| vouch.id).collect();
        let grants = self.map.grants.bound_to(lease).map(|grant| grant.id).collect();
        self.commit(Operation::Drop { stamp, vouches, why: DropReason::Revoked { grants } });
        self.keeper.end(lease);
        Executed { outcome: Outcome::Ended(Ended::Now), operation: Some(stamp.id) }
    }

    /// The terms of a lease, if a vouch stands for it: those of the vouch that goes back furthest.
    pub(super) fn terms(&self, lease: &LeaseId) -> Option<Arc<Vouch>> {
        self.map.vouches.of(lease).iter().min_by_key(|vouch| vouch.origin).cloned()
    }

    /// Whether a lease that nobody here knows of has surely ended: its id names the operation that made it, and that has come here.
    /// Not while a member is out of reach: it may have adopted the lease, and keep it alive on its side.
    pub(super) fn has_ended(&self, lease: &LeaseId) -> bool {
        let covered = OpId::parse(lease.as_str()).is_some_and(|id| id.number > 0 && self.map.context.covers(id));
        covered && self.map.vouches.of(lease).is_empty() && self.all_in_reach()
    }

    /// Why nothing can be bound to a lease now; none: it lives.
    pub(super) fn lease_refusal(&self, lease: &LeaseId) -> Option<Refusal> {
        match self.map.vouches.lives(lease) {
            Some(true) => None,
            None if self.has_ended(lease) => Some(Refusal::LeaseExpired),
            Some(false) | None => Some(Refusal::LeaseUnknown),
        }
    }

    /// Whether waiting would not make this node know more of a lease.
    pub fn is_lease_decided(&self, lease: &LeaseId) -> bool {
        self.lease_refusal(lease) != Some(Refusal::LeaseUnknown) || self.live_peers().is_empty()
    }

    /// Drops this node's own vouches whose time has run out, and nobody else's.
    pub(super) fn expire(&mut self, now: Now, effects: &mut Effects) {
        let expired = self.keeper.take_expired(now.ms);
        let mut standing = expired.iter().filter_map(|id| self.map.vouches.get(*id)).collect::<Vec<_>>();
        if self.config.flaws.leases == Some(LeaseFlaw::ExpiryDropsAll) {
            standing = standing.iter().flat_map(|vouch| self.map.vouches.of(&vouch.lease)).collect();
        }
        let standing = standing.into_iter().map(|vouch| vouch.id).collect();
        self.drop_expired(standing, now, effects);
    }

    pub(super) fn drop_expired(&mut self, expired: Vec<OpId>, now: Now, effects: &mut Effects) {
        for vouches in expired.chunks(DROP_LEN_MAX) {
            let stamp = self.next_stamp(now);
            self.commit(Operation::Drop { stamp, vouches: vouches.to_vec(), why: DropReason::Expired });
        }
        if !expired.is_empty() {
            self.settle(false, now, effects);
            effects.extend([Effect::Pushable, Effect::Advanced]);
        }
    }

    /// A live lease with a page of its entries.
    pub(super) fn lease_status(&self, lease: &LeaseId, page: &Page, now: Now) -> Answer {
        if let Some(refusal) = self.lease_refusal(lease) {
            return Answer::Refused(refusal);
        }
        let terms = self.terms(lease).expect("a vouch stands for it");
        let grants = &self.map.grants;
        let mut entries =
            grants.bound_to(lease).filter_map(|grant| grants.held(grant.id)).map(view::alone).collect::<Vec<_>>();
        entries.sort_by(|a, b| a.holder.cmp(&b.holder));
        if let Some(after) = &page.after {
            entries.retain(|entry| lease::is_after(&entry.holder, after).unwrap_or(true));
        }
        let more = entries.len() > page.limit;
        entries.truncate(page.limit);
        let next = entries.last().filter(|_| more).map(|last| lease::cursor(&last.holder));
        Answer::Lease(LeaseStatus {
            info: info(&terms),
            expires_in_ms: self.left(lease, now).min(TTL_MS_MAX),
            entries,
            next,
        })
    }

    /// How long a lease lives, by this node's own vouch. Of one that others keep: how long it counts here at most if none of them is
    /// heard of any more.
    fn left(&self, lease: &LeaseId, now: Now) -> u64 {
        let vouches = self.map.vouches.of(lease).iter();
        let mine = self.keeper.get(lease).filter(|kept| self.map.vouches.get(kept.vouch).is_some());
        mine.map(|kept| kept.deadline_ms.saturating_sub(now.ms)).unwrap_or_else(|| {
            let until = |vouch: &Arc<Vouch>| {
                let until_ms = self.hidden_at_ms(vouch.id.run, vouch.ttl_ms).unwrap_or(now.ms + vouch.ttl_ms);
                until_ms.saturating_sub(now.ms).min(vouch.ttl_ms)
            };
            vouches.map(until).max().unwrap_or(0)
        })
    }

    /// By this node's own vouch; none: it does not vouch for the lease.
    pub(super) fn left_here(&mut self, lease: &LeaseId, now: Now) -> Option<u64> {
        self.kept_here(lease).map(|kept| kept.deadline_ms.saturating_sub(now.ms))
    }

    /// Asks the nodes in contact that keep a lease how long it still lives; how many are asked. None if it is kept here.
    pub fn ask_left(&mut self, id: u64, lease: &LeaseId, effects: &mut Effects) -> usize {
        if self.kept_here(lease).is_some() {
            return 0;
        }
        let keepers = self.map.vouches.of(lease).iter().map(|vouch| vouch.id.run.node);
        let keepers = keepers.filter(|node| self.contact(*node).is_some_and(|contact| contact != Contact::Down));
        let keepers = keepers.collect::<BTreeSet<_>>();
        for node in &keepers {
            self.post_by_any_way(*node, Message::AskLeft { id, lease: lease.clone() }, effects);
        }
        keepers.len()
    }

    /// The leases that live at this node's view.
    pub(super) fn leases(&self, page: &Page) -> Answer {
        use std::ops::Bound::{Excluded, Unbounded};
        let after = page.after.as_ref().and_then(|after| after.parse::<LeaseId>().ok());
        let start = after.as_ref().map_or(Unbounded, Excluded);
        let vouches = &self.map.vouches;
        let live = vouches
            .leases()
            .range::<LeaseId, _>((start, Unbounded))
            .map(|(lease, _)| lease)
            .filter(|lease| lease.as_str().starts_with(&page.prefix) && vouches.lives(lease) == Some(true));
        let infos = live.filter_map(|lease| self.terms(lease)).map(|terms| info(&terms));
        let (leases, more) = view::take(infos, page.limit);
        let next = leases.last().filter(|_| more).map(|last| last.lease.to_string());
        Answer::Leases { leases, next }
    }
}

/// The id of the lease that this operation makes.
fn lease_id(id: OpId) -> LeaseId {
    id.to_string().parse().expect("an operation's id is visible ASCII")
}

/// Whether this caller may keep the lease alive and end it.
pub(super) fn may_act(by: Option<&CredentialName>, terms: &Vouch) -> bool {
    by.is_none() || by == terms.credential.as_ref()
}

fn info(terms: &Vouch) -> LeaseInfo {
    LeaseInfo { lease: terms.lease.clone(), ttl_ms: terms.ttl_ms, credential: terms.credential.clone() }
}
