//! What a node refuses to start on: one clear line, an exit code, and nothing changed.

use std::fs;
use std::process::{Command, Stdio};

use super::nodes::{Nodes, QUORATE, free_port, http, listing, quorate, stderr, temporary};

/// Runs `serve` with these flags until it gives up by itself; returns its exit code and its one line.
fn refused(args: &[&str]) -> (i32, String) {
    let ports = [free_port().to_string(), free_port().to_string()].map(|port| format!("127.0.0.1:{port}"));
    let mut command = Command::new(QUORATE);
    command.arg("serve").args(args);
    for (flag, addr) in ["--http", "--peer"].into_iter().zip(&ports) {
        if !args.contains(&flag) {
            command.args([flag, addr]);
        }
    }
    // Standard input ends at once, so that a node that does start does not stay.
    let output = command.arg("--exit-with-stdin").stdin(Stdio::null()).output().unwrap();
    let said = stderr(&output);
    let line = said.lines().last().unwrap_or_default().to_owned();
    assert_eq!(said.lines().count(), 1, "{said}");
    (output.status.code().unwrap(), line)
}

#[test]
fn a_port_in_use_is_told_with_the_flag_that_mends_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap().to_string();
    let dir = temporary();
    let data = dir.path().join("data").display().to_string();
    for flag in ["--http", "--peer"] {
        let (code, line) = refused(&[flag, &at, "--data", &data]);
        assert_eq!(code, 3);
        assert!(line.contains(&at) && line.contains(flag), "{line}");
    }
}

#[test]
fn an_unusable_data_directory_is_told() {
    let dir = temporary();
    let file = dir.path().join("file");
    fs::write(&file, "not a directory").unwrap();
    let (code, line) = refused(&["--data", &file.join("below").display().to_string()]);
    assert_eq!(code, 3);
    assert!(line.contains("--data"), "{line}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "not a directory");
}

/// A directory that a node has served from, with one acknowledged name in it.
fn used() -> (Nodes, u16) {
    let mut nodes = Nodes::start(1, &[]);
    let port = nodes.http_port(0);
    assert_eq!(http(port, "PUT", "/v1/cp/names/kept", "{\"owner\":\"o\"}").unwrap().status, 201);
    nodes.kill_all();
    (nodes, port)
}

fn still_there(mut nodes: Nodes, port: u16) {
    nodes.restart(0);
    nodes.wait_ready(0);
    assert_eq!(http(port, "GET", "/v1/cp/names/kept", "").unwrap().json()["owner"], "o");
}

#[test]
fn a_directory_of_another_node_cluster_or_layout_is_refused_and_left_alone() {
    let (nodes, port) = used();
    let data = nodes.data(0).display().to_string();
    let before = listing(&nodes.data(0));
    let (code, line) = refused(&["--data", &data, "--id", "2"]);
    assert_eq!(code, 3);
    assert!(line.contains("belongs to node 1"), "{line}");
    assert_eq!(listing(&nodes.data(0)), before);

    let identity = nodes.data(0).join("identity.json");
    let kept = fs::read_to_string(&identity).unwrap();
    let format = kept.replace("\"format\": 1", "\"format\": 99");
    assert_ne!(format, kept);
    fs::write(&identity, format).unwrap();
    let (code, line) = refused(&["--data", &data]);
    assert_eq!(code, 3);
    assert!(line.contains("layout 99"), "{line}");

    // As if the Raft directory had been copied from another cluster's node.
    let cluster = serde_json::from_str::<serde_json::Value>(&kept).unwrap()["cluster"].as_str().unwrap().to_owned();
    fs::write(&identity, kept.replace(&cluster, "0123456789abcdef")).unwrap();
    let (code, line) = refused(&["--data", &data]);
    assert_eq!(code, 3);
    assert!(line.contains("cluster"), "{line}");

    fs::write(&identity, kept).unwrap();
    still_there(nodes, port);
}

#[test]
fn a_torn_sled_snapshot_of_a_kill_is_cleaned_away_and_nothing_is_lost() {
    let (nodes, port) = used();
    let raft = listing(&nodes.data(0)).into_iter().find(|(path, _)| path.ends_with("raft/db") || path.ends_with("db"));
    let dir = raft.expect("a sled directory").0.parent().unwrap().to_owned();
    fs::write(dir.join("snap.0000000000ffffff.generating"), b"torn").unwrap();
    still_there(nodes, port);
}

#[test]
fn a_damaged_log_stops_the_node_with_a_line_and_nothing_is_wiped() {
    let (nodes, _) = used();
    let db = listing(&nodes.data(0)).into_iter().find(|(path, _)| path.ends_with("raft/db")).expect("the log").0;
    let mut bytes = fs::read(&db).unwrap();
    // Every copy of the acknowledged name in the log, so that sled's own checksum or ours has to see it.
    let at = bytes.windows(4).enumerate().filter(|(_, window)| window == b"kept").map(|(at, _)| at).collect::<Vec<_>>();
    assert!(!at.is_empty());
    for at in at {
        bytes[at] ^= 0xff;
    }
    fs::write(&db, &bytes).unwrap();
    let data = nodes.data(0).display().to_string();
    let (code, line) = refused(&["--data", &data]);
    assert_eq!(code, 3, "{line}");
    assert_eq!(line.matches(&data).count(), 1, "it is said once: {line}");
    assert!(db.exists());
}

#[test]
fn bad_flags_are_usage_errors() {
    for args in [
        &["serve", "--cluster", "1=nowhere"][..],
        &["serve", "--cluster", "1=a:1,1=b:1"],
        &["serve", "--cluster", "1=a:1,2=a:1"],
        &["serve", "--id", "0"],
        &["serve", "--id", "3", "--cluster", "1=a:1,2=b:1"],
        &["serve", "--mode", "sometimes"],
        &["serve", "--http", "here"],
        &["nonsense"],
        &[],
    ] {
        let output = quorate(args);
        assert_eq!(output.status.code(), Some(64), "{args:?}: {}", stderr(&output));
        assert!(!stderr(&output).is_empty());
    }
}

#[test]
fn two_nodes_do_not_share_one_directory() {
    let nodes = Nodes::start(1, &[]);
    let (code, line) = refused(&["--data", &nodes.data(0).display().to_string()]);
    assert_eq!(code, 3);
    assert!(line.contains(&nodes.data(0).display().to_string()), "{line}");
    assert_eq!(http(nodes.http_port(0), "GET", "/livez", "").unwrap().status, 200);
}
