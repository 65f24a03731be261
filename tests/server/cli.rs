//! The command line against real nodes: what it prints, and its exit codes.

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::nodes::{Nodes, QUORATE, free_port, stderr, temporary};

pub fn run(port: u16, args: &[&str]) -> Output {
    let mut command = Command::new(QUORATE);
    command
        .args(args)
        .stdin(Stdio::null())
        .env_remove("QUORATE_MODE")
        .env("QUORATE_ENDPOINTS", format!("http://127.0.0.1:{port}"));
    command.output().unwrap()
}

pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
pub fn expect(port: u16, args: &[&str], code: i32, text: &str) -> String {
    let output = run(port, args);
    let all = said(&output) + &stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {all}");
    assert!(all.contains(text), "{args:?}: {all}");
    said(&output)
}

#[test]
fn names_and_groups_in_both_modes_with_exit_codes_that_scripts_can_rely_on() {
    let nodes = Nodes::start(3, &[]);
    let (one, two) = (nodes.http_port(0), nodes.http_port(1));
    for mode in ["cp", "ap"] {
        let at = |args: &[&'static str]| [args, &["--mode", mode]].concat();
        expect(one, &at(&["register", "billing", "--owner", "a"]), 0, "billing is a's, token ");
        expect(one, &at(&["register", "billing", "--owner", "a"]), 0, "already");
        expect(one, &at(&["register", "billing", "--owner", "b"]), 1, "refused, name_taken: billing is a's");
        expect(one, &at(&["whereis", "billing"]), 0, "a");
        expect(one, &at(&["whereis", "nobody"]), 1, "not found");
        expect(one, &at(&["register", "leased", "--owner", "a", "--lease", "77"]), 1, "lease unknown");
        expect(one, &at(&["join", "cameras", "cam-1", "--meta", "{\"room\":\"b2\"}"]), 0, "cam-1 is in cameras");
        expect(one, &at(&["members", "cameras"]), 0, "b2");
        expect(one, &at(&["groups"]), 0, "cameras");
        expect(one, &at(&["names", "--prefix", "bill"]), 0, "billing");
        expect(one, &at(&["leave", "cameras", "cam-1"]), 0, "ended");
        expect(one, &at(&["leave", "cameras", "cam-1"]), 1, "not found");
        let json = expect(one, &at(&["whereis", "billing", "--json"]), 0, "");
        let entry = serde_json::from_str::<serde_json::Value>(&json).unwrap();
        assert_eq!(entry["owner"], "a");
        let token = entry["token"].as_str().unwrap().to_owned();
        let ended = run(one, &["unregister", "billing", "--token", &token, "--mode", mode]);
        assert_eq!(ended.status.code(), Some(0));
        let again = run(one, &["unregister", "billing", "--token", &token, "--mode", mode]);
        assert!(said(&again).contains("before"), "{}", said(&again));
        // Strange names come through.
        let strange = "a/b %+?#\u{1F600}";
        assert_eq!(run(two, &["register", strange, "--owner", "x", "--mode", mode]).status.code(), Some(0));
        let shown = run(two, &["whereis", strange, "--mode", mode]);
        assert!(said(&shown).contains(strange), "{}", said(&shown));
    }
    expect(two, &["cluster"], 0, "cp: leader");
    expect(one, &["cluster", "status"], 0, "cp: leader");
    expect(one, &["conflicts"], 0, "none");
    expect(one, &["conflicts", "list"], 0, "none");
    expect(one, &["conflicts", "ack", "no-such-record"], 1, "refused");
}

#[test]
fn a_server_out_of_reach_is_exit_3_and_the_next_endpoint_is_asked() {
    let nowhere = free_port();
    expect(nowhere, &["whereis", "x"], 3, "no connection");
    expect(nowhere, &["register", "x", "--owner", "y"], 3, "not applied");
    let nodes = Nodes::start(1, &[]);
    let both = format!("http://127.0.0.1:{nowhere},http://127.0.0.1:{}", nodes.http_port(0));
    expect(0, &["register", "x", "--owner", "y", "--endpoints", &both], 0, "x is y's");
}

#[test]
fn what_was_mistyped_is_exit_64_with_one_reason() {
    for args in [
        &["register", "x"][..],
        &["register", "x", "--owner", "y", "--meta", "[]"],
        &["register", "", "--owner", "y"],
        &["register", "x", "--owner", "y", "--token", "z"],
        &["register", "x", "--owner", "y", "--takeover", "--if-absent"],
        &["register", "x", "--owner", "y", "--w", "2"],
        &["whereis", "x", "--mode", "xp"],
        &["whereis", "x", "--mode", "ap", "--consistency", "stale"],
        &["whereis", "x", "--r", "2"],
        &["names", "--limit", "0"],
        &["whereis", "x", "--endpoints", "here"],
        &["whereis", "x", "--timeout-ms", "0"],
        &["whereis", "x", "--endpoints", "https://127.0.0.1:1"],
        &["whereis", "x", "--tls-roots", "/no/such/file"],
        &["whereis", "x", "--credential-file", "/no/such/file"],
        &["lease", "create", "--ttl", "10ms"],
        &["lease", "create", "--ttl", "soon"],
        &["lease", "keepalive"],
        &["watch", "--initial", "--after", "7"],
        &["watch", "--after", "x"],
        &["batch", "/no/such/file"],
        &["conflicts", "ack"],
        &["completions", "x"],
    ] {
        let output = run(1, args);
        assert_eq!(output.status.code(), Some(64), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn a_minority_refuses_or_leaves_unknown_within_the_deadline() {
    let mut nodes = Nodes::start(3, &[]);
    nodes.kill(1);
    nodes.kill(2);
    let begun = Instant::now();
    let output = run(nodes.http_port(0), &["register", "x", "--owner", "y", "--timeout-ms", "1500"]);
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    let code = output.status.code().unwrap();
    assert!(code == 2 || code == 3, "{code}: {}", stderr(&output));
    // The other registry goes on, and stale reads answer.
    expect(nodes.http_port(0), &["register", "x", "--owner", "y", "--mode", "ap"], 0, "x is y's");
    expect(nodes.http_port(0), &["whereis", "x", "--consistency", "stale"], 1, "not found");
    nodes.restart(1);
    nodes.wait_ready(1);
    let at = nodes.http_port(1);
    let owner = run(at, &["whereis", "x"]);
    // What was said to be surely not applied must not be there.
    if code == 3 {
        assert_eq!(owner.status.code(), Some(1), "{}", said(&owner));
    }
}

#[test]
fn dev_runs_a_cluster_and_ends_with_its_signal() {
    let dir = temporary();
    let port = free_port();
    let mut child = Command::new(QUORATE)
        .args(["dev", "--http-port", &port.to_string(), "--data", &dir.path().display().to_string()])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while run(port, &["register", "x", "--owner", "y"]).status.code() != Some(0) {
        assert!(begun.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(100));
    }
    expect(port + 2, &["whereis", "x"], 0, "y");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn shells_can_complete_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = run(1, &["completions", shell]);
        assert_eq!(output.status.code(), Some(0));
        for word in ["register", "lock", "keepalive", "--no-wait", "publish", "inbox", "promote", "--tls-roots"] {
            let bare = word.trim_start_matches('-');
            assert!(said(&output).contains(bare), "{shell}: {word}");
        }
    }
}
