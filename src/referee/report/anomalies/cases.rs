//! Kind by kind: which cases there are, when each was, and which calls show it.

use super::{Found, Lister};
use crate::referee::analysis::evidence::Evidence;
use crate::referee::analysis::faults::ms;
use crate::referee::analysis::grants::Grants;
use crate::referee::analysis::linearizable::CounterExample;
use crate::referee::analysis::lost::Case;
use crate::referee::analysis::ops::Op;
use crate::referee::analysis::verdict::{Promise, Verdict};
use crate::referee::history::Key;
use crate::referee::report::doubles::Double;
use crate::referee::report::prose;

/// Cases listed per system and kind.
const CASES_MAX: usize = 20;
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

impl<'r> Lister<'r> {
    pub(super) fn all(&mut self, doubles: &[(Double, &str)]) {
        let found = self.found;
        let (losses, promises) = (&found.losses, self.run.promises);
        let keeps = promises.one_order || promises.converges;
        self.counter_examples();
        self.doubles(doubles);
        let why = "It was acknowledged, nobody may have ended it, and it is not there at the end.";
        self.losses("lost", &losses.lost, keeps, why);
        let why = "The only node that surely had it was killed before it had surely told another.";
        self.losses("at risk", &losses.at_risk, false, why);
        let why = "Its end was acknowledged, and it is there at the end.";
        self.losses("came back", &losses.resurrected, keeps, why);
        self.certainties();
        self.leases();
        self.shown("token", &found.fencing.disordered, promises.one_order);
        self.shown("guarded write", &found.fencing.broken, promises.one_order);
        self.watches();
        self.shown("loser not told", &found.tidings.missing, promises.records);
        self.shown("loser told wrongly", &found.tidings.wrong, promises.records);
        self.shown("member twice", &found.sets.twice, true);
        self.stale_reads();
        self.records();
        self.evidence();
    }

    fn counter_examples(&mut self) {
        let (story, found) = (self.story, self.found);
        let by_index = |index: u64| story.ops.binary_search_by_key(&index, |op| op.index).ok();
        let examples = found.names.counter_examples.iter().chain(&found.groups.counter_examples);
        for CounterExample { key, at_ms, reason, calls, .. } in examples {
            let culprit = calls.iter().find(|told| told.culprit).and_then(|told| by_index(told.invoked));
            self.add(Found {
                kind: "not linearizable".to_owned(),
                key,
                from: calls.iter().map(|told| told.from_ms).fold(*at_ms, f64::min),
                to: *at_ms,
                text: match culprit {
                    Some(op) => format!("nothing explains: {}", story.ops[op].tell()),
                    None => reason.clone(),
                },
                why: prose::capital(&format!("{reason}.")),
                broken: self.run.promises.linearizable,
                calls: calls.iter().filter_map(|told| by_index(told.invoked)).collect(),
                culprit,
                ..Found::default()
            });
        }
    }

    fn doubles(&mut self, doubles: &[(Double, &str)]) {
        let (story, found) = (self.story, self.found);
        let mut list: Vec<_> = found.duplicates.list.iter().collect();
        list.sort_by(|a, b| (b.to_ms - b.from_ms).total_cmp(&(a.to_ms - a.from_ms)));
        for dup in list.into_iter().take(CASES_MAX) {
            let why = match (dup.seen_by_clients, dup.seen_by_nodes) {
                (true, true) => {
                    "Each had been told that the name is its own, and had not begun to give it up. Nodes showed both."
                }
                (true, false) => "Each had been told that the name is its own, and had not begun to give it up.",
                (false, _) => "Nodes showed both at once, and neither had begun to give it up.",
            };
            let mut calls = Vec::new();
            for grant in story.names.of(&dup.name).iter().filter(|grant| dup.owners.contains(grant.owner)) {
                let ends: Vec<_> = story.names.endings_of(grant).collect();
                let over = ends.iter().any(|end| ms(end.invoked) < dup.from_ms);
                if ms(grant.acked) <= dup.to_ms && !over {
                    calls.push(grant.op);
                    calls.extend(ends.iter().filter(|end| ms(end.invoked) <= dup.to_ms + 1_000.0).map(|end| end.op));
                }
            }
            let owners = dup.owners.iter().cloned().collect::<Vec<_>>().join(" and ");
            let number = doubles.iter().find(|(double, name)| *name == dup.name && double.0 == dup.from_ms);
            self.add(Found {
                kind: "two owners".to_owned(),
                key: &dup.name,
                from: dup.from_ms,
                to: dup.to_ms,
                text: format!("{owners} for {:.0} ms", dup.to_ms - dup.from_ms),
                why: why.to_owned(),
                broken: self.run.promises.one_order,
                number: number.map(|(double, _)| double.2),
                calls,
                ..Found::default()
            });
        }
    }

    fn losses(&mut self, kind: &str, cases: &'r [Case], broken: bool, why: &str) {
        let story = self.story;
        for case in cases.iter().take(CASES_MAX) {
            let grants: &Grants = if case.of == "name" { &story.names } else { &story.groups };
            let mut calls = Vec::new();
            let mut since = 0;
            for grant in grants.of(&case.key).iter().filter(|g| g.token == case.token && g.owner == case.owner) {
                since = grant.acked;
                calls.push(grant.op);
                calls.extend(grants.endings_of(grant).take(3).map(|end| end.op));
            }
            // What was last read of it is what shows the loss, or the return.
            let reads =
                self.about(&case.key).filter(|(_, op)| !op.writes() && op.acked().is_some() && op.invoked > since);
            let last: Vec<usize> = reads.map(|(at, _)| at).collect();
            calls.extend(last.iter().rev().take(4));
            self.add(Found {
                kind: kind.to_owned(),
                key: &case.key,
                from: case.acked_ms,
                to: case.acked_ms,
                text: format!("{} (token {})", case.owner, case.token),
                why: format!("{why} {}.", prose::capital(&case.why)),
                broken,
                calls,
                ..Found::default()
            });
        }
    }

    fn about(&self, key: &'r str) -> impl Iterator<Item = (usize, &'r Op<'r>)> {
        let is = move |op: &Op| op.key() == Key::Name(key) || op.key() == Key::Group(key);
        self.story.ops.iter().enumerate().filter(move |(_, op)| is(op))
    }

    fn certainties(&mut self) {
        let found = self.found;
        for overlap in found.certainties.overlaps.iter().take(CASES_MAX) {
            self.add(Found {
                kind: "two certain owners".to_owned(),
                key: &overlap.name,
                from: overlap.from_ms,
                to: overlap.to_ms,
                text: format!("{} and {} could both be certain", overlap.owners.0, overlap.owners.1),
                why: "By its own clock each could be certain to hold the name.".to_owned(),
                broken: self.run.promises.one_order,
                calls: overlap.calls.clone(),
                ..Found::default()
            });
        }
    }

    fn leases(&mut self) {
        let (expiry, promises) = (&self.found.expiry, self.run.promises);
        let ends = [
            ("lease too early", &expiry.early, promises.lease_lives),
            ("lease too late", &expiry.late, promises.lease_ends),
        ];
        for (kind, cases, broken) in ends {
            for case in cases.iter().take(CASES_MAX) {
                self.add(Found {
                    kind: kind.to_owned(),
                    key: &case.key,
                    from: case.since_ms,
                    to: case.at_ms,
                    text: format!("lease {}", case.lease),
                    why: format!("{}.", prose::capital(&case.why)),
                    broken,
                    calls: case.calls.clone(),
                    ..Found::default()
                });
            }
        }
    }

    /// Each with its own calls.
    fn shown(&mut self, kind: &str, list: &'r [Evidence], broken: bool) {
        for evidence in list.iter().take(CASES_MAX) {
            self.add(Found {
                kind: kind.to_owned(),
                key: &evidence.key,
                from: ms(evidence.span.from),
                to: ms(evidence.span.to),
                text: evidence.what().to_owned(),
                why: format!("{}.", prose::capital(evidence.what())),
                broken,
                calls: evidence.calls.clone(),
                ..Found::default()
            });
        }
    }

    fn watches(&mut self) {
        let (watches, once) = (&self.found.watches, self.run.promises.one_order);
        self.shown("watch: missed", &watches.missed, true);
        self.shown("watch: repeated", &watches.repeated, once);
        self.shown("watch: out of order", &watches.disordered, true);
        self.shown("watch: untrue", &watches.untrue, true);
        self.shown("watch: wrong at the end", &watches.wrong_at_end, true);
    }

    fn stale_reads(&mut self) {
        for stale in self.found.stale_reads.list.iter().take(CASES_MAX) {
            let (age, by) = (stale.age_ms, &stale.superseded_by);
            self.add(Found {
                kind: "stale read".to_owned(),
                key: &stale.key,
                from: stale.at_ms - age,
                to: stale.at_ms,
                text: format!("{}, {age:.0} ms after that was over", stale.read),
                why: format!("The read began {age:.0} ms after this had been acknowledged: {by}."),
                broken: self.run.promises.linearizable,
                calls: stale.calls.to_vec(),
                culprit: Some(stale.calls[1]),
                ..Found::default()
            });
        }
    }

    fn records(&mut self) {
        let (story, conflicts) = (self.story, &self.found.conflicts);
        let lines = conflicts.missing.iter().chain(&conflicts.duplicate).chain(&conflicts.wrong);
        for line in lines.take(CASES_MAX) {
            let (key, text) = self.keyed(line);
            let grants = story.names.of(key);
            let why =
                "Each grant that loses a conflict has exactly one record, the same on all nodes, of who lost to whom.";
            self.add(Found {
                kind: "conflict record".to_owned(),
                key,
                from: grants.first().map_or(0.0, |grant| ms(grant.acked)),
                to: grants.last().map_or(0.0, |grant| ms(grant.acked)),
                text: text.to_owned(),
                why: why.to_owned(),
                broken: self.run.promises.records,
                calls: grants.iter().filter(|grant| grant.fresh).map(|grant| grant.op).collect(),
                ..Found::default()
            });
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
                self.add(Found { kind, key, text: text.to_owned(), why, broken: true, ..Found::default() });
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
