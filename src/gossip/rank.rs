//! Who keeps a name that several owners hold: a total order over fields that never change, the same whoever looks.

use std::fmt;
use std::str::FromStr;

use super::context::OpId;
use super::operation::Grant;

/// The cluster's policy for conflicts; a constant that handshakes compare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// The established owner keeps the name.
    #[default]
    Oldest,
    /// The last one to register gets it.
    Newest,
}

impl Policy {
    pub fn as_str(self) -> &'static str {
        match self {
            Policy::Oldest => "oldest",
            Policy::Newest => "newest",
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Policy {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "oldest" => Ok(Policy::Oldest),
            "newest" => Ok(Policy::Newest),
            _ => Err(format!("{text:?} is no conflict policy: it is oldest or newest")),
        }
    }
}

/// A grant's place. The smallest is the best; no two grants have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank(u64, u32, u64, OpId);

impl Rank {
    pub fn of(policy: Policy, grant: &Grant) -> Self {
        match policy {
            Policy::Oldest => {
                let line = grant.lineage();
                // A takeover inherits its victim's root and counts one more: it is above its victim
                // wherever the two meet, and below whoever was there before that line began.
                Rank(line.root, u32::MAX - line.takeovers, grant.hlc, grant.id)
            }
            // A takeover's stamp is above all that its node knew, its victim's too.
            Policy::Newest => Rank(u64::MAX - grant.hlc, 0, 0, grant.id),
        }
    }
}
