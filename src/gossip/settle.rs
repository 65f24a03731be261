//! Withdrawing losers (protocol A4, A6): each once, by its home, for a winner that this node has caught up with.

use crate::model::entry::Holder;
use crate::model::ident::{ApToken, Name, Owner};
use crate::model::time::UnixMillis;

use super::context::OpId;
use super::core::{Core, Effect, Effects, LeaseFlaw, Now};
use super::operation::{Defeat, Grant, Operation, Reason};
use super::peers::Contact;

impl Core {
    /// Withdraws the losers that are this node's to withdraw: of the contested names that changed, or of all.
    ///
    /// The best-ranked grant that counts is never withdrawn.
    pub(super) fn settle(&mut self, all: bool, now: Now, effects: &mut Effects) {
        let names = self.map.grants.take_unsettled(all);
        if self.config.flaws.never_resolve {
            return;
        }
        let defeats = names.iter().flat_map(|name| self.defeats(name, now)).collect::<Vec<_>>();
        if defeats.is_empty() {
            return;
        }
        for defeat in defeats {
            let stamp = self.next_stamp(now);
            let loser = OpId::of(&defeat.loser.1);
            tracing::info!(name = %defeat.name, loser = %defeat.loser.0, winner = %defeat.winner.0, "a conflict is resolved");
            let reason = match self.config.flaws.forget_records {
                true => Reason::Given,
                false => Reason::Conflict(Box::new(defeat)),
            };
            self.commit(Operation::Remove { stamp, grants: vec![loser], reason });
        }
        self.map.grants.take_unsettled(false);
        effects.extend([Effect::Pushable, Effect::Advanced]);
    }

    fn defeats(&self, name: &Name, now: Now) -> Vec<Defeat> {
        let grants = &self.map.grants;
        let Some(slot) = grants.names().get(name) else { return Vec::new() };
        let Some(winner) = slot.shown(&grants.lens).map(|held| &held.grant) else { return Vec::new() };
        // A winner that this node only remembers may have been given up in the meantime.
        if !self.surely_counts(winner) {
            return Vec::new();
        }
        slot.all()
            .iter()
            .map(|held| &held.grant)
            .filter(|loser| {
                loser.holder != winner.holder && grants.lens.counts(loser) && self.is_mine_to_withdraw(loser)
            })
            .map(|loser| Defeat {
                name: name.clone(),
                loser: contender(loser),
                lease: loser.lease.clone(),
                winner: contender(winner),
                at: UnixMillis(now.wall_ms),
            })
            .collect()
    }

    fn is_mine_to_withdraw(&self, loser: &Grant) -> bool {
        let home = loser.id.run.node;
        // In its home's stead only while nobody is being caught up with: the operations of several runs arrive one after the other,
        // and the removal that let this grant in may still be on its way.
        home == self.node() || (self.is_away(home) && self.stands_in_for(loser) && !self.is_catching_up())
    }

    /// In the stead of a home that is away: who vouches for the lease; without any, the lowest live node.
    fn stands_in_for(&self, loser: &Grant) -> bool {
        let vouches = loser.lease.as_ref().map_or(&[][..], |lease| self.map.vouches.of(lease));
        let mut present = vouches.iter().map(|vouch| vouch.id.run).filter(|run| self.is_present(*run)).peekable();
        match present.peek() {
            Some(_) => present.any(|run| run == self.config.run),
            None => self.is_lowest_live(),
        }
    }

    /// Whether a grant counts by the word of a node that this one has caught up with, and is not only remembered.
    fn surely_counts(&self, grant: &Grant) -> bool {
        let home = grant.id.run.node;
        match &grant.lease {
            None => self.is_reachable(home),
            // Its home may have ended it: while that is being caught up with, nothing is sure.
            Some(lease) => {
                let hasty = self.config.flaws.leases == Some(LeaseFlaw::CountsOnContact);
                (hasty || self.contact(home) != Some(Contact::Returning))
                    && self.map.vouches.of(lease).iter().any(|vouch| self.is_present(vouch.id.run))
            }
        }
    }
}

fn contender(grant: &Grant) -> (Owner, ApToken) {
    let Holder::Owner(_, owner) = &grant.holder else { unreachable!("only names are contested") };
    (owner.clone(), grant.token())
}
