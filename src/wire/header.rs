//! Names of the headers that answers carry beside their bodies.

pub const MODE: &str = "quorate-mode";
pub const NODE: &str = "quorate-node";
/// How far the answering state was.
pub const REVISION: &str = "quorate-revision";
/// `ap`: peers in reach, of those known: `2/3`.
pub const PEERS: &str = "quorate-peers";
/// Writes that asked for more than one node: how many have it, of how many asked for: `1/2`.
pub const ACKS: &str = "quorate-acks";
/// Since when this node has not heard from everyone (`ap`), resp. from the leader (`stale`), in milliseconds.
pub const STALENESS_MS: &str = "quorate-staleness-ms";

/// Parses `j/k`.
pub fn parse_share(text: &str) -> Option<(usize, usize)> {
    let (have, of) = text.split_once('/')?;
    Some((have.parse().ok()?, of.parse().ok()?))
}
