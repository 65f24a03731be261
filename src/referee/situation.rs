//! What is in force: which links pass nothing or little, and which nodes stand still, as the nemesis left them.

use std::collections::{BTreeMap, BTreeSet};

use super::history::Side;
use super::schedule::{Fault, Harm, Link};
use crate::model::ident::NodeId;

/// Links that are not whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links {
    /// They pass nothing.
    pub cut: BTreeSet<Link>,
    /// How many percent they lose.
    pub loss: BTreeMap<Link, u8>,
    /// How many milliseconds they are slow by.
    pub delay: BTreeMap<Link, u32>,
}

/// What is in force. Begins with nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Situation {
    nodes: Vec<NodeId>,
    in_force: BTreeMap<u64, Fault>,
    /// Nodes that a fault was to stop and that run nevertheless.
    running: BTreeSet<NodeId>,
}

impl Situation {
    pub fn new(nodes: Vec<NodeId>) -> Self {
        Self { nodes, in_force: BTreeMap::new(), running: BTreeSet::new() }
    }

    pub fn nodes(&self) -> &[NodeId] {
        &self.nodes
    }

    pub fn begin(&mut self, fault: &Fault) {
        self.in_force.insert(fault.id, fault.clone());
    }

    pub fn end(&mut self, id: u64) {
        if let Some(fault) = self.in_force.remove(&id) {
            self.running.retain(|node| !fault.harm.stopped().contains(node));
        }
    }

    /// The node runs, whatever was done to it.
    pub fn runs(&mut self, node: NodeId) {
        self.running.insert(node);
    }

    pub fn in_force(&self) -> Vec<Fault> {
        self.in_force.values().cloned().collect()
    }

    fn harms(&self) -> impl Iterator<Item = &Harm> {
        self.in_force.values().map(|fault| &fault.harm)
    }

    /// All links that are not whole. One that several faults hit has the worst of each.
    pub fn links(&self) -> Links {
        let mut all = Links::default();
        for harm in self.harms() {
            match harm {
                Harm::Cut { links } => all.cut.extend(links),
                Harm::Lose { links, percent } => {
                    links.iter().for_each(|link| worst(&mut all.loss, *link, *percent));
                }
                Harm::Delay { links, ms } => links.iter().for_each(|link| worst(&mut all.delay, *link, *ms)),
                _ => {}
            }
        }
        all
    }

    /// Whether the links between two nodes are cut or whole, and nothing in between.
    pub fn is_plain(&self, one: NodeId, other: NodeId) -> bool {
        let links = self.links();
        let hit = |link: &Link| links.loss.contains_key(link) || links.delay.contains_key(link);
        !hit(&(one, other)) && !hit(&(other, one))
    }

    /// Of a hundred answers of a node to its clients, so many are lost.
    pub fn answers_lost(&self, node: NodeId) -> u8 {
        let lost = self.harms().filter_map(|harm| match harm {
            Harm::DropAnswers { nodes, percent } if nodes.contains(&node) => Some(*percent),
            _ => None,
        });
        lost.max().unwrap_or(0)
    }

    /// By how many milliseconds a node's wall clock is off: what came last counts.
    pub fn clock(&self, node: NodeId) -> i64 {
        let offsets = self.harms().filter_map(|harm| match harm {
            Harm::Skew { offsets_ms } => offsets_ms.iter().find(|(of, _)| *of == node).map(|(_, offset)| *offset),
            _ => None,
        });
        offsets.last().unwrap_or(0)
    }

    fn is_cut(&self, link: Link) -> bool {
        self.harms().any(|harm| harm.cut().contains(&link))
    }

    /// Nothing has stopped it.
    pub fn is_up(&self, node: NodeId) -> bool {
        self.running.contains(&node) || !self.harms().any(|harm| harm.stopped().contains(&node))
    }

    /// Whether a question and its answer pass between two nodes.
    pub fn reaches(&self, from: NodeId, to: NodeId) -> bool {
        self.is_up(from) && self.is_up(to) && !self.is_cut((from, to)) && !self.is_cut((to, from))
    }

    /// The peers that a node is meant to reach.
    pub fn reach(&self, node: NodeId) -> BTreeSet<NodeId> {
        self.nodes.iter().copied().filter(|peer| *peer != node && self.reaches(node, *peer)).collect()
    }

    /// The peers that a node is meant to be heard by, whether or not they are heard in turn.
    pub fn heard_by(&self, node: NodeId) -> BTreeSet<NodeId> {
        let hears = |peer: &NodeId| *peer != node && self.is_up(*peer) && !self.is_cut((node, *peer));
        self.nodes.iter().copied().filter(hears).collect()
    }

    /// Where a node stands.
    pub fn side(&self, node: NodeId) -> Side {
        if !self.is_up(node) {
            Side::Stopped
        } else if self.in_force.is_empty() {
            Side::Whole
        } else if (self.reach(node).len() + 1) * 2 > self.nodes.len() {
            Side::Majority
        } else {
            Side::Minority
        }
    }
}

fn worst<T: Ord + Copy>(all: &mut BTreeMap<Link, T>, link: Link, new: T) {
    let known = all.entry(link).or_insert(new);
    *known = new.max(*known);
}

#[cfg(test)]
mod tests {
    use super::super::kinds::FaultKind;
    use super::*;

    fn fault(id: u64, harm: Harm) -> Fault {
        Fault { id, group: id, kind: FaultKind::Chaos, at_ms: 0, until_ms: Some(1), harm }
    }

    #[test]
    fn a_cut_makes_sides_and_its_end_makes_one_whole() {
        let mut situation = Situation::new(vec![1, 2, 3]);
        assert_eq!(situation.side(1), Side::Whole);
        situation.begin(&fault(1, Harm::Cut { links: vec![(1, 2), (2, 1), (1, 3), (3, 1)] }));
        assert_eq!([1, 2, 3].map(|node| situation.side(node)), [Side::Minority, Side::Majority, Side::Majority]);
        assert_eq!(situation.reach(2), BTreeSet::from([3]));
        situation.end(1);
        assert_eq!(situation.side(1), Side::Whole);
    }

    #[test]
    fn a_link_cut_one_way_carries_no_answers() {
        let mut situation = Situation::new(vec![1, 2, 3]);
        situation.begin(&fault(1, Harm::Cut { links: vec![(1, 2)] }));
        assert!(!situation.reaches(1, 2) && !situation.reaches(2, 1) && situation.reaches(2, 3));
        assert_eq!((situation.heard_by(1), situation.heard_by(2)), (BTreeSet::from([3]), BTreeSet::from([1, 3])));
    }

    #[test]
    fn stopped_nodes_leave_the_others_a_majority_or_not() {
        let mut situation = Situation::new(vec![1, 2, 3]);
        situation.begin(&fault(1, Harm::Kill { nodes: vec![1] }));
        assert_eq!((situation.side(1), situation.side(2)), (Side::Stopped, Side::Majority));
        situation.begin(&fault(2, Harm::Pause { nodes: vec![2] }));
        assert_eq!(situation.side(3), Side::Minority);
    }

    #[test]
    fn a_link_that_two_faults_cut_is_whole_when_both_are_over() {
        let mut situation = Situation::new(vec![1, 2, 3]);
        situation.begin(&fault(1, Harm::Cut { links: vec![(1, 2), (1, 3)] }));
        situation.begin(&fault(2, Harm::Cut { links: vec![(1, 2)] }));
        situation.end(1);
        assert_eq!(situation.links().cut, BTreeSet::from([(1, 2)]));
        situation.end(2);
        assert_eq!(situation.links(), Links::default());
    }

    #[test]
    fn of_two_jumps_of_a_clock_the_later_counts_for_as_long_as_it_lasts() {
        let mut situation = Situation::new(vec![1, 2]);
        situation.begin(&fault(1, Harm::Skew { offsets_ms: vec![(1, 5)] }));
        situation.begin(&fault(2, Harm::Skew { offsets_ms: vec![(1, -7)] }));
        assert_eq!((situation.clock(1), situation.clock(2)), (-7, 0));
        situation.end(1);
        assert_eq!(situation.clock(1), -7);
        situation.end(2);
        assert_eq!(situation.clock(1), 0);
    }

    #[test]
    fn a_fault_that_cuts_and_stops_nothing_leaves_all_in_the_majority() {
        let mut situation = Situation::new(vec![1, 2, 3]);
        situation.begin(&fault(1, Harm::Lose { links: vec![(1, 2)], percent: 20 }));
        assert_eq!(situation.side(1), Side::Majority);
        assert!(!situation.is_plain(2, 1) && situation.is_plain(1, 3));
    }
}
