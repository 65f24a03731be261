//! `quorate lock`: a command runs while the name is held, by one at a time, and never a moment longer.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::nodes::{Nodes, QUORATE, free_port, http, stderr, temporary};

const SOON: Duration = Duration::from_secs(40);

fn lock(ports: &[u16], args: &[&str], script: &str) -> Command {
    let urls = ports.iter().map(|port| format!("http://127.0.0.1:{port}")).collect::<Vec<_>>();
    let mut command = Command::new(QUORATE);
    command.arg("lock").args(args).args(["--", "sh", "-c", script]);
    command.env_remove("QUORATE_MODE").env("QUORATE_ENDPOINTS", urls.join(",")).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn ended(child: Child) -> Output {
    child.wait_with_output().unwrap()
}

fn until(what: &str, done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < SOON, "{what}");
        sleep(Duration::from_millis(10));
    }
}

fn has(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|data| data.len() > 0)
}

fn cut_off(nodes: &Nodes, at: usize) {
    let peers = (0..nodes.ports.len()).filter(|peer| *peer != at);
    let peers =
        peers.map(|peer| format!("\"{}\":{{\"incoming\":{{\"drop\":true}},\"outgoing\":{{\"drop\":true}}}}", peer + 1));
    let faults = format!("{{\"peers\":{{{}}}}}", peers.collect::<Vec<_>>().join(","));
    assert_eq!(http(nodes.http_port(at), "PUT", "/v1/faults", &faults).unwrap().status, 200);
}

#[test]
fn locks_contend_and_what_they_guard_is_never_raced() {
    let nodes = Nodes::start(3, &[]);
    let dir = temporary();
    let counter = dir.path().join("counter");
    fs::write(&counter, "0").unwrap();
    // Read, wait, write: two at a time would lose one of their increments.
    let script = format!("n=$(cat {0}); sleep 0.05; echo $((n + 1)) > {0}", counter.display());
    let all = [nodes.http_port(0), nodes.http_port(1), nodes.http_port(2)];
    let contenders = (0..3).map(|at| {
        let (script, ports) = (script.clone(), [all[at], all[(at + 1) % 3]]);
        std::thread::spawn(move || {
            for _ in 0..4 {
                let output = lock(&ports, &["counter"], &script).output().unwrap();
                assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
            }
        })
    });
    for contender in contenders.collect::<Vec<_>>() {
        contender.join().unwrap();
    }
    assert_eq!(fs::read_to_string(&counter).unwrap().trim(), "12");
}

#[test]
fn a_command_is_stopped_before_its_name_can_be_given_away() {
    let nodes = Nodes::start(3, &["--enable-faults"]);
    let dir = temporary();
    let (beats, taken) = (dir.path().join("beats"), dir.path().join("taken"));
    // It takes no notice of being asked to end, and neither does what it has started.
    let stubborn = format!("trap '' TERM; (while :; do date +%s%N >> {0}; sleep 0.02; done) & wait", beats.display());
    let first = lock(&[nodes.http_port(0)], &["job", "--ttl", "3s"], &stubborn).spawn().unwrap();
    until("the first has begun", || has(&beats));
    cut_off(&nodes, 0);
    let rest = [nodes.http_port(1), nodes.http_port(2)];
    let second = lock(&rest, &["job", "--ttl", "3s"], &format!("date +%s%N > {}", taken.display()));
    let mut second = second;
    let output = second.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let first = ended(first);
    assert_eq!(first.status.code(), Some(2), "{}", stderr(&first));
    assert!(stderr(&first).starts_with("quorate: "), "{}", stderr(&first));
    let stamp = |text: &str| text.trim().parse::<u128>().unwrap();
    let last = fs::read_to_string(&beats).unwrap().lines().last().map(stamp).unwrap();
    let begun = stamp(&fs::read_to_string(&taken).unwrap());
    assert!(last < begun, "the first acted {} ms after the second had begun", (last - begun) / 1_000_000);
    let len = fs::metadata(&beats).unwrap().len();
    sleep(Duration::from_millis(100));
    assert_eq!(fs::metadata(&beats).unwrap().len(), len, "something goes on");
}

#[test]
fn its_exit_code_is_the_commands_or_tells_why_there_was_none() {
    let nodes = Nodes::start(1, &[]);
    let port = nodes.http_port(0);
    let code = |ports: &[u16], args: &[&str], script: &str| {
        let output = lock(ports, args, script).output().unwrap();
        (output.status.code().unwrap(), stderr(&output), String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    assert_eq!(code(&[port], &["x"], "exit 7").0, 7);
    assert_eq!(code(&[port], &["x"], "kill -9 $$").0, 137);
    // The token is that of the grant, and the owner says where it runs.
    let script = format!("echo $QUORATE_FENCING_TOKEN; {QUORATE} whereis x --json");
    let (ok, _, said) = code(&[port], &["x", "--meta", "{\"why\":\"backup\"}"], &script);
    assert_eq!(ok, 0);
    let (token, entry) = said.split_once('\n').unwrap();
    let entry = serde_json::from_str::<serde_json::Value>(entry).unwrap();
    assert_eq!(entry["token"], token);
    assert_eq!(entry["meta"]["why"], "backup");
    assert!(entry["owner"].as_str().unwrap().contains('/'));

    let nowhere = [free_port()];
    let (not_done, why, _) = code(&nowhere, &["x", "--no-wait", "--timeout-ms", "500"], "exit 0");
    assert_eq!((not_done, why.starts_with("quorate: ")), (3, true), "{why}");
    let missing = Command::new(QUORATE)
        .args(["lock", "x", "--endpoints", &format!("http://127.0.0.1:{port}"), "--", "/no/such/command"])
        .output()
        .unwrap();
    assert_eq!(missing.status.code(), Some(127), "{}", stderr(&missing));
    assert_eq!(Command::new(QUORATE).args(["lock", "x"]).output().unwrap().status.code(), Some(64));
    assert_eq!(
        Command::new(QUORATE).args(["lock", "x", "--ttl", "1ms", "--", "true"]).output().unwrap().status.code(),
        Some(64)
    );

    // While somebody holds it: --no-wait is told who.
    let dir = temporary();
    let begun = dir.path().join("begun");
    let script = format!("trap 'exit 9' TERM; echo x > {}; while :; do sleep 0.02; done", begun.display());
    let holder = lock(&[port], &["x", "--owner", "me"], &script).spawn().unwrap();
    until("it has begun", || has(&begun));
    let (taken, why, _) = code(&[port], &["x", "--no-wait"], "exit 0");
    assert_eq!(taken, 1);
    assert!(why.contains("x is me's"), "{why}");
    // Signals are passed on, and the name is free at once.
    kill_process(Pid::from_child(&holder), Signal::TERM).unwrap();
    assert_eq!(ended(holder).status.code(), Some(9));
    assert_eq!(code(&[port], &["x", "--no-wait"], "exit 0").0, 0);
}

#[cfg(target_os = "linux")]
#[test]
fn a_command_does_not_outlive_the_program_that_holds_its_name() {
    let nodes = Nodes::start(1, &[]);
    let mut holder = lock(&[nodes.http_port(0)], &["x"], "echo $$; exec sleep 1000").spawn().unwrap();
    let mut line = String::new();
    BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let command = Pid::from_raw(line.trim().parse().unwrap()).unwrap();
    assert!(test_kill_process(command).is_ok());
    holder.kill().unwrap();
    holder.wait().unwrap();
    until("the command has ended", || test_kill_process(command).is_err());
}
