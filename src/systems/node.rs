//! One of our own nodes as a process: running, killed, standing still, or another one in its place.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, ensure};

use super::Place;
use super::children::Nursery;
use super::clocks::{self, Clock};
use super::disks::Disk;
use super::process::{Line, Process};
use crate::client::call::Caller;
use crate::model::ident::NodeId;

/// A program that shows what time it is takes a moment to start.
const CLOCK_ERROR_MS: u64 = 2_000;

/// A place in the cluster: its addresses stay, whoever is there.
pub struct Node {
    /// 1, 2, …: what the referee calls it.
    place: NodeId,
    pub http: SocketAddr,
    pub peer: SocketAddr,
    who: Mutex<Who>,
    /// All that it writes but its log.
    root: PathBuf,
    pub caller: Arc<Caller>,
    pub process: Process,
    clock: Option<Clock>,
    disk: Option<Disk>,
}

/// Who is in the place.
#[derive(Clone, Debug)]
struct Who {
    id: NodeId,
    /// How it finds the others.
    entry: [String; 2],
}

impl Node {
    /// Not started yet. `members`: all nodes of the new cluster, itself included.
    pub fn new(
        place: NodeId,
        (http, peer): (SocketAddr, SocketAddr),
        members: &str,
        flags: Vec<String>,
        ground: &Place,
    ) -> anyhow::Result<Self> {
        let root = ground.dir.join(format!("node-{place}"));
        let disk = ground.disks.then(|| Disk::new(&root)).transpose()?;
        let file = ground.dir.join(format!("node-{place}.clock"));
        let clock = ground.clocks.as_ref().map(|library| Clock::new(library, file)).transpose()?;
        let args = ["serve", "--exit-with-stdin"].map(str::to_owned).into_iter().chain(flags).collect();
        let line = Line::new(&ground.program, args, ground.dir.join(format!("node-{place}.log")));
        Ok(Self {
            place,
            http,
            peer,
            who: Mutex::new(Who { id: place, entry: ["--cluster".to_owned(), members.to_owned()] }),
            root,
            caller: Arc::new(Caller::new(&format!("http://{http}"))?),
            process: Process::new(line),
            clock,
            disk,
        })
    }

    /// What the cluster calls it.
    pub fn id(&self) -> NodeId {
        self.who().id
    }

    fn who(&self) -> MutexGuard<'_, Who> {
        self.who.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn data(&self) -> PathBuf {
        self.root.join(format!("as-{}", self.id()))
    }

    /// Sets its wall clock off by so much from the machine's.
    pub fn set_clock(&self, offset_ms: i64) -> anyhow::Result<()> {
        let clock = self.clock.as_ref().context(clocks::MISSING)?;
        clock.set(offset_ms)?;
        ensure!(clock.is_followed_by(self.process.id()?), "it does not go by its clock");
        let shown = clock.shown_offset_ms()?;
        ensure!(shown.abs_diff(offset_ms) < CLOCK_ERROR_MS, "its clock is off by {shown} ms, not {offset_ms}");
        Ok(())
    }

    pub fn disk(&self) -> Option<&Disk> {
        self.disk.as_ref()
    }

    pub fn spawn(&self, nursery: &Nursery, ground: &Place) -> anyhow::Result<()> {
        let Who { id, entry } = self.who().clone();
        let pairs = [
            ("--id", id.to_string()),
            ("--http", self.http.to_string()),
            ("--peer", self.peer.to_string()),
            (entry[0].as_str(), entry[1].clone()),
            ("--data", self.data().display().to_string()),
        ];
        self.process.start(nursery, |command| {
            command.args(pairs.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]));
            // What this process was told by its environment is not meant for its nodes.
            for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("QUORATE_")) {
                command.env_remove(name);
            }
            if let Some(clock) = &self.clock {
                clock.give(command);
            }
            if let Some(net) = &ground.net {
                net.enter(self.place, command);
            }
        })
    }

    /// Gives the place to a new member that joins by a node of the cluster. Whoever was there is to have been killed.
    pub fn succeed(&self, id: NodeId, join: String) -> anyhow::Result<()> {
        let data = self.data();
        if data.exists() {
            fs::remove_dir_all(&data).with_context(|| format!("cannot remove {}", data.display()))?;
        }
        *self.who() = Who { id, entry: ["--join".to_owned(), join] };
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Nothing is left to be done about one that cannot be killed, or does not run.
        let _ = self.process.kill();
        self.disk = None;
        let _ = fs::remove_dir_all(&self.root);
    }
}
