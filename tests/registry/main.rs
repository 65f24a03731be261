//! The registry in one process: its model, its protocols, its links.

mod net;
mod raft_cluster;
mod table;
mod raft_storage;
