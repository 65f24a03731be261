//! What a watcher is told, as it is kept in a history.

use serde::{Deserialize, Serialize};

/// One thing that a watcher was told, or that became of its stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "told", rename_all = "kebab-case")]
pub enum Watched {
    /// A stream begins at that node, after that position; none: with what changes from now on.
    Begun {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<String>,
        /// What the watcher wants to hear of: keys that begin so. None: everything.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        prefix: Option<String>,
    },
    /// All that changed at one revision.
    Change { revision: ChangeRevision, changes: Vec<Change> },
    /// Everything up to there has been told.
    Progress {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        revision: Option<u64>,
    },
    /// The node has no contact to a leader: nothing may come although things change.
    Stalled,
    /// What is between the position asked for and what follows is not told.
    Resync,
    /// The reader was too slow; nothing follows.
    Overflow,
    /// The stream is over.
    Ended { why: String },
    /// After the last call of the run nothing more came: all has been told that was to be told.
    CaughtUp,
}

/// Which change it is, as far as the system says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeRevision {
    /// One counter for all changes.
    Number(u64),
    /// The so-many-th operation of one origin.
    Operation { origin: String, number: u64 },
    /// Of the node's own view; not comparable.
    Local,
}

/// One thing that changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub kind: ChangeKind,
    /// The name or group; empty for a lease.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// Or member.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub owner: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub token: String,
    /// The lease that it is bound to, or that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<String>,
    /// Names: who holds it now, as the node sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeKind {
    Registered,
    Updated,
    /// A grant of a name ended because somebody ended it.
    Ended,
    /// A grant of a name ended with its lease, which ran out.
    Expired,
    Joined,
    Left,
    /// As `Expired`, of a membership.
    LeftExpired,
    LeaseExpired,
    Conflict,
    /// The node shows it no more, or again; no end and no beginning.
    Hidden,
    Shown,
}

impl ChangeKind {
    /// Whether the grant that it is about stands after it. What is about no grant says no.
    pub fn stands(self) -> bool {
        matches!(self, ChangeKind::Registered | ChangeKind::Joined | ChangeKind::Updated | ChangeKind::Shown)
    }

    pub fn is_of_group(self) -> bool {
        matches!(self, ChangeKind::Joined | ChangeKind::Left | ChangeKind::LeftExpired)
    }
}
