//! Which links pass nothing and which nodes stand still, as the nemesis left them.

use std::collections::BTreeSet;

use super::history::Side;
use crate::model::ident::NodeId;

/// What is in force. Begins with nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Situation {
    nodes: Vec<NodeId>,
    cut: BTreeSet<(NodeId, NodeId)>,
    killed: BTreeSet<NodeId>,
    paused: BTreeSet<NodeId>,
}

impl Situation {
    pub fn new(nodes: Vec<NodeId>) -> Self {
        Self { nodes, cut: BTreeSet::new(), killed: BTreeSet::new(), paused: BTreeSet::new() }
    }

    pub fn nodes(&self) -> &[NodeId] {
        &self.nodes
    }

    pub fn cut(&self) -> Vec<(NodeId, NodeId)> {
        self.cut.iter().copied().collect()
    }

    pub fn killed(&self) -> Vec<NodeId> {
        self.killed.iter().copied().collect()
    }

    pub fn paused(&self) -> Vec<NodeId> {
        self.paused.iter().copied().collect()
    }

    pub fn add_cut(&mut self, links: &[(NodeId, NodeId)]) {
        self.cut.extend(links);
    }

    pub fn remove_cut(&mut self, links: &[(NodeId, NodeId)]) {
        self.cut.retain(|link| !links.contains(link));
    }

    pub fn set_killed(&mut self, node: NodeId, killed: bool) {
        if killed {
            self.killed.insert(node)
        } else {
            self.killed.remove(&node)
        };
    }

    pub fn set_paused(&mut self, node: NodeId, paused: bool) {
        if paused {
            self.paused.insert(node)
        } else {
            self.paused.remove(&node)
        };
    }

    /// Neither killed nor paused.
    pub fn is_up(&self, node: NodeId) -> bool {
        !self.killed.contains(&node) && !self.paused.contains(&node)
    }

    /// Whether a question and its answer pass between two nodes.
    pub fn reaches(&self, from: NodeId, to: NodeId) -> bool {
        let passes = !self.cut.contains(&(from, to)) && !self.cut.contains(&(to, from));
        self.is_up(from) && self.is_up(to) && passes
    }

    /// The peers that a node is meant to reach.
    pub fn reach(&self, node: NodeId) -> BTreeSet<NodeId> {
        self.nodes.iter().copied().filter(|peer| *peer != node && self.reaches(node, *peer)).collect()
    }

    /// The peers that a node is meant to be heard by, whether or not they are heard in turn.
    pub fn heard_by(&self, node: NodeId) -> BTreeSet<NodeId> {
        let hears = |peer: &NodeId| *peer != node && self.is_up(*peer) && !self.cut.contains(&(node, *peer));
        self.nodes.iter().copied().filter(hears).collect()
    }

    /// Where a node stands.
    pub fn side(&self, node: NodeId) -> Side {
        if !self.is_up(node) {
            Side::Stopped
        } else if self.cut.is_empty() && self.killed.is_empty() && self.paused.is_empty() {
            Side::Whole
        } else if (self.reach(node).len() + 1) * 2 > self.nodes.len() {
            Side::Majority
        } else {
            Side::Minority
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_makes_sides_and_its_end_makes_one_whole() {
        let mut situation = Situation::new(vec![1, 2, 3]);
        assert_eq!(situation.side(1), Side::Whole);
        let cut = [(1, 2), (2, 1), (1, 3), (3, 1)];
        situation.add_cut(&cut);
        assert_eq!([1, 2, 3].map(|node| situation.side(node)), [Side::Minority, Side::Majority, Side::Majority]);
        assert_eq!(situation.reach(2), BTreeSet::from([3]));
        situation.remove_cut(&cut);
        assert_eq!(situation.side(1), Side::Whole);
    }

    #[test]
    fn a_link_cut_one_way_carries_no_answers() {
        let mut situation = Situation::new(vec![1, 2, 3]);
        situation.add_cut(&[(1, 2)]);
        assert!(!situation.reaches(1, 2) && !situation.reaches(2, 1) && situation.reaches(2, 3));
    }

    #[test]
    fn stopped_nodes_leave_the_others_a_majority_or_not() {
        let mut situation = Situation::new(vec![1, 2, 3]);
        situation.set_killed(1, true);
        assert_eq!((situation.side(1), situation.side(2)), (Side::Stopped, Side::Majority));
        situation.set_paused(2, true);
        assert_eq!(situation.side(3), Side::Minority);
    }
}
