//! Who a data directory belongs to. What is persisted wins over the command line.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use super::config::Config;
use crate::model::ident::NodeId;
use crate::net::datagram::fnv1a;

/// Version of the layout of a data directory.
const FORMAT: u32 = 1;
const FILE: &str = "identity.json";

/// The content of `identity.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Persisted {
    format: u32,
    pub cluster: String,
    pub node: NodeId,
    /// Drawn at random when the directory was made.
    pub disk: u64,
    /// The disks that other nodes were first seen with.
    #[serde(default)]
    pub known: BTreeMap<NodeId, u64>,
    /// The nodes of the cluster and their peer addresses, as last heard of.
    pub members: BTreeMap<NodeId, String>,
    /// This node has yet to become a member of the cluster that it joins.
    #[serde(default)]
    pub entering: bool,
    /// Nodes that were removed from the cluster: they are not spoken to, from the first moment on.
    #[serde(default)]
    pub retired: BTreeSet<NodeId>,
}

impl Persisted {
    fn new(node: NodeId, founding: &Founding) -> Self {
        Self {
            format: FORMAT,
            cluster: founding.cluster.clone().unwrap_or_else(|| cluster_id(&founding.members)),
            node,
            disk: rand::random(),
            known: BTreeMap::new(),
            members: founding.members.clone(),
            entering: founding.cluster.is_some(),
            retired: BTreeSet::new(),
        }
    }
}

/// Why a data directory is of no use to this node: one line with the mend. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("cannot use the data directory {dir}: {source}; choose another with --data or mend its permissions")]
    Unusable { dir: String, source: io::Error },
    #[error(
        "{dir} belongs to node {theirs}, this is node {ours}: give each node its own --data, or start with --id {theirs}"
    )]
    AnotherNode { dir: String, theirs: NodeId, ours: NodeId },
    #[error("{dir} has layout {theirs}, this release reads layout {FORMAT}: start the release that wrote it")]
    AnotherFormat { dir: String, theirs: u32 },
    #[error(
        "{dir}/{FILE} is unreadable ({why}): restore it from a backup, or remove this node and add it under a new id"
    )]
    Damaged { dir: String, why: String },
    #[error(
        "node {node} was removed from its cluster, which is final: start it anew, under a new id and with an empty --data instead of {dir}"
    )]
    Removed { dir: String, node: NodeId },
    #[error("{dir} holds a node's data but no {FILE}: restore it, or choose another --data")]
    Missing { dir: String },
}

/// Whether a directory is some node's already.
pub fn is_taken(dir: &Path) -> bool {
    dir.join(FILE).exists()
}

/// The cluster that a new directory is made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Founding {
    /// None: one of its own, that only the members given can be of.
    pub cluster: Option<String>,
    pub members: BTreeMap<NodeId, String>,
}

impl Founding {
    pub fn of(config: &Config) -> Self {
        match &config.joining {
            Some(joining) => Self { cluster: Some(joining.cluster.clone()), members: joining.members.clone() },
            None => Self { cluster: None, members: config.members.clone() },
        }
    }
}

/// Opens a data directory, or makes one for this node. True: it was there before.
pub fn open(dir: &Path, node: NodeId, founding: &Founding) -> Result<(Persisted, bool), IdentityError> {
    let shown = || dir.display().to_string();
    let unusable = |source| IdentityError::Unusable { dir: shown(), source };
    fs::create_dir_all(dir).map_err(unusable)?;
    let path = dir.join(FILE);
    match fs::read(&path) {
        Ok(bytes) => {
            let damaged = |e: serde_json::Error| IdentityError::Damaged { dir: shown(), why: e.to_string() };
            #[derive(Deserialize)]
            struct Format {
                format: u32,
            }
            let Format { format } = serde_json::from_slice(&bytes).map_err(damaged)?;
            if format != FORMAT {
                return Err(IdentityError::AnotherFormat { dir: shown(), theirs: format });
            }
            let found: Persisted = serde_json::from_slice(&bytes).map_err(damaged)?;
            if found.node != node {
                return Err(IdentityError::AnotherNode { dir: shown(), theirs: found.node, ours: node });
            }
            if found.retired.contains(&node) {
                return Err(IdentityError::Removed { dir: shown(), node });
            }
            // Written to now, so that a directory that has become read-only is told before anything is served.
            probe_writable(dir).map_err(unusable)?;
            Ok((found, true))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            // A lost identity must not let a voter begin anew on what it had voted.
            if dir.join("raft").exists() {
                return Err(IdentityError::Missing { dir: shown() });
            }
            let persisted = Persisted::new(node, founding);
            write(dir, &path, &persisted).map_err(unusable)?;
            Ok((persisted, false))
        }
        Err(e) => Err(unusable(e)),
    }
}

/// Makes an empty directory this node's, in which the data of a cluster are already.
pub fn found(dir: &Path, node: NodeId, founding: &Founding) -> Result<(), IdentityError> {
    let persisted = Persisted { entering: false, ..Persisted::new(node, founding) };
    write(dir, &dir.join(FILE), &persisted)
        .map_err(|source| IdentityError::Unusable { dir: dir.display().to_string(), source })
}

/// Keeps what a node has to know of its cluster from its first moment on: who is in it, who was removed, and which disks its peers
/// came with.
pub struct Keeper {
    dir: PathBuf,
    persisted: Mutex<Persisted>,
}

impl Keeper {
    pub fn new(dir: &Path, persisted: Persisted) -> Self {
        Self { dir: dir.to_owned(), persisted: Mutex::new(persisted) }
    }

    /// One line why the peer is not let in, if it is not: under its old id with another disk it no longer knows what it had voted and
    /// acknowledged.
    pub fn refusal(&self, peer: NodeId, disk: u64) -> Option<String> {
        let mut persisted = self.persisted.lock().expect("no panic while held");
        match persisted.known.get(&peer) {
            Some(known) if *known == disk => None,
            Some(_) => Some(format!(
                "node {peer} has come back with an empty disk and no longer knows what it has acknowledged: \
                 restore its data directory, or remove it and add it under a new id"
            )),
            None => {
                persisted.known.insert(peer, disk);
                // Not kept is not fatal: the peer is then new once more after our next start.
                self.keep(&persisted);
                None
            }
        }
    }

    /// Keeps who is in the cluster and who was removed from it, as the log says. What was known of removals stays.
    pub fn follow(&self, members: &BTreeMap<NodeId, String>, retired: &BTreeSet<NodeId>) {
        let mut persisted = self.persisted.lock().expect("no panic while held");
        if persisted.members == *members && persisted.retired.is_superset(retired) {
            return;
        }
        persisted.members.clone_from(members);
        persisted.retired.extend(retired);
        // Not kept is not fatal: the log says it again after our next start.
        self.keep(&persisted);
    }

    /// Keeps that this very node was removed: it does not start again.
    pub fn retire(&self) {
        let mut persisted = self.persisted.lock().expect("no panic while held");
        let node = persisted.node;
        persisted.retired.insert(node);
        self.keep(&persisted);
    }

    /// Keeps that this node is a member of the cluster that it joined.
    pub fn entered(&self) {
        let mut persisted = self.persisted.lock().expect("no panic while held");
        persisted.entering = false;
        self.keep(&persisted);
    }

    fn keep(&self, persisted: &Persisted) {
        let path = self.dir.join(FILE);
        if let Err(e) = write(&self.dir, &path, persisted) {
            tracing::error!("cannot write {}: {e}", path.display());
        }
    }
}

fn probe_writable(dir: &Path) -> io::Result<()> {
    let path = dir.join(".writable");
    File::create(&path)?;
    fs::remove_file(path)
}

/// Whole or not at all, also over a power cut.
fn write(dir: &Path, path: &Path, persisted: &Persisted) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(&serde_json::to_vec_pretty(persisted)?)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(dir)?.sync_all()
}

/// Nodes that were started with the same list are of one cluster; with another list they refuse each other. A node that was
/// started alone is a cluster of its own.
fn cluster_id(members: &BTreeMap<NodeId, String>) -> String {
    if members.is_empty() {
        return format!("{:016x}", rand::random::<u64>());
    }
    let list = members.iter().map(|(id, addr)| format!("{id}={addr},")).collect::<String>();
    format!("{:016x}", fnv1a(&list))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members() -> Founding {
        Founding { cluster: None, members: [(1, "a:1".to_owned()), (2, "b:1".to_owned())].into() }
    }

    #[test]
    fn a_known_node_with_another_disk_is_refused_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let (persisted, _) = open(dir.path(), 1, &members()).unwrap();
        let known = Keeper::new(dir.path(), persisted);
        assert_eq!(known.refusal(2, 77), None);
        assert_eq!(known.refusal(2, 77), None);
        assert!(known.refusal(2, 78).unwrap().contains("empty disk"));
        let (persisted, _) = open(dir.path(), 1, &members()).unwrap();
        let known = Keeper::new(dir.path(), persisted);
        assert!(known.refusal(2, 78).is_some());
        assert_eq!(known.refusal(2, 77), None);
    }

    #[test]
    fn a_removal_is_kept_and_a_removed_node_does_not_start_again() {
        let dir = tempfile::tempdir().unwrap();
        let (persisted, _) = open(dir.path(), 1, &members()).unwrap();
        let keeper = Keeper::new(dir.path(), persisted);
        let left = [(1, "a:1".to_owned()), (3, "c:1".to_owned())].into();
        keeper.follow(&left, &[2].into());
        // An older word does not bring it back.
        keeper.follow(&left, &BTreeSet::new());
        let (persisted, _) = open(dir.path(), 1, &members()).unwrap();
        assert_eq!((&persisted.members, &persisted.retired), (&left, &[2].into()));
        Keeper::new(dir.path(), persisted).retire();
        let refused = open(dir.path(), 1, &members()).unwrap_err();
        assert!(matches!(refused, IdentityError::Removed { node: 1, .. }), "{refused}");
    }

    #[test]
    fn a_directory_is_refused_to_another_node_and_to_another_release_and_is_left_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let (made, there) = open(dir.path(), 1, &members()).unwrap();
        assert!(!there);
        let (found, there) = open(dir.path(), 1, &Founding { cluster: None, members: BTreeMap::new() }).unwrap();
        assert!(there);
        assert_eq!(made, found, "what is persisted wins");
        let path = dir.path().join(FILE);
        let before = fs::read(&path).unwrap();
        assert!(matches!(open(dir.path(), 2, &members()), Err(IdentityError::AnotherNode { theirs: 1, .. })));
        assert_eq!(fs::read(&path).unwrap(), before);
        fs::write(&path, br#"{"format": 9, "whatever": 1}"#).unwrap();
        assert!(matches!(open(dir.path(), 1, &members()), Err(IdentityError::AnotherFormat { theirs: 9, .. })));
        fs::write(&path, b"{").unwrap();
        assert!(matches!(open(dir.path(), 1, &members()), Err(IdentityError::Damaged { .. })));
        fs::remove_file(&path).unwrap();
        fs::create_dir(dir.path().join("raft")).unwrap();
        assert!(matches!(open(dir.path(), 1, &members()), Err(IdentityError::Missing { .. })));
    }
}
