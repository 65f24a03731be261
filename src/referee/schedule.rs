//! Faults as data. A [`Plan`] says when which kind of fault comes and whom it is to hit ("the leader, in the minority"). As each
//! fault of the first system's run fires, its target is looked up and becomes a [`Fault`] of the [`Schedule`]: node ids and links.
//! Every other system then meets that very schedule, for "the leader" means nothing in a registry that has none.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::model::ident::NodeId;

/// The shortest run that has room for a fault and what comes before and after.
pub const SECONDS_MIN: u64 = 8;
/// The shortest fault: long enough for an election in what is left.
const FAULT_MS_MIN: u64 = 2_000;
/// Further rounds of faults are added to a long run as long as each fault may last this long.
const FAULT_MS_GOOD: u64 = 4_000;
/// The fewest nodes that a fault can hit and leave a majority.
const NODES_MIN: usize = 3;

/// A kind of fault, as `--faults` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// The cluster in two, the leader once on the smaller side and once on the larger one.
    Halves,
    /// The leader alone.
    IsolateLeader,
    /// A minority, the leader among it, ends by SIGKILL and comes back on the same disk.
    Kill,
    /// The leader stands still for longer than its followers wait for it.
    Pause,
}

impl FaultKind {
    const ALL: [FaultKind; 4] = [FaultKind::Halves, FaultKind::IsolateLeader, FaultKind::Kill, FaultKind::Pause];

    pub fn as_str(self) -> &'static str {
        match self {
            FaultKind::Halves => "halves",
            FaultKind::IsolateLeader => "isolate-leader",
            FaultKind::Kill => "kill",
            FaultKind::Pause => "pause",
        }
    }

    /// Whether it cuts links.
    pub fn cuts(self) -> bool {
        match self {
            FaultKind::Halves | FaultKind::IsolateLeader => true,
            FaultKind::Kill | FaultKind::Pause => false,
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The kinds of fault that a run is to have, as `--faults` gives them: names joined by commas; `none` alone means none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(pub Vec<FaultKind>);

impl FromStr for Faults {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self(Vec::new()));
        }
        let mut kinds = Vec::new();
        for word in text.split(',').map(str::trim) {
            let kind = FaultKind::ALL.into_iter().find(|kind| kind.as_str() == word);
            let kind = kind.ok_or_else(|| {
                let known = FaultKind::ALL.map(FaultKind::as_str).join(", ");
                format!("{word:?} is no fault of this version; there are {known}, and none")
            })?;
            if kinds.contains(&kind) {
                return Err(format!("{kind} is given twice"));
            }
            kinds.push(kind);
        }
        Ok(Self(kinds))
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        f.write_str(&self.0.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(","))
    }
}

/// When which kind of fault comes. The same arguments give the same plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub seed: u64,
    pub nodes: usize,
    /// How long the run lasts, from the first call to the last.
    pub length_ms: u64,
    pub slots: Vec<Slot>,
}

/// A fault whose target is not known yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// 1, 2, …
    pub id: u64,
    pub kind: FaultKind,
    /// Milliseconds since the run began.
    pub at_ms: u64,
    pub until_ms: u64,
    /// Of `halves` alone: the side on which the leader is to be.
    pub leader_in_minority: bool,
}

impl Plan {
    /// Lays the faults out over a run. The error says in one line what would do.
    pub fn new(faults: &Faults, seconds: u64, nodes: usize, seed: u64) -> Result<Self, String> {
        if seconds < SECONDS_MIN {
            return Err(format!("a run lasts at least {SECONDS_MIN} s"));
        }
        let plan = |slots| Self { seed, nodes, length_ms: seconds * 1_000, slots };
        if faults.0.is_empty() {
            return Ok(plan(Vec::new()));
        }
        if nodes < NODES_MIN {
            return Err(format!("faults need at least {NODES_MIN} nodes, or no majority is ever left"));
        }
        let least =
            if faults.0.len() == 1 { 2 } else { faults.0.len() + usize::from(faults.0.contains(&FaultKind::Halves)) };
        if Timing::of(seconds, least).fault_ms < FAULT_MS_MIN {
            let enough = (seconds..).find(|s| Timing::of(*s, least).fault_ms >= FAULT_MS_MIN).unwrap_or(seconds);
            return Err(format!(
                "{least} faults ({faults}) take at least {enough} s per system; {seconds} s do not suffice"
            ));
        }
        let count = (least..).take_while(|n| *n == least || Timing::of(seconds, *n).fault_ms >= FAULT_MS_GOOD).last();
        let count = count.unwrap_or(least);
        Ok(plan(slots(faults, Timing::of(seconds, count), count)))
    }
}

/// The kinds take turns; those of `halves` alternate the leader's side.
fn slots(faults: &Faults, timing: Timing, count: usize) -> Vec<Slot> {
    // Once around, then what is left of the second round begins with `halves`, which must come twice.
    let mut order = faults.0.clone();
    order.sort_by_key(|kind| *kind != FaultKind::Halves);
    let turns = faults.0.iter().chain(order.iter().cycle()).take(count);
    let mut halves = 0;
    turns
        .enumerate()
        .map(|(i, kind)| {
            halves += u64::from(*kind == FaultKind::Halves);
            let at_ms = timing.calm_ms + i as u64 * (timing.fault_ms + timing.gap_ms);
            Slot {
                id: i as u64 + 1,
                kind: *kind,
                at_ms,
                until_ms: at_ms + timing.fault_ms,
                leader_in_minority: *kind == FaultKind::Halves && halves % 2 == 1,
            }
        })
        .collect()
}

/// How a run is divided: calm, fault, gap, fault, …, rest.
#[derive(Clone, Copy, Debug)]
struct Timing {
    calm_ms: u64,
    fault_ms: u64,
    gap_ms: u64,
}

impl Timing {
    /// 20 s and two faults: 2.5 calm, 4.5 fault, 3 healed, 4.5 fault, 5.5 healed.
    fn of(seconds: u64, faults: usize) -> Self {
        let length = seconds * 1_000;
        let beyond = (length - SECONDS_MIN * 1_000).min(12_000);
        let calm_ms = 800 + beyond * 1_700 / 12_000;
        let rest_ms = 1_800 + beyond * 3_700 / 12_000;
        let middle = length - calm_ms - rest_ms;
        // A gap is two thirds of a fault, and there is one gap fewer than faults.
        let fault_ms = 3 * middle / (5 * faults as u64 - 2);
        Self { calm_ms, fault_ms, gap_ms: fault_ms * 2 / 3 }
    }
}

impl Slot {
    /// Chooses the target: the leader where the kind asks for one, the rest by the seed.
    ///
    /// Without a known leader the seed chooses in its place.
    pub fn resolve(&self, seed: u64, nodes: &[NodeId], leader: Option<NodeId>) -> Fault {
        let mut chance = Xoshiro256PlusPlus::seed_from_u64(seed ^ self.id.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let leader = leader.filter(|leader| nodes.contains(leader));
        // Drawn even when it is not needed, so that one seed makes the same choices with and without a leader.
        let drawn = nodes[chance.random_range(0..nodes.len())];
        let leader = leader.unwrap_or(drawn);
        let mut others = nodes.iter().copied().filter(|node| *node != leader).collect::<Vec<_>>();
        others.shuffle(&mut chance);
        let few = (nodes.len() - 1) / 2;
        let minority: BTreeSet<NodeId> = match self.kind {
            FaultKind::Halves if !self.leader_in_minority => others.into_iter().take(few).collect(),
            FaultKind::Halves | FaultKind::Kill => others.into_iter().take(few - 1).chain([leader]).collect(),
            FaultKind::IsolateLeader | FaultKind::Pause => BTreeSet::from([leader]),
        };
        let mut fault = Fault {
            id: self.id,
            kind: self.kind,
            at_ms: self.at_ms,
            until_ms: self.until_ms,
            cut: Vec::new(),
            nodes: Vec::new(),
        };
        if self.kind.cuts() {
            let apart = |(from, to): &(NodeId, NodeId)| minority.contains(from) != minority.contains(to);
            fault.cut = nodes.iter().flat_map(|from| nodes.iter().map(|to| (*from, *to))).filter(apart).collect();
        } else {
            fault.nodes = minority.into_iter().collect();
        }
        fault
    }
}

/// One fault, with nothing left to look up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    pub id: u64,
    pub kind: FaultKind,
    /// Milliseconds since the run began.
    pub at_ms: u64,
    pub until_ms: u64,
    /// Directed links that pass nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cut: Vec<(NodeId, NodeId)>,
    /// Nodes killed or paused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeId>,
}

/// What a run met: the content of `schedule.json`. Runs are comparable if theirs are equal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// Always 1.
    pub format: u32,
    pub seed: u64,
    pub nodes: Vec<NodeId>,
    pub length_ms: u64,
    pub faults: Vec<Fault>,
}

impl Schedule {
    /// Names the schedule: equal for equal schedules, different for different ones but by an accident of 2^-64.
    pub fn hash(&self) -> String {
        // FNV-1a. Against accidents, not against forgers.
        let text = serde_json::to_vec(self).expect("numbers and fixed words are JSON");
        let hash = text.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        format!("{hash:016x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: [NodeId; 5] = [1, 2, 3, 4, 5];

    fn faults(text: &str) -> Faults {
        text.parse().unwrap()
    }

    fn minority(fault: &Fault) -> BTreeSet<NodeId> {
        let reaches = |node: NodeId| NODES.iter().filter(|to| !fault.cut.contains(&(node, **to))).count();
        NODES.into_iter().filter(|node| reaches(*node) < 3).collect()
    }

    #[test]
    fn the_usual_run_has_two_cuts_between_calm_and_rest() {
        let plan = Plan::new(&faults("halves"), 20, 5, 7).unwrap();
        let times = plan.slots.iter().map(|slot| (slot.at_ms, slot.until_ms)).collect::<Vec<_>>();
        assert_eq!(times, [(2_500, 7_000), (10_000, 14_500)]);
    }

    #[test]
    fn the_leader_is_once_in_the_minority_and_once_in_the_majority() {
        let plan = Plan::new(&faults("halves"), 20, 5, 7).unwrap();
        for leader in NODES {
            let sides = plan.slots.iter().map(|slot| minority(&slot.resolve(plan.seed, &NODES, Some(leader))));
            let sides = sides.collect::<Vec<_>>();
            assert!(sides.iter().all(|side| side.len() == 2), "{sides:?}");
            assert!(sides[0].contains(&leader) && !sides[1].contains(&leader), "{sides:?}");
        }
    }

    #[test]
    fn the_same_seed_chooses_the_same_and_another_one_does_not() {
        let plan = Plan::new(&faults("halves"), 60, 5, 7).unwrap();
        let all = |seed: u64| plan.slots.iter().map(|slot| slot.resolve(seed, &NODES, Some(3))).collect::<Vec<_>>();
        assert_eq!(all(1), all(1));
        assert_ne!(all(1), all(2));
    }

    #[test]
    fn a_kill_hits_the_leader_and_leaves_a_majority() {
        for nodes in [3, 4, 5, 7] {
            let ids = (1..=nodes).collect::<Vec<_>>();
            let slot = Plan::new(&faults("kill"), 20, ids.len(), 1).unwrap().slots[0];
            let fault = slot.resolve(1, &ids, Some(2));
            assert!(fault.nodes.contains(&2) && fault.cut.is_empty());
            assert!((ids.len() - fault.nodes.len()) * 2 > ids.len());
        }
    }

    #[test]
    fn an_isolated_leader_has_no_link_left() {
        let slot = Plan::new(&faults("isolate-leader"), 20, 5, 1).unwrap().slots[0];
        let fault = slot.resolve(1, &NODES, Some(4));
        assert_eq!(fault.cut.len(), 8);
        assert!(fault.cut.iter().all(|(from, to)| (*from == 4) != (*to == 4)));
    }

    #[test]
    fn several_kinds_take_turns_and_never_overlap() {
        let plan = Plan::new(&faults("pause,halves,kill,isolate-leader"), 30, 5, 1).unwrap();
        let kinds = plan.slots.iter().map(|slot| slot.kind).collect::<Vec<_>>();
        assert_eq!(&kinds[..4], faults("pause,halves,kill,isolate-leader").0);
        assert_eq!(kinds[4], FaultKind::Halves);
        for pair in plan.slots.windows(2) {
            assert!(pair[0].until_ms < pair[1].at_ms);
        }
        let halves = plan.slots.iter().filter(|slot| slot.kind == FaultKind::Halves).collect::<Vec<_>>();
        assert!(halves[0].leader_in_minority && !halves[1].leader_in_minority);
        assert!(plan.slots.iter().all(|slot| slot.until_ms - slot.at_ms >= FAULT_MS_MIN));
    }

    #[test]
    fn every_length_from_the_shortest_on_ends_after_its_last_fault() {
        for seconds in SECONDS_MIN..200 {
            let plan = Plan::new(&faults("halves"), seconds, 5, 1).unwrap();
            assert!(plan.slots.len() >= 2);
            assert!(plan.slots.last().unwrap().until_ms + 1_500 < plan.length_ms, "{seconds}: {plan:?}");
        }
    }

    #[test]
    fn too_little_time_or_too_few_nodes_are_told_with_what_would_do() {
        let told = Plan::new(&faults("halves,kill,pause,isolate-leader"), 12, 5, 1).unwrap_err();
        assert!(told.contains("take at least 24 s per system; 12 s do not suffice"), "{told}");
        assert!(Plan::new(&faults("halves"), 7, 5, 1).unwrap_err().contains("at least 8 s"));
        assert!(Plan::new(&faults("halves"), 20, 2, 1).unwrap_err().contains("at least 3 nodes"));
        assert!(Plan::new(&faults("none"), 20, 1, 1).unwrap().slots.is_empty());
    }

    #[test]
    fn an_unknown_fault_is_refused_with_those_that_exist() {
        let told = "halves,flap".parse::<Faults>().unwrap_err();
        assert_eq!(
            told,
            "\"flap\" is no fault of this version; there are halves, isolate-leader, kill, pause, and none"
        );
        assert!("halves,halves".parse::<Faults>().is_err());
        assert!("".parse::<Faults>().is_err());
        assert_eq!(faults("kill,halves").to_string(), "kill,halves");
    }

    #[test]
    fn a_schedule_is_read_back_as_it_was_written_and_its_hash_tells_it_from_others() {
        let plan = Plan::new(&faults("halves,kill"), 20, 5, 7).unwrap();
        let of = |leader| Schedule {
            format: 1,
            seed: 7,
            nodes: NODES.to_vec(),
            length_ms: plan.length_ms,
            faults: plan.slots.iter().map(|slot| slot.resolve(7, &NODES, Some(leader))).collect(),
        };
        let text = serde_json::to_string(&of(1)).unwrap();
        assert_eq!(serde_json::from_str::<Schedule>(&text).unwrap(), of(1));
        assert_eq!(of(1).hash(), of(1).hash());
        assert_ne!(of(1).hash(), of(2).hash());
    }
}
