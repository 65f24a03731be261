//! The one table between what happened and what an HTTP answer says of it, read by the server from left to right and by the
//! client from right to left. If the two disagreed, every verdict on a history would be worthless.

use std::fmt::Write;

use crate::model::outcome::{Outcome, Refusal};

/// What a problem body's `code` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    // Refusals: deterministic, by the registry.
    NameTaken,
    NotFound,
    TokenStale,
    RevisionStale,
    NameExists,
    LeaseUnknown,
    LeaseExpired,
    LeaseTaken,
    LeaseForeign,
    NodeUnknown,
    NodeRemoved,
    NodeExists,
    NodeBehind,
    QuorumAtRisk,
    CannotLead,
    ChangeUnderWay,
    RevisionCompacted,
    // Refusals by the door: the registry never saw the request.
    Malformed,
    Unauthorized,
    Forbidden,
    ForeignOrigin,
    NoSuchRoute,
    MethodNotAllowed,
    BodyLate,
    TooLarge,
    WrongShape,
    // Failures: no outcome came.
    Overloaded,
    NoLeader,
    NoQuorum,
    Starting,
    Behind,
    NotLeader,
    Timeout,
    Internal,
}

/// What is known of a command that has no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Certainty {
    /// Surely not applied, now or later.
    NotApplied,
    /// Perhaps applied, perhaps to be applied later.
    Unknown,
}

impl Certainty {
    /// As in a problem's `outcome`.
    pub fn as_str(self) -> &'static str {
        match self {
            Certainty::NotApplied => "not_applied",
            Certainty::Unknown => "unknown",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [Certainty::NotApplied, Certainty::Unknown].into_iter().find(|certainty| certainty.as_str() == text)
    }
}

/// What kind of no it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// By the registry: sending the same again gets the same until somebody changes something.
    Refusal,
    /// By the door: this request will never be accepted as it is.
    Rejection,
    /// For now: sending the same again may succeed, and does no harm.
    Deferral,
    /// No outcome came: after a surely unapplied one, sending it again does no harm; after an unknown one, only if the
    /// command is safe to repeat.
    Failure,
}

/// One row of the table.
#[derive(Debug)]
pub struct Row {
    pub code: Code,
    /// `code` in a problem body.
    pub text: &'static str,
    pub kind: Kind,
    /// The HTTP status where nothing was applied, and for queries.
    pub status: u16,
    /// The HTTP status where that is not known. None: such an answer always means "not applied".
    pub unknown: Option<u16>,
    /// The problem body's `title`.
    pub title: &'static str,
}

const fn row(
    code: Code,
    text: &'static str,
    kind: Kind,
    status: u16,
    unknown: Option<u16>,
    title: &'static str,
) -> Row {
    Row { code, text, kind, status, unknown, title }
}

/// The table. 429 and 503 always mean "not applied", 504 always "unknown"; a 500 is a bug, and "unknown" unless its body says otherwise.
pub static TABLE: &[Row] = &[
    row(Code::NameTaken, "name_taken", Kind::Refusal, 409, None, "Somebody else holds the name."),
    row(Code::NotFound, "not_found", Kind::Refusal, 404, None, "No entry stands there."),
    row(Code::TokenStale, "token_stale", Kind::Refusal, 412, None, "The token is not that of the current grant."),
    row(Code::RevisionStale, "revision_stale", Kind::Refusal, 412, None, "The entry has changed since that revision."),
    row(Code::NameExists, "name_exists", Kind::Refusal, 412, None, "An entry stands under that name already."),
    row(Code::LeaseUnknown, "lease_unknown", Kind::Refusal, 404, None, "No lease of that id was ever granted."),
    row(Code::LeaseExpired, "lease_expired", Kind::Refusal, 410, None, "The lease has ended."),
    row(
        Code::LeaseTaken,
        "lease_taken",
        Kind::Refusal,
        409,
        None,
        "A lease of that id lives, with another ttl or of another credential.",
    ),
    row(Code::LeaseForeign, "lease_foreign", Kind::Refusal, 403, None, "Another credential made that lease."),
    row(Code::NodeUnknown, "node_unknown", Kind::Refusal, 404, None, "The cluster has no node of that id."),
    row(
        Code::NodeRemoved,
        "node_removed",
        Kind::Refusal,
        410,
        None,
        "That node was removed, and its id never returns.",
    ),
    row(Code::NodeExists, "node_exists", Kind::Refusal, 409, None, "Another node has that id or that address."),
    row(Code::NodeBehind, "node_behind", Kind::Deferral, 409, None, "The learner has not caught up with the log yet."),
    row(
        Code::QuorumAtRisk,
        "quorum_at_risk",
        Kind::Deferral,
        409,
        None,
        "Too few of the voters that there would be are in reach.",
    ),
    row(
        Code::CannotLead,
        "cannot_lead",
        Kind::Deferral,
        409,
        None,
        "No voter is in reach and caught up that could lead.",
    ),
    row(
        Code::ChangeUnderWay,
        "change_under_way",
        Kind::Deferral,
        409,
        None,
        "Another change of the cluster is being made.",
    ),
    row(
        Code::RevisionCompacted,
        "revision_compacted",
        Kind::Rejection,
        410,
        None,
        "The history no longer reaches back to that position.",
    ),
    row(Code::Malformed, "malformed", Kind::Rejection, 400, None, "The request is not well formed."),
    row(
        Code::Unauthorized,
        "unauthorized",
        Kind::Rejection,
        401,
        None,
        "This server asks for a credential that it knows.",
    ),
    row(Code::Forbidden, "forbidden", Kind::Rejection, 403, None, "That credential does not allow this."),
    row(
        Code::ForeignOrigin,
        "foreign_origin",
        Kind::Rejection,
        403,
        None,
        "Web pages of that origin may not call this server.",
    ),
    row(Code::NoSuchRoute, "no_such_route", Kind::Rejection, 404, None, "There is nothing at that path."),
    row(
        Code::MethodNotAllowed,
        "method_not_allowed",
        Kind::Rejection,
        405,
        None,
        "That path does not take that method.",
    ),
    row(Code::BodyLate, "body_late", Kind::Deferral, 408, None, "The request's body did not arrive by its deadline."),
    row(Code::TooLarge, "too_large", Kind::Rejection, 413, None, "The request's body is too large."),
    row(
        Code::WrongShape,
        "wrong_shape",
        Kind::Rejection,
        422,
        None,
        "The body is JSON, but not of the shape that is wanted here.",
    ),
    row(Code::Overloaded, "overloaded", Kind::Failure, 429, Some(504), "Too much is in flight at this node."),
    row(Code::NoLeader, "no_leader", Kind::Failure, 503, Some(504), "No leader is known, or it could not be reached."),
    row(Code::NoQuorum, "no_quorum", Kind::Failure, 503, Some(504), "This node has no contact to a majority."),
    row(
        Code::Starting,
        "starting",
        Kind::Failure,
        503,
        Some(504),
        "This node has just started and does not serve yet.",
    ),
    row(Code::Behind, "behind", Kind::Failure, 503, Some(504), "This node has not applied that revision yet."),
    row(Code::NotLeader, "not_leader", Kind::Failure, 503, Some(504), "The leader is another node."),
    row(Code::Timeout, "timeout", Kind::Failure, 503, Some(504), "The deadline came before the outcome."),
    row(Code::Internal, "internal", Kind::Failure, 500, Some(500), "This is a bug, or a dying node."),
];

impl Code {
    /// Its row of the table.
    pub fn row(self) -> &'static Row {
        // The rows stand in the order of the codes; a test holds them to it.
        &TABLE[self as usize]
    }

    /// Whether the same request may be answered otherwise in a moment, with nobody doing anything about it.
    pub fn is_passing(self) -> bool {
        matches!(self.row().kind, Kind::Deferral | Kind::Failure)
    }

    pub fn parse(text: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.text == text).map(|row| row.code)
    }

    /// The HTTP status of a command's failure or refusal.
    pub fn status(self, certainty: Certainty) -> u16 {
        let row = self.row();
        match certainty {
            Certainty::NotApplied => row.status,
            Certainty::Unknown => row.unknown.unwrap_or(row.status),
        }
    }

    /// The HTTP status of a query's failure or refusal: a deadline is 504 here too, without a claim about an outcome.
    pub fn query_status(self) -> u16 {
        match self {
            Code::Timeout => 504,
            _ => self.row().status,
        }
    }

    /// What a command's answer with this code and status says. `claim` is its body's `outcome`.
    ///
    /// Anything that does not fit the table is unknown: a proxy's or another program's answer proves nothing.
    pub fn certainty(self, status: u16, claim: Option<Certainty>) -> Certainty {
        let row = self.row();
        let fits = match claim {
            Some(Certainty::NotApplied) => row.status == status || (self == Code::NotLeader && status == REDIRECT),
            Some(Certainty::Unknown) | None => false,
        };
        if fits { Certainty::NotApplied } else { Certainty::Unknown }
    }

    /// Whether the very same call may be sent again without doing harm and with a chance of another answer.
    pub fn retryable(self, certainty: Certainty, repeating_is_safe: bool) -> bool {
        match (self.row().kind, certainty) {
            (Kind::Refusal | Kind::Rejection, _) => false,
            (Kind::Deferral, _) | (Kind::Failure, Certainty::NotApplied) => true,
            (Kind::Failure, Certainty::Unknown) => repeating_is_safe,
        }
    }
}

/// The status of an answer that names the leader to a caller who asked for `forward=redirect`; its code is `not_leader`.
pub const REDIRECT: u16 = 307;

/// The code of a refusal.
pub fn refusal_code(refusal: &Refusal) -> Code {
    match refusal {
        Refusal::NameTaken { .. } => Code::NameTaken,
        Refusal::NotFound => Code::NotFound,
        Refusal::TokenStale { .. } => Code::TokenStale,
        Refusal::RevisionStale { .. } => Code::RevisionStale,
        Refusal::NameExists { .. } => Code::NameExists,
        Refusal::LeaseUnknown => Code::LeaseUnknown,
        Refusal::LeaseExpired => Code::LeaseExpired,
        Refusal::LeaseTaken => Code::LeaseTaken,
        Refusal::LeaseForeign => Code::LeaseForeign,
    }
}

/// The HTTP status of an outcome.
pub fn outcome_status(outcome: &Outcome) -> u16 {
    match outcome {
        Outcome::Granted { .. } | Outcome::LeaseCreated { .. } => 201,
        Outcome::Held { .. } | Outcome::LeaseHeld { .. } | Outcome::Ended(_) => 200,
        Outcome::Refused(refusal) => refusal_code(refusal).row().status,
    }
}

/// The table as text, a line for each row, for the guide.
pub fn printed() -> String {
    let mut text = String::from("code                 status  if unknown  sending it again    meaning\n");
    for row in TABLE {
        let unknown = match row.unknown {
            Some(status) => status.to_string(),
            None => "-".to_owned(),
        };
        let again = match row.kind {
            Kind::Refusal | Kind::Rejection => "same answer",
            Kind::Deferral => "safe",
            Kind::Failure => "safe / if safe",
        };
        writeln!(text, "{:<20} {:<7} {:<11} {:<19} {}", row.text, row.status, unknown, again, row.title)
            .expect("a String takes all");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_finds_its_own_row_and_its_text_finds_it_back() {
        for (at, row) in TABLE.iter().enumerate() {
            assert_eq!(row.code as usize, at);
            assert_eq!(row.code.row().code, row.code);
            assert_eq!(Code::parse(row.text), Some(row.code));
        }
    }

    #[test]
    fn a_503_never_hides_an_applied_write_and_a_504_never_claims_certainty() {
        for row in TABLE {
            assert_ne!(row.status, 504, "{}", row.text);
            assert!(!matches!(row.unknown, Some(429 | 503)), "{}", row.text);
        }
    }

    #[test]
    fn an_answer_off_the_table_is_unknown() {
        assert_eq!(Code::NoLeader.certainty(503, Some(Certainty::NotApplied)), Certainty::NotApplied);
        assert_eq!(Code::NoLeader.certainty(502, Some(Certainty::NotApplied)), Certainty::Unknown);
        assert_eq!(Code::NoLeader.certainty(503, None), Certainty::Unknown);
        assert_eq!(Code::Timeout.certainty(504, Some(Certainty::NotApplied)), Certainty::Unknown);
        assert_eq!(Code::Internal.certainty(500, Some(Certainty::NotApplied)), Certainty::NotApplied);
        assert_eq!(Code::Internal.certainty(500, None), Certainty::Unknown);
    }
}
