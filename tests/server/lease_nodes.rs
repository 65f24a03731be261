//! Leases of real processes: put to sleep, told to stop, and watched as they end.

use std::net::{Ipv4Addr, SocketAddr};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::http::stream::Stream;
use super::nodes::{Answer, Nodes, http};

const SOON: Duration = Duration::from_secs(30);

fn signal(nodes: &Nodes, at: usize, signal: Signal) {
    kill_process(Pid::from_raw(nodes.pid(at) as i32).unwrap(), signal).unwrap();
}

/// Asks until it is known what came of it.
fn surely(nodes: &Nodes, at: usize, method: &str, path: &str, body: &str) -> Answer {
    let begun = Instant::now();
    loop {
        match http(nodes.http_port(at), method, path, body) {
            Ok(answer) if !matches!(answer.status, 503 | 504) => return answer,
            answer => assert!(begun.elapsed() < SOON, "{method} {path}: {answer:?}"),
        }
        sleep(Duration::from_millis(30));
    }
}

/// Creates a lease and binds these names to it.
fn lease(nodes: &Nodes, at: usize, mode: &str, ttl: Duration, names: &[&str]) -> String {
    let body = format!("{{\"ttl_ms\":{}}}", ttl.as_millis());
    let made = surely(nodes, at, "POST", &format!("/v1/{mode}/leases"), &body);
    assert_eq!(made.status, 201, "{made:?}");
    let lease = made.json()["lease"].as_str().unwrap().to_owned();
    for name in names {
        let body = format!("{{\"owner\":\"o\",\"lease\":\"{lease}\"}}");
        let granted = surely(nodes, at, "PUT", &format!("/v1/{mode}/names/{name}"), &body);
        assert!(matches!(granted.status, 200 | 201), "{granted:?}");
    }
    lease
}

fn leader(nodes: &Nodes, at: usize, but: Option<usize>) -> usize {
    let begun = Instant::now();
    loop {
        let status = http(nodes.http_port(at), "GET", "/v1/cluster", "").unwrap().json();
        match status["leader"].as_u64().map(|id| id as usize - 1) {
            Some(leader) if Some(leader) != but => return leader,
            _ => assert!(begun.elapsed() < SOON, "nobody leads"),
        }
        sleep(Duration::from_millis(20));
    }
}

#[test]
fn c4_a_leader_that_slept_while_it_was_deposed_ends_no_lease_when_it_wakes() {
    const TTL: Duration = Duration::from_secs(4);
    let nodes = Nodes::start(3, &[]);
    let old = leader(&nodes, 0, None);
    let lease = lease(&nodes, old, "cp", TTL, &["x"]);
    let through = (old + 1) % 3;
    let keep = format!("/v1/cp/leases/{lease}/keepalive");
    signal(&nodes, old, Signal::STOP);
    let slept = Instant::now();
    let mut sent = slept;
    let mut woken = None;
    // All its timers are due, and long over, when it wakes.
    while woken.is_none_or(|woken: Instant| woken.elapsed() < Duration::from_secs(4)) {
        let sending = Instant::now();
        let kept = surely(&nodes, through, "POST", &keep, "");
        let late = sent.elapsed() >= TTL;
        if late {
            signal(&nodes, old, Signal::CONT);
            return super::nodes::skipped("this machine is too slow to keep a lease of four seconds alive");
        }
        assert_eq!(kept.status, 200, "{:?} after it woke: {kept:?}", woken.map(|woken| woken.elapsed()));
        sent = sending;
        if woken.is_none() && slept.elapsed() > 2 * TTL {
            assert_ne!(leader(&nodes, through, Some(old)), old);
            signal(&nodes, old, Signal::CONT);
            woken = Some(Instant::now());
        }
        sleep(Duration::from_millis(50));
    }
    // It has understood, and is one of them again.
    let found = surely(&nodes, old, "GET", "/v1/cp/names/x", "");
    assert_eq!((found.status, found.json()["lease"].as_str()), (200, Some(&*lease)));
    assert_ne!(leader(&nodes, old, None), old);
}

#[test]
fn a13_a_node_told_to_stop_hands_its_leases_over_and_nothing_is_hidden_for_a_moment() {
    const TTL: Duration = Duration::from_secs(4);
    let mut nodes = Nodes::start(3, &[]);
    let (left, kept) = (lease(&nodes, 0, "ap", TTL, &["left"]), lease(&nodes, 0, "ap", TTL, &["x"]));
    let known = |at: usize, name: &str| {
        let answer = http(nodes.http_port(at), "GET", &format!("/v1/ap/names/{name}"), "").unwrap();
        assert!(matches!(answer.status, 200 | 404), "{answer:?}");
        answer.status == 200
    };
    let begun = Instant::now();
    while ![1, 2].iter().all(|at| known(*at, "x") && known(*at, "left")) {
        assert!(begun.elapsed() < SOON);
    }
    let mut sent = Instant::now();
    assert_eq!(surely(&nodes, 0, "POST", &format!("/v1/ap/leases/{kept}/keepalive"), "").status, 200);
    signal(&nodes, 0, Signal::TERM);
    let path = format!("/v1/ap/leases/{kept}/keepalive");
    let (mut round, mut ended) = (0, None);
    while sent.elapsed() < TTL && (ended.is_none_or(|at: Instant| at.elapsed() < 2 * TTL)) {
        for at in [1, 2] {
            assert!(
                known(at, "x") || sent.elapsed() >= TTL,
                "hidden at {} {:?} after a keep-alive",
                at + 1,
                sent.elapsed()
            );
        }
        if ended.is_none() && http(nodes.http_port(0), "GET", "/livez", "").is_err() {
            ended = Some(Instant::now());
        }
        // Only once it is gone: until then it passes for its keeper.
        if ended.is_some() && sent.elapsed() > TTL / 4 {
            let (at, sending) = (1 + round % 2, Instant::now());
            let answer = surely(&nodes, at, "POST", &path, "");
            assert!(answer.status == 200 || sent.elapsed() >= TTL, "{answer:?}");
            if answer.status == 200 {
                assert_ne!(answer.json()["moved"], true, "it had to be adopted: {answer:?}");
            }
            (round, sent) = (round + 1, sending);
        }
        sleep(Duration::from_millis(20));
    }
    assert!(round >= 4 || sent.elapsed() >= TTL, "{round} keep-alives");
    assert!(nodes.wait_ended(0).success());
    // The one that nobody keeps alive has ended.
    let gone = surely(&nodes, 1, "GET", &format!("/v1/ap/leases/{left}"), "");
    assert!(matches!(gone.status, 404 | 410), "{gone:?}");
    assert_eq!(surely(&nodes, 2, "GET", "/v1/ap/names/left", "").status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c1_all_that_a_lease_holds_ends_in_one_revision_on_every_watch() {
    let nodes = Nodes::start(3, &[]);
    let lease = lease(&nodes, 0, "cp", Duration::from_secs(3), &["n1", "n2", "n3"]);
    for at in 0..3 {
        let body = format!("{{\"lease\":\"{lease}\"}}");
        let joined = surely(&nodes, at, "PUT", &format!("/v1/cp/groups/g/members/m{at}"), &body);
        assert_eq!(joined.status, 201, "{joined:?}");
    }
    let mut messages = Vec::new();
    for at in 0..3 {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, nodes.http_port(at)));
        let mut stream = Stream::open(addr, "/v1/cp/watch?after=0", &[]).await;
        assert_eq!(stream.status(), 200, "{}", stream.head);
        let (mut granted, mut ended) = (0, Vec::new());
        while ended.is_empty() {
            let event = tokio::time::timeout(SOON, stream.next()).await.unwrap().expect("the stream goes on");
            if event.event != "change" {
                continue;
            }
            let data: serde_json::Value = serde_json::from_str(&event.data).unwrap();
            let changes = data["changes"].as_array().unwrap();
            let kinds = changes.iter().map(|change| change["kind"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
            match kinds.iter().all(|kind| matches!(&**kind, "registered" | "joined")) {
                true => granted += kinds.len(),
                false => ended = kinds,
            }
            messages.push((granted, ended.clone(), data["revision"].clone()));
        }
        assert_eq!(granted, 6, "{messages:?}");
        ended.sort();
        assert_eq!(ended, ["ended", "ended", "ended", "lease_expired", "left", "left", "left"], "{messages:?}");
    }
    let last = messages.iter().filter(|(_, ended, _)| !ended.is_empty()).map(|(_, _, revision)| revision);
    let last = last.collect::<Vec<_>>();
    assert!(last.len() == 3 && last.iter().all(|revision| *revision == last[0]), "{last:?}");
}
