//! The replicated table of `cp`: every replica applies the same steps in the same order and computes the same outcomes.
//!
//! [`names`] and [`groups`] hold the rules of registering and joining, on [`grant`]s; [`leases`] what leases are live or ended and what
//! is bound to them, [`lost`] what their keepers have lost to others; [`ask`] answers questions. What changes tells [`news`] of it:
//! one event for each revision.
//!
//! A clone is O(1) and shares structure, so that a snapshot is a clone and readers never wait for a writer.

mod ask;
mod decode;
mod grant;
mod groups;
mod leases;
mod lost;
mod names;
mod news;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::command::{Action, Command};
use super::event::Change;
use super::ident::{Group, Member, Name, Owner};
use super::outcome::Outcome;
use super::step::{Outcomes, Step};
use grant::Grant;
use leases::Leases;
use lost::Lost;

pub use ask::{entries_page, found};
pub use leases::{ENDED_KEPT_MAX, LeaseFacts, RELEASES_PER_EVENT_MAX};
pub use lost::LOST_PER_LEASE_MAX;
pub use news::{LeaseNews, News};

/// More revisions than a cluster makes in the time between a backup and its end.
pub const ANEW_ABOVE: u64 = 1 << 40;

/// Names, groups, leases, and the counter that numbers every change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// +1 for every command that changed something; a grant's token is the revision that made it, so tokens only rise.
    revision: u64,
    #[serde(deserialize_with = "decode::map")]
    names: OrdMap<Name, (Owner, Grant)>,
    #[serde(deserialize_with = "decode::map_of_maps")]
    groups: OrdMap<Group, OrdMap<Member, Grant>>,
    leases: Leases,
    lost: Lost,
}

impl Table {
    /// How many changes there have been so far.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Begins anew as another cluster's: revisions go on far above any that the old one can have given out since, and leases have all of
    /// their time.
    pub fn begin_anew(&mut self) {
        self.revision += ANEW_ABOVE;
        self.leases.begin_anew();
    }

    /// The steps from here on were proposed under this leadership (Raft's term, which only rises).
    pub fn lead(&mut self, leadership: u64) {
        self.leases.lead(leadership);
    }

    /// Carries out one step, as [`apply`](Self::apply) does each of its commands.
    pub fn take(&mut self, step: &Step, news: &mut News) -> Outcomes {
        match step {
            Step::Command(command) => return Outcomes::One(self.apply(command, news)),
            Step::Batch(commands) => {
                return Outcomes::Each(commands.iter().map(|command| self.apply(command, news)).collect());
            }
            Step::Expire { leases } => leases.iter().for_each(|number| self.expire(*number, news)),
            Step::KeptAlive { leases } => leases.iter().for_each(|number| self.leases.kept_alive(*number)),
            Step::Aged { ms } => self.leases.aged(*ms),
            Step::Seen { records } => records.iter().for_each(|key| self.lost.forget(*key)),
        }
        Outcomes::None
    }

    /// Applies one command. Total: it refuses, but never fails. A refusal changes nothing, not even the revision; a change adds one
    /// event to the news, and one to the revision (more only when a lease with more than [`RELEASES_PER_EVENT_MAX`] entries ends).
    pub fn apply(&mut self, command: &Command, news: &mut News) -> Outcome {
        match &command.action {
            Action::Register { .. } => self.register(command, news),
            Action::Unregister { name, token } => self.unregister(name, *token, news),
            Action::Join { .. } => self.join(command, news),
            Action::Leave { group, member, token } => self.leave(group, member, *token, news),
            Action::CreateLease { lease, ttl_ms, credential } => {
                self.create_lease(lease.as_ref(), *ttl_ms, credential.as_ref(), news)
            }
            Action::RevokeLease { lease, by } => self.revoke_lease(lease, by.as_ref(), news),
        }
    }

    /// Counts a change, and tells it.
    fn changed(&mut self, changes: Vec<Change>, news: &mut News) {
        self.revision += 1;
        news.event(self.revision, changes);
    }
}
