//! The seams: all that the protocols know of time, chance and the network.
//!
//! [`clock`] tells the time. [`wire`] is the bare network (the real one; a simulated one can stand in). [`frame`] is how bytes
//! are cut into messages, and the handshake. [`fault`] holds the faults in force, [`expelled`] the nodes
//! that nobody speaks to any more. [`link`] and [`datagram`] are a connection and the datagrams with these, [`links`] puts them together: one node's
//! connections to its peers, which is all that `gossip` and `raft` use. [`tls`] reads
//! certificates, [`mutual`] makes nodes show them to each other, [`seal`] does for datagrams what TLS does for
//! streams, [`strangers`] counts who was not let in. [`probe`] asks a peer for a sign of life over them, and
//! [`pace`] decides what had better go over them together.

pub mod clock;
pub mod datagram;
pub mod expelled;
pub mod fault;
pub mod frame;
pub mod link;
pub mod links;
pub mod mutual;
pub mod pace;
pub mod probe;
pub mod seal;
pub mod strangers;
pub mod tls;
pub mod wire;
