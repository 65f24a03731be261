//! Tokens: whether they rise from grant to grant, and whether what a name guards was safe from those who held it before.

use std::collections::BTreeMap;

use serde::Serialize;

use super::certain::certain;
use super::evidence::{Evidence, last_proof};
use super::faults::{Span, ms};
use super::grants::Grant;
use super::story::Story;
use crate::referee::history::What;
use crate::referee::resource::Order;

#[derive(Clone, Debug, Default, Serialize)]
pub struct Fencing {
    /// Pairs of grants of one name of which one surely came first.
    pub pairs: usize,
    /// Tokens that did not rise, or that two grants had.
    pub disordered: Vec<Evidence>,
    pub writes: usize,
    pub accepted: usize,
    /// Writes by former owners that their tokens stopped.
    pub saves: usize,
    /// Writes that should have been stopped, and writes of certain owners that were.
    pub broken: Vec<Evidence>,
}

pub fn find(story: &Story) -> Fencing {
    let mut found = Fencing::default();
    for name in story.names.keys() {
        tokens(story, name, &mut found);
    }
    writes(story, &mut found);
    found
}

fn tokens(story: &Story, name: &str, found: &mut Fencing) {
    let grants = story.names.of(name).iter().filter(|grant| grant.fresh && !grant.token.is_empty()).collect::<Vec<_>>();
    let mut owners: BTreeMap<&str, &Grant> = BTreeMap::new();
    for grant in &grants {
        if let Some(other) = owners.insert(grant.token, grant).filter(|other| other.owner != grant.owner) {
            let what = format!("{} and {} were both granted it with token {}", other.owner, grant.owner, grant.token);
            found.disordered.push(Evidence::new(name, what, between(other, grant), [other.op, grant.op]));
        }
    }
    // By acknowledgement: the greatest token of those acknowledged before each invocation is enough to look at.
    let ordered = grants.iter().filter_map(|grant| Some((Order::of(grant.token)?, *grant))).collect::<Vec<_>>();
    for (order, grant) in &ordered {
        let before = ordered.iter().filter(|(_, other)| other.acked < grant.invoked);
        let Some((greatest, other)) = before.max_by(|a, b| a.0.cmp(&b.0)) else { continue };
        found.pairs += 1;
        if greatest > order {
            let (at, owner, token) = (ms(grant.acked) / 1e3, grant.owner, grant.token);
            let after = format!("after {} with the greater {}", other.owner, other.token);
            let what = format!("{owner} was granted it at {at:.3} s with token {token}, {after}");
            found.disordered.push(Evidence::new(name, what, between(other, grant), [other.op, grant.op]));
        }
    }
}

fn between(one: &Grant, other: &Grant) -> Span {
    Span { from: one.acked.min(other.acked), to: one.acked.max(other.acked) }
}

fn writes(story: &Story, found: &mut Fencing) {
    // The latest grant, by real time, that was behind an accepted write to each resource.
    let mut latest: BTreeMap<&str, &Grant> = BTreeMap::new();
    for event in &story.run.events {
        let What::GuardedWrite { name, owner, token, accepted, greatest } = &event.what else { continue };
        found.writes += 1;
        let of_owner = |grant: &&Grant| grant.owner == owner && grant.token == token;
        let Some(grant) = story.names.of(name).iter().find(of_owner) else { continue };
        let at = ms(event.time) / 1e3;
        match accepted {
            true => {
                found.accepted += 1;
                match latest.get(name.as_str()) {
                    Some(later) if later.owner != grant.owner && grant.acked < later.invoked => {
                        let what = format!(
                            "at {at:.3} s {owner} wrote with token {token}, although {}, who was granted it later, had written before",
                            later.owner
                        );
                        let span = Span { from: later.acked, to: event.time };
                        found.broken.push(Evidence::new(name, what, span, [grant.op, later.op]));
                    }
                    Some(later) if later.acked >= grant.acked => {}
                    _ => drop(latest.insert(name, grant)),
                }
            }
            false => {
                let sure = certain(story, grant).iter().any(|(from, to)| (*from..*to).contains(&event.time));
                match sure {
                    true => {
                        let after = greatest.as_deref().unwrap_or("none");
                        let what = format!(
                            "at {at:.3} s {owner} was certain to own it, and was refused with token {token} after {after}"
                        );
                        let proof = grant.lease.and_then(|lease| last_proof(story, lease, event.time));
                        let calls = [Some(grant.op), proof].into_iter().flatten().collect::<Vec<_>>();
                        let span = Span { from: grant.acked, to: event.time };
                        found.broken.push(Evidence::new(name, what, span, calls));
                    }
                    false => found.saves += 1,
                }
            }
        }
    }
}
