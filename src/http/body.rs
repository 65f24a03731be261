//! What a request carries: JSON, whatever its Content-Type says, within a length and by a deadline.

use std::time::Instant;

use axum::body::{Body, Bytes};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body as _;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use tokio::time::timeout_at;

use super::reply::Rejection;
use crate::model::ident::{IdentError, LeaseId, META_LEN_MAX, Meta};

/// The longest body, in bytes.
pub const BODY_LEN_MAX: usize = 1 << 20;

/// So much of a body that is too long is read and thrown away. A connection that is closed on what was not read is reset, and the
/// answer is lost with it (RFC 9112, 9.6).
const THROWN_AWAY_LEN_MAX: usize = 4 << 20;

/// The whole body. What is longer than allowed is refused by its announced length where there is one.
pub async fn read(mut body: Body, deadline: Instant) -> Result<Bytes, Rejection> {
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    if body.size_hint().lower() > BODY_LEN_MAX as u64 {
        return Err(too_large(&mut body, deadline).await);
    }
    match timeout_at(deadline.into(), Limited::new(&mut body, BODY_LEN_MAX).collect()).await {
        // A body that came in one piece is not copied.
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(&mut body, deadline).await),
        Ok(Err(error)) => Err(Rejection::malformed(format!("the body broke off: {error}"))),
        Err(_) => Err(Rejection::body_late()),
    }
}

async fn too_large(body: &mut Body, deadline: Instant) -> Rejection {
    if body.size_hint().lower() <= THROWN_AWAY_LEN_MAX as u64 {
        let mut rest = Limited::new(body, THROWN_AWAY_LEN_MAX);
        let _ = timeout_at(deadline.into(), async { while let Some(Ok(_)) = rest.frame().await {} }).await;
    }
    Rejection::too_large("a body may have 1 MiB at most")
}

/// A JSON object of the shape wanted.
pub fn json<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, Rejection> {
    if body.is_empty() {
        return Err(Rejection::malformed("the body is empty; a JSON object is wanted"));
    }
    // Structs could be read from arrays too, field by field: a shape that nobody means.
    let object = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    let shape = match serde_json::from_slice(body) {
        Ok(value) if object => return Ok(value),
        Err(error) if object => error.to_string(),
        Ok(_) | Err(_) => "a JSON object is wanted".to_owned(),
    };
    // The first thing that is wrong may be the shape, and what follows no JSON at all.
    if std::str::from_utf8(body).is_err() {
        return Err(Rejection::malformed("the body is not UTF-8"));
    }
    match serde_json::from_slice::<IgnoredAny>(body) {
        Ok(_) => Err(Rejection::wrong_shape(shape)),
        Err(error) => Err(Rejection::malformed(format!("the body is not JSON: {error}"))),
    }
}

/// The meta of a body; the empty object unless given.
pub fn meta(raw: Option<&RawValue>) -> Result<Meta, Rejection> {
    let Some(raw) = raw else { return Ok(Meta::empty()) };
    if raw.get().len() > META_LEN_MAX {
        return Err(Rejection::too_large("a meta may have 16 KiB at most"));
    }
    raw.get().parse().map_err(|why: IdentError| Rejection::wrong_shape(why.to_string()))
}

/// The lease of a body.
pub fn lease(text: Option<String>) -> Result<Option<LeaseId>, Rejection> {
    text.map(|text| text.parse().map_err(Rejection::ident)).transpose()
}
