//! Real node processes for tests: started, killed and restarted, and gone when the test ends.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
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
}

impl Nodes {
    /// Starts so many nodes, with these flags beside the necessary ones, and waits until all serve both modes.
    pub fn start(count: usize, extra: &[&str]) -> Self {
        let ports = (0..count).map(|_| (free_port(), free_port())).collect();
        let extra = extra.iter().map(|flag| (*flag).to_owned()).collect();
        let mut nodes = Self { dir: temporary(), ports, children: (0..count).map(|_| None).collect(), extra };
        for at in 0..count {
            nodes.restart(at);
        }
        for at in 0..count {
            nodes.wait_ready(at);
        }
        nodes
    }

    pub fn http_port(&self, at: usize) -> u16 {
        self.ports[at].0
    }

    pub fn data(&self, at: usize) -> PathBuf {
        self.dir.path().join((at + 1).to_string())
    }

    /// The command line of one node's `serve`.
    pub fn command(&self, at: usize) -> Command {
        let members = self.ports.iter().enumerate().map(|(at, (_, peer))| format!("{}=127.0.0.1:{peer}", at + 1));
        let (http, peer) = self.ports[at];
        let mut command = Command::new(QUORATE);
        command
            .args(["serve", "--exit-with-stdin", "--id", &(at + 1).to_string()])
            .args(["--http", &format!("127.0.0.1:{http}"), "--peer", &format!("127.0.0.1:{peer}")])
            .args(["--cluster", &members.collect::<Vec<_>>().join(",")])
            .arg("--data")
            .arg(self.data(at))
            // Where a flag differs between nodes, it holds the id's place.
            .args(self.extra.iter().map(|flag| flag.replace("{id}", &(at + 1).to_string())))
            .stdin(Stdio::piped())
            .stdout(Stdio::null());
        command
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
