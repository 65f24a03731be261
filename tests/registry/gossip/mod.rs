//! The `ap` registry: its core in seeded simulations, and whole nodes over real links.

mod calls;
mod laws;
mod lease_runs;
mod lease_storms;
mod leases;
mod nodes;
mod runs;
mod simulation;
mod world;
