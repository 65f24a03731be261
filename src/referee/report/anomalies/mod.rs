//! What no single, always-up machine would do, as the page lists it: each case with the calls that show it, and why they do.
//! [`cases`] tells them kind by kind; here their calls are written out, each once and as many as there is room for.

mod cases;

use std::collections::HashMap;

use serde::Serialize;
use serde_json::value::RawValue;

use super::data::Run;
use super::doubles::Double;
use crate::model::ident::NodeId;
use crate::referee::analysis::Findings;
use crate::referee::analysis::faults::ms;
use crate::referee::analysis::story::Story;
use crate::referee::history::{Event, Kind, Process};

/// Calls of one case.
const CALLS_MAX: usize = 12;

#[derive(Serialize)]
pub(super) struct Anomalies {
    list: Vec<Anomaly>,
    /// Every call that a case cites, once.
    calls: Vec<Call>,
}

#[derive(Serialize)]
struct Anomaly {
    kind: String,
    /// A name or a group; empty: the case is about none.
    key: String,
    from: f64,
    to: f64,
    text: String,
    /// Why that is one.
    why: String,
    /// Whether it breaks a promise of the system.
    broken: bool,
    /// Of two owners: its number in the timeline.
    number: Option<usize>,
    /// Which calls show it, by invocation.
    calls: Vec<usize>,
    /// The one among them whose answer nothing explains.
    culprit: Option<usize>,
    /// The page had no room for more calls.
    cut: bool,
    /// What convicts it again, run where the page lies; none: the calls alone do not.
    check: Option<String>,
}

#[derive(Serialize)]
struct Call {
    process: u64,
    node: Option<NodeId>,
    from: f64,
    /// None: it never returned.
    to: Option<f64>,
    told: String,
    /// Its invocation and how it ended, as the history has them.
    events: Vec<Box<RawValue>>,
}

/// All of a run. The calls of all cases take at most `bytes_max`.
pub(super) fn of(
    run: &Run,
    story: &Story,
    found: &Findings,
    doubles: &[(Double, &str)],
    bytes_max: usize,
) -> Anomalies {
    let mut list = Lister {
        run,
        story,
        found,
        ends: ends(&run.events),
        places: HashMap::new(),
        left: bytes_max,
        made: Anomalies { list: Vec::new(), calls: Vec::new() },
    };
    list.all(doubles);
    list.made
}

/// Where the completion of each invocation is, by where the invocation is.
fn ends(events: &[Event]) -> HashMap<u64, (usize, Option<usize>)> {
    let (mut ends, mut open) = (HashMap::new(), HashMap::new());
    for (at, event) in events.iter().enumerate() {
        let Process::Client(process) = event.process else { continue };
        if event.kind == Kind::Invoke {
            ends.insert(event.index, (at, None));
            open.insert(process, event.index);
        } else if let Some(end) = open.remove(&process).and_then(|index| ends.get_mut(&index)) {
            end.1 = Some(at);
        }
    }
    ends
}

struct Lister<'r> {
    run: &'r Run,
    story: &'r Story<'r>,
    found: &'r Findings,
    ends: HashMap<u64, (usize, Option<usize>)>,
    /// Where the calls that were cited before are, by their places in the story.
    places: HashMap<usize, usize>,
    /// Bytes for calls.
    left: usize,
    made: Anomalies,
}

/// A case before its calls are written out. What its kind does not know stays empty.
#[derive(Default)]
struct Found<'r> {
    kind: String,
    key: &'r str,
    /// Milliseconds; both zero: no time can be told.
    from: f64,
    to: f64,
    text: String,
    why: String,
    broken: bool,
    number: Option<usize>,
    /// Places in the story.
    calls: Vec<usize>,
    culprit: Option<usize>,
}

impl Lister<'_> {
    fn add(&mut self, mut found: Found) {
        found.calls.sort_unstable();
        found.calls.dedup();
        let wanted = found.calls.len();
        let calls: Vec<usize> = found.calls.into_iter().take(CALLS_MAX).filter_map(|op| self.cite(op)).collect();
        let check = self.check(found.key);
        let culprit = found.culprit.and_then(|op| self.places.get(&op).copied());
        let cut = calls.len() < wanted;
        let Found { kind, key, from, to, text, why, broken, number, .. } = found;
        let key = key.to_owned();
        self.made.list.push(Anomaly { kind, key, from, to, text, why, broken, number, calls, culprit, cut, check });
    }

    /// None: the page has no room for it.
    fn cite(&mut self, op: usize) -> Option<usize> {
        if let Some(place) = self.places.get(&op) {
            return Some(*place);
        }
        let of = &self.story.ops[op];
        let (invoked, ended) = *self.ends.get(&of.index)?;
        let raw = |at: usize| serde_json::value::to_raw_value(&self.run.events[at]).ok();
        let events: Vec<Box<RawValue>> = [Some(invoked), ended].into_iter().flatten().filter_map(raw).collect();
        let told = of.tell();
        let bytes = told.len() + 80 + events.iter().map(|event| event.get().len()).sum::<usize>();
        self.left = self.left.checked_sub(bytes)?;
        let place = self.made.calls.len();
        self.made.calls.push(Call {
            process: of.process,
            node: of.node,
            from: ms(of.invoked),
            to: of.acked().map(ms),
            told,
            events,
        });
        self.places.insert(op, place);
        Some(place)
    }

    /// Only where that command comes to the same finding.
    fn check(&self, key: &str) -> Option<String> {
        let not = |found: &[String]| found.iter().any(|other| other == key);
        let convicts = not(&self.found.names.not_linearizable) || not(&self.found.groups.not_linearizable);
        let system = &self.run.header.system;
        convicts.then(|| format!("quorate check --explain --key={} {system}/history.ndjson", quoted(key)))
    }
}

/// As one word of a shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+,".contains(c);
    match !word.is_empty() && !word.starts_with('-') && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_name_is_one_word_of_the_shell() {
        assert_eq!(quoted("service/a-1"), "service/a-1");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's; rm $HOME"), r"'it'\''s; rm $HOME'");
    }
}
