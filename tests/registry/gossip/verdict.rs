//! Whether a simulated cluster is, in the end, as the model says.

use std::collections::BTreeSet;

use quorate::gossip::context::OpId;
use quorate::gossip::operation::{DropReason, Operation, Reason};
use quorate::model::entry::Holder;

use super::world::World;

impl World {
    /// After a heal and a while: whether everything is as the model says.
    pub fn verdict(&self) -> Result<(), String> {
        if let Some(wrong) = self.wrong.first() {
            return Err(wrong.clone());
        }
        let first = self.nodes.values().next().expect("a node is up");
        let context = first.context();
        let known = self.made.iter().filter(|(id, _)| context.covers(**id)).map(|(_, operation)| operation);
        let mut standing = BTreeSet::new();
        let mut gone = BTreeSet::new();
        let mut losers = BTreeSet::new();
        for operation in known {
            match operation {
                Operation::Add(grant) => {
                    standing.insert(grant.id);
                    gone.extend(&grant.takes);
                }
                Operation::Remove { grants, reason, .. } => {
                    gone.extend(grants);
                    if let Reason::Conflict(_) = reason {
                        losers.extend(grants.iter().map(OpId::to_string));
                    }
                }
                Operation::Vouch(vouch) => {
                    standing.insert(vouch.id);
                }
                Operation::Drop { vouches, why, .. } => {
                    gone.extend(vouches);
                    if let DropReason::Revoked { grants } = why {
                        gone.extend(grants);
                    }
                }
                Operation::Meta { .. } | Operation::Acknowledge { .. } => {}
            }
        }
        let standing = standing.difference(&gone).copied().collect::<BTreeSet<_>>();
        let records = first.conflicts(None, 100_000);
        for (node, core) in &self.nodes {
            if core.context() != context {
                return Err(format!("node {node} has not applied what the others have"));
            }
            let snapshot = core.map().snapshot();
            let here = snapshot.fresh.iter().map(|(grant, _)| grant.id);
            let here = here.chain(snapshot.vouches.iter().map(|vouch| vouch.id)).collect::<BTreeSet<_>>();
            if let Some(back) = here.difference(&standing).next() {
                return Err(format!("node {node} shows {back}, which has ended"));
            }
            if let Some(lost) = standing.difference(&here).next() {
                return Err(format!("node {node} has lost {lost}"));
            }
            let ids = core.conflicts(None, 100_000).into_iter().map(|record| record.id.to_string()).collect::<Vec<_>>();
            if ids.iter().cloned().collect::<BTreeSet<_>>() != losers || ids.len() != losers.len() {
                return Err(format!("node {node} has {} records for {} losers", ids.len(), losers.len()));
            }
            if core.conflicts(None, 100_000) != records {
                return Err(format!("node {node} has other records"));
            }
            if core.status().digest != first.status().digest || core.status().names != first.status().names {
                return Err(format!("node {node} shows something else"));
            }
            for slot in core.map().grants.names().values() {
                let owners = slot.all().iter().map(|held| held.grant.holder.clone()).collect::<BTreeSet<Holder>>();
                if owners.len() > 1 {
                    return Err(format!("node {node}: {} owners: {owners:?}", owners.len()));
                }
            }
        }
        Ok(())
    }

    /// The verdict as a claim.
    pub fn holds(&self) {
        if let Err(wrong) = self.verdict() {
            panic!("seed {}: {wrong}", self.seed);
        }
    }
}
