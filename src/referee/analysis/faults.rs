//! The faults of a run: when each was surely in force, and what it cut or stopped.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::ident::NodeId;
use crate::referee::history::{Event, FaultEvent, Installed, What};

/// A stretch of time, in nanoseconds since the run began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    pub from: u64,
    pub to: u64,
}

impl Span {
    /// None if the two do not overlap, or only touch.
    pub fn meet(self, other: Span) -> Option<Span> {
        let both = Span { from: self.from.max(other.from), to: self.to.min(other.to) };
        (both.from < both.to).then_some(both)
    }

    pub fn touches(self, other: Span) -> bool {
        self.from <= other.to && other.from <= self.to
    }

    pub fn len(self) -> u64 {
        self.to.saturating_sub(self.from)
    }

    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

#[derive(Clone, Debug)]
pub struct Fault {
    pub id: u64,
    pub kind: String,
    /// What is done. Empty in histories of before there was a word for it.
    pub harm: String,
    pub cut: Vec<(NodeId, NodeId)>,
    pub nodes: Vec<NodeId>,
    /// Meant to last beyond the end of the run.
    pub lasts: bool,
    pub state: Installed,
    pub detail: String,
    /// From the first word of its beginning until it was in force everywhere.
    pub begin: Span,
    /// From the first word of its end until it was lifted everywhere. None: it lasted until the end of the run.
    pub end: Option<Span>,
    /// The last word on its end.
    pub end_state: Installed,
    pub end_detail: String,
}

impl Fault {
    /// While it was in force everywhere, at least; None if that is not known of any moment.
    pub fn in_force(&self, run_end: u64) -> Option<Span> {
        let span = Span { from: self.begin.to, to: self.end.map_or(run_end, |end| end.from) };
        (self.state == Installed::Installed && !span.is_empty()).then_some(span)
    }

    /// While it was in force somewhere, at most.
    pub fn felt(&self, run_end: u64) -> Span {
        Span { from: self.begin.from, to: self.end.map_or(run_end, |end| end.to) }
    }

    /// It is not certain that it took hold, or that it was lifted.
    pub fn is_doubtful(&self) -> bool {
        self.state == Installed::Indeterminate
            || (self.state == Installed::Installed && self.end_state == Installed::Indeterminate)
    }

    /// What there is to be said of its beginning, and of its end.
    pub fn details(&self) -> String {
        match (self.detail.as_str(), self.end_detail.as_str()) {
            (begin, end) if end.is_empty() || begin == end => begin.to_owned(),
            ("", end) => end.to_owned(),
            (begin, end) => format!("{begin}; then {end}"),
        }
    }

    /// Its nodes lose what they had not written down. A paused node wakes as it was.
    pub fn kills(&self) -> bool {
        match self.harm.as_str() {
            "kill" | "cut-power" | "replace" | "fill-disk" | "corrupt" => true,
            "" => !self.nodes.is_empty() && !self.kind.contains("pause"),
            _ => false,
        }
    }

    /// Its nodes never come back: others come in their place.
    pub fn removes(&self) -> bool {
        matches!(self.harm.as_str(), "replace" | "corrupt")
    }

    /// Its nodes answer nobody.
    pub fn stops(&self) -> bool {
        self.kills() || self.harm == "pause" || (self.harm.is_empty() && !self.nodes.is_empty())
    }

    fn stops_node(&self, node: NodeId) -> bool {
        self.stops() && self.nodes.contains(&node)
    }
}

/// All faults of a run, by their beginning.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    pub all: Vec<Fault>,
    run_end: u64,
}

impl Faults {
    pub fn of(events: &[Event]) -> Self {
        let mut by_id: BTreeMap<u64, Fault> = BTreeMap::new();
        let run_end = events.iter().map(|event| event.time).max().unwrap_or(0);
        for event in events {
            let What::Fault(told) = &event.what else { continue };
            if told.begins {
                begin(&mut by_id, told, event.time);
            } else if let Some(fault) = by_id.get_mut(&told.id) {
                let from = fault.end.map_or(event.time, |end| end.from);
                fault.end = Some(Span { from, to: event.time });
                fault.end_state = told.state;
                fault.end_detail.clone_from(&told.detail);
            }
        }
        let mut all: Vec<Fault> = by_id.into_values().collect();
        all.sort_by_key(|fault| (fault.begin, fault.id));
        Self { all, run_end }
    }

    pub fn run_end(&self) -> u64 {
        self.run_end
    }

    /// Those that were not skipped: they may have done harm.
    pub fn felt(&self) -> impl Iterator<Item = &Fault> {
        self.all.iter().filter(|fault| fault.state != Installed::Skipped)
    }

    /// Whether some fault was in force at that moment, or coming or going.
    pub fn during(&self, at: u64) -> bool {
        self.felt().any(|fault| fault.felt(self.run_end).touches(Span { from: at, to: at }))
    }

    /// Whether no fault came or went within the span.
    pub fn steady(&self, span: Span) -> bool {
        self.felt().all(|fault| !fault.begin.touches(span) && fault.end.is_none_or(|end| !end.touches(span)))
    }

    /// The longest stretch within the span in which no fault came or went.
    pub fn longest_steady(&self, span: Span) -> u64 {
        let mut moves: Vec<Span> = self
            .felt()
            .flat_map(|fault| [Some(fault.begin), fault.end])
            .flatten()
            .filter_map(|m| m.meet(span))
            .collect();
        moves.sort_unstable();
        let (mut longest, mut from) = (0, span.from);
        for moving in moves {
            longest = longest.max(moving.from.saturating_sub(from));
            from = from.max(moving.to);
        }
        longest.max(span.to.saturating_sub(from))
    }

    /// Whether the node was stopped, or was being stopped or started, at any moment of the span.
    pub fn stopped_within(&self, node: NodeId, span: Span) -> bool {
        self.felt().any(|fault| fault.stops_node(node) && fault.felt(self.run_end).touches(span))
    }

    /// Whether bytes surely pass from one node to the other at that moment.
    pub fn passes(&self, from: NodeId, to: NodeId, at: u64) -> bool {
        let now = Span { from: at, to: at };
        self.felt()
            .filter(|fault| fault.felt(self.run_end).touches(now))
            .all(|fault| !fault.cut.contains(&(from, to)) && !fault.stops_node(from) && !fault.stops_node(to))
    }

    /// When the last fault was lifted, or was in force that is meant to last; 0 without faults; None if one was not lifted that
    /// should have been.
    pub fn last_heal(&self) -> Option<u64> {
        self.felt().try_fold(0, |last, fault| {
            let settled = match (fault.lasts, fault.end) {
                (true, _) => fault.begin.to,
                (false, end) => end?.to,
            };
            Some(last.max(settled))
        })
    }

    /// The nodes among which everything is mended in the end: all, but for those that what lasts has stopped or cut off from a majority.
    pub fn core(&self, nodes: &[NodeId]) -> Vec<NodeId> {
        let lasting = self.felt().filter(|fault| fault.lasts).collect::<Vec<_>>();
        let stopped = |node: NodeId| lasting.iter().any(|fault| fault.stops_node(node));
        let open = |from: NodeId, to: NodeId| {
            let cut = |fault: &&Fault| fault.cut.contains(&(from, to)) || fault.cut.contains(&(to, from));
            from == to || (!stopped(to) && !lasting.iter().any(cut))
        };
        let reached = |node: NodeId| nodes.iter().filter(|peer| open(node, **peer)).count();
        nodes.iter().copied().filter(|node| !stopped(*node) && reached(*node) * 2 > nodes.len()).collect()
    }

    /// The start of the next fault after that moment, or the end of the run.
    pub fn next_begin(&self, after: u64) -> u64 {
        self.felt().map(|fault| fault.begin.from).filter(|from| *from > after).min().unwrap_or(self.run_end)
    }

    pub fn before_first(&self, at: u64) -> bool {
        self.felt().all(|fault| at < fault.begin.from)
    }
}

fn begin(by_id: &mut BTreeMap<u64, Fault>, told: &FaultEvent, time: u64) {
    let fault = by_id.entry(told.id).or_insert_with(|| Fault {
        id: told.id,
        kind: told.kind.clone(),
        harm: told.harm.clone(),
        lasts: told.lasts,
        cut: Vec::new(),
        nodes: Vec::new(),
        state: told.state,
        detail: String::new(),
        begin: Span { from: time, to: time },
        end: None,
        end_state: Installed::Installed,
        end_detail: String::new(),
    });
    // The last word tells how it went and what it came to.
    fault.begin.to = time;
    fault.state = told.state;
    fault.cut.clone_from(&told.cut);
    fault.nodes.clone_from(&told.nodes);
    fault.detail.clone_from(&told.detail);
}

pub fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Milliseconds, for reports.
pub fn ms(ns: u64) -> f64 {
    (ns as f64 / 1e3).round() / 1e3
}
