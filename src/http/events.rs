//! How the API's description tells of the events of a stream: the schema of `text/event-stream` is that of one event, its `data` JSON in
//! a text.

use std::borrow::Cow;

use serde_json::{Value, json};
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::openapi::{Ref, RefOr};
use utoipa::{PartialSchema, ToSchema};

use crate::wire::event::{ChangesBody, PositionBody, StateBody};
use crate::wire::message::{GapBody, LetterBody};

/// One event of a watch.
pub struct WatchEvent;

/// One event of an inbox.
pub struct InboxEvent;

impl PartialSchema for WatchEvent {
    fn schema() -> RefOr<Schema> {
        one_of(
            "One event of a watch. `id`: where one may go on from, as far as the stream has told.",
            &[
                event::<StateBody>(&["state"]),
                event::<ChangesBody>(&["change"]),
                event::<PositionBody>(&["synced", "progress", "stalled", "resync", "overflow"]),
            ],
        )
    }
}

impl ToSchema for WatchEvent {
    fn name() -> Cow<'static, str> {
        "WatchEvent".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        add::<StateBody>(schemas);
        add::<ChangesBody>(schemas);
        add::<PositionBody>(schemas);
    }
}

impl PartialSchema for InboxEvent {
    fn schema() -> RefOr<Schema> {
        one_of("One event of an inbox.", &[event::<LetterBody>(&["message"]), event::<GapBody>(&["gap"])])
    }
}

impl ToSchema for InboxEvent {
    fn name() -> Cow<'static, str> {
        "InboxEvent".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        add::<LetterBody>(schemas);
        add::<GapBody>(schemas);
    }
}

fn add<T: ToSchema>(schemas: &mut Vec<(String, RefOr<Schema>)>) {
    schemas.push((T::name().into_owned(), T::schema()));
    T::schemas(schemas);
}

/// What the library that writes the description has no words for is put into it as JSON.
fn one_of(description: &str, events: &[Value]) -> RefOr<Schema> {
    let more = Extensions::from_iter([("oneOf", json!(events))]);
    ObjectBuilder::new().schema_type(Type::Object).description(Some(description)).extensions(Some(more)).into()
}

fn event<T: ToSchema>(names: &[&str]) -> Value {
    let data = serde_json::to_value(Ref::from_schema_name(T::name())).expect("a reference is plain data");
    json!({
        "required": ["event", "data"],
        "properties": {
            "event": { "type": "string", "enum": names },
            "id": { "type": "string" },
            "data": { "type": "string", "contentMediaType": "application/json", "contentSchema": data },
        },
    })
}
