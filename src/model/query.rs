//! What asks of the registry, and the answers.

use serde::{Deserialize, Serialize};

use super::entry::Entry;
use super::ident::{Group, LeaseId, Member, Name, NodeId, Token};
use super::lease::{LeaseInfo, LeaseStatus};
use super::outcome::Refusal;

/// The most items a page may hold.
pub const PAGE_LIMIT_MAX: usize = 1_000;
/// How many items a page holds unless the caller says otherwise.
pub const PAGE_LIMIT_DEFAULT: usize = 100;

/// One question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    /// Who holds the name. With a token: only if that is the current grant.
    Whereis {
        name: Name,
        token: Option<Token>,
    },
    Names {
        page: Page,
    },
    Membership {
        group: Group,
        member: Member,
        token: Option<Token>,
    },
    /// The members of a group, those registered at one node if `node` is given. Nobody joined: an empty list.
    Members {
        group: Group,
        page: Page,
        node: Option<NodeId>,
    },
    Groups {
        page: Page,
    },
    /// A live lease with a page of what is bound to it, in the order of [`Holder`](super::entry::Holder); the page's `after` is
    /// what [`super::lease::cursor`] makes of the last one, and it has no prefix.
    Lease {
        lease: LeaseId,
        page: Page,
    },
    /// The live leases, in byte order of their ids.
    Leases {
        page: Page,
    },
}

/// Which part of a list, in byte order of the keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    pub prefix: String,
    /// Only keys greater than this one.
    pub after: Option<String>,
    /// 1..=1000.
    pub limit: usize,
}

impl Default for Page {
    fn default() -> Self {
        Self { prefix: String::new(), after: None, limit: PAGE_LIMIT_DEFAULT }
    }
}

/// The answer to a [`Query`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    Entry(Entry),
    /// One page of entries in key order; `next` is what to pass as `after`, or none at the end.
    Entries {
        entries: Vec<Entry>,
        next: Option<String>,
    },
    Groups {
        groups: Vec<GroupCount>,
        next: Option<String>,
    },
    Lease(LeaseStatus),
    Leases {
        leases: Vec<LeaseInfo>,
        next: Option<String>,
    },
    /// Not found, or the token is not the current grant's.
    Refused(Refusal),
}

/// A group that has members, and how many.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupCount {
    pub group: Group,
    pub count: u64,
}
