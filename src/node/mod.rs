//! One running node: a [`config`] in, a node out.
//!
//! [`identity`] says whose data directory it is.

pub mod config;
pub mod identity;
