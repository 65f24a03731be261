//! Whom this node counts (protocol A1, A5): contact with each peer, and what each has confirmed.

use std::collections::BTreeSet;

use rand::RngExt;

use crate::model::ident::NodeId;

use super::context::{Context, Run};
use super::core::{Core, Effect, Effects, Now};
use super::message::{BATCH_BYTES_MAX, Message};

/// A backlog longer than this, in operations, is left to the peer to pull: it does so anyway when contact returns.
const RESUME_MAX: u64 = 1_000;

/// A pull without a sign of life for this long is given up, and the next one begins. Doubled each time, for slow networks.
const PULL_PATIENCE_MS: u64 = 500;
const PULL_PATIENCE_MS_MAX: u64 = 4_000;

/// Nodes that are asked at once to pass something on.
const HELPERS_MAX: usize = 3;

/// Where a node stands with a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contact {
    Down,
    /// Heard again, but this node has not caught up yet with what the peer announced after that.
    Returning,
    Reachable,
}

/// What is known of another node.
#[derive(Clone, Debug)]
pub struct Peer {
    /// False: only its operations are known, by way of others.
    pub configured: bool,
    pub contact: Contact,
    /// When it went out of reach; for one never heard of, when this process learnt of it.
    pub down_since_ms: u64,
    /// When contact returned.
    pub returned_ms: u64,
    /// What it has confirmed.
    pub covers: Context,
    /// The process that answers there now.
    pub run: Option<u64>,
    /// The last number of this node's run that was pushed to it. None: no connection.
    pushed: Option<u64>,
    /// Whether this process has asked it for its state, or knows that it cannot.
    pub(super) asked: bool,
    /// How many pulls in a row it has left without an answer.
    unanswered: u32,
    /// The node that passes messages on to it, if it is alive and yet does not get through.
    via: Option<NodeId>,
}

impl Peer {
    pub fn configured(now_ms: u64) -> Self {
        Self {
            configured: true,
            contact: Contact::Down,
            down_since_ms: now_ms,
            returned_ms: now_ms,
            covers: Context::default(),
            run: None,
            pushed: None,
            asked: false,
            unanswered: 0,
            via: None,
        }
    }
}

impl Core {
    /// Membership hears the peer, or hears of it through others.
    pub fn peer_up(&mut self, node: NodeId, now: Now, effects: &mut Effects) {
        let me = self.config.run;
        let (last, resume_max) = (self.map.context.get(me), self.resume_max());
        let peer = self.peers.entry(node).or_insert_with(|| Peer::configured(now.ms));
        peer.configured = true;
        if peer.contact == Contact::Down {
            peer.contact = Contact::Returning;
            peer.returned_ms = now.ms;
            peer.unanswered = 0;
            peer.via = None;
            peer.skip_backlog(me, last, resume_max);
        }
        self.want(node);
        self.start_pull(now, effects);
        effects.push(Effect::Pushable);
    }

    /// Membership has given the peer up.
    pub fn peer_down(&mut self, node: NodeId, now: Now, effects: &mut Effects) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if peer.contact == Contact::Reachable {
            peer.down_since_ms = now.ms;
        }
        peer.contact = Contact::Down;
        self.drop_pull(node);
        self.start_pull(now, effects);
        // Whoever is the lowest live node now withdraws what this one would have withdrawn.
        self.settle(true, now, effects);
        effects.push(Effect::Confirmed);
    }

    /// Makes these the members of the cluster, this node perhaps among them, and knows of those that were removed for good: nothing waits
    /// for them any more, though their operations stay.
    pub fn follow(&mut self, members: &BTreeSet<NodeId>, retired: &BTreeSet<NodeId>, now: Now, effects: &mut Effects) {
        self.config.retired.extend(retired);
        let me = self.node();
        for node in members.iter().filter(|node| **node != me) {
            self.peers.entry(*node).or_insert_with(|| Peer::configured(now.ms)).configured = true;
        }
        if members.contains(&me) {
            self.enter(now);
        }
        let gone = self.peers.iter().filter(|(node, peer)| peer.configured && !members.contains(node));
        for node in gone.map(|(node, _)| *node).collect::<Vec<_>>() {
            self.peer_down(node, now, effects);
            self.link_down(node);
            if let Some(peer) = self.peers.get_mut(&node) {
                peer.configured = false;
            }
        }
        self.serve_once_asked();
    }

    /// A connection for pushing to the peer stands; `run` is the process at its other end.
    pub fn link_up(&mut self, node: NodeId, run: u64) {
        let me = self.config.run;
        let (last, resume_max) = (self.map.context.get(me), self.resume_max());
        if let Some(peer) = self.peers.get_mut(&node) {
            if peer.run.replace(run).is_some_and(|former| former != run) {
                // What the process before it had confirmed is gone with it.
                peer.covers = Context::default();
            }
            peer.pushed = Some(peer.covers.get(me));
            peer.skip_backlog(me, last, resume_max);
        }
    }

    pub fn link_down(&mut self, node: NodeId) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.pushed = None;
        }
    }

    /// A connection to the peer could not be opened: there is no use in waiting for its state.
    pub fn unreachable(&mut self, node: NodeId) {
        self.asked(node);
    }

    /// The next push to the peer, if there is something to push and a way.
    pub fn next_push(&mut self, node: NodeId) -> Option<Message> {
        let me = self.config.run;
        let last = self.map.context.get(me);
        let peer = self.peers.get_mut(&node)?;
        let pushed = peer.pushed.filter(|pushed| *pushed < last && peer.contact != Contact::Down)?;
        let have = Context::from_iter([(me, last)]);
        let lacking = Context::from_iter([(me, pushed)]);
        match self.log.missing(&have, &lacking, BATCH_BYTES_MAX) {
            Some((operations, _)) => {
                peer.pushed = operations.last().map(|operation| operation.id().number);
                Some(Message::Push { operations })
            }
            // Kept no longer: the peer finds out that it lacks them, and pulls.
            None => {
                peer.pushed = Some(last);
                None
            }
        }
    }

    /// If the peer has been pushed something that it has not confirmed yet: the last number that it has confirmed.
    pub fn owes_confirmation(&self, node: NodeId) -> Option<u64> {
        let peer = self.peers.get(&node)?;
        let confirmed = peer.covers.get(self.config.run);
        peer.pushed.filter(|pushed| *pushed > confirmed).map(|_| confirmed)
    }

    /// The peer has not confirmed all that this process has done.
    pub fn is_behind(&self, node: NodeId) -> bool {
        let me = self.config.run;
        self.peers.get(&node).is_some_and(|peer| peer.covers.get(me) < self.map.context.get(me))
    }

    /// A message on its way to the peer: straight, or by way of a node that both can reach.
    pub fn post(&self, to: NodeId, message: Message) -> Effect {
        match self.peers.get(&to).and_then(|peer| peer.via) {
            None => Effect::Send { to, message },
            Some(via) => {
                let message = Message::Relay { from: self.node(), to, message: Box::new(message) };
                Effect::Send { to: via, message }
            }
        }
    }

    /// A message of this node came straight, or was passed on: answers go the same way.
    pub(super) fn came_by(&mut self, node: NodeId, via: Option<NodeId>) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.via = via;
        }
    }

    /// Alive, says membership, and yet there is no answer: it may be heard by way of others only.
    pub(super) fn no_answer(&mut self, node: NodeId) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.unanswered += 1;
            peer.via = None;
        }
    }

    /// As [`post`](Self::post); to a peer that has left one unanswered, by every way.
    pub(super) fn post_by_any_way(&mut self, to: NodeId, message: Message, effects: &mut Effects) {
        match self.peers.get(&to).is_some_and(|peer| peer.unanswered > 0) {
            true => self.post_by_every_way(to, message, effects),
            false => effects.push(self.post(to, message)),
        }
    }

    /// Posts by several ways at once. The answer shows which is open.
    pub(super) fn post_by_every_way(&mut self, to: NodeId, message: Message, effects: &mut Effects) {
        let straight =
            |(node, peer): &(&NodeId, &Peer)| **node != to && peer.contact == Contact::Reachable && peer.via.is_none();
        let mut helpers = self.peers.iter().filter(straight).map(|(node, _)| *node).collect::<Vec<_>>();
        while helpers.len() > HELPERS_MAX {
            helpers.swap_remove(self.rng.random_range(0..helpers.len()));
        }
        for via in helpers {
            let message = Message::Relay { from: self.node(), to, message: Box::new(message.clone()) };
            effects.push(Effect::Send { to: via, message });
        }
        effects.push(self.post(to, message));
    }

    pub(super) fn answered(&mut self, node: NodeId) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.unanswered = 0;
        }
    }

    pub(super) fn patience_ms(&self, node: NodeId) -> u64 {
        let unanswered = self.peers.get(&node).map_or(0, |peer| peer.unanswered);
        (PULL_PATIENCE_MS << unanswered.min(3)).min(PULL_PATIENCE_MS_MAX)
    }

    /// What the peer has confirmed.
    pub(super) fn confirm(&mut self, node: NodeId, context: &Context, effects: &mut Effects) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.covers.merge(context);
            effects.push(Effect::Confirmed);
        }
    }

    /// How many nodes, this one included, are known to have all of these operations; and how many may come to have them soon.
    pub fn holders(&self, operations: &Context) -> (usize, usize) {
        let holds = |peer: &Peer| peer.covers.covers_all(operations);
        let holding = self.peers.values().filter(|peer| holds(peer)).count();
        let hoped = self.peers.values().filter(|peer| holds(peer) || peer.contact != Contact::Down).count();
        (1 + holding, 1 + hoped)
    }

    pub fn contact(&self, node: NodeId) -> Option<Contact> {
        self.peers.get(&node).map(|peer| peer.contact)
    }

    /// The peers that membership has not given up.
    pub fn live_peers(&self) -> Vec<NodeId> {
        self.peers.iter().filter(|(_, peer)| peer.contact != Contact::Down).map(|(node, _)| *node).collect()
    }

    /// Whether the node is this one, or reachable and caught up with: only for a winner at such a node is a rival withdrawn.
    pub(super) fn is_reachable(&self, node: NodeId) -> bool {
        node == self.node() || self.contact(node) == Some(Contact::Reachable)
    }

    /// Every member is reachable and caught up with.
    pub(super) fn all_in_reach(&self) -> bool {
        self.peers.values().all(|peer| !peer.configured || peer.contact == Contact::Reachable)
    }

    pub(super) fn is_away(&self, node: NodeId) -> bool {
        node != self.node() && self.contact(node).is_none_or(|contact| contact == Contact::Down)
    }

    /// A peer is in contact again, and what it announced is not here yet.
    pub(super) fn is_catching_up(&self) -> bool {
        self.peers.values().any(|peer| peer.contact == Contact::Returning)
    }

    pub(super) fn is_lowest_live(&self) -> bool {
        self.live_peers().first().is_none_or(|lowest| self.node() < *lowest)
    }

    /// This node's context covers what the peer announced after contact returned.
    pub(super) fn caught_up(&mut self, node: NodeId, now: Now, effects: &mut Effects) {
        self.asked(node);
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if peer.contact == Contact::Returning {
            peer.contact = Contact::Reachable;
            self.map.grants.set_hidden(node, false);
            self.listen(now, effects);
            self.settle(true, now, effects);
            effects.push(Effect::Advanced);
        }
    }

    fn asked(&mut self, node: NodeId) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.asked = true;
        }
        self.serve_once_asked();
    }

    /// Whether the node was removed from the cluster for good: nothing new comes of it.
    pub(super) fn is_retired(&self, node: NodeId) -> bool {
        self.config.retired.contains(&node)
    }

    /// This process stood still for longer than the others wait: they may have given it up without its knowing, and gone on.
    pub(super) fn distrust_all(&mut self, now: Now) {
        for peer in self.peers.values_mut().filter(|peer| peer.contact == Contact::Reachable) {
            peer.contact = Contact::Returning;
            peer.down_since_ms = now.ms;
            peer.returned_ms = now.ms;
        }
    }

    /// A node whose operations are known is a home, whether or not it was ever heard of otherwise.
    pub(super) fn note_home(&mut self, node: NodeId, now: Now) {
        if node != self.node() && !self.peers.contains_key(&node) {
            self.peers.insert(node, Peer { configured: false, ..Peer::configured(now.ms) });
        }
    }

    /// Grants count while their home is in reach, and then for `down_after`.
    pub(super) fn hide_the_silent(&mut self, now: Now, effects: &mut Effects) {
        let down_after_ms = self.config.down_after_ms;
        let silent = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.contact != Contact::Reachable && now.ms >= peer.down_since_ms + down_after_ms)
            .map(|(node, _)| *node)
            .filter(|node| !self.map.grants.lens.hidden.contains(node))
            .collect::<Vec<_>>();
        if silent.is_empty() {
            return;
        }
        for node in silent {
            self.map.grants.set_hidden(node, true);
        }
        self.settle(true, now, effects);
        effects.push(Effect::Advanced);
    }
}

impl Core {
    /// How long a backlog is pushed when contact returns. The flaw is of state transfer: there it is always that.
    fn resume_max(&self) -> u64 {
        if self.config.flaws.transfer_without_context { 0 } else { RESUME_MAX }
    }
}

impl Peer {
    /// After a long time apart the peer pulls what it lacks: pushing it too would send everything twice.
    fn skip_backlog(&mut self, me: Run, last: u64, resume_max: u64) {
        if let Some(pushed) = self.pushed
            && last - pushed.min(last) > resume_max
        {
            self.pushed = Some(last);
        } else if let Some(pushed) = &mut self.pushed {
            *pushed = (*pushed).max(self.covers.get(me)).min(last);
        }
    }
}
