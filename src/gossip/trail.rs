//! What operations, states and this node's view did to the grants of a map, step by step: the log keeps it beside the operation, and
//! [`tell`](super::tell) makes events of it.

use crate::model::entry::Entry;
use crate::model::ident::LeaseId;

use super::context::OpId;
use super::grants::Held;

/// One thing that was done to the grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A grant was put up. Noted only while somebody watches.
    Up(Held),
    /// A grant was taken down; as it was.
    Down(Held),
    /// The meta of a grant was changed; as it was before.
    Changed(Held),
    /// Something was done to a grant that has not come here yet.
    Early(OpId),
    /// The grant that came had been removed before.
    Stillborn,
    /// A lease ended, and with it these grants: they count nowhere any more, though some may stand until they are removed.
    LeaseEnded { lease: LeaseId, grants: Vec<Held> },
    /// The record of this loser is new.
    Recorded(OpId),
    /// Another grant is shown under a key, for this node's view has changed. Noted only while somebody watches.
    Seen { before: Option<Held>, after: Option<Entry> },
}

impl Step {
    /// The grants whose end is told with it.
    pub fn ended(&self) -> Vec<OpId> {
        match self {
            Step::Down(held) => vec![held.grant.id],
            Step::Early(grant) => vec![*grant],
            Step::LeaseEnded { grants, .. } => grants.iter().map(|held| held.grant.id).collect(),
            Step::Up(_) | Step::Changed(_) | Step::Stillborn | Step::Recorded(_) | Step::Seen { .. } => Vec::new(),
        }
    }

    /// Whether telling the operation later takes it: what can be read from the operation itself, or is of one moment, does not.
    pub fn is_kept(&self) -> bool {
        match self {
            Step::Down(_)
            | Step::Changed(_)
            | Step::Early(_)
            | Step::Stillborn
            | Step::LeaseEnded { .. }
            | Step::Recorded(_) => true,
            Step::Up(_) | Step::Seen { .. } => false,
        }
    }
}

/// The steps since they were last taken.
#[derive(Clone, Debug, Default)]
pub struct Trail {
    /// Whether somebody watches, or has watched.
    pub watched: bool,
    steps: Vec<Step>,
}

impl Trail {
    pub fn push(&mut self, step: Step) {
        self.steps.push(step);
    }

    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    pub fn take(&mut self) -> Vec<Step> {
        std::mem::take(&mut self.steps)
    }
}
