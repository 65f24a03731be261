//! The registry of `cp`: one replicated table, agreed upon by Raft (openraft) and kept on disk (sled).
//!
//! A command comes in at [`registry`], goes to the leader ([`leadership`] knows who that is, [`calls`] brings it there, [`forward`] is
//! the way), and is proposed to openraft. openraft asks [`log_store`] to keep the entry: RAM at once ([`mirror`]), disk as part of a
//! group commit ([`log_io`], on a database that [`durable`] makes survive power cuts, in the layout of [`keys`] and [`pieces`], with
//! [`witness`] to find out when something is missing). [`network`] sends it to the peers, whose [`rpc`] takes it in. Once a majority has it on disk,
//! [`state_machine`] applies it and publishes the new state, and the outcome goes back. A read asks [`reads`] when this node's state is
//! new enough, and then looks at the published state. A leader keeps the time of leases: [`lease_timers`] know when each runs out,
//! [`lease_clock`] is where the state machine and keep-alives meet them, [`leases`] ends what is due, [`keep_alive`] answers
//! keep-alives, which [`gather`] makes many into few. [`snapshot`] keeps the whole table from time to time, in
//! the layout of [`content`], so that the log can be cut.
//! [`watch`] tells readers what changes, after the state as [`initial`] cuts it into pages, and what [`pulse`] says of the node itself.
//! [`roster`] is who is in the cluster, [`members`] changes that. [`backup`] puts the table into a file, [`restore`] makes a data
//! directory of one. [`node`] puts all that together, [`contact`] remembers who was heard
//! of, [`types`] tells openraft what we use, [`flaws`] are for the referee's controls.

pub mod backup;
pub mod calls;
pub mod contact;
pub mod content;
pub mod durable;
pub mod flaws;
pub mod forward;
pub mod gather;
pub mod initial;
pub mod keep_alive;
pub mod keys;
pub mod leadership;
pub mod lease_clock;
pub mod lease_timers;
pub mod leases;
pub mod log_io;
pub mod log_store;
pub mod members;
pub mod mirror;
pub mod network;
pub mod node;
pub mod pieces;
pub mod pulse;
pub mod reads;
pub mod registry;
pub mod restore;
pub mod roster;
pub mod rpc;
pub mod snapshot;
pub mod state_machine;
pub mod types;
pub mod watch;
pub mod witness;

pub use durable::StartError;
pub use flaws::{Flaws, Pace};
pub use node::{LogExtent, RaftConfig, RaftNode, RaftStatus, Timing, start};
pub use registry::RaftRegistry;
