//! One connection from a node to a database, and what is known of a statement that got no answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::task::JoinHandle;
use tokio::time::timeout_at;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Config, NoTls, Row};

use super::USER;
use crate::systems::doors::Door;

/// Why a statement has no result.
#[derive(Clone, Debug)]
pub enum Lack {
    /// Not sent, or undone by the server: it changed nothing.
    NotDone(String),
    Unknown(String),
}

impl Lack {
    /// What is not done is known to the one who asks, whatever became of it: it was no part of what counts.
    pub fn harmless(self) -> Self {
        let (Lack::NotDone(why) | Lack::Unknown(why)) = self;
        Lack::NotDone(why)
    }
}

/// A parameter and how the database is to take it.
pub type Given<'a> = (&'a (dyn ToSql + Sync), Type);

/// A database, as one client at a node sees it. A connection that broke is not mended: the next statement opens another.
pub struct Database {
    door: Arc<Door>,
    addr: SocketAddr,
    open: Option<Open>,
}

struct Open {
    client: Client,
    driver: JoinHandle<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Database {
    pub fn new(door: Arc<Door>, addr: SocketAddr) -> Self {
        Self { door, addr, open: None }
    }

    /// One statement with its parameters: a transaction of its own, unless one is open.
    pub async fn query(&mut self, sql: &str, given: &[Given<'_>], deadline: Instant) -> Result<Vec<Row>, Lack> {
        let open = self.opened(deadline).await?;
        let answered = timeout_at(deadline.into(), open.client.query_typed(sql, given)).await;
        self.judged(open, answered)
    }

    /// Statements without parameters.
    pub async fn run(&mut self, sql: &str, deadline: Instant) -> Result<(), Lack> {
        let open = self.opened(deadline).await?;
        let answered = timeout_at(deadline.into(), open.client.batch_execute(sql)).await;
        self.judged(open, answered)
    }

    /// What the server does not hear the end of, it undoes.
    pub fn close(&mut self) {
        self.open = None;
    }

    fn judged<T, E>(&mut self, open: Open, answered: Result<Result<T, tokio_postgres::Error>, E>) -> Result<T, Lack> {
        match answered {
            Ok(Ok(done)) => {
                self.open = Some(open);
                Ok(done)
            }
            // The connection goes: whatever comes of it is nobody's answer any more.
            Err(_) => Err(Lack::Unknown("the deadline came first".to_owned())),
            Ok(Err(why)) => {
                let Some(told) = why.as_db_error() else { return Err(Lack::Unknown(why.to_string())) };
                let told_why = format!("{}: {}", told.code().code(), told.message());
                // Broken connections, a server that goes down, and a statement whose end is not known to the server itself.
                let unsure = ["08", "57P"].iter().any(|class| told.code().code().starts_with(class));
                if unsure || told.code().code() == "40003" {
                    return Err(Lack::Unknown(told_why));
                }
                self.open = Some(open);
                Err(Lack::NotDone(told_why))
            }
        }
    }

    async fn opened(&mut self, deadline: Instant) -> Result<Open, Lack> {
        if let Some(open) = self.open.take()
            && !open.client.is_closed()
        {
            return Ok(open);
        }
        let opened = timeout_at(deadline.into(), self.connect()).await;
        opened
            .unwrap_or_else(|_| Err(anyhow::anyhow!("the deadline came first")))
            .map_err(|why| Lack::NotDone(format!("no connection: {why:#}")))
    }

    async fn connect(&self) -> anyhow::Result<Open> {
        let stream = self.door.dial(self.addr).await?;
        stream.set_nodelay(true)?;
        let mut config = Config::new();
        config.user(USER).dbname("postgres");
        let (client, connection) = config.connect_raw(stream, NoTls).await?;
        let driver = tokio::spawn(async move {
            // How it ended is told to whoever waits for an answer.
            let _ = connection.await;
        });
        Ok(Open { client, driver })
    }
}
