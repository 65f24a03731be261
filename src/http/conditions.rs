//! When a registration may go through: `takeover`, `token`, `If-Match` and `If-None-Match`, at most one of them.

use axum::http::header::{HeaderMap, HeaderName, IF_MATCH, IF_NONE_MATCH};

use super::levels::flag;
use super::params::Params;
use super::reply::Rejection;
use crate::model::command::Condition;
use crate::model::ident::{Mode, Revision, Token};

/// The condition of a registration.
pub fn of_registration(mode: Mode, params: &mut Params, headers: &HeaderMap) -> Result<Condition, Rejection> {
    let takeover = flag(params, "takeover")?.then_some(Condition::Takeover);
    let token = params.parsed("token", |text| Token::parse(mode, text))?.map(Condition::Token);
    let unchanged = single(headers, &IF_MATCH)?.map(|tag| if_match(mode, tag)).transpose()?;
    let absent = single(headers, &IF_NONE_MATCH)?.map(if_none_match).transpose()?;
    let mut conditions = [takeover, token, unchanged, absent].into_iter().flatten();
    match (conditions.next(), conditions.next()) {
        (None, _) => Ok(Condition::Free),
        (Some(condition), None) => Ok(condition),
        (Some(_), Some(_)) => {
            Err(Rejection::malformed("takeover, token, If-Match and If-None-Match exclude one another"))
        }
    }
}

/// Refuses preconditions where there are none: passing over one would do what the caller meant to prevent.
pub fn none(headers: &HeaderMap) -> Result<(), Rejection> {
    for name in [IF_MATCH, IF_NONE_MATCH] {
        if headers.contains_key(&name) {
            return Err(Rejection::malformed(format!("{name} has no meaning here; a grant is named by token=")));
        }
    }
    Ok(())
}

fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, Rejection> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().map(|value| value.to_str().map(str::trim));
    match (value, values.next()) {
        (None, _) => Ok(None),
        (Some(Ok(text)), None) => Ok(Some(text)),
        (Some(Err(_)), None) => Err(Rejection::malformed(format!("{name} is not visible ASCII"))),
        (Some(_), Some(_)) => Err(Rejection::malformed(format!("{name} is given twice"))),
    }
}

fn if_match(mode: Mode, tag: &str) -> Result<Condition, Rejection> {
    if tag == "*" {
        return Ok(Condition::Present);
    }
    let revision = tag
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .filter(|revision| !revision.contains('"'))
        .ok_or_else(|| Rejection::malformed("If-Match takes * or one strong ETag: a revision in double quotes"))?;
    let revision =
        Revision::parse(mode, revision).map_err(|why| Rejection::malformed(format!("If-Match: {tag}: {why}")))?;
    Ok(Condition::Unchanged(revision))
}

fn if_none_match(tag: &str) -> Result<Condition, Rejection> {
    match tag {
        "*" => Ok(Condition::Absent),
        _ => Err(Rejection::malformed("If-None-Match takes * alone")),
    }
}
