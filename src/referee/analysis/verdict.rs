//! Promise by promise: kept, broken, or not to be told. The worst one wins. What leases and tokens promise is judged in `holding`, what
//! watchers and losers are to be told in `telling`. A promise of what the system cannot do at all is not in the list.

mod holding;
mod telling;

use std::collections::BTreeMap;

use serde::Serialize;

use super::Findings;
use super::faults::{Fault, Span, ms, ns};
use super::linearizable::Linearizability;
use super::ops::{Op, Outcome};
use super::story::Story;
use crate::model::ident::NodeId;
use crate::referee::client::Abilities;
use crate::referee::history::{ANSWER_DROPPED, Installed, Side, What};

/// In the order from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Holds,
    /// Too little was seen to tell; never a pass.
    Unknown,
    Violated,
}

impl Verdict {
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Holds => "holds",
            Verdict::Unknown => "unknown",
            Verdict::Violated => "violated",
        }
    }
}

/// One property, as it was found in one run.
#[derive(Clone, Debug, Serialize)]
pub struct Promise {
    /// A word for scripts, the same for ever.
    pub id: &'static str,
    pub title: &'static str,
    /// False: measured and shown, and no part of the run's verdict.
    pub promised: bool,
    pub verdict: Verdict,
    /// One line: what was found, or why nothing can be said.
    pub detail: String,
    /// What convicts it; at most [`EVIDENCE_MAX`] lines.
    pub evidence: Vec<String>,
}

/// The shortest stretch in which some write must have been tried on each side.
const TRIED_NS: u64 = 1_000_000_000;

pub const EVIDENCE_MAX: usize = 20;

/// What one question came to.
struct Answer {
    verdict: Verdict,
    detail: String,
    evidence: Vec<String>,
}

fn holds(detail: impl Into<String>) -> Answer {
    Answer { verdict: Verdict::Holds, detail: detail.into(), evidence: Vec::new() }
}

fn unknown(why: impl Into<String>) -> Answer {
    Answer { verdict: Verdict::Unknown, detail: why.into(), evidence: Vec::new() }
}

fn violated(detail: impl Into<String>, mut evidence: Vec<String>) -> Answer {
    evidence.truncate(EVIDENCE_MAX);
    Answer { verdict: Verdict::Violated, detail: detail.into(), evidence }
}

/// All promises that the run put to the test, or should have.
pub fn promises(story: &Story, found: &Findings) -> Vec<Promise> {
    let promises = story.run.promises;
    let keeps = promises.one_order || promises.converges;
    let mut list = Vec::new();
    let mut add = |id, title, promised, answer: Answer| {
        let Answer { verdict, detail, evidence } = answer;
        list.push(Promise { id, title, promised, verdict, detail, evidence });
    };
    let abilities = story.run.abilities;
    if abilities.names {
        add("linearizable-names", "Names are linearizable", promises.linearizable, linearizable(&found.names, "name"));
    }
    if abilities.groups {
        let groups = linearizable(&found.groups, "group");
        add("linearizable-groups", "Groups are linearizable", promises.linearizable, groups);
    }
    add("linearizable-writes", "Writes are linearizable", promises.one_order, linearizable(&found.writes, "key"));
    let Abilities { names, groups, tokens, leases, watch, conflicts } = abilities;
    if names {
        add("one-owner", "Never two owners at once", promises.one_order, one_owner(found));
        let title = "Never two owners who can be certain";
        add("one-certain-owner", title, promises.one_order, holding::one_certain_owner(found));
    }
    if tokens {
        add("tokens-rise", "Tokens rise from grant to grant", promises.one_order, holding::tokens_rise(found));
    }
    if tokens && leases {
        let title = "A former owner's write is stopped";
        // In a short run it may be that no former owner came back: then nothing is held against anybody.
        let tried = found.fencing.saves > 0 || !found.fencing.broken.is_empty();
        add("stale-owners-fenced", title, promises.one_order && tried, holding::stale_owners_are_fenced(found));
    }
    if leases {
        let title = "No lease ends before its time";
        add("no-early-expiry", title, promises.lease_lives, holding::never_early(story, found));
        let title = "Leases end in time";
        add("no-late-expiry", title, promises.lease_ends, holding::never_late(found));
    }
    if groups {
        add("no-member-twice", "No member is listed twice", true, telling::no_member_twice(found));
    }
    if watch {
        let title = "A watch tells each change once, in order";
        add("watch-exact", title, promises.one_order, telling::watch_exact(found));
    }
    if watch && !promises.one_order {
        let title = "A watch tells each change at least once";
        add("watch-at-least-once", title, true, telling::watch_at_least_once(found));
    }
    add("nothing-lost", "Nothing acknowledged is lost", keeps, nothing_lost(found));
    add("nothing-resurrected", "Nothing ended comes back", keeps, nothing_resurrected(found));
    let cuts = story.faults.all.iter().any(|fault| !fault.cut.is_empty());
    if promises.majority && story.faults.all.iter().any(|fault| leaves_minority(story, fault)) {
        add("minority-refuses", "The minority side refuses writes", true, minority_refuses(story));
    }
    if promises.majority && story.faults.all.iter().any(|fault| leaves_majority(story, fault)) {
        add("majority-goes-on", "The majority side goes on", true, majority_goes_on(story));
    }
    add("all-answer", "Every node that is up answers", promises.available, all_answer(story, found));
    add("agreement", "All nodes agree after the heal", promises.converges, agreement(story, found));
    if promises.records && cuts {
        add("one-record-per-loser", "One conflict record for each loser", true, one_record(story, found));
    }
    if promises.records && conflicts && leases && cuts {
        // As above: not in every cut does somebody lose who keeps a lease alive.
        let tried = found.tidings.owed > 0 || !found.tidings.wrong.is_empty();
        add("losers-told", "Every loser is told of its loss", tried, telling::losers_are_told(found));
    }
    add("tested", "The run tested what it should", true, tested(story, found));
    list
}

/// The worst verdict on what was promised.
pub fn worst(promises: &[Promise]) -> Verdict {
    let judged = promises.iter().filter(|promise| promise.promised).map(|promise| promise.verdict);
    judged.max().unwrap_or(Verdict::Unknown)
}

fn linearizable(found: &Linearizability, noun: &str) -> Answer {
    let keys = plural(found.checked, noun);
    if !found.not_linearizable.is_empty() {
        let detail = format!("{} of {keys} cannot be explained", found.not_linearizable.len());
        let told = found.counter_examples.iter().map(|example| format!("{}: {}", example.key, example.reason));
        return violated(detail, told.collect());
    }
    if let Some((key, why)) = found.unknown.first_key_value() {
        return unknown(format!("{} of {keys} not decided, {key} among them: {why}", found.unknown.len()));
    }
    if found.checked == 0 {
        return unknown(format!("no call was about a {noun}"));
    }
    holds(format!("{keys} explained, call by call"))
}

fn one_owner(found: &Findings) -> Answer {
    let duplicates = &found.duplicates;
    if found.names.checked == 0 {
        return unknown("no call was about a name");
    }
    if duplicates.list.is_empty() {
        return holds("no name had two owners");
    }
    let evidence = duplicates.list.iter().map(|dup| {
        let owners = dup.owners.iter().cloned().collect::<Vec<_>>().join(" and ");
        format!("{}: {owners} from {:.3} s to {:.3} s", dup.name, dup.from_ms / 1e3, dup.to_ms / 1e3)
    });
    let detail =
        format!("{} had two owners at once, for {:.1} s in sum", plural(duplicates.names, "name"), duplicates.seconds);
    violated(detail, evidence.collect())
}

fn nothing_lost(found: &Findings) -> Answer {
    let losses = &found.losses;
    let at_risk = match losses.at_risk.len() {
        0 => String::new(),
        n => format!("; {} gone with a killed node that alone had it", plural(n, "grant")),
    };
    if !losses.lost.is_empty() {
        let evidence = losses.lost.iter().map(|case| format!("{} ({}): {}", case.key, case.owner, case.why));
        let detail = format!("{} of {} gone{at_risk}", losses.lost.len(), plural(losses.judged, "grant"));
        return violated(detail, evidence.collect());
    }
    if losses.judged == 0 {
        return unknown("no grant was left standing that could have been lost");
    }
    if losses.unseen > 0 {
        return unknown(format!("{} not looked for at the end", plural(losses.unseen, "grant")));
    }
    holds(format!("{} looked for at the end, none missing{at_risk}", plural(losses.judged, "grant")))
}

fn nothing_resurrected(found: &Findings) -> Answer {
    let losses = &found.losses;
    if !losses.resurrected.is_empty() {
        let evidence = losses.resurrected.iter().map(|case| format!("{} ({}): {}", case.key, case.owner, case.why));
        return violated(format!("{} came back", plural(losses.resurrected.len(), "ended grant")), evidence.collect());
    }
    if losses.ended_judged == 0 {
        return unknown("no grant was surely ended that could have come back");
    }
    holds(format!("{} looked for at the end, none there", plural(losses.ended_judged, "ended grant")))
}

/// Whether some node reaches, both ways, fewer than a majority, for long enough that a write must have been tried there.
fn leaves_minority(story: &Story, fault: &Fault) -> bool {
    let nodes = &story.run.header.nodes;
    !fault.cut.is_empty()
        && steady_ns(story, fault).is_none_or(|steady| steady > TRIED_NS)
        && nodes.iter().any(|node| {
            let open = |peer: &u64| !fault.cut.contains(&(*node, *peer)) && !fault.cut.contains(&(*peer, *node));
            nodes.iter().filter(|peer| *peer == node || open(peer)).count() * 2 <= nodes.len()
        })
}

/// The longest stretch in which it was in force and no other fault came or went. None: it is not certain that it ever was.
fn steady_ns(story: &Story, fault: &Fault) -> Option<u64> {
    let steady = || fault.in_force(story.run_end()).map_or(0, |span| story.faults.longest_steady(span));
    (fault.state == Installed::Installed).then(steady)
}

/// While no fault comes or goes, nothing that a minority is told can have been agreed on.
fn minority_refuses(story: &Story) -> Answer {
    let whole =
        |op: &&Op| story.faults.steady(Span { from: op.invoked, to: op.ended.unwrap_or_else(|| story.run_end()) });
    let writes: Vec<&Op> =
        story.ops.iter().filter(|op| op.side == Some(Side::Minority) && op.writes()).filter(whole).collect();
    if writes.is_empty() {
        return unknown("no write was tried on a minority side for the whole of a fault");
    }
    let acked: Vec<String> = writes
        .iter()
        .filter(|op| op.outcome == Outcome::Ok)
        .map(|op| format!("{:.3} s on node {}: {}", ms(op.invoked) / 1e3, op.node.unwrap_or(0), op.tell()))
        .collect();
    if !acked.is_empty() {
        return violated(format!("{} answered of {}", acked.len(), plural(writes.len(), "write")), acked);
    }
    let refused = writes.iter().filter(|op| op.outcome == Outcome::Fail).count();
    let left = writes.len() - refused;
    holds(format!("{}: {refused} refused, {left} left unknown, none acknowledged", plural(writes.len(), "write")))
}

/// Whether it was in force for long enough, and left enough nodes, that the others must have elected somebody and gone on.
fn leaves_majority(story: &Story, fault: &Fault) -> bool {
    let nodes = story.run.header.nodes.len();
    let long = steady_ns(story, fault).is_none_or(|steady| steady > ns(story.run.bounds.election));
    let left = nodes - if fault.stops() { fault.nodes.len() } else { 0 };
    // All links cut: nobody reaches anybody.
    long && left * 2 > nodes && fault.cut.len() < nodes * (nodes - 1)
}

/// Writes count from one election after the last fault came or went.
fn majority_goes_on(story: &Story) -> Answer {
    let election = ns(story.run.bounds.election);
    let (mut judged, mut tried, mut acked, mut evidence) = (0, 0, 0, Vec::new());
    for fault in story.faults.all.iter().filter(|fault| leaves_majority(story, fault)) {
        let Some(span) = fault.in_force(story.run_end()) else { continue };
        let writes = story.ops.iter().filter(|op| {
            let ended = op.ended.unwrap_or(u64::MAX);
            let since = op.invoked.saturating_sub(election);
            op.side == Some(Side::Majority)
                && op.writes()
                && op.error != Some(ANSWER_DROPPED)
                && since >= span.from
                && ended <= span.to
                && story.faults.steady(Span { from: since + 1, to: ended - 1 })
        });
        // By node: one that is in touch with a majority, but not with the leader, as in a ring, refuses in no time and so more often than
        // others acknowledge.
        let mut by_node = BTreeMap::<Option<NodeId>, (usize, usize)>::new();
        for op in writes {
            let (ok, all) = by_node.entry(op.node).or_default();
            *ok += usize::from(op.outcome == Outcome::Ok);
            *all += 1;
        }
        if by_node.is_empty() {
            continue;
        }
        let (ok, all) = by_node.values().fold((0, 0), |(ok, all), node| (ok + node.0, all + node.1));
        let going_on = by_node.values().filter(|(ok, all)| ok * 2 >= *all).count();
        judged += 1;
        tried += all;
        acked += ok;
        if going_on * 2 < by_node.len() {
            let from = ms(span.from) / 1e3;
            evidence.push(format!("{} at {from:.3} s: {ok} of {all} writes acknowledged", fault.kind));
        }
    }
    if !evidence.is_empty() {
        return violated(format!("not after {} of {}", evidence.len(), plural(judged, "fault")), evidence);
    }
    if judged == 0 {
        let bound = ms(election) / 1e3;
        return unknown(format!("no write was tried on a majority side more than {bound:.1} s after a fault began"));
    }
    holds(format!("{acked} of {tried} writes acknowledged, in {}", plural(judged, "fault")))
}

fn all_answer(story: &Story, found: &Findings) -> Answer {
    let total = found.availability.total();
    let unanswered = total.fail + total.info;
    let percent = total.percent().unwrap_or_default();
    if unanswered > 0 {
        let detail =
            format!("{unanswered} of {} without an answer ({percent:.2} % answered)", plural(total.all(), "call"));
        return violated(detail, found.availability.unanswered.clone());
    }
    if total.all() == 0 {
        return unknown("no call was made to a node that was up");
    }
    if leave_somebody(story) && found.availability.in_faults.all() == 0 {
        return unknown("no call was made while a fault was in force");
    }
    holds(format!(
        "{} answered, {} of them during faults",
        plural(total.all(), "call"),
        found.availability.in_faults.ok
    ))
}

fn agreement(story: &Story, found: &Findings) -> Answer {
    let convergence = &found.convergence;
    let failures = convergence.failures(story.run.bounds.convergence);
    if !failures.is_empty() {
        let evidence = failures.iter().map(|heal| {
            let after = heal.agreed_after_ms.map_or("never".to_owned(), |after| format!("after {after:.0} ms"));
            let differing = heal.differing.join(", ");
            format!("{} healed at {:.3} s: agreed {after}; differing at last: {differing}", heal.kind, heal.at_ms / 1e3)
        });
        return violated(format!("not within the bound after {}", plural(failures.len(), "heal")), evidence.collect());
    }
    if !convergence.differing_at_end.is_empty() {
        let watched = story.faults.last_heal().map_or(0, |healed| story.run_end().saturating_sub(healed));
        if watched < ns(story.run.bounds.convergence) {
            return unknown("the nodes still differed when the run ended, before the bound");
        }
        let keys = convergence.differing_at_end.clone();
        return violated(format!("{} differ between nodes at the end", plural(keys.len(), "key")), keys);
    }
    if story.faults.felt().next().is_none() {
        return match convergence.divergence.is_empty() {
            true => unknown("no two nodes were looked at"),
            false => holds("all nodes agree at the end"),
        };
    }
    match convergence.heals.last() {
        Some(heal) if heal.agreed_after_ms.is_some() => {
            let slowest = convergence.slowest_ms().unwrap_or_default();
            let agreed = convergence.heals.iter().filter(|heal| heal.agreed_after_ms.is_some()).count();
            // After the others, the next fault came too early to tell.
            let after = match convergence.heals.len() {
                all if all == agreed => "each heal".to_owned(),
                all => format!("{agreed} of {all} heals, the others not watched for long enough"),
            };
            holds(format!("after {after}; the slowest took {slowest:.0} ms"))
        }
        Some(_) => unknown("the nodes were not watched for long enough after the last heal"),
        None => unknown("no fault was lifted"),
    }
}

fn one_record(story: &Story, found: &Findings) -> Answer {
    let conflicts = &found.conflicts;
    if !conflicts.is_clean() {
        let (missing, duplicate, wrong) = (&conflicts.missing, &conflicts.duplicate, &conflicts.wrong);
        let detail = format!("{} missing, {} duplicate, {} wrong", missing.len(), duplicate.len(), wrong.len());
        return violated(detail, missing.iter().chain(duplicate).chain(wrong).cloned().collect());
    }
    if conflicts.told_by.len() < story.core().len() {
        return unknown("not every node told its conflict records");
    }
    if conflicts.losing_grants == 0 {
        return unknown("no name was granted on both sides of a cut");
    }
    let losers = plural(conflicts.losing_grants, "losing grant");
    let names = plural(conflicts.contested.len(), "contested name");
    holds(format!("{losers} in {names}, one record each, the same on every node"))
}

/// Whether there was a fault with nodes up that could have answered.
fn leave_somebody(story: &Story) -> bool {
    let nodes = story.run.header.nodes.len();
    story.faults.felt().any(|fault| !fault.stops() || fault.nodes.len() < nodes)
}

/// A run that checked nothing has proved nothing.
fn tested(story: &Story, found: &Findings) -> Answer {
    for kind in &story.run.required {
        let installed = |fault: &&Fault| &fault.kind == kind && fault.state == Installed::Installed;
        if !story.faults.all.iter().any(|fault| installed(&fault)) {
            let why = story.faults.all.iter().find(|fault| &fault.kind == kind).map(|fault| fault.detail.as_str());
            let why = why.filter(|why| !why.is_empty()).map(|why| format!(": {why}")).unwrap_or_default();
            return unknown(format!("the fault {kind} was never installed{why}"));
        }
    }
    let doubtful = story.faults.all.iter().filter(|fault| fault.is_doubtful()).count();
    if doubtful > 0 {
        return unknown(format!("it is not certain that {} took hold", plural(doubtful, "fault")));
    }
    if let Some(at) = unlike_intended(story) {
        let at = ms(at) / 1e3;
        return unknown(format!("the probe at {at:.3} s found links that were not as the schedule wants them"));
    }
    if story.ops.is_empty() {
        return unknown("no client called");
    }
    if story.faults.felt().next().is_none() {
        return holds(format!("{}, no faults", plural(story.ops.len(), "call")));
    }
    let used: std::collections::BTreeSet<&str> = story.ops.iter().map(Op::f).collect();
    // Once in a life of several seconds each: not in every fault.
    for f in used.into_iter().filter(|f| leave_somebody(story) && !matches!(*f, "revoke" | "renew")) {
        let in_fault =
            |op: &&Op| op.f() == f && op.outcome == Outcome::Ok && op.side.is_some_and(|side| side != Side::Whole);
        if !story.ops.iter().any(|op| in_fault(&op)) {
            return unknown(format!("no {f} was answered during a fault"));
        }
    }
    let faults = story.faults.felt().count();
    holds(format!(
        "{} through {}{}",
        plural(found.operations, "call"),
        plural(faults, "fault"),
        if leave_somebody(story) { ", every kind of call answered in one" } else { " that left nobody to call" }
    ))
}

/// A probe that failed and that no later one made good.
fn unlike_intended(story: &Story) -> Option<u64> {
    let mut doubt = None;
    for event in &story.run.events {
        if let What::Probe { as_intended, .. } = event.what {
            doubt = if as_intended { None } else { Some(event.time) };
        }
    }
    doubt
}

pub fn plural(n: usize, noun: &str) -> String {
    match (n, noun) {
        (1, _) => format!("1 {noun}"),
        _ => format!("{n} {noun}s"),
    }
}
