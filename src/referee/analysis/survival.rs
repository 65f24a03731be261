//! Who surely knows of an operation that one node accepted alone: it spreads to whom it can reach, and a kill forgets.
//!
//! Protocol A8: accepted at one node survives that node's death once one live peer has confirmed it.

use std::collections::{BTreeMap, BTreeSet};

use super::faults::Faults;
use crate::model::ident::NodeId;

/// What became of an operation by some moment.
#[derive(Clone, Debug, Default)]
pub struct Spread {
    /// Who surely has it, and since when.
    pub known: BTreeMap<NodeId, u64>,
    /// When the last node that surely had it was killed: from then on it may be lost.
    pub at_risk_from: Option<u64>,
}

/// Follows an operation from its acceptance at `node` until `until`, if it passes an open link within `spread` nanoseconds.
pub fn follow(faults: &Faults, nodes: &[NodeId], node: NodeId, accepted: u64, until: u64, spread: u64) -> Spread {
    let mut moments: BTreeSet<u64> = BTreeSet::from([accepted, until]);
    for fault in faults.felt() {
        let edges = [Some(fault.begin), fault.end].into_iter().flatten().flat_map(|span| [span.from, span.to + 1]);
        moments.extend(edges.filter(|edge| (accepted..until).contains(edge)));
    }
    let mut known = BTreeMap::from([(node, accepted)]);
    let mut at_risk_from = None;
    // Since when each node has been in reach of one who knows, without a break.
    let mut reached: BTreeMap<NodeId, u64> = BTreeMap::new();
    let moments: Vec<u64> = moments.into_iter().collect();
    let kills = faults.felt().filter(|fault| fault.kills());
    let kills = kills.map(|fault| (fault.felt(faults.run_end()), fault.nodes.as_slice())).collect::<Vec<_>>();
    for pair in moments.windows(2) {
        let (from, to) = (pair[0], pair[1]);
        for (felt, nodes) in &kills {
            if felt.from <= from && from <= felt.to {
                known.retain(|node, _| !nodes.contains(node));
            }
        }
        if known.is_empty() {
            at_risk_from.get_or_insert(from);
            break;
        }
        let mut now = from;
        while let Some(next) = step(faults, nodes, &mut known, &mut reached, now, spread, from) {
            if next >= to {
                break;
            }
            now = next;
        }
    }
    Spread { known, at_risk_from }
}

/// Takes in whoever has been in reach for long enough at `now`, and says when the next one will have been.
fn step(
    faults: &Faults,
    nodes: &[NodeId],
    known: &mut BTreeMap<NodeId, u64>,
    reached: &mut BTreeMap<NodeId, u64>,
    now: u64,
    spread: u64,
    topology_at: u64,
) -> Option<u64> {
    for peer in nodes.iter().filter(|peer| !known.contains_key(peer)) {
        if known.keys().any(|holder| faults.passes(*holder, *peer, topology_at)) {
            reached.entry(*peer).or_insert(now);
        } else {
            reached.remove(peer);
        }
    }
    let ripe: Vec<NodeId> =
        reached.iter().filter(|(_, since)| **since + spread <= now).map(|(node, _)| *node).collect();
    let grew = !ripe.is_empty();
    for node in ripe {
        reached.remove(&node);
        known.insert(node, now);
    }
    if grew {
        return Some(now);
    }
    reached.values().map(|since| since + spread).min()
}
