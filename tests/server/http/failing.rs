//! A registry that fails, or never answers, is never taken for one that has nothing: each route says so, with a status that
//! proxies and generic clients understand, and by the deadline.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::future::join_all;
use quorate::cluster::{
    ApStatus, Backup, Change, ChangeRefusal, Changed, Cluster, ClusterStatus, Faults, Probe, Strangers,
};
use quorate::http::HttpState;
use quorate::messages::{Address, Inbox, Messages};
use quorate::model::command::Action;
use quorate::model::conflict::ConflictRecord;
use quorate::model::entry::Holder;
use quorate::model::ident::{Mode, NodeId, RecordId, Revision, Token};
use quorate::model::lease::KeptAlive;
use quorate::model::outcome::{Outcome, Refusal};
use quorate::model::query::{Answer, Query};
use quorate::registry::{
    CommandCall, CommandFailure, KeepAlive, QueryCall, QueryFailure, Reason, Registry, Reply, Watch, WatchFailure,
    Watching,
};

use super::raw;
use super::support::{Server, reference, state};

/// Routes that ask neither a registry nor the post nor the cluster for anything that may fail.
const CANNOT_FAIL: [(&str, &str); 7] = [
    ("GET", "/livez"),
    ("GET", "/v1/cluster"),
    ("GET", "/v1/faults"),
    ("PUT", "/v1/faults"),
    ("DELETE", "/v1/faults"),
    ("GET", "/v1/faults/probe"),
    ("GET", "/v1/{mode}/inbox/{owner}"),
];

/// Fails for this reason, or never answers.
#[derive(Clone)]
struct Broken(Mode, Option<Reason>);

impl Broken {
    async fn reason(&self) -> Reason {
        match &self.1 {
            Some(reason) => reason.clone(),
            None => std::future::pending().await,
        }
    }

    /// Of commands, some may have been applied.
    async fn failure(&self) -> CommandFailure {
        match self.reason().await {
            reason @ (Reason::Timeout | Reason::Internal(_)) => CommandFailure::Unknown(reason),
            reason => CommandFailure::NotApplied(reason),
        }
    }
}

#[async_trait]
impl Registry for Broken {
    fn mode(&self) -> Mode {
        self.0
    }

    async fn execute(&self, _: Action, _: &CommandCall) -> Result<Reply<Outcome>, CommandFailure> {
        Err(self.failure().await)
    }

    async fn query(&self, _: Query, _: &QueryCall) -> Result<Reply<Answer>, QueryFailure> {
        Err(QueryFailure(self.reason().await))
    }

    async fn batch(&self, _: Vec<Action>, _: &CommandCall) -> Result<Reply<Vec<Outcome>>, CommandFailure> {
        Err(self.failure().await)
    }

    async fn keep_alive(
        &self,
        _: KeepAlive,
        _: &CommandCall,
    ) -> Result<Reply<Vec<Result<KeptAlive, Refusal>>>, CommandFailure> {
        Err(self.failure().await)
    }

    async fn watch(&self, _: Watch, _: Instant) -> Result<Box<dyn Watching>, WatchFailure> {
        Err(WatchFailure::Failed(self.reason().await))
    }

    fn has_ended(&self, _: &Holder, _: Token) -> bool {
        false
    }

    async fn ready(&self, _: Instant) -> Result<(), Reason> {
        Err(self.reason().await)
    }
}

#[async_trait]
impl Messages for Broken {
    async fn send(&self, _: Mode, _: Address, _: Arc<str>, _: Instant) -> Result<Reply<Option<u64>>, CommandFailure> {
        Err(self.failure().await)
    }

    fn open(&self, _: Mode, _: &str) -> Inbox {
        Inbox::new().0
    }
}

#[async_trait]
impl Cluster for Broken {
    fn status(&self) -> ClusterStatus {
        ClusterStatus {
            cluster: "broken".to_owned(),
            node: 1,
            version: "0".to_owned(),
            leader: None,
            term: 0,
            applied: 0,
            committed: 0,
            ap: ApStatus::default(),
            nodes: Vec::new(),
            strangers: Strangers::default(),
        }
    }

    async fn change(&self, _: Change, _: &CommandCall) -> Result<Result<Changed, ChangeRefusal>, CommandFailure> {
        Err(self.failure().await)
    }

    async fn take_snapshot(&self, _: Instant) -> Result<u64, Reason> {
        Err(self.reason().await)
    }

    async fn backup(&self, _: Instant) -> Result<Backup, Reason> {
        Err(self.reason().await)
    }

    // These two answer at once or not at all.
    fn conflicts(&self, _: Option<&RecordId>, _: usize) -> Result<Vec<ConflictRecord>, Reason> {
        Err(self.1.clone().unwrap_or(Reason::Starting))
    }

    fn acknowledge_conflict(&self, _: &RecordId) -> Result<bool, Reason> {
        Err(self.1.clone().unwrap_or(Reason::Starting))
    }

    fn faults(&self) -> Option<Faults> {
        None
    }

    fn set_faults(&self, _: Faults) -> bool {
        false
    }

    async fn probe(&self, _: Instant) -> BTreeMap<NodeId, Probe> {
        BTreeMap::new()
    }
}

fn broken(reason: Option<Reason>) -> HttpState {
    let of = |mode| Arc::new(Broken(mode, reason.clone()));
    HttpState { messages: of(Mode::Cp), cluster: of(Mode::Cp), ..state(of(Mode::Cp), of(Mode::Ap)) }
}

/// A body that the route takes.
fn body(method: &str, path: &str) -> &'static str {
    match (method, path) {
        (_, "/v1/cluster/nodes") => r#"{"id":4,"peer":"h:1"}"#,
        (_, "/v1/cluster/transfer-leader") => r#"{"to":2}"#,
        (_, "/v1/{mode}/batch") => r#"{"commands":[{"register":{"name":"a","owner":"x"}}]}"#,
        (_, "/v1/{mode}/leases") => r#"{"ttl_ms":1000}"#,
        (_, "/v1/{mode}/leases/keepalive") => r#"{"leases":["1"]}"#,
        ("PUT", "/v1/{mode}/names/{name}") => r#"{"owner":"x"}"#,
        (_, path) if path.ends_with("/messages") => r#"{"message":1}"#,
        _ => "",
    }
}

/// Every route that the API describes and that may fail, in both modes: method, path as described, path as asked for.
async fn routes() -> Vec<(String, String, String)> {
    let server = Server::start(reference()).await;
    let described = raw::send(server.addr, "GET", "/openapi.json", &[], b"").await.json();
    let mut routes = Vec::new();
    let mut exempt = CANNOT_FAIL.to_vec();
    for (path, item) in described["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys().filter(|key| *key != "parameters") {
            let method = method.to_uppercase();
            let before = exempt.len();
            exempt.retain(|of| *of != (method.as_str(), path.as_str()));
            if exempt.len() < before {
                continue;
            }
            let asked = ["id", "name", "group", "member", "owner"]
                .iter()
                .fold(path.clone(), |at, part| at.replace(&format!("{{{part}}}"), "1"));
            for mode in if path.contains("{mode}") { &["cp", "ap"][..] } else { &["cp"][..] } {
                let mut asked = asked.replace("{mode}", mode);
                if path == "/v1/{mode}/watch" {
                    asked.push_str("?name=a");
                }
                routes.push((method.clone(), path.clone(), asked));
            }
        }
    }
    assert!(exempt.is_empty(), "there are no such routes: {exempt:?}");
    assert!(routes.len() > 40, "{}", routes.len());
    routes
}

/// Lists that come out empty when something has gone wrong, errors within a 200, redirections that turn a PUT into a GET: each has
/// told somebody's client that all is well.
#[tokio::test]
async fn no_route_passes_a_failure_off_as_an_empty_answer_or_a_success() {
    let routes = routes().await;
    let behind = Reason::Behind { applied: Revision::Cp(1) };
    let reasons = [
        (Reason::NoLeader, 503, "no_leader"),
        (Reason::NoQuorum, 503, "no_quorum"),
        (Reason::Starting, 503, "starting"),
        (behind, 503, "behind"),
        (Reason::Overloaded, 429, "overloaded"),
        (Reason::Timeout, 504, "timeout"),
        (Reason::Internal("it broke".to_owned()), 500, "internal"),
    ];
    for (reason, status, code) in reasons {
        let server = Server::start(broken(Some(reason))).await;
        for (method, path, asked) in &routes {
            let answer = raw::send(server.addr, method, asked, &[], body(method, path).as_bytes()).await;
            let status = match path.as_str() {
                // May have been begun, whatever came in between.
                "/v1/cluster/snapshot" if status != 500 => 504,
                // Done at once or not at all: what was too late for it was not done.
                "/v1/ap/conflicts/{id}/ack" if status == 504 => 503,
                _ => status,
            };
            assert_eq!((answer.status, answer.code().as_str()), (status, code), "{method} {asked}: {answer:?}");
            assert_eq!(answer.header("location"), None, "{method} {asked}");
        }
    }
}

#[tokio::test]
async fn no_route_waits_beyond_its_deadline_for_what_never_answers() {
    let routes = routes().await;
    let server = Server::start(broken(None)).await;
    let ask = |(method, path, asked): &(String, String, String)| {
        let (method, body, addr) = (method.clone(), body(method, path).as_bytes(), server.addr);
        let asked = format!("{asked}{}timeout_ms=100", if asked.contains('?') { '&' } else { '?' });
        async move {
            let answer = raw::send(addr, &method, &asked, &[], body);
            let answer = tokio::time::timeout(Duration::from_secs(5), answer).await;
            let answer = answer.unwrap_or_else(|_| panic!("{method} {asked} is still waiting"));
            let at_once = asked.contains("/conflicts");
            assert_eq!(answer.code(), if at_once { "starting" } else { "timeout" }, "{method} {asked}: {answer:?}");
        }
    };
    join_all(routes.iter().map(ask)).await;
}
