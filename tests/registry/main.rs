//! The registry in one process: its model, its protocols, its links.

mod asking;
#[path = "../server/certificates.rs"]
mod certificates;
mod decoders;
mod gossip;
mod lease_time;
mod locked_links;
mod net;
mod post;
mod raft_batch;
mod raft_cluster;
mod raft_leases;
mod raft_long;
mod raft_members;
mod raft_pinned;
mod raft_reads;
mod raft_runs;
mod raft_snapshots;
mod raft_storage;
mod raft_watch;
mod raft_watch_cluster;
#[path = "../server/http/reference.rs"]
mod reference;
mod restored;
mod table;
