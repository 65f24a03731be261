//! What `--systems` names: a system that the referee can start, call, harm and look into.
//!
//! [`nodes`] runs our own nodes as child processes (each a [`node`], started by [`children`], at ports from [`ports`]) and calls them
//! through [`registry_client`]; [`mod@reference`] is a registry in this very process that cannot go wrong, to test the referee with.
//!
//! Other people's systems are in [`rival`] what they have in common: servers, each a [`process`], in their order [`etcd`], [`zookeeper`],
//! [`erlang`], and PostgreSQL, which needs a client crate of its own and stands beside; [`doors`] are nodes that are no process.
//!
//! A [`place`] is made ready for harm: links in [`netns`] and disks in [`disks`] (of the system calls in [`spaces`]), [`clocks`];
//! [`members`] come and go, and [`corruption`] changes files. [`leftovers`]
//! removes what a run left that was killed.

pub mod children;
pub mod clocks;
pub mod corruption;
pub mod disks;
pub mod doors;
pub mod erlang;
pub mod etcd;
pub mod leftovers;
mod members;
pub mod netns;
mod node;
pub mod nodes;
pub mod place;
pub mod ports;
pub mod process;
pub mod reference;
mod reference_table;
pub mod registry_client;
mod registry_watch;
pub mod rival;
mod spaces;
pub mod zookeeper;

use crate::model::ident::Mode;
use crate::referee::client::System;
use erlang::{Erlang, Registry, Setup};
use etcd::Etcd;
use nodes::{OurNodes, Setting};
pub use place::Place;
use reference::Reference;
use zookeeper::ZooKeeper;

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

/// Erlang's, as OTP sets them up by itself and otherwise.
const ERLANG: [(&str, Setup); 4] = [
    ("erlang-global", Setup { registry: Registry::Global, prevent_overlap: true, redial: false }),
    ("erlang-global-overlap", Setup { registry: Registry::Global, prevent_overlap: false, redial: false }),
    ("erlang-global-redial", Setup { registry: Registry::Global, prevent_overlap: true, redial: true }),
    ("erlang-pg", Setup { registry: Registry::Pg, prevent_overlap: true, redial: false }),
];

/// Our nodes with a flaw planted: name, mode, and what `serve --flaw` calls it.
const FLAWED: [(&str, Mode, &str); 15] = [
    ("cp-local-reads", Mode::Cp, "local-reads"),
    ("cp-ack-early", Mode::Cp, "ack-early"),
    ("ap-never-resolves", Mode::Ap, "never-resolve"),
    ("cp-loses-fsyncs", Mode::Cp, "lost-fsync"),
    ("cp-expires-early", Mode::Cp, "early-expiry"),
    ("cp-expires-late", Mode::Cp, "late-expiry"),
    ("cp-wall-clock-leases", Mode::Cp, "wall-clock-leases"),
    ("cp-no-fencing", Mode::Cp, "no-fencing"),
    ("cp-duplicate-member", Mode::Cp, "duplicate-member"),
    ("cp-drops-on-resume", Mode::Cp, "drop-on-resume"),
    ("ap-forgets-context", Mode::Ap, "forget-context"),
    ("ap-remote-wins", Mode::Ap, "remote-wins"),
    ("ap-forgets-records", Mode::Ap, "forget-records"),
    ("ap-mute-losers", Mode::Ap, "mute-losers"),
    ("ap-drops-on-resume", Mode::Ap, "drop-on-resume"),
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
    if let Some((_, setup)) = ERLANG.iter().find(|(erlang, _)| *erlang == name) {
        return Ok(Box::new(Erlang::new(name, *setup, place)));
    }
    match name {
        "reference" => Ok(Box::new(Reference)),
        "etcd" | "etcd-stale" => Ok(Box::new(Etcd::new(name, name == "etcd-stale", place))),
        "zookeeper" => Ok(Box::new(ZooKeeper::new(place))),
        "postgresql" | "postgresql-2pc" => Ok(crate::postgresql::system(name, name == "postgresql-2pc", place)),
        _ => Err(format!("{name:?} is no system; there are {}", known())),
    }
}

/// Every name that can be started, but for planted flaws, joined by commas.
fn known() -> String {
    let ours = OURS.iter().map(|(name, _, _)| *name);
    let erlang = ERLANG.iter().map(|(name, _)| *name);
    ours.chain(["etcd", "etcd-stale", "zookeeper"])
        .chain(erlang)
        .chain(["postgresql", "postgresql-2pc", "reference"])
        .collect::<Vec<_>>()
        .join(", ")
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
        for name in known().split(", ") {
            assert_eq!(named(name, &place).unwrap().name(), name);
        }
        let unknown = named("raft", &place).err().unwrap();
        assert_eq!(unknown, format!("\"raft\" is no system; there are {}", known()));
        assert!(known().starts_with("cp, ap, cp-stale, cp-leader, ap-quorum, etcd,"));
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
