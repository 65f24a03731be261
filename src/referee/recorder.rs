//! Writes down what happens, in the order of one clock.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::client::Completion;
use super::history::{Conflict, Event, Header, Kind, Process, Side, What};
use super::watched::Watched;
use crate::model::ident::NodeId;

/// The most that a history may weigh: an event weighs one, and a view one more for each name and member that it shows. At the
/// limit the run ends as the referee's failure: what is missing might have been what convicts.
const WEIGHT_MAX: u64 = 6_000_000;

/// A history that is being made.
pub struct Recorder {
    began: Instant,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    events: Vec<Event>,
    weight: u64,
}

/// The invocation that a completion is to complete.
#[derive(Clone, Debug)]
pub struct Invoked {
    index: u64,
    process: Process,
    node: NodeId,
    what: What,
}

impl Recorder {
    pub fn start() -> Self {
        Self { began: Instant::now(), kept: Mutex::default() }
    }

    /// When the run began, by the clock of the history.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// Whether the history is at its limit.
    pub fn is_full(&self) -> bool {
        self.kept().weight >= WEIGHT_MAX
    }

    /// Before the call goes out.
    pub fn invoke(&self, process: Process, node: NodeId, side: Side, what: &What) -> Invoked {
        let index = self.add(|event| Event {
            kind: Kind::Invoke,
            process,
            what: what.clone(),
            node: Some(node),
            side: Some(side),
            ..event
        });
        Invoked { index, process, node, what: what.clone() }
    }

    /// After the answer came in.
    pub fn complete(&self, invoked: Invoked, completion: Completion) {
        let (kind, what, error) = match completion {
            Completion::Ok(what) => (Kind::Ok, what, None),
            Completion::Fail(error) => (Kind::Fail, invoked.what, Some(error)),
            Completion::Info(error) => (Kind::Info, invoked.what, Some(error)),
        };
        self.add(|event| Event {
            kind,
            process: invoked.process,
            what,
            node: Some(invoked.node),
            error,
            end_of: Some(invoked.index),
            ..event
        });
    }

    /// What the nemesis did or found.
    pub fn nemesis(&self, what: What) {
        self.add(|event| Event { kind: Kind::Info, process: Process::Nemesis, what, ..event });
    }

    /// What a watcher was told by a node.
    pub fn watched(&self, watcher: u64, node: NodeId, told: Watched) {
        let (kind, process, what) = (Kind::Ok, Process::Watcher(watcher), What::Watched(told));
        self.add(|event| Event { kind, process, what, node: Some(node), ..event });
    }

    /// What a guarded resource did.
    pub fn resource(&self, what: What) {
        self.add(|event| Event { kind: Kind::Ok, process: Process::Resource, what, ..event });
    }

    /// What a node told the observer of conflicts.
    pub fn told(&self, node: NodeId, side: Side, records: Vec<Conflict>) {
        let what = What::Conflicts { records };
        let (kind, process) = (Kind::Ok, Process::Observer);
        self.add(|event| Event { kind, process, what, node: Some(node), side: Some(side), ..event });
    }

    /// All events so far; the recorder begins anew.
    pub fn take(&self) -> Vec<Event> {
        std::mem::take(&mut *self.kept()).events
    }

    /// The stamp is taken under the lock: a later index never has an earlier time.
    fn add(&self, fill: impl FnOnce(Event) -> Event) -> u64 {
        let mut kept = self.kept();
        let index = kept.events.len() as u64;
        let event = fill(Event {
            index,
            time: u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX),
            kind: Kind::Info,
            process: Process::Observer,
            what: What::Conflicts { records: Vec::new() },
            node: None,
            side: None,
            error: None,
            end_of: None,
        });
        kept.weight += weight(&event.what);
        kept.events.push(event);
        index
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // A client task that panicked did so outside of this lock's few lines; what is kept is whole.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn weight(what: &What) -> u64 {
    match what {
        What::View(view) => 1 + (view.names.len() + view.groups.values().map(|g| g.len()).sum::<usize>()) as u64,
        What::Conflicts { records } => 1 + records.len() as u64,
        What::Watched(Watched::Change { changes, .. }) => 1 + changes.len() as u64,
        _ => 1,
    }
}

/// Writes a history as ndjson: the header, then one event a line.
pub fn write(path: &Path, header: &Header, events: &[Event]) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    serde_json::to_writer(&mut file, header)?;
    file.write_all(b"\n")?;
    for event in events {
        serde_json::to_writer(&mut file, event)?;
        file.write_all(b"\n")?;
    }
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}
