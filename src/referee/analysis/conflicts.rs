//! Two owners of one name met: one of them keeps it everywhere, and each of the others has exactly one record of its loss.
//!
//! Protocol A6. A losing grant is one that was acknowledged, that nobody may have ended, and that does not stand at the end although
//! another owner does.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::faults::ms;
use super::grants::Grant;
use super::lost::at_risk_from;
use super::story::Story;
use super::views::last_told;
use crate::model::ident::NodeId;
use crate::referee::history::Conflict;
use crate::referee::kinds::FaultKind;

/// Clocks of nodes on one machine count in milliseconds.
const CLOCKS_NS: u64 = 5_000_000;

#[derive(Clone, Debug, Default, Serialize)]
pub struct Conflicts {
    /// Names in which a grant lost to another.
    pub contested: Vec<String>,
    /// Losing grants, each of which is owed one record.
    pub losing_grants: usize,
    /// Different record ids, over all nodes.
    pub records: usize,
    /// Losing grants without a record on any node.
    pub missing: Vec<String>,
    /// Losing grants with more than one record.
    pub duplicate: Vec<String>,
    /// Records that are not the same on all nodes, or that name the wrong parties.
    pub wrong: Vec<String>,
    /// Losing grants whose node was killed before a peer had surely confirmed them: no record is owed.
    pub at_risk: usize,
    /// Nodes that told their records at the end.
    pub told_by: Vec<NodeId>,
    /// Every record, for the page.
    pub list: Vec<Record>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Record {
    pub id: String,
    pub name: String,
    pub loser: String,
    pub loser_token: String,
    pub winner: String,
    pub winner_token: String,
    pub nodes: Vec<NodeId>,
    /// When a node was first seen to have it.
    #[serde(skip)]
    pub first_told: u64,
}

impl Conflicts {
    pub fn is_clean(&self) -> bool {
        self.missing.is_empty() && self.duplicate.is_empty() && self.wrong.is_empty()
    }
}

pub fn find(story: &Story) -> Conflicts {
    let mut told = last_told(&story.told);
    told.retain(|node, _| story.in_core(*node));
    let mut found = Conflicts { told_by: told.keys().copied().collect(), ..Conflicts::default() };
    let mut by_content: BTreeMap<&Conflict, Vec<NodeId>> = BTreeMap::new();
    for (node, records) in &told {
        for record in records {
            by_content.entry(record).or_default().push(*node);
        }
    }
    let mut by_loser: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for record in by_content.keys() {
        by_loser.entry((&record.name, &record.loser.1)).or_default().insert(&record.id);
    }
    judge_losers(story, &by_loser, &mut found);
    for (record, nodes) in &by_content {
        judge_record(story, record, nodes, &told, &mut found);
    }
    in_circles(story, by_content.keys().copied(), &mut found);
    for ((name, token), ids) in by_loser.iter().filter(|(_, ids)| ids.len() > 1) {
        found.duplicate.push(format!("{name}: the grant {token} has {} records: {}", ids.len(), join(ids)));
    }
    found.records = by_content.keys().map(|record| &record.id).collect::<BTreeSet<_>>().len();
    found.list = by_content.iter().map(|(record, nodes)| tell(story, record, nodes)).collect();
    found
}

/// Whoever won may lose to a third, but not to one whom he beat: then nobody has the name.
fn in_circles<'a>(story: &Story, records: impl Iterator<Item = &'a Conflict>, found: &mut Conflicts) {
    let mut beaten_by: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    for record in records {
        beaten_by.insert((&record.name, &record.loser.1), &record.winner.1);
    }
    let mut circles: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
    for ((name, loser), winner) in beaten_by.iter().filter(|((_, loser), winner)| loser != *winner) {
        let (mut at, mut steps) = (*winner, 0);
        while let Some(next) = beaten_by.get(&(*name, at)).filter(|_| steps <= beaten_by.len()) {
            (at, steps) = (*next, steps + 1);
            if at == *loser {
                circles.insert(name, (loser, winner));
                break;
            }
        }
    }
    for (name, (loser, winner)) in circles {
        let words = story.last_words(name);
        if !words.is_empty() && words.iter().all(|word| word.owner.is_none()) {
            found.wrong.push(format!(
                "{name}: {loser} lost to {winner}, which lost to it, and nobody has the name at the end"
            ));
        }
    }
}

fn judge_losers(story: &Story, by_loser: &BTreeMap<(&str, &str), BTreeSet<&str>>, found: &mut Conflicts) {
    let mut contested = BTreeSet::new();
    for grant in story.names.all().filter(|grant| story.names.may_end_at(grant).is_none()) {
        let recorded = by_loser.contains_key(&(grant.key, grant.token));
        if !recorded && !has_lost(story, grant) {
            continue;
        }
        if !recorded && at_risk_from(story, grant).is_some() {
            found.at_risk += 1;
            continue;
        }
        contested.insert(grant.key.to_owned());
        found.losing_grants += 1;
        if !recorded {
            let at = ms(grant.acked) / 1e3;
            let line = format!(
                "{}: {} was granted it at {at:.3} s (token {}), lost it, and has no record",
                grant.key, grant.owner, grant.token
            );
            found.missing.push(line);
        }
    }
    found.contested = contested.into_iter().collect();
}

/// Somebody else stands at the end.
fn has_lost(story: &Story, grant: &Grant) -> bool {
    let words = story.last_words(grant.key);
    let stands = words.iter().any(|word| word.owner == Some(grant.owner) || word.token == Some(grant.token));
    !stands && words.iter().any(|word| word.owner.is_some())
}

fn judge_record(
    story: &Story,
    record: &Conflict,
    nodes: &[NodeId],
    told: &BTreeMap<NodeId, BTreeSet<&Conflict>>,
    found: &mut Conflicts,
) {
    let mut wrong = |why: String| found.wrong.push(format!("{}: record {} {why}", record.name, record.id));
    let without: Vec<&NodeId> = told.keys().filter(|node| !nodes.contains(node)).collect();
    if !without.is_empty() {
        let differs = without.iter().any(|node| told[*node].iter().any(|other| other.id == record.id));
        let nodes = without.iter().map(|node| node.to_string()).collect::<Vec<_>>().join(", ");
        let how = if differs { "reads differently on" } else { "is missing on" };
        wrong(format!("{how} node {nodes}"));
    }
    if record.loser.1 == record.winner.1 {
        wrong("names one grant as loser and winner".to_owned());
    }
    for (role, (owner, token)) in [("loser", &record.loser), ("winner", &record.winner)] {
        match story.grant(&record.name, token) {
            Some(grant) if grant.owner != owner => {
                wrong(format!("says that its {role} {token} is {owner}'s, but it is {}'s", grant.owner));
            }
            Some(_) => {}
            None if story.names.silent(&record.name).iter().any(|silent| silent.owner == owner) => {}
            None => wrong(format!("names a {role} {owner} ({token}) that never registered the name")),
        }
    }
    if let Some(by) = out_of_turn(story, record) {
        wrong(format!(
            "takes the name from {}, who had it {by:.0} ms before {} asked for it",
            record.loser.0, record.winner.0
        ));
    }
    let words = story.last_words(&record.name);
    if !words.is_empty() && words.iter().all(|word| word.token == Some(record.loser.1.as_str())) {
        wrong(format!("tells {} that it lost, but it holds the name at the end", record.loser.0));
    }
}

/// Of two grants the one that is surely younger, by so many ms, has won: the nodes' policy is that the oldest keeps a name, wherever it
/// comes from. Takeovers, which inherit their victim's place, are not in the workload.
fn out_of_turn(story: &Story, record: &Conflict) -> Option<f64> {
    // The age of a grant is what its node's clock says.
    if story.faults.all.iter().any(|fault| fault.kind == FaultKind::Skew.as_str()) {
        return None;
    }
    let loser = story.grant(&record.name, &record.loser.1)?;
    // Grants of one owner stand side by side, the first for all of them.
    let winner = record.winner.0.as_str();
    let granted = story.names.of(&record.name).iter().filter(|grant| grant.owner == winner).map(|grant| grant.invoked);
    let silent = story.names.silent(&record.name).iter().filter(|silent| silent.owner == winner);
    let asked = granted.chain(silent.map(|silent| silent.invoked)).min()?;
    asked.checked_sub(loser.acked).filter(|by| *by > CLOCKS_NS).map(ms)
}

fn tell(story: &Story, record: &Conflict, nodes: &[NodeId]) -> Record {
    let has = |told: &&super::views::Told| told.records.iter().any(|other| other.id == record.id);
    Record {
        id: record.id.clone(),
        name: record.name.clone(),
        loser: record.loser.0.clone(),
        loser_token: record.loser.1.clone(),
        winner: record.winner.0.clone(),
        winner_token: record.winner.1.clone(),
        nodes: nodes.to_vec(),
        first_told: story.told.iter().find(has).map_or(0, |told| told.at),
    }
}

fn join(ids: &BTreeSet<&str>) -> String {
    ids.iter().copied().collect::<Vec<_>>().join(", ")
}
