//! Histories in files: which format a file is in, and the calls that it records.
//!
//! [`read`] tells the format from the contents and asks the reader for it: `jepsen` (EDN: Jepsen's, Knossos' and porcupine's
//! key-value files), `etcd_log` (Jepsen's log lines of 2014, as porcupine keeps them), [`own`] (Quorate's ndjson; `lease_ends` adds what
//! ended with leases). Failed calls, which surely had no effect, are left out; calls of unknown outcome are open for ever. [`export`]
//! writes names for others to read.

pub mod edn;
mod etcd_log;
mod events;
pub mod export;
mod jepsen;
mod lease_ends;
pub mod own;

use std::fmt;
use std::str::FromStr;

use super::checker::groups::GroupCall;
use super::checker::kv::{Kv, KvOp, KvRet};
use super::checker::multi::{MultiRegister, Txn};
use super::checker::mutex::{Mutex, MutexOp};
use super::checker::names::NameCall;
use super::checker::register::{Register, RegisterOp, RegisterRet};
use super::checker::{self, Budget, Call, Verdict};

/// What kind of object a history is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    Names,
    Groups,
    Register,
    CasRegister,
    MultiRegister,
    Kv,
    Mutex,
}

impl Model {
    pub const ALL: [Model; 7] = [
        Model::Names,
        Model::Groups,
        Model::Register,
        Model::CasRegister,
        Model::MultiRegister,
        Model::Kv,
        Model::Mutex,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Model::Names => "names",
            Model::Groups => "groups",
            Model::Register => "register",
            Model::CasRegister => "cas-register",
            Model::MultiRegister => "multi-register",
            Model::Kv => "kv",
            Model::Mutex => "mutex",
        }
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Model {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Model::ALL.into_iter().find(|model| model.as_str() == text).ok_or_else(|| format!("{text:?} is not a model"))
    }
}

/// Why a file is not a history, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct FormatError {
    pub line: usize,
    pub message: String,
}

impl FormatError {
    pub fn new(line: usize, message: impl Into<String>) -> Self {
        Self { line, message: message.into() }
    }

    /// At a byte of the text.
    pub fn at(text: &str, byte: usize, message: impl Into<String>) -> Self {
        Self::new(line_of(text, byte), message)
    }
}

/// The line that a byte is in, counted from 1.
fn line_of(text: &str, byte: usize) -> usize {
    1 + text.as_bytes()[..byte.min(text.len())].iter().filter(|&&byte| byte == b'\n').count()
}

/// A call about one of many objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyed<O, R> {
    pub key: String,
    pub call: Call<O, R>,
}

/// The calls of a file, by the kind of object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum History {
    /// With and without compare-and-set.
    Register(Vec<Keyed<RegisterOp, RegisterRet>>),
    MultiRegister(Vec<Call<Txn, ()>>),
    Kv(Vec<Keyed<KvOp, KvRet>>),
    Mutex(Vec<Call<MutexOp, ()>>),
    /// Quorate's own.
    Own {
        names: Vec<NameCall>,
        groups: Vec<GroupCall>,
    },
}

impl History {
    /// Whether there is no call that may have had an effect or told something.
    pub fn is_empty(&self) -> bool {
        match self {
            History::Register(calls) => calls.is_empty(),
            History::MultiRegister(calls) => calls.is_empty(),
            History::Kv(calls) => calls.is_empty(),
            History::Mutex(calls) => calls.is_empty(),
            History::Own { names, groups } => names.is_empty() && groups.is_empty(),
        }
    }
}

/// What a file records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    pub history: History,
    /// Whether anything at all is recorded, be it that every call failed.
    pub any_event: bool,
}

/// Reads a history. An empty file is a history in which nothing is recorded.
///
/// `model` overrides what the operations' names tell.
pub fn read(text: &str, model: Option<Model>) -> Result<Recorded, FormatError> {
    let start = text.trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n']);
    if start.is_empty() {
        return Ok(Recorded { history: History::Register(Vec::new()), any_event: false });
    }
    if start.strip_prefix('{').is_some_and(|rest| rest.trim_start().starts_with(['"', '}'])) {
        return own::read(text, model);
    }
    // A log line may begin with anything.
    if etcd_log::is_one(text) {
        return etcd_log::read(text, model);
    }
    if start.starts_with(['{', '[', '(', ';', '#']) {
        return jepsen::read(text, model);
    }
    Err(FormatError::new(1, "this is neither EDN nor ndjson nor a log of jepsen.util"))
}

impl Recorded {
    /// Leaves the calls about one name, group or key. A history whose calls are all about one object has no keys.
    pub fn only(&mut self, key: &str) {
        match &mut self.history {
            History::Register(calls) => calls.retain(|call| call.key == key),
            History::MultiRegister(calls) => calls.clear(),
            History::Kv(calls) => calls.retain(|call| call.key == key),
            History::Mutex(calls) => calls.clear(),
            History::Own { names, groups } => {
                names.retain(|call| call.name == key);
                groups.retain(|call| call.group == key);
            }
        }
    }

    /// Whether one machine can explain what is recorded. Nothing recorded: `Unknown`.
    pub fn check(&self, budget: &Budget) -> Verdict {
        if !self.any_event {
            return Verdict::Unknown("the file records nothing".to_owned());
        }
        // Events, but no call that had an effect or told anything: whatever the object is, they fit it.
        if self.history.is_empty() {
            return Verdict::Linearizable;
        }
        match &self.history {
            History::Register(calls) => {
                checker::check_keys(calls, |keyed| (&keyed.key, &keyed.call), |_, calls| Register::of(calls), budget)
            }
            History::MultiRegister(calls) => checker::check(&MultiRegister, calls, budget),
            History::Kv(calls) => {
                checker::check_keys(calls, |keyed| (&keyed.key, &keyed.call), |_, calls| Kv::of(calls), budget)
            }
            History::Mutex(calls) => checker::check(&Mutex, calls, budget),
            History::Own { names, groups } => checker::worst([
                if names.is_empty() { Verdict::Linearizable } else { checker::names::check(names, budget) },
                if groups.is_empty() { Verdict::Linearizable } else { checker::groups::check(groups, budget) },
            ]),
        }
    }
}
