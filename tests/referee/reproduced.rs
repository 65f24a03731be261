//! What the page tells the reader to run convicts again: `quorate check --key`, on the history of one system.

use std::path::Path;
use std::process::{Command, Output};

use quorate::referee::history::{Event, Kind, Process, Registered, What};
use quorate::referee::report::{self, data::RunSet};
use serde_json::Value;

use crate::report::data_in;
use crate::synthetic::comparison;

/// A report with the histories that it is about, as a comparison leaves them. What the page holds.
fn written(set: RunSet, dir: &Path) -> Value {
    for run in &set.runs {
        let system = dir.join(&run.header.system);
        std::fs::create_dir(&system).expect("a directory");
        let header = serde_json::to_string(&run.header).expect("it is JSON");
        let events = run.events.iter().map(|event| serde_json::to_string(event).expect("it is JSON"));
        let lines: Vec<String> = [header].into_iter().chain(events).collect();
        std::fs::write(system.join("history.ndjson"), lines.join("\n") + "\n").expect("it is written");
    }
    let index = report::write(&report::judge(set), dir).expect("it is written");
    let page = std::fs::read_to_string(index).expect("it is there");
    data_in(&page)
}

fn check(dir: &Path, key: &str, system: &str) -> Output {
    let file = format!("{system}/history.ndjson");
    let args = ["check", "--explain", "--key", key, &file];
    Command::new(env!("CARGO_BIN_EXE_quorate")).args(args).current_dir(dir).output().expect("it runs")
}

#[test]
fn a_case_is_convicted_again_by_the_command_that_the_page_gives() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let page = written(comparison(42), dir.path());
    let cases = page["systems"].as_array().expect("a list").iter();
    let cases = cases.flat_map(|system| system["anomalies"]["list"].as_array().expect("a list"));
    let mut given: Vec<&str> = cases.filter_map(|case| case["check"].as_str()).collect();
    given.sort_unstable();
    given.dedup();
    assert!(given.len() > 2, "{given:?}");
    for command in given.iter().take(3) {
        // As a person would: in a shell, where the page lies.
        let words = command.strip_prefix("quorate ").expect("our own command");
        let line = format!("exec \"$QUORATE\" {words}");
        let done = Command::new("sh")
            .args(["-c", &line])
            .env("QUORATE", env!("CARGO_BIN_EXE_quorate"))
            .current_dir(dir.path())
            .output()
            .expect("it runs");
        let (out, why) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert_eq!(done.status.code(), Some(1), "{command}: {out}{why}");
        assert_eq!(out, "ap/history.ndjson\tnot-linearizable\n", "{command}");
        assert!(why.starts_with("ap/history.ndjson: "), "{command} does not say why: {why}");
    }
}

/// A granted register of `ap` once more, later and by nobody else: a name about which there is nothing to be said.
fn add_an_innocent_name(set: &mut RunSet, name: &str) {
    let run = set.runs.iter_mut().find(|run| run.header.system == "ap").expect("it ran");
    let granted = |event: &&Event| {
        matches!(event.what, What::Register { result: Some(Registered::Granted { .. }), .. }) && event.kind == Kind::Ok
    };
    let answer = run.events.iter().find(granted).expect("something was granted").clone();
    let last = run.events.last().expect("something happened").clone();
    for (at, kind) in [Kind::Invoke, Kind::Ok].into_iter().enumerate() {
        let mut event = Event { kind, process: Process::Client(1_000), ..answer.clone() };
        event.index = last.index + 1 + at as u64;
        event.time = last.time + 1 + at as u64;
        event.end_of = (kind == Kind::Ok).then_some(last.index + 1);
        if let What::Register { name: of, result, .. } = &mut event.what {
            *of = name.to_owned();
            *result = result.take().filter(|_| kind == Kind::Ok);
        }
        run.events.push(event);
    }
}

#[test]
fn a_key_is_judged_alone() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let mut set = comparison(42);
    add_an_innocent_name(&mut set, "alone");
    written(set, dir.path());
    let report = std::fs::read_to_string(dir.path().join("report.json")).expect("it is there");
    let report: Value = serde_json::from_str(&report).expect("it is JSON");
    let convicted = report["systems"][1]["names"]["not_linearizable"][0].as_str().expect("a name");
    let code = |key, system| check(dir.path(), key, system).status.code();
    assert_eq!(code(convicted, "ap"), Some(1));
    // The same file, which other names convict; and the same name in another.
    assert_eq!(code("alone", "ap"), Some(0));
    assert_eq!(code(convicted, "cp"), Some(0));
    // A name that nobody called about is not linearizable for want of calls: it is told.
    let nobody = check(dir.path(), "nobody/knows", "ap");
    assert_eq!(nobody.status.code(), Some(3));
    let why = String::from_utf8_lossy(&nobody.stderr);
    assert!(why.contains("no call is about \"nobody/knows\""), "{why}");
}
