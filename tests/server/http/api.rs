//! What does not fit a script: sizes, odd bytes, the description of the API, the guide's table.

use std::path::Path;
use std::sync::Arc;

use quorate::client::call::{CallOptions, Caller, Cause, CommandError};
use quorate::http::HttpState;
use quorate::model::command::{Action, Condition};
use quorate::model::ident::{Meta, Mode, Name, Owner};
use quorate::model::outcome::{Outcome, Refusal};
use quorate::model::query::{Answer, Query};
use quorate::registry::{CommandFailure, Reason};
use quorate::wire::path::quote;
use quorate::wire::status;

use super::raw;
use super::support::{Scripted, Server, Still, reference, state};

fn register(name: &Name, owner: &str) -> Action {
    Action::Register {
        name: name.clone(),
        owner: owner.parse().unwrap(),
        meta: Meta::empty(),
        lease: None,
        condition: Condition::Free,
    }
}

#[tokio::test]
async fn any_name_comes_through_a_path() {
    let server = Server::start(reference()).await;
    let caller = Caller::new(&server.url()).unwrap();
    let options = CallOptions::default();
    let longest = "\u{1F600}".repeat(128);
    for name in ["a/b", "100%", "%2F", "a+b", "a b", "?x=1&y", "#", "日本", "~.-_", "...", longest.as_str(), "\\\"<>"]
    {
        let name: Name = name.parse().unwrap();
        let reply = caller.execute(Mode::Cp, &register(&name, "x"), &options).await.unwrap();
        let Outcome::Granted { entry, .. } = reply.value else { panic!("{reply:?}") };
        let query = Query::Whereis { name: name.clone(), token: Some(entry.token) };
        assert_eq!(caller.query(Mode::Cp, &query, &options).await.unwrap().value, Answer::Entry(entry));
    }
    // As some would type it: letters of other scripts as they are, a plus as it is.
    let answer = raw::send(server.addr, "GET", "/v1/cp/names/日本", &[], b"").await;
    assert_eq!(answer.json()["name"], "日本");
    let answer = raw::send(server.addr, "GET", "/v1/names/a+b", &[], b"").await;
    assert_eq!(answer.json()["name"], "a+b");
}

#[tokio::test]
async fn what_is_too_long_is_refused() {
    let server = Server::start(reference()).await;
    let too_long = "\u{1F600}".repeat(128) + "x";
    let path = format!("/v1/cp/names/{}", quote(&too_long));
    let answer = raw::send(server.addr, "PUT", &path, &[], br#"{"owner":"x"}"#).await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "malformed"));
    let body = format!(r#"{{"owner":"{too_long}"}}"#);
    let answer = raw::send(server.addr, "PUT", "/v1/cp/names/a", &[], body.as_bytes()).await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "malformed"));
    let body = format!(r#"{{"owner":"x","meta":{{"m":"{}"}}}}"#, "m".repeat(16 * 1024));
    let answer = raw::send(server.addr, "PUT", "/v1/cp/names/a", &[], body.as_bytes()).await;
    assert_eq!((answer.status, answer.code().as_str()), (413, "too_large"));
    let body = format!(r#"{{"owner":"x"{}}}"#, " ".repeat(1 << 20));
    let answer = raw::send(server.addr, "PUT", "/v1/cp/names/a", &[], body.as_bytes()).await;
    assert_eq!((answer.status, answer.code().as_str()), (413, "too_large"));
    assert_eq!(answer.header("connection"), Some("close"));
    // A client that writes all of it before it reads has its answer, and not a connection that was reset under it.
    let body = vec![b' '; 4 << 20];
    for _ in 0..10 {
        let answer = raw::send(server.addr, "PUT", "/v1/cp/names/a", &[], &body).await;
        assert_eq!((answer.status, answer.code().as_str()), (413, "too_large"));
    }
    // Without an announced length, too.
    let chunk = format!("{:x}\r\n{}\r\n", 1 << 19, " ".repeat(1 << 19));
    let request = format!(
        "PUT /v1/cp/names/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}{chunk}{chunk}0\r\n\r\n"
    );
    let answer = raw::exchange(server.addr, request.as_bytes()).await;
    assert_eq!((answer.status, answer.code().as_str()), (413, "too_large"));
}

#[tokio::test]
async fn bytes_that_are_no_text_are_refused() {
    let server = Server::start(reference()).await;
    let answer = raw::send(server.addr, "PUT", "/v1/cp/names/a", &[], b"{\"owner\":\"\xff\"}").await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "malformed"));
    let answer = raw::send(server.addr, "PUT", "/v1/cp/names/a", &[], br#"{"owner":"x","meta":{"a":"\ud800"}}"#).await;
    assert_eq!(answer.status, 422, "{}", answer.code());
    let deep = format!(r#"{{"owner":"x","meta":{{"a":{}{}}}}}"#, "[".repeat(5_000), "]".repeat(5_000));
    let answer = raw::send(server.addr, "PUT", "/v1/cp/names/a", &[], deep.as_bytes()).await;
    assert_eq!(answer.status, 422, "{}", answer.code());
}

#[tokio::test]
async fn curls_own_headers_do() {
    let server = Server::start(reference()).await;
    let request = "PUT /v1/cp/names/a HTTP/1.1\r\nHost: localhost\r\nUser-Agent: curl/8\r\nAccept: */*\r\n\
                   Content-Length: 13\r\nContent-Type: application/x-www-form-urlencoded\r\nConnection: close\r\n\r\n\
                   {\"owner\":\"x\"}";
    assert_eq!(raw::exchange(server.addr, request.as_bytes()).await.status, 201);
}

#[tokio::test]
async fn without_enabled_faults_there_are_no_such_paths() {
    let cluster = Arc::new(Still::new(false));
    let server = Server::start(HttpState { cluster, ..reference() }).await;
    for (method, path) in
        [("GET", "/v1/faults"), ("PUT", "/v1/faults"), ("DELETE", "/v1/faults"), ("GET", "/v1/faults/probe")]
    {
        let answer = raw::send(server.addr, method, path, &[], b"").await;
        assert_eq!((answer.status, answer.code().as_str()), (404, "no_such_route"), "{method} {path}");
    }
}

#[tokio::test]
async fn a_caller_who_wants_no_forwarding_is_sent_to_the_leader() {
    let cp = Scripted::new(Mode::Cp);
    let server = Server::start(state(cp.clone(), Scripted::new(Mode::Ap))).await;
    let caller = Caller::new(&server.url()).unwrap();
    let options = CallOptions { forward: false, ..CallOptions::default() };
    let action = register(&"a b".parse().unwrap(), "x");
    for (leader, location) in [
        (Some(2), Some("http://127.0.0.1:7402/v1/cp/names/a%20b?forward=redirect")),
        // Nobody knows where clients reach this one.
        (Some(3), None),
        (None, None),
    ] {
        *cp.outcome.lock().unwrap() = Err(CommandFailure::NotApplied(Reason::NotLeader { leader }));
        let result = caller.execute(Mode::Cp, &action, &options).await;
        assert_eq!(result, Err(CommandError::NotApplied(Cause::Server(Reason::NotLeader { leader }))));
        let path = "/v1/cp/names/a%20b?forward=redirect";
        let answer = raw::send(server.addr, "PUT", path, &[], br#"{"owner":"x"}"#).await;
        assert_eq!(answer.header("location"), location);
        assert_eq!(answer.status, if location.is_some() { 307 } else { 503 });
    }
}

#[tokio::test]
async fn two_writers_of_meta_cannot_overwrite_each_other_unseen() {
    let server = Server::start(reference()).await;
    let caller = Caller::new(&server.url()).unwrap();
    let options = CallOptions::default();
    let name: Name = "a".parse().unwrap();
    let first = caller.execute(Mode::Cp, &register(&name, "x"), &options).await.unwrap();
    let Outcome::Granted { entry, .. } = first.value else { panic!("{first:?}") };
    let update = |meta: &str| Action::Register {
        name: name.clone(),
        owner: "x".parse::<Owner>().unwrap(),
        meta: meta.parse().unwrap(),
        lease: None,
        condition: Condition::Unchanged(entry.revision.clone()),
    };
    let one = caller.execute(Mode::Cp, &update(r#"{"by":1}"#), &options).await.unwrap();
    assert!(matches!(one.value, Outcome::Held { .. }));
    let two = caller.execute(Mode::Cp, &update(r#"{"by":2}"#), &options).await.unwrap();
    let Outcome::Refused(Refusal::RevisionStale { current: Some(current) }) = two.value else { panic!("{two:?}") };
    assert_eq!(current.meta.as_str(), r#"{"by":1}"#);
}

#[tokio::test]
async fn the_plain_calls_work() {
    use std::time::Duration;
    let server = Server::start(reference()).await;
    let caller = Caller::new(&server.url()).unwrap();
    let timeout = Duration::from_secs(2);
    assert_eq!(caller.cluster(timeout).await.unwrap().leader, Some(2));
    let page = caller.conflicts(None, 1, timeout).await.unwrap();
    assert_eq!((page.conflicts.len(), page.next.as_deref()), (1, Some("c1")));
    assert_eq!(caller.conflicts(Some("c1"), 1, timeout).await.unwrap().next, None);
    caller.acknowledge_conflict("c2", timeout).await.unwrap();
    let none = caller.acknowledge_conflict("c3", timeout).await;
    assert!(matches!(none, Err(Cause::Rejected { code: status::Code::NotFound, .. })), "{none:?}");
    let mut faults = caller.faults(timeout).await.unwrap();
    faults.peers.entry(2).or_default().incoming.drop = true;
    assert_eq!(caller.set_faults(&faults, timeout).await.unwrap(), faults);
    assert!(caller.probe(timeout, timeout).await.unwrap()[&2].tcp);
    assert!(caller.ready(Some(Mode::Cp), timeout).await.unwrap().ready);
    assert_eq!(caller.ready(Some(Mode::Ap), timeout).await, Err(Cause::Server(Reason::Starting)));
}

#[tokio::test]
async fn every_route_is_described_with_the_parameters_that_it_takes() {
    let server = Server::start(reference()).await;
    let described = raw::send(server.addr, "GET", "/openapi.json", &[], b"").await.json();
    for (path, item) in described["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap().iter().filter(|(key, _)| *key != "parameters") {
            if path == "/livez" {
                continue;
            }
            let at = path.replace("{mode}", "cp").replace(['{', '}'], "");
            let method = method.to_uppercase();
            let unknown = raw::send(server.addr, &method, &format!("{at}?undescribed=1"), &[], b"").await;
            assert_eq!(unknown.code(), "malformed", "{method} {at}");
            let parameters = operation["parameters"].as_array().unwrap();
            for parameter in parameters.iter().filter(|parameter| parameter["in"] == "query") {
                let name = parameter["name"].as_str().unwrap();
                // Refused in any case: a stream would not end.
                let late = if name == "timeout_ms" { "" } else { "&timeout_ms=0" };
                let answer = raw::send(server.addr, &method, &format!("{at}?{name}=%00{late}"), &[], b"").await;
                assert!(!answer.body.contains("there is no parameter"), "{method} {at}: {}", answer.body);
            }
        }
    }
}

#[tokio::test]
async fn every_answer_is_described_by_its_own_status() {
    let server = Server::start(reference()).await;
    let described = raw::send(server.addr, "GET", "/openapi.json", &[], b"").await;
    assert_eq!(described.header("content-type"), Some("application/json"));
    let document = described.json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap().iter().filter(|(key, _)| *key != "parameters") {
            let responses = operation["responses"].as_object().unwrap();
            assert!(!responses.contains_key("default"), "{method} {path}");
            for status in ["400", "401", "403", "429", "500"] {
                assert!(responses.contains_key(status), "{method} {path} {status}");
            }
            let has_body = operation.get("requestBody").is_some();
            assert!(!has_body || responses.contains_key("422"), "{method} {path}");
            for (status, response) in responses.iter().filter(|(status, _)| status.as_str() >= "300") {
                let content = response["content"].as_object().unwrap();
                assert!(content.contains_key("application/problem+json"), "{method} {path} {status}");
            }
        }
    }
    same_as_golden("openapi.json", &described.body);
}

#[test]
fn the_guides_table_is_the_one_in_force() {
    let printed = status::printed();
    same_as_golden("status.txt", &printed);
    let guide = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    assert!(guide.contains(&printed), "README.md prints another table of statuses");
}

fn same_as_golden(file: &str, printed: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    if std::env::var_os("UPDATE_GOLDENFILES").is_some_and(|set| set == "1") {
        std::fs::write(&path, printed).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    assert!(golden == printed, "{file} is another one; UPDATE_GOLDENFILES=1 writes it anew");
}
