//! The registry in one process: its model, its protocols, its links.

mod gossip;
mod net;
mod post;
mod raft_cluster;
mod raft_members;
mod raft_pinned;
mod raft_storage;
mod table;
