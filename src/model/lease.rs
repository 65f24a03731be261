//! What callers see of a lease: a time-to-live that a client keeps alive, and what ends with it.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::conflict::ConflictRecord;
use super::entry::{Entry, Holder};
use super::ident::{CredentialName, LeaseId};

/// The shortest time-to-live that can be asked for.
pub const TTL_MS_MIN: u64 = 1_000;
/// The longest time-to-live that can be asked for: a day.
pub const TTL_MS_MAX: u64 = 86_400_000;
/// How many leases one call can keep alive.
pub const KEEP_ALIVE_LEN_MAX: usize = 1_000;

/// A live lease, as a list shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseInfo {
    pub lease: LeaseId,
    pub ttl_ms: u64,
    /// Who made it, if credentials were asked for then.
    pub credential: Option<CredentialName>,
}

/// A live lease with what is bound to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseStatus {
    pub info: LeaseInfo,
    /// How long it lives from now if nobody keeps it alive, as far as the answering node can tell.
    pub expires_in_ms: u64,
    /// One page of the entries that end with it.
    pub entries: Vec<Entry>,
    /// What to pass as the next page's `after`.
    pub next: Option<String>,
}

/// A lease that was kept alive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptAlive {
    /// It lives so long, counted from when the caller *sent* its keep-alive.
    pub expires_in_ms: u64,
    /// Grants bound to this lease that lost their name, until a keep-alive says that it has seen the record.
    pub lost: Vec<ConflictRecord>,
    /// `ap`: another node keeps it from now on, and may not know all that was registered under it: register it again.
    pub moved: bool,
}

/// Where a page of a lease's entries that ends with this one goes on. Opaque to callers.
pub fn cursor(holder: &Holder) -> String {
    let mut text = String::new();
    match holder {
        Holder::Owner(name, _) => write!(text, "name:{name}"),
        // No identifier holds a control character, so this one tells where the group ends.
        Holder::Member(group, member) => write!(text, "member:{group}\u{1f}{member}"),
    }
    .expect("a String takes all");
    text
}

/// Whether an entry comes after the one that a [`cursor`] was made of. None: it is no cursor.
pub fn is_after(holder: &Holder, cursor: &str) -> Option<bool> {
    if let Some(last) = cursor.strip_prefix("name:") {
        return Some(match holder {
            Holder::Owner(name, _) => name.as_str() > last,
            Holder::Member(..) => true,
        });
    }
    let (last_group, last_member) = cursor.strip_prefix("member:")?.split_once('\u{1f}')?;
    Some(match holder {
        Holder::Owner(..) => false,
        Holder::Member(group, member) => (group.as_str(), member.as_str()) > (last_group, last_member),
    })
}
