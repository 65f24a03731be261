//! Two clients at once that were each certain to own a name, by the answers that they had by then: the only kind of two owners that a
//! lock must never have. A client that cannot reach the registry stops being certain when its lease may have run out.

use serde::Serialize;

use super::evidence::last_proof;
use super::faults::ms;
use super::grants::Grant;
use super::story::Story;
use crate::referee::history::{KeptAlive, What};

#[derive(Clone, Debug, Default, Serialize)]
pub struct Certainties {
    /// Grants whose owners were certain for some time.
    pub owners: usize,
    pub overlaps: Vec<Overlap>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Overlap {
    pub name: String,
    pub owners: (String, String),
    pub from_ms: f64,
    pub to_ms: f64,
    /// The calls that made both certain, by their places in the story.
    #[serde(skip)]
    pub calls: Vec<usize>,
}

pub fn find(story: &Story) -> Certainties {
    let mut found = Certainties::default();
    for name in story.names.keys() {
        let mut stretches: Vec<(u64, u64, &Grant)> = Vec::new();
        for grant in story.names.of(name) {
            let of_grant = certain(story, grant);
            found.owners += usize::from(!of_grant.is_empty());
            stretches.extend(of_grant.into_iter().map(|(from, to)| (from, to, grant)));
        }
        stretches.sort_by_key(|(from, to, grant)| (*from, *to, grant.owner));
        for (at, (from, to, grant)) in stretches.iter().enumerate() {
            for (other_from, other_to, later) in stretches[at + 1..].iter().take_while(|(f, ..)| f < to) {
                let (from, to) = (*from.max(other_from), *to.min(other_to));
                if grant.owner != later.owner && from < to {
                    let owners = (grant.owner.to_owned(), later.owner.to_owned());
                    let (from_ms, to_ms) = (ms(from), ms(to));
                    let proof = |grant: &Grant| grant.lease.and_then(|lease| last_proof(story, lease, from));
                    let calls = [Some(grant.op), Some(later.op), proof(grant), proof(later)];
                    let calls = calls.into_iter().flatten().collect();
                    found.overlaps.push(Overlap { name: name.to_owned(), owners, from_ms, to_ms, calls });
                }
            }
        }
    }
    found
}

/// When its owner could be certain to hold the grant.
pub fn certain(story: &Story, grant: &Grant) -> Vec<(u64, u64)> {
    let told_lost = told_lost_at(story, grant);
    let end = story.names.given_up_at(grant).unwrap_or(story.run_end()).min(told_lost.unwrap_or(u64::MAX));
    let within = |(from, to): (u64, u64)| (from.max(grant.acked), to.min(end));
    let of_lease = match grant.lease.and_then(|lease| story.leases.get(lease)) {
        Some(lease) => lease.certain(),
        None => vec![(grant.acked, end)],
    };
    of_lease.into_iter().map(within).filter(|(from, to)| from < to).collect()
}

/// When an answer told the owner that it had lost this grant: to a keep-alive, or to a call about the name.
fn told_lost_at(story: &Story, grant: &Grant) -> Option<u64> {
    grant.lease?;
    let told = story.ops.iter().filter(|op| match op.what {
        What::KeepAlive { lease, result: Some(KeptAlive::Alive { lost, .. }), .. } => {
            Some(lease.as_str()) == grant.lease && lost.iter().any(|record| record.loser.1 == grant.token)
        }
        What::KeepAlive { lease, result: Some(KeptAlive::Ended), .. } => Some(lease.as_str()) == grant.lease,
        What::Renew { owner, token, result: Some(result), .. } => {
            use crate::referee::history::Registered::{NoLease, Stale, Taken};
            owner == grant.owner && token == grant.token && matches!(result, Stale | Taken { .. } | NoLease)
        }
        _ => false,
    });
    told.filter_map(|op| op.acked()).min()
}
