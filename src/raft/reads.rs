//! Reads that see every write acknowledged before they began, on any node, many at the price of one.
//!
//! ReadIndex (Ongaro's thesis, 6.4): the leader notes how far its log is committed, makes sure by a round of heartbeats that it still
//! leads, and a state that has applied that far is new enough. One round serves every read that arrived *before the round began*; a
//! read that arrives later must not join it, since a write may have been acknowledged in between. A follower asks the leader once per
//! round and waits until it has applied as much itself. After a failure a new round is begun: an index is never used again.

use std::sync::Arc;
use std::time::Duration;

use openraft::LinearizerOption;
use openraft::errors::{LinearizableReadError, RaftError};
use openraft::raft::linearizable_read::Linearizer;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::Timing;
use super::forward::{Ask, Forwarder, Silence, Told};
use super::leadership::{Leadership, Target};
use super::state_machine::View;
use super::types::{Raft, TypeConfig};
use crate::registry::Reason;

/// Reads waiting for their round to begin. More are refused as overload.
const QUEUE_LEN_MAX: usize = 64 * 1024;
/// A round that takes longer no longer holds up the next one.
const SLOW_ROUND: Duration = Duration::from_millis(20);
/// Rounds under way at once.
const ROUNDS_MAX: usize = 8;

/// How the leader makes sure that it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// A majority answers.
    Majority,
    /// A majority has answered not long ago, and has promised not to elect another one for a while.
    Lease,
}

type Waiter<T> = oneshot::Sender<Result<T, Reason>>;

/// A leader's answer to how far is far enough: it was made sure of this very leadership after the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeadersIndex {
    pub leadership: u64,
    pub index: u64,
}

impl LeadersIndex {
    fn of(linearizer: &Linearizer<TypeConfig>) -> Self {
        let read = linearizer.read_log_id();
        Self { leadership: read.committed_leader_id().term, index: read.index() }
    }
}

/// Gathers reads into rounds.
pub struct Rounds<T> {
    queue: mpsc::Sender<Waiter<T>>,
}

impl<T: Clone + Send + 'static> Rounds<T> {
    /// `round` finds out how far is far enough, beginning when it is called. Ends when this is dropped.
    pub fn new<F, R>(round: F) -> Self
    where
        F: Fn() -> R + Send + 'static,
        R: Future<Output = Result<T, Reason>> + Send + 'static,
    {
        let (queue, mut waiting) = mpsc::channel::<Waiter<T>>(QUEUE_LEN_MAX);
        tokio::spawn(async move {
            let permits = Arc::new(Semaphore::new(ROUNDS_MAX));
            loop {
                let permit = permits.clone().acquire_owned().await.expect("never closed");
                let mut waiters = Vec::new();
                // Drained before the round begins: that is the whole correctness condition.
                if waiting.recv_many(&mut waiters, QUEUE_LEN_MAX).await == 0 {
                    return;
                }
                let mut running = Box::pin(round());
                match timeout(SLOW_ROUND, &mut running).await {
                    Ok(result) => release(waiters, &result),
                    Err(_) => {
                        tokio::spawn(async move {
                            release(waiters, &running.await);
                            drop(permit);
                        });
                    }
                }
            }
        });
        Self { queue }
    }

    /// What the next round finds: one that begins after this call.
    pub async fn join(&self) -> Result<T, Reason> {
        let (waiter, result) = oneshot::channel();
        self.queue.try_send(waiter).map_err(|_| Reason::Overloaded)?;
        result.await.unwrap_or_else(|_| Err(Reason::Internal("the node is stopping".into())))
    }
}

fn release<T: Clone>(waiters: Vec<Waiter<T>>, result: &Result<T, Reason>) {
    for waiter in waiters {
        let _ = waiter.send(result.clone());
    }
}

/// One node's reads.
pub struct Reads {
    /// For reads served here: when one of these ends, this node has applied enough.
    by_majority: Rounds<u64>,
    by_lease: Rounds<u64>,
    /// For peers that ask this node as the leader, and for what only the leader can do: the index alone.
    index_by_majority: Rounds<LeadersIndex>,
    index_by_lease: Rounds<LeadersIndex>,
    leadership: Arc<Leadership>,
}

/// What a round needs.
#[derive(Clone)]
pub struct Sources {
    pub raft: Raft,
    pub leadership: Arc<Leadership>,
    pub forwarder: Forwarder,
    pub view: View,
    pub timing: Timing,
}

impl Reads {
    pub fn new(sources: Sources) -> Self {
        let served = |proof| {
            let sources = sources.clone();
            Rounds::new(move || sources.clone().serve(proof))
        };
        let index = |proof| {
            let sources = sources.clone();
            Rounds::new(move || {
                let sources = sources.clone();
                async move { sources.leaders_index(proof).await }
            })
        };
        Self {
            by_majority: served(Proof::Majority),
            by_lease: served(Proof::Lease),
            index_by_majority: index(Proof::Majority),
            index_by_lease: index(Proof::Lease),
            leadership: sources.leadership.clone(),
        }
    }

    /// Returns once this node's state is as new as this call, as far as `proof` goes.
    pub async fn catch_up(&self, proof: Proof) -> Result<(), Reason> {
        let rounds = match proof {
            Proof::Majority => &self.by_majority,
            Proof::Lease => &self.by_lease,
        };
        rounds.join().await.map(|_| ())
    }

    /// What has to be applied to be as new as this call. Only the leader answers.
    pub async fn leaders_index(&self, proof: Proof) -> Result<LeadersIndex, Reason> {
        if self.leadership.target() != Target::Me {
            return Err(Reason::NotLeader { leader: None });
        }
        let rounds = match proof {
            Proof::Majority => &self.index_by_majority,
            Proof::Lease => &self.index_by_lease,
        };
        rounds.join().await
    }
}

impl Sources {
    async fn serve(self, proof: Proof) -> Result<u64, Reason> {
        let patience = self.timing.election_max;
        let index = match self.leadership.target() {
            Target::Me => self.leaders_index(proof).await?.index,
            Target::Node(leader) => {
                let ask = Ask::ReadIndex { by_lease: proof == Proof::Lease };
                match self.forwarder.ask(leader, &ask, Instant::now() + patience).await {
                    Ok(Told::Index(index)) => index,
                    Ok(Told::NotLeader) => return Err(Reason::NotLeader { leader: None }),
                    Ok(Told::Refused(why) | Told::Unknown(why)) => return Err(why.into()),
                    Ok(Told::Applied(_) | Told::Changed(_) | Told::KeptAlive { .. } | Told::Lease { .. }) => {
                        return Err(Reason::Internal("the leader answered another question".into()));
                    }
                    Err(Silence::Overloaded) => return Err(Reason::Overloaded),
                    Err(Silence::NotSent | Silence::Lost) => return Err(Reason::NoLeader),
                }
            }
            Target::Nobody => return Err(Reason::NoLeader),
        };
        // An index of a leader that has been deposed may never come here. The reads then try again with a new one.
        match timeout(patience * 2, self.view.wait_for(index)).await {
            Ok(true) => Ok(index),
            Ok(false) => Err(Reason::Internal("the node is stopping".into())),
            Err(_) => Err(Reason::NoLeader),
        }
    }

    async fn leaders_index(&self, proof: Proof) -> Result<LeadersIndex, Reason> {
        let patience = self.timing.election_max;
        // A leader that nobody has answered for so long would wait in vain, each time anew, for as long as it is cut off.
        if !self.leadership.has_quorum() {
            return Err(Reason::NoQuorum);
        }
        let by_majority = LinearizerOption::new(Some(Duration::ZERO), true).with_wait_timeout(patience);
        if proof == Proof::Lease {
            // A fifth less than what the majority promised: so far apart may two clocks run.
            let lease = self.timing.election_max * 4 / 5;
            let by_lease = LinearizerOption::new(Some(lease), false).with_wait_timeout(Duration::ZERO);
            if let Ok(linearizer) = self.raft.get_read_linearizer(by_lease).await {
                return Ok(LeadersIndex::of(&linearizer));
            }
        }
        match self.raft.get_read_linearizer(by_majority).await {
            Ok(linearizer) => Ok(LeadersIndex::of(&linearizer)),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(_))) => {
                Err(Reason::NotLeader { leader: None })
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => Err(Reason::NoQuorum),
            Err(RaftError::Fatal(e)) => Err(Reason::Internal(e.to_string())),
        }
    }
}
