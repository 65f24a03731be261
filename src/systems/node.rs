//! One of our own nodes as a process: running, killed, standing still, or another one in its place.

use std::fs::{self, File, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, bail, ensure};
use rustix::process::Signal;

use super::Place;
use super::children::{self, Nursery};
use super::clocks::{self, Clock};
use super::disks::Disk;
use crate::client::call::Caller;
use crate::model::ident::NodeId;

/// A program that shows what time it is takes a moment to start.
const CLOCK_ERROR_MS: u64 = 2_000;

/// A place in the cluster: its addresses stay, whoever is there.
pub struct Node {
    /// 1, 2, …: what the referee calls it.
    place: NodeId,
    program: PathBuf,
    pub http: SocketAddr,
    pub peer: SocketAddr,
    /// What every node here is told.
    flags: Vec<String>,
    who: Mutex<Who>,
    /// All that it writes but its log.
    root: PathBuf,
    log: PathBuf,
    pub caller: Arc<Caller>,
    process: Mutex<Process>,
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

#[derive(Default)]
struct Process {
    child: Option<Child>,
    still: bool,
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
        Ok(Self {
            place,
            program: ground.program.clone(),
            http,
            peer,
            flags,
            who: Mutex::new(Who { id: place, entry: ["--cluster".to_owned(), members.to_owned()] }),
            root,
            log: ground.dir.join(format!("node-{place}.log")),
            caller: Arc::new(Caller::new(&format!("http://{http}"))?),
            process: Mutex::default(),
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

    fn process(&self) -> MutexGuard<'_, Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn data(&self) -> PathBuf {
        self.root.join(format!("as-{}", self.id()))
    }

    /// Sets its wall clock off by so much from the machine's.
    pub fn set_clock(&self, offset_ms: i64) -> anyhow::Result<()> {
        let clock = self.clock.as_ref().context(clocks::MISSING)?;
        clock.set(offset_ms)?;
        let process = self.process().child.as_ref().map(Child::id).context("it does not run")?;
        ensure!(clock.is_followed_by(process), "it does not go by its clock");
        let shown = clock.shown_offset_ms()?;
        ensure!(shown.abs_diff(offset_ms) < CLOCK_ERROR_MS, "its clock is off by {shown} ms, not {offset_ms}");
        Ok(())
    }

    pub fn disk(&self) -> Option<&Disk> {
        self.disk.as_ref()
    }

    pub fn spawn(&self, nursery: &Nursery, ground: &Place) -> anyhow::Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log: File = log.with_context(|| format!("cannot write {}", self.log.display()))?;
        let mut command = Command::new(&self.program);
        let Who { id, entry } = self.who().clone();
        let pairs = [
            ("--id", id.to_string()),
            ("--http", self.http.to_string()),
            ("--peer", self.peer.to_string()),
            (entry[0].as_str(), entry[1].clone()),
            ("--data", self.data().display().to_string()),
        ];
        command.args(["serve", "--exit-with-stdin"]).args(&self.flags);
        command.args(pairs.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]));
        command.stdout(log.try_clone()?).stderr(log);
        // What this process was told by its environment is not meant for its nodes.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("QUORATE_")) {
            command.env_remove(name);
        }
        if let Some(clock) = &self.clock {
            clock.give(&mut command);
        }
        if let Some(net) = &ground.net {
            net.enter(self.place, &mut command);
        }
        let child = nursery.start(command).with_context(|| format!("cannot start {}", self.program.display()))?;
        *self.process() = Process { child: Some(child), still: false };
        Ok(())
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

    /// Err if its process has ended by itself, with what it said last.
    pub fn lives(&self) -> anyhow::Result<()> {
        let ended = match &mut self.process().child {
            Some(child) => child.try_wait()?,
            None => return Ok(()),
        };
        match ended {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status}): {}", self.log.display(), self.last_line()),
        }
    }

    pub fn last_line(&self) -> String {
        last_line(&self.log)
    }

    pub fn kill(&self) -> anyhow::Result<()> {
        match self.process().child.take() {
            Some(mut child) => Ok(children::kill(&mut child)?),
            None => bail!("it does not run"),
        }
    }

    pub fn pause(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP, true)
    }

    pub fn resume(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT, false)
    }

    fn signal(&self, signal: Signal, still: bool) -> anyhow::Result<()> {
        let mut process = self.process();
        match &process.child {
            Some(child) => children::signal(child, signal)?,
            None => bail!("it does not run"),
        }
        process.still = still;
        Ok(())
    }

    /// Its process is there, and does not stand still.
    pub fn runs(&self) -> bool {
        let mut process = self.process();
        !process.still && process.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    pub fn take_child(&self) -> Option<Child> {
        self.process().child.take()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.take_child() {
            // Nothing is left to be done about one that cannot be killed.
            let _ = children::kill(&mut child);
        }
        self.disk = None;
        let _ = fs::remove_dir_all(&self.root);
    }
}

fn last_line(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing").to_owned()
}
