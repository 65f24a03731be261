//! How this node looks at the grants: which of them count here at present. A local view: nothing of it is ever sent.

use std::collections::{BTreeSet, HashMap};

use crate::model::ident::{LeaseId, NodeId};

use super::grants::Held;
use super::operation::Grant;
use super::rank::{Policy, Rank};

#[derive(Clone, Debug, Default)]
pub struct Lens {
    pub policy: Policy,
    /// Nodes whose grants without a lease do not count here at present.
    pub hidden: BTreeSet<NodeId>,
    pub tie_break: TieBreak,
    /// The leases that a vouch stands for, and whether one of them counts. Only looked up, never iterated.
    leases: HashMap<LeaseId, bool>,
    /// How many of these do not live here at present.
    silent: usize,
}

/// Which of several grants of one name that count is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TieBreak {
    /// The best by rank.
    #[default]
    Rank,
    /// The planted flaw: what came first here stays in sight, whoever is ranked best.
    FirstCome,
    /// The planted flaw: what was granted elsewhere is better than what this node granted.
    Remote(NodeId),
}

impl Lens {
    /// Hides nothing yet.
    pub fn new(policy: Policy, tie_break: TieBreak) -> Self {
        Self { policy, tie_break, ..Self::default() }
    }

    /// The same view of nodes, and no leases.
    pub fn without_leases(&self) -> Self {
        Self { hidden: self.hidden.clone(), leases: HashMap::new(), silent: 0, ..*self }
    }

    /// A grant with a lease counts while its lease lives, whoever wrote it; one without while its home does.
    pub fn counts(&self, grant: &Grant) -> bool {
        match &grant.lease {
            None => self.hidden.is_empty() || !self.hidden.contains(&grant.id.run.node),
            Some(lease) => self.leases.get(lease) == Some(&true),
        }
    }

    /// Whether a grant does not count now and may count again. Not so one whose lease nobody vouches for: that has ended.
    pub fn hides(&self, grant: &Grant) -> bool {
        match &grant.lease {
            None => !self.counts(grant),
            Some(lease) => self.leases.get(lease) == Some(&false),
        }
    }

    /// Whether a lease lives; none: nobody vouches for it. True if that is a change of which grants count.
    pub(super) fn set_lease(&mut self, lease: &LeaseId, lives: Option<bool>) -> bool {
        let former = match lives {
            Some(lives) => self.leases.insert(lease.clone(), lives),
            None => self.leases.remove(lease),
        };
        self.silent += usize::from(lives == Some(false));
        self.silent -= usize::from(former == Some(false));
        (former == Some(true)) != (lives == Some(true))
    }

    /// Whether there are leases that somebody vouches for and that do not live here.
    pub fn hides_leases(&self) -> bool {
        self.silent > 0
    }

    /// Whether a lease lives; none: nobody vouches for it.
    pub(super) fn lease(&self, lease: &LeaseId) -> Option<bool> {
        self.leases.get(lease).copied()
    }

    pub(super) fn best<'a>(&self, held: impl Iterator<Item = &'a Held>) -> Option<&'a Held> {
        let mut held = held;
        match self.tie_break {
            TieBreak::Rank => held.min_by_key(|held| Rank::of(self.policy, &held.grant)),
            TieBreak::FirstCome => held.next(),
            TieBreak::Remote(me) => {
                held.min_by_key(|held| (held.grant.id.run.node == me, Rank::of(self.policy, &held.grant)))
            }
        }
    }
}
