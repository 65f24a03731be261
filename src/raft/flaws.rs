//! Planted flaws, for the controls that show that the referee convicts. None unless asked for.

use openraft::async_runtime::WatchReceiver;
use tokio::sync::Mutex;

use super::state_machine::View;
use super::types::{Applied, Proposal, Raft};
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
    /// Leases run out in half their time.
    pub early_expiry: bool,
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
