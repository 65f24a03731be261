//! From what the model returns to JSON: straight into one buffer, without a copy in between.

use std::fmt::Display;

use jiff::Timestamp;
use serde::ser::{Error, SerializeStruct};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::body::EndedBody;
use super::status::{Certainty, Code, refusal_code};
use crate::model::entry::{Entry, Holder};
use crate::model::ident::{Group, LeaseId, Meta, Mode, NodeId, Owner, Revision};
use crate::model::outcome::{Ended, Hidden, Refusal};
use crate::model::query::GroupCount;
use crate::model::time::UnixMillis;

/// An entry, as the answer to a registration, a joining or a look-up.
pub fn entry(entry: &Entry, hides: Option<&Hidden>) -> Vec<u8> {
    bytes(256 + entry.meta.as_str().len(), &EntryView { entry, hides })
}

/// The answer to an unregistration or a leave.
pub fn ended(ended: Ended) -> Vec<u8> {
    bytes(20, &EndedBody { ended })
}

/// One page of names.
pub fn names(entries: &[Entry], next: Option<&str>, revision: &Revision) -> Vec<u8> {
    #[derive(Serialize)]
    struct Names<'a> {
        names: Entries<'a>,
        next: Option<&'a str>,
        revision: Text<'a, Revision>,
    }
    bytes(256 * (1 + entries.len()), &Names { names: Entries(entries), next, revision: Text(revision) })
}

/// One page of a group's members.
pub fn members(group: &Group, entries: &[Entry], next: Option<&str>, revision: &Revision) -> Vec<u8> {
    #[derive(Serialize)]
    struct Members<'a> {
        group: &'a str,
        members: Entries<'a>,
        next: Option<&'a str>,
        revision: Text<'a, Revision>,
    }
    let page = Members { group: group.as_str(), members: Entries(entries), next, revision: Text(revision) };
    bytes(256 * (1 + entries.len()), &page)
}

/// One page of groups.
pub fn groups(groups: &[GroupCount], next: Option<&str>, revision: &Revision) -> Vec<u8> {
    #[derive(Serialize)]
    struct Groups<'a> {
        groups: Vec<Count<'a>>,
        next: Option<&'a str>,
        revision: Text<'a, Revision>,
    }
    #[derive(Serialize)]
    struct Count<'a> {
        group: &'a str,
        count: u64,
    }
    let counts = groups.iter().map(|g| Count { group: g.group.as_str(), count: g.count }).collect();
    bytes(64 * (1 + groups.len()), &Groups { groups: counts, next, revision: Text(revision) })
}

/// What a registration sends.
pub fn register(owner: &Owner, meta: &Meta, lease: Option<&LeaseId>) -> Vec<u8> {
    #[derive(Serialize)]
    struct Register<'a> {
        owner: &'a str,
        meta: Raw<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        lease: Option<&'a str>,
    }
    let body = Register { owner: owner.as_str(), meta: Raw(meta), lease: lease.map(LeaseId::as_str) };
    bytes(64 + meta.as_str().len(), &body)
}

/// What a member that joins sends.
pub fn join(meta: &Meta, lease: Option<&LeaseId>) -> Vec<u8> {
    #[derive(Serialize)]
    struct Join<'a> {
        meta: Raw<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        lease: Option<&'a str>,
    }
    bytes(64 + meta.as_str().len(), &Join { meta: Raw(meta), lease: lease.map(LeaseId::as_str) })
}

/// What a problem body says.
#[derive(Clone, Debug)]
pub struct Problem<'a> {
    pub code: Code,
    pub status: u16,
    /// What was wrong with this very request.
    pub detail: Option<&'a str>,
    /// None for queries: they have no outcome.
    pub outcome: Option<Certainty>,
    pub retryable: bool,
    pub current: Option<&'a Entry>,
    pub leader: Option<NodeId>,
    pub leader_http: Option<&'a str>,
    pub applied: Option<&'a Revision>,
    pub oldest: Option<&'a Revision>,
}

impl<'a> Problem<'a> {
    /// A problem by its code alone, with the status that the table gives it where nothing was applied; sending the same again is
    /// no use.
    pub fn of(code: Code, outcome: Option<Certainty>) -> Self {
        Self {
            code,
            status: code.row().status,
            detail: None,
            outcome,
            retryable: false,
            current: None,
            leader: None,
            leader_http: None,
            applied: None,
            oldest: None,
        }
    }

    /// What is told of a refusal.
    pub fn refused(refusal: &'a Refusal, outcome: Option<Certainty>) -> Self {
        let code = refusal_code(refusal);
        let current = match refusal {
            Refusal::NameTaken { current } | Refusal::NameExists { current } => Some(current),
            Refusal::TokenStale { current } | Refusal::RevisionStale { current } => current.as_ref(),
            Refusal::NotFound
            | Refusal::LeaseUnknown
            | Refusal::LeaseExpired
            | Refusal::LeaseTaken
            | Refusal::LeaseForeign => None,
        };
        Self { current, retryable: code.retryable(Certainty::NotApplied, false), ..Self::of(code, outcome) }
    }

    /// The same, as the registry of a mode means it: in `ap` a node may not have heard of a lease yet.
    pub fn of_mode(self, mode: Mode) -> Self {
        if mode == Mode::Ap && self.code == Code::LeaseUnknown {
            let detail = "this node knows no such lease: it has ended, or word of it has not come here yet";
            return Self { retryable: true, detail: self.detail.or(Some(detail)), ..self };
        }
        self
    }
}

/// A problem body.
pub fn problem(problem: &Problem) -> Vec<u8> {
    bytes(256, problem)
}

impl Serialize for Problem<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct View<'a> {
            title: &'a str,
            status: u16,
            code: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            detail: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            outcome: Option<&'a str>,
            retryable: bool,
            #[serde(skip_serializing_if = "Option::is_none")]
            current: Option<EntryView<'a>>,
            #[serde(skip_serializing_if = "Option::is_none")]
            leader: Option<NodeId>,
            #[serde(skip_serializing_if = "Option::is_none")]
            leader_http: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            applied: Option<Text<'a, Revision>>,
            #[serde(skip_serializing_if = "Option::is_none")]
            oldest: Option<Text<'a, Revision>>,
        }
        let view = View {
            title: self.code.row().title,
            status: self.status,
            code: self.code.row().text,
            detail: self.detail,
            outcome: self.outcome.map(Certainty::as_str),
            retryable: self.retryable,
            current: self.current.map(EntryView::of),
            leader: self.leader,
            leader_http: self.leader_http,
            applied: self.applied.map(Text),
            oldest: self.oldest.map(Text),
        };
        view.serialize(serializer)
    }
}

/// A stamp in RFC 3339, UTC. Stamps beyond the year 9999 are shown as its end.
pub fn time(at: UnixMillis) -> impl Display {
    let millis = i64::try_from(at.0).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX)
}

/// The JSON of anything whose serialisation cannot fail.
pub fn bytes(capacity: usize, value: &impl Serialize) -> Vec<u8> {
    let mut buffer = Vec::with_capacity(capacity);
    serde_json::to_writer(&mut buffer, value).expect("what was parsed at the door is JSON");
    buffer
}

/// A value that stands in JSON as the text it displays as.
pub(super) struct Text<'a, T>(pub &'a T);

impl<T: Display> Serialize for Text<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self.0)
    }
}

/// A meta as it is kept.
pub(super) struct Raw<'a>(pub &'a Meta);

impl Serialize for Raw<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(self.0.as_str()).map_err(S::Error::custom)?;
        raw.serialize(serializer)
    }
}

/// Entries one after the other.
pub(super) struct Entries<'a>(pub &'a [Entry]);

impl Serialize for Entries<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(EntryView::of))
    }
}

/// Writes what [`super::body::NameEntry`] and [`super::body::Membership`] read.
pub(super) struct EntryView<'a> {
    pub entry: &'a Entry,
    pub hides: Option<&'a Hidden>,
}

impl<'a> EntryView<'a> {
    /// An entry as it stands.
    pub fn of(entry: &'a Entry) -> Self {
        Self { entry, hides: None }
    }
}

impl Serialize for EntryView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let entry = self.entry;
        let mut body = serializer.serialize_struct("Entry", 10)?;
        let since = match &entry.holder {
            Holder::Owner(name, owner) => {
                body.serialize_field("name", name.as_str())?;
                body.serialize_field("owner", owner.as_str())?;
                "registered_at"
            }
            Holder::Member(group, member) => {
                body.serialize_field("group", group.as_str())?;
                body.serialize_field("member", member.as_str())?;
                "joined_at"
            }
        };
        body.serialize_field("meta", &Raw(&entry.meta))?;
        body.serialize_field("lease", &entry.lease.as_ref().map(|lease| lease.as_str()))?;
        body.serialize_field("token", &Text(&entry.token))?;
        body.serialize_field("revision", &Text(&entry.revision))?;
        body.serialize_field("node", &entry.node)?;
        body.serialize_field(since, &Text(&time(entry.since)))?;
        if entry.hidden {
            body.serialize_field("hidden", &true)?;
        }
        if let Some(hidden) = self.hides {
            body.serialize_field("hides", &HiddenView(hidden))?;
        }
        body.end()
    }
}

struct HiddenView<'a>(&'a Hidden);

impl Serialize for HiddenView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut body = serializer.serialize_struct("Hidden", 2)?;
        body.serialize_field("owner", self.0.owner.as_str())?;
        body.serialize_field("token", &Text(&self.0.token))?;
        body.end()
    }
}
