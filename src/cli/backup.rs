//! `quorate backup` and `quorate restore`: the `cp` table into a file, and a new cluster out of one.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use anyhow::Context;
use clap::Args;

use super::Exit;
use super::connect::{self, Servers};
use crate::client::backup::Download;
use crate::client::call::Cause;
use crate::client::client::Client;
use crate::client::error::Error;
use crate::model::ident::{Mode, NodeId};
use crate::node::restore::restore;
use crate::raft::backup::{Check, Head, Why};

#[derive(Args, Debug)]
pub struct BackupArgs {
    /// Where to put it; standard output unless given
    file: Option<PathBuf>,
    #[command(flatten)]
    servers: Servers,
    /// When to give up, if it has not begun to come
    #[arg(long, value_name = "MS", default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(1..=30_000))]
    timeout_ms: u64,
}

#[derive(Args, Debug)]
pub struct RestoreArgs {
    /// What `quorate backup` wrote
    file: PathBuf,
    /// The new node's data directory: empty, or not there yet
    #[arg(long, env = "QUORATE_DATA", value_name = "DIR")]
    data: PathBuf,
    /// The new node's id
    #[arg(long, env = "QUORATE_ID", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    id: NodeId,
    /// Where other nodes will reach it
    #[arg(long, env = "QUORATE_ADVERTISE_PEER", value_name = "HOST:PORT", default_value = "127.0.0.1:7501")]
    peer: String,
}

/// Why a backup did not come.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("{0}")]
    Broken(Cause),
    #[error("what came is no whole backup: {0}")]
    Unfit(Why),
    #[error("cannot write {to}: {source}")]
    Unwritable { to: String, source: io::Error },
}

/// Takes a backup.
pub fn backup(args: BackupArgs) -> anyhow::Result<Exit> {
    let client = args.servers.client(Mode::Cp, Duration::from_millis(args.timeout_ms));
    // The time is for a large table: where nobody is, it is not waited for.
    connect::run(client.map(|client| async move {
        tokio::select! {
            exit = take(client.asking_once(), args.file.as_deref()) => exit,
            () = super::serve::stop_signal() => anyhow::bail!("no backup: it was told to stop"),
        }
    }))
}

async fn take(client: Client, file: Option<&Path>) -> anyhow::Result<Exit> {
    let download = match client.backup().await {
        Ok(download) => download,
        Err(error @ Error::Unanswered(_)) => return Ok(connect::failed(&error)),
        Err(error) => return Err(error.into()),
    };
    match file {
        Some(file) => {
            let (len, head) = into_file(download, file).await.context("no backup")?;
            println!("{len} bytes in {}: cluster {} at revision {}", file.display(), head.cluster, head.revision);
        }
        None => {
            copy(download, &mut io::stdout(), "standard output").await.context("no backup")?;
        }
    }
    Ok(Exit::Yes)
}

/// Whole and on disk, or not there: half a backup must not lie where a whole one is expected.
async fn into_file(download: Download, file: &Path) -> Result<(u64, Head), Failed> {
    let unwritable = |source| Failed::Unwritable { to: file.display().to_string(), source };
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let mut part = Part { path: file.with_file_name(name), whole: false };
    let mut new = fs::File::create(&part.path).map_err(unwritable)?;
    let came = copy(download, &mut new, &file.display().to_string()).await?;
    new.sync_all().and_then(|()| fs::rename(&part.path, file)).map_err(unwritable)?;
    part.whole = true;
    Ok(came)
}

/// A file that is removed unless all of it has come.
struct Part {
    path: PathBuf,
    whole: bool,
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.whole {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Copies a backup, and tells how long it is and what it is of, if it is whole.
async fn copy(mut download: Download, to: &mut dyn Write, name: &str) -> Result<(u64, Head), Failed> {
    let unwritable = |source| Failed::Unwritable { to: name.to_owned(), source };
    let mut check = Check::default();
    let mut len = 0;
    while let Some(piece) = download.next().await.map_err(Failed::Broken)? {
        check.push(&piece).map_err(Failed::Unfit)?;
        to.write_all(&piece).map_err(unwritable)?;
        len += piece.len() as u64;
    }
    to.flush().map_err(unwritable)?;
    Ok((len, check.end().map_err(Failed::Unfit)?))
}

/// Makes an empty directory the first node's of a new cluster that begins with what is in a backup.
pub fn run_restore(args: RestoreArgs) -> anyhow::Result<Exit> {
    let RestoreArgs { file, data, id, peer } = args;
    let restored = super::runtime()?.block_on(restore(&file, &data, id, &peer))?;
    let (cluster, head) = (&restored.cluster, &restored.head);
    println!(
        "{} holds what cluster {} had at revision {}; it is node {id} of the new cluster {cluster}, whose revisions go on from {}",
        data.display(),
        head.cluster,
        head.revision,
        restored.revision
    );
    println!("start it: quorate serve --id {id} --peer {peer} --data {}", data.display());
    println!("add others: quorate serve --id … --data … --join http://…");
    Ok(Exit::Yes)
}
