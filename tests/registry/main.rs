//! The registry in one process: its model, its protocols, its links.

mod gossip;
mod lease_time;
mod net;
mod post;
mod raft_cluster;
mod raft_leases;
mod raft_members;
mod raft_pinned;
mod raft_storage;
mod table;
