//! One registry behind the routes: a call goes in with its deadline, and an answer comes out by then.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{Method, Response};

use super::caller::Caller;
use super::grace::by;
use super::params::Params;
use super::reply::{Rejection, Shape};
use super::{Shared, body, conditions, levels, pieces, rights};
use crate::messages::Address;
use crate::model::command::Action;
use crate::model::ident::{IdentError, Mode, Revision, Token};
use crate::model::lease::KeptAlive;
use crate::model::outcome::{Outcome, Refusal};
use crate::model::query::{Answer, PAGE_LIMIT_DEFAULT, PAGE_LIMIT_MAX, Page, Query};
use crate::registry::{
    CommandCall, CommandFailure, KeepAlive, QueryCall, QueryFailure, Reason, Registry, Reply, Watch, WatchFailure,
    Watching,
};
use crate::wire::path::unquote;

/// Nothing is known of a command without an answer.
const LATE: CommandFailure = CommandFailure::Unknown(Reason::Timeout);

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

    /// What `build` makes of a request that changes something, and how it is to be carried out.
    pub async fn read_command<T>(
        &self,
        parts: &Parts,
        body: Body,
        known: &[&'static str],
        build: impl FnOnce(&mut Incoming) -> Result<T, Rejection>,
    ) -> Result<(T, CommandCall), Rejection> {
        let arrived = Instant::now();
        let mut params = Params::parse(parts.uri.query(), known)?;
        let call = levels::of_command(self.mode, &mut params, arrived)?;
        // A DELETE's body would have no meaning.
        let takes_body = matches!(parts.method, Method::PUT | Method::POST);
        let body = if takes_body { body::read(body, call.deadline).await? } else { Bytes::new() };
        let built = build(&mut Incoming { mode: self.mode, parts, params, body })?;
        Ok((built, call))
    }

    /// Carries out the command that `build` makes of the request.
    pub async fn command(
        &self,
        request: Request,
        known: &[&'static str],
        build: impl FnOnce(&mut Incoming) -> Result<Action, Rejection>,
    ) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let allowed = |incoming: &mut Incoming| {
            let action = build(incoming)?;
            rights::to_do(&incoming.caller(), &action)?;
            Ok(action)
        };
        let (action, call) = match self.read_command(&parts, body, known, allowed).await {
            Ok(read) => read,
            Err(rejection) => return self.rejected(&parts.method, &rejection),
        };
        let repeating_is_safe = action.retry_is_safe();
        let result = self.execute(action, &call).await;
        self.outcome(&parts.uri, result, repeating_is_safe)
    }

    /// Answers the query that `build` makes of the request.
    pub async fn query(
        &self,
        request: Request,
        known: &[&'static str],
        build: impl FnOnce(&mut Incoming) -> Result<(Query, Shape), Rejection>,
    ) -> Response<Body> {
        let arrived = Instant::now();
        let (parts, _) = request.into_parts();
        let read = || {
            let mut params = Params::parse(parts.uri.query(), known)?;
            let call = levels::of_query(self.mode, &mut params, arrived)?;
            if let Some(revision) = &call.min_revision {
                self.told_once("min_revision", revision)?;
            }
            let mut incoming = Incoming { mode: self.mode, parts: &parts, params, body: Bytes::new() };
            let (query, shape) = build(&mut incoming)?;
            rights::to_ask(&incoming.caller(), &query)?;
            Ok((query, shape, call))
        };
        let (query, shape, call) = match read() {
            Ok(read) => read,
            Err(rejection) => return self.rejected(&parts.method, &rejection),
        };
        let caller = Caller::of(&parts);
        let asked = self.ask(query, &call, &caller);
        let result = by(call.deadline, QueryFailure(Reason::Timeout), asked).await;
        self.answer(&parts.uri, &shape, result)
    }

    /// Refuses a revision that this registry cannot have told, such as one of the other mode.
    pub fn told_once(&self, parameter: &str, revision: &Revision) -> Result<(), Rejection> {
        match self.registry.may_have_told(revision) {
            true => Ok(()),
            false => Err(Rejection::malformed(format!(
                "{parameter}={revision}: no {} revision looks like that; they are told in answers and events",
                self.mode
            ))),
        }
    }

    /// What the registry answers, as far as the caller may see it.
    async fn ask(&self, query: Query, call: &QueryCall, caller: &Caller) -> Result<Reply<Answer>, QueryFailure> {
        if let Some(reply) = pieces::ask(&*self.registry, &query, call, caller).await {
            return reply;
        }
        let reply = self.registry.query(query, call).await?;
        Ok(Reply { value: rights::answer(reply.value, caller), ..reply })
    }

    /// Hands a command to the registry.
    pub async fn execute(&self, action: Action, call: &CommandCall) -> Result<Reply<Outcome>, CommandFailure> {
        by(call.deadline, LATE, self.registry.execute(action, call)).await
    }

    /// Hands a batch to the registry.
    pub async fn batch(&self, actions: Vec<Action>, call: &CommandCall) -> Result<Reply<Vec<Outcome>>, CommandFailure> {
        by(call.deadline, LATE, self.registry.batch(actions, call)).await
    }

    /// Hands leases to the registry that are to be kept alive.
    pub async fn keep_alive(
        &self,
        keep: KeepAlive,
        call: &CommandCall,
    ) -> Result<Reply<Vec<Result<KeptAlive, Refusal>>>, CommandFailure> {
        by(call.deadline, LATE, self.registry.keep_alive(keep, call)).await
    }

    /// Hands a message to the post.
    pub async fn send(
        &self,
        to: Address,
        text: Arc<str>,
        call: &CommandCall,
    ) -> Result<Reply<Option<u64>>, CommandFailure> {
        by(call.deadline, LATE, self.shared.state.messages.send(self.mode, to, text, call.deadline)).await
    }

    /// Begins to watch.
    pub async fn watch(&self, watch: Watch, deadline: Instant) -> Result<Box<dyn Watching>, WatchFailure> {
        by(deadline, WatchFailure::Failed(Reason::Timeout), self.registry.watch(watch, deadline)).await
    }
}

impl Incoming<'_> {
    pub fn caller(&self) -> Caller {
        Caller::of(self.parts)
    }

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
