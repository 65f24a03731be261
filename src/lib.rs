//! Quorate: a replicated registry of names and groups in two modes, gossip (`ap`) and Raft (`cp`), with its own referee.

/// Whether this build can plant flaws for the referee to find: in tests alone.
pub const FLAWS: bool = cfg!(feature = "flaws");

pub mod model;

pub mod cluster;
pub mod feed;
pub mod messages;
pub mod registry;
pub mod wire;

#[cfg(feature = "client")]
pub mod client;

#[cfg(feature = "server")]
pub mod gossip;
#[cfg(feature = "server")]
pub mod http;
#[cfg(feature = "server")]
pub mod net;
#[cfg(feature = "server")]
pub mod node;
#[cfg(feature = "server")]
pub mod post;
#[cfg(feature = "server")]
pub mod raft;

#[cfg(feature = "referee")]
pub mod cli;
#[cfg(feature = "referee")]
pub mod referee;

/// A system of `systems` that is called by a crate of its own.
#[cfg(feature = "rivals")]
#[path = "systems/postgresql/mod.rs"]
pub mod postgresql;
#[cfg(all(feature = "referee", not(feature = "rivals")))]
#[path = "systems/no_rivals.rs"]
pub mod postgresql;
#[cfg(feature = "referee")]
pub mod systems;
