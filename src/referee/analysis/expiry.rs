//! Leases: whether what was bound to one ended before its time, or long after it.
//!
//! A lease surely lives for its time-to-live after the *sending* of what last proved that it lived. That something bound to it ended
//! before that is proved by an answer or event that says so; where writes have one order, also by another's grant of the name, and
//! where reads have it too, by any answer that shows somebody else or nobody.

use serde::Serialize;

use super::evidence::last_proof;
use super::faults::{ms, ns};
use super::grants::Grant;
use super::ops::Op;
use super::story::Story;
use crate::referee::history::{Key, Kind, Registered, What};
use crate::referee::leases::Lease;
use crate::referee::watched::{ChangeKind, Watched};

/// What a system may take beyond the time-to-live, where it promises to end leases in time.
const GRACE_NS: u64 = 1_000_000_000;
/// What a busy machine may add to that between a decision and its being seen.
const SLACK_NS: u64 = 300_000_000;

#[derive(Clone, Debug, Default, Serialize)]
pub struct Expiry {
    /// Leases that were made.
    pub leases: usize,
    /// Keep-alives that were answered with life.
    pub kept_alive: usize,
    /// Leases that nobody kept alive any more or that were told to have ended: they were left to run out within the run.
    pub ran_out: usize,
    pub revoked: usize,
    /// Grants under leases whose stay was looked at.
    pub judged: usize,
    pub early: Vec<Mistimed>,
    /// Seen more than a second too late, while nothing hindered the system.
    pub late: Vec<Mistimed>,
    /// From when a lease could run out at the earliest until a watcher was told that it had, in milliseconds.
    pub shown_after_p50_ms: f64,
    pub shown_after_max_ms: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Mistimed {
    pub lease: String,
    /// A name or group; empty: the lease itself.
    pub key: String,
    pub at_ms: f64,
    pub why: String,
    /// When what its time is counted from was sent.
    #[serde(skip)]
    pub since_ms: f64,
    /// The calls' places in the story.
    #[serde(skip)]
    pub calls: Vec<usize>,
}

impl Mistimed {
    fn new(story: &Story, lease: &str, key: &str, at: u64, why: String, mut calls: Vec<usize>) -> Self {
        let proof = last_proof(story, lease, at);
        calls.extend(proof);
        let since_ms = ms(proof.map_or(at, |proof| story.ops[proof].invoked.min(at)));
        Self { lease: lease.to_owned(), key: key.to_owned(), at_ms: ms(at), why, since_ms, calls }
    }
}

pub fn find(story: &Story) -> Expiry {
    let revoked = |lease: &&Lease| lease.revoked.is_some();
    let run_out = |lease: &&Lease| left_alone(lease) && lease.due() < story.run_end();
    let mut found = Expiry {
        leases: story.leases.values().filter(|lease| !lease.proofs.is_empty()).count(),
        kept_alive: story.leases.values().map(|lease| lease.proofs.len().saturating_sub(1)).sum(),
        ran_out: story.leases.values().filter(run_out).count(),
        revoked: story.leases.values().filter(revoked).count(),
        ..Expiry::default()
    };
    told_early(story, &mut found);
    seen_expiring(story, &mut found);
    for grant in story.names.all().filter(|grant| grant.lease.is_some()) {
        found.judged += 1;
        contradicted(story, grant, &mut found);
        overstayed(story, grant, &mut found);
    }
    found.early.sort_by(|a, b| a.at_ms.total_cmp(&b.at_ms));
    found
}

/// An answer to a keep-alive said that it had ended, although it could not have run out and nobody had revoked it.
fn told_early(story: &Story, found: &mut Expiry) {
    for (id, lease) in &story.leases {
        let Some(told) = lease.told_ended else { continue };
        if told.time < lease.may_end() {
            let why = format!("a keep-alive was told that it had ended, {}", before(lease, told.time));
            let call = story.ops.iter().position(|op| op.index == told.invoked_at as u64);
            let calls = call.into_iter().collect();
            found.early.push(Mistimed::new(story, id, "", told.time, why, calls));
        }
    }
}

fn before(lease: &Lease, at: u64) -> String {
    let early = ms(lease.due().saturating_sub(at));
    format!("{early:.0} ms before {:.0} ms had passed since its last keep-alive was sent", ms(lease.ttl_ns))
}

/// What watchers were told. Without one order a lease that was passed on may run out at one node and live at another.
fn seen_expiring(story: &Story, found: &mut Expiry) {
    let mut shown: std::collections::BTreeMap<&str, u64> = std::collections::BTreeMap::new();
    for event in &story.run.events {
        let What::Watched(Watched::Change { changes, .. }) = &event.what else { continue };
        for change in changes {
            let expired =
                matches!(change.kind, ChangeKind::Expired | ChangeKind::LeftExpired | ChangeKind::LeaseExpired);
            let Some(id) = change.lease.as_deref().filter(|_| expired) else { continue };
            let Some(lease) = story.leases.get(id) else { continue };
            if shown.contains_key(id) {
                continue;
            }
            shown.insert(id, event.time);
            told_late(story, id, &change.key, event.time, found);
            let stayed = story.one_order() || (!is_passed_on(story, id) && lease.doubtful.is_empty());
            if event.time < lease.may_end() && !lease.proofs.is_empty() && stayed {
                let why = format!("a watcher was told that it had run out, {}", before(lease, event.time));
                let calls = granted_under(story, id, &change.key);
                found.early.push(Mistimed::new(story, id, &change.key, event.time, why, calls));
            }
        }
    }
    let mut after = shown
        .iter()
        .filter_map(|(id, at)| {
            story.leases.get(id).filter(|lease| left_alone(lease)).map(|lease| at.saturating_sub(lease.due()))
        })
        .collect::<Vec<_>>();
    after.sort_unstable();
    found.shown_after_p50_ms = after.get(after.len() / 2).copied().map_or(0.0, ms);
    found.shown_after_max_ms = after.last().copied().map_or(0.0, ms);
}

/// The first watcher to be told that it had run out was told so more than a second after its time.
fn told_late(story: &Story, id: &str, key: &str, at: u64, found: &mut Expiry) {
    let Some(lease) = story.leases.get(id).filter(|lease| left_alone(lease)) else { return };
    let touched = lease.last_touched();
    // Without one order another node may have been told of a later keep-alive.
    if story.one_order() && at > in_time(lease, touched) && at > in_time(lease, last_disturbance(story, at)) {
        let (since, ttl) = (ms(at - touched), ms(lease.ttl_ns));
        let why = format!(
            "watchers were told that it had run out {since:.0} ms after its last keep-alive, its time being {ttl:.0} ms"
        );
        found.late.push(Mistimed::new(story, id, key, at, why, granted_under(story, id, key)));
    }
}

/// The calls that bound that name or group to the lease.
fn granted_under(story: &Story, lease: &str, key: &str) -> Vec<usize> {
    let grants = story.names.of(key).iter().chain(story.groups.of(key));
    grants.filter(|grant| grant.lease == Some(lease)).map(|grant| grant.op).collect()
}

/// Somebody was told that it lived, so that its time is known; and nobody revoked it.
fn left_alone(lease: &Lease) -> bool {
    !lease.proofs.is_empty() && lease.revoked.is_none()
}

/// Until when a lease may be seen that was last kept alive, or had a new leader, then.
fn in_time(lease: &Lease, since: u64) -> u64 {
    since + lease.ttl_ns + GRACE_NS + SLACK_NS
}

/// A keep-alive made another node its keeper.
fn is_passed_on(story: &Story, id: &str) -> bool {
    use crate::referee::history::KeptAlive::Alive;
    story.ops.iter().any(
        |op| matches!(op.what, What::KeepAlive { lease, result: Some(Alive { moved: true, .. }), .. } if lease == id),
    )
}

/// Somebody else was granted the name, or it was seen without the grant, while the lease surely lived.
fn contradicted(story: &Story, grant: &Grant, found: &mut Expiry) {
    let Some(lease) = grant.lease.and_then(|lease| story.leases.get(lease)) else { return };
    let held_until = lease.may_end().min(story.names.given_up_at(grant).unwrap_or(u64::MAX));
    if !story.one_order() {
        return;
    }
    let successor = story.names.of(grant.key).iter().find(|other| {
        other.fresh && other.owner != grant.owner && other.invoked >= grant.acked && other.acked < held_until
    });
    let read = story.ops.iter().enumerate().filter(|_| story.run.promises.linearizable).find(|(_, op)| {
        op.key() == Key::Name(grant.key)
            && op.invoked >= grant.acked
            && op.acked().is_some_and(|acked| acked < held_until)
            && shows(op).is_some_and(|shown| shown != Some(grant.token))
    });
    let (at, what, call) = match (successor, read) {
        (Some(other), _) => (other.acked, format!("{} was granted {}", other.owner, grant.key), other.op),
        (None, Some((place, op))) => (op.acked().unwrap_or(op.invoked), op.tell(), place),
        (None, None) => return,
    };
    let why = format!("{} held it under the lease, yet: {what}, {}", grant.owner, before(lease, at));
    let id = grant.lease.unwrap_or_default();
    found.early.push(Mistimed::new(story, id, grant.key, at, why, vec![grant.op, call]));
}

/// Whose grant an answer shows; the inner none: nobody's. None: it shows nothing.
fn shows<'a>(op: &Op<'a>) -> Option<Option<&'a str>> {
    match op.what {
        What::Whereis { result: Some(read), .. } if read.owner.is_none() => Some(None),
        What::Whereis { result: Some(read), .. } => read.token.as_deref().map(Some),
        What::Register { result: Some(Registered::Taken { token, .. }), .. } => Some(Some(token)),
        _ => None,
    }
}

/// A linearizable answer still showed it more than a second after its time, counted from the last keep-alive or the last disturbance.
fn overstayed(story: &Story, grant: &Grant, found: &mut Expiry) {
    let Some(lease) = grant.lease.and_then(|lease| story.leases.get(lease)) else { return };
    if !story.run.promises.linearizable {
        return;
    }
    let touched = lease.last_touched();
    let seen = story.ops.iter().enumerate().find(|(_, op)| {
        op.key() == Key::Name(grant.key)
            && op.acked().is_some()
            && op.invoked > in_time(lease, touched)
            && shows(op) == Some(Some(grant.token))
            && op.invoked > in_time(lease, last_disturbance(story, op.invoked))
    });
    if let Some((place, op)) = seen {
        let since = ms(op.invoked.saturating_sub(touched));
        let ttl = ms(lease.ttl_ns);
        let why = format!("{}, {since:.0} ms after the last keep-alive of its lease of {ttl:.0} ms", op.tell());
        let id = grant.lease.unwrap_or_default();
        found.late.push(Mistimed::new(story, id, grant.key, op.invoked, why, vec![grant.op, place]));
    }
}

/// The last moment up to then at which there may have been a change of leader, or no leader.
fn last_disturbance(story: &Story, until: u64) -> u64 {
    let election = ns(story.run.bounds.election);
    let faults = story.faults.felt().flat_map(|fault| [Some(fault.begin.to), fault.end.map(|end| end.to)]);
    let faults = faults.flatten().map(|at| at + election).filter(|at| *at < until + election);
    let mut leaders = std::collections::BTreeMap::new();
    let mut changed = 0;
    for seen in story.views.iter().take_while(|seen| seen.at <= until) {
        if leaders.insert(seen.node, seen.view.leader) != Some(seen.view.leader) {
            changed = seen.at;
        }
    }
    faults.chain([changed]).max().unwrap_or(0)
}

/// Whether any keep-alive was answered while a fault was in force: or else expiry under faults was not tried.
pub fn tried_in_faults(story: &Story) -> bool {
    story.run.events.iter().any(|event| {
        matches!(event.what, What::KeepAlive { .. }) && event.kind == Kind::Ok && story.faults.during(event.time)
    })
}
