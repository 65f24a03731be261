//! What the API's description says again and again: parameters that many routes take, and the problems that they may answer with,
//! by the table in `wire::status`.
#![expect(dead_code, reason = "these types describe parameters and are never made")]

use std::collections::BTreeMap;
use std::fmt::Write;

use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::{ContentBuilder, Ref, RefOr};
use utoipa::{IntoParams, IntoResponses, ToSchema};

use crate::wire::status::{Certainty, Code, REDIRECT};

#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub struct NamePath {
    /// 1 to 512 bytes without control characters, percent-encoded; not `.` or `..`.
    #[param(min_length = 1, max_length = 512)]
    name: String,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub struct GroupPath {
    /// 1 to 512 bytes without control characters, percent-encoded; not `.` or `..`.
    #[param(min_length = 1, max_length = 512)]
    group: String,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub struct MemberPath {
    /// 1 to 512 bytes without control characters, percent-encoded; not `.` or `..`.
    #[param(min_length = 1, max_length = 512)]
    group: String,
    /// 1 to 512 bytes without control characters, percent-encoded; not `.` or `..`.
    #[param(min_length = 1, max_length = 512)]
    member: String,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub struct OwnerPath {
    /// The owner or member: 1 to 512 bytes without control characters, percent-encoded.
    #[param(min_length = 1, max_length = 512)]
    owner: String,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub struct LeasePath {
    /// The lease's id: 1 to 128 visible ASCII characters, percent-encoded.
    #[param(min_length = 1, max_length = 128)]
    id: String,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct TimeoutParam {
    /// How long the call may take: 2,000 unless given.
    #[param(minimum = 1, maximum = 30_000)]
    timeout_ms: Option<u64>,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ForwardParam {
    /// `cp`: `redirect` = answer 307 with the leader's URL instead of passing the call on.
    #[param(inline)]
    forward: Option<Forward>,
}

#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
enum Forward {
    Redirect,
}

/// How a command is carried out.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AcksParam {
    /// `ap`: how many nodes are to have it before the answer; `Quorate-Acks` tells how many do. 1 unless given.
    #[param(minimum = 1, maximum = 1_000)]
    w: Option<u64>,
}

/// How a question is answered.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct LevelParams {
    /// `cp`: `linearizable` (the default), `leader`, `stale`. `ap`: `local` (the default), `quorum`.
    #[param(inline)]
    consistency: Option<Level>,
    /// `ap`, with `consistency=quorum`: how many nodes' states are merged for the answer.
    #[param(minimum = 1, maximum = 1_000)]
    r: Option<u64>,
}

#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
enum Level {
    Linearizable,
    Leader,
    Stale,
    Local,
    Quorum,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct RevisionParam {
    /// Wait until this node has applied that revision.
    min_revision: Option<String>,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct IncludeParam {
    /// `ap`: `hidden` = entries, too, that this node does not show since who answers for them is out of reach, where no other
    /// stands; marked `hidden`.
    #[param(inline)]
    include: Option<Include>,
}

#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
enum Include {
    Hidden,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageParams {
    /// How many a page: 100 unless given.
    #[param(minimum = 1, maximum = 1_000)]
    limit: Option<u64>,
    /// The next page: the `next` of the one before.
    after: Option<String>,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PrefixParam {
    /// Only what begins so.
    prefix: Option<String>,
}

/// What any route may say: the door does.
const ANY: &[Code] =
    &[Code::Malformed, Code::Unauthorized, Code::Forbidden, Code::ForeignOrigin, Code::Overloaded, Code::Internal];
/// What a route of a mode says of any other: there are two.
const MODE: &[Code] = &[Code::NoSuchRoute];
/// What a route that takes a body may say of it.
const BODY: &[Code] = &[Code::BodyLate, Code::TooLarge, Code::WrongShape];
/// Why a registry may have no outcome or answer.
const FAILURES: &[Code] =
    &[Code::NoLeader, Code::NoQuorum, Code::Starting, Code::Behind, Code::NotLeader, Code::Timeout];
/// Why a node may have no answer that concerns it as a whole.
const NODE: &[Code] = &[Code::NoLeader, Code::NoQuorum, Code::Starting, Code::Timeout];
/// Why the cluster may not be changed just now.
const CHANGE: &[Code] = &[Code::ChangeUnderWay, Code::QuorumAtRisk];
/// What may be wrong with the node that a change is about.
const MEMBER: &[Code] = &[Code::NodeUnknown, Code::NodeRemoved];
const LEASE: &[Code] = &[Code::LeaseUnknown, Code::LeaseExpired];

/// Declares types that stand for problems: whether for commands, and lists of codes.
macro_rules! problems {
    ($($(#[$doc:meta])* $type:ident = $commands:expr, [$($codes:expr),*];)*) => {$(
        $(#[$doc])*
        pub struct $type;

        impl IntoResponses for $type {
            fn responses() -> BTreeMap<String, RefOr<Response>> {
                by_status($commands, &[$($codes),*])
            }
        }
    )*};
}

problems! {
    RegisterProblems = true, [ANY, MODE, BODY, FAILURES, LEASE, &[Code::NameTaken, Code::TokenStale, Code::RevisionStale, Code::NameExists]];
    JoinProblems = true, [ANY, MODE, BODY, FAILURES, LEASE];
    EndProblems = true, [ANY, MODE, FAILURES, &[Code::NotFound, Code::TokenStale]];
    EntryProblems = false, [ANY, MODE, FAILURES, &[Code::NotFound, Code::TokenStale]];
    ListProblems = false, [ANY, MODE, FAILURES];
    BatchProblems = true, [ANY, MODE, BODY, FAILURES];
    CreateLeaseProblems = true, [ANY, MODE, BODY, FAILURES, LEASE, &[Code::LeaseTaken, Code::LeaseForeign]];
    RevokeLeaseProblems = true, [ANY, MODE, FAILURES, LEASE, &[Code::LeaseForeign]];
    KeepAliveProblems = true, [ANY, MODE, BODY, FAILURES, LEASE, &[Code::LeaseForeign]];
    KeepAliveEachProblems = true, [ANY, MODE, BODY, FAILURES];
    LeaseProblems = false, [ANY, MODE, FAILURES, LEASE, &[Code::LeaseForeign]];
    SendProblems = true, [ANY, MODE, BODY, FAILURES, &[Code::NotFound]];
    PublishProblems = true, [ANY, MODE, BODY, FAILURES];
    InboxProblems = false, [ANY, MODE];
    WatchProblems = false, [ANY, MODE, FAILURES, &[Code::RevisionCompacted]];
    /// Of routes that are about the node that answers.
    NodeProblems = false, [ANY];
    ReadyProblems = false, [ANY, NODE];
    ConflictsProblems = false, [ANY, &[Code::Starting]];
    ConflictProblems = false, [ANY, &[Code::Starting, Code::NotFound]];
    AddNodeProblems = true, [ANY, BODY, NODE, CHANGE, &[Code::NodeRemoved, Code::NodeExists]];
    PromoteProblems = true, [ANY, BODY, NODE, CHANGE, MEMBER, &[Code::NodeBehind]];
    RemoveNodeProblems = true, [ANY, NODE, CHANGE, MEMBER, &[Code::CannotLead]];
    TransferProblems = true, [ANY, BODY, NODE, CHANGE, MEMBER, &[Code::CannotLead]];
    SnapshotProblems = true, [ANY, NODE];
    BackupProblems = false, [ANY, NODE];
    /// Of routes that are there only if the operator has enabled them.
    FaultsProblems = false, [ANY, &[Code::NoSuchRoute]];
    SetFaultsProblems = false, [ANY, BODY, &[Code::NoSuchRoute]];
}

/// One response for each status that these codes have, which tells of them all.
fn by_status(commands: bool, codes: &[&[Code]]) -> BTreeMap<String, RefOr<Response>> {
    let mut texts: BTreeMap<u16, String> = BTreeMap::new();
    let mut tell = |status: u16, code: Code| {
        let text = texts.entry(status).or_default();
        let row = code.row();
        let separator = if text.is_empty() { "" } else { " " };
        write!(text, "{separator}`{}`: {}", row.text, row.title).expect("a String takes all");
    };
    for code in codes.iter().copied().flatten().copied() {
        if commands {
            tell(code.status(Certainty::NotApplied), code);
            if code.row().unknown.is_some_and(|unknown| unknown != code.row().status) {
                tell(code.status(Certainty::Unknown), code);
            }
        } else {
            tell(code.query_status(), code);
        }
        if code == Code::NotLeader {
            tell(REDIRECT, code);
        }
    }
    let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name("ProblemBody"))).build();
    let response = |(status, text): (u16, String)| {
        let response = ResponseBuilder::new().description(text).content("application/problem+json", problem.clone());
        (status.to_string(), RefOr::T(response.build()))
    };
    texts.into_iter().map(response).collect()
}
