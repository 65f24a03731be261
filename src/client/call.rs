//! One request, one answer, one deadline. Never a retry, never a redirect: whoever records a history has to know what happened
//! to each single call.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, HOST};
use hyper::{Method, Request};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};

use super::access::Access;
use super::connection::{Answered, Begun, Broken, Connection};
use super::endpoint::{BadUrl, Endpoint};
use super::request::Prepared;
use super::{judge, request};
use crate::model::command::Action;
use crate::model::ident::{Mode, NodeId, Revision};
use crate::model::outcome::Outcome;
use crate::model::query::{Answer, Query};
use crate::registry::{Consistency, Reason, Reply};
use crate::wire::cluster::{AcknowledgedBody, ClusterBody, ConflictsBody, FaultsBody, ProbeBody, ReadyBody};
use crate::wire::path::quote;
use crate::wire::status::Code;

/// How a call is to be made. What does not concern a call of its kind or mode has no effect.
#[derive(Clone, Debug)]
pub struct CallOptions {
    /// When the call ends, whatever has come by then. The server is told to answer a little earlier.
    pub timeout: Duration,
    /// How much of that a new connection may take to come about.
    pub connect_timeout: Duration,
    /// Commands of `ap`: how many nodes are to have it before the answer.
    pub acks: Option<usize>,
    /// Queries; the mode's default unless given.
    pub consistency: Option<Consistency>,
    /// Queries: wait until the node has applied that much.
    pub min_revision: Option<Revision>,
    /// Look-ups and lists of `ap`: entries, too, that the node hides.
    pub include_hidden: bool,
    /// `cp`: whether the node may pass the call on to the leader. If not, the call fails with [`Reason::NotLeader`].
    pub forward: bool,
}

impl Default for CallOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(2),
            connect_timeout: Duration::MAX,
            acks: None,
            consistency: None,
            min_revision: None,
            include_hidden: false,
            forward: true,
        }
    }
}

pub(super) fn within(timeout: Duration) -> CallOptions {
    CallOptions { timeout, ..CallOptions::default() }
}

/// A command without an outcome.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    #[error("not applied: {0}")]
    NotApplied(Cause),
    #[error("unknown, perhaps applied: {0}")]
    Unknown(Cause),
}

/// Why no outcome or answer came.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// The server says why.
    #[error("{}", judge::told(.0))]
    Server(Reason),
    /// The server does not take such a request.
    #[error("{} {}: {}", .code.row().status, .code.row().text, .detail)]
    Rejected { code: Code, detail: String },
    /// No connection: nothing was sent.
    #[error("no connection to the server: {0}")]
    Unreachable(String),
    /// The connection broke after something was sent.
    #[error("the connection broke: {0}")]
    Lost(String),
    #[error("the deadline came first")]
    Late,
    /// What answered is not a server of this API, or there is something in between.
    #[error("the answer cannot be read: {0}")]
    Garbled(String),
}

/// A server, as its client sees it. Connections are kept between calls; as many calls as wanted may be under way at once.
#[derive(Debug)]
pub struct Caller {
    endpoint: Endpoint,
    idle: Mutex<Vec<Connection>>,
}

impl Caller {
    /// A server at `http://HOST:PORT`, shown no credential. Nothing is sent yet.
    pub fn new(base_url: &str) -> Result<Self, BadUrl> {
        Self::with_access(base_url, &Access::default())
    }

    /// A server at `http://HOST:PORT` or `https://HOST:PORT`. Nothing is sent yet.
    pub fn with_access(base_url: &str, access: &Access) -> Result<Self, BadUrl> {
        Ok(Self { endpoint: Endpoint::parse(base_url, access)?, idle: Mutex::default() })
    }

    /// Carries out one command.
    pub async fn execute(
        &self,
        mode: Mode,
        action: &Action,
        options: &CallOptions,
    ) -> Result<Reply<Outcome>, CommandError> {
        let prepared = request::command(mode, action, options);
        judge::outcome(mode, action, &self.exchange(prepared, options).await?)
    }

    /// Asks one question.
    pub async fn query(&self, mode: Mode, query: &Query, options: &CallOptions) -> Result<Reply<Answer>, Cause> {
        let prepared = request::query(mode, query, options);
        let answered = self.exchange(prepared, options).await.map_err(Broken::cause)?;
        judge::answer(mode, query, &answered)
    }

    /// The cluster as that node sees it.
    pub async fn cluster(&self, timeout: Duration) -> Result<ClusterBody, Cause> {
        self.plain(Method::GET, "/v1/cluster?", None::<&()>, timeout).await
    }

    /// One page of the conflict records that the node knows.
    pub async fn conflicts(
        &self,
        after: Option<&str>,
        limit: usize,
        timeout: Duration,
    ) -> Result<ConflictsBody, Cause> {
        let path = match after {
            Some(after) => format!("/v1/ap/conflicts?limit={limit}&after={}&", quote(after)),
            None => format!("/v1/ap/conflicts?limit={limit}&"),
        };
        self.plain(Method::GET, &path, None::<&()>, timeout).await
    }

    /// Acknowledges a conflict record. Doing so again does no harm.
    pub async fn acknowledge_conflict(&self, id: &str, timeout: Duration) -> Result<(), Cause> {
        let path = format!("/v1/ap/conflicts/{}/ack?", quote(id));
        self.plain(Method::POST, &path, None::<&()>, timeout).await.map(|AcknowledgedBody { acknowledged: _ }| ())
    }

    /// The faults in force at the node.
    pub async fn faults(&self, timeout: Duration) -> Result<FaultsBody, Cause> {
        self.plain(Method::GET, "/v1/faults?", None::<&()>, timeout).await
    }

    /// Puts these faults, and no others, in force at the node. None at all heals it.
    pub async fn set_faults(&self, faults: &FaultsBody, timeout: Duration) -> Result<FaultsBody, Cause> {
        self.plain(Method::PUT, "/v1/faults?", Some(faults), timeout).await
    }

    /// Which peers answer the node within `wait`, over TCP and UDP, through the faults in force. Its answer takes as long as that
    /// if one of them does not, and may take up to `timeout` to arrive.
    pub async fn probe(&self, wait: Duration, timeout: Duration) -> Result<BTreeMap<NodeId, ProbeBody>, Cause> {
        let path = format!("/v1/faults/probe?timeout_ms={}", wait.as_millis());
        let prepared = Prepared { method: Method::GET, path, headers: Vec::new(), body: Vec::new() };
        let answered = self.exchange(prepared, &within(timeout)).await.map_err(Broken::cause)?;
        judge::plain(&answered)
    }

    /// Whether the node serves: this mode, or at all.
    pub async fn ready(&self, mode: Option<Mode>, timeout: Duration) -> Result<ReadyBody, Cause> {
        let path = match mode {
            Some(mode) => format!("/readyz?mode={mode}&"),
            None => "/readyz?".to_owned(),
        };
        self.plain(Method::GET, &path, None::<&()>, timeout).await
    }

    /// One JSON body posted to a server of another API; status and body of its answer as they came. [`CommandError::Unknown`] only if
    /// something of the request may have left.
    pub async fn post(
        &self,
        path: &str,
        body: &impl Serialize,
        timeout: Duration,
    ) -> Result<(u16, Bytes), CommandError> {
        let body =
            serde_json::to_vec(body).map_err(|error| CommandError::NotApplied(Cause::Garbled(error.to_string())))?;
        let prepared = Prepared { method: Method::POST, path: path.to_owned(), headers: Vec::new(), body };
        let answered = self.exchange(prepared, &within(timeout)).await?;
        Ok((answered.status, answered.body))
    }

    /// `path` ends where another parameter may follow.
    async fn plain<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
        timeout: Duration,
    ) -> Result<T, Cause> {
        let prepared = request::plain(method, path, body, timeout);
        let answered = self.exchange(prepared, &within(timeout)).await.map_err(Broken::cause)?;
        judge::plain(&answered)
    }

    pub(super) async fn exchange(&self, prepared: Prepared, options: &CallOptions) -> Result<Answered, Broken> {
        let now = Instant::now();
        let connect = now + options.connect_timeout.min(options.timeout);
        let request = self.http(prepared)?;
        let mut sent = false;
        let answered = timeout_at(now + options.timeout, self.attempt(request, connect, &mut sent)).await;
        match answered {
            Ok(answered) => answered,
            Err(_) if sent => Err(Broken::Sent(Cause::Late)),
            Err(_) => Err(Broken::Unsent(Cause::Late)),
        }
    }

    /// One request whose answer may go on, over a connection of its own.
    pub(super) async fn stream(&self, prepared: Prepared, timeout: Duration) -> Result<Begun, Cause> {
        let deadline = Instant::now() + timeout;
        let request = self.http(prepared).map_err(Broken::cause)?;
        let begun = async { self.connect(deadline).await?.begin(request).await };
        timeout_at(deadline, begun).await.unwrap_or(Err(Cause::Late))
    }

    fn http(&self, prepared: Prepared) -> Result<Request<Full<Bytes>>, Broken> {
        let mut builder =
            Request::builder().method(prepared.method).uri(prepared.path).header(HOST, &self.endpoint.authority);
        if let Some(credential) = &self.endpoint.credential {
            builder = builder.header(AUTHORIZATION, credential);
        }
        for (name, value) in prepared.headers {
            builder = builder.header(name, value);
        }
        builder.body(Full::new(Bytes::from(prepared.body))).map_err(|error| {
            Broken::Unsent(Cause::Unreachable(format!("the request cannot be put into HTTP: {error}")))
        })
    }

    /// A kept connection that turns out dead before anything was sent is passed over; that is no retry.
    async fn attempt(
        &self,
        mut request: Request<Full<Bytes>>,
        connect: Instant,
        sent: &mut bool,
    ) -> Result<Answered, Broken> {
        while let Some(mut kept) = self.take() {
            if !kept.is_ready().await {
                continue;
            }
            *sent = true;
            match kept.exchange(request).await {
                Ok(answered) => return Ok(self.keep(kept, answered)),
                Err((Some(unsent), _)) => request = unsent,
                Err((None, why)) => return Err(Broken::Sent(why)),
            }
            *sent = false;
        }
        let mut fresh = self.connect(connect).await.map_err(Broken::Unsent)?;
        *sent = true;
        match fresh.exchange(request).await {
            Ok(answered) => Ok(self.keep(fresh, answered)),
            Err((Some(_), why)) => Err(Broken::Unsent(why)),
            Err((None, why)) => Err(Broken::Sent(why)),
        }
    }

    async fn connect(&self, deadline: Instant) -> Result<Connection, Cause> {
        let opened = timeout_at(deadline, Connection::open(&self.endpoint)).await;
        let mut fresh = opened.unwrap_or_else(|_| Err(Cause::Unreachable("it took too long".to_owned())))?;
        match fresh.is_ready().await {
            true => Ok(fresh),
            false => Err(Cause::Unreachable("the connection was closed at once".to_owned())),
        }
    }

    fn take(&self) -> Option<Connection> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn keep(&self, connection: Connection, answered: Answered) -> Answered {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        answered
    }
}
