//! Anti-entropy, and catching up: what nodes ask each other for, and what they answer.
//!
//! Each second one random peer is sent one hash; vectors follow only on a difference. Whoever lacks something pulls it, from one
//! peer at a time, so that nothing comes twice: operations if the other has kept them, else its state.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use rand::RngExt;

use crate::model::ident::NodeId;

use super::ask;
use super::context::Context;
use super::core::{Core, Effect, Effects, Now};
use super::message::{self, BATCH_BYTES_MAX, Message, Page, Piece};
use super::operation::Operation;
use super::passing::Answered;
use super::peers::Contact;

/// How often one peer is asked whether it knows the same.
const COMPARE_PERIOD_MS: u64 = 1_000;
/// What is on its way by push has this long to arrive before it is pulled.
const GRACE_MS: u64 = 200;
/// A state takes this long to be put together, at most.
const PREPARING_PATIENCE_MS: u64 = 3_000;
/// A state of more pieces is not believed: 4 GiB.
const PIECES_MAX: u32 = 1_024;

/// What is under way between this node and its peers.
#[derive(Debug, Default)]
pub struct Exchange {
    pull: Option<Pull>,
    /// Peers to pull from next.
    wanted: VecDeque<NodeId>,
    /// Peers that said they have applied more; to be pulled from if that has not come by then.
    behind: BTreeMap<NodeId, (u64, Context)>,
    next_compare_ms: u64,
    last_id: u64,
}

#[derive(Debug)]
struct Pull {
    from: NodeId,
    id: u64,
    begun_ms: u64,
    patience_until_ms: u64,
    /// What the peer had applied when it first answered.
    announced: Option<Context>,
    pieces: Vec<Bytes>,
}

impl Exchange {
    fn pull_of(&mut self, from: NodeId, id: u64) -> Option<&mut Pull> {
        self.pull.as_mut().filter(|pull| pull.from == from && pull.id == id)
    }
}

impl Core {
    /// Takes one message in that came straight from a peer.
    pub fn handle(&mut self, from: NodeId, message: Message, now: Now, effects: &mut Effects) {
        let Message::Relay { from: origin, to, message } = message else {
            self.came_by(from, None);
            return self.take(from, message, now, effects);
        };
        // One hop, never two: what two nodes cannot pass on to each other is not worth a loop.
        if matches!(*message, Message::Relay { .. }) {
            return;
        }
        if to == self.node() {
            self.came_by(origin, Some(from));
            self.take(origin, *message, now, effects);
        } else if self.contact(to).is_some_and(|contact| contact != Contact::Down) {
            effects.push(Effect::Send { to, message: Message::Relay { from: origin, to, message } });
        }
    }

    fn take(&mut self, from: NodeId, message: Message, now: Now, effects: &mut Effects) {
        match message {
            Message::Relay { .. } => {}
            Message::Push { operations } => self.on_push(from, operations, now, effects),
            Message::Covered { context } => self.confirm(from, &context, effects),
            Message::Compare { hash } => {
                if hash == self.map.context.hash() {
                    let context = self.map.context.clone();
                    self.confirm(from, &context, effects);
                } else {
                    let context = self.map.context.clone();
                    effects.push(self.post(from, Message::Vector { context, answer: true }));
                }
            }
            Message::Vector { context, answer } => self.on_vector(from, context, answer, now, effects),
            Message::Pull { id, context } => self.on_pull(from, id, context, now, effects),
            Message::Operations(page) => self.on_operations(from, page, now, effects),
            Message::Preparing { id } => {
                if let Some(pull) = self.sync.pull_of(from, id) {
                    pull.patience_until_ms = now.ms + PREPARING_PATIENCE_MS;
                }
            }
            Message::Piece(piece) => self.on_piece(from, piece, now, effects),
            Message::Keep { calls } => self.on_keep(from, calls, now, effects),
            Message::Kept { calls } => {
                for Answered { id, words } in calls {
                    self.on_kept(id, words, effects);
                }
            }
            Message::PassOn { leases, adopt } => self.on_pass_on(from, (leases, adopt), now, effects),
            Message::PassedOn { leases } => self.on_passed_on(from, leases, now, effects),
            Message::Beats { beats } => self.on_beats(&beats, now),
            Message::AskLeft { id, lease } => {
                let left_ms = self.left_here(&lease, now);
                effects.push(self.post(from, Message::Left { id, left_ms }));
            }
            Message::Left { id, left_ms } => effects.push(Effect::Left { id, left_ms }),
            Message::Ask { id, query } => {
                let (state, upto) = ask::part(&self.map, &query);
                effects.push(self.post(from, Message::Told { id, state: Box::new(state), upto }));
            }
            Message::Told { id, state, upto } => {
                effects.push(Effect::Told { from, id, state, upto });
            }
        }
    }

    fn on_push(&mut self, from: NodeId, operations: Vec<Operation>, now: Now, effects: &mut Effects) {
        if let Some(run) = operations.last().map(|operation| operation.id().run).filter(|run| run.node == from) {
            self.heard_itself(run, now);
        }
        if self.take_in(operations, now) {
            self.listen(now, effects);
            self.settle(false, now, effects);
            effects.push(Effect::Advanced);
        }
        if !self.early.is_empty() {
            // What came before these is lost, or was never pushed to this node.
            self.want(from);
            self.start_pull(now, effects);
        }
        let context = self.map.context.clone();
        effects.push(self.post(from, Message::Covered { context }));
    }

    fn on_vector(&mut self, from: NodeId, context: Context, answer: bool, now: Now, effects: &mut Effects) {
        self.confirm(from, &context, effects);
        if answer && !context.covers_all(&self.map.context) {
            let context = self.map.context.clone();
            effects.push(self.post(from, Message::Vector { context, answer: false }));
        }
        if !self.map.context.covers_all(&context) {
            self.sync.behind.entry(from).or_insert((now.ms + GRACE_MS, context));
        }
    }

    fn on_pull(&mut self, from: NodeId, id: u64, receiver: Context, now: Now, effects: &mut Effects) {
        self.confirm(from, &receiver, effects);
        let missing = match self.config.flaws.transfer_without_context {
            true => None,
            false => self.log.missing(&self.map.context, &receiver, BATCH_BYTES_MAX),
        };
        let Some((operations, all)) = missing else {
            effects.push(self.post(from, Message::Preparing { id }));
            effects.push(Effect::SendState { to: from, id, receiver });
            return;
        };
        let context = self.map.context.clone();
        let page = Page { id, context, operations, more: !all, beats: self.beats(now), hlc: self.hlc.last() };
        effects.push(self.post(from, Message::Operations(page)));
    }

    /// The state for a peer with this context, in pieces. Only reads, for it may take a while.
    pub fn pieces_for(&self, id: u64, receiver: &Context, now: Now) -> impl FnOnce() -> Vec<Message> + use<> {
        let state = match self.config.flaws.transfer_without_context {
            true => self.map.state_for(&Context::default()),
            false => self.map.state_for(receiver),
        };
        let (beats, hlc) = (self.beats(now), self.hlc.last());
        // Encoding needs the core no more.
        move || message::pieces(id, &state, &beats, hlc)
    }

    fn on_operations(&mut self, from: NodeId, page: Page, now: Now, effects: &mut Effects) {
        let Page { id, context, operations, more, beats, hlc } = page;
        self.on_beats(&beats, now);
        self.hlc.observe(hlc);
        self.confirm(from, &context, effects);
        // Late answers of a pull that was given up are facts all the same.
        if self.take_in(operations, now) {
            self.listen(now, effects);
            self.settle(false, now, effects);
            effects.push(Effect::Advanced);
        }
        let patience_ms = self.patience_ms(from);
        // Each page has its own id: an answer that comes twice is not asked on from twice.
        let next_id = self.sync.last_id + 1;
        let Some(pull) = self.sync.pull_of(from, id) else { return };
        pull.announced.get_or_insert(context);
        if more {
            pull.patience_until_ms = now.ms + patience_ms;
            pull.id = next_id;
            self.sync.last_id = next_id;
            let context = self.map.context.clone();
            effects.push(self.post(from, Message::Pull { id: next_id, context }));
        } else {
            self.end_pull(now, effects);
        }
    }

    fn on_piece(&mut self, from: NodeId, piece: Piece, now: Now, effects: &mut Effects) {
        let Piece { id, number, of, bytes, beats, hlc } = piece;
        self.on_beats(&beats, now);
        self.hlc.observe(hlc);
        let patience_ms = self.patience_ms(from);
        let Some(pull) = self.sync.pull_of(from, id) else { return };
        // A piece was lost or came twice: the pull runs out of patience and is made again.
        if number as usize != pull.pieces.len() || of > PIECES_MAX {
            return;
        }
        pull.pieces.push(bytes);
        pull.patience_until_ms = now.ms + patience_ms;
        if pull.pieces.len() < of as usize {
            return;
        }
        let pieces = std::mem::take(&mut pull.pieces);
        let Some(state) = message::join(&pieces) else {
            tracing::warn!(peer = from, "a state that is not well formed was dropped");
            self.sync.pull = None;
            return;
        };
        let context = state.context.clone();
        pull.announced.get_or_insert(context.clone());
        for (run, _) in context.iter() {
            self.note_home(run.node, now);
        }
        self.tell_view();
        if self.config.flaws.transfer_without_context {
            self.map.merge_without_context(state);
        } else {
            self.map.merge(state);
        }
        self.tell_state();
        for (run, _) in context.iter() {
            self.take_in_early(run);
        }
        self.confirm(from, &context, effects);
        self.listen(now, effects);
        self.settle(false, now, effects);
        effects.push(Effect::Advanced);
        self.end_pull(now, effects);
    }

    /// The peer has sent all that it announced.
    fn end_pull(&mut self, now: Now, effects: &mut Effects) {
        let Some(pull) = self.sync.pull.take() else { return };
        self.answered(pull.from);
        let covered = pull.announced.is_some_and(|announced| self.map.context.covers_all(&announced));
        let since_return = self.peers.get(&pull.from).is_some_and(|peer| pull.begun_ms >= peer.returned_ms);
        if covered && since_return {
            self.caught_up(pull.from, now, effects);
        }
        self.start_pull(now, effects);
    }

    /// Notes that there is something to pull from the peer.
    pub(super) fn want(&mut self, node: NodeId) {
        let asked = self.sync.pull.as_ref().is_some_and(|pull| pull.from == node && pull.announced.is_none());
        if !asked && !self.sync.wanted.contains(&node) {
            self.sync.wanted.push_back(node);
        }
    }

    pub(super) fn drop_pull(&mut self, node: NodeId) {
        self.sync.wanted.retain(|wanted| *wanted != node);
        self.sync.behind.remove(&node);
        if self.sync.pull.as_ref().is_some_and(|pull| pull.from == node) {
            self.sync.pull = None;
        }
    }

    /// Begins the next pull, unless one is under way.
    pub(super) fn start_pull(&mut self, now: Now, effects: &mut Effects) {
        if self.sync.pull.is_some() {
            return;
        }
        let Some(from) = self.sync.wanted.pop_front() else { return };
        self.sync.last_id += 1;
        let id = self.sync.last_id;
        self.sync.pull = Some(Pull {
            from,
            id,
            begun_ms: now.ms,
            patience_until_ms: now.ms + self.patience_ms(from),
            announced: None,
            pieces: Vec::new(),
        });
        let context = self.map.context.clone();
        self.post_by_any_way(from, Message::Pull { id, context }, effects);
    }

    pub(super) fn sync_tick(&mut self, now: Now, effects: &mut Effects) {
        if let Some(pull) = self.sync.pull.take_if(|pull| now.ms >= pull.patience_until_ms) {
            self.no_answer(pull.from);
        }
        let due =
            self.sync.behind.iter().filter(|(_, (due, _))| now.ms >= *due).map(|(node, _)| *node).collect::<Vec<_>>();
        for node in due {
            if let Some((_, context)) = self.sync.behind.remove(&node)
                && !self.map.context.covers_all(&context)
            {
                self.want(node);
            }
        }
        let returning = self.peers.iter().filter(|(_, peer)| peer.contact == Contact::Returning);
        for node in returning.map(|(node, _)| *node).collect::<Vec<_>>() {
            self.want(node);
        }
        self.start_pull(now, effects);
        if now.ms >= self.sync.next_compare_ms {
            self.sync.next_compare_ms = now.ms + COMPARE_PERIOD_MS;
            let live = self.live_peers();
            if !live.is_empty() {
                let to = live[self.rng.random_range(0..live.len())];
                let hash = self.map.context.hash();
                effects.push(self.post(to, Message::Compare { hash }));
            }
        }
    }
}
