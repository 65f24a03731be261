//! Real node processes for tests: started, killed and restarted, and gone when the test ends.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The program under test.
pub const QUORATE: &str = env!("CARGO_BIN_EXE_quorate");
const SOON: Duration = Duration::from_secs(20);

/// A directory on a real disk, removed at the end.
pub fn temporary() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Runs the program to its end.
pub fn quorate(args: &[&str]) -> Output {
    Command::new(QUORATE).args(args).stdin(Stdio::null()).output().unwrap()
}

/// What a command printed on standard error.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Says that a test cannot run here. Straight to standard error: the harness would keep what a passing test prints to itself.
pub fn skipped(why: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}

/// An HTTP answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }
}

/// One request over a connection of its own. Err: no answer.
pub fn http(port: u16, method: &str, path: &str, body: &str) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let status = head.get(9..12).and_then(|code| code.parse().ok()).ok_or(std::io::ErrorKind::InvalidData)?;
    Ok(Answer { status, body: body.to_owned() })
}

/// A cluster of node processes on loopback.
pub struct Nodes {
    pub dir: tempfile::TempDir,
    pub ports: Vec<(u16, u16)>,
    children: Vec<Option<Child>>,
    extra: Vec<String>,
    /// The name by which nodes know each other's machine.
    host: &'static str,
    /// Nodes from this one on have joined those before it: through which one, and with which further flags.
    founders: usize,
    joiners: Vec<(usize, Vec<String>)>,
}

impl Nodes {
    /// Starts so many nodes, with these flags beside the necessary ones, and waits until all serve both modes.
    pub fn start(count: usize, extra: &[&str]) -> Self {
        Self::named("127.0.0.1", count, extra)
    }

    /// The same, with nodes that know each other by a host name.
    pub fn named(host: &'static str, count: usize, extra: &[&str]) -> Self {
        let ports = (0..count).map(|_| (free_port(), free_port())).collect();
        let mut nodes = Self::unstarted(host, ports, extra);
        for at in 0..count {
            nodes.restart(at);
        }
        for at in 0..count {
            nodes.wait_ready(at);
        }
        nodes
    }

    /// Nodes at these ports, for clients and peers, that have yet to be started.
    pub fn unstarted(host: &'static str, ports: Vec<(u16, u16)>, extra: &[&str]) -> Self {
        let count = ports.len();
        let extra = extra.iter().map(|flag| (*flag).to_owned()).collect();
        Self {
            dir: temporary(),
            ports,
            children: (0..count).map(|_| None).collect(),
            extra,
            host,
            founders: count,
            joiners: Vec::new(),
        }
    }

    pub fn http_port(&self, at: usize) -> u16 {
        self.ports[at].0
    }

    pub fn data(&self, at: usize) -> PathBuf {
        self.dir.path().join((at + 1).to_string())
    }

    /// The command line of one node's `serve`.
    pub fn command(&self, at: usize) -> Command {
        let founders = self.ports[..self.founders].iter().enumerate();
        let members = founders.map(|(at, (_, peer))| format!("{}={}:{peer}", at + 1, self.host));
        let (http, peer) = self.ports[at];
        let mut command = Command::new(QUORATE);
        command
            .args(["serve", "--exit-with-stdin", "--id", &(at + 1).to_string()])
            .args(["--http", &format!("127.0.0.1:{http}"), "--peer", &format!("127.0.0.1:{peer}")])
            .arg("--data")
            .arg(self.data(at))
            // Where a flag differs between nodes, it holds the id's place.
            .args(self.extra.iter().map(|flag| flag.replace("{id}", &(at + 1).to_string())))
            .stdin(Stdio::piped())
            .stdout(Stdio::null());
        match at.checked_sub(self.founders).map(|at| &self.joiners[at]) {
            None => command.args(["--cluster", &members.collect::<Vec<_>>().join(",")]),
            Some((via, flags)) => {
                command.args(["--join", &format!("http://127.0.0.1:{}", self.http_port(*via))]).args(flags)
            }
        };
        command
    }

    /// Keeps ports for a node that may join later; its place.
    pub fn reserve(&mut self) -> usize {
        self.ports.push((free_port(), free_port()));
        self.children.push(None);
        self.joiners.push((0, Vec::new()));
        self.ports.len() - 1
    }

    /// Starts a node that joins the cluster through another one.
    pub fn start_joiner(&mut self, at: usize, via: usize, flags: &[&str]) {
        self.joiners[at - self.founders] = (via, flags.iter().map(|flag| (*flag).to_owned()).collect());
        self.restart(at);
    }

    /// Starts one more node, which joins the cluster through another one; its place.
    pub fn join(&mut self, via: usize, flags: &[&str]) -> usize {
        let at = self.reserve();
        self.start_joiner(at, via, flags);
        at
    }

    /// Asks a node to end, and waits until it has.
    pub fn end(&mut self, at: usize) -> ExitStatus {
        drop(self.children[at].as_mut().unwrap().stdin.take());
        self.wait_ended(at)
    }

    /// Waits until a node has ended.
    pub fn wait_ended(&mut self, at: usize) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.children[at].as_mut().unwrap().try_wait().unwrap() {
                self.children[at] = None;
                return status;
            }
            assert!(begun.elapsed() < SOON, "node {} does not end; its log:\n{}", at + 1, self.log(at));
            sleep(Duration::from_millis(20));
        }
    }

    /// Starts a node on whatever its directory holds.
    pub fn restart(&mut self, at: usize) {
        let log = File::options().create(true).append(true).open(self.dir.path().join(format!("node-{}.log", at + 1)));
        let child = self.command(at).stderr(log.unwrap()).spawn().unwrap();
        self.children[at] = Some(child);
    }

    /// kill -9, and waits until the process is gone.
    pub fn kill(&mut self, at: usize) {
        if let Some(mut child) = self.children[at].take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// kill -9 of all at once.
    pub fn kill_all(&mut self) {
        for child in self.children.iter_mut().flatten() {
            child.kill().unwrap();
        }
        for at in 0..self.children.len() {
            self.kill(at);
        }
    }

    pub fn pid(&self, at: usize) -> u32 {
        self.children[at].as_ref().unwrap().id()
    }

    /// Waits until a node serves both modes.
    pub fn wait_ready(&self, at: usize) {
        let begun = Instant::now();
        loop {
            let ready = |mode| {
                http(self.http_port(at), "GET", &format!("/readyz?mode={mode}"), "")
                    .is_ok_and(|answer| answer.status == 200)
            };
            if ready("cp") && ready("ap") {
                return;
            }
            assert!(begun.elapsed() < SOON, "node {} is not ready; its log:\n{}", at + 1, self.log(at));
            sleep(Duration::from_millis(20));
        }
    }

    pub fn log(&self, at: usize) -> String {
        fs::read_to_string(self.dir.path().join(format!("node-{}.log", at + 1))).unwrap_or_default()
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        self.kill_all();
    }
}

/// Whether anything in a directory tree was changed between two looks.
pub fn listing(dir: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let entry = entry.unwrap();
            let data = entry.metadata().unwrap();
            if data.is_dir() {
                dirs.push(entry.path());
            } else {
                found.push((entry.path(), data.len()));
            }
        }
    }
    found.sort();
    found
}
