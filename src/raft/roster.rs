//! Who is in the cluster, and who was removed from it: both follow from the memberships in the log, so that every replica knows the
//! same.

use std::collections::{BTreeMap, BTreeSet};

use super::types::StoredMembership;
use crate::model::ident::NodeId;

/// Nodes that were members once and are none any more. Their ids never return (protocol C12).
pub type Retired = BTreeSet<NodeId>;

/// The cluster as of one membership entry of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    pub membership: StoredMembership,
    pub retired: Retired,
}

impl Roster {
    /// The next membership in the log. Whoever is not in it any more is retired with it: no second entry that could get lost.
    pub fn follow(&mut self, next: StoredMembership) {
        let gone = self.membership.membership().nodes().map(|(id, _)| *id);
        let gone = gone.filter(|id| next.membership().get_node(id).is_none()).collect::<Vec<_>>();
        self.retired.extend(gone);
        self.membership = next;
    }

    /// Every member's peer address. Empty before the first membership.
    pub fn members(&self) -> BTreeMap<NodeId, String> {
        self.membership.membership().nodes().map(|(id, node)| (*id, node.addr.clone())).collect()
    }

    pub fn address(&self, node: NodeId) -> Option<&str> {
        self.membership.membership().get_node(&node).map(|node| node.addr.as_str())
    }

    /// All voters, of both configurations while one is being changed into another.
    pub fn voters(&self) -> BTreeSet<NodeId> {
        self.membership.membership().voter_ids().collect()
    }

    /// Whether one configuration is being changed into another.
    pub fn is_joint(&self) -> bool {
        self.membership.membership().get_joint_config().len() > 1
    }
}

#[cfg(test)]
mod tests {
    use super::super::types::{LogId, Membership};
    use super::*;
    use openraft::BasicNode;

    fn membership(at: u64, voters: &[&[NodeId]], nodes: &[NodeId]) -> StoredMembership {
        let nodes = nodes.iter().map(|id| (*id, BasicNode::new(format!("h:{id}")))).collect::<BTreeMap<_, _>>();
        let voters = voters.iter().map(|voters| voters.iter().copied().collect()).collect();
        StoredMembership::new(Some(LogId::new_term_index(1, at)), Membership::new(voters, nodes).unwrap())
    }

    #[test]
    fn who_leaves_the_membership_is_retired_and_stays_so() {
        let mut roster = Roster::default();
        roster.follow(membership(0, &[&[1, 2, 3]], &[1, 2, 3, 4]));
        assert!(roster.retired.is_empty() && !roster.is_joint());
        // Joint: node 3 still counts.
        roster.follow(membership(1, &[&[1, 2, 3], &[1, 2]], &[1, 2, 3, 4]));
        assert!(roster.retired.is_empty() && roster.is_joint());
        assert_eq!(roster.voters(), [1, 2, 3].into());
        roster.follow(membership(2, &[&[1, 2]], &[1, 2, 4]));
        assert_eq!(roster.retired, [3].into());
        roster.follow(membership(3, &[&[1, 2]], &[1, 2]));
        assert_eq!(roster.retired, [3, 4].into());
        assert_eq!(roster.members(), [(1, "h:1".to_owned()), (2, "h:2".to_owned())].into());
    }
}
