//! `quorate batch`: many commands in one call.

use std::io::Read;
use std::path::PathBuf;

use clap::Args;

use super::Exit;
use super::connect::{self, Connect, Misused};
use super::registry::AcksArg;
use super::render;
use crate::client::client::Client;
use crate::model::command::{Action, BATCH_LEN_MAX};
use crate::wire::batch::{BatchBody, read_command};

#[derive(Args, Debug)]
#[command(after_help = "A file holds {\"commands\":[…]} as the API takes it, for example \
    {\"commands\":[{\"register\":{\"name\":\"billing\",\"owner\":\"worker-1\"}},{\"leave\":{\"group\":\"cameras\",\"member\":\"cam-17\"}}]}. \
    Exit code 1: at least one of them was refused.")]
pub struct BatchArgs {
    /// Where the commands stand; - for standard input
    #[arg(default_value = "-")]
    file: PathBuf,
    #[command(flatten)]
    acks: AcksArg,
    #[command(flatten)]
    connect: Connect,
}

/// Sends the commands and prints what became of each.
pub fn run(args: BatchArgs) -> anyhow::Result<Exit> {
    let form = args.connect.form();
    connect::run(understand(&args).map(|(client, actions)| async move {
        Ok(match client.batch(&actions).await {
            Ok(reply) => render::batch(&actions, &reply, form),
            Err(error) => connect::failed(&error),
        })
    }))
}

fn understand(args: &BatchArgs) -> Result<(Client, Vec<Action>), Misused> {
    let mut text = Vec::new();
    if args.file.as_os_str() == "-" {
        std::io::stdin().lock().read_to_end(&mut text)?;
    } else {
        text = std::fs::read(&args.file).map_err(|why| Misused(format!("{}: {why}", args.file.display())))?;
    }
    let body: BatchBody = serde_json::from_slice(&text).map_err(|why| Misused(format!("no batch: {why}")))?;
    if body.commands.is_empty() || body.commands.len() > BATCH_LEN_MAX {
        return Err(Misused(format!("a batch holds 1 to {BATCH_LEN_MAX} commands")));
    }
    let read =
        |(at, raw)| read_command(args.connect.mode, raw).map_err(|why| Misused(format!("command {}: {why}", at + 1)));
    let actions = body.commands.iter().copied().enumerate().map(read).collect::<Result<_, _>>()?;
    let client = args.connect.client()?;
    Ok((args.acks.acks.map_or_else(|| client.clone(), |nodes| client.writing_to(nodes)), actions))
}
