//! The words of the registry, parsed once, at the door. Holding one is the proof that it is well formed.

use std::borrow::Borrow;
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A node's id: chosen by the operator, unique in a cluster for ever, never 0.
pub type NodeId = u64;

/// The longest name, group, owner or member, in bytes of UTF-8.
pub const IDENT_LEN_MAX: usize = 512;
/// The longest meta, in bytes of JSON as it was sent.
pub const META_LEN_MAX: usize = 16 * 1024;
/// The longest id of a lease, conflict record or credential, in bytes.
pub const ID_LEN_MAX: usize = 128;

/// Why a text is not one of the registry's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentError {
    #[error("{what} is empty")]
    Empty { what: &'static str },
    #[error("{what} is {len} bytes long; at most {max} are allowed")]
    TooLong { what: &'static str, len: usize, max: usize },
    #[error("{what} holds a control character at byte {at}")]
    Control { what: &'static str, at: usize },
    #[error("{what} may not be \".\" or \"..\"")]
    Dots { what: &'static str },
    #[error("{what} is not well formed: {why}")]
    Malformed { what: &'static str, why: &'static str },
}

fn check(what: &'static str, text: &str, dots_allowed: bool) -> Result<(), IdentError> {
    if text.is_empty() {
        return Err(IdentError::Empty { what });
    }
    if text.len() > IDENT_LEN_MAX {
        return Err(IdentError::TooLong { what, len: text.len(), max: IDENT_LEN_MAX });
    }
    if let Some((at, _)) = text.char_indices().find(|(_, c)| c.is_control()) {
        return Err(IdentError::Control { what, at });
    }
    // A path segment "." or ".." is folded away by clients and proxies before it reaches the router.
    if !dots_allowed && (text == "." || text == "..") {
        return Err(IdentError::Dots { what });
    }
    Ok(())
}

/// Written as a plain text and parsed from one, without a copy on the way: every message is full of them.
macro_rules! as_text {
    ($type:ident) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_string(Text(PhantomData))
            }
        }
    };
}

struct Text<T>(PhantomData<T>);

impl<T: FromStr<Err = IdentError>> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

macro_rules! ident {
    ($(#[$doc:meta])* $type:ident, $what:literal, dots_allowed = $dots:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Arc<str>);

        as_text!($type);

        impl $type {
            /// The text: 1 to 512 bytes of UTF-8 without control characters.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = IdentError;
            fn from_str(text: &str) -> Result<Self, IdentError> {
                check($what, text, $dots)?;
                Ok(Self(Arc::from(text)))
            }
        }

        impl TryFrom<String> for $type {
            type Error = IdentError;
            fn try_from(text: String) -> Result<Self, IdentError> {
                text.parse()
            }
        }

        impl TryFrom<&str> for $type {
            type Error = IdentError;
            fn try_from(text: &str) -> Result<Self, IdentError> {
                text.parse()
            }
        }

        impl From<&$type> for $type {
            fn from(ident: &$type) -> Self {
                ident.clone()
            }
        }

        impl From<$type> for String {
            fn from(ident: $type) -> String {
                ident.0.as_ref().to_owned()
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}

ident!(
    /// A key that at most one owner should hold. Compared and ordered byte by byte.
    Name, "a name", dots_allowed = false
);
ident!(
    /// A key with any number of members. Compared and ordered byte by byte.
    Group, "a group", dots_allowed = false
);
ident!(
    /// Who registered: an opaque text of the user's (an address, a pid).
    Owner, "an owner", dots_allowed = true
);
ident!(
    /// Who joined: an opaque text of the user's. It is a path segment, so `.` and `..` are none.
    Member, "a member", dots_allowed = false
);

macro_rules! id {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Arc<str>);

        as_text!($type);

        impl $type {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = IdentError;
            fn from_str(text: &str) -> Result<Self, IdentError> {
                let what = $what;
                if text.is_empty() {
                    return Err(IdentError::Empty { what });
                }
                if text.len() > ID_LEN_MAX {
                    return Err(IdentError::TooLong { what, len: text.len(), max: ID_LEN_MAX });
                }
                if !text.bytes().all(|b| b.is_ascii_graphic()) {
                    return Err(IdentError::Malformed { what, why: "only visible ASCII characters are allowed" });
                }
                // As of names: in a path they would be folded away.
                if text == "." || text == ".." {
                    return Err(IdentError::Dots { what });
                }
                Ok(Self(Arc::from(text)))
            }
        }

        impl TryFrom<String> for $type {
            type Error = IdentError;
            fn try_from(text: String) -> Result<Self, IdentError> {
                text.parse()
            }
        }

        impl TryFrom<&str> for $type {
            type Error = IdentError;
            fn try_from(text: &str) -> Result<Self, IdentError> {
                text.parse()
            }
        }

        impl From<&$type> for $type {
            fn from(id: &$type) -> Self {
                id.clone()
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl From<$type> for String {
            fn from(id: $type) -> String {
                id.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}

id!(
    /// The id of a lease: 1 to 128 visible ASCII characters, the client's choice or the registry's.
    LeaseId, "a lease id"
);
id!(
    /// The id of a conflict record, the same on every node: 1 to 128 visible ASCII characters.
    RecordId, "a conflict record's id"
);
id!(
    /// The name of a credential, which may be shown and logged (its secret may not): 1 to 128 visible ASCII characters.
    CredentialName, "a credential's name"
);

/// A JSON object that rides on an entry, kept as the text it was sent as (white space removed), at most 16 KiB.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Meta(Arc<str>);

impl Meta {
    /// The empty object.
    pub fn empty() -> Self {
        Self(Arc::from("{}"))
    }

    /// The JSON text of the object.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Meta {
    type Err = IdentError;
    fn from_str(text: &str) -> Result<Self, IdentError> {
        let what = "a meta";
        if text.len() > META_LEN_MAX {
            return Err(IdentError::TooLong { what, len: text.len(), max: META_LEN_MAX });
        }
        if text == "{}" {
            return Ok(Self::empty());
        }
        // Read once as a whole: what is no JSON to some reader is refused here, not found by that reader.
        let _: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).map_err(|_| {
            let why = match serde_json::from_str::<serde::de::IgnoredAny>(text) {
                Ok(_) if text.trim_start().starts_with('{') => {
                    "it holds a number beyond what a double holds, or more than 127 objects and arrays in one another"
                }
                Ok(_) | Err(_) => "it has to be a JSON object",
            };
            IdentError::Malformed { what, why }
        })?;
        Ok(Self(Arc::from(without_space(text))))
    }
}

/// JSON as it was sent, without the white space between its parts. Numbers keep all their digits, and keys their order.
pub fn without_space(json: &str) -> String {
    let (mut in_string, mut escaped) = (false, false);
    let kept = json.chars().filter(|c| {
        let keep = in_string || !c.is_ascii_whitespace();
        if *c == '"' && !escaped {
            in_string = !in_string;
        }
        escaped = in_string && *c == '\\' && !escaped;
        keep
    });
    kept.collect()
}

impl TryFrom<String> for Meta {
    type Error = IdentError;
    fn try_from(text: String) -> Result<Self, IdentError> {
        text.parse()
    }
}

impl From<&Meta> for Meta {
    fn from(meta: &Meta) -> Self {
        meta.clone()
    }
}

impl TryFrom<&str> for Meta {
    type Error = IdentError;
    fn try_from(text: &str) -> Result<Self, IdentError> {
        text.parse()
    }
}

impl From<Meta> for String {
    fn from(meta: Meta) -> String {
        meta.0.as_ref().to_owned()
    }
}

/// Which of the two registries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Gossip: always answers, agrees later.
    Ap,
    /// Raft: answers only when a majority agrees, linearizable.
    Cp,
}

impl Mode {
    pub const ALL: [Mode; 2] = [Mode::Cp, Mode::Ap];

    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Ap => "ap",
            Mode::Cp => "cp",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Mode {
    type Err = IdentError;
    fn from_str(text: &str) -> Result<Self, IdentError> {
        match text {
            "ap" => Ok(Mode::Ap),
            "cp" => Ok(Mode::Cp),
            _ => Err(IdentError::Malformed { what: "a mode", why: "it is ap or cp" }),
        }
    }
}

/// The fencing token of a grant. In JSON and in URLs it is a string.
///
/// `cp`: the revision that made the grant, decimal; tokens of one name rise with each grant.
/// `ap`: `hlc.node.run.number`, hexadecimal; ordered by the hybrid clock first. Advisory: two sides of a partition may each
/// grant a name, and then two tokens live at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Token {
    Cp(u64),
    Ap(ApToken),
}

/// The parts of an `ap` token: the stamp of the grant, and its id (node and run together name the run; number counts within it).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ApToken {
    pub hlc: u64,
    pub node: NodeId,
    pub run: u64,
    pub number: u64,
}

impl Token {
    /// Parses what [`Display`](fmt::Display) wrote, for the mode whose API was called.
    pub fn parse(mode: Mode, text: &str) -> Result<Self, IdentError> {
        let what = "a token";
        match mode {
            Mode::Cp => decimal(text)
                .map(Token::Cp)
                .ok_or(IdentError::Malformed { what, why: "a cp token is a decimal number" }),
            Mode::Ap => {
                let malformed =
                    || IdentError::Malformed { what, why: "an ap token is four hexadecimal numbers joined by dots" };
                let mut parts = text.split('.').map(hexadecimal);
                let mut next = || parts.next().flatten().ok_or_else(malformed);
                let token = ApToken { hlc: next()?, node: next()?, run: next()?, number: next()? };
                if parts.next().is_some() {
                    return Err(malformed());
                }
                Ok(Token::Ap(token))
            }
        }
    }
}

/// Digits alone: `parse` would let a sign through, and one number must have one text.
fn decimal(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) || (text.len() > 1 && text.starts_with('0')) {
        return None;
    }
    text.parse().ok()
}

fn hexadecimal(text: &str) -> Option<u64> {
    let canonical = text.len() == 1 || !text.starts_with('0');
    let digits = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if text.is_empty() || !canonical || !digits {
        return None;
    }
    u64::from_str_radix(text, 16).ok()
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::Cp(revision) => write!(f, "{revision}"),
            Token::Ap(t) => write!(f, "{:x}.{:x}.{:x}.{:x}", t.hlc, t.node, t.run, t.number),
        }
    }
}

/// A place in a registry's history. In JSON, headers and URLs it is a string.
///
/// `cp`: a counter, +1 for each command that changed something, decimal. `ap`: opaque.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Revision {
    Cp(u64),
    Ap(Arc<str>),
}

impl Revision {
    /// Parses what [`Display`](fmt::Display) wrote, for the mode whose API was called.
    pub fn parse(mode: Mode, text: &str) -> Result<Self, IdentError> {
        let what = "a revision";
        match mode {
            Mode::Cp => decimal(text)
                .map(Revision::Cp)
                .ok_or(IdentError::Malformed { what, why: "a cp revision is a decimal number" }),
            Mode::Ap if text.is_empty() => Err(IdentError::Empty { what }),
            Mode::Ap if !text.bytes().all(|b| b.is_ascii_graphic() && b != b'"') => {
                Err(IdentError::Malformed { what, why: "only visible ASCII characters are allowed" })
            }
            Mode::Ap => Ok(Revision::Ap(Arc::from(text))),
        }
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Revision::Cp(revision) => write!(f, "{revision}"),
            Revision::Ap(text) => f.write_str(text),
        }
    }
}
