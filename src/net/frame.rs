//! How bytes become messages: length, CRC32C, payload; and the handshake that opens every connection.

use std::io;

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::model::ident::NodeId;

/// The longest payload of a frame. A longer length is taken for garbage before anything is allocated. The longest that is ever sent
/// is the answer to a batch whose every command was refused and is told of an entry with the longest meta.
pub const FRAME_LEN_MAX: usize = 32 * 1024 * 1024;
/// The longest handshake: read before the peer is known, so nothing large is accepted.
pub const HELLO_LEN_MAX: usize = 1024;
/// Version of everything that nodes say to each other.
pub const PROTOCOL_VERSION: u16 = 1;

const HEADER_LEN: usize = 8;
const MAGIC: [u8; 4] = *b"QRT1";

/// Appends one frame to `out`.
pub fn encode(payload: &[u8], out: &mut BytesMut) {
    assert!(payload.len() <= FRAME_LEN_MAX, "a frame of {} bytes", payload.len());
    out.reserve(HEADER_LEN + payload.len());
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c(payload).to_le_bytes());
    out.extend_from_slice(payload);
}

/// Reads one frame's payload of at most `max` bytes. Memory is taken as bytes arrive, never on the word of a length.
pub async fn read(reader: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut, max: usize) -> io::Result<Bytes> {
    fill(reader, buffer, HEADER_LEN).await?;
    let len = u32::from_le_bytes(buffer[0..4].try_into().expect("four bytes")) as usize;
    let crc = u32::from_le_bytes(buffer[4..8].try_into().expect("four bytes"));
    if len > max {
        return Err(invalid(format!("a frame of {len} bytes; at most {max} are allowed")));
    }
    fill(reader, buffer, HEADER_LEN + len).await?;
    let mut frame = buffer.split_to(HEADER_LEN + len);
    let payload = frame.split_off(HEADER_LEN).freeze();
    if crc32c::crc32c(&payload) != crc {
        return Err(invalid("a frame's checksum does not fit its bytes".to_owned()));
    }
    Ok(payload)
}

async fn fill(reader: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut, len: usize) -> io::Result<()> {
    while buffer.len() < len {
        if buffer.capacity() - buffer.len() == 0 {
            buffer.reserve(64 * 1024);
        }
        if reader.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

fn invalid(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Who a node says it is. Two nodes talk only if they agree on version, cluster and policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub cluster: String,
    pub node: NodeId,
    /// One process's life: drawn at random when it begins.
    pub run: u64,
    /// How `ap` conflicts are decided: a constant of the cluster.
    pub policy: String,
}

/// What a connection is for. Each has its own, so that none waits behind another's bulk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Purpose {
    Replication,
    Heartbeat,
    /// Votes, pre-votes, leader transfer.
    Election,
    /// Commands, questions and read indexes passed on to the leader.
    Forward,
    Snapshot,
    /// Operations of `ap`, pushed as they happen.
    Operations,
    /// What an `ap` peer lacks: comparison of contexts, operations, state.
    Sync,
    /// Messages to names and groups.
    Messages,
    Probe,
}

/// The first frame on a connection, from the one who dialled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    magic: [u8; 4],
    pub version: u16,
    pub from: Identity,
    pub to: NodeId,
    pub purpose: Purpose,
    pub about: About,
}

/// What a node says of itself beside who it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Drawn at random when its data directory was made: a node that comes back with another one has lost what it had promised.
    pub disk: u64,
    /// Where its clients reach it; empty if it has not said.
    pub http: String,
}

/// The frame that answers a [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Welcome {
    Accepted {
        run: u64,
        about: About,
    },
    /// One line for the operator of the other node.
    Refused {
        why: String,
        /// The other node was removed from this cluster for good: it need not try again.
        removed: bool,
    },
}

impl Hello {
    pub fn new(from: Identity, to: NodeId, purpose: Purpose, about: About) -> Self {
        Self { magic: MAGIC, version: PROTOCOL_VERSION, from, to, purpose, about }
    }

    /// Why this node (`me`) does not talk to the sender, if it does not.
    pub fn refusal(&self, me: &Identity) -> Option<String> {
        let them = self.from.node;
        if self.magic != MAGIC {
            return Some("this is not a Quorate node's handshake".to_owned());
        }
        if self.version != PROTOCOL_VERSION {
            let (v, w) = (self.version, PROTOCOL_VERSION);
            return Some(format!(
                "node {them} speaks protocol version {v}, node {} speaks {w}: run the same release",
                me.node
            ));
        }
        if self.from.cluster != me.cluster {
            let (c, d) = (&self.from.cluster, &me.cluster);
            return Some(format!(
                "node {them} belongs to cluster {c}, node {} to cluster {d}: check the peer addresses",
                me.node
            ));
        }
        if self.to != me.node {
            return Some(format!(
                "node {them} took this address for node {}'s, but node {} listens here",
                self.to, me.node
            ));
        }
        if self.from.node == me.node {
            return Some(format!("node {them} has dialled a node with its own id: ids have to be unique"));
        }
        if self.from.policy != me.policy {
            let (p, q) = (&self.from.policy, &me.policy);
            return Some(format!(
                "node {them} decides conflicts by {p}, node {} by {q}: start all nodes with the same --conflicts",
                me.node
            ));
        }
        None
    }
}

/// Encodes what a handshake sends.
pub fn to_payload<T: Serialize>(message: &T) -> Vec<u8> {
    postcard::to_allocvec(message).expect("handshakes are plain data")
}

/// Decodes what a handshake received.
pub fn from_payload<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> io::Result<T> {
    postcard::from_bytes(payload).map_err(|e| invalid(format!("an unreadable handshake: {e}")))
}
