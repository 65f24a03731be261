//! What one entry of the replicated log does to the table.

use serde::{Deserialize, Serialize};

use super::command::Command;
use super::outcome::Outcome;

/// How many leases one step may end.
pub const EXPIRE_LEN_MAX: usize = 1_000;
/// How many entries one step may release with the leases that it ends; a lease that has more goes alone.
pub const EXPIRE_RELEASES_MAX: u64 = 10_000;

/// One step of the table: what clients ask for, and what a leader notes of leases. It keeps their time; the table reads no clock.
///
/// A lease is named by its number here, the revision that created it: what is said of a lease that has ended meanwhile says nothing
/// of a later one with the same id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    Command(Command),
    /// Carried out in order, each with a revision of its own; one that is refused stops none.
    Batch(Vec<Command>),
    /// These leases have run out: each ends with all that is bound to it, in a revision of its own. At most [`EXPIRE_LEN_MAX`].
    Expire {
        leases: Vec<u64>,
    },
    /// These leases were kept alive for the first time under this leadership.
    KeptAlive {
        leases: Vec<u64>,
    },
    /// This leadership has lasted so long: leases that nobody has kept alive under it have that much less to live.
    Aged {
        ms: u64,
    },
    /// The lease's keeper has seen these records, and need not be told again.
    Seen {
        records: Vec<LostKey>,
    },
}

/// Which lost grant: the number of the lease that it was bound to, and its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LostKey {
    pub lease: u64,
    pub token: u64,
}

/// What a step returns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcomes {
    One(Outcome),
    /// One for each command of a batch, in order.
    Each(Vec<Outcome>),
    /// Of a leader's note.
    None,
}
