//! Whom a fault is to hit, as it is meant ("the leader, in the minority") and, once looked up, as ids and links.

use std::collections::BTreeSet;

use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use super::plan::Slot;
use super::schedule::{Fault, Harm, Link};
use crate::model::ident::NodeId;

/// What a link loses: enough to be felt, too little to stop it.
const LOSS_PERCENT: u8 = 20;
const DELAY_MS: u32 = 60;
/// Each lost answer leaves a call open to the end of the history.
const ANSWERS_PERCENT: u8 = 10;
/// Jepsen's jump of a clock, and what swings: both far more than any time to live here.
const JUMP_MS: i64 = 288_000;
const SWING_MS: i64 = 20_000;

/// What is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    /// Two sides, the leader on one of them.
    Halves {
        leader_in_minority: bool,
    },
    IsolateLeader,
    Ring,
    Bridge,
    /// The leader is not heard (outgoing), or does not hear.
    Oneway {
        outgoing: bool,
    },
    /// Two sides, whoever leads.
    Sides,
    CutAll,
    /// Those outside of the core, from all others.
    OutsideCut,
    /// One of those outside of the core.
    OutsideKill,
    /// A minority with the leader.
    KillMinority,
    KillAll,
    /// Of all.
    CutPower,
    PauseLeader,
    /// One node, whoever leads; different for each place.
    Victim {
        place: usize,
        pause: bool,
    },
    /// To and fro; none: one jump.
    Skew {
        swing: Option<bool>,
    },
    Lose,
    Delay,
    DropAnswers,
    /// One node is replaced: the leader or another.
    Replace {
        leader: bool,
    },
    Transfer,
    FillDisk,
    Corrupt,
}

impl Aim {
    /// Whether it matters who leads.
    pub fn wants_leader(self) -> bool {
        match self {
            Aim::Halves { .. }
            | Aim::IsolateLeader
            | Aim::Oneway { .. }
            | Aim::KillMinority
            | Aim::PauseLeader
            | Aim::Replace { .. }
            | Aim::Transfer
            | Aim::FillDisk
            | Aim::Corrupt => true,
            Aim::Ring
            | Aim::Bridge
            | Aim::Sides
            | Aim::CutAll
            | Aim::OutsideCut
            | Aim::OutsideKill
            | Aim::KillAll
            | Aim::CutPower
            | Aim::Victim { .. }
            | Aim::Skew { .. }
            | Aim::Lose
            | Aim::Delay
            | Aim::DropAnswers => false,
        }
    }
}

impl Slot {
    /// Chooses the target: the leader where it is meant, the rest by the seed.
    ///
    /// Without a known leader the seed chooses in its place.
    pub fn resolve(&self, seed: u64, nodes: &[NodeId], leader: Option<NodeId>) -> Fault {
        let mut chance = Xoshiro256PlusPlus::seed_from_u64(seed ^ self.group.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let leader = leader.filter(|leader| nodes.contains(leader));
        // Drawn even when it is not needed, so that one seed makes the same choices with and without a leader.
        let drawn = nodes[chance.random_range(0..nodes.len())];
        let mut lots = nodes.to_vec();
        lots.shuffle(&mut chance);
        let leader = leader.unwrap_or(drawn);
        let others = lots.iter().copied().filter(|node| *node != leader).collect();
        let draw = Draw { nodes, lots, leader, others, few: (nodes.len() - 1) / 2, seed: chance.random() };
        let harm = draw.harm(self.aim);
        Fault { id: self.id, group: self.group, kind: self.kind, at_ms: self.at_ms, until_ms: self.until_ms, harm }
    }
}

struct Draw<'a> {
    nodes: &'a [NodeId],
    /// In an order of chance.
    lots: Vec<NodeId>,
    leader: NodeId,
    /// All but the leader, in an order of chance.
    others: Vec<NodeId>,
    /// As many as leave a majority.
    few: usize,
    seed: u64,
}

impl Draw<'_> {
    fn harm(&self, aim: Aim) -> Harm {
        match aim {
            Aim::Halves { leader_in_minority: false } => self.apart(self.others[..self.few].to_vec()),
            Aim::Halves { leader_in_minority: true } => self.apart(self.minority_with_leader()),
            Aim::IsolateLeader => self.apart(vec![self.leader]),
            Aim::Ring => self.ring(),
            Aim::Bridge => self.bridge(),
            Aim::Oneway { outgoing } => {
                self.cut(|(from, to)| if outgoing { from == self.leader } else { to == self.leader })
            }
            Aim::Sides => self.apart(self.lots[..self.few].to_vec()),
            Aim::CutAll => self.cut(|_| true),
            Aim::OutsideCut => {
                let outside = &self.lots[..self.few];
                self.cut(|(from, to)| outside.contains(&from) || outside.contains(&to))
            }
            Aim::OutsideKill => Harm::Kill { nodes: vec![self.lots[0]] },
            Aim::KillMinority => Harm::Kill { nodes: self.minority_with_leader() },
            Aim::KillAll => Harm::Kill { nodes: self.nodes.to_vec() },
            Aim::CutPower => Harm::CutPower { nodes: self.nodes.to_vec() },
            Aim::PauseLeader => Harm::Pause { nodes: vec![self.leader] },
            Aim::Victim { place, pause } => {
                let nodes = vec![self.lots[place % self.lots.len()]];
                if pause { Harm::Pause { nodes } } else { Harm::Kill { nodes } }
            }
            Aim::Skew { swing } => self.skew(swing),
            Aim::Lose => Harm::Lose { links: self.links(|_| true), percent: LOSS_PERCENT },
            Aim::Delay => Harm::Delay { links: self.links(|_| true), ms: DELAY_MS },
            Aim::DropAnswers => Harm::DropAnswers { nodes: self.nodes.to_vec(), percent: ANSWERS_PERCENT },
            Aim::Replace { leader } => Harm::Replace { nodes: vec![if leader { self.leader } else { self.others[0] }] },
            Aim::Transfer => Harm::Transfer { to: self.others[0] },
            Aim::FillDisk => Harm::FillDisk { nodes: vec![self.others[0]] },
            Aim::Corrupt => Harm::Corrupt { nodes: vec![self.others[0]], seed: self.seed },
        }
    }

    fn minority_with_leader(&self) -> Vec<NodeId> {
        let mut nodes = self.others[..self.few - 1].to_vec();
        nodes.push(self.leader);
        nodes.sort_unstable();
        nodes
    }

    fn links(&self, wanted: impl Fn(Link) -> bool) -> Vec<Link> {
        let all = self.nodes.iter().flat_map(|from| self.nodes.iter().map(|to| (*from, *to)));
        all.filter(|link| link.0 != link.1 && wanted(*link)).collect()
    }

    fn cut(&self, wanted: impl Fn(Link) -> bool) -> Harm {
        Harm::Cut { links: self.links(wanted) }
    }

    /// These on one side, the others on the other.
    fn apart(&self, side: Vec<NodeId>) -> Harm {
        self.cut(|(from, to)| side.contains(&from) != side.contains(&to))
    }

    /// In an order of chance all stand in a ring, and each sees its nearest on both sides: as few as make a majority.
    fn ring(&self) -> Harm {
        let count = self.lots.len();
        let near = (count / 2).div_ceil(2);
        let place = |node: NodeId| self.lots.iter().position(|other| *other == node).unwrap_or_default();
        self.cut(|(from, to)| {
            let apart = place(from).abs_diff(place(to));
            apart.min(count - apart) > near
        })
    }

    fn bridge(&self) -> Harm {
        let one: BTreeSet<NodeId> = self.lots[1..].iter().take(self.lots.len() / 2).copied().collect();
        let bridge = self.lots[0];
        self.cut(|(from, to)| from != bridge && to != bridge && one.contains(&from) != one.contains(&to))
    }

    /// A minority is ahead or behind, one of the others the other way.
    fn skew(&self, swing: Option<bool>) -> Harm {
        let by = match swing {
            None => JUMP_MS,
            Some(true) => SWING_MS,
            Some(false) => -SWING_MS,
        };
        let mut offsets_ms = self.lots[..self.few].iter().map(|node| (*node, by)).collect::<Vec<_>>();
        offsets_ms.push((self.lots[self.few], -by));
        offsets_ms.sort_unstable();
        Harm::Skew { offsets_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::super::kinds::FaultKind;
    use super::super::plan::Plan;
    use super::super::situation::Situation;
    use super::*;

    const NODES: [NodeId; 5] = [1, 2, 3, 4, 5];

    fn of(aim: Aim, nodes: usize, leader: NodeId, seed: u64) -> (Fault, Situation) {
        let ids = (1..=nodes as NodeId).collect::<Vec<_>>();
        let slot = Slot { id: 1, group: 1, kind: FaultKind::Chaos, aim, at_ms: 0, until_ms: Some(1) };
        let fault = slot.resolve(seed, &ids, Some(leader));
        let mut situation = Situation::new(ids);
        situation.begin(&fault);
        (fault, situation)
    }

    /// How many each node reaches, itself included.
    fn reach(situation: &Situation) -> Vec<usize> {
        situation.nodes().iter().map(|node| situation.reach(*node).len() + 1).collect()
    }

    fn minority(situation: &Situation) -> BTreeSet<NodeId> {
        let few = |node: &NodeId| (situation.reach(*node).len() + 1) * 2 <= situation.nodes().len();
        situation.nodes().iter().copied().filter(few).collect()
    }

    #[test]
    fn the_leader_is_once_in_the_minority_and_once_in_the_majority() {
        for leader in NODES {
            let side = |leader_in_minority| minority(&of(Aim::Halves { leader_in_minority }, 5, leader, 7).1);
            assert_eq!([side(true).len(), side(false).len()], [2, 2]);
            assert!(side(true).contains(&leader) && !side(false).contains(&leader));
        }
    }

    #[test]
    fn the_same_seed_chooses_the_same_and_another_one_does_not() {
        let plan = Plan::new(&"halves".parse().unwrap(), 60, 5, 7).unwrap();
        let all = |seed: u64| plan.slots.iter().map(|slot| slot.resolve(seed, &NODES, Some(3))).collect::<Vec<_>>();
        assert_eq!(all(1), all(1));
        assert_ne!(all(1), all(2));
    }

    #[test]
    fn in_a_ring_each_reaches_a_majority_of_its_own() {
        for nodes in 4..9 {
            let (_, situation) = of(Aim::Ring, nodes, 1, 3);
            let majorities = situation.nodes().iter().map(|node| {
                let mut seen = situation.reach(*node);
                seen.insert(*node);
                assert!(seen.len() * 2 > nodes && seen.len() < nodes, "{nodes}: {seen:?}");
                seen
            });
            assert_eq!(majorities.collect::<BTreeSet<_>>().len(), nodes);
        }
    }

    #[test]
    fn over_a_bridge_one_node_sees_both_sides_which_do_not_see_each_other() {
        for nodes in [3, 5, 6] {
            let mut reach = reach(&of(Aim::Bridge, nodes, 1, 3).1);
            reach.sort_unstable();
            assert_eq!(reach.pop(), Some(nodes));
            assert!(reach.iter().all(|reached| *reached <= nodes / 2 + 1), "{reach:?}");
        }
    }

    #[test]
    fn a_link_of_one_way_is_open_the_other_way() {
        let (_, unheard) = of(Aim::Oneway { outgoing: true }, 5, 4, 1);
        assert!(unheard.heard_by(4).is_empty() && unheard.heard_by(1).contains(&4));
        let (_, deaf) = of(Aim::Oneway { outgoing: false }, 5, 4, 1);
        assert!(deaf.heard_by(4).len() == 4 && !deaf.heard_by(1).contains(&4));
    }

    #[test]
    fn a_kill_hits_the_leader_and_leaves_a_majority() {
        for nodes in [3, 4, 5, 7] {
            let Harm::Kill { nodes: killed } = of(Aim::KillMinority, nodes, 2, 1).0.harm else { panic!() };
            assert!(killed.contains(&2) && (nodes - killed.len()) * 2 > nodes);
        }
    }

    #[test]
    fn what_is_outside_of_the_core_is_cut_off_and_leaves_a_majority() {
        for nodes in [3, 5, 7] {
            for seed in 0..20 {
                let (_, situation) = of(Aim::OutsideCut, nodes, 1, seed);
                let core = situation
                    .nodes()
                    .iter()
                    .filter(|node| situation.reach(**node).len() + 1 == nodes - (nodes - 1) / 2);
                assert_eq!(core.count(), nodes - (nodes - 1) / 2);
                let (killed, _) = of(Aim::OutsideKill, nodes, 1, seed);
                assert!(situation.reach(killed.harm.stopped()[0]).is_empty());
            }
        }
    }

    #[test]
    fn the_victims_of_chaos_are_different_nodes() {
        let victim = |place| of(Aim::Victim { place, pause: false }, 5, 1, 9).0.harm.stopped()[0];
        assert_ne!(victim(0), victim(1));
    }
}
