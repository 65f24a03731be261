//! The Rust client: against servers that say what they are told to, and against real nodes.

mod keeping;
mod nodes;
mod watching;
