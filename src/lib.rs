//! Quorate: a replicated registry of names and groups in two modes, gossip (`ap`) and Raft (`cp`), with its own referee.

pub mod model;

pub mod cluster;
pub mod registry;
pub mod wire;

#[cfg(feature = "client")]
pub mod client;

#[cfg(feature = "server")]
pub mod http;
#[cfg(feature = "server")]
pub mod net;
