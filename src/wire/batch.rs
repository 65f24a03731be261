//! The JSON bodies of batches: `{"register":{…}}` and so on go in, one status each comes out.

use std::borrow::Cow;

use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::body::{EntryBody, ProblemBody};
use super::read::{self, Garbled};
use super::status::{Certainty, outcome_status};
use super::write::{EntryView, Problem, Raw, Text, bytes};
use crate::model::command::{Action, Condition};
use crate::model::entry::Entry;
use crate::model::ident::{IdentError, Meta, Mode, Revision, Token};
use crate::model::outcome::{Ended, Outcome};

/// What a batch sends.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchBody<'a> {
    /// 1 to 1,000 commands, applied in this order. A refused one stops none of the others; a malformed one refuses them all.
    #[serde(borrow)]
    #[schema(value_type = Vec<CommandBody<'a>>, min_items = 1, max_items = 1_000)]
    pub commands: Vec<&'a RawValue>,
}

/// One command of a batch.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CommandBody<'a> {
    #[serde(borrow)]
    Register(RegisterCommand<'a>),
    #[serde(borrow)]
    Unregister(UnregisterCommand<'a>),
    #[serde(borrow)]
    Join(JoinCommand<'a>),
    #[serde(borrow)]
    Leave(LeaveCommand<'a>),
}

/// As `PUT names/{name}`. Conditions exclude one another.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RegisterCommand<'a> {
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    #[serde(borrow)]
    pub owner: Cow<'a, str>,
    /// A JSON object of at most 16 KiB. `{}` unless given.
    #[serde(borrow, default)]
    #[schema(value_type = Option<Object>)]
    pub meta: Option<&'a RawValue>,
    /// The lease that the entry is to end with.
    #[serde(default)]
    pub lease: Option<String>,
    /// Register whoever holds the name.
    #[serde(default)]
    pub takeover: bool,
    /// Only if that grant still stands; another owner or lease is then a hand-over.
    #[serde(default)]
    pub token: Option<String>,
    /// A revision: only if the entry is unchanged since. `*`: only if there is one.
    #[serde(default)]
    pub if_match: Option<String>,
    /// `*`: only if there is no entry.
    #[serde(default)]
    pub if_none_match: Option<String>,
}

/// As `DELETE names/{name}`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UnregisterCommand<'a> {
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// The grant that is to end. Without: whatever stands there.
    #[serde(default)]
    pub token: Option<String>,
}

/// As `PUT groups/{group}/members/{member}`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinCommand<'a> {
    #[serde(borrow)]
    pub group: Cow<'a, str>,
    #[serde(borrow)]
    pub member: Cow<'a, str>,
    /// A JSON object of at most 16 KiB. `{}` unless given.
    #[serde(borrow, default)]
    #[schema(value_type = Option<Object>)]
    pub meta: Option<&'a RawValue>,
    /// The lease that the membership is to end with.
    #[serde(default)]
    pub lease: Option<String>,
}

/// As `DELETE groups/{group}/members/{member}`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LeaveCommand<'a> {
    #[serde(borrow)]
    pub group: Cow<'a, str>,
    #[serde(borrow)]
    pub member: Cow<'a, str>,
    /// The membership that is to end. Without: whatever stands there.
    #[serde(default)]
    pub token: Option<String>,
}

/// What became of a batch.
#[derive(Debug, Deserialize, ToSchema)]
pub struct BatchResultsBody<'a> {
    /// One for each command, in their order.
    #[serde(borrow)]
    #[schema(value_type = Vec<BatchResultBody>)]
    pub results: Vec<&'a RawValue>,
    pub revision: String,
}

/// What became of one command of a batch: with 201 and 200 the `entry`, or when it `ended`; else a problem. For the API's
/// description alone: [`read_results`] reads each by its command.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum BatchResultBody {
    Granted(GrantedBody),
    Ended(EndedResultBody),
    Refused(ProblemBody),
}

/// A grant that stands.
#[derive(Debug, Deserialize, ToSchema)]
pub struct GrantedBody {
    /// 201: a new grant. 200: the same owner and lease held it already.
    pub status: u16,
    pub entry: EntryBody,
}

/// A grant that has ended.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct EndedResultBody {
    pub status: u16,
    /// `now`: by this command. `before`: it had ended already, and nothing was done.
    #[schema(value_type = String, examples("now", "before"))]
    pub ended: Ended,
}

/// Why a command of a batch is none.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    #[error("{0}")]
    Ident(#[from] IdentError),
    #[error("takeover, token, if_match and if_none_match exclude one another")]
    Conditions,
    #[error("if_none_match takes * alone")]
    IfNoneMatch,
}

/// The command that one item of a batch stands for.
pub fn read_command(mode: Mode, item: &RawValue) -> Result<Action, Malformed> {
    Ok(match serde_json::from_str::<CommandBody>(item.get())? {
        CommandBody::Register(sent) => {
            let condition = condition(mode, &sent)?;
            let (meta, lease) = (meta(sent.meta)?, sent.lease.map(|id| id.parse()).transpose()?);
            Action::Register { name: sent.name.parse()?, owner: sent.owner.parse()?, meta, lease, condition }
        }
        CommandBody::Unregister(sent) => {
            Action::Unregister { name: sent.name.parse()?, token: token(mode, sent.token.as_deref())? }
        }
        CommandBody::Join(sent) => {
            let (meta, lease) = (meta(sent.meta)?, sent.lease.map(|id| id.parse()).transpose()?);
            Action::Join { group: sent.group.parse()?, member: sent.member.parse()?, meta, lease }
        }
        CommandBody::Leave(sent) => {
            let token = token(mode, sent.token.as_deref())?;
            Action::Leave { group: sent.group.parse()?, member: sent.member.parse()?, token }
        }
    })
}

fn meta(raw: Option<&RawValue>) -> Result<Meta, IdentError> {
    raw.map_or_else(|| Ok(Meta::empty()), |raw| raw.get().parse())
}

fn token(mode: Mode, text: Option<&str>) -> Result<Option<Token>, IdentError> {
    text.map(|text| Token::parse(mode, text)).transpose()
}

fn condition(mode: Mode, sent: &RegisterCommand) -> Result<Condition, Malformed> {
    let takeover = sent.takeover.then_some(Condition::Takeover);
    let token = token(mode, sent.token.as_deref())?.map(Condition::Token);
    let unchanged = match sent.if_match.as_deref() {
        None => None,
        Some("*") => Some(Condition::Present),
        Some(revision) => Some(Condition::Unchanged(Revision::parse(mode, revision)?)),
    };
    let absent = match sent.if_none_match.as_deref() {
        None => None,
        Some("*") => Some(Condition::Absent),
        Some(_) => return Err(Malformed::IfNoneMatch),
    };
    let mut conditions = [takeover, token, unchanged, absent].into_iter().flatten();
    match (conditions.next(), conditions.next()) {
        (condition, None) => Ok(condition.unwrap_or(Condition::Free)),
        (_, Some(_)) => Err(Malformed::Conditions),
    }
}

/// What a batch of these commands sends. None: there is a lease's among them, which no batch takes.
pub fn commands(actions: &[Action]) -> Option<Vec<u8>> {
    #[derive(Serialize)]
    struct Batch<'a> {
        commands: Vec<CommandView<'a>>,
    }
    let commands = actions.iter().map(CommandView::of).collect::<Option<_>>()?;
    Some(bytes(128 * (1 + actions.len()), &Batch { commands }))
}

/// Writes what [`CommandBody`] reads.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum CommandView<'a> {
    Register {
        name: &'a str,
        owner: &'a str,
        meta: Raw<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        lease: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        takeover: Option<bool>,
        #[serde(skip_serializing_if = "Option::is_none")]
        token: Option<Text<'a, Token>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        if_match: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        if_none_match: Option<&'static str>,
    },
    Unregister {
        name: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        token: Option<Text<'a, Token>>,
    },
    Join {
        group: &'a str,
        member: &'a str,
        meta: Raw<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        lease: Option<&'a str>,
    },
    Leave {
        group: &'a str,
        member: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        token: Option<Text<'a, Token>>,
    },
}

impl<'a> CommandView<'a> {
    fn of(action: &'a Action) -> Option<Self> {
        Some(match action {
            Action::Register { name, owner, meta, lease, condition } => {
                let (mut takeover, mut token, mut if_match, mut if_none_match) = (None, None, None, None);
                match condition {
                    Condition::Free => {}
                    Condition::Takeover => takeover = Some(true),
                    Condition::Token(grant) => token = Some(Text(grant)),
                    Condition::Unchanged(revision) => if_match = Some(revision.to_string()),
                    Condition::Present => if_match = Some("*".to_owned()),
                    Condition::Absent => if_none_match = Some("*"),
                }
                let lease = lease.as_ref().map(|id| id.as_str());
                let (name, owner, meta) = (name.as_str(), owner.as_str(), Raw(meta));
                CommandView::Register { name, owner, meta, lease, takeover, token, if_match, if_none_match }
            }
            Action::Unregister { name, token } => {
                CommandView::Unregister { name: name.as_str(), token: token.as_ref().map(Text) }
            }
            Action::Join { group, member, meta, lease } => CommandView::Join {
                group: group.as_str(),
                member: member.as_str(),
                meta: Raw(meta),
                lease: lease.as_ref().map(|id| id.as_str()),
            },
            Action::Leave { group, member, token } => {
                CommandView::Leave { group: group.as_str(), member: member.as_str(), token: token.as_ref().map(Text) }
            }
            Action::CreateLease { .. } | Action::RevokeLease { .. } => return None,
        })
    }
}

/// The answer to a batch.
pub fn results(outcomes: &[Outcome], revision: &Revision) -> Vec<u8> {
    #[derive(Serialize)]
    struct Results<'a> {
        results: Vec<ResultView<'a>>,
        revision: Text<'a, Revision>,
    }
    let mode = match revision {
        Revision::Cp(_) => Mode::Cp,
        Revision::Ap(_) => Mode::Ap,
    };
    let results = outcomes.iter().map(|outcome| ResultView { outcome, mode }).collect();
    bytes(256 * (1 + outcomes.len()), &Results { results, revision: Text(revision) })
}

/// Writes a [`BatchResultBody`].
struct ResultView<'a> {
    outcome: &'a Outcome,
    mode: Mode,
}

impl Serialize for ResultView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let status = outcome_status(self.outcome);
        let granted = |serializer: S, entry: &Entry, hides| {
            let mut body = serializer.serialize_struct("Granted", 2)?;
            body.serialize_field("status", &status)?;
            body.serialize_field("entry", &EntryView { entry, hides })?;
            body.end()
        };
        match self.outcome {
            Outcome::Granted { entry, hides } => granted(serializer, entry, hides.as_ref()),
            Outcome::Held { entry } => granted(serializer, entry, None),
            Outcome::Ended(ended) => EndedResultBody { status, ended: *ended }.serialize(serializer),
            Outcome::Refused(refusal) => {
                Problem::refused(refusal, Some(Certainty::NotApplied)).of_mode(self.mode).serialize(serializer)
            }
            Outcome::LeaseCreated { .. } | Outcome::LeaseHeld { .. } => {
                unreachable!("a batch holds no command of a lease")
            }
        }
    }
}

/// Reads what [`results`] wrote of these commands.
pub fn read_results(mode: Mode, actions: &[Action], body: &[u8]) -> Result<Vec<Outcome>, Garbled> {
    #[derive(Deserialize)]
    struct One<'a> {
        status: u16,
        #[serde(borrow)]
        entry: Option<&'a RawValue>,
    }
    let read: BatchResultsBody = serde_json::from_slice(body)?;
    if read.results.len() != actions.len() {
        return Err(Garbled::Count { wanted: actions.len(), found: read.results.len() });
    }
    let outcome = |(action, raw): (&Action, &&RawValue)| {
        let body = raw.get().as_bytes();
        let One { status, entry } = serde_json::from_slice(body)?;
        if status < 300 {
            return read::outcome(mode, action, status, entry.map_or(body, |entry| entry.get().as_bytes()));
        }
        let refusal = read::refusal(mode, &read::problem(mode, body)?)?;
        refusal.map(Outcome::Refused).ok_or(Garbled::Status(status))
    };
    actions.iter().zip(&read.results).map(outcome).collect()
}
