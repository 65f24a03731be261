//! What leases and tokens promise: certainty, time, and safety from those who held before.

use super::{Answer, Findings, holds, plural, unknown, violated};
use crate::referee::analysis::evidence::lines;
use crate::referee::analysis::expiry::{self, Mistimed};
use crate::referee::analysis::story::Story;

pub(super) fn one_certain_owner(found: &Findings) -> Answer {
    let certain = &found.certainties;
    if certain.owners == 0 {
        return unknown("nobody was ever certain to own a name");
    }
    if certain.overlaps.is_empty() {
        return holds(format!("{} certain of it, never two at once", plural(certain.owners, "owner")));
    }
    let evidence = certain.overlaps.iter().map(|overlap| {
        let (one, other) = &overlap.owners;
        let (from, to) = (overlap.from_ms / 1e3, overlap.to_ms / 1e3);
        format!("{}: {one} and {other} from {from:.3} s to {to:.3} s", overlap.name)
    });
    violated(format!("{} of two certain owners", plural(certain.overlaps.len(), "time")), evidence.collect())
}

pub(super) fn tokens_rise(found: &Findings) -> Answer {
    let fencing = &found.fencing;
    if !fencing.disordered.is_empty() {
        return violated(
            format!("{} out of order", plural(fencing.disordered.len(), "token")),
            lines(&fencing.disordered),
        );
    }
    match fencing.pairs {
        0 => unknown("no name was granted twice, one after the other"),
        pairs => holds(format!("{} after another of the name, each with a greater token", plural(pairs, "grant"))),
    }
}

pub(super) fn stale_owners_are_fenced(found: &Findings) -> Answer {
    let fencing = &found.fencing;
    if !fencing.broken.is_empty() {
        let detail =
            format!("{} of {} wrongly answered", fencing.broken.len(), plural(fencing.writes, "guarded write"));
        return violated(detail, lines(&fencing.broken));
    }
    if fencing.saves == 0 {
        return unknown(format!("no former owner wrote too late ({} in all)", plural(fencing.writes, "guarded write")));
    }
    let accepted = plural(fencing.accepted, "write");
    holds(format!("{} of former owners stopped by their tokens, {accepted} accepted", plural(fencing.saves, "write")))
}

pub(super) fn never_early(story: &Story, found: &Findings) -> Answer {
    let expiry = &found.expiry;
    if !expiry.early.is_empty() {
        return violated(format!("{} too early", plural(expiry.early.len(), "end")), told(&expiry.early));
    }
    if expiry.ran_out == 0 || expiry.judged == 0 {
        return unknown("no lease with something bound to it was left to run out");
    }
    if super::leave_somebody(story) && !expiry::tried_in_faults(story) {
        return unknown("no keep-alive was answered during a fault");
    }
    let (kept, ran_out) = (plural(expiry.kept_alive, "keep-alive"), expiry.ran_out);
    holds(format!("{}, {kept}; {ran_out} ran out, none before its time", plural(expiry.leases, "lease")))
}

pub(super) fn never_late(found: &Findings) -> Answer {
    let expiry = &found.expiry;
    if !expiry.late.is_empty() {
        return violated(format!("{} too late", plural(expiry.late.len(), "end")), told(&expiry.late));
    }
    if expiry.ran_out == 0 || expiry.judged == 0 {
        return unknown("no lease with something bound to it was left to run out");
    }
    let (p50, max) = (expiry.shown_after_p50_ms, expiry.shown_after_max_ms);
    holds(format!(
        "{} ran out, watchers were told {p50:.0} ms after they were due (at most {max:.0} ms)",
        expiry.ran_out
    ))
}

fn told(cases: &[Mistimed]) -> Vec<String> {
    cases.iter().map(|case| format!("{} at {:.3} s: {}", case.lease, case.at_ms / 1e3, case.why)).collect()
}
