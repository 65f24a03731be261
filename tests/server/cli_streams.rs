//! The command line's leases, batches and watches against real nodes.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::cli::expect;
use super::nodes::{Nodes, QUORATE};

#[test]
fn leases_batches_and_watches_in_both_modes() {
    let nodes = Nodes::start(2, &[]);
    let (one, two) = (nodes.http_port(0), nodes.http_port(1));
    for mode in ["cp", "ap"] {
        let at = |args: &[&'static str]| [args, &["--mode", mode]].concat();
        let made = expect(one, &at(&["lease", "create", "--ttl", "60s", "--json"]), 0, "");
        let made = serde_json::from_str::<serde_json::Value>(&made).unwrap();
        let id = made["lease"].as_str().unwrap();
        assert_eq!(made["ttl_ms"], 60_000);
        let with = |args: &[&str]| args.iter().copied().chain(["--mode", mode]).map(str::to_owned).collect::<Vec<_>>();
        let expect_with = |args: &[&str], code, text: &str| {
            let args = with(args);
            expect(one, &args.iter().map(String::as_str).collect::<Vec<_>>(), code, text)
        };
        expect_with(&["register", "leased", "--owner", "a", "--lease", id], 0, "leased is a's");
        expect_with(&["join", "group", "a", "--lease", id], 0, "a is in group");
        expect_with(&["lease", "keepalive", id], 0, "lives");
        expect_with(&["lease", "list"], 0, id);
        let shown = expect_with(&["lease", "get", id], 0, "leased");
        assert!(shown.contains("group"), "{shown}");
        expect_with(&["lease", "revoke", id], 0, "ended");
        expect_with(&["lease", "keepalive", id], 1, "lease");
        expect_with(&["whereis", "leased"], 1, "not found");

        let file = nodes.dir.path().join("batch.json");
        let commands = r#"{"commands":[{"register":{"name":"b1","owner":"a"}},{"register":{"name":"b1","owner":"b"}},{"join":{"group":"g","member":"m"}}]}"#;
        std::fs::write(&file, commands).unwrap();
        let file = file.display().to_string();
        let done = expect_with(&["batch", &file], 1, "b1 is a's");
        assert!(done.contains("m is in g"), "{done}");

        // The state first, then what changes, at another node.
        let mut watch = Command::new(QUORATE);
        watch.args(["watch", "--name", "b1", "--initial", "--json", "--mode", mode, "--count", "3"]);
        watch.args(["--endpoints", &format!("http://127.0.0.1:{two}")]).stdout(Stdio::piped());
        let mut watch = watch.spawn().unwrap();
        let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
        let mut kinds = Vec::new();
        while !kinds.contains(&"synced".to_owned()) {
            let line = serde_json::from_str::<serde_json::Value>(&lines.next().unwrap().unwrap()).unwrap();
            kinds.push(line["event"].as_str().unwrap().to_owned());
        }
        expect_with(&["unregister", "b1"], 0, "ended");
        let rest = lines.map(|line| line.unwrap()).collect::<Vec<_>>();
        assert!(rest.iter().any(|line| line.contains("\"ended\"")), "{kinds:?} {rest:?}");
        assert_eq!(watch.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn a_watch_goes_on_at_another_node_and_misses_nothing() {
    let mut nodes = Nodes::start(3, &[]);
    let urls = (0..3).map(|at| format!("http://127.0.0.1:{}", nodes.http_port(at))).collect::<Vec<_>>().join(",");
    let mut watch = Command::new(QUORATE);
    watch.args(["watch", "--name-prefix", "w", "--initial", "--json", "--endpoints", &urls]);
    let mut watch = watch.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut next = |kind: &str| loop {
        let line = serde_json::from_str::<serde_json::Value>(&lines.next().unwrap().unwrap()).unwrap();
        if line["event"] == kind {
            return line;
        }
        assert_ne!(line["event"], "resync");
    };
    next("synced");
    let two = nodes.http_port(1);
    for at in 0..6 {
        if at == 2 {
            // The node that it watches.
            nodes.kill(0);
        }
        let name = format!("w{at}");
        let register = ["register", &name, "--owner", "a", "--timeout-ms", "20000"];
        expect(two, &register, 0, "is a's");
    }
    for at in 0..6 {
        // In order, each once.
        let change = next("change");
        assert_eq!(change["data"]["changes"][0]["entry"]["name"], format!("w{at}"), "{change}");
    }
    let pid = rustix::process::Pid::from_child(&watch);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(watch.wait().unwrap().code(), Some(0));
}

#[test]
fn a_held_lease_ends_with_the_command_that_holds_it() {
    let nodes = Nodes::start(1, &[]);
    let port = nodes.http_port(0);
    let mut hold = Command::new(QUORATE);
    hold.args(["lease", "hold", "--ttl", "60s", "--json", "--endpoints", &format!("http://127.0.0.1:{port}")]);
    let mut hold = hold.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(hold.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let made = serde_json::from_str::<serde_json::Value>(&line).unwrap();
    let id = made["lease"].as_str().unwrap();
    expect(port, &["register", "x", "--owner", "a", "--lease", id], 0, "x is a's");
    let pid = rustix::process::Pid::from_child(&hold);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(hold.wait().unwrap().code(), Some(0));
    expect(port, &["whereis", "x"], 1, "not found");
}
