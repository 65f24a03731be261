//! Planted flaws, for the controls that show that the referee convicts. None unless asked for.

use std::fs::File;
use std::io;
use std::time::{Duration, Instant, SystemTime};

use openraft::async_runtime::WatchReceiver;
use tokio::sync::Mutex;

use super::durable::Barrier;
use super::state_machine::View;
use super::types::{Applied, Proposal, Raft};
use crate::model::command::{Action, Condition};
use crate::model::ident::Token;
use crate::model::outcome::{Outcome, Refusal};
use crate::model::query::{Answer, Query};
use crate::model::table::{News, Table};

/// Which flaws this node has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flaws {
    /// Linearizable reads are answered from this node's state as it is.
    pub local_reads: bool,
    /// A leader acknowledges a write as soon as it has handed it to its log, with the outcome that it would have on a copy of the
    /// table; what a majority has to say is not waited for. A leader that is cut off goes on so until it learns of another one.
    pub ack_before_replication: bool,
    /// A watch that is to go on at a position goes on at the end: what came between is never told.
    pub drop_on_resume: bool,
    /// A leader answers keep-alives by its own timers, whether or not it still leads.
    pub keep_alive_without_round: bool,
    /// What is written to the log is never made durable.
    pub lost_fsync: bool,
    /// How leases keep time.
    pub pace: Pace,
    /// Leases run out by the wall clock: a clock that is set forward ends them.
    pub wall_clock_leases: bool,
    /// All grants have one token, and nobody looks at the token that a call comes with.
    pub no_fencing: bool,
    /// Lists of members name the first one twice.
    pub duplicate_member: bool,
}

/// The barrier that is none: what sled's own flush amounts to.
pub struct LostFsync;

impl Barrier for LostFsync {
    fn sync(&mut self, _: &File) -> io::Result<()> {
        Ok(())
    }
}

/// How long a lease lasts by a leader's timers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    #[default]
    Right,
    /// Half its time.
    Hasty,
    /// Three times its time.
    Slow,
}

impl Pace {
    pub fn of(self, time: Duration) -> Duration {
        match self {
            Pace::Right => time,
            Pace::Hasty => time / 2,
            Pace::Slow => time * 3,
        }
    }
}

/// How far a wall clock has moved beside the steady one. Without the flaw: not at all.
#[derive(Clone, Copy, Debug)]
pub struct WallClock(Option<(Instant, SystemTime)>);

impl WallClock {
    pub fn start(flawed: bool) -> Self {
        Self(flawed.then(|| (Instant::now(), SystemTime::now())))
    }

    /// How far it has been set forward since it was started.
    pub fn ahead(self) -> Duration {
        let Some((steady, wall)) = self.0 else { return Duration::ZERO };
        wall.elapsed().unwrap_or_default().saturating_sub(steady.elapsed())
    }
}

/// The one token of everything, without fencing.
const ONE: Token = Token::Cp(1);

/// The command without its token.
pub fn unfenced(action: Action) -> Action {
    match action {
        Action::Unregister { name, .. } => Action::Unregister { name, token: None },
        Action::Leave { group, member, .. } => Action::Leave { group, member, token: None },
        Action::Register { name, owner, meta, lease, condition: Condition::Token(_) } => {
            Action::Register { name, owner, meta, lease, condition: Condition::Free }
        }
        other => other,
    }
}

/// The outcome with the one token of everything.
pub fn with_one_token(outcome: &mut Outcome) {
    match outcome {
        Outcome::Granted { entry, .. } | Outcome::Held { entry } => entry.token = ONE,
        Outcome::Refused(Refusal::NameTaken { current }) => current.token = ONE,
        _ => {}
    }
}

/// The answer as the flaws have it.
pub fn spoil(flaws: Flaws, query: &Query, answer: &mut Answer) {
    match answer {
        Answer::Entry(entry) if flaws.no_fencing => entry.token = ONE,
        Answer::Entries { entries, .. } => {
            if flaws.no_fencing {
                entries.iter_mut().for_each(|entry| entry.token = ONE);
            }
            if flaws.duplicate_member && matches!(query, Query::Members { .. }) {
                entries.extend(entries.first().cloned());
            }
        }
        _ => {}
    }
}

/// The copy on which outcomes are made up.
#[derive(Default)]
pub struct Speculation {
    table: Mutex<Option<Speculative>>,
}

struct Speculative {
    term: u64,
    table: Table,
}

impl Speculation {
    /// What the command would do if nothing went wrong. It is proposed, and its fate ignored.
    pub async fn execute(&self, raft: &Raft, view: &View, proposal: Proposal) -> Result<Applied, String> {
        let step = proposal.decode()?;
        let term = raft.metrics().borrow_watched().current_term;
        let mut table = self.table.lock().await;
        let speculative = match &mut *table {
            Some(speculative) if speculative.term == term => speculative,
            // A new leadership begins with what was really applied.
            other => other.insert(Speculative { term, table: view.now().table.clone() }),
        };
        let outcomes = speculative.table.take(&step, &mut News::default());
        let revision = speculative.table.revision();
        // Under the lock, so that the log has the order in which the outcomes were made up.
        let _ = raft.client_write_ff(proposal, None).await;
        Ok(Applied { outcomes, revision })
    }
}
