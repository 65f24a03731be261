//! Batches: what goes in, one status each, and what refuses them as a whole.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use quorate::model::command::Action;
use quorate::model::ident::Mode;
use quorate::model::outcome::{Ended, Outcome};
use quorate::registry::{CommandFailure, Reason};
use quorate::wire::batch;

use super::arbitrary::command;
use super::raw;
use super::support::{Asked, Scripted, Server, reference, state};

#[tokio::test]
async fn each_command_has_its_own_status_and_one_refused_stops_none() {
    let server = Server::start(reference()).await;
    let body = r#"{"commands":[
        {"register":{"name":"a","owner":"x","meta":{"n": 1}}},
        {"register":{"name":"a","owner":"y"}},
        {"register":{"name":"a","owner":"x","if_match":"1"}},
        {"register":{"name":"a","owner":"y","takeover":true}},
        {"unregister":{"name":"a","token":"1"}},
        {"unregister":{"name":"b"}},
        {"join":{"group":"g","member":"m"}},
        {"leave":{"group":"g","member":"m"}}
    ]}"#;
    let answer = raw::send(server.addr, "POST", "/v1/cp/batch", &[], body.as_bytes()).await;
    assert_eq!(answer.status, 200);
    let told = answer.json();
    let results = told["results"].as_array().unwrap();
    let statuses = results.iter().map(|result| result["status"].as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!(statuses, [201, 409, 200, 201, 200, 404, 201, 200]);
    assert_eq!(results[0]["entry"]["owner"], "x");
    assert_eq!((results[1]["code"].as_str(), results[1]["current"]["owner"].as_str()), (Some("name_taken"), Some("x")));
    assert_eq!(results[1]["outcome"], "not_applied");
    assert_eq!(results[4]["ended"], "before");
    assert_eq!(results[7]["ended"], "now");
    assert_eq!(answer.header("quorate-revision"), told["revision"].as_str());
    let answer = raw::send(server.addr, "GET", "/v1/cp/names/a", &[], b"").await;
    assert_eq!(answer.json()["owner"], "y");
}

#[tokio::test]
async fn one_malformed_command_refuses_them_all() {
    let cp = Scripted::new(Mode::Cp);
    let server = Server::start(state(cp.clone(), Scripted::new(Mode::Ap))).await;
    let good = r#"{"register":{"name":"a","owner":"x"}}"#;
    for bad in [
        r#"{"register":{"name":"a"}}"#,
        r#"{"register":{"name":"","owner":"x"}}"#,
        r#"{"register":{"name":"a","owner":"x","ttl":1}}"#,
        r#"{"register":{"name":"a","owner":"x","meta":[]}}"#,
        r#"{"register":{"name":"a","owner":"x","takeover":true,"token":"1"}}"#,
        r#"{"register":{"name":"a","owner":"x","if_match":"x"}}"#,
        r#"{"register":{"name":"a","owner":"x","if_none_match":"1"}}"#,
        r#"{"unregister":{"name":"a","token":"1.2.3.4"}}"#,
        r#"{"leave":{"group":"g","member":".."}}"#,
        r#"{"create_lease":{"ttl_ms":5000}}"#,
        r#"{"join":{"group":"g","member":"m"},"leave":{"group":"g","member":"m"}}"#,
        "{}",
        "7",
    ] {
        let body = format!(r#"{{"commands":[{good},{bad},{good}]}}"#);
        let answer = raw::send(server.addr, "POST", "/v1/cp/batch", &[], body.as_bytes()).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "malformed"), "{bad}");
        assert!(answer.json()["detail"].as_str().unwrap().starts_with("commands[1]: "), "{}", answer.body);
        assert_eq!(answer.json()["outcome"], "not_applied");
    }
    let many = |n: usize| format!(r#"{{"commands":[{}]}}"#, vec![good; n].join(","));
    for (body, status, code) in [
        (many(0), 400, "malformed"),
        (many(1_001), 400, "malformed"),
        (String::new(), 400, "malformed"),
        ("{".to_owned(), 400, "malformed"),
        (r#"{"commands":{}}"#.to_owned(), 422, "wrong_shape"),
        ("{}".to_owned(), 422, "wrong_shape"),
        (format!(r#"{{"commands":["{}"]}}"#, "x".repeat(1 << 20)), 413, "too_large"),
    ] {
        let answer = raw::send(server.addr, "POST", "/v1/cp/batch", &[], body.as_bytes()).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code));
    }
    assert_eq!(cp.asked.lock().unwrap().take(), None);
    // A whole one of the longest length gets there; without an outcome it is not for repeating.
    *cp.batched.lock().unwrap() = Err(CommandFailure::Unknown(Reason::Timeout));
    let answer = raw::send(server.addr, "POST", "/v1/cp/batch", &[], many(1_000).as_bytes()).await;
    assert_eq!((answer.status, answer.json()["retryable"].as_bool()), (504, Some(false)));
    let Some(Asked::Batch(actions)) = cp.asked.lock().unwrap().take() else { panic!("nothing was asked") };
    assert_eq!(actions.len(), 1_000);
    *cp.batched.lock().unwrap() = Err(CommandFailure::NotApplied(Reason::NoLeader));
    let answer = raw::send(server.addr, "POST", "/v1/cp/batch", &[], many(1).as_bytes()).await;
    assert_eq!((answer.status, answer.json()["retryable"].as_bool()), (503, Some(true)));
    let answer = raw::send(server.addr, "GET", "/v1/cp/batch", &[], b"").await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
}

#[test]
fn batches_and_their_results_are_read_back_as_they_were_written() {
    let test = || {
        for mode in Mode::ALL {
            let outcome = move |(action, said): (Action, Result<_, _>)| {
                let ended = matches!(action, Action::Unregister { .. } | Action::Leave { .. });
                let said = said.map(|reply: quorate::registry::Reply<Outcome>| reply.value);
                // Where nothing was said, something that fits is.
                let outcome = said.ok().unwrap_or(if ended {
                    Outcome::Ended(Ended::Now)
                } else {
                    Outcome::Refused(quorate::model::outcome::Refusal::LeaseExpired)
                });
                (action, outcome)
            };
            let commands = vec(command(mode).prop_map(outcome), 1..5);
            let mut runner = TestRunner::new(Config { cases: 200, failure_persistence: None, ..Config::default() });
            let check = |said: Vec<(Action, Outcome)>| {
                let (actions, outcomes): (Vec<_>, Vec<_>) = said.into_iter().unzip();
                let sent = batch::commands(&actions).unwrap();
                let read: batch::BatchBody = serde_json::from_slice(&sent).unwrap();
                let back =
                    read.commands.iter().map(|item| batch::read_command(mode, item).unwrap()).collect::<Vec<_>>();
                prop_assert_eq!(&back, &actions);
                let revision = match mode {
                    Mode::Cp => quorate::model::ident::Revision::Cp(1),
                    Mode::Ap => quorate::model::ident::Revision::Ap("x".into()),
                };
                let answer = batch::results(&outcomes, &revision);
                prop_assert_eq!(batch::read_results(mode, &actions, &answer).unwrap(), outcomes);
                Ok(())
            };
            runner.run(&commands, check).unwrap();
        }
    };
    // Strategies of this size take more stack, without optimisation, than a test's thread has.
    std::thread::Builder::new().stack_size(64 << 20).spawn(test).unwrap().join().unwrap();
    let lease = Action::CreateLease { lease: None, ttl_ms: 1_000, credential: None };
    assert_eq!(batch::commands(&[lease]), None);
}
