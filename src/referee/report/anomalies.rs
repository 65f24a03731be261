//! What went wrong, one line each, for the page's list.

use serde::Serialize;

use super::data::Run;
use crate::referee::analysis::Findings;

/// Listed per system and kind.
const ANOMALIES_MAX: usize = 20;

#[derive(Serialize)]
pub(super) struct Anomaly {
    kind: &'static str,
    /// A name, or a group: then the timeline has no lane for it.
    key: String,
    from: f64,
    to: f64,
    text: String,
    /// Whether it breaks a promise of the system.
    broken: bool,
}

pub(super) fn all(run: &Run, found: &Findings) -> Vec<Anomaly> {
    let keeps = run.promises.one_order || run.promises.converges;
    let mut list = Vec::new();
    let mut duplicates: Vec<_> = found.duplicates.list.iter().collect();
    duplicates.sort_by(|a, b| (b.to_ms - b.from_ms).total_cmp(&(a.to_ms - a.from_ms)));
    for dup in duplicates.into_iter().take(ANOMALIES_MAX) {
        let owners = dup.owners.iter().cloned().collect::<Vec<_>>().join(" and ");
        let witness = match (dup.seen_by_clients, dup.seen_by_nodes) {
            (true, true) => "both had been told so, and nodes showed both",
            (true, false) => "both had been told so",
            (false, _) => "nodes showed both",
        };
        list.push(Anomaly {
            kind: "two owners",
            key: dup.name.clone(),
            from: dup.from_ms,
            to: dup.to_ms,
            text: format!("{owners} for {:.0} ms: {witness}", dup.to_ms - dup.from_ms),
            broken: run.promises.one_order,
        });
    }
    let cases = [
        ("lost", &found.losses.lost, keeps),
        ("at risk", &found.losses.at_risk, false),
        ("came back", &found.losses.resurrected, keeps),
    ];
    for (kind, cases, broken) in cases {
        list.extend(cases.iter().take(ANOMALIES_MAX).map(|case| Anomaly {
            kind,
            key: case.key.clone(),
            from: case.acked_ms,
            to: case.acked_ms,
            text: format!("{} (token {}): {}", case.owner, case.token, case.why),
            broken,
        }));
    }
    list.extend(holding(run, found));
    list.extend(telling(run, found));
    for stale in found.stale_reads.list.iter().take(ANOMALIES_MAX) {
        list.push(Anomaly {
            kind: "stale read",
            key: stale.key.clone(),
            from: stale.at_ms - stale.age_ms,
            to: stale.at_ms,
            text: format!("{}, although {:.0} ms before: {}", stale.read, stale.age_ms, stale.superseded_by),
            broken: run.promises.linearizable,
        });
    }
    let conflicts = &found.conflicts;
    for line in conflicts.missing.iter().chain(&conflicts.duplicate).chain(&conflicts.wrong).take(ANOMALIES_MAX) {
        let (key, text) = line.split_once(": ").unwrap_or(("", line));
        list.push(Anomaly {
            kind: "conflict record",
            key: key.to_owned(),
            from: 0.0,
            to: 0.0,
            text: text.to_owned(),
            broken: run.promises.records,
        });
    }
    list
}

fn holding(run: &Run, found: &Findings) -> Vec<Anomaly> {
    let overlaps = found.certainties.overlaps.iter().take(ANOMALIES_MAX).map(|overlap| Anomaly {
        kind: "two certain owners",
        key: overlap.name.clone(),
        from: overlap.from_ms,
        to: overlap.to_ms,
        text: format!("{} and {} could both be certain", overlap.owners.0, overlap.owners.1),
        broken: run.promises.one_order,
    });
    let mut list = overlaps.collect::<Vec<_>>();
    let ends = [
        ("lease too early", &found.expiry.early, run.promises.lease_lives),
        ("lease too late", &found.expiry.late, run.promises.lease_ends),
    ];
    for (kind, cases, broken) in ends {
        list.extend(cases.iter().take(ANOMALIES_MAX).map(|case| Anomaly {
            kind,
            key: case.key.clone(),
            from: case.at_ms,
            to: case.at_ms,
            text: format!("{}: {}", case.lease, case.why),
            broken,
        }));
    }
    let tokens = [("token", &found.fencing.disordered), ("guarded write", &found.fencing.broken)];
    list.extend(tokens.into_iter().flat_map(|(kind, lines)| told(kind, lines, run.promises.one_order)));
    list
}

fn telling(run: &Run, found: &Findings) -> Vec<Anomaly> {
    let watches = &found.watches;
    let lines = [
        ("watch: missed", &watches.missed, true),
        ("watch: repeated", &watches.repeated, run.promises.one_order),
        ("watch: out of order", &watches.disordered, true),
        ("watch: untrue", &watches.untrue, true),
        ("watch: wrong at the end", &watches.wrong_at_end, true),
        ("loser not told", &found.tidings.missing, run.promises.records),
        ("loser told wrongly", &found.tidings.wrong, run.promises.records),
        ("member twice", &found.sets.twice, true),
    ];
    lines.into_iter().flat_map(|(kind, lines, broken)| told(kind, lines, broken)).collect()
}

/// Lines that begin with their name or group.
fn told(kind: &'static str, lines: &[String], broken: bool) -> Vec<Anomaly> {
    let anomaly = |line: &String| {
        let (key, text) = line.split_once(": ").unwrap_or(("", line));
        Anomaly { kind, key: key.to_owned(), from: 0.0, to: 0.0, text: text.to_owned(), broken }
    };
    lines.iter().take(ANOMALIES_MAX).map(anomaly).collect()
}
