//! One current grant, as the table keeps it.

use serde::{Deserialize, Serialize};

use super::Table;
use crate::model::entry::{Entry, Holder};
use crate::model::ident::{LeaseId, Meta, NodeId, Revision, Token};
use crate::model::outcome::Ended;
use crate::model::time::UnixMillis;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Grant {
    pub meta: Meta,
    pub lease: Option<LeaseId>,
    pub token: u64,
    /// The token of the grant that this one was handed over from: a retried hand-over still names it.
    pub superseded: Option<u64>,
    pub changed: u64,
    pub node: NodeId,
    pub since: UnixMillis,
}

impl Grant {
    pub fn entry(&self, holder: Holder) -> Entry {
        Entry {
            holder,
            meta: self.meta.clone(),
            lease: self.lease.clone(),
            token: Token::Cp(self.token),
            revision: Revision::Cp(self.changed),
            node: self.node,
            since: self.since,
            hidden: false,
        }
    }
}

pub(super) struct NeverIssued;

impl Table {
    /// A token up to the counter was issued at some time; if it is not the current grant's, that grant has ended before.
    pub(super) fn may_end(&self, current: Option<u64>, token: Option<Token>) -> Result<Ended, NeverIssued> {
        match (current, token) {
            (Some(_), None) => Ok(Ended::Now),
            (None, None) => Err(NeverIssued),
            (Some(current), Some(Token::Cp(token))) if token == current => Ok(Ended::Now),
            (_, Some(Token::Cp(token))) if (1..=self.revision).contains(&token) => Ok(Ended::Before),
            (_, Some(_)) => Err(NeverIssued),
        }
    }
}
