//! One server program as a child process: started, killed, stopped for a while, started again on what it left on disk.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, bail};
use rustix::process::Signal;

use super::children::{self, Nursery};

/// What is started, the same each time.
#[derive(Clone, Debug)]
pub struct Line {
    pub program: PathBuf,
    pub args: Vec<String>,
    pub env: Vec<(&'static str, String)>,
    /// Where it says what it has to say.
    pub log: PathBuf,
}

/// A program, running or not.
pub struct Process {
    line: Line,
    child: Mutex<Option<Child>>,
}

impl Process {
    pub fn new(line: Line) -> Self {
        Self { line, child: Mutex::new(None) }
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts it; `prepare` says where and as whom.
    pub fn start(&self, nursery: &Nursery, prepare: impl FnOnce(&mut Command)) -> anyhow::Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(&self.line.log);
        let log = log.with_context(|| format!("cannot write {}", self.line.log.display()))?;
        let mut command = Command::new(&self.line.program);
        command.args(&self.line.args).envs(self.line.env.iter().map(|(name, value)| (name, value)));
        command.stdout(log.try_clone()?).stderr(log);
        prepare(&mut command);
        let child = nursery.start(command).with_context(|| format!("cannot start {}", self.line.program.display()))?;
        *self.child() = Some(child);
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

    pub fn runs(&self) -> bool {
        self.child().is_some()
    }

    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        match self.child().as_ref() {
            Some(child) => Ok(children::signal(child, signal)?),
            None => bail!("it does not run"),
        }
    }

    /// SIGKILL, and its end awaited.
    pub fn kill(&self) -> anyhow::Result<()> {
        match self.child().take() {
            Some(mut child) => Ok(children::kill(&mut child)?),
            None => bail!("it does not run"),
        }
    }

    /// The child, for whoever ends it in good order.
    pub fn take(&self) -> Option<Child> {
        self.child().take()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.take() {
            // Nothing is left to be done about one that cannot be killed.
            let _ = children::kill(&mut child);
        }
    }
}

/// What a program said last.
pub fn last_line(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing").to_owned()
}
