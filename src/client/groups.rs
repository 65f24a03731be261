//! Groups, as a client joins, reads and leaves them.

use super::client::Client;
use super::error::Error;
use super::word::{Granted, Listed, Word, ended, entries, granted, one, strange, word};
use crate::model::command::Action;
use crate::model::entry::Entry;
use crate::model::ident::{Group, LeaseId, Member, Meta, Token};
use crate::model::outcome::Ended;
use crate::model::query::{Answer, GroupCount, PAGE_LIMIT_MAX, Page, Query};

impl Client {
    /// Joins a group. Joining what the member is in already, by the same lease, changes its meta at most.
    pub fn join(&self, group: impl Word<Group>, member: impl Word<Member>) -> Join<'_> {
        let words = word(group).and_then(|group| Ok((group, word(member)?)));
        Join { client: self, words, meta: Ok(Meta::empty()), lease: None }
    }

    /// A member of a group, if it is one.
    pub async fn membership(&self, group: impl Word<Group>, member: impl Word<Member>) -> Result<Option<Entry>, Error> {
        one(self.query(&Query::Membership { group: word(group)?, member: word(member)?, token: None }).await)
    }

    /// Ends a membership: with its token that very one, without whatever stands there.
    pub async fn leave(
        &self,
        group: impl Word<Group>,
        member: impl Word<Member>,
        token: impl Into<Option<Token>>,
    ) -> Result<Ended, Error> {
        let (group, member) = (word(group)?, word(member)?);
        ended(self.execute(&Action::Leave { group, member, token: token.into() }).await)
    }

    /// One page of a group's members in byte order. Nobody in it: an empty page.
    pub async fn members(&self, group: impl Word<Group>, page: Page) -> Result<Listed<Entry>, Error> {
        entries(self.query(&Query::Members { group: word(group)?, page, node: None }).await)
    }

    /// All members of a group. More than one page is not one moment's truth: who was a member all the while is in it exactly once.
    pub async fn all_members(&self, group: impl Word<Group>) -> Result<Vec<Entry>, Error> {
        let group = word(group)?;
        let mut all = Vec::new();
        let mut after = None;
        loop {
            let page = Page { after, limit: PAGE_LIMIT_MAX, ..Page::default() };
            let listed = self.members(group.clone(), page).await?;
            all.extend(listed.items);
            match listed.next {
                Some(next) => after = Some(next),
                None => return Ok(all),
            }
        }
    }

    /// One page of the groups that have members, with how many.
    pub async fn groups(&self, page: Page) -> Result<Listed<GroupCount>, Error> {
        let reply = self.query(&Query::Groups { page }).await.map_err(Error::Unanswered)?;
        match reply.value {
            Answer::Groups { groups, next } => Ok(Listed { items: groups, next, revision: reply.revision }),
            other => Err(strange(&other)),
        }
    }
}

/// A joining that has not been sent yet.
#[derive(Debug)]
#[must_use = "nothing is sent before `send`"]
pub struct Join<'c> {
    client: &'c Client,
    words: Result<(Group, Member), Error>,
    meta: Result<Meta, Error>,
    lease: Option<LeaseId>,
}

impl Join<'_> {
    /// A JSON object that rides on it.
    pub fn meta(mut self, meta: impl Word<Meta>) -> Self {
        self.meta = word(meta);
        self
    }

    /// The lease that it is to end with.
    pub fn lease(mut self, lease: &LeaseId) -> Self {
        self.lease = Some(lease.clone());
        self
    }

    /// Sends it.
    pub async fn send(self) -> Result<Granted, Error> {
        let client = self.client;
        granted(client.execute(&self.action()?).await)
    }

    /// The command that would be sent.
    pub fn action(self) -> Result<Action, Error> {
        let (group, member) = self.words?;
        Ok(Action::Join { group, member, meta: self.meta?, lease: self.lease })
    }
}
