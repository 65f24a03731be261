//! The registry's calls in ZooKeeper's words.
//!
//! Beside each entry stands a counter, touched by the transaction that makes the entry. A grant is ended by its token in one
//! transaction that checks the counter's version of that grant, so that a successor's is never ended.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, anyhow};
use async_trait::async_trait;
use percent_encoding::percent_decode_str;

use super::connection::{Lack, Session};
use super::jute::{Answer, BAD_VERSION, NO_NODE, NODE_EXISTS, Request, Stat};
use super::{COUNTERS, GROUPS, NAMES};
use crate::referee::client::{Client, Completion};
use crate::referee::history::{Found, Joined, Membership, Registered, Unregistered, What};
use crate::wire::path::quote;

/// Of each grant that somebody was told of, the version of its counter. The referee's memory: a client of ZooKeeper's own would
/// keep it beside the token.
pub type Versions = Arc<Mutex<HashMap<(String, i64), i32>>>;

/// A client of one server.
pub struct ZooKeeperClient {
    session: Session,
    versions: Versions,
}

/// What an entry is kept by.
struct Paths {
    entry: String,
    counter: String,
    /// What the entry lies in, where it is not always there.
    above: Option<String>,
}

impl Paths {
    fn of_name(name: &str) -> Self {
        let name = quote(name);
        Self { entry: format!("{NAMES}/{name}"), counter: format!("{COUNTERS}/n:{name}"), above: None }
    }

    fn of_member(group: &str, member: &str) -> Self {
        let (group, member) = (quote(group), quote(member));
        let above = format!("{GROUPS}/{group}");
        Self {
            entry: format!("{above}/{member}"),
            counter: format!("{COUNTERS}/g:{group}:{member}"),
            above: Some(above),
        }
    }
}

/// A grant that was made, or the one that stood in its way.
enum Made {
    New(i64),
    Other(String, i64),
}

pub fn unquoted(path: &str) -> anyhow::Result<String> {
    Ok(percent_decode_str(path).decode_utf8()?.into_owned())
}

#[async_trait]
impl Client for ZooKeeperClient {
    async fn call(&mut self, what: &What, deadline: Instant) -> Completion {
        match self.done(what, deadline).await {
            Ok(Some(what)) => Completion::Ok(what),
            Ok(None) => Completion::Fail("no call of this system's".to_owned()),
            Err(Lack::Unsent(why)) => Completion::Fail(format!("{why:#}")),
            Err(Lack::Unknown(why)) if what.is_read() => Completion::Fail(format!("{why:#}")),
            Err(Lack::Unknown(why)) => Completion::Info(format!("{why:#}")),
        }
    }
}

/// It may have done anything.
fn odd(answer: impl std::fmt::Debug) -> Lack {
    Lack::Unknown(anyhow!("an answer that does not fit the call: {answer:?}"))
}

impl ZooKeeperClient {
    pub fn new(server: SocketAddr, versions: Versions) -> Self {
        Self { session: Session::new(server), versions }
    }

    async fn done(&mut self, what: &What, deadline: Instant) -> Result<Option<What>, Lack> {
        let mut what = what.clone();
        match &mut what {
            What::Register { name, owner, result, .. } => {
                *result = Some(match self.make(&Paths::of_name(name), owner, deadline).await? {
                    Made::New(token) => Registered::Granted { token: token.to_string() },
                    Made::Other(other, token) if other == *owner => Registered::Held { token: token.to_string() },
                    Made::Other(owner, token) => Registered::Taken { owner, token: token.to_string() },
                });
            }
            What::Unregister { name, token, result } => {
                *result = Some(self.end(&Paths::of_name(name), token.as_deref(), deadline).await?);
            }
            What::Join { group, member, result, .. } => {
                let made = self.make(&Paths::of_member(group, member), member, deadline).await?;
                let (new, token) = match made {
                    Made::New(token) => (true, token),
                    Made::Other(_, token) => (false, token),
                };
                *result = Some(Joined { token: token.to_string(), new, no_lease: false, revision: None });
            }
            What::Leave { group, member, token, result } => {
                *result = Some(self.end(&Paths::of_member(group, member), token.as_deref(), deadline).await?);
            }
            What::Whereis { name, result } => {
                let path = Paths::of_name(name).entry;
                let found = match self.synced(&path, Request::Get { path: path.clone() }, deadline).await? {
                    Answer::Data(owner, stat) => Found { owner: Some(owner), token: Some(stat.created.to_string()) },
                    Answer::Refused(NO_NODE) => Found { owner: None, token: None },
                    other => return Err(odd(other)),
                };
                *result = Some(found);
            }
            What::Members { group, result } => {
                let path = format!("{GROUPS}/{}", quote(group));
                let members = match self.synced(&path, Request::Children { path: path.clone() }, deadline).await? {
                    Answer::Children(members) => members.iter().map(|m| unquoted(m)).collect::<anyhow::Result<_>>(),
                    Answer::Refused(NO_NODE) => Ok(BTreeSet::new()),
                    other => return Err(odd(other)),
                };
                *result = Some(Membership {
                    members: members.map_err(Lack::Unknown)?,
                    twice: BTreeSet::new(),
                    revision: None,
                });
            }
            _ => return Ok(None),
        }
        Ok(Some(what))
    }

    /// Asks after the server has caught up with its leader.
    async fn synced(&mut self, path: &str, request: Request, deadline: Instant) -> Result<Answer, Lack> {
        let asked = [Request::Sync { path: path.to_owned() }, request];
        let answers = self.session.ask_all(&asked, deadline).await?;
        match <[Answer; 2]>::try_from(answers) {
            // Nothing of that name is there to be synced, and all the same it has been.
            Ok([Answer::Done | Answer::Refused(NO_NODE), answer]) => Ok(answer),
            Ok(other) => Err(odd(other)),
            Err(other) => Err(odd(other)),
        }
    }

    fn note(&self, paths: &Paths, token: i64, version: i32) {
        let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        versions.insert((paths.entry.clone(), token), version);
    }

    /// Creates the entry if it is not there. A refused attempt did nothing, so that what is known is what the last one leaves.
    async fn make(&mut self, paths: &Paths, owner: &str, deadline: Instant) -> Result<Made, Lack> {
        loop {
            let touch = Request::Touch { path: paths.counter.clone() };
            let create = Request::Create { path: paths.entry.clone(), data: owner.to_owned() };
            match self.session.ask(Request::Multi(vec![touch, create]), deadline).await? {
                Answer::Multi(parts) => match parts.as_slice() {
                    // The transaction that touched the counter is the one that created the entry.
                    [Answer::Stat(Stat { version, changed, .. }), Answer::Done] => {
                        self.note(paths, *changed, *version);
                        return Ok(Made::New(*changed));
                    }
                    parts if parts.contains(&Answer::Refused(NO_NODE)) => self.prepare(paths, deadline).await?,
                    parts if parts.contains(&Answer::Refused(NODE_EXISTS)) => {
                        if let Some((owner, token)) = self.current(paths, deadline).await? {
                            return Ok(Made::Other(owner, token));
                        }
                    }
                    other => return Err(odd(other)),
                },
                other => return Err(odd(other)),
            }
        }
    }

    /// Makes what the entry's transaction needs.
    async fn prepare(&mut self, paths: &Paths, deadline: Instant) -> Result<(), Lack> {
        for path in [Some(&paths.counter), paths.above.as_ref()].into_iter().flatten() {
            let create = Request::Create { path: path.clone(), data: String::new() };
            match self.session.ask(create, deadline).await {
                Ok(Answer::Done | Answer::Refused(NODE_EXISTS)) => {}
                Ok(other) => return Err(Lack::Unsent(anyhow!("{path} cannot be made: {other:?}"))),
                // Whatever became of it, the entry was not touched.
                Err(Lack::Unsent(why) | Lack::Unknown(why)) => return Err(Lack::Unsent(why)),
            }
        }
        Ok(())
    }

    /// Who holds the entry, as this server knows it: at least as new as what it has refused before.
    async fn current(&mut self, paths: &Paths, deadline: Instant) -> Result<Option<(String, i64)>, Lack> {
        let answer = self.session.ask(Request::Get { path: paths.entry.clone() }, deadline).await;
        match answer.map_err(|(Lack::Unsent(why) | Lack::Unknown(why))| Lack::Unsent(why))? {
            Answer::Data(owner, stat) => Ok(Some((owner, stat.created))),
            Answer::Refused(NO_NODE) => Ok(None),
            other => Err(Lack::Unsent(anyhow!("who holds it cannot be told: {other:?}"))),
        }
    }

    async fn end(&mut self, paths: &Paths, token: Option<&str>, deadline: Instant) -> Result<Unregistered, Lack> {
        let delete = Request::Delete { path: paths.entry.clone() };
        let Some(token) = token else {
            return match self.session.ask(delete, deadline).await? {
                Answer::Done => Ok(Unregistered::Now),
                Answer::Refused(NO_NODE) => Ok(Unregistered::Absent),
                other => Err(odd(other)),
            };
        };
        let Some(version) = self.version(paths, token, deadline).await? else { return Ok(Unregistered::Before) };
        let check = Request::Check { path: paths.counter.clone(), version };
        match self.session.ask(Request::Multi(vec![check, delete]), deadline).await? {
            Answer::Multi(parts) => match parts.as_slice() {
                [Answer::Done, Answer::Done] => Ok(Unregistered::Now),
                // Made again since, or not there.
                parts if parts.iter().any(|part| matches!(part, Answer::Refused(BAD_VERSION | NO_NODE))) => {
                    Ok(Unregistered::Before)
                }
                other => Err(odd(other)),
            },
            other => Err(odd(other)),
        }
    }

    /// The counter's version of a grant; None if that grant does not stand any more.
    async fn version(&mut self, paths: &Paths, token: &str, deadline: Instant) -> Result<Option<i32>, Lack> {
        let none = |(Lack::Unsent(why) | Lack::Unknown(why))| Lack::Unsent(why);
        let token: i64 = token.parse().context("no token of this system's").map_err(Lack::Unsent)?;
        let known = {
            let versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
            versions.get(&(paths.entry.clone(), token)).copied()
        };
        if known.is_some() {
            return Ok(known);
        }
        // A grant whose maker was never told. The counter first: were it made again between the two, the check would refuse.
        let counter = Request::Exists { path: paths.counter.clone() };
        let counter = self.synced(&paths.counter, counter, deadline).await.map_err(none)?;
        match (counter, self.current(paths, deadline).await?) {
            (Answer::Stat(stat), Some((_, current))) if current == token => Ok(Some(stat.version)),
            _ => Ok(None),
        }
    }
}
