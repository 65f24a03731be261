//! Leases, call by call. [`super::lease`] is what keeps one alive by itself.

use std::time::Duration;

use super::client::Client;
use super::error::Error;
use super::word::{Listed, Word, ended, strange, strange_outcome, word};
use crate::model::command::Action;
use crate::model::ident::{LeaseId, Mode, RecordId};
use crate::model::lease::{KeptAlive, LeaseInfo, LeaseStatus};
use crate::model::outcome::{Ended, Outcome, Refusal};
use crate::model::query::{Answer, Page, Query};
use crate::registry::Reply;

/// A lease that lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    pub lease: LeaseId,
    pub ttl: Duration,
    /// Whether this call made it. Otherwise it lived already, and this call has kept it alive.
    pub new: bool,
}

impl Client {
    /// Makes a lease that ends after so long (a second to a day) unless it is kept alive, and with it whatever is bound to it. Under
    /// an id of the caller's own the call may be repeated; without one the registry chooses.
    pub async fn create_lease(&self, id: Option<&LeaseId>, ttl: Duration) -> Result<Made, Error> {
        let action = Action::CreateLease { lease: id.cloned(), ttl_ms: ttl.as_millis() as u64, credential: None };
        // Nothing is bound yet to a lease that nobody has heard of: it ends by itself, and another one may be asked for.
        let (outcome, new) = match self.execute_as(&action, true).await?.value {
            Outcome::LeaseCreated { lease, ttl_ms } => ((lease, ttl_ms), true),
            Outcome::LeaseHeld { lease, ttl_ms } => ((lease, ttl_ms), false),
            Outcome::Refused(refusal) => return Err(Error::refused(refusal)),
            other @ (Outcome::Granted { .. } | Outcome::Held { .. } | Outcome::Ended(_)) => {
                return Err(strange_outcome(&other));
            }
        };
        let (lease, ttl_ms) = outcome;
        Ok(Made { lease, ttl: Duration::from_millis(ttl_ms), new })
    }

    /// Keeps a lease alive. `seen`: records of lost names that need not be told again.
    ///
    /// What the answer says of time counts from before this call was made.
    pub async fn keep_alive(&self, lease: &LeaseId, seen: &[RecordId]) -> Result<KeptAlive, Error> {
        let mut tries = self.tries(true);
        loop {
            let (caller, options) = self.next(&tries);
            let result = match caller.keep_alive(self.mode(), lease, seen, &options).await {
                // In `ap` one server may not have heard of a lease that another one keeps.
                Ok(Err(Refusal::LeaseUnknown)) if self.mode() == Mode::Ap && tries.elsewhere().await => continue,
                Ok(Err(refusal)) => return Err(Error::refused(refusal)),
                Ok(Ok(kept)) => Ok(kept),
                Err(error) => Err(error),
            };
            if let Some(ended) = tries.end(result).await {
                return Ok(ended?);
            }
        }
    }

    /// Keeps up to 1,000 leases alive in one call; what became of each, in their order.
    pub async fn keep_alive_each(
        &self,
        leases: &[LeaseId],
        seen: &[RecordId],
    ) -> Result<Vec<Result<KeptAlive, Refusal>>, Error> {
        let mut tries = self.tries(true);
        loop {
            let (caller, options) = self.next(&tries);
            let result = caller.keep_alive_each(self.mode(), leases, seen, &options).await;
            if let Some(ended) = tries.end(result).await {
                return Ok(ended?);
            }
        }
    }

    /// Ends a lease, and all that is bound to it, at once.
    pub async fn revoke_lease(&self, lease: impl Word<LeaseId>) -> Result<Ended, Error> {
        ended(self.execute(&Action::RevokeLease { lease: word(lease)?, by: None }).await)
    }

    /// A live lease, with a page of what is bound to it; none if it has ended or never was.
    pub async fn lease_status(&self, lease: impl Word<LeaseId>, page: Page) -> Result<Option<LeaseStatus>, Error> {
        match self.query(&Query::Lease { lease: word(lease)?, page }).await.map_err(Error::Unanswered)?.value {
            Answer::Lease(status) => Ok(Some(status)),
            Answer::Refused(Refusal::LeaseUnknown | Refusal::LeaseExpired | Refusal::NotFound) => Ok(None),
            Answer::Refused(refusal) => Err(Error::refused(refusal)),
            other => Err(strange(&other)),
        }
    }

    /// One page of the live leases, in byte order of their ids.
    pub async fn leases(&self, page: Page) -> Result<Listed<LeaseInfo>, Error> {
        let reply = self.query(&Query::Leases { page }).await.map_err(Error::Unanswered)?;
        match reply.value {
            Answer::Leases { leases, next } => Ok(Listed { items: leases, next, revision: reply.revision }),
            other => Err(strange(&other)),
        }
    }

    /// Carries out up to 1,000 commands in order, none of them of a lease; what became of each. One that is refused stops none. `cp`: all
    /// are applied or none.
    pub async fn batch(&self, actions: &[Action]) -> Result<Reply<Vec<Outcome>>, Error> {
        // Safe to repeat only if every single one of them is.
        let mut tries = self.tries(actions.iter().all(Action::retry_is_safe));
        loop {
            let (caller, options) = self.next(&tries);
            let result = caller.batch(self.mode(), actions, &options).await;
            if let Some(ended) = tries.end(result).await {
                return Ok(ended?);
            }
        }
    }
}
