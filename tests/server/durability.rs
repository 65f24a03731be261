//! Nothing acknowledged in `cp` is lost: real processes, a real disk, kill -9.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::nodes::{Nodes, http, skipped};

/// The rounds of killing all nodes at once.
const ROUNDS: usize = 20;
const WRITERS: usize = 4;

type Acknowledged = Arc<Mutex<BTreeMap<String, String>>>;

/// Registers one fresh name after the other at one node until told to stop, and notes what was acknowledged.
fn write(port: u16, writer: usize, round: usize, stop: &AtomicBool, acknowledged: &Acknowledged) {
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let name = format!("r{round}-w{writer}-{number}");
        let owner = format!("owner-{round}-{writer}-{number}");
        let path = format!("/v1/cp/names/{name}?timeout_ms=1000");
        match http(port, "PUT", &path, &format!("{{\"owner\":\"{owner}\"}}")) {
            Ok(answer) if answer.status == 201 => {
                acknowledged.lock().unwrap().insert(name, owner);
            }
            Ok(answer) => assert!(matches!(answer.status, 503 | 504), "{answer:?}"),
            // Killed under the request: nothing is known.
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

#[test]
fn kill_9_of_all_nodes_in_a_loop_of_20_loses_no_acknowledged_registration() {
    let mut nodes = Nodes::start(3, &[]);
    let acknowledged = Acknowledged::default();
    for round in 0..ROUNDS {
        let before = acknowledged.lock().unwrap().len();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                let (port, stop, acknowledged) = (nodes.http_port(writer % 3), &stop, &acknowledged);
                scope.spawn(move || write(port, writer, round, stop, acknowledged));
            }
            // Each round dies at another moment of the disk's and Raft's work.
            let begun = Instant::now();
            while acknowledged.lock().unwrap().len() < before + 5 + 3 * round {
                assert!(begun.elapsed() < Duration::from_secs(20), "nothing is acknowledged any more");
                std::thread::sleep(Duration::from_millis(1));
            }
            nodes.kill_all();
            stop.store(true, Ordering::Relaxed);
        });
        for at in 0..3 {
            nodes.restart(at);
        }
        for at in 0..3 {
            nodes.wait_ready(at);
        }
        // Those of this round at once, all of them at the end.
        let all = acknowledged.lock().unwrap().clone();
        let prefix = format!("r{round}-");
        let looked_at = all.iter().filter(|(name, _)| round + 1 == ROUNDS || name.starts_with(&prefix));
        for (at, (name, owner)) in looked_at.enumerate() {
            let answer = http(nodes.http_port(at % 3), "GET", &format!("/v1/cp/names/{name}"), "").unwrap();
            assert_eq!(answer.status, 200, "{name} of round {round} was acknowledged and is lost: {}", answer.body);
            assert_eq!(answer.json()["owner"], **owner);
        }
    }
    println!("{} acknowledged registrations survived {ROUNDS} kills of all nodes", acknowledged.lock().unwrap().len());
}

/// Runs `strace` on a node and looks at the order of what it does for one acknowledged write.
#[test]
fn strace_shows_fdatasync_between_append_and_acknowledgement() {
    use std::process::{Command, Stdio};
    if !cfg!(target_os = "linux") || Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        skipped("strace is not installed (apt-get install strace)");
        return;
    }
    let nodes = Nodes::start(1, &[]);
    let trace = nodes.dir.path().join("trace");
    let mut tracer = Command::new("strace")
        .args(["-f", "-tt", "-s", "64", "-e", "trace=pwrite64,fdatasync,write,writev,sendto", "-o"])
        .arg(&trace)
        .args(["-p", &nodes.pid(0).to_string()])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let attached = |text: &str| std::fs::read_to_string(&trace).is_ok_and(|trace| trace.contains(text));
    let begun = Instant::now();
    let mut number = 0;
    // strace says nothing of when it has attached: write until it sees an answer go out.
    while !attached("201 Created") && begun.elapsed() < Duration::from_secs(10) {
        number += 1;
        let body = "{\"owner\":\"traced\"}";
        let answer = http(nodes.http_port(0), "PUT", &format!("/v1/cp/names/traced-{number}"), body).unwrap();
        assert_eq!(answer.status, 201);
        std::thread::sleep(Duration::from_millis(50));
    }
    let _ = tracer.kill();
    let _ = tracer.wait();
    let trace = std::fs::read_to_string(&trace).unwrap_or_default();
    if !trace.contains("201 Created") {
        skipped("strace may not attach to processes here");
        return;
    }
    let lines = trace.lines().collect::<Vec<_>>();
    let answered = lines.iter().rposition(|line| line.contains("201 Created")).unwrap();
    let before = &lines[..answered];
    let earlier_answer = before.iter().rposition(|line| line.contains("201 Created")).map_or(0, |at| at + 1);
    let this_write = &before[earlier_answer..];
    let appended = this_write.iter().position(|line| line.contains("traced"));
    let synced = this_write.iter().rposition(|line| line.contains("fdatasync") && line.ends_with("= 0"));
    assert!(
        matches!((appended, synced), (Some(appended), Some(synced)) if appended < synced),
        "no fdatasync between append and acknowledgement:\n{}",
        this_write.join("\n")
    );
}
