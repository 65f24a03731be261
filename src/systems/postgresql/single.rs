//! One database that holds the truth: each call is one statement.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::connection::{Database, Lack};
use super::keys;
use crate::referee::client::{Client, Completion};
use crate::referee::history::{Found, Joined, Membership, Registered, Unregistered, What};
use crate::systems::doors::{Door, Killed};

/// A client of the database that stands at a node.
pub struct SingleClient {
    door: Arc<Door>,
    database: Database,
}

impl SingleClient {
    pub fn new(door: Arc<Door>, addr: SocketAddr) -> Self {
        Self { database: Database::new(door.clone(), addr), door }
    }
}

#[async_trait]
impl Client for SingleClient {
    async fn call(&mut self, what: &What, deadline: Instant) -> Completion {
        let done = match self.door.clone().through(self.done(what, deadline)).await {
            Ok(done) => done,
            Err(Killed) => {
                self.database.close();
                Err(Lack::Unknown("its node was killed".to_owned()))
            }
        };
        completed(what, done)
    }
}

/// What is recorded of a call.
pub fn completed(what: &What, done: Result<Option<What>, Lack>) -> Completion {
    match done {
        Ok(Some(what)) => Completion::Ok(what),
        Ok(None) => Completion::Fail("no call of this system's".to_owned()),
        Err(Lack::NotDone(why)) => Completion::Fail(why),
        Err(Lack::Unknown(why)) if what.is_read() => Completion::Fail(why),
        Err(Lack::Unknown(why)) => Completion::Info(why),
    }
}

pub fn owner_and_token(row: &Row) -> Result<(String, String), Lack> {
    let odd = |why: tokio_postgres::Error| Lack::Unknown(format!("an answer that does not fit the call: {why}"));
    let token: i64 = row.try_get(1).map_err(odd)?;
    Ok((row.try_get(0).map_err(odd)?, token.to_string()))
}

/// The token, as the database keeps it.
pub fn number(token: &str) -> Result<i64, Lack> {
    token.parse().map_err(|_| Lack::NotDone(format!("{token:?} is no token of this system's")))
}

/// A question, asked of any database.
pub async fn read(database: &mut Database, what: &What, deadline: Instant) -> Result<Option<What>, Lack> {
    Ok(match what {
        What::Whereis { name, .. } => {
            let found = match current(database, &keys::name(name), deadline).await? {
                Some((owner, token)) => Found { owner: Some(owner), token: Some(token) },
                None => Found { owner: None, token: None },
            };
            Some(What::Whereis { name: name.clone(), result: Some(found) })
        }
        What::Members { group, .. } => {
            let sql = "SELECT owner, token FROM entries WHERE starts_with(key, $1)";
            let rows = database.query(sql, &[(&keys::group(group), Type::TEXT)], deadline).await?;
            let members = rows.iter().map(|row| Ok(owner_and_token(row)?.0)).collect::<Result<BTreeSet<_>, Lack>>()?;
            let result = Some(Membership { members, twice: BTreeSet::new(), revision: None });
            Some(What::Members { group: group.clone(), result })
        }
        _ => None,
    })
}

/// Who holds an entry.
pub async fn current(database: &mut Database, key: &str, deadline: Instant) -> Result<Option<(String, String)>, Lack> {
    let sql = "SELECT owner, token FROM entries WHERE key = $1";
    let rows = database.query(sql, &[(&key, Type::TEXT)], deadline).await?;
    rows.first().map(owner_and_token).transpose()
}

/// Whether it was made now; whose it is.
struct Made {
    new: bool,
    owner: String,
    token: String,
}

impl SingleClient {
    async fn done(&mut self, what: &What, deadline: Instant) -> Result<Option<What>, Lack> {
        let mut what = what.clone();
        match &mut what {
            What::Register { name, owner, result, .. } => {
                let Made { new, owner: holder, token } = self.make(&keys::name(name), owner, deadline).await?;
                *result = Some(match new {
                    true => Registered::Granted { token },
                    false if holder == *owner => Registered::Held { token },
                    false => Registered::Taken { owner: holder, token },
                });
            }
            What::Join { group, member, result, .. } => {
                let Made { new, token, .. } = self.make(&keys::member(group, member), member, deadline).await?;
                *result = Some(Joined { token, new, no_lease: false, revision: None });
            }
            What::Unregister { name, token, result } => {
                *result = Some(self.end(&keys::name(name), token.as_deref(), deadline).await?);
            }
            What::Leave { group, member, token, result } => {
                *result = Some(self.end(&keys::member(group, member), token.as_deref(), deadline).await?);
            }
            asked => return read(&mut self.database, asked, deadline).await,
        }
        Ok(Some(what))
    }

    /// A refused insertion did nothing, so that what is known is what the last one leaves.
    async fn make(&mut self, key: &str, owner: &str, deadline: Instant) -> Result<Made, Lack> {
        let sql = "INSERT INTO entries VALUES ($1, $2, nextval('tokens')) ON CONFLICT (key) DO NOTHING RETURNING owner, token";
        loop {
            let rows = self.database.query(sql, &[(&key, Type::TEXT), (&owner, Type::TEXT)], deadline).await?;
            if let Some(row) = rows.first() {
                let (owner, token) = owner_and_token(row)?;
                return Ok(Made { new: true, owner, token });
            }
            let current = current(&mut self.database, key, deadline).await.map_err(Lack::harmless)?;
            if let Some((owner, token)) = current {
                return Ok(Made { new: false, owner, token });
            }
        }
    }

    async fn end(&mut self, key: &str, token: Option<&str>, deadline: Instant) -> Result<Unregistered, Lack> {
        let Some(token) = token else {
            let sql = "DELETE FROM entries WHERE key = $1 RETURNING key";
            let rows = self.database.query(sql, &[(&key, Type::TEXT)], deadline).await?;
            return Ok(if rows.is_empty() { Unregistered::Absent } else { Unregistered::Now });
        };
        let sql = "DELETE FROM entries WHERE key = $1 AND token = $2 RETURNING key";
        let given: [super::connection::Given; 2] = [(&key, Type::TEXT), (&number(token)?, Type::INT8)];
        let rows = self.database.query(sql, &given, deadline).await?;
        Ok(if rows.is_empty() { Unregistered::Before } else { Unregistered::Now })
    }
}
