//! The registry as one machine would keep it: pure, total, deterministic.
//!
//! [`ident`] holds the words that are parsed once, at the door; [`command`] what changes
//! the registry and [`query`] what asks of it; [`outcome`] what they return; [`entry`] what stands
//! under a name or membership, [`lease`] what it may end with, [`conflict`] who lost it to whom; [`event`] what a watcher is told
//! of all that; [`step`] is what one entry of the replicated log holds; [`table`] applies steps, the same on every replica.
//! Nothing here reads a clock, draws a random number or does I/O.

pub mod command;
pub mod conflict;
pub mod entry;
pub mod event;
pub mod ident;
pub mod lease;
pub mod outcome;
pub mod query;
pub mod step;
pub mod table;
pub mod time;
