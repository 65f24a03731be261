//! The Rust client: against servers that say what they are told to, and against real nodes.

mod elections;
mod keeping;
mod messaging;
mod nodes;
mod watching;
