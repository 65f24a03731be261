//! What stands under a name or a membership now, as callers see it.

use serde::{Deserialize, Serialize};

use super::ident::{Group, LeaseId, Member, Meta, Name, NodeId, Owner, Revision, Token};
use super::time::UnixMillis;

/// What an entry stands under, and for whom: a name has one owner, a group has many members.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Holder {
    Owner(Name, Owner),
    Member(Group, Member),
}

/// One current registration or membership.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub holder: Holder,
    pub meta: Meta,
    /// The lease that it ends with, if any.
    pub lease: Option<LeaseId>,
    /// Names this very grant; a later grant of the same key has another, greater one.
    pub token: Token,
    /// When the entry last changed (its grant or its meta). Its ETag.
    pub revision: Revision,
    /// The node at which it was registered.
    pub node: NodeId,
    /// When it was registered, by that node's clock.
    pub since: UnixMillis,
    /// `ap`, and only if the hidden is asked for: this node does not show it, since who answers for it is out of reach.
    pub hidden: bool,
}

impl Entry {
    /// The owner's or member's text.
    pub fn holder_text(&self) -> &str {
        match &self.holder {
            Holder::Owner(_, owner) => owner.as_str(),
            Holder::Member(_, member) => member.as_str(),
        }
    }
}
