//! What `--systems` names: a system that the referee can start, call, harm and look into.
//!
//! [`nodes`] runs our own nodes as child processes (started by [`children`], at ports from [`ports`]) and calls them through
//! [`registry_client`]; [`mod@reference`] is a registry in this very process that cannot go wrong, to test the referee with.

pub mod children;
pub mod nodes;
pub mod ports;
pub mod reference;
mod reference_table;
pub mod registry_client;

use std::path::PathBuf;

use crate::model::ident::Mode;
use crate::referee::client::{Abilities, Promises, System};
use nodes::OurNodes;
use reference::Reference;

/// What systems need of the place that they are started in.
#[derive(Clone, Debug)]
pub struct Place {
    /// The `quorate` program.
    pub program: PathBuf,
    /// Where a system keeps what it writes, below its own name. On a real disk.
    pub dir: PathBuf,
}

/// Names that the command line knows and this version cannot start.
const NOT_YET: [&str; 10] = [
    "cp-stale",
    "cp-leader",
    "ap-quorum",
    "etcd",
    "etcd-stale",
    "zookeeper",
    "erlang-global",
    "erlang-pg",
    "postgresql",
    "postgresql-2pc",
];

/// Our nodes with a flaw planted: name, mode, and what `serve --flaw` calls it.
const FLAWED: [(&str, Mode, &str); 4] = [
    ("cp-local-reads", Mode::Cp, "local-reads"),
    ("cp-ack-early", Mode::Cp, "ack-early"),
    ("ap-never-resolves", Mode::Ap, "never-resolve"),
    ("ap-forgets-context", Mode::Ap, "forget-context"),
];

/// The system of that name, not started yet. The error says in one line which there are.
pub fn named(name: &str, place: &Place) -> Result<Box<dyn System>, String> {
    let ours = |mode, flaw| -> Box<dyn System> { Box::new(OurNodes::new(name, mode, flaw, place)) };
    let flawed = FLAWED.iter().filter(|_| crate::FLAWS).find(|(flawed, _, _)| *flawed == name);
    match name {
        "cp" => Ok(ours(Mode::Cp, None)),
        "ap" => Ok(ours(Mode::Ap, None)),
        "reference" => Ok(Box::new(Reference)),
        _ if NOT_YET.contains(&name) => Err(format!("{name} is not in this version; there are cp, ap and reference")),
        _ => match flawed {
            Some((_, mode, flaw)) => Ok(ours(*mode, Some(*flaw))),
            None => Err(format!("{name:?} is no system; there are cp, ap and reference")),
        },
    }
}

/// Whether a system is of our own making, so that its verdict decides a comparison's. The reference is a measure, not a system.
pub fn is_ours(name: &str) -> bool {
    name == "cp" || name == "ap" || FLAWED.iter().any(|(flawed, _, _)| *flawed == name)
}

/// What each mode promises. A planted flaw takes nothing off it: that is what convicts.
fn promises(mode: Mode) -> Promises {
    match mode {
        Mode::Cp => Promises { linearizable: true, available: false, converges: true },
        Mode::Ap => Promises { linearizable: false, available: true, converges: true },
    }
}

/// What each mode can do. `cp` has no conflicts: nobody there loses a name but to a takeover.
fn abilities(mode: Mode) -> Abilities {
    Abilities { conflicts: mode == Mode::Ap, ..Abilities::ALL }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_the_command_line_is_known_or_told_to_be_missing() {
        let place = Place { program: "quorate".into(), dir: "runs".into() };
        for name in ["cp", "ap", "reference"] {
            assert_eq!(named(name, &place).unwrap().name(), name);
        }
        for name in NOT_YET {
            assert!(named(name, &place).err().unwrap().contains("not in this version"));
        }
        assert_eq!(named("raft", &place).err().unwrap(), "\"raft\" is no system; there are cp, ap and reference");
        for (name, mode, _) in FLAWED {
            assert_eq!(named(name, &place).unwrap().promises(), promises(mode));
        }
    }
}
