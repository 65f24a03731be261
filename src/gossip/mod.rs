//! The `ap` registry: always answers, agrees later.
//!
//! A node's state is an add-wins observed-remove [`map`] of [`grants`] and of the [`vouch`]es for leases, changed by numbered
//! [`operation`]s and described by a [`context`]: what has been applied of each process's run. [`core`] decides, and touches no clock,
//! socket or disk: [`commands`] carries out what clients want, [`sync`] talks to peers in [`message`]s (operations from the [`log`], or a
//! state), [`peers`] knows whom to count and [`lens`] what counts, [`settle`] withdraws the losers of conflicts by [`rank`] and
//! [`conflicts`] keeps their records. `keeper` has the leases that this node vouches for, [`keep_alive`] those of others, which are [passed on](passing);
//! [`hearing`] tells which vouches count, `adoption` lets one node vouch in another's place, `cleaning` removes what has ended.
//! [`view`] shows entries, [`ask`] merges several nodes' answers, [`hlc`] stamps. Around it: [`membership`] detects failures,
//! [`shell`] runs tasks and timers, [`lane`] keeps one connection, [`registry`] (with `keeping`, of leases, and `waiting`, for peers' answers) is what callers see, [`node`] starts it all.
//!
//! Those who watch are served by `watch`, which begins with a `scan` or from a `cursor`: [`tell`] makes events of what the map's [`trail`]
//! says was done.

mod adoption;
pub mod ask;
mod cleaning;
pub mod commands;
pub mod conflicts;
pub mod context;
pub mod core;
mod cursor;
pub mod grants;
pub mod hearing;
pub mod hlc;
pub mod keep_alive;
mod keeper;
mod keeping;
mod lane;
pub mod lens;
pub mod log;
pub mod map;
pub mod membership;
pub mod message;
mod node;
pub mod operation;
pub mod passing;
pub mod peers;
pub mod rank;
mod registry;
mod scan;
pub mod settle;
mod shell;
pub mod sync;
pub mod tell;
mod text;
pub mod trail;
pub mod view;
pub mod vouch;
mod waiting;
mod watch;

pub use self::core::Flaws;
pub use membership::ProbeTiming;
pub use node::{GossipConfig, GossipNode, StartError, start};
pub use rank::Policy;
pub use registry::GossipRegistry;
