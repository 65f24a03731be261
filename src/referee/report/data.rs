//! What a comparison hands to its report: the runs as they were recorded, and what a reader needs to repeat them.

use std::time::Duration;

use serde_json::Value;

use crate::referee::client::{Abilities, Promises};
use crate::referee::history::{Event, Header};

/// All runs of one comparison, made under one resolved schedule.
#[derive(Clone, Debug)]
pub struct RunSet {
    /// The version of Quorate that made it.
    pub version: String,
    pub seed: u64,
    /// The exact command that makes these runs again.
    pub command: String,
    /// When the comparison began, RFC 3339 in UTC.
    pub started_at: String,
    /// The resolved schedule, as `schedule.json` holds it.
    pub schedule: Value,
    /// What holds for all runs: the machine, the disk, the driver of the faults. Shown in this order.
    pub facts: Vec<Fact>,
    /// One per system, in the order of `--systems`.
    pub runs: Vec<Run>,
    /// Systems that were asked for and not run.
    pub skipped: Vec<Skipped>,
}

/// One system's run.
///
/// What the analyses expect of the events, beside `history`'s own promises: a client's invocation names its `node` and
/// `side`; the observer's views and conflicts are `ok` events (with or without an invocation before), and conflicts name
/// their `node`; a fault's begin and end each have at least one event of the nemesis, the last of which tells how it went and
/// comes when it is in force everywhere (or lifted everywhere); after the last heal, and after the last write, every name and
/// group is read through clients and every node is viewed at least once.
#[derive(Clone, Debug)]
pub struct Run {
    pub header: Header,
    pub promises: Promises,
    pub abilities: Abilities,
    /// Whether its verdict decides the comparison's exit code: true of our own systems.
    pub decides: bool,
    pub events: Vec<Event>,
    /// Kinds of fault (as `--faults` names them) that have to be installed at least once, or the verdict is unknown.
    pub required: Vec<String>,
    pub bounds: Bounds,
    /// What is to be known of this system alone: version, directories, restarts, warnings of the harness. Shown in this order.
    pub facts: Vec<Fact>,
}

/// A line of the run facts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    pub what: String,
    pub value: String,
}

impl Fact {
    pub fn new(what: impl Into<String>, value: impl Into<String>) -> Self {
        Self { what: what.into(), value: value.into() }
    }
}

/// A system that was asked for and not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    pub system: String,
    /// One line; for a missing feature or program, the command that mends it.
    pub why: String,
}

/// How long things may take before a promise counts as broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// After a fault began: until the majority has a leader and serves writes. Longer faults than this judge it.
    pub election: Duration,
    /// After a heal: until every node shows the same.
    pub convergence: Duration,
    /// After an acknowledgement without consensus: until a reachable peer surely holds the grant too.
    pub confirmation: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            election: Duration::from_millis(2_500),
            convergence: Duration::from_secs(5),
            confirmation: Duration::from_secs(1),
        }
    }
}
