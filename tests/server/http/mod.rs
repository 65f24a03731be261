//! The HTTP API on a real socket, before registries that live in memory.

mod api;
mod arbitrary;
mod deadlines;
mod door;
mod raw;
mod round_trip;
mod scripts;
mod support;
