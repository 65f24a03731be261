//! Operations: facts that every node applies once, in the order of their run.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::entry::Holder;
use crate::model::ident::{ApToken, LeaseId, Meta, Name, Owner};
use crate::model::time::UnixMillis;

use super::context::OpId;
use super::vouch::Vouch;

/// One act of registering or joining. Nothing of it ever changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    pub id: OpId,
    /// When it was made.
    pub hlc: u64,
    /// What it goes back to, if it took over or was handed over.
    pub lineage: Option<Lineage>,
    pub holder: Holder,
    /// The lease that it ends with.
    pub lease: Option<LeaseId>,
    /// As it was when the grant was made.
    pub meta: Meta,
    /// By the wall clock of its home.
    pub since: UnixMillis,
    /// The grants that end with it: a takeover is also their Remove, in one operation, so that nobody takes the two for a conflict.
    pub takes: Vec<OpId>,
}

/// The line of takeovers that a grant stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    /// The stamp of the first grant of the line.
    pub root: u64,
    /// How many takeovers since.
    pub takeovers: u32,
}

impl Grant {
    pub fn lineage(&self) -> Lineage {
        self.lineage.unwrap_or(Lineage { root: self.hlc, takeovers: 0 })
    }

    pub fn token(&self) -> ApToken {
        self.id.token(self.hlc)
    }
}

/// A change of a grant's meta. The greatest stamp stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetaChange {
    pub stamp: Stamp,
    pub meta: Meta,
}

/// A place in the order of all operations, the same on every node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stamp {
    pub hlc: u64,
    pub id: OpId,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    Add(Arc<Grant>),
    Meta {
        grant: OpId,
        change: MetaChange,
    },
    Remove {
        stamp: Stamp,
        grants: Vec<OpId>,
        reason: Reason,
    },
    /// A node takes the keep-alives of a lease from now on.
    Vouch(Arc<Vouch>),
    /// Vouches end, and with the last one of a lease the lease.
    Drop {
        stamp: Stamp,
        vouches: Vec<OpId>,
        why: DropReason,
    },
    /// The loser has been told. `record` is the Remove that the record at hand came with.
    Acknowledge {
        stamp: Stamp,
        loser: OpId,
        record: OpId,
    },
}

/// Why grants were removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// Its owner or member gave it up, or somebody did so for it.
    Given,
    /// Its lease had ended: whoever watches has been told so by what ended the lease.
    LeaseEnded,
    /// It lost its name. The record of that travels with the Remove.
    Conflict(Box<Defeat>),
}

/// Why vouches were dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DropReason {
    /// Nobody has kept the lease alive at the node that vouched.
    Expired,
    /// These vouches stand for the same leases and have taken their last keep-alives over. They travel along, so that no node is ever
    /// without both, whichever operation reaches it first.
    Moved(Vec<Arc<Vouch>>),
    /// The lease was revoked. These grants, all that were known to be bound to it, end in the same operation.
    Revoked { grants: Vec<OpId> },
}

/// Who lost which name to whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Defeat {
    pub name: Name,
    pub loser: (Owner, ApToken),
    /// The lease that the losing grant was bound to: its keep-alives tell of the loss.
    pub lease: Option<LeaseId>,
    /// Who beat it then.
    pub winner: (Owner, ApToken),
    /// By the wall clock of the node that withdrew the loser.
    pub at: UnixMillis,
}

impl Operation {
    pub fn stamp(&self) -> Stamp {
        match self {
            Operation::Add(grant) => Stamp { hlc: grant.hlc, id: grant.id },
            Operation::Meta { change, .. } => change.stamp,
            Operation::Vouch(vouch) => vouch.stamp(),
            Operation::Remove { stamp, .. } | Operation::Drop { stamp, .. } | Operation::Acknowledge { stamp, .. } => {
                *stamp
            }
        }
    }

    pub fn id(&self) -> OpId {
        self.stamp().id
    }

    /// About how many bytes it takes in a message.
    pub fn weight(&self) -> usize {
        let texts = match self {
            Operation::Add(grant) => {
                let key = match &grant.holder {
                    Holder::Owner(name, owner) => name.as_str().len() + owner.as_str().len(),
                    Holder::Member(group, member) => group.as_str().len() + member.as_str().len(),
                };
                let lease = grant.lease.as_ref().map_or(0, |lease| lease.as_str().len());
                key + lease + grant.meta.as_str().len() + ID_LEN * grant.takes.len()
            }
            Operation::Meta { change, .. } => ID_LEN + change.meta.as_str().len(),
            Operation::Remove { grants, reason, .. } => {
                let record = match reason {
                    Reason::Given | Reason::LeaseEnded => 0,
                    Reason::Conflict(defeat) => {
                        let owners = defeat.loser.0.as_str().len() + defeat.winner.0.as_str().len();
                        let lease = defeat.lease.as_ref().map_or(0, |lease| lease.as_str().len());
                        defeat.name.as_str().len() + owners + lease + 4 * ID_LEN
                    }
                };
                ID_LEN * grants.len() + record
            }
            Operation::Vouch(vouch) => vouch.weight(),
            Operation::Drop { vouches, why, .. } => {
                let more = match why {
                    DropReason::Expired => 0,
                    DropReason::Moved(newer) => newer.iter().map(|vouch| vouch.weight()).sum(),
                    DropReason::Revoked { grants } => ID_LEN * grants.len(),
                };
                ID_LEN * vouches.len() + more
            }
            Operation::Acknowledge { .. } => 2 * ID_LEN,
        };
        2 * ID_LEN + texts
    }
}

/// An encoded id or stamp, about.
pub const ID_LEN: usize = 20;
