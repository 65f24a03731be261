//! Quorate: a replicated registry of names and groups in two modes, gossip (`ap`) and Raft (`cp`), with its own referee.

pub mod model;

pub mod cluster;
pub mod registry;

#[cfg(feature = "server")]
pub mod net;
#[cfg(feature = "server")]
pub mod raft;
#[cfg(feature = "referee")]
pub mod referee;
