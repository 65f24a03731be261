//! Messages: what sends them, what became of them, and how an inbox tells of them.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::read::Garbled;

/// A message to send or to publish.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MessageBody<'a> {
    /// Any JSON, at most 64 KiB.
    #[serde(borrow)]
    #[schema(value_type = serde_json::Value)]
    pub message: &'a RawValue,
}

/// What became of a message.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct SentBody {
    /// How many inboxes have taken it, as far as the nodes have said so in time.
    pub receivers: u64,
}

/// `event: message`: a message to a name that the inbox's owner holds, or to a group that it is a member of.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct LetterBody<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Cow<'a, str>>,
    /// The grant that it was sent to.
    pub token: String,
    #[serde(borrow)]
    #[schema(value_type = serde_json::Value)]
    pub message: &'a RawValue,
}

/// `event: gap`: so many messages are missing here, for this reader was too slow.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct GapBody {
    pub lost: u64,
}

/// How many inboxes have a message, as the body of the answer says.
pub fn read_sent(body: &[u8]) -> Result<u64, Garbled> {
    let SentBody { receivers } = serde_json::from_slice(body)?;
    Ok(receivers)
}
