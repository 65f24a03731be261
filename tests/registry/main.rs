//! The registries in process: model, raft, gossip, and the net under them.

mod raft_cluster;
