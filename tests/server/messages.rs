//! The command line's messages and changes of the cluster against real nodes: sent in one process, read in another.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use super::cli::{expect, run, said};
use super::nodes::{Nodes, QUORATE, free_port, stderr};

const SOON: Duration = Duration::from_secs(30);

/// `quorate inbox`, ended with the test.
struct Reader {
    child: Child,
    lines: Receiver<String>,
}

impl Reader {
    fn start(endpoints: &str, args: &[&str]) -> Self {
        let mut child = Command::new(QUORATE)
            .arg("inbox")
            .args(args)
            .args(["--endpoints", endpoints])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let printed = BufReader::new(child.stdout.take().unwrap()).lines();
        std::thread::spawn(move || printed.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines }
    }

    fn next(&mut self) -> String {
        self.lines.recv_timeout(SOON).expect("nothing was printed")
    }

    fn next_json(&mut self) -> serde_json::Value {
        serde_json::from_str(&self.next()).unwrap()
    }

    fn ended(&mut self) -> Option<i32> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(begun.elapsed() < SOON, "the inbox does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends until somebody reads: the inbox has yet to open, or a node to hear of the name.
fn until_read(port: u16, args: &[&str]) {
    let begun = Instant::now();
    loop {
        let output = run(port, args);
        if output.status.code() == Some(0) && said(&output) == "1 inbox has it\n" {
            return;
        }
        assert!(begun.elapsed() < SOON, "{args:?}: {}{}", said(&output), stderr(&output));
        std::thread::sleep(Duration::from_millis(30));
    }
}

#[test]
fn what_one_terminal_sends_another_one_reads() {
    let nodes = Nodes::start(2, &[]);
    let (one, two) = (nodes.http_port(0), nodes.http_port(1));
    for mode in ["cp", "ap"] {
        let at = |args: &[&'static str]| [args, &["--mode", mode]].concat();
        expect(one, &at(&["send", "billing", "1"]), 1, "not found: billing");
        let problem = expect(one, &at(&["send", "billing", "1", "--json"]), 1, "");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&problem).unwrap()["code"], "not_found");
        expect(one, &at(&["publish", "cameras", "1"]), 0, "sent, and nobody is reading");
        expect(one, &at(&["register", "billing", "--owner", "worker 1"]), 0, "");
        expect(one, &at(&["join", "cameras", "worker 1"]), 0, "");
        expect(one, &at(&["send", "billing", "1"]), 0, "sent, and nobody is reading");

        let mut reader = Reader::start(&format!("http://127.0.0.1:{two}"), &at(&["worker 1", "--count", "3"]));
        until_read(one, &at(&["send", "billing", "{\"do\": \"it\"}"]));
        let line = reader.next();
        assert!(line.starts_with("name  billing  token ") && line.ends_with("  {\"do\":\"it\"}"), "{line}");
        until_read(one, &at(&["publish", "cameras", "look \"left\"", "--text"]));
        let line = reader.next();
        assert!(line.starts_with("group  cameras  token ") && line.ends_with(r#"  "look \"left\"""#), "{line}");
        let sent = expect(one, &at(&["send", "billing", "null", "--json"]), 0, "");
        assert_eq!(sent, "{\"receivers\":1}\n");
        assert!(reader.next().ends_with("  null"));
        assert_eq!(reader.ended(), Some(0));
    }
}

#[test]
fn an_inbox_that_is_printed_goes_on_at_another_node_after_a_gap() {
    let mut nodes = Nodes::start(3, &[]);
    let urls = (0..3).map(|at| format!("http://127.0.0.1:{}", nodes.http_port(at))).collect::<Vec<_>>().join(",");
    let two = nodes.http_port(1);
    expect(two, &["register", "n", "--owner", "a"], 0, "");
    let mut reader = Reader::start(&urls, &["a", "--json"]);
    until_read(two, &["send", "n", "1"]);
    let first = reader.next_json();
    assert_eq!(
        (&first["event"], &first["data"]["name"], &first["data"]["message"]),
        (&"message".into(), &"n".into(), &1.into())
    );
    nodes.kill(0);
    assert_eq!(reader.next(), r#"{"event":"gap","data":{"lost":null}}"#);
    until_read(two, &["send", "n", "2", "--timeout-ms", "20000"]);
    assert_eq!(reader.next_json()["data"]["message"], 2);
    let pid = rustix::process::Pid::from_child(&reader.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(reader.ended(), Some(0));
}

#[test]
fn a_message_that_cannot_be_sent_is_told_apart_by_its_exit_code() {
    let nowhere = free_port();
    expect(nowhere, &["send", "n", "1", "--timeout-ms", "300"], 3, "not applied: no connection");
    for (args, told) in [
        (&["send", "n", "not json"][..], "give --text"),
        (&["send", "n", "{\"a\":1} 2"], "give --text"),
        (&["send", "..", "1"], "a name may not be"),
        (&["send", "n"], "<MESSAGE>"),
        (&["publish", "", "1"], "a group is empty"),
        (&["inbox", ""], "an owner is empty"),
        (&["inbox", "a", "--count", "0"], "--count"),
        (&["cluster", "remove", "0"], "0 is not in"),
        (&["cluster", "add", "4"], "<HOST:PORT>"),
        (&["cluster", "promote", "x"], "invalid digit"),
    ] {
        expect(nowhere, args, 64, told);
    }
    let long = "x".repeat(64 * 1024);
    expect(nowhere, &["send", "n", &long, "--text"], 64, "a message is 65538 bytes long");
}

/// What the cluster says of its nodes: id and role.
fn roles(port: u16) -> Vec<(u64, String)> {
    let status = expect(port, &["cluster", "--json"], 0, "");
    let status = serde_json::from_str::<serde_json::Value>(&status).unwrap();
    let nodes = status["nodes"].as_array().unwrap().iter();
    nodes.map(|node| (node["id"].as_u64().unwrap(), node["role"].as_str().unwrap().to_owned())).collect()
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < SOON, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn until_roles(port: u16, wanted: &[(u64, &str)]) {
    until(&format!("the roles are not {wanted:?}"), || {
        roles(port).iter().map(|(id, role)| (*id, role.as_str())).eq(wanted.iter().copied())
    });
}

#[test]
fn the_cluster_is_changed_from_the_command_line() {
    let mut nodes = Nodes::start(1, &[]);
    let port = nodes.http_port(0);
    let slow = ["--timeout-ms", "20000"];
    let change = |args: &[&'static str]| [&["cluster"], args, &slow].concat();
    // However short a time ago the last one was taken.
    for name in ["x", "y"] {
        expect(port, &["register", name, "--owner", "a"], 0, "");
        let snapshot = ["cluster", "snapshot", "--timeout-ms", "6000"];
        expect(port, &snapshot, 0, "node 1 has its table on disk, up to log entry ");
    }
    expect(port, &change(&["promote", "2"]), 1, "refused, node_unknown: there is no node 2");

    // A learner that is added before it is there, and one that adds itself.
    let two = nodes.reserve();
    let peer = format!("127.0.0.1:{}", nodes.ports[two].1);
    let add = ["cluster", "add", "2", &peer, "--timeout-ms", "20000"];
    expect(port, &add, 0, &format!("node 2 at {peer} is a learner"));
    expect(port, &add, 0, "is a learner");
    let other = ["cluster", "add", "2", "127.0.0.1:9", "--json", "--timeout-ms", "20000"];
    let problem = expect(port, &other, 1, "");
    let problem = serde_json::from_str::<serde_json::Value>(&problem).unwrap();
    assert_eq!((&problem["code"], &problem["outcome"]), (&"node_exists".into(), &"not_applied".into()), "{problem}");
    expect(port, &change(&["promote", "2"]), 1, "refused, node_behind: node 2 lacks");
    nodes.start_joiner(two, 0, &["--learner"]);
    // What the server says now may pass.
    until("node 2 is not promoted", || {
        let output = run(port, &change(&["promote", "2"]));
        output.status.code() == Some(0) && said(&output).ends_with("is a voter\n")
    });
    let three = nodes.join(0, &[]);
    nodes.wait_ready(three);
    until_roles(port, &[(1, "leader"), (2, "voter"), (3, "voter")]);

    let led = expect(port, &change(&["transfer", "2", "--json"]), 0, "");
    assert_eq!(led, "{\"leader\":2}\n");
    until_roles(port, &[(1, "voter"), (2, "leader"), (3, "voter")]);
    expect(port, &change(&["remove", "3"]), 0, "node 3 is removed, and its id never returns");
    expect(port, &change(&["remove", "3"]), 0, "node 3 was removed before; nothing was done");
    expect(port, &change(&["add", "3", "127.0.0.1:9"]), 1, "refused, node_removed");
    nodes.wait_ended(three);
    // Without the other voter nothing can be changed, and nothing was.
    nodes.kill(two);
    let output = run(port, &["cluster", "remove", "2", "--timeout-ms", "1500"]);
    assert!(matches!(output.status.code(), Some(1..=3)), "{}{}", said(&output), stderr(&output));
    expect(free_port(), &["cluster", "remove", "2", "--timeout-ms", "300"], 3, "no connection");
}
