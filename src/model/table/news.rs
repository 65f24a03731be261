//! What applying has brought about, for those who follow the table.

use crate::model::event::{Change, Event};
use crate::model::ident::Revision;

/// What happened, in order. Whoever follows nothing drops it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// One for each revision, without gaps. The creation of a lease, and the end of one with nothing bound to it by its revocation,
    /// change no entry: their events are empty.
    pub events: Vec<Event>,
    pub leases: Vec<LeaseNews>,
}

/// The beginning or end of a lease, for whoever keeps its time. Its number is the revision that created it;
/// `under` is the leadership whose step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseNews {
    Began { number: u64, ttl_ms: u64, under: u64 },
    Ended { number: u64 },
}

impl News {
    pub(super) fn event(&mut self, revision: u64, changes: Vec<Change>) {
        self.events.push(Event { revision: Revision::Cp(revision), changes });
    }
}
