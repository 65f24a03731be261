//! What systems need of the place that they are started in, made ready before the first of them starts.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;

use super::netns::{self, Network};
use super::{clocks, disks};
use crate::referee::kinds::FaultKind;

/// Where systems are started.
#[derive(Clone)]
pub struct Place {
    /// The `quorate` program.
    pub program: PathBuf,
    /// Where a system keeps what it writes, below its own name. On a real disk.
    pub dir: PathBuf,
    /// Where the nodes 1, 2, … have addresses and links of their own. None: they share the loopback interface.
    pub net: Option<Arc<Network>>,
    /// With it each node gets a wall clock of its own. None: not needed, or not installed.
    pub clocks: Option<PathBuf>,
    /// Whether each node gets a small disk of its own.
    pub disks: bool,
}

impl Place {
    /// Nothing made ready: faults of links, and signals.
    pub fn new(program: PathBuf, dir: PathBuf) -> Self {
        Self { program, dir, net: None, clocks: None, disks: false }
    }

    /// Makes ready what these kinds of fault take and this machine has; with `netns` a network for so many nodes. To be called before
    /// there is a second thread: the whole process moves into namespaces of its own.
    pub fn prepared(mut self, kinds: &[FaultKind], netns: bool, nodes: usize) -> anyhow::Result<Self> {
        if kinds.contains(&FaultKind::Skew) {
            self.clocks = clocks::library();
        }
        let wants_disks = |kind: &FaultKind| matches!(kind, FaultKind::DiskFull | FaultKind::PowerCut);
        if kinds.iter().any(wants_disks) && disks::missing().is_none() {
            disks::own_mounts().context("cannot move into a mount namespace")?;
            self.disks = true;
        }
        if netns {
            netns::own_network().context("cannot move into a network namespace")?;
            self.net = Some(Arc::new(Network::new(nodes)?));
        }
        Ok(self)
    }
}
