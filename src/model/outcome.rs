//! What a command returns. A refusal is a value: every replica computes the same one.

use serde::{Deserialize, Serialize};

use super::entry::Entry;
use super::ident::{LeaseId, Owner, Token};

/// What became of a command that was applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// A new grant stands.
    Granted {
        entry: Entry,
        hides: Option<Hidden>,
    },
    /// The same owner (member) and lease held it already; its meta is as asked.
    Held {
        entry: Entry,
    },
    /// A grant or a lease.
    Ended(Ended),
    /// A new lease lives, for this long unless it is kept alive.
    LeaseCreated {
        lease: LeaseId,
        ttl_ms: u64,
    },
    /// A lease of this id, ttl and credential lives already.
    LeaseHeld {
        lease: LeaseId,
        ttl_ms: u64,
    },
    Refused(Refusal),
}

/// `ap` only: a grant from the other side of a partition that this one stands over. It is back after the heal, and one of the two will lose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hidden {
    pub owner: Owner,
    pub token: Token,
}

/// When the grant ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ended {
    /// By this command.
    Now,
    /// Before it: nothing was done.
    Before,
}

/// A deterministic no: nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// Somebody else holds the name (or the same owner with another lease).
    NameTaken { current: Entry },
    /// No entry stands there.
    NotFound,
    /// The token is not the current grant's, or was never issued.
    TokenStale { current: Option<Entry> },
    /// The entry has changed since that revision, or is gone.
    RevisionStale { current: Option<Entry> },
    /// `If-None-Match: *`, and an entry stands there.
    NameExists { current: Entry },
    /// No lease of that id was ever granted.
    LeaseUnknown,
    /// The lease has ended.
    LeaseExpired,
    /// A lease of that id lives, with another ttl or of another credential.
    LeaseTaken,
    /// Another credential made the lease.
    LeaseForeign,
}
