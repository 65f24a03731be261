//! `quorate conflicts`: who lost an ap name to whom.

use clap::{Args, Subcommand};

use super::Exit;
use super::connect::{self, Connect};
use super::registry::PartArgs;
use super::render;
use crate::model::ident::RecordId;

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct ConflictsArgs {
    #[command(subcommand)]
    command: Option<ConflictsCommand>,
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Subcommand, Debug)]
enum ConflictsCommand {
    /// Lists the records (what is done if no command is given)
    List(ListArgs),
    /// Says that the loser has seen a record
    Ack {
        id: RecordId,
        #[command(flatten)]
        connect: Connect,
    },
}

#[derive(Args, Debug)]
struct ListArgs {
    #[command(flatten)]
    page: PartArgs,
    #[command(flatten)]
    connect: Connect,
}

/// Lists the records, or acknowledges one.
pub fn run(args: ConflictsArgs) -> anyhow::Result<Exit> {
    match args.command.unwrap_or(ConflictsCommand::List(args.list)) {
        ConflictsCommand::List(ListArgs { page, connect }) => {
            let form = connect.form();
            connect::run(connect.client().map(|client| async move {
                Ok(match client.conflicts(page.after.as_deref(), page.limit).await {
                    Ok(body) => render::conflicts(&body, form),
                    Err(error) => connect::failed(&error),
                })
            }))
        }
        ConflictsCommand::Ack { id, connect } => {
            let form = connect.form();
            connect::run(connect.client().map(|client| async move {
                Ok(match client.acknowledge_conflict(&id).await {
                    Ok(()) => render::acknowledged(id.as_str(), form),
                    Err(error) => connect::failed(&error),
                })
            }))
        }
    }
}
