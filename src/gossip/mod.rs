//! The `ap` registry: always answers, agrees later.

pub mod ask;
pub mod commands;
pub mod conflicts;
pub mod context;
pub mod core;
pub mod grants;
pub mod hlc;
pub mod log;
pub mod map;
pub mod message;
pub mod operation;
pub mod peers;
pub mod rank;
pub mod settle;
pub mod sync;
mod text;
pub mod view;
