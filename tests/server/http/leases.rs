//! Leases over HTTP: what is asked, what is answered, and what is refused before the registry hears of it.

use std::sync::Arc;

use quorate::model::command::Action;
use quorate::model::conflict::{ConflictRecord, Contender};
use quorate::model::ident::{Mode, RecordId, Revision, Token};
use quorate::model::lease::{KeptAlive, LeaseInfo, LeaseStatus};
use quorate::model::outcome::{Ended, Outcome, Refusal};
use quorate::model::query::{Answer, Page, Query};
use quorate::model::time::UnixMillis;
use quorate::registry::{CommandFailure, KeepAlive, Provenance, Reason, Reply};
use quorate::wire::lease;

use super::raw::{self, Answer as Http};
use super::support::{Asked, Scripted, Server, state};

fn reply<T>(value: T) -> Reply<T> {
    Reply { value, revision: Revision::Cp(9), provenance: Provenance::default() }
}

async fn scripted() -> (Server, Arc<Scripted>) {
    let cp = Scripted::new(Mode::Cp);
    (Server::start(state(cp.clone(), Scripted::new(Mode::Ap))).await, cp)
}

async fn send(server: &Server, method: &str, path: &str, body: &str) -> Http {
    raw::send(server.addr, method, path, &[], body.as_bytes()).await
}

fn kept(expires_in_ms: u64) -> KeptAlive {
    KeptAlive { expires_in_ms, lost: Vec::new(), moved: false }
}

fn record(id: &str) -> ConflictRecord {
    let contender = |owner: &str, token| Contender { owner: owner.parse().unwrap(), token: Token::Cp(token), node: 2 };
    ConflictRecord {
        id: id.parse().unwrap(),
        name: "billing".parse().unwrap(),
        loser: contender("a", 1),
        winner: contender("b", 2),
        at: UnixMillis(1_600_000_000_000),
        acknowledged: false,
    }
}

#[tokio::test]
async fn a_lease_is_created_once_and_the_same_again_is_kept_alive() {
    let (server, cp) = scripted().await;
    let created = Outcome::LeaseCreated { lease: "l".parse().unwrap(), ttl_ms: 5_000 };
    *cp.outcome.lock().unwrap() = Ok(reply(created));
    let answer = send(&server, "POST", "/v1/cp/leases", r#"{"ttl_ms":5000,"lease":"l"}"#).await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.body, r#"{"lease":"l","ttl_ms":5000,"expires_in_ms":5000}"#);
    assert_eq!(answer.header("quorate-revision"), Some("9"));
    let action = Action::CreateLease { lease: Some("l".parse().unwrap()), ttl_ms: 5_000, credential: None };
    assert_eq!(cp.asked.lock().unwrap().take(), Some(Asked::Command(action)));

    let held = Outcome::LeaseHeld { lease: "l".parse().unwrap(), ttl_ms: 5_000 };
    *cp.outcome.lock().unwrap() = Ok(reply(held));
    *cp.kept.lock().unwrap() = Ok(reply(vec![Ok(kept(4_321))]));
    let answer = send(&server, "POST", "/v1/leases", r#"{"ttl_ms":5000,"lease":"l"}"#).await;
    assert_eq!((answer.status, answer.json()["expires_in_ms"].as_u64()), (200, Some(4_321)));
    let keep = KeepAlive { leases: vec!["l".parse().unwrap()], ..KeepAlive::default() };
    assert_eq!(cp.asked.lock().unwrap().take(), Some(Asked::KeepAlive(keep)));
    // It has ended in between; then nobody can tell.
    *cp.kept.lock().unwrap() = Ok(reply(vec![Err(Refusal::LeaseExpired)]));
    let answer = send(&server, "POST", "/v1/cp/leases", r#"{"ttl_ms":5000,"lease":"l"}"#).await;
    assert_eq!((answer.status, answer.code().as_str()), (410, "lease_expired"));
    *cp.kept.lock().unwrap() = Err(CommandFailure::Unknown(Reason::Timeout));
    let answer = send(&server, "POST", "/v1/cp/leases", r#"{"ttl_ms":5000,"lease":"l"}"#).await;
    assert_eq!((answer.status, answer.json()["retryable"].as_bool()), (504, Some(true)));
}

#[tokio::test]
async fn the_creation_of_a_lease_is_refused_for_what_is_wrong_with_it() {
    let (server, cp) = scripted().await;
    for (body, status, code) in [
        ("", 400, "malformed"),
        (r#"{"ttl_ms":999}"#, 400, "malformed"),
        (r#"{"ttl_ms":86400001}"#, 400, "malformed"),
        (r#"{"ttl_ms":5000,"lease":""}"#, 400, "malformed"),
        (r#"{"ttl_ms":5000,"lease":"a b"}"#, 400, "malformed"),
        (r#"{"ttl_ms":-1}"#, 422, "wrong_shape"),
        (r#"{"ttl_ms":5000,"ttl":1}"#, 422, "wrong_shape"),
        (r#"{"lease":"l"}"#, 422, "wrong_shape"),
    ] {
        let answer = send(&server, "POST", "/v1/cp/leases", body).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{body}");
        assert_eq!(answer.json()["outcome"], "not_applied");
    }
    assert_eq!(cp.asked.lock().unwrap().take(), None);
    // Without an id of the caller's a second lease might come of it.
    *cp.outcome.lock().unwrap() = Err(CommandFailure::Unknown(Reason::Timeout));
    let answer = send(&server, "POST", "/v1/cp/leases", r#"{"ttl_ms":5000}"#).await;
    assert_eq!((answer.status, answer.json()["retryable"].as_bool()), (504, Some(false)));
    *cp.outcome.lock().unwrap() = Ok(reply(Outcome::Refused(Refusal::LeaseTaken)));
    let answer = send(&server, "POST", "/v1/cp/leases", r#"{"ttl_ms":5000,"lease":"l"}"#).await;
    assert_eq!((answer.status, answer.code().as_str()), (409, "lease_taken"));
    for (method, path, allow) in [
        ("PUT", "/v1/cp/leases", "GET,HEAD,POST"),
        ("POST", "/v1/cp/leases/l", "GET,HEAD,DELETE"),
        ("GET", "/v1/cp/leases/l/keepalive", "POST"),
    ] {
        let answer = send(&server, method, path, "").await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some(allow)), "{method} {path}");
    }
}

#[tokio::test]
async fn a_keep_alive_tells_what_was_lost_until_it_was_seen() {
    let (server, cp) = scripted().await;
    let lost = KeptAlive { expires_in_ms: 7, lost: vec![record("c1"), record("c2")], moved: true };
    *cp.kept.lock().unwrap() = Ok(reply(vec![Ok(lost.clone())]));
    let answer = send(&server, "POST", "/v1/cp/leases/a%2Fb/keepalive", r#"{"seen":["c0","c9"]}"#).await;
    assert_eq!(answer.status, 200);
    assert_eq!(lease::read_kept_alive(Mode::Cp, answer.body.as_bytes()).unwrap(), lost);
    assert_eq!(answer.json()["moved"], true);
    assert_eq!(answer.json()["lost"][0]["winner"]["token"], "2");
    let seen: Vec<RecordId> = vec!["c0".parse().unwrap(), "c9".parse().unwrap()];
    assert_eq!(lease::keep_alive(&seen), br#"{"seen":["c0","c9"]}"#);
    let keep = KeepAlive { leases: vec!["a/b".parse().unwrap()], seen, by: None };
    assert_eq!(cp.asked.lock().unwrap().take(), Some(Asked::KeepAlive(keep)));
    // It needs no body, and says no more than there is.
    *cp.kept.lock().unwrap() = Ok(reply(vec![Ok(kept(7))]));
    let answer = send(&server, "POST", "/v1/cp/leases/l/keepalive", "").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, r#"{"expires_in_ms":7,"lost":[]}"#));

    for (refusal, status, code) in [
        (Refusal::LeaseUnknown, 404, "lease_unknown"),
        (Refusal::LeaseExpired, 410, "lease_expired"),
        (Refusal::LeaseForeign, 403, "lease_foreign"),
    ] {
        *cp.kept.lock().unwrap() = Ok(reply(vec![Err(refusal)]));
        let answer = send(&server, "POST", "/v1/cp/leases/l/keepalive", "").await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code));
        assert_eq!(answer.json()["retryable"], false);
    }
    *cp.kept.lock().unwrap() = Err(CommandFailure::Unknown(Reason::NoQuorum));
    let answer = send(&server, "POST", "/v1/cp/leases/l/keepalive", "").await;
    assert_eq!((answer.status, answer.json()["retryable"].as_bool()), (504, Some(true)));
    for (body, status) in [(r#"{"seen":["a b"]}"#, 400), (r#"{"seen":"c"}"#, 422), ("[]", 422), ("{", 400)] {
        let answer = send(&server, "POST", "/v1/cp/leases/l/keepalive", body).await;
        assert_eq!((answer.status, answer.json()["outcome"].as_str()), (status, Some("not_applied")), "{body}");
    }
}

#[tokio::test]
async fn many_leases_are_kept_alive_each_by_itself() {
    let (server, cp) = scripted().await;
    let results = vec![
        Ok(KeptAlive { expires_in_ms: 5, lost: vec![record("c1")], moved: true }),
        Err(Refusal::LeaseExpired),
        Err(Refusal::LeaseUnknown),
    ];
    *cp.kept.lock().unwrap() = Ok(reply(results.clone()));
    let leases = ["a", "b", "c"].map(|id| id.parse().unwrap());
    let sent = lease::keep_alive_each(&leases, &[]);
    let answer = raw::send(server.addr, "POST", "/v1/cp/leases/keepalive", &[], &sent).await;
    assert_eq!(answer.status, 200);
    assert_eq!(lease::read_kept_alive_each(Mode::Cp, &leases, answer.body.as_bytes()).unwrap(), results);
    assert!(lease::read_kept_alive_each(Mode::Cp, &leases[..2], answer.body.as_bytes()).is_err());
    let told = &answer.json()["results"];
    assert_eq!(
        (told[0]["status"].as_u64(), told[1]["status"].as_u64(), told[2]["status"].as_u64()),
        (Some(200), Some(410), Some(404))
    );
    assert_eq!((told[1]["lease"].as_str(), told[1]["code"].as_str()), (Some("b"), Some("lease_expired")));
    let keep = KeepAlive { leases: leases.to_vec(), ..KeepAlive::default() };
    assert_eq!(cp.asked.lock().unwrap().take(), Some(Asked::KeepAlive(keep)));

    let many = |n: usize| format!(r#"{{"leases":[{}]}}"#, vec![r#""l""#; n].join(","));
    for (body, status) in [
        (r#"{"leases":[]}"#.to_owned(), 400),
        (many(1_001), 400),
        (r#"{"leases":[""]}"#.to_owned(), 400),
        (r#"{"seen":[]}"#.to_owned(), 422),
        (String::new(), 400),
    ] {
        let answer = send(&server, "POST", "/v1/cp/leases/keepalive", &body).await;
        assert_eq!(answer.status, status);
    }
    assert_eq!(cp.asked.lock().unwrap().take(), None);
    *cp.kept.lock().unwrap() = Ok(reply(vec![Ok(kept(1)); 1_000]));
    assert_eq!(send(&server, "POST", "/v1/cp/leases/keepalive", &many(1_000)).await.status, 200);
}

#[tokio::test]
async fn leases_are_looked_at_listed_and_revoked() {
    let (server, cp) = scripted().await;
    let info = LeaseInfo { lease: "l".parse().unwrap(), ttl_ms: 5_000, credential: None };
    let status = LeaseStatus { info: info.clone(), expires_in_ms: 3, entries: Vec::new(), next: Some("name:x".into()) };
    *cp.answer.lock().unwrap() = Ok(reply(Answer::Lease(status.clone())));
    let answer = send(&server, "GET", "/v1/cp/leases/l?limit=2&after=name:a", "").await;
    assert_eq!(answer.status, 200);
    assert_eq!(lease::read_status(Mode::Cp, answer.body.as_bytes()).unwrap(), status);
    let page = Page { after: Some("name:a".into()), limit: 2, ..Page::default() };
    let asked = Query::Lease { lease: "l".parse().unwrap(), page };
    assert_eq!(cp.asked.lock().unwrap().take(), Some(Asked::Query(asked)));

    *cp.answer.lock().unwrap() = Ok(reply(Answer::Leases { leases: vec![info], next: Some("l".into()) }));
    let answer = send(&server, "GET", "/v1/cp/leases?after=k", "").await;
    assert_eq!(answer.body, r#"{"leases":[{"lease":"l","ttl_ms":5000,"credential":null}],"next":"l","revision":"9"}"#);
    *cp.answer.lock().unwrap() = Ok(reply(Answer::Refused(Refusal::LeaseUnknown)));
    let answer = send(&server, "GET", "/v1/cp/leases/l", "").await;
    assert_eq!((answer.status, answer.code().as_str()), (404, "lease_unknown"));
    assert_eq!(send(&server, "GET", "/v1/cp/leases/l?prefix=x", "").await.status, 400);

    *cp.outcome.lock().unwrap() = Ok(reply(Outcome::Ended(Ended::Now)));
    let answer = send(&server, "DELETE", "/v1/cp/leases/l", "").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, r#"{"ended":"now"}"#));
    let revoke = Action::RevokeLease { lease: "l".parse().unwrap(), by: None };
    assert_eq!(cp.asked.lock().unwrap().take(), Some(Asked::Command(revoke)));
    *cp.outcome.lock().unwrap() = Err(CommandFailure::Unknown(Reason::Timeout));
    let answer = send(&server, "DELETE", "/v1/cp/leases/l", "").await;
    assert_eq!((answer.status, answer.json()["retryable"].as_bool()), (504, Some(true)));
    let answer = raw::send(server.addr, "DELETE", "/v1/cp/leases/l", &[("If-Match", "*")], b"").await;
    assert_eq!(answer.status, 400);
}

#[tokio::test]
async fn a_node_of_ap_may_not_have_heard_of_a_lease_yet() {
    let (cp, ap) = (Scripted::new(Mode::Cp), Scripted::new(Mode::Ap));
    let server = Server::start(state(cp.clone(), ap.clone())).await;
    *cp.kept.lock().unwrap() = Ok(reply(vec![Err(Refusal::LeaseUnknown)]));
    *ap.kept.lock().unwrap() =
        Ok(Reply { revision: Revision::Ap("x".into()), ..reply(vec![Err(Refusal::LeaseUnknown)]) });
    for (mode, retryable) in [("cp", false), ("ap", true)] {
        let answer = send(&server, "POST", &format!("/v1/{mode}/leases/l/keepalive"), "").await;
        assert_eq!((answer.status, answer.json()["retryable"].as_bool()), (404, Some(retryable)));
        let answer = send(&server, "POST", &format!("/v1/{mode}/leases/keepalive"), r#"{"leases":["l"]}"#).await;
        assert_eq!(answer.json()["results"][0]["retryable"].as_bool(), Some(retryable));
    }
}
