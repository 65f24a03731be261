//! What was found, in plain English: one paragraph per system.

use super::data::Run;
use crate::referee::analysis::Findings;
use crate::referee::analysis::verdict::{Promise, Verdict, plural};
use crate::referee::history::Side;

/// The verdict in a few words.
pub(super) fn headline(found: &Findings) -> String {
    let of = |verdict| found.promises.iter().filter(move |promise| promise.promised && promise.verdict == verdict);
    // Titles are sentences of their own.
    let quoted = |promise: &Promise| format!("“{}”", promise.title);
    let titles = |verdict| of(verdict).map(quoted).collect::<Vec<_>>().join(", ");
    match found.verdict {
        Verdict::Holds => "kept every promise".to_owned(),
        Verdict::Violated => {
            format!("broke {}: {}", plural(of(Verdict::Violated).count(), "promise"), titles(Verdict::Violated))
        }
        Verdict::Unknown => format!("cannot tell: {}", titles(Verdict::Unknown)),
    }
}

pub(super) fn summary(run: &Run, found: &Findings) -> String {
    let mut sentences = vec![format!(
        "{} was given {} through {}.",
        found.system,
        plural(found.operations, "call"),
        plural(found.faults.len(), "fault")
    )];
    sentences.extend(sides(found));
    sentences.extend(owners(found));
    sentences.extend(after_heal(run, found));
    sentences.extend(machine(run, found));
    sentences.extend(losses(found));
    sentences.extend(leases(found));
    sentences.extend(watches(found));
    sentences.push(match found.verdict {
        Verdict::Holds => "It kept every promise it makes.".to_owned(),
        Verdict::Violated | Verdict::Unknown => capital(&format!("{}.", headline(found))),
    });
    sentences.join(" ")
}

fn sides(found: &Findings) -> Option<String> {
    let percent = |side| found.availability.sides.get(&side).and_then(|count| count.percent());
    let told = |percent: f64| match percent {
        p if p >= 100.0 => "every call".to_owned(),
        p if p <= 0.0 => "no call".to_owned(),
        p => format!("{p:.1} % of the calls"),
    };
    match (percent(Side::Majority), percent(Side::Minority)) {
        (Some(majority), Some(minority)) if majority >= 100.0 && minority >= 100.0 => {
            Some("During the faults every node that was up answered every call, on both sides.".to_owned())
        }
        (Some(majority), Some(minority)) => Some(format!(
            "During the faults the majority side answered {}, the minority side {}.",
            told(majority),
            told(minority)
        )),
        (Some(majority), None) => {
            Some(format!("During the faults the nodes that were up answered {}.", told(majority)))
        }
        (None, _) => None,
    }
}

fn owners(found: &Findings) -> Option<String> {
    // Of a system that has groups alone there is nothing to say.
    (found.names.checked > 0).then(|| match found.duplicates.names {
        0 => "No name ever had two owners.".to_owned(),
        n => {
            let longest = found.duplicates.list.iter().map(|dup| dup.to_ms - dup.from_ms).fold(0.0, f64::max) / 1e3;
            format!("{} had two owners at once, for up to {longest:.1} s.", capital(&plural(n, "name")))
        }
    })
}

fn after_heal(run: &Run, found: &Findings) -> Option<String> {
    if !run.promises.converges || found.convergence.heals.is_empty() {
        return None;
    }
    let heals = &found.convergence.heals;
    let agreed = heals.iter().filter(|heal| heal.agreed_after_ms.is_some()).count();
    let mut told = match found.convergence.slowest_ms() {
        Some(slowest) if agreed == heals.len() => {
            format!("After each heal all nodes agreed again, at the latest {:.1} s later", slowest / 1e3)
        }
        _ => format!("After {agreed} of {} all nodes were seen to agree again", plural(heals.len(), "heal")),
    };
    let conflicts = &found.conflicts;
    if conflicts.losing_grants > 0 || conflicts.records > 0 {
        let losers = plural(conflicts.losing_grants, "losing grant");
        let told_of = match (conflicts.missing.len(), conflicts.duplicate.len() + conflicts.wrong.len()) {
            (0, 0) => "each with exactly one conflict record".to_owned(),
            (missing, wrong) => format!("{missing} without a record and {wrong} with a wrong one"),
        };
        told.push_str(&format!("; {losers}, {told_of}"));
    }
    Some(told + ".")
}

fn machine(run: &Run, found: &Findings) -> Option<String> {
    let not = found.names.not_linearizable.len() + found.groups.not_linearizable.len();
    let all = found.names.checked + found.groups.checked;
    match (not, run.promises.linearizable) {
        _ if all == 0 => None,
        (0, _) if found.names.unknown.is_empty() && found.groups.unknown.is_empty() => {
            Some("Every answer can be explained by a single machine taking one call at a time.".to_owned())
        }
        (0, _) => None,
        (_, true) => {
            Some(format!("The answers on {not} of {all} names and groups cannot be explained by a single machine."))
        }
        (_, false) => Some(format!(
            "It does not promise to be linearizable, and is not: the answers on {not} of {all} names and groups cannot be \
             explained by a single machine."
        )),
    }
}

fn losses(found: &Findings) -> Option<String> {
    let mut told = Vec::new();
    if !found.losses.lost.is_empty() {
        told.push(format!("{} lost", plural(found.losses.lost.len(), "acknowledged grant")));
    }
    if !found.losses.at_risk.is_empty() {
        let n = plural(found.losses.at_risk.len(), "grant");
        told.push(format!("{n} gone with a killed node before a peer had confirmed it, which no promise covers"));
    }
    if !found.losses.resurrected.is_empty() {
        told.push(format!("{} came back", plural(found.losses.resurrected.len(), "ended grant")));
    }
    (!told.is_empty()).then(|| capital(&format!("{}.", told.join("; "))))
}

fn leases(found: &Findings) -> Option<String> {
    let expiry = &found.expiry;
    if expiry.leases == 0 {
        return None;
    }
    let mut told = match expiry.early.len() {
        0 => format!("None of {} ended before its time", plural(expiry.leases, "lease")),
        early => format!("{} of {} ended before their time", early, plural(expiry.leases, "lease")),
    };
    match found.certainties.overlaps.len() {
        0 => told.push_str(", and no two owners were certain of one name at once"),
        n => told.push_str(&format!(", and {} two owners were certain of one name at once", times(n))),
    }
    match (found.fencing.saves, found.fencing.broken.len()) {
        (0, 0) => {}
        (saves, 0) => {
            told.push_str(&format!("; {} by former owners stopped by their tokens", plural(saves, "late write")));
        }
        (_, broken) => told.push_str(&format!("; {} wrongly accepted or refused", plural(broken, "guarded write"))),
    }
    Some(told + ".")
}

fn times(n: usize) -> String {
    match n {
        1 => "once".to_owned(),
        n => format!("{n} times"),
    }
}

fn watches(found: &Findings) -> Option<String> {
    let watches = &found.watches;
    if watches.told == 0 {
        return None;
    }
    let wrong = watches.missed.len() + watches.disordered.len() + watches.untrue.len() + watches.wrong_at_end.len();
    let watchers = plural(watches.watchers, "watcher");
    Some(match (wrong, watches.repeated.len()) {
        (0, 0) => format!("{watchers} were told every change, going on {} times at another node.", watches.resumed),
        (0, _) => format!("{watchers} were told every change, some of them twice."),
        (wrong, _) => format!("{watchers} were told {} wrongly or not at all.", plural(wrong, "change")),
    })
}

pub(super) fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}
