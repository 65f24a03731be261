//! A key's text in a key-value store: get, put, append. Starts empty.
//!
//! Texts that grow by appending get long, and a search compares states all the time. So a text is known by its length and a 128-bit
//! fingerprint that can be continued, and keeps its characters only as a chain of what was appended.
//!
//! Many appends between two gets could come in very many orders. But a text that no get returned, nor a longer one beginning with it,
//! can explain no get until something is put: all such texts are one state, [`KvState::Unseen`].

use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::hash::Mixing;
use super::history::Call;
use super::spec::Spec;

/// A text that is cheap to append to and to compare. Two different texts are taken for equal with odds of about n² / 2¹²⁷ among n.
#[derive(Clone)]
pub struct Text {
    fingerprint: u128,
    len: usize,
    last: Option<Arc<Appended>>,
}

struct Appended {
    before: Option<Arc<Appended>>,
    text: Arc<str>,
}

/// 2¹²⁷ - 1, a prime: the fingerprint is a polynomial over this field (Karp & Rabin 1987, *Efficient randomized pattern-matching
/// algorithms*), taken at a fixed odd-looking point.
const PRIME: u128 = (1 << 127) - 1;
const POINT: u64 = 0x5bd1_e995_7f4a_7c15;

/// `a * POINT + byte` modulo the prime.
fn continue_fingerprint(a: u128, byte: u8) -> u128 {
    let low = u128::from(a as u64) * u128::from(POINT);
    let high = (a >> 64) * u128::from(POINT) + (low >> 64);
    // The product is high·2⁶⁴ + low; 2¹²⁷ counts as 1.
    let top = high >> 63;
    let rest = (high & ((1 << 63) - 1)) << 64 | u128::from(low as u64);
    let sum = rest % PRIME + top + u128::from(byte) + 1;
    sum % PRIME
}

impl Text {
    pub fn new(text: &str) -> Self {
        Self { fingerprint: 0, len: 0, last: None }.append(&Arc::from(text))
    }

    /// This text with `more` behind it.
    pub fn append(&self, more: &Arc<str>) -> Self {
        if more.is_empty() {
            return self.clone();
        }
        Self {
            fingerprint: more.bytes().fold(self.fingerprint, continue_fingerprint),
            len: self.len + more.len(),
            last: Some(Arc::new(Appended { before: self.last.clone(), text: more.clone() })),
        }
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint && self.len == other.len
    }
}

impl Eq for Text {}

impl Hash for Text {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.fingerprint.hash(hasher);
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        let mut at = self.last.as_ref();
        while let Some(appended) = at {
            parts.push(&*appended.text);
            at = appended.before.as_ref();
        }
        parts.iter().rev().try_for_each(|part| f.write_str(part))
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

impl Drop for Appended {
    /// A chain of many thousand links must not be dropped by recursion.
    fn drop(&mut self) {
        let mut at = self.before.take();
        while let Some(mut appended) = at.and_then(|appended| Arc::try_unwrap(appended).ok()) {
            at = appended.before.take();
        }
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum KvOp {
    Get,
    Put(Arc<str>),
    Append(Arc<str>),
}

/// What a get returned; a put or an append returns nothing.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum KvRet {
    Got(Text),
    Done,
}

/// What a key holds.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum KvState {
    Text(Text),
    /// Some text that no get returned the beginning of.
    Unseen,
}

impl fmt::Debug for KvState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KvState::Text(text) => write!(f, "{text:?}"),
            KvState::Unseen => f.write_str("a text that no get returned, nor one that begins with it"),
        }
    }
}

/// One key's specification.
#[derive(Clone, Debug, Default)]
pub struct Kv {
    /// Fingerprints of all that gets returned, and of every beginning of it.
    seen: HashSet<u128, Mixing>,
}

impl Kv {
    /// For a history of these calls.
    pub fn of(calls: &[&Call<KvOp, KvRet>]) -> Self {
        let mut seen = HashSet::default();
        let got: HashSet<&KvRet> = calls.iter().filter_map(|call| call.result.as_ref()).collect();
        for ret in got {
            if let KvRet::Got(text) = ret {
                let mut fingerprint = 0;
                seen.insert(fingerprint);
                for byte in text.to_string().bytes() {
                    fingerprint = continue_fingerprint(fingerprint, byte);
                    seen.insert(fingerprint);
                }
            }
        }
        Self { seen }
    }

    fn state(&self, text: Text) -> KvState {
        if self.seen.contains(&text.fingerprint) { KvState::Text(text) } else { KvState::Unseen }
    }
}

impl Spec for Kv {
    type State = KvState;
    type Op = KvOp;
    type Ret = KvRet;

    fn initial(&self) -> Vec<KvState> {
        vec![self.state(Text::new(""))]
    }

    fn step(&self, state: &KvState, op: &KvOp, ret: Option<&KvRet>, next: &mut Vec<KvState>) {
        let found = match (op, ret, state) {
            (KvOp::Get, Some(KvRet::Got(got)), KvState::Text(text)) => (got == text).then(|| state.clone()),
            (KvOp::Get, Some(KvRet::Got(_)), KvState::Unseen) => None,
            (KvOp::Get, None, _) => Some(state.clone()),
            (KvOp::Put(text), Some(KvRet::Done) | None, _) => Some(self.state(Text::new(text))),
            (KvOp::Append(more), Some(KvRet::Done) | None, KvState::Text(text)) => Some(self.state(text.append(more))),
            (KvOp::Append(_), Some(KvRet::Done) | None, KvState::Unseen) => Some(KvState::Unseen),
            // A return that the operation does not have.
            (KvOp::Get, Some(KvRet::Done), _) | (KvOp::Put(_) | KvOp::Append(_), Some(KvRet::Got(_)), _) => None,
        };
        next.extend(found);
    }

    fn reads(&self, op: &KvOp, _: Option<&KvRet>) -> bool {
        *op == KvOp::Get
    }
}
