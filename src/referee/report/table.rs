//! The terminal's table: findings as rows, systems side by side.

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table};

use super::{Judged, prose};
use crate::referee::analysis::Findings;
use crate::referee::analysis::latency::Phase;
use crate::referee::analysis::verdict::{Promise, Verdict};
use crate::referee::history::Side;

pub(super) fn text(judged: &Judged, width: u16) -> String {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    let mut header = vec![Cell::new("")];
    header.extend(judged.findings.iter().map(|found| Cell::new(&found.system).add_attribute(Attribute::Bold)));
    table.set_header(header);
    row(&mut table, judged, "Verdict", |found| Some(verdict_cell(found.verdict)));
    for (id, title) in titles(judged) {
        row(&mut table, judged, title, |found| found.promises.iter().find(|p| p.id == id).map(promise_cell));
    }
    for (title, figure) in FIGURES {
        row(&mut table, judged, title, |found| figure(found).map(Cell::new));
    }
    let mut text = table.to_string();
    text.push_str("\n\n");
    for (run, found) in judged.set.runs.iter().zip(&judged.findings) {
        text.push_str(&format!("{}: {}\n", found.system, prose::summary(run, found)));
        let broken = found.promises.iter().filter(|promise| promise.promised && promise.verdict == Verdict::Violated);
        for promise in broken {
            for line in promise.evidence.iter().take(3) {
                text.push_str(&format!("  {}: {line}\n", promise.title));
            }
        }
    }
    for skipped in &judged.set.skipped {
        text.push_str(&format!("{}: skipped: {}\n", skipped.system, skipped.why));
    }
    text
}

/// Of every promise that any of the systems was held against, in the order of the first that has it.
pub(super) fn titles(judged: &Judged) -> Vec<(&'static str, &'static str)> {
    let mut titles: Vec<(&'static str, &'static str)> = Vec::new();
    for found in &judged.findings {
        let mut after = 0;
        for promise in &found.promises {
            match titles.iter().position(|(id, _)| *id == promise.id) {
                Some(at) => after = at + 1,
                None => {
                    titles.insert(after, (promise.id, promise.title));
                    after += 1;
                }
            }
        }
    }
    titles
}

fn row(table: &mut Table, judged: &Judged, title: &str, cell: impl Fn(&Findings) -> Option<Cell>) {
    let mut cells = vec![Cell::new(title)];
    cells.extend(judged.findings.iter().map(|found| cell(found).unwrap_or_else(|| Cell::new("–").fg(Color::DarkGrey))));
    table.add_row(cells);
}

fn verdict_cell(verdict: Verdict) -> Cell {
    let (text, color) = match verdict {
        Verdict::Holds => ("✓ every promise kept", Color::Green),
        Verdict::Violated => ("✗ a promise broken", Color::Red),
        Verdict::Unknown => ("? cannot tell", Color::Yellow),
    };
    Cell::new(text).fg(color).add_attribute(Attribute::Bold)
}

/// Colour is never the only sign. What was not promised is neither good nor bad.
fn promise_cell(promise: &Promise) -> Cell {
    match (promise.verdict, promise.promised) {
        (Verdict::Holds, true) => Cell::new(format!("✓ {}", promise.detail)).fg(Color::Green),
        (Verdict::Violated, true) => Cell::new(format!("✗ {}", promise.detail)).fg(Color::Red),
        (Verdict::Unknown, true) => Cell::new(format!("? {}", promise.detail)).fg(Color::Yellow),
        (Verdict::Holds, false) => Cell::new(format!("yes, not promised: {}", promise.detail)),
        (Verdict::Violated, false) => Cell::new(format!("no, not promised: {}", promise.detail)),
        (Verdict::Unknown, false) => Cell::new(format!("not promised; not known: {}", promise.detail)),
    }
}

type Figure = fn(&Findings) -> Option<String>;

/// What is measured on every system and promised by none.
pub(super) const FIGURES: [(&str, Figure); 15] = [
    ("Answered, majority side", |found| answered(found, Side::Majority)),
    ("Answered, minority side", |found| answered(found, Side::Minority)),
    ("Answered, no fault", |found| answered(found, Side::Whole)),
    ("Two owners, seconds in sum", |found| Some(format!("{:.1}", found.duplicates.seconds))),
    ("Two certain owners, times", |found| {
        (found.certainties.owners > 0).then(|| found.certainties.overlaps.len().to_string())
    }),
    ("Former owners' writes stopped", |found| {
        let fencing = &found.fencing;
        (fencing.writes > 0).then(|| format!("{} of {}", fencing.saves, fencing.writes))
    }),
    ("Leases seen to end after they were due", |found| {
        let expiry = &found.expiry;
        let (p50, max) = (expiry.shown_after_p50_ms, expiry.shown_after_max_ms);
        (max > 0.0).then(|| format!("{p50:.0} ms, at most {max:.0} ms"))
    }),
    ("Watchers told after, p50 / p99", |found| {
        let watches = &found.watches;
        (watches.told > 0).then(|| format!("{:.1} / {:.1} ms", watches.lag_p50_ms, watches.lag_p99_ms))
    }),
    (
        "Session anomalies per 10,000 reads: own writes missed / going back / writes out of order / before what was read",
        |found| {
            let sessions = &found.sessions;
            let kinds = [
                sessions.read_your_writes,
                sessions.monotonic_reads,
                sessions.monotonic_writes,
                sessions.writes_follow_reads,
            ];
            (sessions.reads > 0).then(|| kinds.map(|kind| sessions.per_10_000(kind).to_string()).join(" / "))
        },
    ),
    ("Memberships that nobody ended", |found| {
        let sets = &found.sets;
        (sets.members > 0).then(|| match (sets.lost, sets.never_read, sets.stale) {
            (0, 0, 0) => format!("{} in every list", sets.stable),
            (lost, unread, _) => {
                let after =
                    format!("after {:.0} / {:.0} ms (p50 / p99)", sets.stable_after_p50_ms, sets.stable_after_p99_ms);
                let stable = format!("{} of {} in every list {after}", sets.stable, sets.members);
                let others = [(lost, "gone from the last lists"), (unread, "in no list")];
                let others = others.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!(", {n} {what}"));
                stable + &others.collect::<String>()
            }
        })
    }),
    ("Stale reads", |found| {
        let stale = &found.stale_reads;
        Some(match stale.stale {
            0 => format!("0 of {}", stale.reads),
            n => format!("{n} of {}, up to {:.1} s old", stale.reads, stale.age_max_ms / 1e3),
        })
    }),
    ("Agreement after the heals, slowest", |found| {
        found.convergence.slowest_ms().map(|slowest| format!("{slowest:.0} ms"))
    }),
    ("Longest pause of writes", |found| {
        let gaps = found.availability.write_gaps.iter().map(|gap| gap.gap_ms);
        gaps.max_by(f64::total_cmp).map(|gap| format!("{gap:.0} ms"))
    }),
    ("Latency without faults, p50 / p99", |found| latency(found, &[Phase::Before, Phase::After])),
    ("Latency during faults, p50 / p99", |found| latency(found, &[Phase::During])),
];

fn answered(found: &Findings, side: Side) -> Option<String> {
    let count = found.availability.sides.get(&side)?;
    Some(format!("{:.1} % of {}", count.percent()?, count.all()))
}

fn latency(found: &Findings, phases: &[Phase]) -> Option<String> {
    let quantiles = phases.iter().find_map(|phase| found.latency.phases.get(phase))?;
    Some(format!("{:.1} / {:.1} ms", quantiles.p50_ms, quantiles.p99_ms))
}
