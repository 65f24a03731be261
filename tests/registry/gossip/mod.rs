//! The `ap` registry: its core in seeded simulations, and whole nodes over real links.

mod bridge;
mod calls;
mod laws;
mod lease_runs;
mod lease_storms;
mod leases;
mod losers;
mod members;
mod nodes;
mod runs;
mod simulation;
mod verdict;
mod watchers;
mod watches;
mod world;
