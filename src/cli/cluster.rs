//! `quorate cluster`: the cluster as one of its servers sees it, and changes of it.

use clap::{Args, Subcommand};

use super::Exit;
use super::connect::{self, Connect};
use super::render_cluster as render;
use crate::client::client::Client;
use crate::model::ident::NodeId;

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
    /// Adds a node as a learner: it gets everything, and does not vote (serve --join does so by itself)
    Add {
        #[arg(value_parser = id())]
        id: NodeId,
        /// Where its peers reach it
        #[arg(value_name = "HOST:PORT")]
        peer: String,
        #[command(flatten)]
        connect: Connect,
    },
    /// Gives a learner a vote, once it has caught up
    Promote {
        #[arg(value_parser = id())]
        id: NodeId,
        #[command(flatten)]
        connect: Connect,
    },
    /// Removes a node for good: its id never returns
    Remove {
        #[arg(value_parser = id())]
        id: NodeId,
        #[command(flatten)]
        connect: Connect,
    },
    /// Has another voter lead
    Transfer {
        /// Which one; the one that is best prepared unless given
        #[arg(value_parser = id())]
        id: Option<NodeId>,
        #[command(flatten)]
        connect: Connect,
    },
    /// Has the server that answers put its cp table on disk, so that its log can be cut
    Snapshot {
        #[command(flatten)]
        connect: Connect,
    },
}

#[derive(Args, Debug)]
struct StatusArgs {
    #[command(flatten)]
    connect: Connect,
}

fn id() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(1..)
}

/// Shows the cluster, or changes it.
pub fn run(args: ClusterArgs) -> anyhow::Result<Exit> {
    match args.command.unwrap_or(ClusterCommand::Status(args.status)) {
        ClusterCommand::Status(StatusArgs { connect }) => {
            let form = connect.form();
            connect::run(connect.client().map(|client| async move {
                Ok(match client.cluster().await {
                    Ok(body) => render::cluster(&body, form),
                    Err(error) => connect::failed(&error),
                })
            }))
        }
        ClusterCommand::Add { id, peer, connect } => change(&connect, async |client| client.add_node(id, &peer).await),
        ClusterCommand::Promote { id, connect } => change(&connect, async |client| client.promote_node(id).await),
        ClusterCommand::Remove { id, connect } => change(&connect, async |client| client.remove_node(id).await),
        ClusterCommand::Transfer { id, connect } => change(&connect, async |client| client.transfer_leader(id).await),
        ClusterCommand::Snapshot { connect } => change(&connect, async |client| client.take_snapshot().await),
    }
}

fn change<T: render::Told>(
    connect: &Connect,
    make: impl AsyncFnOnce(Client) -> Result<T, crate::client::error::Error>,
) -> anyhow::Result<Exit> {
    let form = connect.form();
    connect::run(connect.client().map(|client| async move { Ok(render::change(&make(client).await, form)) }))
}
