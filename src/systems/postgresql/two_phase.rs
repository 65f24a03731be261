//! Two-phase commit over several databases: each change is made on all of them or on none. A node's coordinator has all of them
//! prepare, writes its decision down, and has them commit. Between the two nobody but it can say what is to be: what it has prepared
//! stays locked until it has come back, and the name is blocked for everyone.
//!
//! What is prepared and not written down is rolled back (presumed abort), by a sweep of the coordinator's own that begins anew
//! when its node does.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::time::{sleep, timeout_at};
use tokio_postgres::types::Type;

use super::connection::{Database, Given, Lack};
use super::keys;
use super::single::{completed, current, number, owner_and_token, read};
use crate::referee::client::{Client, Completion};
use crate::referee::history::{Joined, Registered, Unregistered, What};
use crate::systems::doors::{Door, Killed};

/// How long a statement may wait for what another transaction holds.
const LOCK_MS: u32 = 700;
/// How long a step may take. Longer than a client waits: what was begun is brought to an end.
const STEP_MAX: Duration = Duration::from_secs(2);
/// How often a coordinator looks for what it has left prepared.
const SWEEP_PERIOD: Duration = Duration::from_millis(300);

/// A change of one entry.
#[derive(Clone, Debug)]
enum Change {
    Make { key: String, owner: String },
    End { key: String, token: Option<i64> },
}

/// What came of it.
#[derive(Debug)]
enum Done {
    Made {
        token: String,
    },
    /// Somebody's already.
    Stands {
        owner: String,
        token: String,
    },
    Ended,
    /// There was nothing to end.
    Nothing,
}

/// What stands at a node and carries transactions through.
pub struct Coordinator {
    door: Arc<Door>,
    servers: Vec<SocketAddr>,
    next: AtomicU64,
    /// Transactions under way in this life of the node.
    under_way: Mutex<HashSet<String>>,
    /// Those that were decided, also on disk.
    decided: Mutex<(File, HashSet<String>)>,
    idle: Mutex<Vec<Vec<Database>>>,
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says that a transaction is under way, until it is dropped.
struct UnderWay<'a>(&'a Coordinator, String);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        locked(&self.0.under_way).remove(&self.1);
    }
}

impl Coordinator {
    /// Its decisions are kept in a file of that directory.
    pub fn new(door: Arc<Door>, servers: Vec<SocketAddr>, dir: &Path) -> std::io::Result<Self> {
        let path = dir.join(format!("coordinator-{}.log", door.node()));
        let log = OpenOptions::new().create(true).append(true).open(path)?;
        let (next, under_way, idle) = (AtomicU64::new(1), Mutex::default(), Mutex::default());
        Ok(Self { door, servers, next, under_way, decided: Mutex::new((log, HashSet::new())), idle })
    }

    /// Looks, until the task is ended, for what was left prepared, and brings it to its end.
    pub async fn sweep(self: Arc<Self>) {
        loop {
            sleep(SWEEP_PERIOD).await;
            self.door.up().await;
            for server in &self.servers {
                // A server out of reach is asked again the next time.
                let _ = self.door.through(self.sweep_one(*server)).await;
            }
        }
    }

    async fn sweep_one(&self, server: SocketAddr) -> Result<(), Lack> {
        let deadline = Instant::now() + SWEEP_PERIOD;
        let mut database = Database::new(self.door.clone(), server);
        let sql = "SELECT gid FROM pg_prepared_xacts WHERE starts_with(gid, $1)";
        let own = format!("{}.", self.door.node());
        for row in database.query(sql, &[(&own, Type::TEXT)], deadline).await? {
            let id: String = row.try_get(0).map_err(|why| Lack::NotDone(why.to_string()))?;
            if locked(&self.under_way).contains(&id) {
                continue;
            }
            let end = if locked(&self.decided).1.contains(&id) { "COMMIT" } else { "ROLLBACK" };
            database.run(&format!("{end} PREPARED '{id}'"), deadline).await?;
        }
        Ok(())
    }

    /// Carries one change through, however long its client waits.
    async fn carry_out(self: Arc<Self>, change: Change) -> Result<Done, Lack> {
        let id = format!("{}.{}", self.door.node(), self.next.fetch_add(1, Ordering::Relaxed));
        locked(&self.under_way).insert(id.clone());
        let under_way = UnderWay(&self, id.clone());
        let idle = locked(&self.idle).pop();
        let fresh = || self.servers.iter().map(|at| Database::new(self.door.clone(), *at)).collect();
        let mut team = idle.unwrap_or_else(fresh);
        let done = self.transact(&mut team, &id, &change).await;
        drop(under_way);
        match &done {
            Ok(_) => locked(&self.idle).push(team),
            // Undone by the servers where it was not prepared, by the sweep where it was.
            Err(_) => drop(team),
        }
        done
    }

    async fn transact(&self, team: &mut [Database], id: &str, change: &Change) -> Result<Done, Lack> {
        let step = || Instant::now() + STEP_MAX;
        let mut done = None;
        for database in team.iter_mut() {
            let begun = format!("BEGIN; SET LOCAL lock_timeout = {LOCK_MS}");
            database.run(&begun, step()).await.map_err(Lack::harmless)?;
            let changed = attempt(database, change, done.as_ref(), step()).await.map_err(Lack::harmless)?;
            match (changed, &done) {
                (Some(changed), _) => done = Some(changed),
                (None, None) => {
                    let stands = stands(database, change, step()).await.map_err(Lack::harmless)?;
                    database.run("ROLLBACK", step()).await.map_err(Lack::harmless)?;
                    return stands.ok_or_else(|| Lack::NotDone("it went while it was looked at".to_owned()));
                }
                (None, Some(_)) => return Err(Lack::NotDone("the databases do not agree".to_owned())),
            }
        }
        for database in team.iter_mut() {
            // Without a decision it will be rolled back wherever it was prepared.
            database.run(&format!("PREPARE TRANSACTION '{id}'"), step()).await.map_err(Lack::harmless)?;
        }
        self.decide(id)?;
        for database in team.iter_mut() {
            database.run(&format!("COMMIT PREPARED '{id}'"), step()).await.map_err(
                |(Lack::NotDone(why) | Lack::Unknown(why))| {
                    Lack::Unknown(format!("decided, and not committed everywhere yet: {why}"))
                },
            )?;
        }
        done.ok_or_else(|| Lack::NotDone("there is no database".to_owned()))
    }

    fn decide(&self, id: &str) -> Result<(), Lack> {
        let (log, decided) = &mut *locked(&self.decided);
        let written = log.write_all(format!("{id}\n").as_bytes()).and_then(|()| log.sync_data());
        written.map_err(|why| Lack::NotDone(format!("the decision cannot be written: {why}")))?;
        decided.insert(id.to_owned());
        Ok(())
    }
}

/// Changes the entry in one database, in the transaction that is open; None: there is nothing to be changed. The first one's
/// token is everyone's.
async fn attempt(
    database: &mut Database,
    change: &Change,
    first: Option<&Done>,
    deadline: Instant,
) -> Result<Option<Done>, Lack> {
    match change {
        Change::Make { key, owner } => {
            let given: [Given; 2] = [(key, Type::TEXT), (owner, Type::TEXT)];
            let token = match first {
                Some(Done::Made { token }) => number(token)?.to_string(),
                _ => "nextval('tokens')".to_owned(),
            };
            let sql = format!(
                "INSERT INTO entries VALUES ($1, $2, {token}) ON CONFLICT (key) DO NOTHING RETURNING owner, token"
            );
            let rows = database.query(&sql, &given, deadline).await?;
            rows.first().map(|row| Ok(Done::Made { token: owner_and_token(row)?.1 })).transpose()
        }
        Change::End { key, token } => {
            let sql = "DELETE FROM entries WHERE key = $1 AND ($2::int8 IS NULL OR token = $2) RETURNING key";
            let rows = database.query(sql, &[(key, Type::TEXT), (token, Type::INT8)], deadline).await?;
            Ok((!rows.is_empty()).then_some(Done::Ended))
        }
    }
}

/// Why nothing was to be changed; None: it went in the meantime.
async fn stands(database: &mut Database, change: &Change, deadline: Instant) -> Result<Option<Done>, Lack> {
    match change {
        Change::End { .. } => Ok(Some(Done::Nothing)),
        Change::Make { key, .. } => {
            let stands = current(database, key, deadline).await?;
            Ok(stands.map(|(owner, token)| Done::Stands { owner, token }))
        }
    }
}

/// A client that stands at a node: changes go through its coordinator, questions to one database.
pub struct TwoPhaseClient {
    coordinator: Arc<Coordinator>,
    asks: Database,
}

impl TwoPhaseClient {
    pub fn new(coordinator: Arc<Coordinator>, asks: SocketAddr) -> Self {
        Self { asks: Database::new(coordinator.door.clone(), asks), coordinator }
    }

    /// The change goes on when its client's patience has ended.
    async fn change(&self, change: Change, deadline: Instant) -> Result<Done, Lack> {
        let coordinator = self.coordinator.clone();
        let carried = tokio::spawn(async move {
            let door = coordinator.door.clone();
            door.through(coordinator.carry_out(change)).await
        });
        match timeout_at(deadline.into(), carried).await {
            Ok(Ok(Ok(done))) => done,
            Ok(Ok(Err(Killed))) => Err(Lack::Unknown("its coordinator was killed".to_owned())),
            Ok(Err(died)) => Err(Lack::Unknown(died.to_string())),
            Err(_) => Err(Lack::Unknown("the deadline came first".to_owned())),
        }
    }

    async fn write(&mut self, what: &What, deadline: Instant) -> Result<Option<What>, Lack> {
        let mut what = what.clone();
        let odd = |done: Done| Lack::Unknown(format!("an outcome that does not fit the call: {done:?}"));
        match &mut what {
            What::Register { name, owner, result, .. } => {
                let change = Change::Make { key: keys::name(name), owner: owner.clone() };
                *result = Some(match self.change(change, deadline).await? {
                    Done::Made { token } => Registered::Granted { token },
                    Done::Stands { owner: holder, token } if holder == *owner => Registered::Held { token },
                    Done::Stands { owner, token } => Registered::Taken { owner, token },
                    other => return Err(odd(other)),
                });
            }
            What::Join { group, member, result, .. } => {
                let change = Change::Make { key: keys::member(group, member), owner: member.clone() };
                let (new, token) = match self.change(change, deadline).await? {
                    Done::Made { token } => (true, token),
                    Done::Stands { token, .. } => (false, token),
                    other => return Err(odd(other)),
                };
                *result = Some(Joined { token, new, no_lease: false, revision: None });
            }
            What::Unregister { name, token, result } => {
                *result = Some(self.end(keys::name(name), token.as_deref(), deadline).await?);
            }
            What::Leave { group, member, token, result } => {
                *result = Some(self.end(keys::member(group, member), token.as_deref(), deadline).await?);
            }
            _ => return Ok(None),
        }
        Ok(Some(what))
    }

    async fn end(&self, key: String, token: Option<&str>, deadline: Instant) -> Result<Unregistered, Lack> {
        let change = Change::End { key, token: token.map(number).transpose()? };
        match self.change(change, deadline).await? {
            Done::Ended => Ok(Unregistered::Now),
            Done::Nothing if token.is_some() => Ok(Unregistered::Before),
            Done::Nothing => Ok(Unregistered::Absent),
            other => Err(Lack::Unknown(format!("an outcome that does not fit the call: {other:?}"))),
        }
    }
}

#[async_trait]
impl Client for TwoPhaseClient {
    async fn call(&mut self, what: &What, deadline: Instant) -> Completion {
        if !what.is_read() {
            let done = self.write(what, deadline).await;
            return completed(what, done);
        }
        let door = self.coordinator.door.clone();
        let done = door.through(read(&mut self.asks, what, deadline)).await;
        completed(what, done.unwrap_or_else(|Killed| Err(Lack::NotDone("its node was killed".to_owned()))))
    }
}
