//! The client of a cluster: several servers, one of which answers.

use std::sync::Arc;
use std::time::Duration;

use super::access::{Access, BadAccess, Identity};
use super::call::{CallOptions, Caller, Cause, CommandError};
use super::endpoint::BadUrl;
use super::error::Error;
use super::failover::{Servers, Tries};
use crate::model::command::Action;
use crate::model::ident::{Mode, RecordId, Revision};
use crate::model::outcome::{Outcome, Refusal};
use crate::model::query::{Answer, Query};
use crate::registry::{Consistency, Reply};
use crate::wire::cluster::{ClusterBody, ConflictsBody};
use crate::wire::status::Code;

/// A registry, as its users call it. Cheap to clone; clones share their connections.
///
/// A call goes to the server that answered last. If that one cannot help, the call goes on to the next one, as long as there is time and
/// no harm can come of it: what was surely not applied may always be sent again, what was perhaps applied only if the
/// command is [safe to repeat](Action::retry_is_safe). Every call ends by its deadline.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use quorate::client::client::Client;
/// use quorate::model::ident::Mode;
///
/// let client = Client::builder()
///     .endpoints(["http://127.0.0.1:7401", "http://127.0.0.1:7402"])
///     .mode(Mode::Cp)
///     .build()?;
/// let granted = client.register("billing", "worker-1").send().await?;
/// println!("token {}", granted.entry.token);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    servers: Arc<Servers>,
    mode: Mode,
    options: CallOptions,
    once: bool,
}

/// What a [`Client`] is made of.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    endpoints: Vec<String>,
    mode: Option<Mode>,
    timeout: Option<Duration>,
    credential: Option<String>,
    roots: Option<Vec<u8>>,
    identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// Why there is no client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    #[error("a client needs at least one endpoint")]
    NoEndpoint,
    #[error("{0}")]
    Url(#[from] BadUrl),
    #[error("{0}")]
    Access(#[from] BadAccess),
}

impl Builder {
    /// Servers of one cluster: `http://HOST:PORT` or `https://HOST:PORT`. The first is asked first.
    pub fn endpoints<T: Into<String>>(mut self, urls: impl IntoIterator<Item = T>) -> Self {
        self.endpoints.extend(urls.into_iter().map(Into::into));
        self
    }

    /// Which registry; `cp` unless given.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = Some(mode);
        self
    }

    /// When calls end, whatever has come by then; 2 s unless given.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// The token of the credential that servers are shown.
    pub fn credential(mut self, token: impl Into<String>) -> Self {
        self.credential = Some(token.into());
        self
    }

    /// The roots, in PEM, that certificates of servers at `https://` have to go back to. There are none unless given.
    pub fn tls_roots(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.roots = Some(pem.into());
        self
    }

    /// The client's own certificate (with its chain) and key, in PEM, for servers that ask for one.
    pub fn tls_identity(mut self, certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.identity = Some((certificate.into(), key.into()));
        self
    }

    /// The client. Nothing is sent yet.
    pub fn build(self) -> Result<Client, BuildError> {
        let mut access = Access::default();
        if let Some(token) = &self.credential {
            access = access.credential(token)?;
        }
        let identity = self.identity.as_ref().map(|(certificate, key)| Identity { certificate, key });
        match &self.roots {
            Some(roots) => access = access.tls(roots, identity)?,
            None if identity.is_some() => {
                return Err(BadAccess::Identity("without roots no server could be shown it".to_owned()).into());
            }
            None => {}
        }
        if self.endpoints.is_empty() {
            return Err(BuildError::NoEndpoint);
        }
        let callers = self.endpoints.iter().map(|url| Caller::with_access(url, &access)).collect::<Result<_, _>>()?;
        let mut options = CallOptions::default();
        if let Some(timeout) = self.timeout {
            options.timeout = timeout;
        }
        let servers = Arc::new(Servers::new(callers));
        Ok(Client { servers, mode: self.mode.unwrap_or(Mode::Cp), options, once: false })
    }
}

impl Client {
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The same servers' other registry, or this one.
    pub fn in_mode(&self, mode: Mode) -> Self {
        Self { mode, ..self.clone() }
    }

    /// The same, with another time until calls end.
    pub fn within(&self, timeout: Duration) -> Self {
        Self { options: CallOptions { timeout, ..self.options.clone() }, ..self.clone() }
    }

    /// The same, with other promises for its questions.
    pub fn reading(&self, consistency: Consistency) -> Self {
        Self { options: CallOptions { consistency: Some(consistency), ..self.options.clone() }, ..self.clone() }
    }

    /// The same, but questions are answered by servers that have applied that much: so a client sees what it has written itself, or
    /// heard of, whichever server answers and however weak the promise.
    pub fn reading_from(&self, revision: Revision) -> Self {
        Self { options: CallOptions { min_revision: Some(revision), ..self.options.clone() }, ..self.clone() }
    }

    /// `ap`: the same, but look-ups and lists show, marked as such, what a server hides since who answers for it is out of reach.
    pub fn including_hidden(&self) -> Self {
        Self { options: CallOptions { include_hidden: true, ..self.options.clone() }, ..self.clone() }
    }

    /// `ap`: the same, but commands wait until so many nodes have them.
    pub fn writing_to(&self, nodes: usize) -> Self {
        Self { options: CallOptions { acks: Some(nodes), ..self.options.clone() }, ..self.clone() }
    }

    /// The same, but no call asks a server twice: for those who would rather hear at once that nobody can help than wait until the
    /// deadline for somebody to come back.
    pub fn asking_once(&self) -> Self {
        Self { once: true, ..self.clone() }
    }

    /// The same, with calls made so.
    pub fn with(&self, options: CallOptions) -> Self {
        Self { options, ..self.clone() }
    }

    /// How calls are made. What concerns time is shared out among the servers that are tried.
    pub fn options(&self) -> &CallOptions {
        &self.options
    }

    /// Carries out one command. A refusal is an outcome here.
    pub async fn execute(&self, action: &Action) -> Result<Reply<Outcome>, CommandError> {
        self.execute_as(action, action.retry_is_safe()).await
    }

    /// The same, for callers who know better whether it may be sent twice.
    pub(super) async fn execute_as(
        &self,
        action: &Action,
        repeating_is_safe: bool,
    ) -> Result<Reply<Outcome>, CommandError> {
        let mut tries = self.tries(repeating_is_safe);
        loop {
            let (caller, options) = self.next(&tries);
            let result = caller.execute(self.mode, action, &options).await;
            if let Some(ended) = tries.end(result).await {
                return ended;
            }
        }
    }

    /// Asks one question. A refusal (not found, another token) is an answer here.
    pub async fn query(&self, query: &Query) -> Result<Reply<Answer>, Cause> {
        let mut tries = self.tries(true);
        loop {
            let (caller, options) = self.next(&tries);
            let result = caller.query(self.mode, query, &options).await;
            if let Some(ended) = tries.end_query(result).await {
                return ended;
            }
        }
    }

    /// The cluster, as the server that answers sees it.
    pub async fn cluster(&self) -> Result<ClusterBody, Error> {
        let mut tries = self.tries(true);
        loop {
            let (caller, options) = self.next(&tries);
            let result = caller.cluster(options.timeout).await;
            if let Some(ended) = tries.end_query(result).await {
                return ended.map_err(Error::Unanswered);
            }
        }
    }

    /// One page of the `ap` conflict records that the server knows.
    pub async fn conflicts(&self, after: Option<&str>, limit: usize) -> Result<ConflictsBody, Error> {
        let mut tries = self.tries(true);
        loop {
            let (caller, options) = self.next(&tries);
            let result = caller.conflicts(after, limit, options.timeout).await;
            if let Some(ended) = tries.end_query(result).await {
                return ended.map_err(Error::Unanswered);
            }
        }
    }

    /// Says that the loser of a conflict has seen its record. Doing so again does no harm.
    pub async fn acknowledge_conflict(&self, id: &RecordId) -> Result<(), Error> {
        let mut tries = self.tries(true);
        loop {
            let (caller, options) = self.next(&tries);
            let result = caller.acknowledge_conflict(id.as_str(), options.timeout).await;
            if let Some(ended) = tries.end_query(result).await {
                return ended.map_err(|cause| match cause {
                    Cause::Rejected { code: Code::NotFound, .. } => Error::refused(Refusal::NotFound),
                    // Whatever became of it, it may simply be done again.
                    cause => Error::Unknown(cause),
                });
            }
        }
    }

    pub(super) fn servers(&self) -> &Arc<Servers> {
        &self.servers
    }

    pub(super) fn tries(&self, repeating_is_safe: bool) -> Tries<'_> {
        self.servers.tries(self.options.timeout, repeating_is_safe, self.once)
    }

    /// Where the next try goes, and how it is made.
    pub(super) fn next<'s>(&self, tries: &Tries<'s>) -> (&'s Caller, CallOptions) {
        let (caller, timeout, connect_timeout) = tries.next();
        (caller, CallOptions { timeout, connect_timeout, ..self.options.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_a_client_is_not_built() {
        assert_eq!(Client::builder().build().err(), Some(BuildError::NoEndpoint));
        let build = |url: &str| Client::builder().endpoints([url]).build().map(|client| client.mode());
        assert_eq!(build("http://127.0.0.1:7401"), Ok(Mode::Cp));
        assert!(matches!(build("here"), Err(BuildError::Url(_))));
        assert!(matches!(build("https://a"), Err(BuildError::Url(BadUrl::NoRoots { .. }))));
        let identity = Client::builder().endpoints(["http://a"]).tls_identity("", "").build();
        assert!(matches!(identity, Err(BuildError::Access(BadAccess::Identity(_)))));
    }
}
