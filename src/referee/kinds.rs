//! Kinds of fault, as `--faults` names them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A kind of fault. What it comes to in a run is a [`Harm`](super::schedule::Harm), or several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// The cluster in two, the leader once on the smaller side and once on the larger one.
    Halves,
    /// The leader alone.
    IsolateLeader,
    /// Every node reaches a majority, and no two reach the same one.
    Ring,
    /// Two halves that only one node sees both of.
    Bridge,
    /// The leader is heard and does not hear, or hears and is not heard.
    Oneway,
    /// Two halves, cut and healed again and again.
    Flap,
    /// A minority, the leader among it, ends by SIGKILL and comes back on the same disk.
    Kill,
    /// All nodes end by SIGKILL at once.
    KillAll,
    /// All nodes lose their power at once, and with it whatever they had not made durable.
    PowerCut,
    /// The leader stands still for longer than its followers wait for it.
    Pause,
    /// Wall clocks jump, and swing to and fro.
    Skew,
    /// Links lose part of what they carry.
    Loss,
    /// Links are slow.
    Delay,
    /// A call is carried out, and its answer is lost.
    DropResponse,
    /// A node is removed for good, and another takes its place.
    Membership,
    /// Another node is made the leader.
    Transfer,
    /// A node's disk is full.
    DiskFull,
    /// The files of a stopped node change.
    Corrupt,
    /// Partition, kill, pause, loss and membership, overlapping.
    Chaos,
    /// Everything breaks, and no more than a majority is mended.
    CoreOnly,
}

impl FaultKind {
    pub const ALL: [FaultKind; 20] = [
        FaultKind::Halves,
        FaultKind::IsolateLeader,
        FaultKind::Ring,
        FaultKind::Bridge,
        FaultKind::Oneway,
        FaultKind::Flap,
        FaultKind::Kill,
        FaultKind::KillAll,
        FaultKind::PowerCut,
        FaultKind::Pause,
        FaultKind::Skew,
        FaultKind::Loss,
        FaultKind::Delay,
        FaultKind::DropResponse,
        FaultKind::Membership,
        FaultKind::Transfer,
        FaultKind::DiskFull,
        FaultKind::Corrupt,
        FaultKind::Chaos,
        FaultKind::CoreOnly,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            FaultKind::Halves => "halves",
            FaultKind::IsolateLeader => "isolate-leader",
            FaultKind::Ring => "ring",
            FaultKind::Bridge => "bridge",
            FaultKind::Oneway => "oneway",
            FaultKind::Flap => "flap",
            FaultKind::Kill => "kill",
            FaultKind::KillAll => "kill-all",
            FaultKind::PowerCut => "power-cut",
            FaultKind::Pause => "pause",
            FaultKind::Skew => "skew",
            FaultKind::Loss => "loss",
            FaultKind::Delay => "delay",
            FaultKind::DropResponse => "drop-response",
            FaultKind::Membership => "membership",
            FaultKind::Transfer => "transfer",
            FaultKind::DiskFull => "disk-full",
            FaultKind::Corrupt => "corrupt",
            FaultKind::Chaos => "chaos",
            FaultKind::CoreOnly => "core-only",
        }
    }

    /// The shortest time in which it can be made and felt, an election in what is left included.
    pub fn least_ms(self) -> u64 {
        match self {
            FaultKind::Flap | FaultKind::Membership | FaultKind::DiskFull | FaultKind::CoreOnly => 4_000,
            FaultKind::Chaos => 6_000,
            _ => 2_000,
        }
    }

    /// The fewest nodes that it means something for.
    pub fn least_nodes(self) -> usize {
        match self {
            // With three, each node would reach all or no majority.
            FaultKind::Ring => 4,
            _ => 3,
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
                format!("{word:?} is no fault; there are {known}, and none")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_read_back_from_its_name_on_the_command_line_and_in_a_file() {
        for kind in FaultKind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(Faults(vec![kind])));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
    }

    #[test]
    fn an_unknown_fault_is_refused_with_those_that_exist() {
        let told = "halves,flip".parse::<Faults>().unwrap_err();
        assert!(told.starts_with("\"flip\" is no fault; there are halves, isolate-leader, ring, bridge, "), "{told}");
        assert!(told.ends_with("chaos, core-only, and none"), "{told}");
        assert!("halves,halves".parse::<Faults>().is_err());
        assert!("".parse::<Faults>().is_err());
        assert_eq!("kill,halves".parse::<Faults>().unwrap().to_string(), "kill,halves");
    }
}
