//! What changes the registry.

use serde::{Deserialize, Serialize};

use super::ident::{CredentialName, Group, LeaseId, Member, Meta, Name, NodeId, Owner, Revision, Token};
use super::time::UnixMillis;

/// How many commands one batch may hold.
pub const BATCH_LEN_MAX: usize = 1_000;

/// One change, with where and when it came in: no replica reads a clock while it applies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    pub action: Action,
    /// The node that took it from the client.
    pub node: NodeId,
    /// That node's wall clock, for `registered_at`.
    pub at: UnixMillis,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    Register {
        name: Name,
        owner: Owner,
        meta: Meta,
        lease: Option<LeaseId>,
        condition: Condition,
    },
    /// With a token: ends that very grant. Without: whatever stands there now.
    Unregister {
        name: Name,
        token: Option<Token>,
    },
    Join {
        group: Group,
        member: Member,
        meta: Meta,
        lease: Option<LeaseId>,
    },
    /// With a token: ends that very membership. Without: whatever stands there now.
    Leave {
        group: Group,
        member: Member,
        token: Option<Token>,
    },
    /// Creates a lease. Under an id that is live already, with the same ttl and credential: nothing, so that it may be sent again.
    CreateLease {
        /// None: the registry chooses.
        lease: Option<LeaseId>,
        /// Within [`TTL_MS_MIN`](super::lease::TTL_MS_MIN) and [`TTL_MS_MAX`](super::lease::TTL_MS_MAX).
        ttl_ms: u64,
        /// Who creates it, and so may keep it alive and revoke it. None: nobody has to show a credential.
        credential: Option<CredentialName>,
    },
    /// Ends a lease, and all that is bound to it, at once.
    RevokeLease {
        lease: LeaseId,
        /// Whose word it is. None: of somebody who may end anybody's.
        by: Option<CredentialName>,
    },
}

/// When a registration may go through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// Only if nobody holds the name, or this owner and lease do already.
    Free,
    /// Whoever holds it.
    Takeover,
    /// Only if this is still the grant (`?token=`). Another owner or lease is then a hand-over.
    Token(Token),
    /// Only if the entry is unchanged since this revision (`If-Match`).
    Unchanged(Revision),
    /// Only if there is an entry (`If-Match: *`).
    Present,
    /// Only if there is none, not even the caller's own (`If-None-Match: *`).
    Absent,
}

impl Action {
    /// Whether it may be sent again after an unknown outcome without doing harm (see the guide, "Retries").
    ///
    /// A bare unregister or leave may end a successor's grant; a takeover may undo a later one; a registration without a lease may
    /// re-create a name that was given up in between.
    pub fn retry_is_safe(&self) -> bool {
        match self {
            Action::Register { lease, condition, .. } => lease.is_some() && *condition == Condition::Free,
            Action::Unregister { token, .. } | Action::Leave { token, .. } => token.is_some(),
            Action::Join { .. } | Action::RevokeLease { .. } => true,
            // Without an id of the client's the second one would be another lease, which nobody knows of.
            Action::CreateLease { lease, .. } => lease.is_some(),
        }
    }
}
