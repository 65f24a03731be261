//! The registry of `cp`: each call to where it can be answered, each failure to what is known of it (protocol C3).

use std::sync::Arc;
use std::time::{Duration, Instant as StdInstant};

use async_trait::async_trait;
use openraft::errors::{ClientWriteError, ForwardReason, RaftError};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::contact::Contacts;
use super::flaws::Speculation;
use super::forward::{Ask, Forwarder, Silence, Told};
use super::leadership::{Leadership, Target};
use super::log_store::LogStore;
use super::reads::{Proof, Reads};
use super::state_machine::{Published, View};
use super::types::{Applied, Proposal, Raft};
use super::{Flaws, Timing};
use crate::model::command::{Action, Command};
use crate::model::entry::Holder;
use crate::model::ident::{Mode, NodeId, Revision, Token};
use crate::model::lease::KeptAlive;
use crate::model::outcome::{Outcome, Refusal};
use crate::model::query::{Answer, Query};
use crate::model::step::Step;
use crate::model::time::UnixMillis;
use crate::net::clock::Clock;
use crate::registry::{
    CommandCall, CommandFailure, Consistency, KeepAlive, Provenance, QueryCall, QueryFailure, Reason, Registry, Reply,
    Watch, WatchFailure, Watching,
};

/// Commands under way at this node. More are refused as overload, before any work.
const COMMANDS_MAX: usize = 16 * 1024;
/// A command is passed on again once after another node has said that it does not lead.
const FORWARDS_MAX: u32 = 2;

/// One node's side of the `cp` registry.
pub struct RaftRegistry {
    pub(super) node: NodeId,
    pub(super) raft: Raft,
    pub(super) view: View,
    pub(super) log: LogStore,
    pub(super) leadership: Arc<Leadership>,
    pub(super) forwarder: Forwarder,
    pub(super) reads: Reads,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) commands: Semaphore,
    pub(super) flaws: Flaws,
    pub(super) speculation: Speculation,
    pub(super) contacts: Arc<Contacts>,
    pub(super) timing: Timing,
    /// Held while this node, leading, changes the cluster.
    pub(super) change: tokio::sync::Mutex<()>,
}

/// What became of a command proposed at this node.
enum Proposed {
    Done(Applied),
    /// Surely not in the log: another node leads, or none.
    NotLeader,
    /// Surely not in the log: this leader has not heard from a majority for too long.
    Cut,
    Unknown(Reason),
}

impl RaftRegistry {
    pub(super) fn commands() -> Semaphore {
        Semaphore::new(COMMANDS_MAX)
    }

    /// Whether this node has applied again what it may have shown before it was restarted.
    fn is_recovered(&self, state: &Published) -> bool {
        self.log.recovery().is_none_or(|index| state.next_index() > index)
    }

    async fn propose(&self, proposal: Proposal, deadline: Instant) -> Proposed {
        if self.flaws.ack_before_replication {
            return self
                .speculation
                .execute(&self.raft, &self.view, proposal)
                .await
                .map_or_else(|why| Proposed::Unknown(Reason::Internal(why)), Proposed::Done);
        }
        match timeout_at(deadline, self.raft.client_write(proposal)).await {
            Ok(Ok(response)) => match response.data {
                Some(applied) => Proposed::Done(applied),
                None => Proposed::Unknown(Reason::Internal("a command had no outcome".into())),
            },
            // openraft answers this before it appends; a test of ours pins that.
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward)))) => match forward.reason {
                ForwardReason::LeaseExpired => Proposed::Cut,
                ForwardReason::NotLeader | ForwardReason::LeadershipTransfer => Proposed::NotLeader,
            },
            Ok(Err(e)) => Proposed::Unknown(Reason::Internal(e.to_string())),
            Err(_) => Proposed::Unknown(Reason::Timeout),
        }
    }

    async fn carry_out(&self, proposal: Proposal, call: &CommandCall) -> Result<Applied, CommandFailure> {
        use CommandFailure::{NotApplied, Unknown};
        let deadline = Instant::from_std(call.deadline);
        let began = Instant::now();
        let patience = began + deadline.saturating_duration_since(began) / 2;
        let mut forwards = 0;
        loop {
            match self.leadership.target() {
                Target::Me => match self.propose(proposal.clone(), deadline).await {
                    Proposed::Done(applied) => return Ok(applied),
                    Proposed::Unknown(why) => return Err(Unknown(why)),
                    Proposed::NotLeader | Proposed::Cut => {}
                },
                Target::Node(leader) if !call.forward => {
                    return Err(NotApplied(Reason::NotLeader { leader: Some(leader) }));
                }
                Target::Node(leader) => {
                    let budget_ms = deadline.saturating_duration_since(Instant::now()).as_millis() as u64;
                    let ask = Ask::Command { proposal: proposal.bytes().clone(), budget_ms };
                    match self.forwarder.ask(leader, &ask, deadline).await {
                        Ok(Told::Applied(applied)) => return Ok(applied),
                        Ok(Told::Refused(why)) => return Err(NotApplied(why.into())),
                        Ok(Told::Unknown(why)) => return Err(Unknown(why.into())),
                        Ok(Told::Index(_) | Told::Changed(_)) => {
                            return Err(Unknown(Reason::Internal("the leader answered another question".into())));
                        }
                        Ok(Told::NotLeader) => {
                            forwards += 1;
                            if forwards == FORWARDS_MAX {
                                return Err(NotApplied(Reason::NoLeader));
                            }
                            // It, or we, will know better by the next heartbeat.
                            self.leadership.wait_a_heartbeat(patience).await;
                        }
                        Err(Silence::NotSent) => {}
                        Err(Silence::Overloaded) => return Err(NotApplied(Reason::Overloaded)),
                        Err(Silence::Lost) if Instant::now() < deadline => {
                            return Err(Unknown(Reason::Internal("the connection to the leader broke".into())));
                        }
                        Err(Silence::Lost) => return Err(Unknown(Reason::Timeout)),
                    }
                }
                Target::Nobody => {}
            }
            if !self.leadership.has_quorum() {
                return Err(NotApplied(Reason::NoQuorum));
            }
            if Instant::now() >= patience {
                return Err(NotApplied(Reason::NoLeader));
            }
            self.leadership.wait(patience).await;
        }
    }

    /// Carries out what a peer has passed on. It is not passed on a second time.
    pub(super) async fn answer_peer(&self, ask: Ask) -> Told {
        match ask {
            Ask::Command { proposal, budget_ms } => {
                let Ok(_permit) = self.commands.try_acquire() else { return Told::Refused(Reason::Overloaded.into()) };
                if self.leadership.target() != Target::Me {
                    return Told::NotLeader;
                }
                let deadline = Instant::now() + Duration::from_millis(budget_ms);
                match self.propose(Proposal::from_bytes(proposal), deadline).await {
                    Proposed::Done(applied) => Told::Applied(applied),
                    Proposed::NotLeader => Told::NotLeader,
                    // A lease that has run out a moment ago may be renewed in the next.
                    Proposed::Cut if self.leadership.has_quorum() => Told::NotLeader,
                    Proposed::Cut => Told::Refused(Reason::NoQuorum.into()),
                    Proposed::Unknown(why) => Told::Unknown(why.into()),
                }
            }
            Ask::Change { change, budget_ms } => {
                self.change_for_peer(change, Instant::now() + Duration::from_millis(budget_ms)).await
            }
            Ask::ReadIndex { by_lease, budget_ms } => {
                let proof = if by_lease { Proof::Lease } else { Proof::Majority };
                let deadline = Instant::now() + Duration::from_millis(budget_ms);
                match timeout_at(deadline, self.reads.index_for_peer(proof)).await {
                    Ok(Ok(index)) => Told::Index(index),
                    Ok(Err(Reason::NotLeader { .. })) => Told::NotLeader,
                    Ok(Err(why)) => Told::Refused(why.into()),
                    Err(_) => Told::Refused(Reason::Timeout.into()),
                }
            }
        }
    }

    /// Returns when this node's state is as new as the call, or why it is not by the deadline.
    pub(super) async fn catch_up(&self, proof: Proof, call: &QueryCall) -> Result<(), Reason> {
        let deadline = Instant::from_std(call.deadline);
        let began = Instant::now();
        let patience = began + deadline.saturating_duration_since(began) / 2;
        loop {
            if !call.forward
                && let Target::Node(leader) = self.leadership.target()
            {
                return Err(Reason::NotLeader { leader: Some(leader) });
            }
            let why = match timeout_at(deadline, self.reads.catch_up(proof)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(why)) => why,
                Err(_) => return Err(Reason::Timeout),
            };
            match why {
                Reason::NoLeader | Reason::NoQuorum | Reason::NotLeader { .. } | Reason::Timeout => {}
                Reason::Starting | Reason::Behind { .. } | Reason::Overloaded | Reason::Internal(_) => return Err(why),
            }
            if !self.leadership.has_quorum() {
                return Err(Reason::NoQuorum);
            }
            if Instant::now() >= patience {
                return Err(Reason::NoLeader);
            }
            self.leadership.wait(patience).await;
        }
    }

    /// Waits until this node has applied that much.
    async fn reach(&self, revision: &Revision, deadline: Instant) -> Result<(), Reason> {
        let Revision::Cp(wanted) = revision else {
            return Err(Reason::Internal("a revision of the other mode".into()));
        };
        match timeout_at(deadline, self.view.wait_for_revision(*wanted)).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Reason::Internal("the node is stopping".into())),
            Err(_) => Err(Reason::Behind { applied: Revision::Cp(self.view.now().table.revision()) }),
        }
    }
}

#[async_trait]
impl Registry for RaftRegistry {
    fn mode(&self) -> Mode {
        Mode::Cp
    }

    async fn execute(&self, action: Action, call: &CommandCall) -> Result<Reply<Outcome>, CommandFailure> {
        let Ok(_permit) = self.commands.try_acquire() else {
            return Err(CommandFailure::NotApplied(Reason::Overloaded));
        };
        let command = Command { action, node: self.node, at: UnixMillis(self.clock.wall_ms()) };
        let Some(proposal) = Proposal::encode(&Step::Command(command)) else {
            return Err(CommandFailure::NotApplied(Reason::Internal("the command is too long for the log".into())));
        };
        let applied = self.carry_out(proposal, call).await?;
        let revision = Revision::Cp(applied.revision);
        let Some(value) = applied.one() else {
            return Err(CommandFailure::Unknown(Reason::Internal("a command had no outcome".into())));
        };
        Ok(Reply { value, revision, provenance: Provenance::default() })
    }

    async fn query(&self, query: Query, call: &QueryCall) -> Result<Reply<Answer>, QueryFailure> {
        let mut provenance = Provenance::default();
        match call.consistency {
            Consistency::Linearizable if self.flaws.local_reads => {}
            Consistency::Linearizable => self.catch_up(Proof::Majority, call).await.map_err(QueryFailure)?,
            Consistency::Leader => self.catch_up(Proof::Lease, call).await.map_err(QueryFailure)?,
            Consistency::Stale => {
                if !self.is_recovered(&self.view.now()) {
                    return Err(QueryFailure(Reason::Starting));
                }
                // Asked before the state is taken: it may be newer than this says, never older.
                provenance.staleness_ms = Some(self.leadership.staleness().as_millis() as u64);
            }
            Consistency::Local | Consistency::Quorum(_) => {
                return Err(QueryFailure(Reason::Internal("a consistency of the other mode".into())));
            }
        }
        if let Some(revision) = &call.min_revision {
            self.reach(revision, Instant::from_std(call.deadline)).await.map_err(QueryFailure)?;
        }
        let state = self.view.now();
        let revision = Revision::Cp(state.table.revision());
        Ok(Reply { value: state.table.query(&query), revision, provenance })
    }

    async fn batch(&self, _actions: Vec<Action>, _call: &CommandCall) -> Result<Reply<Vec<Outcome>>, CommandFailure> {
        Err(CommandFailure::NotApplied(Reason::Internal("this version serves no batches".into())))
    }

    async fn keep_alive(
        &self,
        _keep: KeepAlive,
        _call: &CommandCall,
    ) -> Result<Reply<Vec<Result<KeptAlive, Refusal>>>, CommandFailure> {
        Err(CommandFailure::NotApplied(Reason::Internal("this version serves no leases".into())))
    }

    async fn watch(&self, _watch: Watch, _deadline: StdInstant) -> Result<Box<dyn Watching>, WatchFailure> {
        Err(WatchFailure::Failed(Reason::Internal("this version serves no watches".into())))
    }

    fn has_ended(&self, holder: &Holder, token: Token) -> bool {
        let Token::Cp(issued) = token else { return true };
        let state = self.view.now();
        let entry = match holder {
            Holder::Owner(name, _) => state.table.name(name),
            Holder::Member(group, member) => state.table.member(group, member),
        };
        issued <= state.table.revision() && entry.is_none_or(|entry| entry.token != token)
    }

    async fn ready(&self, deadline: StdInstant) -> Result<(), Reason> {
        let consistency = Consistency::Linearizable;
        self.catch_up(Proof::Majority, &QueryCall { deadline, consistency, forward: true, min_revision: None }).await
    }
}
