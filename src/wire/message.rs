//! Messages: what sends them, what became of them, and how an inbox tells of them.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::write::bytes;

/// A message to send or to publish.
#[derive(Debug, Deserialize, ToSchema)]
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
    pub name: Option<&'a str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<&'a str>,
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

/// One event of an inbox, with the empty line that ends it. There is no id: what was missed is gone.
pub fn event(name: &str, body: &impl Serialize) -> Vec<u8> {
    let mut text = format!("event: {name}\ndata: ").into_bytes();
    text.extend_from_slice(&bytes(256, body));
    text.extend_from_slice(b"\n\n");
    text
}
