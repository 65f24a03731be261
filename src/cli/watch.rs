//! `quorate watch`: what changes, a line each, until it is ended.

use std::io::{self, Write};

use clap::Args;

use super::Exit;
use super::connect::{self, Connect, Misused};
use super::render::Form;
use super::render_watch;
use crate::client::call::Cause;
use crate::client::error::Error;
use crate::client::watch::{Watch, WatchError};
use crate::model::event::Filter;
use crate::model::ident::{Group, Name, Revision};

#[derive(Args, Debug)]
pub struct WatchArgs {
    /// This name; this and the next three may be repeated, and without any of them everything is watched
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<Name>,
    /// Names that begin so
    #[arg(long = "name-prefix", value_name = "PREFIX")]
    name_prefixes: Vec<String>,
    /// The members of this group
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<Group>,
    /// The members of groups that begin so
    #[arg(long = "group-prefix", value_name = "PREFIX")]
    group_prefixes: Vec<String>,
    /// First what stands now
    #[arg(long, conflicts_with = "after")]
    initial: bool,
    /// Go on after this position, which an earlier watch or a list has told
    #[arg(long, value_name = "POSITION")]
    after: Option<String>,
    /// End after so many lines
    #[arg(long, value_name = "LINES", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    #[command(flatten)]
    connect: Connect,
}

/// Prints what changes until a signal comes. It goes on at another server when one is gone, from where it was.
pub fn run(args: WatchArgs) -> anyhow::Result<Exit> {
    let form = args.connect.form();
    let count = args.count;
    connect::run(watch(args).map(|watch| async move {
        tokio::select! {
            exit = print(watch, form, count) => Ok(exit),
            () = super::serve::stop_signal() => Ok(Exit::Yes),
        }
    }))
}

fn watch(args: WatchArgs) -> Result<Watch, Misused> {
    let client = args.connect.client()?;
    let after = args.after.map(|text| Revision::parse(args.connect.mode, &text)).transpose()?;
    let (names, name_prefixes) = (args.names, args.name_prefixes);
    let watch = client.watch(Filter { names, name_prefixes, groups: args.groups, group_prefixes: args.group_prefixes });
    Ok(match after {
        Some(after) => watch.after(after),
        None if args.initial => watch.with_state(),
        None => watch,
    })
}

async fn print(mut watch: Watch, form: Form, count: Option<u64>) -> Exit {
    let mut printed = 0;
    loop {
        let seen = match watch.next().await {
            Ok(seen) => seen,
            Err(WatchError::Rejected(cause)) => return connect::failed(&Error::Unanswered(cause)),
            Err(error @ WatchError::Compacted { .. }) => {
                eprintln!("quorate: {error}; watch with --initial");
                return Exit::No;
            }
        };
        let lines = match form {
            Form::Json => render_watch::json(&seen, watch.position()),
            Form::Human => render_watch::human(&seen),
        };
        let mut out = io::stdout().lock();
        for line in lines {
            // A reader that hangs up ends the watch.
            if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
                return Exit::Yes;
            }
            printed += 1;
            if count.is_some_and(|count| printed >= count) {
                return Exit::Yes;
            }
        }
    }
}

/// Why nothing comes for now, for a person.
pub fn interrupted(cause: &Cause) -> String {
    format!("note: the stream was interrupted and is looked for elsewhere: {cause}")
}
