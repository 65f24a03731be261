//! Reads that showed what had been superseded before they began, by an acknowledged write; how old that was.
//!
//! Measured against one machine that takes one call at a time: a promise of some systems, a figure for the others.

use serde::Serialize;

use super::faults::ms;
use super::grants::{Ending, Grant, Grants};
use super::ops::Op;
use super::story::Story;
use crate::model::ident::NodeId;
use crate::referee::history::{Key, What};

/// Stale reads that are listed one by one.
const SHOWN_MAX: usize = 20;

#[derive(Clone, Debug, Default, Serialize)]
pub struct StaleReads {
    /// Reads that were answered.
    pub reads: usize,
    pub stale: usize,
    pub age_p50_ms: f64,
    pub age_p99_ms: f64,
    pub age_max_ms: f64,
    /// The oldest first, at most twenty.
    pub list: Vec<StaleRead>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StaleRead {
    pub key: String,
    pub process: u64,
    pub node: Option<NodeId>,
    pub at_ms: f64,
    /// How long before its invocation the state that it shows had been superseded.
    pub age_ms: f64,
    pub read: String,
    pub superseded_by: String,
    /// Both calls' places in the story.
    #[serde(skip)]
    pub calls: [usize; 2],
}

/// Since when something had been superseded, and by which call (its place in the story).
type Superseded = (u64, usize);

pub fn find(story: &Story) -> StaleReads {
    let mut found = StaleReads::default();
    let mut ages = Vec::new();
    for (at, op) in story.ops.iter().enumerate() {
        let Some(ended) = op.acked() else { continue };
        let superseded = match op.what {
            What::Whereis { name, result: Some(read) } => match (&read.owner, &read.token) {
                (Some(_), Some(token)) => shown(story, name, token, op),
                (Some(_), None) => None,
                (None, _) => missed(story, &story.names, name, None, op, ended),
            },
            What::Members { group, result: Some(read) } => {
                let stays = read.members.iter().filter_map(|member| left(story, group, member, op));
                let members = story.groups.of(group).iter().map(|grant| grant.owner);
                let missing = members.filter(|member| !read.members.contains(*member));
                stays.chain(missing.filter_map(|m| missed(story, &story.groups, group, Some(m), op, ended))).min()
            }
            _ => continue,
        };
        found.reads += 1;
        let Some((since, by)) = superseded else { continue };
        let age = op.invoked - since;
        ages.push(age);
        found.list.push(StaleRead {
            key: match op.key() {
                Key::Name(key) | Key::Group(key) => key.to_owned(),
                Key::Other => String::new(),
            },
            process: op.process,
            node: op.node,
            at_ms: ms(op.invoked),
            age_ms: ms(age),
            read: op.tell(),
            superseded_by: story.ops[by].tell(),
            calls: [by, at],
        });
    }
    ages.sort_unstable();
    let quantile = |q: f64| ages.get(((ages.len() as f64 * q).ceil() as usize).max(1) - 1).copied().map_or(0.0, ms);
    found.stale = ages.len();
    (found.age_p50_ms, found.age_p99_ms, found.age_max_ms) = (quantile(0.5), quantile(0.99), quantile(1.0));
    found.list.sort_by(|a, b| b.age_ms.total_cmp(&a.age_ms));
    found.list.truncate(SHOWN_MAX);
    found
}

/// The grant that the read shows had been ended, or followed by another, before the read began.
fn shown(story: &Story, name: &str, token: &str, read: &Op) -> Option<Superseded> {
    let grant = story.grant(name, token)?;
    let ends = story.names.ended_by(grant).filter_map(|end| Some((end.acked?, end.op)));
    let bare = story.names.endings(name).iter().filter(|end| ended_whatever_stood(story, end, grant));
    let bare = bare.filter_map(|end| Some((end.acked?, end.op)));
    let successors = story.names.of(name).iter().filter(|next| {
        next.fresh && next.owner != grant.owner && next.invoked >= grant.acked && !story.is_recorded_loser(next)
    });
    // Without consensus the successor may have come and gone on the other side of a cut.
    let successors = successors.filter(|next| story.names.may_end_at(next).is_none_or(|at| at > read.invoked));
    let successors = successors.map(|next| (next.acked, next.op));
    ends.chain(bare).chain(successors).filter(|(since, _)| *since < read.invoked).min()
}

fn ended_whatever_stood(story: &Story, end: &Ending, grant: &Grant) -> bool {
    // Without consensus an ending without a token ends what its node knew; at the grant's own node that is sure.
    end.token.is_none() && grant.acked <= end.invoked && (story.one_order() || end.node == grant.node)
}

/// A grant had been acknowledged before the read began, nobody can have ended it before the read was over, and it is not shown.
fn missed(
    story: &Story,
    grants: &Grants,
    key: &str,
    owner: Option<&str>,
    read: &Op,
    read_ended: u64,
) -> Option<Superseded> {
    grants
        .of(key)
        .iter()
        .filter(|grant| owner.is_none_or(|owner| owner == grant.owner) && grant.acked < read.invoked)
        .filter(|grant| grants.may_end_at(grant).is_none_or(|at| at > read_ended))
        .filter(|grant| owner.is_some() || !story.is_recorded_loser(grant))
        .map(|grant| (grant.acked, grant.op))
        .min()
}

/// The member had left, and nobody can have joined it again.
fn left(story: &Story, group: &str, member: &str, read: &Op) -> Option<Superseded> {
    let joins = || story.groups.of(group).iter().filter(|grant| grant.owner == member);
    if story.groups.silent(group).iter().any(|silent| silent.owner == member && silent.invoked < read.invoked) {
        return None;
    }
    story
        .groups
        .endings(group)
        .iter()
        .filter(|end| end.owner == Some(member) && end.acked.is_some_and(|acked| acked < read.invoked))
        .filter(|end| {
            joins().all(|grant| {
                grant.acked < end.invoked && (story.one_order() || grant.node == end.node)
                    || grant.invoked > read.ended.unwrap_or(u64::MAX)
            })
        })
        .filter_map(|end| Some((end.acked?, end.op)))
        .min()
}
