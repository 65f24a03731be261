//! One running node: a [`config`] in, a [`node`] out.
//!
//! [`identity`] says whose data directory it is, [`restore`] makes one of a backup, [`follow`] has the node follow its cluster as
//! that changes, [`view`] puts together what the node knows of its cluster. [`locks`] are those on its doors, and [`reread`] has
//! their files read again when they change.

pub mod config;
mod follow;
pub mod identity;
pub mod locks;
#[expect(clippy::module_inception, reason = "the file is named after what it holds")]
pub mod node;
mod reread;
pub mod restore;
pub mod view;
