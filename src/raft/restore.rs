//! Makes a data directory of a table: a cluster of one voter that begins with it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use openraft::BasicNode;
use openraft::storage::RaftLogStorage;

use super::content::Content;
use super::durable::{Fdatasync, Owner, StartError};
use super::log_store::{LogStore, MIRROR_BYTES_MAX};
use super::snapshot::SnapshotStore;
use super::types::{LogId, Membership, SnapshotMeta, StoredMembership, Vote};
use crate::model::ident::NodeId;
use crate::model::table::Table;

/// How long the disk may take to close.
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);

/// Fills an empty directory. The node's first leadership comes after `term`. What was written is read back and compared.
pub async fn restore(data: &Path, owner: &Owner, peer: &str, table: Table, term: u64) -> Result<(), StartError> {
    let unusable = |source| StartError::Unusable { path: data.to_owned(), source };
    std::fs::create_dir_all(data).map_err(unusable)?;
    let at = LogId::new_term_index(term, 1);
    write_snapshot(data, owner.node, peer, table, at).map_err(unusable)?;

    // A log that ends where the snapshot does: as if all that led to it had been cut off.
    let fatal = Arc::new(|line: &str| tracing::error!("{line}"));
    let (mut log, closed) = LogStore::open(&data.join("raft"), false, Box::new(Fdatasync), MIRROR_BYTES_MAX, fatal)?;
    log.purge(at).await.map_err(unusable)?;
    log.save_vote(&Vote::new(term, owner.node)).await.map_err(unusable)?;
    drop(log);
    closed.wait(CLOSE_PATIENCE);
    owner.claim(data).map_err(unusable)
}

fn write_snapshot(data: &Path, node: NodeId, peer: &str, table: Table, at: LogId) -> std::io::Result<()> {
    let open = |required| SnapshotStore::open(&data.join("snap"), required, Box::new(Fdatasync));
    let nodes = std::collections::BTreeMap::from([(node, BasicNode::new(peer))]);
    let membership = Membership::new(vec![[node].into()], nodes).map_err(std::io::Error::other)?;
    let meta = SnapshotMeta { last_log_id: Some(at), last_membership: StoredMembership::new(Some(at), membership) };
    let content = Content { table, ..Content::default() };
    let store = open(false).map_err(std::io::Error::other)?;
    store.build(&meta, &content)?;
    drop(store);
    // By content, from the disk: what cannot be read back was not restored.
    let store = open(true).map_err(std::io::Error::other)?;
    let found = store.current()?.ok_or_else(|| std::io::Error::other("the snapshot is not there"))?;
    if found.meta != meta || store.install(&found.meta, &found.snapshot)? != content {
        return Err(std::io::Error::other("what was written is not what is read back"));
    }
    Ok(())
}
