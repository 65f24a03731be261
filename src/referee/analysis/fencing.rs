//! Tokens: whether they rise from grant to grant, and whether what a name guards was safe from those who held it before.

use std::collections::BTreeMap;

use serde::Serialize;

use super::certain::certain;
use super::faults::ms;
use super::grants::Grant;
use super::story::Story;
use crate::referee::history::What;
use crate::referee::resource::Order;

#[derive(Clone, Debug, Default, Serialize)]
pub struct Fencing {
    /// Pairs of grants of one name of which one surely came first.
    pub pairs: usize,
    /// Tokens that did not rise, or that two grants had.
    pub disordered: Vec<String>,
    pub writes: usize,
    pub accepted: usize,
    /// Writes by former owners that their tokens stopped.
    pub saves: usize,
    /// Writes that should have been stopped, and writes of certain owners that were.
    pub broken: Vec<String>,
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
            found.disordered.push(format!(
                "{name}: {} and {} were both granted it with token {}",
                other.owner, grant.owner, grant.token
            ));
        }
    }
    // By acknowledgement: the greatest token of those acknowledged before each invocation is enough to look at.
    let ordered = grants.iter().filter_map(|grant| Some((Order::of(grant.token)?, *grant))).collect::<Vec<_>>();
    for (order, grant) in &ordered {
        let before = ordered.iter().filter(|(_, other)| other.acked < grant.invoked);
        let Some((greatest, other)) = before.max_by(|a, b| a.0.cmp(&b.0)) else { continue };
        found.pairs += 1;
        if greatest > order {
            found.disordered.push(format!(
                "{name}: {} was granted it at {:.3} s with token {}, after {} with the greater {}",
                grant.owner,
                ms(grant.acked) / 1e3,
                grant.token,
                other.owner,
                other.token
            ));
        }
    }
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
                        found.broken.push(format!(
                            "{name}: at {at:.3} s {owner} wrote with token {token}, although {}, who was granted it later, had written \
                             before",
                            later.owner
                        ));
                    }
                    Some(later) if later.acked >= grant.acked => {}
                    _ => drop(latest.insert(name, grant)),
                }
            }
            false => {
                let sure = certain(story, grant).iter().any(|(from, to)| (*from..*to).contains(&event.time));
                match sure {
                    true => found.broken.push(format!(
                        "{name}: at {at:.3} s {owner} was certain to own it, and was refused with token {token} after {}",
                        greatest.as_deref().unwrap_or("none")
                    )),
                    false => found.saves += 1,
                }
            }
        }
    }
}
