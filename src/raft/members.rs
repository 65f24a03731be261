//! Changes of the cluster while it runs: nodes added, promoted and removed, and the lead handed over.
//!
//! A change goes to the leader as commands do. The leader decides on what it has applied behind a barrier that began after the request
//! came, and proposes on the condition that this very membership still is the last one: two changes at once, even under two leaders,
//! never build on each other's past. A change that was cut short between its two steps is brought to its end by the next leader.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::{BasicNode, ChangeMembers, Precondition};
use tokio::time::{Instant, timeout_at};

use super::calls::another_question;
use super::forward::{Ask, Told};
use super::leadership::Target;
use super::reads::Proof;
use super::registry::RaftRegistry;
use super::roster::Roster;
use super::types::{LogId, TypeConfig};
use crate::cluster::{Change, ChangeRefusal, Changed, Role};
use crate::model::ident::NodeId;
use crate::registry::{CommandCall, CommandFailure, Consistency, QueryCall, Reason};

/// A learner that lacks more entries of the log than this is not given a vote, nor such a voter the lead: a majority that needed it
/// would wait for it.
pub const LAG_MAX: u64 = 1_000;
/// How often it is looked whether the lead has been handed over, or a change has settled.
const MOMENT: Duration = Duration::from_millis(20);

type Decision = Result<Changed, ChangeRefusal>;
type Changes = ChangeMembers<NodeId, BasicNode>;

/// What became of a change at a node that seemed to lead.
enum Made {
    Decided(Decision),
    /// Nothing was done: another node leads, or none.
    NotLeader,
    Failed(CommandFailure),
}

/// What is to be done about a change.
enum Plan {
    Answer(Decision),
    Propose(Changes, Changed),
    HandOver(NodeId),
}

impl RaftRegistry {
    /// Makes a change, here or at the leader.
    pub async fn change(&self, change: Change, call: &CommandCall) -> Result<Decision, CommandFailure> {
        match self.at_leader(Ask::Change { change }, call).await? {
            Told::Changed(decision) => Ok(decision),
            _ => Err(another_question()),
        }
    }

    /// Makes a change at this node, which should lead.
    pub(super) async fn make_change(&self, change: Change, deadline: Instant) -> Told {
        match self.make(change, deadline).await {
            Made::Decided(decision) => Told::Changed(decision),
            Made::NotLeader => Told::NotLeader,
            Made::Failed(CommandFailure::NotApplied(why)) => Told::Refused(why.into()),
            Made::Failed(CommandFailure::Unknown(why)) => Told::Unknown(why.into()),
        }
    }

    /// Makes a change at this node, which leads.
    async fn make(&self, change: Change, deadline: Instant) -> Made {
        use CommandFailure::{NotApplied, Unknown};
        let Ok(_turn) = timeout_at(deadline, self.change.lock()).await else {
            return Made::Decided(Err(ChangeRefusal::UnderWay));
        };
        // From the first proposal on, something may have happened.
        let mut proposed = false;
        let failed = |proposed: bool, why| Made::Failed(if proposed { Unknown(why) } else { NotApplied(why) });
        loop {
            let call = QueryCall { forward: false, ..QueryCall::new(deadline.into_std(), Consistency::Linearizable) };
            match self.catch_up(Proof::Majority, &call).await {
                Ok(()) => {}
                Err(Reason::NotLeader { .. }) if !proposed => return Made::NotLeader,
                Err(why) => return failed(proposed, why),
            }
            if self.leadership.target() != Target::Me {
                return if proposed { failed(proposed, Reason::NoLeader) } else { Made::NotLeader };
            }
            let roster = self.view.roster().borrow().clone();
            let (changes, then) = match plan(&change, &roster, self) {
                // What the last leader had begun comes to its end first.
                _ if roster.is_joint() => (to_uniform(), None),
                Plan::Answer(decision) => return Made::Decided(decision),
                Plan::HandOver(to) => return self.hand_over(to, &change, deadline).await,
                Plan::Propose(changes, then) => (changes, Some(then)),
            };
            match self.propose_change(changes, *roster.membership.log_id(), deadline).await {
                Step::Done => match then {
                    Some(changed) => return Made::Decided(Ok(changed)),
                    None => proposed = true,
                },
                Step::Again => {}
                Step::Perhaps => proposed = true,
                Step::Unknown(why) => return failed(true, why),
            }
            if Instant::now() + MOMENT >= deadline {
                return if proposed {
                    failed(true, Reason::Timeout)
                } else {
                    Made::Decided(Err(ChangeRefusal::UnderWay))
                };
            }
            tokio::time::sleep(MOMENT).await;
        }
    }

    /// Proposes changes to the membership of this log id, if that still is the last one. Once begun it goes on beyond the deadline: in
    /// the middle of its two steps there would be two majorities to ask for everything.
    async fn propose_change(&self, changes: Changes, basis: Option<LogId>, deadline: Instant) -> Step {
        let raft = self.raft.clone();
        let two_steps = !matches!(changes, ChangeMembers::AddNodes(_) | ChangeMembers::RemoveNodes(_));
        let only_if = Precondition::<TypeConfig>::LastMembershipLogId { last_membership_log_id: basis };
        let proposing = tokio::spawn(async move { raft.change_membership_if(changes, false, [only_if]).await });
        let Ok(Ok(result)) = timeout_at(deadline, proposing).await else { return Step::Unknown(Reason::Timeout) };
        let again = if two_steps { Step::Perhaps } else { Step::Again };
        match result {
            Ok(_) => Step::Done,
            Err(RaftError::APIError(error)) => match error {
                // Before the first step, or between the two: both look alike.
                ClientWriteError::ForwardToLeader(_) | ClientWriteError::PreconditionFailed(_) => again,
                ClientWriteError::ChangeMembershipError(
                    ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_),
                ) => again,
                ClientWriteError::ChangeMembershipError(error) => Step::Unknown(Reason::Internal(error.to_string())),
                ClientWriteError::LogEntryDiscarded(_) => Step::Unknown(Reason::NoLeader),
            },
            Err(RaftError::Fatal(error)) => Step::Unknown(Reason::Internal(error.to_string())),
        }
    }

    /// Has another node lead. For a removal of this very node that is only the first half: the other one makes it.
    async fn hand_over(&self, to: NodeId, change: &Change, deadline: Instant) -> Made {
        if let Err(error) = self.raft.trigger().transfer_leader(to).await {
            return Made::Failed(CommandFailure::NotApplied(Reason::Internal(error.to_string())));
        }
        loop {
            match self.leadership.target() {
                Target::Node(leader) if matches!(change, Change::Lead { .. }) && leader == to => {
                    return Made::Decided(Ok(Changed::Leads { node: leader }));
                }
                // Another one than wanted: it is asked next.
                Target::Node(_) => return Made::NotLeader,
                Target::Me | Target::Nobody => {}
            }
            if Instant::now() + MOMENT >= deadline {
                return Made::Failed(CommandFailure::Unknown(Reason::Timeout));
            }
            self.leadership.wait(deadline).await;
        }
    }

    /// Hands the lead to the voter that is best prepared, if this node leads and there is one; ends by the deadline.
    pub async fn resign(&self, deadline: Instant) {
        if self.leadership.target() != Target::Me {
            return;
        }
        let roster = self.view.roster().borrow().clone();
        if let Some(heir) = self.heir(&roster) {
            self.hand_over(heir, &Change::Lead { node: Some(heir) }, deadline).await;
        }
    }

    /// Brings a change to its end that a former leader has left in the middle. Runs until the node stops.
    pub async fn finish_changes(self: Arc<Self>) {
        let mut rosters = self.view.roster();
        loop {
            if rosters.wait_for(|roster| roster.is_joint()).await.is_err() {
                return;
            }
            // Whoever makes the change is nearly always about to finish it.
            tokio::time::sleep(self.timing.election_max).await;
            let roster = rosters.borrow().clone();
            if roster.is_joint()
                && self.leadership.target() == Target::Me
                && let Ok(_turn) = self.change.try_lock()
            {
                let deadline = Instant::now() + self.timing.election_max * 4;
                self.propose_change(to_uniform(), *roster.membership.log_id(), deadline).await;
            }
        }
    }

    /// Whether a node has been heard of lately.
    fn is_in_reach(&self, node: NodeId) -> bool {
        node == self.node || self.contacts.silence(node) < self.timing.election_max * 2
    }

    /// How many entries of the log a node lacks, as far as this leader knows.
    fn lag(&self, node: NodeId) -> u64 {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let next = |index: Option<u64>| index.map_or(0, |index| index + 1);
        let matched = metrics.replication.as_ref().and_then(|all| all.get(&node).cloned()).flatten();
        next(metrics.last_log_index).saturating_sub(next(matched.map(|matched| matched.index())))
    }

    fn is_prepared(&self, node: NodeId) -> bool {
        // Who was never heard of since this node began is not in reach because that was a moment ago.
        self.contacts.was_heard(node) && self.is_in_reach(node) && self.lag(node) <= LAG_MAX
    }

    /// The voter that would be the best leader after this one.
    fn heir(&self, roster: &Roster) -> Option<NodeId> {
        let others = roster.voters().into_iter().filter(|voter| *voter != self.node && self.is_prepared(*voter));
        others.min_by_key(|voter| self.lag(*voter))
    }
}

/// What became of one proposal.
enum Step {
    Done,
    /// Surely nothing: the membership is another one by now, or cannot be changed at this moment.
    Again,
    /// Nothing, or half of it: what has become of the membership tells.
    Perhaps,
    Unknown(Reason),
}

/// The second step of a change alone.
fn to_uniform() -> Changes {
    ChangeMembers::AddVoterIds(BTreeSet::new())
}

/// Decides on a change, as of this roster, which is as new as the request.
fn plan(change: &Change, roster: &Roster, leader: &RaftRegistry) -> Plan {
    let refuse = |refusal| Plan::Answer(Err(refusal));
    let member = |node: NodeId, peer: &str, role| Changed::Member { node, peer: peer.to_owned(), role, now: false };
    let named = match change {
        Change::Add { node, .. } | Change::Promote { node } | Change::Remove { node } => Some(*node),
        Change::Lead { node } => *node,
    };
    let address = match (named, change) {
        (Some(node), Change::Remove { .. }) if roster.retired.contains(&node) => {
            return Plan::Answer(Ok(Changed::Removed { node, now: false }));
        }
        (Some(node), _) if roster.retired.contains(&node) => return refuse(ChangeRefusal::Removed { node }),
        (Some(node), Change::Add { .. }) => roster.address(node),
        (Some(node), _) => match roster.address(node) {
            Some(address) => Some(address),
            None => return refuse(ChangeRefusal::Unknown { node }),
        },
        (None, _) => None,
    };
    let voters = roster.voters();
    match change {
        Change::Add { node, peer } => match address {
            Some(known) if known == peer => Plan::Answer(Ok(member(*node, peer, role(*node, roster, leader)))),
            Some(known) => refuse(ChangeRefusal::Exists { node: *node, peer: known.to_owned() }),
            None => match roster.members().into_iter().find(|(_, known)| known == peer) {
                Some((other, peer)) => refuse(ChangeRefusal::Exists { node: other, peer }),
                None => {
                    let changed = Changed::Member { node: *node, peer: peer.clone(), role: Role::Learner, now: true };
                    Plan::Propose(ChangeMembers::AddNodes([(*node, BasicNode::new(peer))].into()), changed)
                }
            },
        },
        Change::Promote { node } => {
            let peer = address.unwrap_or_default();
            if voters.contains(node) {
                return Plan::Answer(Ok(member(*node, peer, role(*node, roster, leader))));
            }
            if !leader.is_prepared(*node) {
                return refuse(ChangeRefusal::Behind { node: *node, entries: leader.lag(*node) });
            }
            if let Some(refusal) = at_risk(voters.iter().copied().chain([*node]), leader) {
                return refuse(refusal);
            }
            let changed = Changed::Member { node: *node, peer: peer.to_owned(), role: Role::Voter, now: true };
            Plan::Propose(ChangeMembers::AddVoterIds([*node].into()), changed)
        }
        Change::Remove { node } => {
            let changed = Changed::Removed { node: *node, now: true };
            if !voters.contains(node) {
                return Plan::Propose(ChangeMembers::RemoveNodes([*node].into()), changed);
            }
            if let Some(refusal) = at_risk(voters.iter().copied().filter(|voter| voter != node), leader) {
                return refuse(refusal);
            }
            if *node != leader.node {
                return Plan::Propose(ChangeMembers::RemoveVoters([*node].into()), changed);
            }
            match leader.heir(roster) {
                Some(heir) => Plan::HandOver(heir),
                None => refuse(ChangeRefusal::CannotLead { node: None }),
            }
        }
        Change::Lead { node: Some(node) } if *node == leader.node => Plan::Answer(Ok(Changed::Leads { node: *node })),
        Change::Lead { node: Some(node) } if voters.contains(node) && leader.is_prepared(*node) => {
            Plan::HandOver(*node)
        }
        Change::Lead { node: Some(node) } => refuse(ChangeRefusal::CannotLead { node: Some(*node) }),
        Change::Lead { node: None } => match leader.heir(roster) {
            Some(heir) => Plan::HandOver(heir),
            None => refuse(ChangeRefusal::CannotLead { node: None }),
        },
    }
}

fn role(node: NodeId, roster: &Roster, leader: &RaftRegistry) -> Role {
    match () {
        () if node == leader.node => Role::Leader,
        () if roster.voters().contains(&node) => Role::Voter,
        () => Role::Learner,
    }
}

/// Refuses voters of whom no majority is in reach: they could not even finish this change. A dead node can always be removed as long as
/// the others are a majority of what is left; a live one only if what is left can do without it.
fn at_risk(voters: impl Iterator<Item = NodeId>, leader: &RaftRegistry) -> Option<ChangeRefusal> {
    let voters = voters.collect::<Vec<_>>();
    let in_reach = voters.iter().filter(|voter| leader.is_in_reach(**voter)).count();
    (in_reach * 2 <= voters.len()).then_some(ChangeRefusal::QuorumAtRisk { voters: voters.len(), in_reach })
}
