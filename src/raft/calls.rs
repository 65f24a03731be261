//! What only the leader can do: it is asked there, wherever it is; and each failure becomes what is known of it (protocol C3).

use openraft::errors::{ClientWriteError, ForwardReason, RaftError};
use tokio::time::{Instant, timeout_at};

use super::forward::{Ask, Silence, Told};
use super::gather::NoAnswer;
use super::leadership::Target;
use super::reads::Proof;
use super::registry::RaftRegistry;
use super::types::{Applied, Proposal};
use crate::model::ident::NodeId;
use crate::registry::{CommandCall, CommandFailure, Reason};

/// A call is passed on again once after another node has said that it does not lead.
const FORWARDS_MAX: u32 = 2;
/// A change of the cluster more often: a leader that is to be removed hands over first.
const CHANGE_FORWARDS_MAX: u32 = 5;

/// What became of a command proposed at this node.
enum Proposed {
    Done(Applied),
    /// Surely not in the log: another node leads, or none.
    NotLeader,
    /// Surely not in the log: this leader has not heard from a majority for too long.
    Cut,
    Unknown(Reason),
}

/// The leader answered another question than was asked. Never seen; nothing is known then.
pub fn another_question() -> CommandFailure {
    CommandFailure::Unknown(Reason::Internal("the leader answered another question".into()))
}

impl RaftRegistry {
    /// Has the leader do what is asked, or tells why it is not done. The answer is neither [`Told::NotLeader`], [`Told::Refused`] nor
    /// [`Told::Unknown`].
    pub(super) async fn at_leader(&self, ask: Ask, call: &CommandCall) -> Result<Told, CommandFailure> {
        use CommandFailure::{NotApplied, Unknown};
        let deadline = Instant::from_std(call.deadline);
        let began = Instant::now();
        let patience = began + deadline.saturating_duration_since(began) / 2;
        let forwards_max = if matches!(ask, Ask::Change { .. }) { CHANGE_FORWARDS_MAX } else { FORWARDS_MAX };
        let mut forwards = 0;
        loop {
            let told = match self.leadership.target() {
                Target::Me => Some(self.answer(&ask, deadline).await),
                Target::Node(leader) if !call.forward => {
                    return Err(NotApplied(Reason::NotLeader { leader: Some(leader) }));
                }
                Target::Node(leader) => match self.ask_leader(leader, &ask, deadline).await {
                    Ok(Told::NotLeader) => {
                        forwards += 1;
                        if forwards == forwards_max {
                            return Err(NotApplied(Reason::NoLeader));
                        }
                        // It, or we, will know better by the next heartbeat.
                        self.leadership.wait_a_heartbeat(patience).await;
                        None
                    }
                    Ok(told) => Some(told),
                    Err(Silence::NotSent) => None,
                    Err(Silence::Overloaded) => return Err(NotApplied(Reason::Overloaded)),
                    // The connection broke, or nothing came by the deadline.
                    Err(Silence::Lost) if Instant::now() < deadline => return Err(Unknown(Reason::NoLeader)),
                    Err(Silence::Lost) => return Err(Unknown(Reason::Timeout)),
                },
                Target::Nobody => None,
            };
            match told {
                Some(Told::Refused(why)) => return Err(NotApplied(why.into())),
                Some(Told::Unknown(why)) => return Err(Unknown(why.into())),
                Some(Told::NotLeader) | None => {}
                Some(told) => return Ok(told),
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

    /// Passes a call on. Keep-alives that come in shortly one after another go as one message.
    async fn ask_leader(&self, leader: NodeId, ask: &Ask, deadline: Instant) -> Result<Told, Silence> {
        let Ask::KeepAlive(callers) = ask else { return self.forwarder.ask(leader, ask, deadline).await };
        match timeout_at(deadline, self.passing_on.call((leader, callers.clone(), deadline))).await {
            Ok(Ok(told)) => told,
            Ok(Err(NoAnswer::Overloaded)) => Err(Silence::Overloaded),
            Ok(Err(NoAnswer::Stopped)) | Err(_) => Err(Silence::Lost),
        }
    }

    /// Carries a step out.
    pub(super) async fn carry_out(&self, proposal: Proposal, call: &CommandCall) -> Result<Applied, CommandFailure> {
        let Some(_room) = self.admit(&proposal) else { return Err(CommandFailure::NotApplied(Reason::Overloaded)) };
        match self.at_leader(Ask::Command { proposal: proposal.clone() }, call).await? {
            Told::Applied(applied) => Ok(applied),
            _ => Err(another_question()),
        }
    }

    /// Does at this node, which should lead, what is asked.
    async fn answer(&self, ask: &Ask, deadline: Instant) -> Told {
        if self.leadership.target() != Target::Me {
            return Told::NotLeader;
        }
        match ask {
            Ask::Command { proposal } => match self.propose(proposal.clone(), deadline).await {
                Proposed::Done(applied) => Told::Applied(applied),
                Proposed::NotLeader => Told::NotLeader,
                // A lease that has run out a moment ago may be renewed in the next.
                Proposed::Cut if self.leadership.has_quorum() => Told::NotLeader,
                Proposed::Cut => Told::Refused(Reason::NoQuorum.into()),
                Proposed::Unknown(why) => Told::Unknown(why.into()),
            },
            Ask::Change { change } => self.make_change(change.clone(), deadline).await,
            Ask::ReadIndex { by_lease } => {
                let proof = if *by_lease { Proof::Lease } else { Proof::Majority };
                match timeout_at(deadline, self.reads.leaders_index(proof)).await {
                    Ok(Ok(read)) => Told::Index(read.index),
                    Ok(Err(Reason::NotLeader { .. })) => Told::NotLeader,
                    Ok(Err(why)) => Told::Refused(why.into()),
                    Err(_) => Told::Refused(Reason::Timeout.into()),
                }
            }
            Ask::KeepAlive(callers) => {
                match timeout_at(deadline, self.keeping.call((callers.clone(), deadline))).await {
                    Ok(Ok(told)) => told,
                    Ok(Err(NoAnswer::Overloaded)) => Told::Refused(Reason::Overloaded.into()),
                    Ok(Err(NoAnswer::Stopped)) => Told::Unknown(Reason::Internal("the node is stopping".into()).into()),
                    Err(_) => Told::Unknown(Reason::Timeout.into()),
                }
            }
            Ask::Lease(lease) => match timeout_at(deadline, self.keeper.left(lease)).await {
                Ok(told) => told,
                Err(_) => Told::Refused(Reason::Timeout.into()),
            },
        }
    }

    /// Does what a peer has passed on. It is not passed on a second time.
    pub(super) async fn answer_peer(&self, ask: Ask, deadline: Instant) -> Told {
        let _permit = match &ask {
            // A leader's own notes are proposed under its leadership or not at all.
            Ask::Command { proposal } if !proposal.is_clients() => {
                return Told::Refused(Reason::Internal("that may not be passed on".into()).into());
            }
            Ask::Command { proposal } => match self.admit(proposal) {
                Some(room) => Some(room),
                None => return Told::Refused(Reason::Overloaded.into()),
            },
            Ask::KeepAlive(_) => match self.commands.try_acquire() {
                Ok(permit) => Some(permit),
                Err(_) => return Told::Refused(Reason::Overloaded.into()),
            },
            Ask::Change { .. } | Ask::ReadIndex { .. } | Ask::Lease(_) => None,
        };
        self.answer(&ask, deadline).await
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
            // Discarded by another leader, which may have it yet, or cut short by the end of this node: no answer will come, whatever
            // becomes of the command. That is no bug.
            Ok(Err(e)) => {
                tracing::debug!("a command was left without an outcome: {e}");
                Proposed::Unknown(Reason::Timeout)
            }
            Err(_) => Proposed::Unknown(Reason::Timeout),
        }
    }
}
