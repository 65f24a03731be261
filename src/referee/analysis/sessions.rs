//! What a single client may expect to see of its own doing and reading, whatever others see (Terry et al. 1994, *Session guarantees for
//! weakly consistent replicated data*): counted as anomalies for every 10,000 reads of names.
//!
//! A grant counts as older than another if its acknowledgement came before the other one was asked for.

use std::collections::HashMap;

use serde::Serialize;

use super::grants::Grant;
use super::ops::Op;
use super::story::Story;
use crate::model::ident::NodeId;
use crate::referee::history::{Registered, Unregistered, What};

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Sessions {
    /// Reads of names that were answered.
    pub reads: usize,
    /// A client's read that misses its own grant, or shows a grant that it had ended.
    pub read_your_writes: usize,
    /// A client's read that shows what is older than what it had read.
    pub monotonic_reads: usize,
    /// A node that shows a client's older grant after it had shown that client's newer one.
    pub monotonic_writes: usize,
    /// A node that shows what a client had read before it wrote, after that node had shown what it wrote then.
    pub writes_follow_reads: usize,
}

impl Sessions {
    pub fn per_10_000(&self, anomalies: usize) -> f64 {
        match self.reads {
            0 => 0.0,
            reads => (anomalies as f64 * 100_000.0 / reads as f64).round() / 10.0,
        }
    }
}

/// What a session knows of one name.
#[derive(Default)]
struct Known<'a> {
    /// The grant that it made last, with when that was acknowledged.
    granted: Option<&'a str>,
    /// Grants that it ended.
    ended: Vec<&'a str>,
    read: Option<&'a str>,
}

pub fn find(story: &Story) -> Sessions {
    let mut found = Sessions::default();
    let mut sessions: HashMap<(u64, &str), Known> = HashMap::new();
    // What each node has shown of each name, the newest.
    let mut shown: HashMap<(Option<NodeId>, &str), &Grant> = HashMap::new();
    // For a grant: what its maker had read before it.
    let mut after: HashMap<(&str, &str), &str> = HashMap::new();
    let mut by_end = story.ops.iter().filter(|op| op.acked().is_some()).collect::<Vec<_>>();
    by_end.sort_by_key(|op| op.acked());
    for op in by_end {
        match op.what {
            What::Register { name, result: Some(Registered::Granted { token }), .. } => {
                let known = sessions.entry((op.process, name)).or_default();
                if let Some(read) = known.read {
                    after.insert((name, token), read);
                }
                known.granted = Some(token);
            }
            What::Unregister { name, token: Some(token), result: Some(Unregistered::Now | Unregistered::Before) } => {
                let known = sessions.entry((op.process, name)).or_default();
                known.ended.push(token);
                known.granted = known.granted.filter(|granted| granted != token);
            }
            What::Whereis { name, result: Some(read) } => {
                found.reads += 1;
                let token = read.token.as_deref();
                let known = sessions.entry((op.process, name)).or_default();
                found.read_your_writes += usize::from(misses_own(story, name, known, token, op));
                found.monotonic_reads += usize::from(is_older(story, name, token, known.read));
                if let Some(grant) = token.and_then(|token| story.grant(name, token)) {
                    at_node(story, op, grant, &shown, &after, &mut found);
                    let newest = shown.entry((op.node, name)).or_insert(grant);
                    if newest.acked < grant.invoked {
                        *newest = grant;
                    }
                }
                known.read = token.or(known.read);
            }
            _ => {}
        }
    }
    found
}

/// Its own grant, which nobody may have ended, is not what it reads; or what it ended is.
fn misses_own(story: &Story, name: &str, known: &Known, token: Option<&str>, op: &Op) -> bool {
    if token.is_some_and(|token| known.ended.contains(&token)) {
        return true;
    }
    let Some(grant) = known.granted.filter(|granted| token != Some(granted)) else { return false };
    let Some(grant) = story.grant(name, grant) else { return false };
    let stands = story.names.may_end_at(grant).is_none_or(|end| op.acked().is_some_and(|acked| end > acked));
    stands && grant.acked < op.invoked && !story.is_recorded_loser(grant)
}

fn is_older(story: &Story, name: &str, token: Option<&str>, than: Option<&str>) -> bool {
    let (Some(token), Some(than)) = (token, than) else { return false };
    match (story.grant(name, token), story.grant(name, than)) {
        (Some(old), Some(new)) => old.acked < new.invoked,
        _ => false,
    }
}

fn at_node(
    story: &Story,
    op: &Op,
    grant: &Grant,
    shown: &HashMap<(Option<NodeId>, &str), &Grant>,
    after: &HashMap<(&str, &str), &str>,
    found: &mut Sessions,
) {
    let Some(newest) = shown.get(&(op.node, grant.key)).filter(|newest| newest.token != grant.token) else { return };
    let process = |grant: &Grant| story.ops[grant.op].process;
    let older = grant.acked < newest.invoked;
    found.monotonic_writes += usize::from(older && process(grant) == process(newest));
    found.writes_follow_reads += usize::from(after.get(&(newest.key, newest.token)) == Some(&grant.token) && older);
}
