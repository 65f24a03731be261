//! `quorate lease`: make leases, keep them alive, look at them, end them.

use std::time::Duration;

use clap::Subcommand;
use jiff::SignedDuration;

use super::Exit;
use super::connect::{self, Connect};
use super::registry::PartArgs;
use super::render::{self, Form};
use crate::client::client::Client;
use crate::client::error::Error;
use crate::model::command::Action;
use crate::model::ident::{LeaseId, RecordId};
use crate::model::lease::{KEEP_ALIVE_LEN_MAX, TTL_MS_MAX, TTL_MS_MIN};
use crate::model::query::Query;

#[derive(Subcommand, Debug)]
pub enum LeaseCommand {
    /// Makes a lease; it ends by itself unless it is kept alive
    Create {
        /// How long it lives: 30s, 5m, 1h
        #[arg(long, value_parser = parse_ttl, default_value = "30s")]
        ttl: Duration,
        /// Its id, never used before; the registry chooses one unless given
        #[arg(long)]
        id: Option<LeaseId>,
        #[command(flatten)]
        connect: Connect,
    },
    /// Keeps leases alive once
    Keepalive {
        #[arg(required = true, num_args = 1..=KEEP_ALIVE_LEN_MAX)]
        leases: Vec<LeaseId>,
        /// Conflict records that need not be told again
        #[arg(long, value_name = "ID,…", value_delimiter = ',')]
        seen: Vec<RecordId>,
        #[command(flatten)]
        connect: Connect,
    },
    /// Lists live leases
    List {
        #[command(flatten)]
        page: PartArgs,
        #[command(flatten)]
        connect: Connect,
    },
    /// Shows a lease and what is bound to it
    Get {
        lease: LeaseId,
        #[command(flatten)]
        page: PartArgs,
        #[command(flatten)]
        connect: Connect,
    },
    /// Ends a lease, and all that is bound to it, at once
    Revoke {
        lease: LeaseId,
        #[command(flatten)]
        connect: Connect,
    },
    /// Makes a lease, prints its id and keeps it alive until this command is ended, which ends the lease
    Hold {
        /// How long it outlives this command if that is killed
        #[arg(long, value_parser = parse_ttl, default_value = "30s")]
        ttl: Duration,
        #[command(flatten)]
        connect: Connect,
    },
}

/// A time-to-live that a lease can have: `10s`, `1m 30s`, `500ms`.
pub fn parse_ttl(text: &str) -> Result<Duration, String> {
    let duration =
        text.parse::<SignedDuration>().map_err(|_| "a time such as 10s, 5m or 1h is asked for".to_owned())?;
    let bounds = Duration::from_millis(TTL_MS_MIN)..=Duration::from_millis(TTL_MS_MAX);
    Duration::try_from(duration)
        .ok()
        .filter(|ttl| bounds.contains(ttl))
        .ok_or_else(|| "a lease lives from 1s to 24h".to_owned())
}

/// Carries out one command on leases.
pub fn run(command: LeaseCommand) -> anyhow::Result<Exit> {
    match command {
        LeaseCommand::Create { ttl, id, connect } => {
            let action = Action::CreateLease { lease: id, ttl_ms: ttl.as_millis() as u64, credential: None };
            execute(&connect, action)
        }
        LeaseCommand::Revoke { lease, connect } => execute(&connect, Action::RevokeLease { lease, by: None }),
        LeaseCommand::List { page, connect } => ask(&connect, Query::Leases { page: page.into() }),
        LeaseCommand::Get { lease, page, connect } => ask(&connect, Query::Lease { lease, page: page.into() }),
        LeaseCommand::Keepalive { leases, seen, connect } => {
            let form = connect.form();
            connect::run(connect.client().map(|client| async move {
                Ok(match client.keep_alive_each(&leases, &seen).await {
                    Ok(results) => render::kept_alive(client.mode(), &leases, &results, form),
                    Err(error) => connect::failed(&error),
                })
            }))
        }
        LeaseCommand::Hold { ttl, connect } => {
            let form = connect.form();
            connect::run(connect.client().map(|client| hold(client, ttl, form)))
        }
    }
}

fn execute(connect: &Connect, action: Action) -> anyhow::Result<Exit> {
    let form = connect.form();
    connect::run(connect.client().map(|client| async move {
        Ok(match client.execute(&action).await {
            Ok(reply) => render::outcome(&action, &reply, form),
            Err(error) => connect::failed(&error.into()),
        })
    }))
}

fn ask(connect: &Connect, query: Query) -> anyhow::Result<Exit> {
    let form = connect.form();
    connect::run(connect.client().map(|client| async move {
        Ok(match client.query(&query).await {
            Ok(reply) => render::answer(&query, &reply, form),
            Err(cause) => connect::failed(&Error::Unanswered(cause)),
        })
    }))
}

async fn hold(client: Client, ttl: Duration, form: Form) -> anyhow::Result<Exit> {
    let lease = match client.lease(ttl).await {
        Ok(lease) => lease,
        Err(error) => return Ok(connect::failed(&error)),
    };
    render::lease(lease.id(), lease.ttl(), form);
    tokio::select! {
        why = lease.lost() => {
            eprintln!("quorate: {why}");
            Ok(Exit::No)
        }
        () = super::serve::stop_signal() => Ok(match lease.close().await {
            Ok(_) => Exit::Yes,
            Err(error) => connect::failed(&error),
        }),
    }
}
