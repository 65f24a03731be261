//! `quorate cluster`: the cluster as one of its servers sees it.

use clap::{Args, Subcommand};

use super::Exit;
use super::connect::{self, Connect};
use super::render;

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct ClusterArgs {
    #[command(subcommand)]
    command: Option<ClusterCommand>,
    #[command(flatten)]
    status: StatusArgs,
}

#[derive(Subcommand, Debug)]
enum ClusterCommand {
    /// Shows nodes, leader and states (what is done if no command is given)
    Status(StatusArgs),
}

#[derive(Args, Debug)]
struct StatusArgs {
    #[command(flatten)]
    connect: Connect,
}

/// Shows the cluster.
pub fn run(args: ClusterArgs) -> anyhow::Result<Exit> {
    let ClusterCommand::Status(StatusArgs { connect }) = args.command.unwrap_or(ClusterCommand::Status(args.status));
    let form = connect.form();
    connect::run(connect.client().map(|client| async move {
        Ok(match client.cluster().await {
            Ok(body) => render::cluster(&body, form),
            Err(error) => connect::failed(&error),
        })
    }))
}
