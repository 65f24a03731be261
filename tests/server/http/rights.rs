//! What callers with a credential may do and see. The door that knows them is passed by: each request carries its caller.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::http::{Method, Request};
use quorate::http::caller::{Caller, Grants};
use quorate::http::{Api, router};
use quorate::model::command::Action;
use quorate::model::ident::{Mode, Revision};
use quorate::model::lease::{KeptAlive, LeaseInfo, LeaseStatus};
use quorate::model::outcome::Outcome;
use quorate::model::query::Answer;
use quorate::registry::{KeepAlive, Provenance, Reply};
use serde_json::Value;

use super::support::{Asked, Scripted, reference, state};

fn caller(name: &str, read: &[&str], write: &[&str], admin: bool) -> Caller {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    Caller::holding(Arc::new(Grants { name: name.parse().unwrap(), read: texts(read), write: texts(write), admin }))
}

/// The status of an answer and its body.
async fn send(api: &Api, caller: &Caller, method: Method, path: &str, body: &str) -> (u16, Value) {
    let request = Request::builder().method(method).uri(path).extension(caller.clone());
    let response = api.answer(request.body(Body::from(body.to_owned())).unwrap()).await;
    let status = response.status().as_u16();
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap())
}

fn code(answer: &(u16, Value)) -> (u16, &str) {
    (answer.0, answer.1["code"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn names_and_groups_out_of_reach_are_forbidden() {
    let api = router(reference());
    let team = caller("team", &["shared/"], &["team/"], false);
    let owner = r#"{"owner":"x"}"#;
    assert_eq!(send(&api, &team, Method::PUT, "/v1/cp/names/team%2Fa", owner).await.0, 201);
    assert_eq!(send(&api, &team, Method::GET, "/v1/cp/names/team%2Fa", "").await.0, 200);
    assert_eq!(send(&api, &team, Method::GET, "/v1/cp/names/shared%2Fa", "").await.0, 404);
    assert_eq!(send(&api, &team, Method::PUT, "/v1/cp/groups/team%2Fg/members/m", "").await.0, 201);
    let batch = |name: &str| format!(r#"{{"commands":[{{"register":{{"name":"{name}","owner":"x"}}}}]}}"#);
    assert_eq!(send(&api, &team, Method::POST, "/v1/cp/batch", &batch("team/b")).await.0, 200);
    for (method, path, body) in [
        (Method::PUT, "/v1/cp/names/shared%2Fa", owner),
        (Method::GET, "/v1/cp/names/other", ""),
        (Method::DELETE, "/v1/cp/names/shared%2Fa", ""),
        (Method::PUT, "/v1/cp/groups/shared%2Fg/members/m", ""),
        (Method::DELETE, "/v1/cp/groups/other/members/m", ""),
        (Method::GET, "/v1/cp/groups/other/members/m", ""),
        (Method::GET, "/v1/cp/groups/other/members", ""),
        (Method::GET, "/v1/cp/watch?name=other", ""),
        (Method::GET, "/v1/cp/watch?group=team/g&group=other", ""),
        (Method::POST, "/v1/cp/batch", batch("shared/x").as_str()),
        (Method::PUT, "/v1/faults", "{}"),
        (Method::DELETE, "/v1/faults", ""),
        (Method::POST, "/v1/ap/conflicts/c1/ack", ""),
    ] {
        let answer = send(&api, &team, method.clone(), path, body).await;
        assert_eq!(code(&answer), (403, "forbidden"), "{method} {path}");
        assert_eq!(answer.1["retryable"], false);
    }
    assert_eq!(send(&api, &team, Method::GET, "/v1/faults", "").await.0, 200);
    let (_, conflicts) = send(&api, &team, Method::GET, "/v1/ap/conflicts", "").await;
    assert_eq!(conflicts["conflicts"].as_array().unwrap().len(), 0);
    let admin = caller("root", &[], &[], true);
    assert_eq!(send(&api, &admin, Method::PUT, "/v1/faults", "{}").await.0, 200);
    assert_eq!(send(&api, &admin, Method::POST, "/v1/ap/conflicts/c1/ack", "").await.0, 200);
}

#[tokio::test]
async fn lists_show_what_may_be_read_in_whole_pages() {
    let api = router(reference());
    let admin = caller("root", &[], &[], true);
    for name in ["a/1", "b/1", "b/2", "c/1", "d/1", "d/2", "d/3", "e"] {
        let path = format!("/v1/cp/names/{}", name.replace('/', "%2F"));
        assert_eq!(send(&api, &admin, Method::PUT, &path, r#"{"owner":"x"}"#).await.0, 201);
        let path = format!("/v1/cp/groups/{}/members/m", name.replace('/', "%2F"));
        assert_eq!(send(&api, &admin, Method::PUT, &path, "").await.0, 201);
    }
    let team = caller("team", &["d/", "b/", "d/1"], &["e"], false);
    for (list, key) in [("names", "name"), ("groups", "group")] {
        for limit in [1, 2, 3, 4, 100] {
            let (mut seen, mut after, mut pages) = (Vec::new(), String::new(), 0);
            loop {
                let path = format!("/v1/cp/{list}?limit={limit}{after}");
                let (status, page) = send(&api, &team, Method::GET, &path, "").await;
                assert_eq!(status, 200);
                let items = page[list].as_array().unwrap();
                seen.extend(items.iter().map(|item| item[key].as_str().unwrap().to_owned()));
                pages += 1;
                let Some(next) = page["next"].as_str() else { break };
                assert_eq!(items.len(), limit, "a page with a next one is full");
                assert_eq!(Some(next), seen.last().map(String::as_str), "tells of nothing else");
                after = format!("&after={next}");
            }
            assert_eq!(seen, ["b/1", "b/2", "d/1", "d/2", "d/3", "e"]);
            assert!(pages <= 6 / limit + 1);
        }
    }
    let (_, page) = send(&api, &team, Method::GET, "/v1/cp/names?prefix=d", "").await;
    assert_eq!(page["names"].as_array().unwrap().len(), 3);
    let nobody = caller("nobody", &[], &[], false);
    let (status, page) = send(&api, &nobody, Method::GET, "/v1/cp/names", "").await;
    assert_eq!((status, page["names"].as_array().unwrap().len(), page["next"].as_str()), (200, 0, None));
}

#[tokio::test]
async fn leases_belong_to_the_credential_that_made_them() {
    let cp = Scripted::new(Mode::Cp);
    let api = router(state(cp.clone(), Scripted::new(Mode::Ap)));
    let team = caller("team", &["team/"], &[], false);
    let admin = caller("root", &[], &[], true);
    let reply = |value| Reply { value, revision: Revision::Cp(1), provenance: Provenance::default() };
    let info = |id: &str, credential: Option<&str>| LeaseInfo {
        lease: id.parse().unwrap(),
        ttl_ms: 5_000,
        credential: credential.map(|name| name.parse().unwrap()),
    };
    let leases = vec![info("a", None), info("b", Some("team")), info("c", Some("other"))];
    *cp.answer.lock().unwrap() = Ok(reply(Answer::Leases { leases, next: Some("c".to_owned()) }));
    let (_, page) = send(&api, &team, Method::GET, "/v1/cp/leases", "").await;
    assert_eq!((page["leases"].as_array().unwrap().len(), page["leases"][0]["lease"].as_str()), (1, Some("b")));
    assert_eq!(page["next"], "c");
    let (_, page) = send(&api, &admin, Method::GET, "/v1/cp/leases", "").await;
    assert_eq!(page["leases"].as_array().unwrap().len(), 3);
    for (credential, expected) in [(Some("team"), 200), (Some("other"), 403), (None, 403)] {
        let status = LeaseStatus { info: info("l", credential), expires_in_ms: 1, entries: Vec::new(), next: None };
        *cp.answer.lock().unwrap() = Ok(reply(Answer::Lease(status)));
        assert_eq!(send(&api, &team, Method::GET, "/v1/cp/leases/l", "").await.0, expected);
        assert_eq!(send(&api, &admin, Method::GET, "/v1/cp/leases/l", "").await.0, 200);
    }
    // On whose word the registry acts.
    let created = Outcome::LeaseCreated { lease: "l".parse().unwrap(), ttl_ms: 5_000 };
    *cp.outcome.lock().unwrap() =
        Ok(Reply { value: created, revision: Revision::Cp(1), provenance: Provenance::default() });
    let kept = KeptAlive { expires_in_ms: 1, lost: Vec::new(), moved: false };
    *cp.kept.lock().unwrap() =
        Ok(Reply { value: vec![Ok(kept)], revision: Revision::Cp(1), provenance: Provenance::default() });
    for (caller, name, by) in [(&team, "team", Some("team")), (&admin, "root", None)] {
        let by = by.map(|name: &str| name.parse().unwrap());
        send(&api, caller, Method::POST, "/v1/cp/leases", r#"{"ttl_ms":5000}"#).await;
        let create = Action::CreateLease { lease: None, ttl_ms: 5_000, credential: Some(name.parse().unwrap()) };
        assert_eq!(cp.asked.lock().unwrap().take(), Some(Asked::Command(create)));
        send(&api, caller, Method::DELETE, "/v1/cp/leases/l", "").await;
        let revoke = Action::RevokeLease { lease: "l".parse().unwrap(), by: Clone::clone(&by) };
        assert_eq!(cp.asked.lock().unwrap().take(), Some(Asked::Command(revoke)));
        send(&api, caller, Method::POST, "/v1/cp/leases/l/keepalive", "").await;
        let keep = KeepAlive { leases: vec!["l".parse().unwrap()], seen: Vec::new(), by };
        assert_eq!(cp.asked.lock().unwrap().take(), Some(Asked::KeepAlive(keep)));
    }
}
