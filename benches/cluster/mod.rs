//! A cluster of three node processes on loopback, and what it costs them to run.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate::client::access::Access;
use quorate::client::call::Caller;
use quorate::model::ident::Mode;
use tempfile::TempDir;

/// How long a busy machine may take for what takes a moment.
pub const PATIENCE: Duration = Duration::from_secs(30);
const NODES: usize = 3;
/// In which the kernel tells of processor time, whatever the machine's own tick is.
const TICKS_PER_SECOND: f64 = 100.0;

pub struct Cluster {
    pub urls: Vec<String>,
    pub callers: Vec<Arc<Caller>>,
    children: Vec<Child>,
    /// On the disk that is built on: the system's temporary directory may be RAM.
    _data: TempDir,
}

/// What the nodes' processes have used so far, together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Used {
    pub cpu: Duration,
    /// How often a thread slept and was woken.
    pub wakeups: u64,
}

impl Cluster {
    /// Three nodes of this program with these flags, approached so. Returns when they serve both modes.
    pub async fn start(program: &Path, flags: &[String], scheme: &str, access: &Access) -> Self {
        let data = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("the target directory is writable");
        let ports = [(); NODES].map(|()| (free_port(), free_port()));
        let members = (1..).zip(&ports).map(|(id, (_, peer))| format!("{id}=127.0.0.1:{peer}")).collect::<Vec<_>>();
        let node = |(id, (http, peer)): (usize, &(u16, u16))| {
            Command::new(program)
                .args(["serve", "--exit-with-stdin", "--id", &id.to_string(), "--cluster", &members.join(",")])
                .args(["--http", &format!("127.0.0.1:{http}"), "--peer", &format!("127.0.0.1:{peer}")])
                .arg("--data")
                .arg(data.path().join(id.to_string()))
                .args(flags)
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
                .expect("the program starts")
        };
        let children = (1..).zip(&ports).map(node).collect();
        let url = |(http, _): &(u16, u16)| format!("{scheme}://localhost:{http}");
        let urls = ports.iter().map(url).collect::<Vec<_>>();
        let callers = urls.iter().map(|url| Caller::with_access(url, access).expect("a URL"));
        let cluster = Self { callers: callers.map(Arc::new).collect(), urls, children, _data: data };
        let begun = Instant::now();
        for caller in &cluster.callers {
            for mode in [Mode::Cp, Mode::Ap] {
                while caller.ready(Some(mode), Duration::from_secs(1)).await.is_err() {
                    assert!(begun.elapsed() < PATIENCE, "the cluster does not serve");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
        // What starting leaves to be done.
        tokio::time::sleep(Duration::from_secs(3)).await;
        cluster
    }

    pub fn used(&self) -> Used {
        let each = self.children.iter().map(|child| of_process(child.id()));
        each.fold(Used::default(), |sum, used| Used { cpu: sum.cpu + used.cpu, wakeups: sum.wakeups + used.wakeups })
    }

    /// How far the log of `cp` goes, wherever it goes furthest.
    pub async fn log_len(&self) -> u64 {
        let mut len = 0;
        for caller in &self.callers {
            len = len.max(caller.cluster(PATIENCE).await.expect("it serves").applied);
        }
        len
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("there are ports").port()
}

fn of_process(pid: u32) -> Used {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the node runs");
    // Behind the name, which may hold anything.
    let fields = stat[stat.rfind(')').expect("it has a name") + 1..].split_whitespace().collect::<Vec<_>>();
    let ticks = |at: usize| fields[at].parse::<f64>().expect("a number");
    let cpu = Duration::from_secs_f64((ticks(11) + ticks(12)) / TICKS_PER_SECOND);
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the node runs").flatten();
    let wakeups = tasks.filter_map(|task| {
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        line.trim().parse::<u64>().ok()
    });
    Used { cpu, wakeups: wakeups.sum() }
}

impl Used {
    pub fn since(self, before: Used) -> Used {
        Used { cpu: self.cpu - before.cpu, wakeups: self.wakeups.saturating_sub(before.wakeups) }
    }
}
