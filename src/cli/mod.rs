//! The command line: parse, run, print; an exit code that scripts can rely on.

mod backup;
mod batch;
mod campaign;
pub mod check;
mod clean;
mod cluster;
pub mod compare;
mod completions;
mod conflicts;
mod connect;
mod credential;
pub mod dev;
mod export;
mod join;
mod lease;
mod lock;
mod messages;
mod registry;
mod render;
mod render_cluster;
mod render_watch;
pub mod serve;
mod watch;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What every command's exit code means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// Done; found; every promise kept; linearizable.
    Yes = 0,
    /// Refused; not found; a promise broken; not linearizable.
    No = 1,
    /// Perhaps done; cannot tell.
    Unknown = 2,
    /// Surely not done; unreachable; the referee itself failed.
    NotDone = 3,
    Usage = 64,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// A replicated registry of names and groups: ap (gossip) or cp (Raft), by a flag.
#[derive(Parser)]
#[command(version, max_term_width = 110, subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs real systems through the same partitions and shows what each promised and kept
    Compare(compare::CompareArgs),
    /// Runs many short comparisons and keeps what failed
    Campaign(campaign::CampaignArgs),
    /// Removes what a killed comparison left
    Clean(clean::CleanArgs),
    /// Runs one node
    Serve(Box<crate::node::config::ServeArgs>),
    /// Runs a local cluster to play with; its links can be cut
    Dev(dev::DevArgs),
    #[command(flatten)]
    Registry(registry::RegistryCommand),
    /// Leases: what names and memberships may end with
    #[command(subcommand)]
    Lease(lease::LeaseCommand),
    /// Prints what changes, a line each
    Watch(watch::WatchArgs),
    /// Runs a command while a name is held, and stops it before the name can be somebody else's
    Lock(lock::LockArgs),
    /// Sends a message to whoever holds a name
    Send(messages::SendArgs),
    /// Sends a message to every member of a group
    Publish(messages::PublishArgs),
    /// Prints the messages that arrive for an owner, a line each
    Inbox(messages::InboxArgs),
    /// Carries out many commands in one call
    Batch(batch::BatchArgs),
    /// Lists ap names that two owners had, and who lost
    Conflicts(conflicts::ConflictsArgs),
    /// Shows the cluster as a server sees it, or changes it
    Cluster(cluster::ClusterArgs),
    /// Prints what a shell needs to complete this command line
    Completions(completions::CompletionsArgs),
    /// Makes what callers show to a server that asks for credentials
    #[command(subcommand)]
    Credential(credential::CredentialCommand),
    /// Puts the whole cp table, as it is now, into a file
    Backup(backup::BackupArgs),
    /// Makes a new cluster of a backup, offline: its first node's data directory
    Restore(backup::RestoreArgs),
    /// Tells whether recorded histories are linearizable
    Check(check::CheckArgs),
    /// Writes the names of a recorded history as registers, a file each, for Knossos or porcupine to check
    Export(export::ExportArgs),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let wanted = !e.use_stderr();
            let _ = e.print();
            return if wanted { Exit::Yes } else { Exit::Usage }.into();
        }
    };
    start_logging();
    let done = match cli.command {
        Command::Serve(args) => serve::run(*args),
        Command::Dev(args) => dev::run(args),
        Command::Registry(command) => registry::run(command),
        Command::Lease(command) => lease::run(command),
        Command::Watch(args) => watch::run(args),
        Command::Send(args) => messages::send(args),
        Command::Publish(args) => messages::publish(args),
        Command::Inbox(args) => messages::inbox(args),
        Command::Batch(args) => batch::run(args),
        Command::Conflicts(args) => conflicts::run(args),
        Command::Cluster(args) => cluster::run(args),
        Command::Completions(args) => Ok(completions::run::<Cli>(&args)),
        Command::Lock(args) => match lock::run(args) {
            Ok(lock::Ended::Commands(code)) => return ExitCode::from(code),
            Ok(lock::Ended::Own(exit)) => Ok(exit),
            Err(error) => Err(error),
        },
        Command::Credential(command) => Ok(credential::run(command)),
        Command::Backup(args) => backup::backup(args),
        Command::Restore(args) => backup::run_restore(args),
        Command::Check(args) => Ok(check::run(&args)),
        Command::Export(args) => export::run(&args),
        Command::Campaign(args) => campaign::run(args),
        Command::Clean(args) => Ok(clean::run(&args)),
        Command::Compare(args) => compare::run(args),
    };
    let exit = done.unwrap_or_else(|e| {
        eprintln!("quorate: {}", in_one_line(&e));
        Exit::NotDone
    });
    exit.into()
}

/// An error and its causes. Some errors' own line has the cause in it: it is not said twice.
fn in_one_line(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |told, cause| match cause.to_string() {
        cause if told.is_empty() => cause,
        cause if told.contains(&cause) => told,
        cause => format!("{told}: {cause}"),
    })
}

/// Logs go to standard error; `RUST_LOG` says which (warnings unless given).
fn start_logging() {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn,openraft=error,foca=error"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}
