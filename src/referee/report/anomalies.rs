//! What no single, always-up machine would do, as the page lists it: each case with the calls that show it, and why they do.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::value::RawValue;

use super::data::Run;
use super::doubles::Double;
use super::prose;
use crate::model::ident::NodeId;
use crate::referee::analysis::Findings;
use crate::referee::analysis::faults::ms;
use crate::referee::analysis::grants::Grants;
use crate::referee::analysis::linearizable::CounterExample;
use crate::referee::analysis::lost::Case;
use crate::referee::analysis::ops::Op;
use crate::referee::analysis::story::Story;
use crate::referee::analysis::verdict::{Promise, Verdict};
use crate::referee::history::{Event, Key, Kind, Process};

/// Cases listed per system and kind.
const CASES_MAX: usize = 20;
/// Calls of one case.
const CALLS_MAX: usize = 12;
/// Promises whose cases are told one by one; of every other one its evidence is.
const TOLD: [&str; 15] = [
    "linearizable-names",
    "linearizable-groups",
    "one-owner",
    "nothing-lost",
    "nothing-resurrected",
    "one-record-per-loser",
    "one-certain-owner",
    "tokens-rise",
    "stale-owners-fenced",
    "no-early-expiry",
    "no-late-expiry",
    "no-member-twice",
    "watch-exact",
    "watch-at-least-once",
    "losers-told",
];

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
    list.counter_examples();
    list.doubles(doubles);
    let keeps = run.promises.one_order || run.promises.converges;
    let losses = &found.losses;
    list.cases(
        "lost",
        &losses.lost,
        keeps,
        "It was acknowledged, nobody may have ended it, and it is not there at the end.",
    );
    list.cases(
        "at risk",
        &losses.at_risk,
        false,
        "The only node that surely had it was killed before it had surely told another.",
    );
    list.cases("came back", &losses.resurrected, keeps, "Its end was acknowledged, and it is there at the end.");
    list.holding();
    list.telling();
    list.stale_reads();
    list.records();
    list.evidence();
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

/// A case before its calls are written out.
struct Found<'r> {
    kind: String,
    key: &'r str,
    from: f64,
    to: f64,
    text: String,
    why: String,
    broken: bool,
    number: Option<usize>,
    /// Its place in the story.
    culprit: Option<usize>,
}

impl<'r> Lister<'r> {
    fn add(&mut self, found: Found, mut ops: Vec<usize>) {
        ops.sort_unstable();
        ops.dedup();
        let wanted = ops.len();
        let calls: Vec<usize> = ops.into_iter().take(CALLS_MAX).filter_map(|op| self.cite(op)).collect();
        let check = self.check(found.key);
        let Found { kind, key, from, to, text, why, broken, number, culprit } = found;
        let culprit = culprit.and_then(|op| self.places.get(&op).copied());
        let cut = calls.len() < wanted;
        let key = key.to_owned();
        let anomaly = Anomaly { kind, key, from, to, text, why, broken, number, calls, culprit, cut, check };
        self.made.list.push(anomaly);
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

    fn counter_examples(&mut self) {
        let (story, found) = (self.story, self.found);
        let by_index: HashMap<u64, usize> = story.ops.iter().enumerate().map(|(at, op)| (op.index, at)).collect();
        let examples = found.names.counter_examples.iter().chain(&found.groups.counter_examples);
        for CounterExample { key, at_ms, reason, calls, .. } in examples {
            let ops = calls.iter().filter_map(|told| by_index.get(&told.invoked).copied()).collect();
            let culprit = calls.iter().find(|told| told.culprit).and_then(|told| by_index.get(&told.invoked).copied());
            let from = calls.iter().map(|told| told.from_ms).fold(*at_ms, f64::min);
            let text = match culprit {
                Some(op) => format!("nothing explains: {}", story.ops[op].tell()),
                None => reason.clone(),
            };
            let kind = "not linearizable".to_owned();
            let broken = self.run.promises.linearizable;
            let why = prose::capital(&format!("{reason}."));
            self.add(Found { kind, key, from, to: *at_ms, text, why, broken, number: None, culprit }, ops);
        }
    }

    fn doubles(&mut self, doubles: &[(Double, &str)]) {
        let (story, found) = (self.story, self.found);
        let mut list: Vec<_> = found.duplicates.list.iter().collect();
        list.sort_by(|a, b| (b.to_ms - b.from_ms).total_cmp(&(a.to_ms - a.from_ms)));
        for dup in list.into_iter().take(CASES_MAX) {
            let owners = dup.owners.iter().cloned().collect::<Vec<_>>().join(" and ");
            let why = match (dup.seen_by_clients, dup.seen_by_nodes) {
                (true, true) => {
                    "Each had been told that the name is its own, and had not begun to give it up. Nodes showed both."
                }
                (true, false) => "Each had been told that the name is its own, and had not begun to give it up.",
                (false, _) => "Nodes showed both at once, and neither had begun to give it up.",
            };
            let text = format!("{owners} for {:.0} ms", dup.to_ms - dup.from_ms);
            let own = |owner: &str| dup.owners.contains(owner);
            let mut ops = Vec::new();
            for grant in story.names.of(&dup.name).iter().filter(|grant| own(grant.owner)) {
                let ends: Vec<_> = story.names.endings_of(grant).collect();
                let over = ends.iter().any(|end| ms(end.invoked) < dup.from_ms);
                if ms(grant.acked) <= dup.to_ms && !over {
                    ops.push(grant.op);
                    ops.extend(ends.iter().filter(|end| ms(end.invoked) <= dup.to_ms + 1_000.0).map(|end| end.op));
                }
            }
            let (kind, broken) = ("two owners".to_owned(), self.run.promises.one_order);
            let number = doubles.iter().find(|(double, name)| *name == dup.name && double.0 == dup.from_ms);
            let (key, from, to, why) = (&*dup.name, dup.from_ms, dup.to_ms, why.to_owned());
            let number = number.map(|(double, _)| double.2);
            self.add(Found { kind, key, from, to, text, why, broken, number, culprit: None }, ops);
        }
    }

    fn cases(&mut self, kind: &str, cases: &'r [Case], broken: bool, why: &str) {
        let story = self.story;
        for case in cases.iter().take(CASES_MAX) {
            let grants: &Grants = if case.of == "name" { &story.names } else { &story.groups };
            let mut ops = Vec::new();
            let mut since = 0;
            for grant in grants.of(&case.key).iter().filter(|g| g.token == case.token && g.owner == case.owner) {
                since = grant.acked;
                ops.push(grant.op);
                ops.extend(grants.endings_of(grant).take(3).map(|end| end.op));
            }
            // What was last read of it is what shows the loss, or the return.
            let reads =
                self.about(&case.key).filter(|(_, op)| !op.writes() && op.acked().is_some() && op.invoked > since);
            let last: Vec<usize> = reads.map(|(at, _)| at).collect();
            ops.extend(last.iter().rev().take(4));
            let text = format!("{} (token {})", case.owner, case.token);
            let why = format!("{why} {}.", case.why);
            let (from, to) = (case.acked_ms, case.acked_ms);
            self.add(
                Found {
                    kind: kind.to_owned(),
                    key: &case.key,
                    from,
                    to,
                    text,
                    why,
                    broken,
                    number: None,
                    culprit: None,
                },
                ops,
            );
        }
    }

    fn about(&self, key: &'r str) -> impl Iterator<Item = (usize, &'r Op<'r>)> {
        let is = move |op: &Op| op.key() == Key::Name(key) || op.key() == Key::Group(key);
        self.story.ops.iter().enumerate().filter(move |(_, op)| is(op))
    }

    fn stale_reads(&mut self) {
        for stale in self.found.stale_reads.list.iter().take(CASES_MAX) {
            let text = format!("{}, {:.0} ms after that was over", stale.read, stale.age_ms);
            let why = format!(
                "The read began {:.0} ms after this had been acknowledged: {}.",
                stale.age_ms, stale.superseded_by
            );
            let (from, to) = (stale.at_ms - stale.age_ms, stale.at_ms);
            let (kind, broken) = ("stale read".to_owned(), self.run.promises.linearizable);
            self.add(
                Found {
                    kind,
                    key: &stale.key,
                    from,
                    to,
                    text,
                    why,
                    broken,
                    number: None,
                    culprit: Some(stale.calls[1]),
                },
                stale.calls.to_vec(),
            );
        }
    }

    fn holding(&mut self) {
        let (found, promises) = (self.found, self.run.promises);
        for overlap in found.certainties.overlaps.iter().take(CASES_MAX) {
            let text = format!("{} and {} could both be certain", overlap.owners.0, overlap.owners.1);
            let (from, to, broken) = (overlap.from_ms, overlap.to_ms, promises.one_order);
            let why = "By its own clock each could be certain to hold the name.".to_owned();
            let kind = "two certain owners".to_owned();
            self.add(
                Found { kind, key: &overlap.name, from, to, text, why, broken, number: None, culprit: None },
                Vec::new(),
            );
        }
        let ends = [
            ("lease too early", &found.expiry.early, promises.lease_lives),
            ("lease too late", &found.expiry.late, promises.lease_ends),
        ];
        for (kind, cases, broken) in ends {
            for case in cases.iter().take(CASES_MAX) {
                let (kind, text, why) = (kind.to_owned(), case.lease.to_string(), format!("{}.", case.why));
                let (from, to) = (case.at_ms, case.at_ms);
                self.add(
                    Found { kind, key: &case.key, from, to, text, why, broken, number: None, culprit: None },
                    Vec::new(),
                );
            }
        }
        self.lines("token", &found.fencing.disordered, promises.one_order);
        self.lines("guarded write", &found.fencing.broken, promises.one_order);
    }

    fn telling(&mut self) {
        let (found, promises) = (self.found, self.run.promises);
        let watches = &found.watches;
        self.lines("watch: missed", &watches.missed, true);
        self.lines("watch: repeated", &watches.repeated, promises.one_order);
        self.lines("watch: out of order", &watches.disordered, true);
        self.lines("watch: untrue", &watches.untrue, true);
        self.lines("watch: wrong at the end", &watches.wrong_at_end, true);
        self.lines("loser not told", &found.tidings.missing, promises.records);
        self.lines("loser told wrongly", &found.tidings.wrong, promises.records);
        self.lines("member twice", &found.sets.twice, true);
    }

    /// Each of which begins with its name or group.
    fn lines(&mut self, kind: &str, lines: &'r [String], broken: bool) {
        for line in lines.iter().take(CASES_MAX) {
            let (key, text) = self.keyed(line);
            let (kind, text, why) = (kind.to_owned(), text.to_owned(), format!("{}.", prose::capital(text)));
            let found = Found { kind, key, from: 0.0, to: 0.0, text, why, broken, number: None, culprit: None };
            self.add(found, Vec::new());
        }
    }

    fn records(&mut self) {
        let (story, conflicts) = (self.story, &self.found.conflicts);
        let lines = conflicts.missing.iter().chain(&conflicts.duplicate).chain(&conflicts.wrong);
        for line in lines.take(CASES_MAX) {
            let (key, text) = self.keyed(line);
            let ops = story.names.of(key).iter().filter(|grant| grant.fresh).map(|grant| grant.op).collect();
            let (kind, broken) = ("conflict record".to_owned(), self.run.promises.records);
            let why =
                "Each grant that loses a conflict has exactly one record, the same on all nodes, of who lost to whom.";
            let at = story.names.of(key).first().map_or(0.0, |grant| ms(grant.acked));
            self.add(
                Found {
                    kind,
                    key,
                    from: at,
                    to: at,
                    text: text.to_owned(),
                    why: why.to_owned(),
                    broken,
                    number: None,
                    culprit: None,
                },
                ops,
            );
        }
    }

    /// Broken promises that have no cases of their own.
    fn evidence(&mut self) {
        let violated = |promise: &&Promise| promise.promised && promise.verdict == Verdict::Violated;
        for promise in self.found.promises.iter().filter(violated).filter(|promise| !TOLD.contains(&promise.id)) {
            for line in promise.evidence.iter().take(CASES_MAX) {
                let (key, text) = self.keyed(line);
                let why = format!("{}: {}.", promise.title, promise.detail);
                let kind = promise.title.to_lowercase();
                self.add(
                    Found {
                        kind,
                        key,
                        from: 0.0,
                        to: 0.0,
                        text: text.to_owned(),
                        why,
                        broken: true,
                        number: None,
                        culprit: None,
                    },
                    Vec::new(),
                );
            }
        }
    }

    /// A line that begins with a name or group, and what it says of it. Names may have colons.
    fn keyed(&self, line: &'r str) -> (&'r str, &'r str) {
        let places = line.match_indices(": ").map(|(at, _)| at);
        let known = |key: &str| !self.story.names.of(key).is_empty() || !self.story.groups.of(key).is_empty();
        let at = places.filter(|at| known(&line[..*at])).last();
        at.map_or(("", line), |at| (&line[..at], &line[at + 2..]))
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
