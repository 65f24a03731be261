//! Elections: many want one name, one holds it, and knows in time when it does not any more.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::call::Cause;
use super::client::Client;
use super::error::Error;
use super::lease::{Lease, Loss, Lost};
use super::watch::{Seen, WatchError};
use super::word::{Granted, Word, word};
use crate::model::event::{Change, Filter};
use crate::model::ident::{Meta, Name, Owner, Revision, Token};
use crate::model::outcome::{Ended, Refusal};

/// A candidate that hears nothing for so long asks again: a watch may be behind in `ap`, where no position tells that.
const ASK_AGAIN: Duration = Duration::from_secs(30);
/// The pause after a registration that failed, before the next one.
const RETRY: Duration = Duration::from_millis(250);

/// A candidate for a name.
///
/// ```no_run
/// # async fn example(client: quorate::client::client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use quorate::client::election::Election;
///
/// let election = Election::new(&client, "scheduler", "worker-1")?.ttl(Duration::from_secs(10));
/// let held = election.campaign().await?;
/// let token = held.token();
/// tokio::select! {
///     why = held.lost() => println!("stop at once: {why}"),
///     () = work(token) => { held.resign().await?; }
/// }
/// # Ok(()) }
/// # async fn work(_: quorate::model::ident::Token) {}
/// ```
#[derive(Clone, Debug)]
pub struct Election {
    client: Client,
    name: Name,
    owner: Owner,
    meta: Meta,
    ttl: Duration,
}

/// A name that is held. Dropped, it is kept no longer and ends with its lease.
#[derive(Debug)]
pub struct Held {
    name: Name,
    lease: Lease,
    granted: Granted,
}

/// Why a name is not held any more, or may not be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LostName {
    #[error("{0}")]
    Lease(Lost),
    /// Somebody took the name over, or it lost a conflict after a partition.
    #[error("the name was taken")]
    Taken(Box<Loss>),
}

impl Election {
    /// A candidate; two with the same owner are two candidates all the same. Its lease lives for 10 s unless told otherwise.
    pub fn new(client: &Client, name: impl Word<Name>, owner: impl Word<Owner>) -> Result<Self, Error> {
        let (name, owner) = (word(name)?, word(owner)?);
        Ok(Self { client: client.clone(), name, owner, meta: Meta::empty(), ttl: Duration::from_secs(10) })
    }

    /// How long the name outlives its holder at most (and a second more).
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// A JSON object that rides on the name.
    pub fn meta(mut self, meta: Meta) -> Self {
        self.meta = meta;
        self
    }

    /// Holds the name now, or tells who holds it: [`Refusal::NameTaken`].
    pub async fn try_now(&self) -> Result<Held, Error> {
        let lease = self.client.lease(self.ttl).await?;
        match self.register(&lease).await {
            Ok(granted) => Ok(self.held(lease, granted)),
            Err((error, _)) => {
                // What was perhaps granted is not kept. If this fails too, the lease ends by itself.
                let _ = lease.close().await;
                Err(error)
            }
        }
    }

    /// Waits until the name can be held, and holds it. It returns an error only for what will not get better by waiting: a candidate
    /// goes on while no server can be reached.
    pub async fn campaign(&self) -> Result<Held, Error> {
        loop {
            let lease = match self.client.lease(self.ttl).await {
                Ok(lease) => lease,
                Err(error) => {
                    passing(error)?;
                    sleep(RETRY.mul_f64(rand::random_range(0.5..1.5))).await;
                    continue;
                }
            };
            // None: the lease was lost while it waited. With another one it is another candidate.
            if let Some(granted) = self.campaign_with(&lease).await? {
                return Ok(self.held(lease, granted));
            }
        }
    }

    async fn campaign_with(&self, lease: &Lease) -> Result<Option<Granted>, Error> {
        while lease.is_held() {
            match self.register(lease).await {
                Ok(granted) => return Ok(Some(granted)),
                Err((error, revision)) => match (error.refusal(), revision) {
                    (Some(Refusal::NameTaken { .. }), Some(revision)) => {
                        tokio::select! {
                            waited = self.wait_until_free(revision) => waited?,
                            _ = lease.lost() => {}
                        }
                    }
                    (Some(Refusal::LeaseExpired | Refusal::LeaseUnknown), _) => return Ok(None),
                    _ => {
                        passing(error)?;
                        sleep(RETRY.mul_f64(rand::random_range(0.5..1.5))).await;
                    }
                },
            }
        }
        Ok(None)
    }

    fn held(&self, lease: Lease, granted: Granted) -> Held {
        Held { name: self.name.clone(), lease, granted }
    }

    /// With a refusal, how far the server was that refused.
    async fn register(&self, lease: &Lease) -> Result<Granted, (Error, Option<Revision>)> {
        let register = self.client.register(&self.name, &self.owner).meta(&self.meta).lease(lease.id());
        let action = register.action().map_err(|error| (error, None))?;
        lease.bind(action).await
    }

    /// Waits until somebody may have given the name up, after that revision; nothing that happens in between is missed.
    async fn wait_until_free(&self, revision: Revision) -> Result<(), Error> {
        let filter = Filter { names: vec![self.name.clone()], ..Filter::default() };
        let mut watch = self.client.watch(filter).resume(revision);
        let until = Instant::now() + ASK_AGAIN;
        while let Ok(seen) = timeout_at(until, watch.next()).await {
            match seen {
                Ok(seen) if may_be_free(&seen) => break,
                Ok(_) => {}
                Err(WatchError::Rejected(cause)) => return Err(Error::Unanswered(cause)),
                Err(WatchError::Compacted { .. }) => break,
            }
        }
        Ok(())
    }
}

/// Whether what a watch of one name has told is worth asking for it again.
fn may_be_free(seen: &Seen) -> bool {
    match seen {
        Seen::Change(event) => event.changes.iter().any(|change| match change {
            Change::Ended { .. } | Change::Hidden { .. } | Change::Conflict { .. } => true,
            Change::Registered { .. }
            | Change::Updated { .. }
            | Change::Joined { .. }
            | Change::Left { .. }
            | Change::LeaseExpired { .. }
            | Change::Shown { .. } => false,
        }),
        Seen::Resync => true,
        Seen::State(_) | Seen::Synced | Seen::Progress { .. } | Seen::Stalled | Seen::Interrupted(_) => false,
    }
}

/// Whether waiting may help.
fn passing(error: Error) -> Result<(), Error> {
    match &error {
        Error::NotApplied(Cause::Rejected { .. }) | Error::Unknown(Cause::Rejected { .. }) => Err(error),
        Error::Refused(_) | Error::Word(_) | Error::Unanswered(_) => Err(error),
        Error::NotApplied(_) | Error::Unknown(_) => Ok(()),
    }
}

impl Held {
    /// The fencing token of this grant: what is guarded by the name refuses whoever shows an older one.
    pub fn token(&self) -> Token {
        self.granted.entry.token
    }

    /// How the name was granted.
    pub fn granted(&self) -> &Granted {
        &self.granted
    }

    /// The lease that it ends with: more may be bound to it.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Whether the lease is surely alive: ask before each step that must not be taken by two.
    pub fn is_held(&self) -> bool {
        self.lease.is_held()
    }

    /// How long that is so without another keep-alive.
    pub fn remaining(&self) -> Duration {
        self.lease.remaining()
    }

    /// Waits until the name is lost, or may be: stop at once.
    pub async fn lost(&self) -> LostName {
        loop {
            tokio::select! {
                lost = self.lease.lost() => return LostName::Lease(lost),
                loss = self.lease.next_loss() => {
                    if self.is_mine(&loss) {
                        return LostName::Taken(Box::new(loss));
                    }
                }
            }
        }
    }

    fn is_mine(&self, loss: &Loss) -> bool {
        match loss {
            // Whatever a lease tells as lost was bound to it.
            Loss::Record(record) => record.name == self.name,
            Loss::Taken { was, .. } => *was == self.granted.entry.holder,
        }
    }

    /// Gives the name up: the next candidate has it at once.
    pub async fn resign(self) -> Result<Ended, Error> {
        self.lease.close().await
    }
}
