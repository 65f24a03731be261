//! The registry in one process: its model, its protocols, its links.

#[path = "../server/certificates.rs"]
mod certificates;
mod gossip;
mod lease_time;
mod locked_links;
mod net;
mod post;
mod raft_cluster;
mod raft_leases;
mod raft_members;
mod raft_pinned;
mod raft_storage;
mod table;
