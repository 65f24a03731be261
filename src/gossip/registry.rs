//! The registry that this node serves: every command at once, every question from what is known.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::model::command::Action;
use crate::model::entry::Holder;
use crate::model::ident::{Mode, Revision, Token};
use crate::model::lease::KeptAlive;
use crate::model::outcome::{Outcome, Refusal};
use crate::model::query::{Answer, Query};
use crate::registry::{
    CommandCall, CommandFailure, Consistency, KeepAlive, Provenance, QueryCall, QueryFailure, Reason, Registry, Reply,
    Watch, WatchFailure, Watching,
};

use super::ask::{self, Part};
use super::commands::{Executed, operation_of};
use super::context::{Context, OpId};
use super::core::Core;
use super::message::Message;
use super::shell::Shared;

/// An answer has this long to get out before its deadline.
pub(super) const MARGIN: Duration = Duration::from_millis(20);

/// The `ap` registry of one node.
pub struct GossipRegistry {
    pub(super) shared: Arc<Shared>,
}

#[async_trait]
impl Registry for GossipRegistry {
    fn mode(&self) -> Mode {
        Mode::Ap
    }

    async fn execute(&self, action: Action, call: &CommandCall) -> Result<Reply<Outcome>, CommandFailure> {
        self.await_lease(&action, call.deadline).await;
        let (executed, stamp, mut reply) = self.shared.with(|core, now, effects| {
            if !core.is_serving() {
                return Err(CommandFailure::NotApplied(Reason::Starting));
            }
            let Executed { outcome, operation } = core.execute(&action, now, effects);
            let reply = self.reply(core, outcome);
            Ok((operation, core.hlc(), reply))
        })?;
        self.shared.make_durable(stamp).await;
        reply.provenance.acks = self.acks(executed, call).await;
        Ok(reply)
    }

    fn may_have_told(&self, revision: &Revision) -> bool {
        operation_of(revision).is_some() || matches!(revision, Revision::Ap(text) if Context::parse(text).is_some())
    }

    async fn query(&self, query: Query, call: &QueryCall) -> Result<Reply<Answer>, QueryFailure> {
        if !self.shared.view().is_serving() {
            return Err(QueryFailure(Reason::Starting));
        }
        if let Some(revision) = &call.min_revision {
            self.wait_for(revision, call.deadline).await?;
        }
        match call.consistency {
            Consistency::Quorum(nodes) if nodes > 1 => self.ask_others(query, nodes - 1, call).await,
            // What is asked of the other mode is refused at the door; this node's answer is the closest there is here.
            Consistency::Quorum(_)
            | Consistency::Local
            | Consistency::Linearizable
            | Consistency::Leader
            | Consistency::Stale => {
                let left_ms = match &query {
                    Query::Lease { lease, .. } => self.left_elsewhere(lease, call.deadline).await,
                    _ => None,
                };
                let core = self.shared.view();
                let mut answer = core.query(&query, call.include_hidden, self.shared.now());
                if let (Answer::Lease(status), Some(left_ms)) = (&mut answer, left_ms) {
                    status.expires_in_ms = left_ms;
                }
                Ok(self.reply(&core, answer))
            }
        }
    }

    async fn batch(&self, actions: Vec<Action>, call: &CommandCall) -> Result<Reply<Vec<Outcome>>, CommandFailure> {
        let (operations, stamp, mut reply) = self.shared.with(|core, now, effects| {
            if !core.is_serving() {
                return Err(CommandFailure::NotApplied(Reason::Starting));
            }
            let executed = core.execute_all(&actions, now, effects);
            let operations = executed.iter().filter_map(|executed| executed.operation).collect::<Vec<_>>();
            let outcomes = executed.into_iter().map(|executed| executed.outcome).collect();
            Ok((operations, core.hlc(), self.reply(core, outcomes)))
        })?;
        self.shared.make_durable(stamp).await;
        reply.provenance.acks = self.acks(operations, call).await;
        Ok(reply)
    }

    async fn keep_alive(
        &self,
        keep: KeepAlive,
        call: &CommandCall,
    ) -> Result<Reply<Vec<Result<KeptAlive, Refusal>>>, CommandFailure> {
        self.keep(keep, call.deadline).await
    }

    async fn watch(&self, watch: Watch, deadline: Instant) -> Result<Box<dyn Watching>, WatchFailure> {
        Ok(Box::new(self.begin(watch, deadline).await?))
    }

    fn has_ended(&self, _: &Holder, token: Token) -> bool {
        let Token::Ap(token) = token else { return true };
        let id = OpId::of(&token);
        let core = self.shared.view();
        core.context().covers(id) && core.map().grants.get(id).is_none()
    }

    async fn ready(&self, _deadline: Instant) -> Result<(), Reason> {
        match self.shared.view().is_serving() {
            true => Ok(()),
            false => Err(Reason::Starting),
        }
    }
}

impl GossipRegistry {
    pub(super) fn reply<T>(&self, core: &Core, value: T) -> Reply<T> {
        let provenance: Provenance = core.provenance(self.shared.now());
        Reply { value, revision: core.context().revision(), provenance }
    }

    /// Waits until as many nodes as were asked for have these operations, or all that are in reach, or the deadline is near. How many
    /// have them, of how many; none if no more than this node was asked for.
    async fn acks(&self, operations: impl IntoIterator<Item = OpId>, call: &CommandCall) -> Option<(usize, usize)> {
        if call.acks <= 1 {
            return None;
        }
        let wanted: Context = operations.into_iter().map(|operation| (operation.run, operation.number)).collect();
        if wanted.is_empty() {
            // Nothing was done: nothing is to be confirmed.
            return Some((1, call.acks));
        }
        let enough = || {
            let (holding, hoped) = self.shared.view().holders(&wanted);
            (holding >= call.acks.min(hoped)).then_some(holding)
        };
        let holding = match until(&self.shared.confirmed, call.deadline, enough).await {
            Some(holding) => holding,
            None => self.shared.view().holders(&wanted).0,
        };
        Some((holding, call.acks))
    }

    /// Waits until this node has applied as much as the revision says: a context, or an entry's operation.
    async fn wait_for(&self, revision: &Revision, deadline: Instant) -> Result<(), QueryFailure> {
        let behind = || {
            let applied = self.shared.view().context().revision();
            QueryFailure(Reason::Behind { applied })
        };
        let applied: Box<dyn Fn(&Context) -> bool + Send + Sync> = match (operation_of(revision), revision) {
            (Some(operation), _) => Box::new(move |context| context.covers(operation)),
            (None, Revision::Ap(text)) => match Context::parse(text) {
                Some(wanted) => Box::new(move |context| context.covers_all(&wanted)),
                None => return Err(behind()),
            },
            (None, Revision::Cp(_)) => return Err(behind()),
        };
        let enough = || applied(self.shared.view().context()).then_some(());
        until(&self.shared.advanced, deadline, enough).await.ok_or_else(behind)
    }

    /// What this node and so many others know together.
    async fn ask_others(&self, query: Query, others: usize, call: &QueryCall) -> Result<Reply<Answer>, QueryFailure> {
        let deadline = call.deadline;
        let peers = self.shared.view().live_peers();
        if peers.len() < others {
            return Err(QueryFailure(Reason::NoQuorum));
        }
        let mut question = self.shared.questions.ask();
        for peer in peers {
            self.shared.send(peer, Message::Ask { id: question.id, query: query.clone() });
        }
        let mut parts: Vec<Part> = Vec::with_capacity(others + 1);
        let patience =
            tokio::time::Instant::from_std(deadline - MARGIN.min(deadline.saturating_duration_since(Instant::now())));
        while parts.len() < others {
            match question.answer(patience).await {
                Some(part) => parts.push(part),
                None => return Err(QueryFailure(Reason::NoQuorum)),
            }
        }
        let core = self.shared.view();
        parts.push(ask::part(core.map(), &query));
        let mut context = core.context().clone();
        for (state, _) in &parts {
            context.merge(&state.context);
        }
        let answer = ask::together(core.map(), &query, call.include_hidden, parts);
        let mut reply = self.reply(&core, answer);
        reply.revision = context.revision();
        Ok(reply)
    }
}

/// Asks again after each notice until there is an answer. None: the deadline is near.
pub(super) async fn until<T>(notice: &Notify, deadline: Instant, answer: impl Fn() -> Option<T>) -> Option<T> {
    let patience = deadline - MARGIN.min(deadline.saturating_duration_since(Instant::now()));
    loop {
        let notified = notice.notified();
        tokio::pin!(notified);
        // From here on no notice is missed.
        notified.as_mut().enable();
        if let Some(answer) = answer() {
            return Some(answer);
        }
        tokio::time::timeout_at(tokio::time::Instant::from_std(patience), notified).await.ok()?;
    }
}
