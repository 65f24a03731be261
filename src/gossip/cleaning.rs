//! Removing what was bound to leases that have ended (protocol A3).
//!
//! A grant whose lease nobody vouches for is hidden at once. It is removed only when every member has the Drops that took the last
//! vouches away, and this node has all that each of them did before it had them: then nobody can hold a vouch that is still on its way.
//!
//! A grant without a lease counts while its home does. One whose home was removed for good counts nowhere any more once that has been
//! out of reach for long enough, and is removed then: nothing waits for a node that does not return.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::ident::{LeaseId, NodeId};

use super::context::{Context, OpId};
use super::core::{Core, Effect, Effects, LeaseFlaw, Now};
use super::message::Message;
use super::operation::{Operation, Reason};

/// Grants that one operation removes, at most.
const REMOVE_LEN_MAX: usize = 10_000;
/// One round of asking who has what follows another after this long.
const ROUND_PERIOD_MS: u64 = 500;
/// How often the grants of homes that were removed for good are looked through.
const LOOK_PERIOD_MS: u64 = 1_000;

/// A round of making sure that leases have ended everywhere.
#[derive(Debug, Default)]
pub struct Cleaning {
    round: Option<Round>,
    next_round_ms: u64,
    next_look_ms: u64,
}

#[derive(Debug)]
struct Round {
    leases: BTreeSet<LeaseId>,
    /// What this node had applied when nobody vouched for them any more.
    mark: Context,
    /// What each member had applied when it first covered the mark.
    had: BTreeMap<NodeId, Context>,
}

impl Core {
    pub(super) fn clean(&mut self, now: Now, effects: &mut Effects) {
        if now.ms >= self.cleaning.next_look_ms {
            self.cleaning.next_look_ms = now.ms + LOOK_PERIOD_MS;
            self.clean_for_retired(now, effects);
        }
        if self.map.grants.orphaned().is_empty() {
            self.cleaning.round = None;
            return;
        }
        let Some(round) = &mut self.cleaning.round else {
            if now.ms >= self.cleaning.next_round_ms {
                let (leases, mark) = (self.map.grants.orphaned().clone(), self.map.context.clone());
                self.cleaning.round = Some(Round { leases, mark, had: BTreeMap::new() });
                self.ask_what_they_have(now, effects);
            }
            return;
        };
        let mut all = true;
        let hasty = self.config.flaws.leases == Some(LeaseFlaw::CleansAtOnce);
        for (node, peer) in self.peers.iter().filter(|(_, peer)| peer.configured) {
            if !round.had.contains_key(node) && peer.covers.covers_all(&round.mark) {
                round.had.insert(*node, peer.covers.clone());
            }
            all &= round.had.get(node).is_some_and(|had| self.map.context.covers_all(had));
        }
        if !all && !hasty {
            if now.ms >= self.cleaning.next_round_ms {
                self.ask_what_they_have(now, effects);
            }
            return;
        }
        let leases = self.cleaning.round.take().map(|round| round.leases).unwrap_or_default();
        self.cleaning.next_round_ms = now.ms + ROUND_PERIOD_MS;
        let still = leases.intersection(self.map.grants.orphaned());
        let grants = still.flat_map(|lease| self.map.grants.bound_to(lease)).map(|grant| grant.id);
        // By their home, or else by the lowest live node.
        let mine = grants.filter(|id| {
            let home = id.run.node;
            home == self.node() || (self.is_away(home) && self.is_lowest_live())
        });
        let mine = mine.collect::<Vec<_>>();
        self.remove_all(&mine, Reason::LeaseEnded, now, effects);
    }

    fn remove_all(&mut self, grants: &[OpId], reason: Reason, now: Now, effects: &mut Effects) {
        for grants in grants.chunks(REMOVE_LEN_MAX) {
            let stamp = self.next_stamp(now);
            self.commit(Operation::Remove { stamp, grants: grants.to_vec(), reason: reason.clone() });
        }
        if !grants.is_empty() {
            effects.extend([Effect::Pushable, Effect::Advanced]);
        }
    }

    /// Removes what is hidden here for good. Such grants may come later yet, from a member that was away: then it is done again.
    fn clean_for_retired(&mut self, now: Now, effects: &mut Effects) {
        let flawed = self.config.flaws.leases == Some(LeaseFlaw::KeepsRetired);
        if self.config.retired.is_empty() || flawed || !self.is_lowest_live() {
            return;
        }
        let grants = &self.map.grants;
        let hidden = |node: NodeId| self.is_retired(node) && grants.lens.hidden.contains(&node);
        let runs = grants.runs().iter().filter(|(run, _)| hidden(run.node));
        let gone = runs.flat_map(|(_, granted)| granted.values()).filter(|grant| grant.lease.is_none());
        let gone = gone.map(|grant| grant.id).collect::<Vec<_>>();
        self.remove_all(&gone, Reason::Given, now, effects);
    }

    /// A push of nothing is answered by what the peer has applied.
    fn ask_what_they_have(&mut self, now: Now, effects: &mut Effects) {
        self.cleaning.next_round_ms = now.ms + ROUND_PERIOD_MS;
        for peer in self.live_peers() {
            effects.push(self.post(peer, Message::Push { operations: Vec::new() }));
        }
    }
}
