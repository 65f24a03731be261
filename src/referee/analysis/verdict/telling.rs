//! What watchers, losers and readers of lists are promised to be told.

use super::{Answer, Findings, holds, plural, unknown, violated};
use crate::referee::analysis::evidence::{Evidence, lines};

pub(super) fn watch_exact(found: &Findings) -> Answer {
    let watches = &found.watches;
    let lists = [
        ("missed", &watches.missed[..]),
        ("repeated", &watches.repeated[..]),
        ("out of order", &watches.disordered[..]),
        ("untrue", &watches.untrue[..]),
        ("wrong at the end", &watches.wrong_at_end[..]),
    ];
    watch(found, &lists, "each once and in order")
}

pub(super) fn watch_at_least_once(found: &Findings) -> Answer {
    let watches = &found.watches;
    let lists = [
        ("missed", &watches.missed[..]),
        ("out of order", &watches.disordered[..]),
        ("untrue", &watches.untrue[..]),
        ("wrong at the end", &watches.wrong_at_end[..]),
    ];
    watch(found, &lists, "each at least once, each origin's in order")
}

fn watch(found: &Findings, lists: &[(&str, &[Evidence])], kept: &str) -> Answer {
    let watches = &found.watches;
    let broken = lists.iter().filter(|(_, list)| !list.is_empty()).collect::<Vec<_>>();
    if !broken.is_empty() {
        let counts = broken.iter().map(|(what, list)| format!("{} {what}", list.len())).collect::<Vec<_>>();
        let some = broken.iter().flat_map(|(_, list)| lines(&list[..list.len().min(5)]));
        return violated(counts.join(", "), some.collect());
    }
    if watches.told == 0 || watches.resumed == 0 {
        return unknown("no watch was told anything, or none went on elsewhere");
    }
    if watches.caught_up < watches.watchers {
        let behind = watches.watchers - watches.caught_up;
        return unknown(format!("{} not told everything by the end of the run", plural(behind, "watcher")));
    }
    let told = plural(watches.told, "change");
    holds(format!("{told} to {}, resumed {} times: {kept}", plural(watches.watchers, "watcher"), watches.resumed))
}

pub(super) fn losers_are_told(found: &Findings) -> Answer {
    let tidings = &found.tidings;
    if !tidings.missing.is_empty() || !tidings.wrong.is_empty() {
        let detail = format!("{} never told, {} wrongly", tidings.missing.len(), tidings.wrong.len());
        return violated(detail, [lines(&tidings.missing), lines(&tidings.wrong)].concat());
    }
    match tidings.owed {
        0 => unknown("no grant under a lease lost a conflict while its lease was kept alive"),
        owed => holds(format!("{}, each told by a keep-alive", plural(owed, "loser"))),
    }
}

pub(super) fn no_member_twice(found: &Findings) -> Answer {
    let sets = &found.sets;
    if !sets.twice.is_empty() {
        return violated(
            format!("{} of {} with a member twice", sets.twice.len(), plural(sets.lists, "list")),
            lines(&sets.twice),
        );
    }
    match sets.lists {
        0 => unknown("no list of members was read"),
        lists => holds(format!("{} read", plural(lists, "list"))),
    }
}
