//! What `--systems` names: a system that the referee can start, call, harm and look into.
//!
//! [`nodes`] runs our own nodes as child processes (each a [`node`], started by [`children`], at ports from [`ports`]) and calls them
//! through [`registry_client`]; [`mod@reference`] is a registry in this very process that cannot go wrong, to test the referee with.
//!
//! A [`place`] is made ready for harm: links in [`netns`] and disks in [`disks`] (of the system calls in [`spaces`]), [`clocks`];
//! [`members`] come and go, and [`corruption`] changes files. [`leftovers`]
//! removes what a run left that was killed.

pub mod children;
pub mod clocks;
pub mod corruption;
pub mod disks;
pub mod leftovers;
mod members;
pub mod netns;
mod node;
pub mod nodes;
pub mod place;
pub mod ports;
pub mod reference;
mod reference_table;
pub mod registry_client;
mod spaces;

use crate::model::ident::Mode;
use crate::referee::client::System;
use nodes::{OurNodes, Setting};
pub use place::Place;
use reference::Reference;

/// Whether a program of that name is on the path.
pub fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// Our own, with what clients ask of them.
const OURS: [(&str, Mode, Setting); 5] = [
    ("cp", Mode::Cp, Setting::Usual),
    ("ap", Mode::Ap, Setting::Usual),
    ("cp-stale", Mode::Cp, Setting::StaleReads),
    ("cp-leader", Mode::Cp, Setting::LeaderReads),
    ("ap-quorum", Mode::Ap, Setting::Quorums),
];

/// Names that the command line knows and this version cannot start.
const NOT_YET: [&str; 7] =
    ["etcd", "etcd-stale", "zookeeper", "erlang-global", "erlang-pg", "postgresql", "postgresql-2pc"];

/// Our nodes with a flaw planted: name, mode, and what `serve --flaw` calls it.
const FLAWED: [(&str, Mode, &str); 4] = [
    ("cp-local-reads", Mode::Cp, "local-reads"),
    ("cp-ack-early", Mode::Cp, "ack-early"),
    ("ap-never-resolves", Mode::Ap, "never-resolve"),
    ("ap-forgets-context", Mode::Ap, "forget-context"),
];

/// The system of that name, not started yet. The error says in one line which there are.
pub fn named(name: &str, place: &Place) -> Result<Box<dyn System>, String> {
    let ours = |mode, setting, flaw| -> Box<dyn System> { Box::new(OurNodes::new(name, mode, setting, flaw, place)) };
    if let Some((_, mode, setting)) = OURS.iter().find(|(known, _, _)| *known == name) {
        return Ok(ours(*mode, *setting, None));
    }
    if let Some((_, mode, flaw)) = FLAWED.iter().filter(|_| crate::FLAWS).find(|(flawed, _, _)| *flawed == name) {
        return Ok(ours(*mode, Setting::Usual, Some(*flaw)));
    }
    match name {
        "reference" => Ok(Box::new(Reference)),
        _ if NOT_YET.contains(&name) => Err(format!("{name} is not in this version; there are {}", known())),
        _ => Err(format!("{name:?} is no system; there are {}", known())),
    }
}

/// Every name that can be started, joined by commas.
fn known() -> String {
    OURS.iter().map(|(name, _, _)| *name).chain(["reference"]).collect::<Vec<_>>().join(", ")
}

/// Whether a system is of our own making, so that its verdict decides a comparison's. The reference is a measure, not a system.
pub fn is_ours(name: &str) -> bool {
    OURS.iter().any(|(ours, _, _)| *ours == name) || FLAWED.iter().any(|(flawed, _, _)| *flawed == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::referee::client::Promises;

    #[test]
    fn every_name_of_the_command_line_is_known_or_told_to_be_missing() {
        let place = Place::new("quorate".into(), "runs".into());
        for name in OURS.map(|(name, _, _)| name).into_iter().chain(["reference"]) {
            assert_eq!(named(name, &place).unwrap().name(), name);
        }
        for name in NOT_YET {
            assert!(named(name, &place).err().unwrap().contains("not in this version"));
        }
        let unknown = named("raft", &place).err().unwrap();
        assert_eq!(unknown, "\"raft\" is no system; there are cp, ap, cp-stale, cp-leader, ap-quorum, reference");
    }

    #[test]
    fn a_planted_flaw_takes_nothing_off_what_is_promised() {
        let place = Place::new("quorate".into(), "runs".into());
        for (name, mode, _) in FLAWED {
            let honest = named(mode.as_str(), &place).unwrap();
            assert_eq!(named(name, &place).unwrap().promises(), honest.promises());
        }
    }

    #[test]
    fn who_asks_for_less_is_promised_less() {
        let place = Place::new("quorate".into(), "runs".into());
        let promises = |name: &str| named(name, &place).unwrap().promises();
        let Promises { linearizable, one_order, .. } = promises("cp-stale");
        assert!(!linearizable && one_order);
        assert_eq!(promises("cp-leader"), promises("cp"));
        assert!(promises("ap").available && !promises("ap-quorum").available);
    }
}
