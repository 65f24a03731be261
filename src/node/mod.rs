//! One running node: a [`config`] in, a [`node`] out.
//!
//! [`identity`] says whose data directory it is, [`restore`] makes one of a backup, [`follow`] has the node follow its cluster as that changes, [`view`] puts together what the node knows of its cluster.

pub mod config;
mod follow;
pub mod identity;
#[expect(clippy::module_inception, reason = "the file is named after what it holds")]
pub mod node;
pub mod restore;
pub mod view;
