//! A backup taken from a running cluster, and a new cluster made of it: real processes, from the file to the first write.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::nodes::{Nodes, QUORATE, free_port, http, quorate, skipped, stderr, temporary};

fn restore(file: &Path, data: &Path, more: &[&str]) -> Output {
    let (file, data) = (file.to_str().unwrap(), data.to_str().unwrap());
    quorate(&[&["restore", file, "--data", data][..], more].concat())
}

fn take(nodes: &Nodes, at: usize, file: &Path) {
    let endpoint = format!("http://127.0.0.1:{}", nodes.http_port(at));
    let done = quorate(&["backup", file.to_str().unwrap(), "--endpoints", &endpoint]);
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
}

/// What stands, without the revision of the whole.
fn names(port: u16) -> serde_json::Value {
    let answer = http(port, "GET", "/v1/cp/names", "").unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["names"].clone()
}

fn token(port: u16, name: &str, owner: &str) -> u64 {
    let body = format!("{{\"owner\":\"{owner}\"}}");
    let answer = http(port, "PUT", &format!("/v1/cp/names/{name}"), &body).unwrap();
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.json()["token"].as_str().unwrap().parse().unwrap()
}

#[test]
fn a_new_cluster_begins_with_the_backups_content_and_its_tokens_never_go_back() {
    let mut nodes = Nodes::start(3, &[]);
    let last = (0..20).map(|at| token(nodes.http_port(at % 3), &format!("n{at}"), "a")).max().unwrap();
    let dir = temporary();
    let file = dir.path().join("backup");
    // Any node gives one out, as new as the call.
    take(&nodes, 2, &file);
    let before = names(nodes.http_port(0));
    let after_backup = token(nodes.http_port(0), "later", "b");
    assert!(after_backup > last);
    let old = http(nodes.http_port(0), "GET", "/v1/cluster", "").unwrap().json()["cluster"].clone();
    let old_port = nodes.http_port(1);

    // The new node takes the port of one of the old cluster, whose others go on calling it.
    nodes.kill(0);
    let mut anew = Nodes::unstarted("127.0.0.1", vec![(free_port(), nodes.ports[0].1)], &[]);
    let peer = format!("127.0.0.1:{}", nodes.ports[0].1);
    let done = restore(&file, &anew.data(0), &["--id", "1", "--peer", &peer]);
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    anew.restart(0);
    anew.wait_ready(0);
    let port = anew.http_port(0);
    assert_eq!(names(port), before, "by content, with all tokens and metas");
    assert_ne!(http(port, "GET", "/v1/cluster", "").unwrap().json()["cluster"], old);
    assert!(token(port, "fresh", "c") >= last + (1 << 40));
    assert!(token(port, "fresher", "c") > after_backup);

    // Each refuses the other, over the links of both modes.
    let begun = Instant::now();
    let refused = |port: u16, id: u64| {
        let status = http(port, "GET", "/v1/cluster", "").unwrap().json();
        let node = status["nodes"].as_array().unwrap().iter().find(|node| node["id"] == id).cloned();
        node.and_then(|node| node["refused"].as_str().map(str::to_owned)).unwrap_or_default()
    };
    while !refused(old_port, 1).contains("belongs to cluster") {
        assert!(begun.elapsed() < Duration::from_secs(20), "the old cluster speaks to the new one");
        sleep(Duration::from_millis(50));
    }
    let state = |port: u16, id: u64| {
        let status = http(port, "GET", "/v1/cluster", "").unwrap().json();
        let node = status["nodes"].as_array().unwrap().iter().find(|node| node["id"] == id).cloned();
        node.map(|node| node["state"].as_str().unwrap().to_owned())
    };
    until_down(|| state(old_port, 1));
    assert_eq!(state(port, 2), None);

    // It is a cluster like any other: it restarts, and others join it.
    anew.kill(0);
    anew.restart(0);
    anew.wait_ready(0);
    let joined = anew.join(0, &[]);
    anew.wait_ready(joined);
    assert_eq!(names(anew.http_port(joined)).as_array().unwrap().len(), 22);
}

/// To the old cluster the node is not there, whatever listens at its address.
fn until_down(state: impl Fn() -> Option<String>) {
    let begun = Instant::now();
    while state().as_deref() != Some("down") {
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", state());
        sleep(Duration::from_millis(50));
    }
}

#[test]
fn what_is_no_whole_backup_or_no_empty_directory_is_refused_in_one_line_and_nothing_is_left() {
    let nodes = Nodes::start(1, &[]);
    token(nodes.http_port(0), "n", "a");
    let dir = temporary();
    let file = dir.path().join("backup");
    take(&nodes, 0, &file);
    let whole = std::fs::read(&file).unwrap();
    let data = dir.path().join("new");
    let refused = |what: &str, bytes: &[u8], told: &str| {
        std::fs::write(&file, bytes).unwrap();
        let done = restore(&file, &data, &[]);
        assert_eq!(done.status.code(), Some(3), "{what}: {}", stderr(&done));
        assert!(stderr(&done).contains(told) && stderr(&done).lines().count() == 1, "{what}: {}", stderr(&done));
        assert!(!data.exists(), "{what}: something was left");
    };
    refused("cut short", &whole[..whole.len() - 1], "is damaged (its end is missing)");
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    refused("one bit", &flipped, "is damaged (it does not match its checksum)");
    refused("longer", &[&whole[..], b"x"].concat(), "is damaged (something was added to it)");
    refused("something else", b"#!/bin/sh", "is no backup: give the file that `quorate backup` wrote");
    refused("nothing", b"", "is no backup");
    std::fs::write(&file, &whole).unwrap();
    // A running node's directory, or anything else that is not empty.
    for taken in [nodes.data(0), dir.path().to_owned()] {
        let before = super::nodes::listing(&taken).len();
        let done = restore(&file, &taken, &[]);
        assert_eq!(done.status.code(), Some(3), "{}", stderr(&done));
        assert!(stderr(&done).contains("is not empty: restore into an empty directory"), "{}", stderr(&done));
        assert_eq!(super::nodes::listing(&taken).len(), before);
    }
}

#[test]
fn where_nobody_is_no_backup_is_waited_for_and_the_next_server_is_asked() {
    let begun = Instant::now();
    let done = quorate(&["backup", "--endpoints", "http://127.0.0.1:1"]);
    assert_eq!((done.status.code(), done.stdout.len()), (Some(3), 0), "{}", stderr(&done));
    // Half of the 30 s that it may take.
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    let nodes = Nodes::start(1, &[]);
    let urls = format!("http://127.0.0.1:1,http://127.0.0.1:{}", nodes.http_port(0));
    let done = quorate(&["backup", "--endpoints", &urls]);
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    assert!(done.stdout.starts_with(b"QRTBKUP1"));
}

/// Gives every caller these bytes, however often it is asked, and hangs up.
fn serving(answer: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4_096]);
            let _ = stream.write_all(&answer);
        }
    });
    url
}

#[test]
fn a_backup_that_does_not_come_whole_is_noticed_and_nothing_of_it_is_left() {
    let nodes = Nodes::start(1, &[]);
    token(nodes.http_port(0), "n", "a");
    let dir = temporary();
    let (file, older) = (dir.path().join("backup"), dir.path().join("older"));
    take(&nodes, 0, &file);
    let whole = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&older, "what was there before").unwrap();
    let head = |len: usize| format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n").into_bytes();
    // A proxy may not know how long it is, or say so of what it was given itself.
    let unsized_head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec();
    let half = &whole[..whole.len() / 2];
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for (what, answer, told) in [
        ("broken off", [head(whole.len()), half.to_vec()].concat(), "no backup: the connection broke"),
        ("cut by a proxy", [head(half.len()), half.to_vec()].concat(), "its end is missing"),
        ("cut without a length", [&unsized_head[..], half].concat(), "its end is missing"),
        ("longer", [&unsized_head[..], &whole, b"x"].concat(), "something was added to it"),
        ("one bit", [&unsized_head[..], &flipped].concat(), "it does not match its checksum"),
        ("a page", [&unsized_head[..], b"<html>"].concat(), "it is no backup at all"),
        ("nothing", unsized_head.clone(), "it is no backup at all"),
    ] {
        let url = serving(answer);
        for file in [&file, &older] {
            let done = quorate(&["backup", file.to_str().unwrap(), "--endpoints", &url]);
            assert_eq!(done.status.code(), Some(3), "{what}: {}", stderr(&done));
            assert!(stderr(&done).contains(told) && stderr(&done).lines().count() == 1, "{what}: {}", stderr(&done));
        }
        let left = super::nodes::listing(dir.path());
        assert_eq!(left, [(older.clone(), 21)], "{what}: something was left, or lost");
        let done = quorate(&["backup", "--endpoints", &url]);
        assert_eq!(done.status.code(), Some(3), "{what}, to standard output");
    }
    let url = serving([&unsized_head[..], &whole].concat());
    let done = quorate(&["backup", file.to_str().unwrap(), "--endpoints", &url]);
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    assert_eq!(std::fs::read(&file).unwrap(), whole);
}

#[test]
fn a_backup_may_be_larger_than_the_memory_that_takes_it() {
    if !cfg!(target_os = "linux") {
        return skipped("how much memory a process may have is limited by Linux alone");
    }
    let nodes = Nodes::start(1, &[]);
    let meta = format!("{{\"x\":\"{}\"}}", "x".repeat(16_000));
    let (batches, each) = (80, 60);
    for batch in 0..batches {
        let command = |at| format!("{{\"register\":{{\"name\":\"n{batch}-{at}\",\"owner\":\"a\",\"meta\":{meta}}}}}");
        let commands = (0..each).map(command).collect::<Vec<_>>().join(",");
        let body = format!("{{\"commands\":[{commands}]}}");
        let answer = http(nodes.http_port(0), "POST", "/v1/cp/batch?timeout_ms=30000", &body).unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let dir = temporary();
    let file = dir.path().join("backup");
    let endpoint = format!("http://127.0.0.1:{}", nodes.http_port(0));
    // So many KiB of memory for all that the program has.
    let limited = |kib: u64| {
        let command = format!("ulimit -d {kib}; exec \"$0\" \"$@\"");
        let args = ["backup", file.to_str().unwrap(), "--endpoints", &endpoint];
        Command::new("sh").args(["-c", &command, QUORATE]).args(args).output().unwrap()
    };
    let done = limited(48 * 1_024);
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    let len = std::fs::metadata(&file).unwrap().len();
    assert!(len > batches * each * 16_000 && len > 64 << 20, "{len} bytes");
    let (head, table) = quorate::raft::backup::read(&file).unwrap();
    assert_eq!((head.revision, table.revision()), (batches * each, batches * each));
}
