//! What gossip's nodes say to each other: postcard, behind a version byte.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::model::ident::{LeaseId, NodeId};
use crate::model::query::Query;

use super::context::Context;
use super::hearing::Beat;
use super::map::State;
use super::operation::Operation;
use super::passing::{Answered, Asked};

const VERSION: u8 = 1;
/// Operations of one frame stay below this, in bytes of names, owners and metas.
pub const BATCH_BYTES_MAX: usize = 1 << 20;
/// A state is cut into pieces of this size, in bytes.
pub const PIECE_LEN_MAX: usize = 4 << 20;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Message {
    /// New operations of the sender's own run.
    Push { operations: Vec<Operation> },
    /// What the sender has applied, in answer to a push.
    Covered { context: Context },
    /// Anti-entropy: a hash of the sender's context. Answered only on a difference, by `Vector`.
    Compare { hash: u64 },
    /// The sender's context. `answer`: the receiver's is wanted if it covers more.
    Vector { context: Context, answer: bool },
    /// Asks for what this context lacks. `id` tells the answers apart.
    Pull { id: u64, context: Context },
    /// Operations that a pull's context lacked.
    Operations(Page),
    /// A state is being put together for a pull, which takes a while.
    Preparing { id: u64 },
    /// A piece of an encoded [`State`], because the kept log is too short.
    Piece(Piece),
    /// Passed on by the receiver from `from` to `to`, which do not get through to each other.
    Relay { from: NodeId, to: NodeId, message: Box<Message> },
    /// Keep-alives of many callers, for leases that the receiver may vouch for.
    Keep { calls: Vec<Asked> },
    /// What became of each.
    Kept { calls: Vec<Answered> },
    /// Deadlines of leases that the receiver vouches for too, in milliseconds from now. `adopt`: it is to vouch for those that it does
    /// not vouch for, for the sender is going.
    PassOn { leases: Vec<(LeaseId, u64)>, adopt: bool },
    /// The sender keeps these as long as it was told.
    PassedOn { leases: Vec<LeaseId> },
    /// Which processes the sender has heard of, and when.
    Beats { beats: Vec<Beat> },
    /// Asks how long a lease still lives that the receiver may vouch for.
    AskLeft { id: u64, lease: LeaseId },
    /// In milliseconds; none: the sender does not vouch for it.
    Left { id: u64, left_ms: Option<u64> },
    /// Asks for all that stands under the keys of a question, with the context.
    Ask { id: u64, query: Query },
    /// `upto`: keys after this one are left out; none: nothing is left out.
    Told { id: u64, state: Box<State>, upto: Option<String> },
}

/// One answer to a pull.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Page {
    /// The pull's.
    pub id: u64,
    /// All that the sender has applied.
    pub context: Context,
    pub operations: Vec<Operation>,
    /// These are not all.
    pub more: bool,
    /// When the processes that vouch were last heard of at the sender.
    pub beats: Vec<Beat>,
    /// The last stamp that the sender has given out or seen.
    pub hlc: u64,
}

/// A part of an encoded state. Pieces come in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Piece {
    /// The pull's.
    pub id: u64,
    pub number: u32,
    pub of: u32,
    pub bytes: Bytes,
    /// When the processes that vouch were last heard of at the sender.
    pub beats: Vec<Beat>,
    /// The last stamp that the sender has given out or seen.
    pub hlc: u64,
}

/// Which connection a message takes: pushes and questions never wait behind a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    Operations,
    Sync,
}

impl Message {
    pub fn lane(&self) -> Lane {
        match self {
            Message::Push { .. }
            | Message::Covered { .. }
            | Message::Keep { .. }
            | Message::Kept { .. }
            | Message::PassOn { .. }
            | Message::PassedOn { .. }
            | Message::Beats { .. }
            | Message::AskLeft { .. }
            | Message::Left { .. }
            | Message::Ask { .. }
            | Message::Told { .. } => Lane::Operations,
            Message::Relay { message, .. } => message.lane(),
            Message::Compare { .. }
            | Message::Vector { .. }
            | Message::Pull { .. }
            | Message::Operations(_)
            | Message::Preparing { .. }
            | Message::Piece(_) => Lane::Sync,
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        postcard::to_extend(self, vec![VERSION]).expect("a message always encodes")
    }

    /// None: no message of this version.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, body) = bytes.split_first()?;
        if *version != VERSION {
            return None;
        }
        let (message, rest) = postcard::take_from_bytes(body).ok()?;
        rest.is_empty().then_some(message)
    }
}

/// A state in pieces that each fit a frame, and when the processes that vouch were last heard of.
pub fn pieces(id: u64, state: &State, beats: &[Beat], hlc: u64) -> Vec<Message> {
    let bytes = Bytes::from(postcard::to_stdvec(state).expect("a state always encodes"));
    // Before anything of the state is taken in.
    let beats_of = |number| if number == 0 { beats.to_vec() } else { Vec::new() };
    let of = bytes.len().div_ceil(PIECE_LEN_MAX) as u32;
    (0..of)
        .map(|number| {
            let from = number as usize * PIECE_LEN_MAX;
            let to = bytes.len().min(from + PIECE_LEN_MAX);
            Message::Piece(Piece { id, number, of, bytes: bytes.slice(from..to), beats: beats_of(number), hlc })
        })
        .collect()
}

/// The state that these pieces, in their order, make up.
pub fn join(pieces: &[Bytes]) -> Option<State> {
    let whole = pieces.concat();
    let (state, rest) = postcard::take_from_bytes(&whole).ok()?;
    rest.is_empty().then_some(state)
}
