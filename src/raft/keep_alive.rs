//! Keeps leases alive at the leader (protocol C4): a keep-alive is answered only when it surely counts.
//!
//! In this order: the deadline is moved when the call arrives; an expiry that is on its way is waited for; a majority is asked, in a
//! round that begins after the arrival, and what it shows is applied; the first keep-alive of a lease under this leadership is in the
//! log; and then the lease still lives and the leadership is still the same. One round serves all that came together.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use super::Flaws;
use super::forward::{Forwarder, Silence, Told};
use super::gather::Gather;
use super::leadership::{Leadership, Target};
use super::lease_clock::LeaseClock;
use super::lease_timers::Arrival;
use super::leases::{Unnoted, note};
use super::reads::{LeadersIndex, Proof, Reads};
use super::state_machine::View;
use super::types::Raft;
use crate::model::ident::{LeaseId, NodeId};
use crate::model::lease::KeptAlive;
use crate::model::outcome::Refusal;
use crate::model::step::{LostKey, Step};
use crate::registry::{KeepAlive, Reason};

/// Leases kept alive in one round, and in one message to the leader, unless one caller asks for more.
const LEASES_MAX: usize = 10_000;
/// Leases or records in one log entry.
const NOTE_LEN_MAX: usize = 1_000;
/// Records told in one round; the others' turn comes with the next keep-alive.
const LOST_TOLD_MAX: usize = 1_000;
/// How long a call that waits for something here sleeps at most before it looks again.
const MOMENT: Duration = Duration::from_millis(20);

/// Calls to be passed on: to whom, what, until when.
pub type PassingOn = Gather<(NodeId, Vec<KeepAlive>, Instant), Result<Told, Silence>>;
/// Calls to be carried out here.
pub type Keeping = Gather<(Vec<KeepAlive>, Instant), Told>;

/// What keeps leases alive at this node while it leads.
pub struct Keeper {
    pub raft: Raft,
    pub view: View,
    pub reads: Arc<Reads>,
    pub clock: Arc<LeaseClock>,
    pub leadership: Arc<Leadership>,
    pub flaws: Flaws,
}

/// What a round was begun with.
struct Arrived {
    leadership: u64,
    /// Those whose deadline was moved.
    moved: BTreeSet<u64>,
    /// Those that the log does not show alive under this leadership.
    unproven: Vec<u64>,
    /// Records that their lease's keeper has seen.
    seen: Vec<LostKey>,
    /// An expiry is on its way, and has to be waited for.
    expiring: bool,
}

type Answers = Vec<Vec<Result<KeptAlive, Refusal>>>;

impl Keeper {
    /// Gathers calls into rounds of this keeper.
    pub fn gather(self: &Arc<Self>) -> Keeping {
        let keeper = self.clone();
        let weight = |(callers, _): &(Vec<KeepAlive>, Instant)| leases_of(callers);
        Gather::new(weight, LEASES_MAX, move |calls: Vec<(Vec<KeepAlive>, Instant)>| {
            let keeper = keeper.clone();
            async move {
                let until = calls.iter().map(|(_, deadline)| *deadline).max().expect("there is a call");
                let counts = calls.iter().map(|(callers, _)| callers.len()).collect::<Vec<_>>();
                let callers = calls.into_iter().flat_map(|(callers, _)| callers).collect::<Vec<_>>();
                let told = timeout_at(until, keeper.keep(&callers)).await;
                share(told.unwrap_or_else(|_| Told::Unknown(Reason::Timeout.into())), &counts)
            }
        })
    }

    /// One round for all these callers.
    async fn keep(&self, callers: &[KeepAlive]) -> Told {
        if !self.leadership.has_quorum() && !self.flaws.keep_alive_without_round {
            return Told::Refused(Reason::NoQuorum.into());
        }
        let mut settled = self.clock.settled();
        loop {
            settled.borrow_and_update();
            let Some(arrived) = self.arrive(callers) else {
                // The timers may be about to start.
                if self.leadership.target() != Target::Me {
                    return Told::NotLeader;
                }
                wait(&mut settled).await;
                continue;
            };
            let counts = match self.flaws.keep_alive_without_round {
                true => Ok(()),
                false if arrived.expiring => Err(None),
                false => self.make_sure(&arrived).await,
            };
            match counts {
                Ok(()) => {
                    if let Some(told) = self.conclude(&arrived, callers) {
                        return told;
                    }
                }
                Err(Some(told)) => return told,
                Err(None) => {}
            }
            if !self.leadership.has_quorum() {
                return Told::Unknown(Reason::NoQuorum.into());
            }
            wait(&mut settled).await;
        }
    }

    /// Moves the deadlines. None: this node has no timers.
    fn arrive(&self, callers: &[KeepAlive]) -> Option<Arrived> {
        let state = self.view.now();
        self.clock.timers(|timers| {
            let now = Instant::now();
            let leadership = timers.leadership();
            let (moved, unproven, seen) = (BTreeSet::new(), Vec::new(), Vec::new());
            let mut arrived = Arrived { leadership, moved, unproven, seen, expiring: false };
            for caller in callers {
                let live = caller.leases.iter().filter_map(|id| state.table.renewable(id, caller.by.as_ref()).ok());
                let mut own = Vec::new();
                for facts in live {
                    match timers.arrive(facts.number, now) {
                        Arrival::Renewed { proven } => {
                            if arrived.moved.insert(facts.number) && !proven {
                                arrived.unproven.push(facts.number);
                            }
                            own.push(facts.number);
                        }
                        Arrival::Expiring => arrived.expiring = true,
                        Arrival::Unknown => {}
                    }
                }
                let keys = caller.seen.iter().filter_map(LostKey::parse);
                arrived.seen.extend(keys.filter(|key| own.contains(&key.lease) && state.table.has_lost(*key)));
            }
            arrived
        })
    }

    /// Asks a majority and writes what has to be in the log. An error: what to tell, or nothing if it is to be tried again.
    async fn make_sure(&self, arrived: &Arrived) -> Result<(), Option<Told>> {
        let round = async {
            let read = self.reads.leaders_index(Proof::Majority).await?;
            match self.view.wait_for(read.index).await {
                true => Ok(read),
                false => Err(Reason::Internal("the node is stopping".into())),
            }
        };
        let (round, noted) = tokio::join!(round, self.note_all(arrived));
        match noted {
            Ok(()) => {}
            Err(Unnoted::NotLeader) => return Err(Some(Told::NotLeader)),
            Err(Unnoted::Cut) => return Err(None),
            Err(Unnoted::Unknown(why)) => return Err(Some(Told::Unknown(why.into()))),
        }
        match round {
            Ok(LeadersIndex { leadership, .. }) if leadership == arrived.leadership => Ok(()),
            // It was another leadership that a majority was asked for: these timers are over, or about to be.
            Ok(_) | Err(Reason::NotLeader { .. }) => Err(Some(Told::NotLeader)),
            Err(Reason::NoQuorum | Reason::NoLeader) => Err(None),
            Err(why) => Err(Some(Told::Unknown(why.into()))),
        }
    }

    async fn note_all(&self, arrived: &Arrived) -> Result<(), Unnoted> {
        for leases in arrived.unproven.chunks(NOTE_LEN_MAX) {
            note(&self.raft, arrived.leadership, &Step::KeptAlive { leases: leases.to_vec() }).await?;
            self.clock.timers_of(arrived.leadership, |timers| timers.prove(leases));
        }
        for records in arrived.seen.chunks(NOTE_LEN_MAX) {
            note(&self.raft, arrived.leadership, &Step::Seen { records: records.to_vec() }).await?;
        }
        Ok(())
    }

    /// The answers, if every lease that lives is one whose deadline was moved, and counts for the next leader too. None: once more.
    fn conclude(&self, arrived: &Arrived, callers: &[KeepAlive]) -> Option<Told> {
        let state = self.view.now();
        let flawed = self.flaws.keep_alive_without_round;
        let mut told = 0;
        let mut answer = |id: &LeaseId, caller: &KeepAlive, arrival: &dyn Fn(u64) -> Arrival| {
            let facts = match state.table.renewable(id, caller.by.as_ref()) {
                Ok(facts) => facts,
                Err(refusal) => return Some(Err(refusal)),
            };
            let counts = arrival(facts.number) == Arrival::Renewed { proven: true } || flawed;
            if !counts || !arrived.moved.contains(&facts.number) {
                return None;
            }
            let mut lost = state.table.lost(facts.number);
            lost.truncate(LOST_TOLD_MAX - told);
            told += lost.len();
            Some(Ok(KeptAlive { expires_in_ms: facts.ttl_ms, lost, moved: false }))
        };
        let answers: Option<Answers> = self
            .clock
            .timers_of(arrived.leadership, |timers| {
                let arrival = |number| timers.state(number);
                let each = |caller: &KeepAlive| -> Option<Vec<_>> {
                    caller.leases.iter().map(|id| answer(id, caller, &arrival)).collect()
                };
                callers.iter().map(each).collect::<Option<Answers>>()
            })
            .flatten();
        answers.map(|callers| Told::KeptAlive { callers, revision: state.table.revision() })
    }

    /// How much time a lease has left.
    pub async fn left(&self, lease: &LeaseId) -> Told {
        let read = match self.reads.leaders_index(Proof::Majority).await {
            Ok(read) => read,
            Err(Reason::NotLeader { .. }) => return Told::NotLeader,
            Err(why) => return Told::Refused(why.into()),
        };
        let mut settled = self.clock.settled();
        loop {
            settled.borrow_and_update();
            if !self.view.wait_for(read.index).await {
                return Told::Refused(Reason::Internal("the node is stopping".into()).into());
            }
            let number = self.view.now().table.renewable(lease, None).ok().map(|facts| facts.number);
            let left = self
                .clock
                .timers_of(read.leadership, |timers| number.and_then(|number| timers.left(number, Instant::now())));
            match left {
                Some(left) => {
                    return Told::Lease { index: read.index, left_ms: left.map(|left| left.as_millis() as u64) };
                }
                // The timers may be about to start.
                None if self.leadership.target() == Target::Me => wait(&mut settled).await,
                None => return Told::NotLeader,
            }
        }
    }
}

/// Passes calls on to the leader, many in one message.
pub fn passing_on(forwarder: Forwarder) -> PassingOn {
    let weight = |(_, callers, _): &(NodeId, Vec<KeepAlive>, Instant)| leases_of(callers);
    Gather::new(weight, LEASES_MAX, move |calls: Vec<(NodeId, Vec<KeepAlive>, Instant)>| {
        let forwarder = forwarder.clone();
        async move { pass_on(&forwarder, calls).await }
    })
}

async fn pass_on(forwarder: &Forwarder, calls: Vec<(NodeId, Vec<KeepAlive>, Instant)>) -> Vec<Result<Told, Silence>> {
    let mut answers = Vec::with_capacity(calls.len());
    let mut calls = calls.into_iter().peekable();
    // One leader for all, except at the moment when it changes.
    while let Some((leader, mut callers, mut until)) = calls.next() {
        let mut counts = vec![callers.len()];
        while let Some((_, more, deadline)) = calls.next_if(|(other, _, _)| *other == leader) {
            counts.push(more.len());
            callers.extend(more);
            until = until.max(deadline);
        }
        match forwarder.ask(leader, &super::forward::Ask::KeepAlive(callers), until).await {
            Ok(told) => answers.extend(share(told, &counts).into_iter().map(Ok)),
            Err(silence) => answers.extend(counts.iter().map(|_| Err(silence))),
        }
    }
    answers
}

/// To each call its callers' part of the answer.
fn share(told: Told, counts: &[usize]) -> Vec<Told> {
    let Told::KeptAlive { callers, revision } = told else { return vec![told; counts.len()] };
    let mut callers = callers.into_iter();
    counts.iter().map(|count| Told::KeptAlive { callers: callers.by_ref().take(*count).collect(), revision }).collect()
}

fn leases_of(callers: &[KeepAlive]) -> usize {
    callers.iter().map(|caller| caller.leases.len()).sum()
}

async fn wait(settled: &mut watch::Receiver<()>) {
    let _ = timeout(MOMENT, settled.changed()).await;
}
