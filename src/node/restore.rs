//! A data directory made of a backup, offline: the beginning of a new cluster with an old table.

use std::path::Path;
use std::{fs, io};

use super::identity::{self, Founding, IdentityError};
use crate::model::ident::NodeId;
use crate::raft::backup::{self, BackupError, Head};
use crate::raft::durable::Owner;
use crate::raft::{StartError, restore as raft};

/// What was restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The new cluster's id.
    pub cluster: String,
    /// What the backup was of.
    pub head: Head,
    /// Where the new cluster's revisions begin.
    pub revision: u64,
}

/// Why nothing was restored: one line with the mend.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error(transparent)]
    Backup(#[from] BackupError),
    #[error("{dir} is not empty: restore into an empty directory, which is then the first node's of a new cluster")]
    NotEmpty { dir: String },
    #[error("cannot use the directory {dir}: {source}; choose another with --data")]
    Unusable { dir: String, source: io::Error },
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Raft(#[from] StartError),
}

/// Makes `dir` the data directory of a node that is a cluster of its own, which other nodes reach at `peer`, with what is in the backup.
///
/// Tokens and revisions go on far above the backup's: none that the old cluster gave out after the backup was taken comes again.
/// Leases begin with all of their time. The cluster's id is new: the old one's nodes have nothing to do with it.
pub async fn restore(file: &Path, dir: &Path, node: NodeId, peer: &str) -> Result<Restored, RestoreError> {
    let shown = || dir.display().to_string();
    match fs::read_dir(dir).map(|mut entries| entries.next().is_none()) {
        Ok(true) => {}
        Ok(false) => return Err(RestoreError::NotEmpty { dir: shown() }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(RestoreError::Unusable { dir: shown(), source }),
    }
    let (head, mut table) = backup::read(file)?;
    table.begin_anew();
    let revision = table.revision();
    let cluster = format!("{:016x}", rand::random::<u64>());
    let owner = Owner { cluster: cluster.clone(), node };
    raft::restore(dir, &owner, peer, table, head.term + 1).await?;
    // Last: a directory without it, left by a restore that was cut short, is refused.
    let members = [(node, peer.to_owned())].into();
    identity::found(dir, node, &Founding { cluster: Some(cluster.clone()), members })?;
    Ok(Restored { cluster, head, revision })
}
