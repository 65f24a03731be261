//! The JSON bodies of names and groups, as a reader sees them. Answers are written by [`super::write`], without copies.
//!
//! Tokens, revisions and lease ids are strings: they pass 2^53. Times are RFC 3339 in UTC.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// What a registration sends.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RegisterBody<'a> {
    /// Who registers: an opaque text of 1 to 512 bytes without control characters.
    #[serde(borrow)]
    pub owner: Cow<'a, str>,
    /// A JSON object of at most 16 KiB. `{}` unless given.
    #[serde(borrow, default)]
    #[schema(value_type = Option<Object>)]
    pub meta: Option<&'a RawValue>,
    /// The lease that the entry is to end with.
    #[serde(default)]
    pub lease: Option<String>,
}

/// What a member that joins sends. It may be left out altogether.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinBody<'a> {
    /// A JSON object of at most 16 KiB. `{}` unless given.
    #[serde(borrow, default)]
    #[schema(value_type = Option<Object>)]
    pub meta: Option<&'a RawValue>,
    /// The lease that the membership is to end with.
    #[serde(default)]
    pub lease: Option<String>,
}

/// A name and who holds it.
#[derive(Debug, Deserialize, ToSchema)]
pub struct NameEntry {
    pub name: String,
    pub owner: String,
    #[schema(value_type = Object)]
    pub meta: Box<RawValue>,
    /// The lease that the entry ends with.
    pub lease: Option<String>,
    /// The fencing token of this grant.
    pub token: String,
    /// When the entry last changed. Its ETag.
    pub revision: String,
    /// The node at which it was registered.
    pub node: u64,
    /// By that node's clock.
    #[schema(format = "date-time")]
    pub registered_at: String,
    /// `ap`, with `include=hidden` only: this node does not show it otherwise, since who answers for it is out of reach.
    #[serde(default)]
    pub hidden: bool,
    /// `ap`, in the answer to a registration only: a grant from the other side of a partition that this one stands over.
    #[serde(default)]
    pub hides: Option<HiddenBody>,
}

/// A member of a group.
#[derive(Debug, Deserialize, ToSchema)]
pub struct Membership {
    pub group: String,
    pub member: String,
    #[schema(value_type = Object)]
    pub meta: Box<RawValue>,
    /// The lease that the membership ends with.
    pub lease: Option<String>,
    /// Names this membership, from joining to leaving.
    pub token: String,
    /// When the membership last changed. Its ETag.
    pub revision: String,
    /// The node at which the member joined.
    pub node: u64,
    /// By that node's clock.
    #[schema(format = "date-time")]
    pub joined_at: String,
    /// `ap`, with `include=hidden` only: this node does not show it otherwise, since who answers for it is out of reach.
    #[serde(default)]
    pub hidden: bool,
    /// Never there: members of one group do not exclude each other.
    #[serde(default)]
    #[schema(ignore)]
    pub hides: Option<HiddenBody>,
}

/// A grant that is out of sight for now.
#[derive(Debug, Deserialize, ToSchema)]
pub struct HiddenBody {
    pub owner: String,
    pub token: String,
}

/// A name with its owner, or a group with one member. For the API's description alone: [`super::read`] tells them apart.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum EntryBody {
    Name(NameEntry),
    Member(Membership),
}

/// The answer to an unregistration or a leave.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct EndedBody {
    /// `now`: by this call. `before`: it had ended already, and nothing was done.
    #[schema(value_type = String, examples("now", "before"))]
    pub ended: crate::model::outcome::Ended,
}

/// One page of names in byte order.
#[derive(Debug, Deserialize, ToSchema)]
pub struct NamesBody {
    pub names: Vec<NameEntry>,
    /// What to pass as `after=` for the next page; null at the end.
    pub next: Option<String>,
    pub revision: String,
}

/// One page of a group's members in byte order.
#[derive(Debug, Deserialize, ToSchema)]
pub struct MembersBody {
    pub group: String,
    pub members: Vec<Membership>,
    /// What to pass as `after=` for the next page; null at the end.
    pub next: Option<String>,
    pub revision: String,
}

/// One page of groups in byte order.
#[derive(Debug, Deserialize, ToSchema)]
pub struct GroupsBody {
    pub groups: Vec<GroupBody>,
    /// What to pass as `after=` for the next page; null at the end.
    pub next: Option<String>,
    pub revision: String,
}

/// A group that has members, and how many.
#[derive(Debug, Deserialize, ToSchema)]
pub struct GroupBody {
    pub group: String,
    pub count: u64,
}

/// Every answer of 400 and above (RFC 9457, `application/problem+json`).
#[derive(Debug, Deserialize, ToSchema)]
pub struct ProblemBody {
    /// One sentence on the code.
    pub title: String,
    pub status: u16,
    /// One of the codes of the status table.
    pub code: String,
    /// What was wrong with this very request.
    #[serde(default)]
    pub detail: Option<String>,
    /// Commands only: `not_applied` (surely) or `unknown` (perhaps applied, perhaps later).
    #[serde(default)]
    pub outcome: Option<String>,
    /// Whether sending the very same request again can do no harm and may succeed.
    pub retryable: bool,
    /// What stands there now.
    #[serde(default)]
    #[schema(value_type = Option<EntryBody>)]
    pub current: Option<Box<RawValue>>,
    /// The node that leads.
    #[serde(default)]
    pub leader: Option<u64>,
    /// Where that node's clients reach it.
    #[serde(default)]
    pub leader_http: Option<String>,
    /// How far this node is, if it is behind the revision asked for.
    #[serde(default)]
    pub applied: Option<String>,
    /// The oldest position that the history still reaches back to, if the one asked for is gone.
    #[serde(default)]
    pub oldest: Option<String>,
}
