//! What the observer saw, and what of it was the last word.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::model::ident::NodeId;
use crate::referee::history::{Conflict, Event, Kind, Process, View, What};

/// How long a look may take.
const LOOK_MAX_NS: u64 = 1_000_000_000;

/// One look at one node. What it shows held at some moment of the span.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    pub node: NodeId,
    pub from: u64,
    pub at: u64,
    pub view: &'a View,
}

/// One time that a node told its conflict records.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    pub node: NodeId,
    pub at: u64,
    pub records: &'a [Conflict],
}

/// All looks, in the order in which they ended, and all tellings.
pub fn seen(events: &[Event]) -> (Vec<Seen<'_>>, Vec<Told<'_>>) {
    let mut begun: HashMap<u64, u64> = HashMap::new();
    let mut before: HashMap<NodeId, u64> = HashMap::new();
    let mut seen = Vec::new();
    let mut told = Vec::new();
    for event in events {
        match event.kind {
            Kind::Invoke => {
                if event.process == Process::Observer {
                    begun.insert(event.index, event.time);
                }
            }
            Kind::Ok => match &event.what {
                What::View(view) => {
                    // An observer that did not note when it began to look began after its look before, and a second ago at most.
                    let after = before.insert(view.node, event.time).unwrap_or(0);
                    let earliest = after.max(event.time.saturating_sub(LOOK_MAX_NS));
                    let from = event.end_of.and_then(|index| begun.remove(&index)).unwrap_or(earliest);
                    seen.push(Seen { node: view.node, from, at: event.time, view });
                }
                What::Conflicts { records } => {
                    if let Some(node) = event.node {
                        told.push(Told { node, at: event.time, records });
                    }
                }
                What::Register { .. }
                | What::Renew { .. }
                | What::Unregister { .. }
                | What::Whereis { .. }
                | What::Join { .. }
                | What::Leave { .. }
                | What::Members { .. }
                | What::CreateLease { .. }
                | What::KeepAlive { .. }
                | What::Revoke { .. }
                | What::GuardedWrite { .. }
                | What::Watched(_)
                | What::Fault(_)
                | What::Probe { .. } => {}
            },
            Kind::Fail | Kind::Info => {}
        }
    }
    (seen, told)
}

/// What every node told last.
pub fn last_told<'a>(told: &[Told<'a>]) -> BTreeMap<NodeId, BTreeSet<&'a Conflict>> {
    let mut last = BTreeMap::new();
    for telling in told {
        last.insert(telling.node, telling.records.iter().collect());
    }
    last
}
