//! Nodes that come and go: real processes, from an empty directory to a removal that is final.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

use quorate::client::call::Caller;
use quorate::model::ident::Mode;
use quorate::referee::checker::{Budget, Verdict, names};
use quorate::referee::client::Client;
use quorate::referee::formats::own;
use quorate::referee::history::{Process, Side, What};
use quorate::referee::recorder::Recorder;
use quorate::systems::registry_client::{Level, RegistryClient};

use super::nodes::{Nodes, http, quorate, stderr};

const SOON: Duration = Duration::from_secs(30);

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < SOON, "{what}");
        sleep(Duration::from_millis(30));
    }
}

/// The roles of all nodes, as one of them sees the cluster.
fn roles(nodes: &Nodes, at: usize) -> Vec<(u64, String, String)> {
    let status = http(nodes.http_port(at), "GET", "/v1/cluster", "").unwrap().json();
    let text = |node: &serde_json::Value, field: &str| node[field].as_str().unwrap().to_owned();
    let all = status["nodes"].as_array().unwrap().iter();
    all.map(|node| (node["id"].as_u64().unwrap(), text(node, "role"), text(node, "state"))).collect()
}

/// Waits until every one of these nodes sees exactly these as voters, and all of them alive.
fn agree_on(nodes: &Nodes, at: &[usize], voters: &[u64]) {
    for seer in at {
        until(&format!("node {} does not see {voters:?}", seer + 1), || {
            let seen = roles(nodes, *seer);
            seen.iter().map(|(id, ..)| *id).eq(voters.iter().copied())
                && seen.iter().all(|(_, role, state)| role != "learner" && (state == "alive" || state == "me"))
        });
    }
}

/// Removes a node through another one, asking again for as long as nothing is known.
fn remove(nodes: &Nodes, through: usize, id: u64) {
    until(&format!("node {id} is not removed"), || {
        let answer = http(nodes.http_port(through), "DELETE", &format!("/v1/cluster/nodes/{id}?timeout_ms=5000"), "");
        let answer = answer.unwrap();
        assert!(matches!(answer.status, 200 | 409 | 503 | 504), "{answer:?}");
        answer.status == 200
    });
}

#[test]
fn a_node_joins_both_registries_is_removed_for_good_and_never_returns() {
    let mut nodes = Nodes::start(3, &[]);
    for mode in ["cp", "ap"] {
        let path = format!("/v1/{mode}/names/before");
        assert_eq!(http(nodes.http_port(0), "PUT", &path, r#"{"owner":"a"}"#).unwrap().status, 201);
    }
    let four = nodes.join(1, &[]);
    nodes.wait_ready(four);
    let path = "/v1/ap/names/before";
    assert_eq!(http(nodes.http_port(four), "GET", path, "").unwrap().status, 200, "it was ready");
    agree_on(&nodes, &[0, 1, 2, four], &[1, 2, 3, 4]);
    for mode in ["cp", "ap"] {
        let path = format!("/v1/{mode}/names/before");
        until("the newcomer knows what was registered before", || {
            http(nodes.http_port(four), "GET", &path, "").unwrap().status == 200
        });
        let path = format!("/v1/{mode}/names/after");
        assert_eq!(http(nodes.http_port(four), "PUT", &path, r#"{"owner":"b"}"#).unwrap().status, 201);
        until("the others know what was registered at the newcomer", || {
            http(nodes.http_port(2), "GET", &path, "").unwrap().status == 200
        });
    }
    // What is persisted wins: the second time it is simply there.
    nodes.kill(four);
    nodes.restart(four);
    nodes.wait_ready(four);

    remove(&nodes, 2, 4);
    let ended = nodes.wait_ended(four);
    assert_eq!(ended.code(), Some(3), "{}", nodes.log(four));
    assert!(nodes.log(four).contains("node 4 was removed from this cluster, which is final"), "{}", nodes.log(four));
    assert!(http(nodes.http_port(four), "GET", "/readyz", "").is_err());
    agree_on(&nodes, &[0, 1, 2], &[1, 2, 3]);

    // Nor does it start again, on its own disk or on an empty one.
    nodes.restart(four);
    assert_eq!(nodes.wait_ended(four).code(), Some(3));
    assert!(nodes.log(four).contains("node 4 was removed from its cluster"), "{}", nodes.log(four));
    std::fs::remove_dir_all(nodes.data(four)).unwrap();
    nodes.restart(four);
    assert_eq!(nodes.wait_ended(four).code(), Some(3));
    assert_eq!(nodes.log(four).matches("quorate: ").count(), 3, "a line each time: {}", nodes.log(four));

    // Not even after all others were restarted.
    for at in 0..3 {
        nodes.kill(at);
    }
    for at in 0..3 {
        nodes.restart(at);
    }
    for at in 0..3 {
        nodes.wait_ready(at);
    }
    let again = r#"{"id":4,"peer":"127.0.0.1:9"}"#;
    let answer = http(nodes.http_port(1), "POST", "/v1/cluster/nodes", again).unwrap();
    assert_eq!((answer.status, answer.json()["code"].as_str()), (410, Some("node_removed")), "{answer:?}");
}

#[test]
fn a_node_that_was_away_when_it_was_removed_is_refused_by_every_node_with_one_line_on_both_sides() {
    let mut nodes = Nodes::start(3, &[]);
    nodes.kill(2);
    remove(&nodes, 0, 3);
    agree_on(&nodes, &[0, 1], &[1, 2]);
    nodes.restart(2);
    assert_eq!(nodes.wait_ended(2).code(), Some(3), "{}", nodes.log(2));
    let line = "node 3 was removed from this cluster, which is final";
    assert!(nodes.log(2).contains(line), "{}", nodes.log(2));
    assert!(nodes.log(0).contains(line) || nodes.log(1).contains(line), "{}{}", nodes.log(0), nodes.log(1));
    assert_eq!(nodes.log(0).matches("handshake refused").count().max(1), 1, "said once: {}", nodes.log(0));
}

#[test]
fn a_newcomer_serves_nothing_of_ap_before_it_is_in_and_all_of_it_from_its_first_answer_on() {
    let mut nodes = Nodes::start(3, &[]);
    let put = http(nodes.http_port(0), "PUT", "/v1/ap/names/before?w=3", r#"{"owner":"a"}"#).unwrap();
    assert_eq!(put.status, 201);
    // Nobody can let it in.
    nodes.kill(1);
    nodes.kill(2);
    let four = nodes.join(0, &[]);
    until("it lives", || http(nodes.http_port(four), "GET", "/livez", "").is_ok());
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        for (method, path, body) in [
            ("GET", "/readyz?mode=ap", ""),
            ("GET", "/v1/ap/names/before", ""),
            ("PUT", "/v1/ap/names/other", r#"{"owner":"a"}"#),
            ("POST", "/v1/ap/leases", r#"{"ttl_ms":5000}"#),
        ] {
            let answer = http(nodes.http_port(four), method, path, body).unwrap();
            assert_eq!((answer.status, answer.json()["code"].as_str()), (503, Some("starting")), "{method} {path}");
        }
        sleep(Duration::from_millis(100));
    }
    nodes.restart(1);
    nodes.restart(2);
    let path = "/v1/ap/names/before";
    until("it serves", || match http(nodes.http_port(four), "GET", path, "").unwrap() {
        answer if answer.status == 503 => false,
        answer => {
            assert_eq!(answer.status, 200, "its first answer: {answer:?}");
            true
        }
    });
}

#[test]
fn what_cannot_join_is_told_why_in_one_line() {
    let nodes = Nodes::start(1, &[]);
    let dir = super::nodes::temporary();
    let data = dir.path().to_str().unwrap();
    let url = format!("http://127.0.0.1:{}", nodes.http_port(0));
    let serve = |args: &[&str]| {
        let usual = ["serve", "--http", "127.0.0.1:0", "--data", data];
        quorate(&[&usual[..], args].concat())
    };
    let cases: &[(&[&str], i32, &str)] = &[
        (&["--id", "1", "--peer", "127.0.0.1:0", "--join", &url], 3, "node 1 is at 127.0.0.1"),
        (&["--id", "2", "--peer", "0.0.0.0:0", "--join", &url], 64, "tell the others by --advertise-peer"),
        (
            &["--id", "2", "--peer", "127.0.0.1:0", "--join", "http://127.0.0.1:1"],
            3,
            "cannot join by http://127.0.0.1:1",
        ),
        (&["--id", "2", "--peer", "127.0.0.1:0", "--join", "ftp://x"], 64, "is not http"),
        (&["--id", "2", "--join", &url, "--cluster", "2=127.0.0.1:1"], 64, "cannot be used with"),
        (&["--id", "2", "--learner"], 64, "--join"),
    ];
    for (args, code, told) in cases {
        let done = serve(args);
        assert_eq!(done.status.code(), Some(*code), "{args:?}: {}", stderr(&done));
        assert!(stderr(&done).contains(told), "{args:?}: {}", stderr(&done));
        let _ = std::fs::remove_dir_all(dir.path().join("raft"));
        let _ = std::fs::remove_file(dir.path().join("identity.json"));
    }
}

#[test]
fn a_stopped_leader_hands_over_and_names_are_resolved_at_each_dial() {
    // By name, not by address: each dial asks again what it means.
    let mut nodes = Nodes::named("localhost", 3, &["--election-timeout-ms", "5000"]);
    for at in 0..3 {
        nodes.wait_ready(at);
    }
    let leader = || {
        let status = http(nodes.http_port(0), "GET", "/v1/cluster", "").ok()?.json();
        status["leader"].as_u64()
    };
    let first = leader().unwrap() as usize - 1;
    let other = (first + 1) % 3;
    let begun = Instant::now();
    nodes.end(first);
    until("nobody leads", || {
        let answer =
            http(nodes.http_port(other), "PUT", "/v1/cp/names/after?timeout_ms=1000", r#"{"owner":"a"}"#).unwrap();
        matches!(answer.status, 200 | 201)
    });
    // An election by timeout alone would take five seconds at least.
    assert!(begun.elapsed() < Duration::from_millis(4_500), "took {:?}", begun.elapsed());
}

/// Calls to one node, one after the other, about a few contended names.
fn work(nodes: &[Arc<Caller>], process: u64, members: &Mutex<Vec<usize>>, stop: &AtomicBool, recorder: &Recorder) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut clients =
        nodes.iter().map(|caller| RegistryClient::new(caller.clone(), Mode::Cp, Level::default())).collect::<Vec<_>>();
    let mut number = process;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        // A call without an outcome may still take effect: the process that made it makes no more.
        let process = Process::Client(process + 100 * number);
        let name = format!("n{}", number % 7);
        let what = match number % 5 {
            0 => What::Unregister { name, token: None, result: None },
            1 | 2 => What::Register { name, owner: format!("o{process:?}"), lease: None, result: None },
            _ => What::Whereis { name, result: None },
        };
        let at = {
            let members = members.lock().unwrap();
            members[(number % members.len() as u64) as usize]
        };
        let invoked = recorder.invoke(process, at as u64 + 1, Side::Whole, &what);
        let completion = runtime.block_on(clients[at].call(&what, Instant::now() + Duration::from_secs(1)));
        recorder.complete(invoked, completion);
        sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_cluster_grows_from_3_to_5_and_shrinks_to_3_under_load_and_its_history_is_linearizable() {
    let mut nodes = Nodes::start(3, &[]);
    let (four, five) = (nodes.reserve(), nodes.reserve());
    let callers = (0..5).map(|at| {
        let url = format!("http://127.0.0.1:{}", nodes.http_port(at));
        Arc::new(Caller::new(&url).unwrap())
    });
    let callers = callers.collect::<Vec<_>>();
    let (recorder, stop) = (Recorder::start(), AtomicBool::new(false));
    let members = Mutex::new(vec![0, 1, 2]);
    std::thread::scope(|scope| {
        for process in 1..=4 {
            let (callers, members, recorder, stop) = (&callers, &members, &recorder, &stop);
            scope.spawn(move || work(callers, process, members, stop, recorder));
        }
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            nodes.start_joiner(four, 0, &[]);
            nodes.start_joiner(five, 1, &[]);
            agree_on(&nodes, &[0, 1, 2, four, five], &[1, 2, 3, 4, 5]);
            *members.lock().unwrap() = vec![0, 1, 2, four, five];
            sleep(Duration::from_secs(1));
            // A node dies and is replaced by what is there already; another one, perhaps the leader, goes in good order.
            nodes.kill(0);
            remove(&nodes, 2, 1);
            remove(&nodes, five, 2);
            nodes.wait_ended(1);
            *members.lock().unwrap() = vec![2, four, five];
            agree_on(&nodes, &[2, four, five], &[3, 4, 5]);
            sleep(Duration::from_secs(1));
        }));
        stop.store(true, Ordering::Relaxed);
        if let Err(why) = result {
            std::panic::resume_unwind(why);
        }
    });
    let events = recorder.take();
    let calls = own::calls(&events).unwrap();
    assert!(calls.names.len() > 200, "only {} calls", calls.names.len());
    let verdict = names::check(&calls.names, &Budget::steps(5_000_000));
    assert!(matches!(verdict, Verdict::Linearizable), "{verdict:?}");
}
