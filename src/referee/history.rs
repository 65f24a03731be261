//! What happened in a run, as it is kept: one event a line, in the order of one clock.
//!
//! The shape is Jepsen's (`jepsen.history`): an invocation, then at most one completion by the same process. `ok`: it took
//! effect, with this result (a definite refusal is a result). `fail`: it surely had no effect. `info`: perhaps it took effect,
//! perhaps it will at any later time; the process never returns.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::watched::Watched;
use crate::model::ident::NodeId;

/// The first line of a history file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Always 1.
    pub format: u32,
    /// The version of Quorate that wrote it.
    pub version: String,
    /// As `--systems` names it.
    pub system: String,
    pub seed: u64,
    pub nodes: Vec<NodeId>,
    /// Hash of the resolved schedule: runs are comparable if theirs are equal.
    pub schedule: String,
    /// How many processes work at once. A process that got no answer goes on as itself plus this.
    pub concurrency: u64,
}

/// One line after the header.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// 0, 1, 2 …
    pub index: u64,
    /// Nanoseconds since the run began, by one steady clock.
    pub time: u64,
    #[serde(rename = "type")]
    pub kind: Kind,
    pub process: Process,
    #[serde(flatten)]
    pub what: What,
    /// The node that a client's call went to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// Where that node stood when the call was invoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub side: Option<Side>,
    /// Why it failed, or why nothing is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The index of the invocation that this completes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_of: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Invoke,
    Ok,
    Fail,
    Info,
}

/// Who did it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Process {
    Client(u64),
    /// Makes faults.
    Nemesis,
    /// Looks at every node's own view, beside the workload; its reads are no part of what is checked for linearizability.
    Observer,
    /// Follows what changes, at one node after another.
    Watcher(u64),
    /// The guarded resource in the referee's own memory: what it says of a write happened at that moment.
    Resource,
}

/// Which part of the cluster a node was in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// No fault is in force.
    Whole,
    /// It reaches, both ways, a majority (itself included) of nodes that are up.
    Majority,
    Minority,
    /// Killed or paused: its calls do not count for availability.
    Stopped,
}

/// What was called or done. In an invocation the results are absent; in a completion that is `ok` they are there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "f", content = "value", rename_all = "kebab-case")]
pub enum What {
    /// Create only.
    Register {
        name: String,
        owner: String,
        /// Bound to it: the grant ends when the lease does.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lease: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        result: Option<Registered>,
    },
    /// Asks for a name that the caller holds, only if it is still that grant. Changes nothing.
    Renew {
        name: String,
        owner: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lease: Option<String>,
        token: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        result: Option<Registered>,
    },
    /// Ends the grant with that token, or whatever stands there.
    Unregister {
        name: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        result: Option<Unregistered>,
    },
    Whereis {
        name: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        result: Option<Found>,
    },
    Join {
        group: String,
        member: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lease: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        result: Option<Joined>,
    },
    Leave {
        group: String,
        member: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        result: Option<Unregistered>,
    },
    Members {
        group: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        result: Option<Membership>,
    },
    /// The caller chooses an id that was never used.
    CreateLease {
        lease: String,
        ttl_ms: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        result: Option<LeaseMade>,
    },
    KeepAlive {
        lease: String,
        /// Conflict records that need not be told again.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        seen: Vec<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        result: Option<KeptAlive>,
    },
    /// Ends a lease, and all that is bound to it.
    Revoke {
        lease: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        result: Option<Unregistered>,
    },
    /// A client that holds, or held, a name writes to what the name guards, with the token of its grant.
    GuardedWrite {
        name: String,
        owner: String,
        token: String,
        /// False: a greater token had been there.
        accepted: bool,
        /// The greatest token that was there before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        greatest: Option<String>,
    },
    /// What a watcher was told, or what became of its stream.
    Watched(Watched),
    /// A fault begins (the nemesis' odd events) or ends (its even ones).
    Fault(FaultEvent),
    /// Which peers each node reached, by node, after a cut or heal.
    Probe {
        #[serde(deserialize_with = "by_node")]
        reached: BTreeMap<NodeId, BTreeSet<NodeId>>,
        as_intended: bool,
    },
    /// What one node shows, whatever others know.
    View(View),
    /// Every conflict record that one node knows.
    Conflicts { records: Vec<Conflict> },
}

/// What a call is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key<'a> {
    Name(&'a str),
    Group(&'a str),
    Other,
}

impl What {
    /// What it is about: a name or a group.
    pub fn key(&self) -> Key<'_> {
        match self {
            What::Register { name, .. }
            | What::Renew { name, .. }
            | What::Unregister { name, .. }
            | What::Whereis { name, .. } => Key::Name(name),
            What::Join { group, .. } | What::Leave { group, .. } | What::Members { group, .. } => Key::Group(group),
            What::CreateLease { .. }
            | What::KeepAlive { .. }
            | What::Revoke { .. }
            | What::GuardedWrite { .. }
            | What::Watched(_)
            | What::Fault(_)
            | What::Probe { .. }
            | What::View(_)
            | What::Conflicts { .. } => Key::Other,
        }
    }

    /// Whether it asks and changes nothing: without an answer it is certain that it had no effect.
    pub fn is_read(&self) -> bool {
        match self {
            What::Whereis { .. }
            | What::Members { .. }
            | What::Watched(_)
            | What::View(_)
            | What::Conflicts { .. }
            | What::Probe { .. } => true,
            // A keep-alive that was not answered may have prolonged the lease.
            What::Register { .. }
            | What::Renew { .. }
            | What::Unregister { .. }
            | What::Join { .. }
            | What::Leave { .. }
            | What::CreateLease { .. }
            | What::KeepAlive { .. }
            | What::Revoke { .. }
            | What::GuardedWrite { .. }
            | What::Fault(_) => false,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Registered {
    Granted {
        token: String,
    },
    /// The caller held it already.
    Held {
        token: String,
    },
    Taken {
        owner: String,
        token: String,
    },
    /// To a renewal: that grant does not stand any more.
    Stale,
    /// The lease that it was to be bound to has ended or is not known: nothing was done, and nothing is said of the name.
    NoLease,
}

impl Registered {
    /// The token that it tells of, if there is one: systems without tokens tell of none.
    pub fn token(&self) -> Option<&str> {
        match self {
            Registered::Granted { token } | Registered::Held { token } | Registered::Taken { token, .. } => {
                Some(token.as_str()).filter(|token| !token.is_empty())
            }
            Registered::Stale | Registered::NoLease => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeaseMade {
    Made,
    /// The id is not free.
    Refused,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeptAlive {
    /// It lives for its time-to-live, counted from when this call was sent.
    Alive {
        /// What was bound to it and lost a conflict, until it is `seen`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        lost: Vec<Conflict>,
        /// Another node keeps it from now on, which may not know all that is bound to it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        moved: bool,
    },
    /// It has ended, for good.
    Ended,
    /// The node does not know it (any more, or yet).
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unregistered {
    Now,
    Before,
    /// Nothing stood there.
    Absent,
    /// The system says that the token was never issued.
    Never,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// None: nobody.
    pub owner: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    pub token: String,
    /// False: the member was there already.
    pub new: bool,
    /// The lease that it was to be bound to has ended or is not known: nothing was done, and there is no token.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_lease: bool,
    /// The registry's revision with the answer, from systems whose revisions are ordered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    pub members: BTreeSet<String>,
    /// Those that the answer listed more than once.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub twice: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultEvent {
    /// Numbers the faults of a schedule, so that the end finds its beginning.
    pub id: u64,
    /// As `--faults` names it.
    pub kind: String,
    /// What is done: `cut`, `kill`, `pause` …
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub harm: String,
    /// False when it ends.
    pub begins: bool,
    /// Meant to last beyond the end of the run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lasts: bool,
    /// Directed links that pass nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cut: Vec<(NodeId, NodeId)>,
    /// Nodes that it is done to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeId>,
    pub state: Installed,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Installed {
    Installed,
    Skipped,
    Indeterminate,
}

/// Why a call has no answer that a fault kept from the client. No system can help it.
pub const ANSWER_DROPPED: &str = "the answer was lost on its way to the client";

/// One node's own view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    pub node: NodeId,
    /// Every name, with its owner and token.
    pub names: BTreeMap<String, (String, String)>,
    /// Every group, with its members.
    pub groups: BTreeMap<String, BTreeSet<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<NodeId>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Conflict {
    pub id: String,
    pub name: String,
    pub loser: (String, String),
    pub winner: (String, String),
}

/// Keys of JSON objects are strings, and behind `flatten` serde no longer turns them into numbers by itself.
fn by_node<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<NodeId, BTreeSet<NodeId>>, D::Error> {
    let named = BTreeMap::<String, BTreeSet<NodeId>>::deserialize(deserializer)?;
    let node = |(id, reached): (String, _)| Ok((id.parse().map_err(serde::de::Error::custom)?, reached));
    named.into_iter().map(node).collect()
}

impl Serialize for Process {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Process::Client(id) => serializer.serialize_u64(*id),
            Process::Nemesis => serializer.serialize_str("nemesis"),
            Process::Observer => serializer.serialize_str("observer"),
            Process::Watcher(id) => serializer.collect_str(&format_args!("watcher-{id}")),
            Process::Resource => serializer.serialize_str("resource"),
        }
    }
}

impl<'de> Deserialize<'de> for Process {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Text {
            Id(u64),
            Word(String),
        }
        match Text::deserialize(deserializer)? {
            Text::Id(id) => Ok(Process::Client(id)),
            Text::Word(word) if word == "nemesis" => Ok(Process::Nemesis),
            Text::Word(word) if word == "observer" => Ok(Process::Observer),
            Text::Word(word) if word == "resource" => Ok(Process::Resource),
            Text::Word(word) if watcher(&word).is_some() => Ok(Process::Watcher(watcher(&word).unwrap_or_default())),
            Text::Word(word) => Err(serde::de::Error::custom(format!("{word:?} is no process"))),
        }
    }
}

fn watcher(word: &str) -> Option<u64> {
    word.strip_prefix("watcher-")?.parse().ok()
}
