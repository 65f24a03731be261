//! One registry behind the routes: a call goes in with its deadline, and an answer comes out by then.

use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{Method, Response};
use tokio::time::timeout_at;

use super::params::Params;
use super::reply::{Rejection, Shape};
use super::{Shared, body, conditions, levels};
use crate::model::command::Action;
use crate::model::ident::{IdentError, Mode, Token};
use crate::model::query::{PAGE_LIMIT_DEFAULT, PAGE_LIMIT_MAX, Page, Query};
use crate::registry::{CommandFailure, QueryFailure, Reason, Registry};
use crate::wire::path::unquote;

/// How long after its deadline a call is given up, if the registry has not answered by then. A registry knows its deadline and
/// what it has done by then; this is for the case that it does not keep it.
const GRACE: Duration = Duration::from_millis(250);

/// One mode's registry, as the routes see it.
pub struct Mount {
    pub mode: Mode,
    registry: Arc<dyn Registry>,
    pub(super) shared: Arc<Shared>,
}

/// What a handler makes a command or query of.
pub struct Incoming<'r> {
    pub mode: Mode,
    pub parts: &'r Parts,
    pub params: Params<'r>,
    /// Empty where the route takes none.
    pub body: Bytes,
}

impl Mount {
    pub(super) fn new(mode: Mode, shared: Arc<Shared>) -> Arc<Self> {
        let registry = match mode {
            Mode::Cp => shared.state.cp.clone(),
            Mode::Ap => shared.state.ap.clone(),
        };
        Arc::new(Self { mode, registry, shared })
    }

    /// Carries out the command that `build` makes of the request.
    pub async fn command(
        self: &Arc<Self>,
        request: Request,
        known: &[&'static str],
        build: impl FnOnce(&mut Incoming) -> Result<Action, Rejection>,
    ) -> Response<Body> {
        let arrived = Instant::now();
        let (parts, body) = request.into_parts();
        let read = async {
            let mut params = Params::parse(parts.uri.query(), known)?;
            let call = levels::of_command(self.mode, &mut params, arrived)?;
            // A DELETE's body would have no meaning.
            let body = if parts.method == Method::PUT { body::read(body, call.deadline).await? } else { Bytes::new() };
            let action = build(&mut Incoming { mode: self.mode, parts: &parts, params, body })?;
            Ok((action, call))
        };
        let (action, call) = match read.await {
            Ok(read) => read,
            Err(rejection) => return self.rejected(&parts.method, &rejection),
        };
        let repeating_is_safe = action.retry_is_safe();
        let result = timeout_at((call.deadline + GRACE).into(), self.registry.execute(action, &call))
            .await
            .unwrap_or(Err(CommandFailure::Unknown(Reason::Timeout)));
        self.outcome(&parts.uri, result, repeating_is_safe)
    }

    /// Answers the query that `build` makes of the request.
    pub async fn query(
        self: &Arc<Self>,
        request: Request,
        known: &[&'static str],
        build: impl FnOnce(&mut Incoming) -> Result<(Query, Shape), Rejection>,
    ) -> Response<Body> {
        let arrived = Instant::now();
        let (parts, _) = request.into_parts();
        let read = || {
            let mut params = Params::parse(parts.uri.query(), known)?;
            let call = levels::of_query(self.mode, &mut params, arrived)?;
            let (query, shape) = build(&mut Incoming { mode: self.mode, parts: &parts, params, body: Bytes::new() })?;
            Ok((query, shape, call))
        };
        let (query, shape, call) = match read() {
            Ok(read) => read,
            Err(rejection) => return self.rejected(&parts.method, &rejection),
        };
        let result = timeout_at((call.deadline + GRACE).into(), self.registry.query(query, &call))
            .await
            .unwrap_or(Err(QueryFailure(Reason::Timeout)));
        self.answer(&parts.uri, &shape, result)
    }
}

impl Incoming<'_> {
    /// The word in the path's segment that is so many from its end; 0 is the last one.
    pub fn segment<T: FromStr<Err = IdentError>>(&self, from_end: usize) -> Result<T, Rejection> {
        let quoted = self.parts.uri.path().rsplit('/').nth(from_end).unwrap_or_default();
        let text = unquote(quoted).map_err(|why| Rejection::malformed(format!("the path cannot be read: {why}")))?;
        text.parse().map_err(Rejection::ident)
    }

    pub fn token(&mut self) -> Result<Option<Token>, Rejection> {
        let mode = self.mode;
        self.params.parsed("token", |text| Token::parse(mode, text))
    }

    /// Refuses `If-Match` and the like on commands that know none.
    pub fn no_conditions(&self) -> Result<(), Rejection> {
        conditions::none(&self.parts.headers)
    }

    /// `prefix`, `after`, `limit`.
    pub fn page(&mut self) -> Result<Page, Rejection> {
        let limit = self.params.number("limit", 1, PAGE_LIMIT_MAX as u64)?;
        Ok(Page {
            prefix: self.params.take("prefix").unwrap_or_default().into_owned(),
            after: self.params.take("after").map(|after| after.into_owned()),
            limit: limit.map_or(PAGE_LIMIT_DEFAULT, |limit| limit as usize),
        })
    }
}
