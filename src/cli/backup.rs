//! `quorate backup` and `quorate restore`: the `cp` table into a file, and a new cluster out of one.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use anyhow::Context;
use clap::Args;

use super::Exit;
use crate::client::call::Caller;
use crate::model::ident::NodeId;
use crate::node::restore::restore;

#[derive(Args, Debug)]
pub struct BackupArgs {
    /// Where to put it; standard output unless given
    file: Option<PathBuf>,
    /// Servers of one cluster; if one does not answer, the next is asked
    #[arg(
        long,
        env = "QUORATE_ENDPOINTS",
        value_name = "URL,…",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:7401"
    )]
    endpoints: Vec<String>,
    /// When to give up
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

/// Takes a backup.
pub fn backup(args: BackupArgs) -> anyhow::Result<Exit> {
    let timeout = Duration::from_millis(args.timeout_ms);
    let callers = args.endpoints.iter().map(|url| Caller::new(url)).collect::<Result<Vec<_>, _>>();
    let callers = match callers {
        Ok(callers) => callers,
        Err(e) => {
            eprintln!("quorate: {e}");
            return Ok(Exit::Usage);
        }
    };
    let taken = super::runtime()?.block_on(async {
        let mut last = None;
        for caller in &callers {
            match caller.backup(timeout).await {
                Ok(taken) => return Ok(taken),
                Err(cause) => last = Some(cause),
            }
        }
        Err(last)
    });
    match taken {
        Ok(bytes) => {
            match &args.file {
                Some(file) => {
                    put(file, &bytes).with_context(|| format!("cannot write {}", file.display()))?;
                    println!("{} bytes in {}", bytes.len(), file.display());
                }
                None => io::stdout().write_all(&bytes)?,
            }
            Ok(Exit::Yes)
        }
        Err(cause) => {
            let why = cause.map(|cause| cause.to_string()).unwrap_or_default();
            eprintln!("quorate: no backup: {why}");
            Ok(Exit::NotDone)
        }
    }
}

/// Whole and on disk, or not there: half a backup must not lie where a whole one is expected.
fn put(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = file.with_file_name(name);
    let mut new = fs::File::create(&part)?;
    new.write_all(bytes)?;
    new.sync_all()?;
    fs::rename(&part, file)
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
