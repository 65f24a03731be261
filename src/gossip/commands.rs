//! Commands: any node accepts any of them at once, and decides by what it knows.

use std::sync::Arc;

use crate::model::command::{Action, Condition};
use crate::model::entry::{Entry, Holder};
use crate::model::ident::{ApToken, LeaseId, Meta, Name, Owner, Revision, Token};
use crate::model::outcome::{Ended, Hidden, Outcome, Refusal};
use crate::model::time::UnixMillis;

use super::context::OpId;
use super::core::{Core, Effect, Effects, Now};
use super::grants::Slot;
use super::operation::{Grant, Lineage, MetaChange, Operation, Reason};
use super::peers::Contact;
use super::rank::Rank;
use super::view::{self, Shown};

/// What became of a command, and which operation a node has to have for knowing it too.
#[derive(Clone, Debug, PartialEq)]
pub struct Executed {
    pub outcome: Outcome,
    pub operation: Option<OpId>,
}

/// Boxed, for entries are large and refusals rare.
type Refused = Box<Refusal>;

impl From<Refused> for Executed {
    fn from(refusal: Refused) -> Self {
        Self::from(*refusal)
    }
}

impl From<Refusal> for Executed {
    fn from(refusal: Refusal) -> Self {
        Self { outcome: Outcome::Refused(refusal), operation: None }
    }
}

/// What stands under a name, as far as the checks of a registration need it.
struct Standing {
    entry: Entry,
    /// The grant that this owner holds with this lease.
    callers: Option<OpId>,
    token_fits: bool,
    token_superseded: bool,
    /// The grants that count, with the holder's hidden ones.
    grants: Vec<OpId>,
}

impl Core {
    /// Carries a command out here and now. The order of the checks is the contract's (protocol C6).
    pub fn execute(&mut self, action: &Action, now: Now, effects: &mut Effects) -> Executed {
        let before = self.map.context.get(self.config.run);
        let executed = match action {
            Action::Register { name, owner, meta, lease, condition } => {
                self.register(name, owner, meta, lease.as_ref(), condition, now).unwrap_or_else(Executed::from)
            }
            Action::Unregister { name, token } => {
                let nobody = self.map.grants.names().get(name).and_then(|slot| slot.all().first());
                match nobody.map(|held| held.grant.holder.clone()) {
                    Some(key) => self.end(&key, token.as_ref(), now),
                    None => self.end_nothing(token.as_ref(), now),
                }
            }
            Action::CreateLease { lease, ttl_ms, credential } => {
                self.create_lease(lease.as_ref(), *ttl_ms, credential.as_ref(), now)
            }
            Action::RevokeLease { lease, by } => self.revoke_lease(lease, by.as_ref(), now),
            Action::Join { group, member, meta, lease } => {
                let holder = Holder::Member(group.clone(), member.clone());
                self.join(holder, meta, lease.as_ref(), now).unwrap_or_else(Executed::from)
            }
            Action::Leave { group, member, token } => {
                let holder = Holder::Member(group.clone(), member.clone());
                match self.map.grants.slot(&holder) {
                    Some(_) => self.end(&holder, token.as_ref(), now),
                    None => self.end_nothing(token.as_ref(), now),
                }
            }
        };
        if self.map.context.get(self.config.run) > before {
            self.settle(false, now, effects);
            effects.extend([Effect::Pushable, Effect::Advanced]);
        }
        executed
    }

    /// Carries commands out one after the other, with nothing in between. Each has an outcome of its own.
    pub fn execute_all(&mut self, actions: &[Action], now: Now, effects: &mut Effects) -> Vec<Executed> {
        let mut all = Effects::new();
        let executed = actions.iter().map(|action| self.execute(action, now, &mut all)).collect();
        // Whoever pushes or waits needs to be told once, not once for each.
        for effect in all {
            let is_notice = matches!(effect, Effect::Pushable | Effect::Advanced);
            if !is_notice || !effects.contains(&effect) {
                effects.push(effect);
            }
        }
        executed
    }

    fn register(
        &mut self,
        name: &Name,
        owner: &Owner,
        meta: &Meta,
        lease: Option<&LeaseId>,
        condition: &Condition,
        now: Now,
    ) -> Result<Executed, Refused> {
        self.lease_lives(lease)?;
        let holder = Holder::Owner(name.clone(), owner.clone());
        let standing = self.standing(&holder, lease, condition);
        if let (Condition::Absent, Some(standing)) = (condition, &standing) {
            return Err(Box::new(Refusal::NameExists { current: standing.entry.clone() }));
        }
        if let Some(standing) = &standing
            && let Some(callers) = standing.callers
            && *condition != Condition::Takeover
        {
            // A retry after an unknown outcome has to find its own grant before any condition is held against it.
            let entry = standing.entry.clone();
            match condition {
                Condition::Token(_) if !standing.token_fits && !standing.token_superseded => {
                    return Err(Box::new(Refusal::TokenStale { current: Some(entry) }));
                }
                Condition::Unchanged(revision) if *revision != entry.revision => {
                    return Err(Box::new(Refusal::RevisionStale { current: Some(entry) }));
                }
                _ => return Ok(self.keep(&holder, callers, meta, now)),
            }
        }
        let current = standing.as_ref().map(|standing| standing.entry.clone());
        match (condition, &standing) {
            (Condition::Token(_), Some(standing)) if standing.token_fits => {}
            (Condition::Token(_), _) => return Err(Box::new(Refusal::TokenStale { current })),
            (Condition::Unchanged(revision), Some(standing)) if *revision == standing.entry.revision => {}
            (Condition::Unchanged(_), _) | (Condition::Present, None) => {
                return Err(Box::new(Refusal::RevisionStale { current }));
            }
            (Condition::Free | Condition::Absent, Some(standing)) => {
                return Err(Box::new(Refusal::NameTaken { current: standing.entry.clone() }));
            }
            (Condition::Present, Some(_)) | (Condition::Takeover, _) | (_, None) => {}
        }
        let takes = match condition {
            // A takeover ends every grant of the name that this node knows, the hidden ones too.
            Condition::Takeover => self.all_of(&holder),
            _ => standing.map(|standing| standing.grants).unwrap_or_default(),
        };
        Ok(self.grant(holder, lease, meta, takes, now))
    }

    fn join(&mut self, holder: Holder, meta: &Meta, lease: Option<&LeaseId>, now: Now) -> Result<Executed, Refused> {
        self.lease_lives(lease)?;
        let siblings = self.shown(&holder).map(|shown| shown.siblings).unwrap_or_default();
        let callers = siblings.iter().find(|held| held.grant.lease.as_ref() == lease).map(|held| held.grant.id);
        // Joining anew with another lease moves the membership to that one.
        let takes = siblings.iter().map(|held| held.grant.id).collect();
        Ok(match callers {
            Some(callers) => self.keep(&holder, callers, meta, now),
            None => self.grant(holder, lease, meta, takes, now),
        })
    }

    /// Nothing is bound to a lease that does not live here.
    fn lease_lives(&self, lease: Option<&LeaseId>) -> Result<(), Refused> {
        match lease.and_then(|lease| self.lease_refusal(lease)) {
            None => Ok(()),
            Some(refusal) => Err(Box::new(refusal)),
        }
    }

    fn standing(&self, holder: &Holder, lease: Option<&LeaseId>, condition: &Condition) -> Option<Standing> {
        let slot = self.map.grants.slot(holder)?;
        let lens = &self.map.grants.lens;
        let shown = Shown::of(slot, lens)?;
        let token = match condition {
            Condition::Token(Token::Ap(token)) => Some(token),
            _ => None,
        };
        let mut callers = shown.siblings.iter().filter(|held| held.grant.holder == *holder);
        Some(Standing {
            entry: shown.entry(),
            callers: callers.find(|held| held.grant.lease.as_ref() == lease).map(|held| held.grant.id),
            token_fits: token.is_some_and(|token| shown.has(token)),
            token_superseded: token.is_some_and(|token| shown.superseded(token)),
            grants: slot
                .all()
                .iter()
                .filter(|held| lens.counts(&held.grant) || held.grant.holder == shown.best.grant.holder)
                .map(|held| held.grant.id)
                .collect(),
        })
    }

    /// The holder has it already, by this grant: only the meta may change.
    fn keep(&mut self, holder: &Holder, callers: OpId, meta: &Meta, now: Now) -> Executed {
        let mut operation = self.shown(holder).expect("it stands").changed().id;
        if self.shown(holder).expect("it stands").entry().meta != *meta {
            let stamp = self.next_stamp(now);
            operation = stamp.id;
            let change = MetaChange { stamp, meta: meta.clone() };
            self.commit(Operation::Meta { grant: callers, change });
        }
        let mut entry = self.shown(holder).expect("it stands").entry();
        // Of several grants of one holder each keeps the token that it was given.
        let grant = self.map.grants.get(callers).expect("it stands");
        (entry.token, entry.lease) = (Token::Ap(grant.token()), grant.lease.clone());
        (entry.node, entry.since) = (callers.run.node, grant.since);
        Executed { outcome: Outcome::Held { entry }, operation: Some(operation) }
    }

    fn grant(&mut self, holder: Holder, lease: Option<&LeaseId>, meta: &Meta, takes: Vec<OpId>, now: Now) -> Executed {
        let lens = &self.map.grants.lens;
        let slot = self.map.grants.slot(&holder);
        let hides = slot
            .and_then(|slot| slot.hidden(lens, &holder))
            .filter(|held| !takes.contains(&held.grant.id))
            .and_then(|held| match &held.grant.holder {
                Holder::Owner(_, owner) => Some(Hidden { owner: owner.clone(), token: Token::Ap(held.grant.token()) }),
                Holder::Member(..) => None,
            });
        let lineage = slot.and_then(|slot| self.lineage(slot, &takes));
        let stamp = self.next_stamp(now);
        let grant = Grant {
            id: stamp.id,
            hlc: stamp.hlc,
            lineage,
            holder: holder.clone(),
            lease: lease.cloned(),
            meta: meta.clone(),
            since: UnixMillis(now.wall_ms),
            takes,
        };
        self.commit(Operation::Add(Arc::new(grant)));
        let held = self.map.grants.held(stamp.id).expect("it was just granted");
        let entry = Entry {
            holder,
            meta: meta.clone(),
            lease: lease.cloned(),
            token: Token::Ap(held.grant.token()),
            revision: view::revision(held.changed()),
            node: self.node(),
            since: held.grant.since,
            hidden: false,
        };
        Executed { outcome: Outcome::Granted { entry, hides }, operation: Some(stamp.id) }
    }

    /// A grant that takes others over goes on with the line of the best of them, so that it is above each wherever they meet.
    fn lineage(&self, slot: &Slot, takes: &[OpId]) -> Option<Lineage> {
        let policy = self.config.policy;
        let taken = slot.all().iter().filter(|held| takes.contains(&held.grant.id));
        let victim = taken.min_by_key(|held| Rank::of(policy, &held.grant))?;
        let Lineage { root, takeovers } = victim.grant.lineage();
        Some(Lineage { root, takeovers: takeovers.saturating_add(1) })
    }

    /// Ends grants of this key: with a token, those of its holder; without, those of whoever is shown.
    fn end(&mut self, key: &Holder, token: Option<&Token>, now: Now) -> Executed {
        let holder = match token {
            None => match self.shown(key) {
                Some(shown) => shown.best.grant.holder.clone(),
                None => return Refusal::NotFound.into(),
            },
            Some(Token::Ap(token)) => match self.map.grants.get(OpId::of(token)) {
                Some(grant) if same_key(&grant.holder, key) && grant.token() == *token => grant.holder.clone(),
                Some(_) => return self.token_stale(key),
                None => return self.end_ended(Some(key), token, now),
            },
            Some(Token::Cp(_)) => return self.token_stale(key),
        };
        // The same holder's grants stand side by side: any of their tokens ends all that this node knows.
        let grants = self.of_holder(&holder);
        self.remove(grants, now)
    }

    fn end_nothing(&mut self, token: Option<&Token>, now: Now) -> Executed {
        match token {
            None => Refusal::NotFound.into(),
            Some(Token::Ap(token)) => self.end_ended(None, token, now),
            Some(Token::Cp(_)) => Refusal::TokenStale { current: None }.into(),
        }
    }

    /// Ends a grant that does not stand here: it has ended before, or its Add has not come here yet.
    fn end_ended(&mut self, key: Option<&Holder>, token: &ApToken, now: Now) -> Executed {
        let id = OpId::of(token);
        if self.map.context.covers(id) {
            return if id.number > 0 && self.map.grants.get(id).is_none() {
                Executed { outcome: Outcome::Ended(Ended::Before), operation: None }
            } else {
                key.map_or(Refusal::TokenStale { current: None }.into(), |key| self.token_stale(key))
            };
        }
        if self.may_be_on_its_way(id) {
            return self.remove(vec![id], now);
        }
        key.map_or(Refusal::TokenStale { current: None }.into(), |key| self.token_stale(key))
    }

    /// Whether a grant with this id, unseen here, can have been made: by a process of a peer that this node does not know all of.
    fn may_be_on_its_way(&self, id: OpId) -> bool {
        let Some(peer) = self.peers.get(&id.run.node) else { return false };
        let known_run = peer.run == Some(id.run.bits) || self.map.context.get(id.run) > 0;
        id.number > 0 && (known_run || peer.contact != Contact::Reachable)
    }

    fn remove(&mut self, grants: Vec<OpId>, now: Now) -> Executed {
        let stamp = self.next_stamp(now);
        self.commit(Operation::Remove { stamp, grants, reason: Reason::Given });
        Executed { outcome: Outcome::Ended(Ended::Now), operation: Some(stamp.id) }
    }

    fn token_stale(&self, key: &Holder) -> Executed {
        Refusal::TokenStale { current: view::current(&self.map.grants, key) }.into()
    }

    fn shown(&self, holder: &Holder) -> Option<Shown<'_>> {
        Shown::of(self.map.grants.slot(holder)?, &self.map.grants.lens)
    }

    fn all_of(&self, key: &Holder) -> Vec<OpId> {
        let slot = self.map.grants.slot(key);
        slot.into_iter().flat_map(|slot| slot.all()).map(|held| held.grant.id).collect()
    }

    fn of_holder(&self, holder: &Holder) -> Vec<OpId> {
        let slot = self.map.grants.slot(holder);
        let all = slot.into_iter().flat_map(|slot| slot.all());
        all.filter(|held| held.grant.holder == *holder).map(|held| held.grant.id).collect()
    }
}

fn same_key(a: &Holder, b: &Holder) -> bool {
    match (a, b) {
        (Holder::Owner(a, _), Holder::Owner(b, _)) => a == b,
        (a, b) => a == b,
    }
}

/// Whether an `If-Match` or `min_revision` names an operation, rather than a context: entries' revisions do.
pub fn operation_of(revision: &Revision) -> Option<OpId> {
    match revision {
        Revision::Ap(text) => match Token::parse(crate::model::ident::Mode::Ap, text) {
            Ok(Token::Ap(token)) => Some(OpId::of(&token)),
            _ => None,
        },
        Revision::Cp(_) => None,
    }
}
