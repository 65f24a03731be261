//! Being in a group for as long as one lives, and seeing who else is.

use std::time::Duration;

use super::client::Client;
use super::error::Error;
use super::lease::{Lease, Lost};
use super::watch::Watch;
use super::word::{Granted, Word, word};
use crate::model::entry::Entry;
use crate::model::event::Filter;
use crate::model::ident::{Group as GroupName, Member, Meta};
use crate::model::outcome::Ended;

/// A group, as one of its members or an onlooker sees it.
///
/// ```no_run
/// # async fn example(client: quorate::client::client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use quorate::client::group::Group;
///
/// let room = Group::new(&client, "room-7")?;
/// let me = room.join("alice", r#"{"typing":false}"#, Duration::from_secs(10)).await?;
/// for member in room.members().await? {
///     println!("{}", member.holder_text());
/// }
/// me.leave().await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Group {
    client: Client,
    group: GroupName,
}

/// A membership that is kept alive. Dropped, it is kept no longer and ends with its lease.
#[derive(Debug)]
pub struct Membership {
    lease: Lease,
    granted: Granted,
}

impl Group {
    pub fn new(client: &Client, group: impl Word<GroupName>) -> Result<Self, Error> {
        Ok(Self { client: client.clone(), group: word(group)? })
    }

    /// Joins, for as long as the membership is kept, and at most `ttl` (and a second) longer.
    pub async fn join(
        &self,
        member: impl Word<Member>,
        meta: impl Word<Meta>,
        ttl: Duration,
    ) -> Result<Membership, Error> {
        let (member, meta) = (word::<Member>(member)?, word::<Meta>(meta)?);
        let lease = self.client.lease(ttl).await?;
        match lease.join(self.client.join(&self.group, member).meta(meta)).await {
            Ok(granted) => Ok(Membership { lease, granted }),
            Err(error) => {
                // What was perhaps joined is not kept. If this fails too, the lease ends by itself.
                let _ = lease.close().await;
                Err(error)
            }
        }
    }

    /// Who is in it now.
    pub async fn members(&self) -> Result<Vec<Entry>, Error> {
        self.client.all_members(&self.group).await
    }

    /// Who is in it now, and then who joins and leaves.
    pub fn watch(&self) -> Watch {
        self.client.watch(Filter { groups: vec![self.group.clone()], ..Filter::default() }).with_state()
    }
}

impl Membership {
    pub fn entry(&self) -> &Entry {
        &self.granted.entry
    }

    /// The lease that it ends with: more may be bound to it.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Waits until the membership is over, or may be: join again.
    pub async fn lost(&self) -> Lost {
        self.lease.lost().await
    }

    /// Leaves at once.
    pub async fn leave(self) -> Result<Ended, Error> {
        self.lease.close().await
    }
}
