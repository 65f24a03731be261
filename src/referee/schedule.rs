//! What a run met, as data: each fault with its times and what it did to whom, nothing left to look up. It can be read back and
//! carried out again, on any system.

use serde::{Deserialize, Serialize};

use super::kinds::FaultKind;
use crate::model::ident::NodeId;

/// A directed link: from, to.
pub type Link = (NodeId, NodeId);

/// What is done, until it is undone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Harm {
    /// Links pass nothing.
    Cut { links: Vec<Link> },
    /// Links lose so much of what they carry.
    Lose { links: Vec<Link>, percent: u8 },
    /// Links are that slow.
    Delay { links: Vec<Link>, ms: u32 },
    /// Of so many calls at these nodes the answer never reaches the client.
    DropAnswers { nodes: Vec<NodeId>, percent: u8 },
    /// SIGKILL; undone by a start on the same disk.
    Kill { nodes: Vec<NodeId> },
    /// Killed, and what was not made durable is gone from their disks; undone by a start on what is left.
    CutPower { nodes: Vec<NodeId> },
    /// SIGSTOP.
    Pause { nodes: Vec<NodeId> },
    /// By how much each wall clock is off.
    Skew { offsets_ms: Vec<(NodeId, i64)> },
    /// Killed and removed from the cluster for good; undone by a new member, with an empty disk, in its place.
    Replace { nodes: Vec<NodeId> },
    /// This node is made the leader. There is nothing to be undone.
    Transfer { to: NodeId },
    /// Disks have no room left; undone by room and a start on the same disk.
    FillDisk { nodes: Vec<NodeId> },
    /// Killed, their files changed as the seed says, and started. Undone as [`Harm::Replace`] if they do not run then.
    Corrupt { nodes: Vec<NodeId>, seed: u64 },
}

impl Harm {
    /// A word for histories.
    pub fn word(&self) -> &'static str {
        match self {
            Harm::Cut { .. } => "cut",
            Harm::Lose { .. } => "lose",
            Harm::Delay { .. } => "delay",
            Harm::DropAnswers { .. } => "drop-answers",
            Harm::Kill { .. } => "kill",
            Harm::CutPower { .. } => "cut-power",
            Harm::Pause { .. } => "pause",
            Harm::Skew { .. } => "skew",
            Harm::Replace { .. } => "replace",
            Harm::Transfer { .. } => "transfer",
            Harm::FillDisk { .. } => "fill-disk",
            Harm::Corrupt { .. } => "corrupt",
        }
    }

    /// Links that pass nothing.
    pub fn cut(&self) -> &[Link] {
        match self {
            Harm::Cut { links } => links,
            _ => &[],
        }
    }

    /// Nodes that answer nobody meanwhile.
    pub fn stopped(&self) -> &[NodeId] {
        match self {
            Harm::Kill { nodes }
            | Harm::CutPower { nodes }
            | Harm::Pause { nodes }
            | Harm::Replace { nodes }
            | Harm::FillDisk { nodes }
            | Harm::Corrupt { nodes, .. } => nodes,
            Harm::Cut { .. }
            | Harm::Lose { .. }
            | Harm::Delay { .. }
            | Harm::DropAnswers { .. }
            | Harm::Skew { .. }
            | Harm::Transfer { .. } => &[],
        }
    }

    /// Whom it is done to, where it is done to nodes.
    pub fn nodes(&self) -> Vec<NodeId> {
        match self {
            Harm::DropAnswers { nodes, .. } => nodes.clone(),
            Harm::Skew { offsets_ms } => offsets_ms.iter().map(|(node, _)| *node).collect(),
            Harm::Transfer { to } => vec![*to],
            Harm::Cut { .. } | Harm::Lose { .. } | Harm::Delay { .. } => Vec::new(),
            Harm::Kill { .. }
            | Harm::CutPower { .. }
            | Harm::Pause { .. }
            | Harm::Replace { .. }
            | Harm::FillDisk { .. }
            | Harm::Corrupt { .. } => self.stopped().to_vec(),
        }
    }

    /// Every node that it names.
    fn named(&self) -> Vec<NodeId> {
        match self {
            Harm::Cut { links } | Harm::Lose { links, .. } | Harm::Delay { links, .. } => {
                links.iter().flat_map(|(from, to)| [*from, *to]).collect()
            }
            _ => self.nodes(),
        }
    }
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    pub id: u64,
    /// The id of the first of those that belong together.
    pub group: u64,
    pub kind: FaultKind,
    /// Milliseconds since the run began.
    pub at_ms: u64,
    /// None: it lasts beyond the end of the run.
    pub until_ms: Option<u64>,
    pub harm: Harm,
}

/// What a run met: the content of `schedule.json`. Runs are comparable if theirs are equal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// Always [`FORMAT`].
    pub format: u32,
    pub seed: u64,
    pub nodes: Vec<NodeId>,
    pub length_ms: u64,
    pub faults: Vec<Fault>,
}

/// 1 had cuts, kills and pauses alone, one at a time.
pub const FORMAT: u32 = 2;

/// The longest run.
pub const LENGTH_MS_MAX: u64 = 600_000;
const PERCENT_MAX: u8 = 100;
const DELAY_MS_MAX: u32 = 10_000;

impl Schedule {
    /// Reads one that was written. The error says in one line what is wrong with it.
    pub fn read(text: &str) -> Result<Self, String> {
        let value: serde_json::Value = serde_json::from_str(text).map_err(|e| format!("it is not JSON: {e}"))?;
        match value["format"].as_u64() {
            Some(format) if format == u64::from(FORMAT) => {}
            Some(format) => return Err(format!("its format is {format}; this version reads {FORMAT}")),
            None => return Err("it is no schedule: it has no format".to_owned()),
        }
        let schedule: Self = serde_json::from_value(value).map_err(|e| format!("it is no schedule: {e}"))?;
        schedule.check()?;
        Ok(schedule)
    }

    fn check(&self) -> Result<(), String> {
        if !self.nodes.iter().copied().eq(1..=self.nodes.len() as NodeId) || self.nodes.is_empty() {
            return Err("its nodes are not 1, 2, …".to_owned());
        }
        if self.length_ms == 0 || self.length_ms > LENGTH_MS_MAX {
            return Err(format!("its length_ms is not in 1..={LENGTH_MS_MAX}"));
        }
        let mut ids = std::collections::BTreeSet::new();
        for fault in &self.faults {
            let wrong = |what: &str| Err(format!("its fault {}: {what}", fault.id));
            if !ids.insert(fault.id) {
                return wrong("the id is there twice");
            }
            if let Some(node) = fault.harm.named().into_iter().find(|node| !self.nodes.contains(node)) {
                return wrong(&format!("there is no node {node}"));
            }
            if fault.until_ms.is_some_and(|until| until < fault.at_ms) || fault.at_ms > self.length_ms {
                return wrong("it ends before it begins, or begins after the run");
            }
            match fault.harm {
                Harm::Lose { percent, .. } | Harm::DropAnswers { percent, .. } if percent > PERCENT_MAX => {
                    return wrong("percent is at most 100");
                }
                Harm::Delay { ms, .. } if ms > DELAY_MS_MAX => return wrong("ms is at most 10000"),
                _ => {}
            }
        }
        Ok(())
    }

    /// Names the schedule: equal for equal schedules, different for different ones but by an accident of 2^-64.
    pub fn hash(&self) -> String {
        // FNV-1a. Against accidents, not against forgers.
        let text = serde_json::to_vec(self).expect("numbers and fixed words are JSON");
        let hash = text.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        format!("{hash:016x}")
    }

    /// The kinds of its faults, each once.
    pub fn kinds(&self) -> Vec<FaultKind> {
        let kinds = self.faults.iter().map(|fault| fault.kind).collect::<std::collections::BTreeSet<_>>();
        kinds.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::Plan;
    use super::*;

    const NODES: [NodeId; 5] = [1, 2, 3, 4, 5];

    /// One with every kind.
    fn every_kind(leader: NodeId) -> Schedule {
        let all = super::super::kinds::Faults(FaultKind::ALL.to_vec());
        let plan = Plan::new(&all, 600, 5, 7).unwrap();
        Schedule {
            format: FORMAT,
            seed: 7,
            nodes: NODES.to_vec(),
            length_ms: plan.length_ms,
            faults: plan.slots.iter().map(|slot| slot.resolve(7, &NODES, Some(leader))).collect(),
        }
    }

    #[test]
    fn a_schedule_is_read_back_as_it_was_written_and_its_hash_tells_it_from_others() {
        let text = serde_json::to_string(&every_kind(1)).unwrap();
        assert_eq!(Schedule::read(&text).unwrap(), every_kind(1));
        assert_eq!(every_kind(1).hash(), every_kind(1).hash());
        assert_ne!(every_kind(1).hash(), every_kind(2).hash());
        assert_eq!(every_kind(1).kinds(), FaultKind::ALL);
    }

    #[test]
    fn what_is_no_schedule_is_refused_with_what_is_wrong() {
        let mut of_six = every_kind(1);
        of_six.faults[0].harm = Harm::Kill { nodes: vec![6] };
        let mut late = every_kind(1);
        late.faults[1].until_ms = Some(0);
        let json = |schedule: &Schedule| serde_json::to_string(schedule).unwrap();
        let old = json(&every_kind(1)).replace("\"format\":2", "\"format\":1");
        let cases = [
            ("{", "not JSON"),
            ("{}", "has no format"),
            (&old, "its format is 1; this version reads 2"),
            (&json(&of_six), "there is no node 6"),
            (&json(&late), "ends before it begins"),
            (
                &json(&every_kind(1)).replace("\"nodes\":[1,2,3,4,5],\"length", "\"nodes\":[1,3],\"length"),
                "not 1, 2, …",
            ),
        ];
        for (text, told) in cases {
            let error = Schedule::read(text).unwrap_err();
            assert!(error.contains(told), "{told}: {error}");
        }
    }
}
