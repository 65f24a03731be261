//! One server program as a child process: started, killed, stopped for a while, started again on what it left on disk.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::children::{self, Nursery};

/// How long a program may take to end when it is told to.
const END_MAX: Duration = Duration::from_secs(3);

/// What is started, the same each time.
#[derive(Clone, Debug)]
pub struct Line {
    pub program: PathBuf,
    pub args: Vec<String>,
    pub env: Vec<(&'static str, String)>,
    /// Where it says what it has to say.
    pub log: PathBuf,
    /// What ends it at once when nobody needs it any more.
    pub end: Signal,
}

impl Line {
    pub fn new(program: impl Into<PathBuf>, args: Vec<String>, log: PathBuf) -> Self {
        Self { program: program.into(), args, env: Vec::new(), log, end: Signal::KILL }
    }
}

/// A program, running or not.
pub struct Process {
    line: Line,
    child: Mutex<Option<Child>>,
    still: AtomicBool,
}

impl Process {
    pub fn new(line: Line) -> Self {
        Self { line, child: Mutex::new(None), still: AtomicBool::new(false) }
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts it; `prepare` says where and as whom, and what it is told this time beside the line.
    pub fn start(&self, nursery: &Nursery, prepare: impl FnOnce(&mut Command)) -> anyhow::Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(&self.line.log);
        let log = log.with_context(|| format!("cannot write {}", self.line.log.display()))?;
        let mut command = Command::new(&self.line.program);
        command.args(&self.line.args).envs(self.line.env.iter().map(|(name, value)| (name, value)));
        command.stdout(log.try_clone()?).stderr(log);
        prepare(&mut command);
        let child = nursery.start(command).with_context(|| format!("cannot start {}", self.line.program.display()))?;
        *self.child() = Some(child);
        self.still.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Err if it has ended by itself, with what it said last.
    pub fn lives(&self) -> anyhow::Result<()> {
        let ended = match self.child().as_mut() {
            Some(child) => child.try_wait()?,
            None => return Ok(()),
        };
        match ended {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status}): {}", self.line.log.display(), last_line(&self.line.log)),
        }
    }

    /// It is there, and does not stand still.
    pub fn runs(&self) -> bool {
        let there = self.child().as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)));
        there && !self.still.load(Ordering::Relaxed)
    }

    /// SIGSTOP.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.still.store(true, Ordering::Relaxed);
        self.signal(Signal::STOP)
    }

    /// SIGCONT.
    pub fn resume(&self) -> anyhow::Result<()> {
        self.still.store(false, Ordering::Relaxed);
        self.signal(Signal::CONT)
    }

    /// To it and to the processes that it has started.
    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        match self.child().as_ref() {
            Some(child) => {
                children::signal(child, signal)?;
                signal_all(&children_of(child), signal);
                Ok(())
            }
            None => bail!("it does not run"),
        }
    }

    /// The process id; Err if it does not run.
    pub fn id(&self) -> anyhow::Result<u32> {
        self.child().as_ref().map(Child::id).context("it does not run")
    }

    /// What it said last.
    pub fn last_line(&self) -> String {
        last_line(&self.line.log)
    }

    /// The child, from now on the caller's; None: it does not run.
    pub fn take(&self) -> Option<Child> {
        self.child().take()
    }

    /// SIGKILL, and its end awaited.
    pub fn kill(&self) -> anyhow::Result<()> {
        match self.child().take() {
            Some(child) => kill_all(child),
            None => bail!("it does not run"),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let end = self.line.end;
        let Some(mut child) = self.child().take() else { return };
        if end != Signal::KILL {
            // It may stand still.
            let _ = children::signal(&child, Signal::CONT).and_then(|()| children::signal(&child, end));
            let deadline = Instant::now() + END_MAX;
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(10));
            }
        }
        if let Ok(None) = child.try_wait() {
            // Nothing is left to be done about one that cannot be killed.
            let _ = kill_all(child);
        }
    }
}

/// Its own children are told apart before it goes: afterwards they are nobody's.
fn kill_all(mut child: Child) -> anyhow::Result<()> {
    let its = children_of(&child);
    children::kill(&mut child)?;
    signal_all(&its, Signal::KILL);
    Ok(())
}

fn signal_all(processes: &[Pid], signal: Signal) {
    for process in processes {
        // One that has gone by itself needs no signal.
        let _ = kill_process(*process, signal);
    }
}

/// The processes that a child has started. Where there is no /proc, none: those that matter end with their parent.
fn children_of(child: &Child) -> Vec<Pid> {
    let parent = child.id().to_string();
    let of = |entry: io::Result<fs::DirEntry>| {
        let entry = entry.ok()?;
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        // PID (NAME) STATE PARENT …, and the name may hold anything.
        let its = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?;
        (its == parent).then(|| Pid::from_raw(pid)).flatten()
    };
    fs::read_dir("/proc").map(|all| all.filter_map(of).collect()).unwrap_or_default()
}

/// What a program said last.
pub fn last_line(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing").to_owned()
}
