//! Sealed datagrams: nobody without the cluster's key can make one, change one, or send one a second time.
//!
//! Each is sealed with ChaCha20-Poly1305 under a key of its own for the two *lives* that speak: derived (HKDF-SHA256) from the
//! cluster's key, the cluster's id, and node and run of sender and receiver. The nonce is the sender's counter, which counts
//! all datagrams of its run and is never set back, so that no nonce is used twice under one key; a run is drawn anew, 64 random
//! bits, when a process begins.
//!
//! Why nothing can be replayed: the receiver keeps, for each life of a peer that it listens to, which counters it has seen. A
//! life is listened to only once a handshake over TCP, inside mutual TLS, has named it, and a handshake is not replayed. A
//! datagram to an earlier life of the *receiver*, whose windows are gone with it, does not open, for that life's run went
//! into its key. And one from an earlier life of the *sender* either meets that life's own window or is not listened to any more:
//! two lives of each peer are kept, for a handshake of a process that has just died may be read after its successor's.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};

use super::frame::Identity;
use crate::model::ident::NodeId;

/// What sealing adds to a datagram: the counter before the payload, the tag behind it.
const COUNTER_LEN: usize = 8;
const TAG_LEN: usize = 16;
const KEY_LEN: usize = 32;
/// Lives of one peer that are listened to at once.
const LIVES: usize = 2;

/// The cluster's key; two while it is being changed. The first seals, all open.
pub struct ClusterKeys(Vec<[u8; KEY_LEN]>);

/// Why a text holds no cluster key. It never says what stands there.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClusterKeysError {
    #[error("line {line}: no key; 32 random bytes in hexadecimal or base64 are wanted (openssl rand -hex 32)")]
    Malformed { line: usize },
    #[error("no key in it; a line of 32 random bytes in hexadecimal or base64 is wanted (openssl rand -hex 32)")]
    Empty,
    #[error("more than two keys: the one to seal with and the one that it takes the place of are enough")]
    TooMany,
}

impl ClusterKeys {
    /// Reads the file's text: a key a line; empty lines and those that begin with `#` are skipped.
    pub fn parse(text: &str) -> Result<Self, ClusterKeysError> {
        let mut keys = Vec::new();
        for (line, text) in text.lines().enumerate().map(|(at, text)| (at + 1, text.trim())) {
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).or_else(|_| BASE64.decode(text.as_bytes()));
            let key = bytes.ok().and_then(|bytes| bytes.try_into().ok());
            keys.push(key.ok_or(ClusterKeysError::Malformed { line })?);
        }
        match keys.len() {
            0 => Err(ClusterKeysError::Empty),
            1 | 2 => Ok(Self(keys)),
            _ => Err(ClusterKeysError::TooMany),
        }
    }
}

/// What a whole test of the protection is worth is seen without it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flaws {
    pub accept_replays: bool,
}

/// Why a datagram is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unopened {
    /// Forged, torn, for another life of this node, or from one of its peer's that no handshake has named.
    Strange,
    /// Seen before, or too old to tell.
    Replayed,
}

/// One node's seals.
pub(super) struct Seals {
    me: Identity,
    keys: Arc<ArcSwap<ClusterKeys>>,
    sent: AtomicU64,
    peers: Mutex<BTreeMap<NodeId, Peer>>,
    flaws: Flaws,
}

#[derive(Default)]
struct Peer {
    /// Named last first.
    lives: VecDeque<Life>,
    /// The run that spoke or was named last: what goes to the peer is sealed for it.
    speaks: u64,
}

/// One run of a peer's.
struct Life {
    run: u64,
    derived: Derived,
    window: Window,
}

/// The keys between two lives.
struct Derived {
    from: Arc<ClusterKeys>,
    seal: LessSafeKey,
    open: Vec<LessSafeKey>,
}

impl Seals {
    pub(super) fn new(me: Identity, keys: Arc<ArcSwap<ClusterKeys>>, flaws: Flaws) -> Self {
        Self { me, keys, sent: AtomicU64::new(0), peers: Mutex::default(), flaws }
    }

    /// A handshake has just told which run of the peer it came from.
    pub(super) fn named(&self, peer: NodeId, run: u64) {
        let mut peers = self.peers.lock().expect("no panic while held");
        let Peer { lives, speaks } = peers.entry(peer).or_default();
        let life = match lives.iter().position(|life| life.run == run) {
            Some(at) => lives.remove(at).expect("just found"),
            None => {
                let derived = Derived::new(&self.me, (peer, run), self.keys.load_full());
                Life { run, derived, window: Window::default() }
            }
        };
        lives.push_front(life);
        lives.truncate(LIVES);
        *speaks = run;
    }

    /// Appends counter, sealed payload and tag to a datagram's head. `NotConnected`: no handshake with that peer yet.
    pub(super) fn seal(&self, to: NodeId, payload: &[u8], datagram: &mut Vec<u8>) -> io::Result<()> {
        let mut peers = self.peers.lock().expect("no panic while held");
        let life = peers.get_mut(&to).and_then(|peer| peer.lives.iter_mut().find(|life| life.run == peer.speaks));
        let life = life.ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "no handshake with it yet"))?;
        let key = &life.derived.current(&self.me, (to, life.run), &self.keys).seal;
        let counter = self.sent.fetch_add(1, Ordering::Relaxed);
        datagram.extend_from_slice(&counter.to_le_bytes());
        let head = datagram.len();
        datagram.extend_from_slice(payload);
        let (aad, body) = datagram.split_at_mut(head);
        let tag = key.seal_in_place_separate_tag(nonce(counter), Aad::from(&*aad), body);
        datagram.extend_from_slice(tag.expect("a datagram is no longer than a cipher allows").as_ref());
        Ok(())
    }

    /// Opens what follows a datagram's head, in place, and notes that it has come.
    pub(super) fn open<'d>(
        &self,
        (from, run): (NodeId, u64),
        head: usize,
        datagram: &'d mut [u8],
    ) -> Result<&'d [u8], Unopened> {
        if datagram.len() < head + COUNTER_LEN + TAG_LEN {
            return Err(Unopened::Strange);
        }
        let (aad, body) = datagram.split_at_mut(head + COUNTER_LEN);
        let counter = u64::from_le_bytes(aad[head..].try_into().expect("eight bytes"));
        let mut peers = self.peers.lock().expect("no panic while held");
        let Peer { lives, speaks } = peers.get_mut(&from).ok_or(Unopened::Strange)?;
        let life = lives.iter_mut().find(|life| life.run == run).ok_or(Unopened::Strange)?;
        let keys = life.derived.current(&self.me, (from, run), &self.keys);
        // A key that does not fit leaves the bytes useless: each is tried on a copy but the last.
        let (last, earlier) = keys.open.split_last().expect("there is a key");
        let opened = earlier.iter().find_map(|key| {
            let mut copy = body.to_vec();
            let len = key.open_in_place(nonce(counter), Aad::from(&*aad), &mut copy).ok()?.len();
            body[..len].copy_from_slice(&copy[..len]);
            Some(len)
        });
        let len = match opened {
            Some(len) => len,
            None => {
                let opened = last.open_in_place(nonce(counter), Aad::from(&*aad), body);
                opened.map_err(|_| Unopened::Strange)?.len()
            }
        };
        // Only what is genuine moves the window, or is called a replay.
        if !life.window.takes(counter) && !self.flaws.accept_replays {
            return Err(Unopened::Replayed);
        }
        // It speaks now and knows our run: this is the life to speak to.
        *speaks = run;
        Ok(&body[..len])
    }
}

impl Derived {
    fn new(me: &Identity, peer: (NodeId, u64), from: Arc<ClusterKeys>) -> Self {
        let own = (me.node, me.run);
        let seal = derive(&from.0[0], &me.cluster, own, peer);
        let open = from.0.iter().map(|key| derive(key, &me.cluster, peer, own)).collect();
        Self { from, seal, open }
    }

    /// Derived anew if the cluster's key has been changed.
    fn current(&mut self, me: &Identity, peer: (NodeId, u64), keys: &ArcSwap<ClusterKeys>) -> &Self {
        let keys = keys.load();
        if !Arc::ptr_eq(&self.from, &keys) {
            *self = Self::new(me, peer, Arc::clone(&keys));
        }
        self
    }
}

fn derive(key: &[u8; KEY_LEN], cluster: &str, from: (NodeId, u64), to: (NodeId, u64)) -> LessSafeKey {
    let lives = [from.0, from.1, to.0, to.1].map(u64::to_le_bytes).concat();
    // Of fixed length, all but the last: no two lists of parts make the same bytes.
    let info = [b"datagram 1".as_slice(), &lives, cluster.as_bytes()];
    let secret = Salt::new(HKDF_SHA256, b"quorate").extract(key);
    let derived = secret.expand(&info, &CHACHA20_POLY1305).expect("a key is no longer than HKDF gives");
    LessSafeKey::new(UnboundKey::from(derived))
}

fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[..8].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

/// Which counters of a life have come: the highest, and which of those shortly before it.
struct Window {
    /// One more than the highest; 0 at first.
    end: u64,
    /// A ring of bits by counter.
    seen: [u64; WINDOW_LEN as usize / 64],
}

/// A sender's counter runs for all its peers together, and datagrams may overtake each other.
const WINDOW_LEN: u64 = 8_192;

impl Default for Window {
    fn default() -> Self {
        Self { end: 0, seen: [0; WINDOW_LEN as usize / 64] }
    }
}

impl Window {
    /// Whether this counter comes for the first time, as far as can be told; from now on it has come.
    fn takes(&mut self, counter: u64) -> bool {
        // The greatest number has no successor; no sender ever counts that far.
        if counter == u64::MAX || counter.saturating_add(WINDOW_LEN) < self.end {
            return false;
        }
        let skipped = (counter + 1).saturating_sub(self.end).min(WINDOW_LEN);
        for passed in (counter + 1 - skipped)..=counter {
            self.seen[slot(passed)] &= !bit(passed);
        }
        self.end = self.end.max(counter + 1);
        let fresh = self.seen[slot(counter)] & bit(counter) == 0;
        self.seen[slot(counter)] |= bit(counter);
        fresh
    }
}

fn slot(counter: u64) -> usize {
    (counter % WINDOW_LEN / 64) as usize
}

fn bit(counter: u64) -> u64 {
    1 << (counter % 64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_window_takes_each_counter_once_and_none_that_is_too_old(
            steps in prop::collection::vec((0_u64..4, 0_u64..12_000), 1..400),
        ) {
            let mut window = Window::default();
            let (mut model, mut highest) = (BTreeSet::new(), 0_u64);
            for (kind, by) in steps {
                let counter = match kind {
                    0 => highest + by,
                    1 => highest + by % 3,
                    _ => highest.saturating_sub(by),
                };
                let too_old = counter + WINDOW_LEN < highest + u64::from(!model.is_empty());
                prop_assert_eq!(window.takes(counter), !too_old && !model.contains(&counter), "{}", counter);
                if !too_old {
                    model.insert(counter);
                    highest = highest.max(counter);
                }
            }
        }
    }

    #[test]
    fn keys_are_read_in_either_form_and_never_shown() {
        let (hex, base64) = ("ab".repeat(32), BASE64.encode(&[7; 32]));
        assert_eq!(ClusterKeys::parse(&format!("# now\n{hex}\n\n{base64}\n")).unwrap().0, [[0xab; 32], [7; 32]]);
        assert_eq!(ClusterKeys::parse("# none").err(), Some(ClusterKeysError::Empty));
        assert_eq!(ClusterKeys::parse(&format!("{hex}\n{hex}\n{hex}")).err(), Some(ClusterKeysError::TooMany));
        for wrong in ["secret", &hex[2..], &BASE64.encode(&[7; 31])] {
            let error = ClusterKeys::parse(wrong).err().unwrap();
            assert_eq!(error, ClusterKeysError::Malformed { line: 1 });
            assert!(!error.to_string().contains(wrong));
        }
    }
}
