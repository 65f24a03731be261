//! The HTTP API on a real socket, before registries that live in memory.

mod api;
mod arbitrary;
mod batch;
mod deadlines;
mod door;
mod failing;
mod leases;
mod messages;
mod promises;
mod raw;
mod reference;
mod rights;
mod round_trip;
mod scripts;
pub mod stream;
pub mod support;
mod watch;
