//! What other people's systems have in common here: a server process for each node, started and harmed alike. What differs is an
//! [`Api`]: how they are called and looked into.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use async_trait::async_trait;
use tokio::time::sleep;

use super::Place;
use super::children::Nursery;
use super::doors::Condition;
use super::netns::{self, Network};
use super::ports::Reserved;
use super::process::{Line, Process};
use crate::model::ident::NodeId;
use crate::referee::client::{Client, Reach, Running};
use crate::referee::history::{Conflict, View};
use crate::referee::schedule::Harm;
use crate::referee::situation::Links;

/// How long all servers may take until they serve. A JVM on a busy machine takes its time.
const START_MAX: Duration = Duration::from_secs(60);
const POLL_PERIOD: Duration = Duration::from_millis(100);

/// How a system is called, once its servers run.
#[async_trait]
pub trait Api: Send + Sync {
    fn client(&self, node: NodeId) -> Box<dyn Client>;
    /// Whether the node serves its clients. Err: not yet, and why.
    async fn ready(&self, node: NodeId) -> anyhow::Result<()>;
    /// Program, version, unusual settings.
    async fn facts(&self) -> Vec<(&'static str, String)>;
    fn has_leader(&self) -> bool;
    /// Who leads, asked of the nodes whose servers run.
    async fn leader(&self, up: &[NodeId]) -> Option<NodeId>;
    async fn view(&self, node: NodeId, deadline: Instant) -> anyhow::Result<View>;
    /// What has just happened to a node, or is about to: for what stands there and is no server's process.
    async fn harmed(&self, _node: NodeId, _condition: Condition) {}
}

/// The servers and where they are.
pub struct Servers {
    net: Option<Arc<Network>>,
    nodes: BTreeSet<NodeId>,
    /// Of the nodes that have one, in the order in which they are started.
    processes: BTreeMap<NodeId, Process>,
    nursery: Nursery,
    /// Which user they run as; the referee's own unless given.
    user: Option<User>,
    data: Vec<PathBuf>,
}

/// Whom a program runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
}

impl Servers {
    pub fn new(net: Option<Arc<Network>>, user: Option<User>) -> io::Result<Self> {
        Ok(Self {
            net,
            nodes: BTreeSet::new(),
            processes: BTreeMap::new(),
            nursery: Nursery::new()?,
            user,
            data: Vec::new(),
        })
    }

    /// Adds a node's server, not started yet. `data` is removed in the end.
    pub fn add(&mut self, node: NodeId, line: Line, data: PathBuf) {
        self.add_node(node);
        self.processes.insert(node, Process::new(line));
        self.data.push(data);
    }

    /// Adds a node, for now without a server.
    pub fn add_node(&mut self, node: NodeId) {
        self.nodes.insert(node);
    }

    /// Starts all, with all links whole.
    pub async fn start_all(&self) -> anyhow::Result<()> {
        if let Some(net) = &self.net {
            net.set(&Links::default()).await?;
        }
        self.processes.keys().try_for_each(|node| self.start(*node))
    }

    fn start(&self, node: NodeId) -> anyhow::Result<()> {
        self.with(node, |process| process.start(&self.nursery, |command| self.prepare(node, command)))
    }

    /// Has a program begin in the node's namespace, as the servers' user. In this order: who is nobody cannot move any more.
    fn prepare(&self, node: NodeId, command: &mut Command) {
        if let Some(net) = &self.net {
            net.enter(node, command);
        }
        if let Some(user) = self.user {
            user.run(command);
        }
    }

    /// Does it to the node's server, if it has one.
    fn with(&self, node: NodeId, act: impl FnOnce(&Process) -> anyhow::Result<()>) -> anyhow::Result<()> {
        self.processes.get(&node).map_or(Ok(()), act)
    }

    /// Whether its server is there and does not stand still.
    fn runs(&self, node: NodeId) -> bool {
        self.processes.get(&node).is_none_or(Process::runs)
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        // Killed before their data goes.
        self.processes.clear();
        for data in &self.data {
            let _ = fs::remove_dir_all(data);
        }
    }
}

impl User {
    /// Has a program run as that user.
    #[cfg(target_os = "linux")]
    pub fn run(self, command: &mut Command) {
        use std::os::unix::process::CommandExt;

        use rustix::process::{Gid, Uid};
        use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};
        // SAFETY: between fork and exec the closure makes system calls and touches no memory of the parent. The child has one
        // thread, so that what is said of the thread is said of the process.
        unsafe {
            command.pre_exec(move || {
                set_thread_groups(&[])?;
                set_thread_gid(Gid::from_raw(self.gid))?;
                Ok(set_thread_uid(Uid::from_raw(self.uid))?)
            });
        }
    }

    #[cfg(not(target_os = "linux"))]
    pub fn run(self, command: &mut Command) {
        use std::os::unix::process::CommandExt;
        command.uid(self.uid).gid(self.gid);
    }
}

/// Where a node's servers are to listen: `count` addresses each, nobody else's on this machine.
pub fn addresses(
    place: &Place,
    nodes: &[NodeId],
    count: usize,
    first_port: u16,
) -> io::Result<BTreeMap<NodeId, Vec<SocketAddr>>> {
    if let Some(net) = &place.net {
        let at = |node: NodeId| (0..count as u16).map(move |n| SocketAddr::from((net.addr(node), first_port + n)));
        return Ok(nodes.iter().map(|node| (*node, at(*node).collect())).collect());
    }
    // All are reserved before one is released, so that no two are the same.
    let reserve = |_| Reserved::new();
    let reserved = nodes.iter().map(|node| Ok((*node, (0..count).map(reserve).collect::<io::Result<Vec<_>>>()?)));
    let reserved = reserved.collect::<io::Result<Vec<_>>>()?;
    Ok(reserved.into_iter().map(|(node, ports)| (node, ports.into_iter().map(Reserved::release).collect())).collect())
}

/// A system of others, running.
pub struct Rival<A> {
    pub servers: Servers,
    pub api: A,
}

impl<A: Api> Rival<A> {
    /// Waits until every node serves.
    pub async fn whole(self) -> anyhow::Result<Self> {
        let deadline = Instant::now() + START_MAX;
        for node in &self.servers.nodes {
            loop {
                self.servers.with(*node, Process::lives)?;
                match self.api.ready(*node).await {
                    Ok(()) => break,
                    Err(why) if Instant::now() >= deadline => {
                        return Err(why.context(format!("node {node} does not serve")));
                    }
                    Err(_) => sleep(POLL_PERIOD).await,
                }
            }
        }
        Ok(self)
    }
}

#[async_trait]
impl<A: Api + 'static> Running for Rival<A> {
    fn nodes(&self) -> Vec<NodeId> {
        self.servers.nodes.iter().copied().collect()
    }

    fn client(&self, node: NodeId) -> Box<dyn Client> {
        self.api.client(node)
    }

    async fn facts(&self) -> Vec<(&'static str, String)> {
        self.api.facts().await
    }

    fn has_leader(&self) -> bool {
        self.api.has_leader()
    }

    async fn leader(&self) -> Option<NodeId> {
        let up = self.servers.nodes.iter().copied().filter(|node| self.servers.runs(*node)).collect::<Vec<_>>();
        self.api.leader(&up).await
    }

    fn cannot(&self, harm: &Harm) -> Option<String> {
        match harm {
            Harm::Kill { .. } | Harm::Pause { .. } => None,
            Harm::Cut { .. } | Harm::Lose { .. } | Harm::Delay { .. } if self.servers.net.is_none() => {
                Some("needs --net netns: its links are the kernel's alone".to_owned())
            }
            Harm::Cut { .. } | Harm::Lose { .. } | Harm::Delay { .. } => netns::cannot(harm),
            // The referee's own client reads the answer, and then says that it has not.
            Harm::DropAnswers { .. } => None,
            Harm::CutPower { .. }
            | Harm::Skew { .. }
            | Harm::Replace { .. }
            | Harm::Transfer { .. }
            | Harm::FillDisk { .. }
            | Harm::Corrupt { .. } => Some(format!("the referee cannot do this to it: {}", harm.word())),
        }
    }

    async fn set_links(&self, links: &Links) -> anyhow::Result<()> {
        match &self.servers.net {
            Some(net) => net.set(links).await,
            None => bail!("its links are the kernel's alone"),
        }
    }

    fn runs(&self, node: NodeId) -> bool {
        self.servers.runs(node)
    }

    async fn reached(&self, node: NodeId, deadline: Instant) -> anyhow::Result<Reach> {
        match &self.servers.net {
            Some(net) => net.reached(node, deadline).await,
            None => bail!("its links are the kernel's alone"),
        }
    }

    async fn kill(&self, node: NodeId) -> anyhow::Result<()> {
        self.api.harmed(node, Condition::Killed).await;
        self.servers.with(node, Process::kill)
    }

    async fn restart(&self, node: NodeId) -> anyhow::Result<()> {
        self.servers.start(node)?;
        loop {
            self.servers.with(node, Process::lives)?;
            if self.api.ready(node).await.is_ok() {
                self.api.harmed(node, Condition::Up).await;
                return Ok(());
            }
            sleep(POLL_PERIOD).await;
        }
    }

    async fn pause(&self, node: NodeId) -> anyhow::Result<()> {
        self.api.harmed(node, Condition::Paused).await;
        self.servers.with(node, Process::pause)
    }

    async fn resume(&self, node: NodeId) -> anyhow::Result<()> {
        self.api.harmed(node, Condition::Up).await;
        self.servers.with(node, Process::resume)
    }

    async fn view(&self, node: NodeId, deadline: Instant) -> anyhow::Result<View> {
        self.api.view(node, deadline).await
    }

    async fn conflicts(&self, _node: NodeId, _deadline: Instant) -> anyhow::Result<Option<Vec<Conflict>>> {
        Ok(None)
    }

    /// At once: nobody needs what they would put in order first.
    async fn stop(self: Box<Self>) -> anyhow::Result<()> {
        // Waits for processes, so not on a thread that drives other tasks.
        Ok(tokio::task::spawn_blocking(move || drop(self)).await?)
    }
}

/// A directory made for a server's data or logs.
pub fn made(dir: PathBuf) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

/// Why a system cannot be run here: the first program that is missing, with the packages of Debian that have it.
pub fn lacking(programs: &[&str], packages: &str) -> Option<String> {
    let missing = programs.iter().find(|program| !super::installed(program))?;
    Some(format!("the program {missing} is not installed: apt-get install {packages}"))
}

/// What a deadline leaves, for those who count in durations.
pub fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
