//! The registry of `cp`: each call to where it can be answered, each failure to what is known of it (protocol C3).

use std::sync::Arc;
use std::time::Instant as StdInstant;

use async_trait::async_trait;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use super::calls::another_question;
use super::contact::Contacts;
use super::flaws::{self, Speculation};
use super::forward::{Ask, Forwarder, Told};
use super::keep_alive::{Keeper, Keeping, PassingOn};
use super::leadership::{Leadership, Target};
use super::log_store::LogStore;
use super::reads::{Proof, Reads};
use super::state_machine::{Published, View};
use super::types::{Applied, Proposal, Raft};
use super::watch::Watches;
use super::{Flaws, Timing};
use crate::model::command::{Action, BATCH_LEN_MAX, Command};
use crate::model::entry::Holder;
use crate::model::ident::{LeaseId, Mode, NodeId, Revision, Token};
use crate::model::lease::KeptAlive;
use crate::model::outcome::{Outcome, Refusal};
use crate::model::query::{Answer, Query};
use crate::model::step::{Outcomes, Step};
use crate::model::time::UnixMillis;
use crate::net::clock::Clock;
use crate::registry::{
    CommandCall, CommandFailure, Consistency, KeepAlive, Provenance, QueryCall, QueryFailure, Reason, Registry, Reply,
    Watch, WatchFailure, Watching,
};

/// Commands under way at this node, a long one counted once for each begun [`COMMAND_UNIT`]. More are refused as overload, before
/// anything is done.
const COMMANDS_MAX: usize = 16 * 1024;
const COMMAND_UNIT: usize = 4 * 1024;

/// One node's side of the `cp` registry.
pub struct RaftRegistry {
    pub(super) node: NodeId,
    pub(super) raft: Raft,
    pub(super) view: View,
    pub(super) log: LogStore,
    pub(super) leadership: Arc<Leadership>,
    pub(super) forwarder: Forwarder,
    pub(super) reads: Arc<Reads>,
    /// What keeps leases alive while this node leads, its calls in rounds, and those for another leader.
    pub(super) keeper: Arc<Keeper>,
    pub(super) keeping: Keeping,
    pub(super) passing_on: PassingOn,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) commands: Semaphore,
    pub(super) flaws: Flaws,
    pub(super) speculation: Speculation,
    pub(super) watches: Watches,
    pub(super) contacts: Arc<Contacts>,
    pub(super) timing: Timing,
    /// Held while this node, leading, changes the cluster.
    pub(super) change: tokio::sync::Mutex<()>,
}

impl RaftRegistry {
    pub(super) fn commands() -> Semaphore {
        Semaphore::new(COMMANDS_MAX)
    }

    /// Room for this command, for as long as it is under way. None: there is too much already.
    pub(super) fn admit(&self, proposal: &Proposal) -> Option<SemaphorePermit<'_>> {
        self.commands.try_acquire_many(1 + (proposal.bytes().len() / COMMAND_UNIT) as u32).ok()
    }

    /// Whether this node has applied again what it may have shown before it was restarted.
    fn is_recovered(&self, state: &Published) -> bool {
        self.log.recovery().is_none_or(|index| state.next_index() > index)
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

    /// Decimal, as all that this mode numbers; by chance, so that two nodes do not choose the same one.
    fn new_lease_id(&self) -> LeaseId {
        rand::random::<u64>().to_string().parse().expect("digits make an id")
    }

    /// How much time a lease has left by the leader's clock, once this node's state is as new as that. None: it does not live.
    async fn lease_left(&self, lease: &LeaseId, call: &QueryCall) -> Result<Option<u64>, QueryFailure> {
        let asked = CommandCall { deadline: call.deadline, forward: call.forward, acks: 1 };
        match self.at_leader(Ask::Lease(lease.clone()), &asked).await {
            Ok(Told::Lease { index, left_ms }) => {
                match timeout_at(Instant::from_std(call.deadline), self.view.wait_for(index)).await {
                    Ok(true) => Ok(left_ms),
                    Ok(false) => Err(QueryFailure(Reason::Internal("the node is stopping".into()))),
                    Err(_) => Err(QueryFailure(Reason::Timeout)),
                }
            }
            Ok(_) => Err(QueryFailure(Reason::Internal("the leader answered another question".into()))),
            Err(CommandFailure::NotApplied(why) | CommandFailure::Unknown(why)) => Err(QueryFailure(why)),
        }
    }

    /// Waits until this node has applied that much; returns its number.
    pub(super) async fn reach(&self, revision: &Revision, deadline: Instant) -> Result<u64, Reason> {
        let Revision::Cp(wanted) = revision else {
            return Err(Reason::Internal("a revision of the other mode".into()));
        };
        match timeout_at(deadline, self.view.wait_for_revision(*wanted)).await {
            Ok(true) => Ok(*wanted),
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
        let action = match action {
            // Chosen here, before it is passed on: the table must find the same one on every node.
            Action::CreateLease { lease: None, ttl_ms, credential } => {
                Action::CreateLease { lease: Some(self.new_lease_id()), ttl_ms, credential }
            }
            action if self.flaws.no_fencing => flaws::unfenced(action),
            action => action,
        };
        let command = Command { action, node: self.node, at: UnixMillis(self.clock.wall_ms()) };
        let Some(proposal) = Proposal::encode(&Step::Command(command)) else {
            return Err(CommandFailure::NotApplied(Reason::Internal("the command is too long for the log".into())));
        };
        let applied = self.carry_out(proposal, call).await?;
        let revision = Revision::Cp(applied.revision);
        let Some(mut value) = applied.one() else {
            return Err(CommandFailure::Unknown(Reason::Internal("a command had no outcome".into())));
        };
        if self.flaws.no_fencing {
            flaws::with_one_token(&mut value);
        }
        Ok(Reply { value, revision, provenance: Provenance::default() })
    }

    async fn query(&self, query: Query, call: &QueryCall) -> Result<Reply<Answer>, QueryFailure> {
        let lease_left_ms = match &query {
            // The leader alone keeps the time.
            Query::Lease { lease, .. } if call.consistency != Consistency::Stale => {
                self.lease_left(lease, call).await?
            }
            _ => None,
        };
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
        let mut value = state.table.query(&query);
        flaws::spoil(self.flaws, &query, &mut value);
        if let (Answer::Lease(status), Some(left_ms)) = (&mut value, lease_left_ms) {
            status.expires_in_ms = left_ms;
        }
        Ok(Reply { value, revision, provenance })
    }

    async fn batch(&self, actions: Vec<Action>, call: &CommandCall) -> Result<Reply<Vec<Outcome>>, CommandFailure> {
        let refused = |why: &str| CommandFailure::NotApplied(Reason::Internal(why.to_owned()));
        let count = actions.len();
        if count > BATCH_LEN_MAX {
            return Err(refused("the batch has more commands than one may have"));
        }
        if actions.iter().any(|a| matches!(a, Action::CreateLease { .. } | Action::RevokeLease { .. })) {
            return Err(refused("a batch holds no command of a lease"));
        }
        let at = UnixMillis(self.clock.wall_ms());
        let commands = actions.into_iter().map(|action| Command { action, node: self.node, at }).collect();
        let Some(proposal) = Proposal::encode(&Step::Batch(commands)) else {
            return Err(refused("the batch is too long for the log: send it in parts"));
        };
        let Applied { outcomes, revision } = self.carry_out(proposal, call).await?;
        match outcomes {
            Outcomes::Each(value) if value.len() == count => {
                Ok(Reply { value, revision: Revision::Cp(revision), provenance: Provenance::default() })
            }
            _ => Err(CommandFailure::Unknown(Reason::Internal("a batch had other outcomes than its own".into()))),
        }
    }

    async fn keep_alive(
        &self,
        keep: KeepAlive,
        call: &CommandCall,
    ) -> Result<Reply<Vec<Result<KeptAlive, Refusal>>>, CommandFailure> {
        let Ok(_permit) = self.commands.try_acquire() else {
            return Err(CommandFailure::NotApplied(Reason::Overloaded));
        };
        match self.at_leader(Ask::KeepAlive(vec![keep]), call).await? {
            Told::KeptAlive { mut callers, revision } if callers.len() == 1 => {
                let value = callers.pop().expect("one caller");
                Ok(Reply { value, revision: Revision::Cp(revision), provenance: Provenance::default() })
            }
            _ => Err(another_question()),
        }
    }

    async fn watch(&self, watch: Watch, deadline: StdInstant) -> Result<Box<dyn Watching>, WatchFailure> {
        Ok(Box::new(self.begin_watch(watch, deadline).await?))
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
        self.catch_up(Proof::Majority, &QueryCall::new(deadline, Consistency::Linearizable)).await
    }
}
