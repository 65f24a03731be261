//! Campaigns, replays, and what is left of a run that was killed.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn quorate(args: &[&str], dir: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_quorate")).args(args).current_dir(dir).output().unwrap()
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn said(done: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr))
}

#[test]
fn a_campaign_without_a_failure_keeps_its_counts_alone_and_does_nothing_twice() {
    let dir = directory();
    let args =
        ["campaign", "--systems", "reference", "--nodes", "3", "--faults", "halves,kill", "--faults-per-run", "1"];
    let args = [&args[..], &["--seconds-per-system", "8", "--seeds", "1..2", "--out", "c"]].concat();
    let first = quorate(&args, dir.path());
    assert_eq!(first.status.code(), Some(0), "{}", said(&first));
    assert!(said(&first).contains("seed 1: kill: reference holds"), "{}", said(&first));
    assert!(said(&first).contains("2 held, 0 violated, 0 unknown, 0 not finished; c"), "{}", said(&first));
    let kept = std::fs::read_dir(dir.path().join("c")).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(kept.collect::<Vec<_>>(), ["campaign.ndjson"]);

    let began = std::time::Instant::now();
    let again = quorate(&args, dir.path());
    assert!(began.elapsed().as_secs() < 5 && said(&again).contains("2 held"), "{}", said(&again));
    let other = quorate(&[&args[..], &["--rate", "100"]].concat(), dir.path());
    assert_eq!(other.status.code(), Some(64));
    assert!(said(&other).contains("is of a campaign with other arguments"), "{}", said(&other));
}

#[test]
fn a_campaign_convicts_a_planted_flaw_and_keeps_what_replays_it() {
    let dir = directory();
    let args = ["campaign", "--systems", "ap-never-resolves", "--nodes", "3", "--faults", "halves", "--seeds", "5..5"];
    let done = quorate(&[&args[..], &["--seconds-per-system", "10", "--out", "c"]].concat(), dir.path());
    assert_eq!(done.status.code(), Some(1), "{}", said(&done));
    assert!(said(&done).contains("ap-never-resolves: agreement violated"), "{}", said(&done));
    let kept = dir.path().join("c/seed-5");
    for file in ["schedule.json", "index.html", "report.json", "ap-never-resolves/history.ndjson"] {
        assert!(kept.join(file).exists(), "{file}");
    }

    // The same cuts on the honest one.
    let schedule = kept.join("schedule.json");
    let schedule = schedule.to_str().unwrap();
    let replayed = quorate(&["compare", "--systems", "ap", "--schedule", schedule, "--out", "replayed"], dir.path());
    assert_eq!(replayed.status.code(), Some(0), "{}", said(&replayed));
    let met = |path: &Path| std::fs::read_to_string(path).unwrap();
    assert_eq!(met(&kept.join("schedule.json")), met(&dir.path().join("replayed/schedule.json")));
}

#[test]
fn what_is_no_schedule_is_refused_before_anything_is_started() {
    let dir = directory();
    std::fs::write(dir.path().join("old.json"), r#"{"format":1,"seed":1,"nodes":[1],"length_ms":8000,"faults":[]}"#)
        .unwrap();
    let cases = [
        (&["--schedule", "none.json"][..], "cannot read none.json"),
        (&["--schedule", "old.json"], "old.json: its format is 1; this version reads 2"),
        (&["--schedule", "old.json", "--faults", "kill"], "cannot be used with"),
    ];
    for (args, told) in cases {
        let done = quorate(&[&["compare"], args].concat(), dir.path());
        assert_eq!(done.status.code(), Some(64), "{args:?}: {}", said(&done));
        assert!(said(&done).contains(told), "{args:?}: {}", said(&done));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_killed_run_leaves_data_alone_and_clean_removes_it() {
    use std::io::{BufRead, BufReader};

    let dir = directory();
    // With everything that can be had here: namespaces, disks.
    let (net, faults) = match quorate::systems::netns::missing() {
        Some(why) => {
            super::skipped(&why);
            ("loopback", "halves")
        }
        None => ("netns", if quorate::systems::disks::missing().is_none() { "disk-full" } else { "halves" }),
    };
    let args = ["compare", "--systems", "cp", "--nodes", "3", "--seconds-per-system", "18", "--out", "run"];
    let mut killed = Command::new(env!("CARGO_BIN_EXE_quorate"))
        .args(args)
        .args(["--net", net, "--faults", faults])
        .current_dir(dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(killed.stderr.take().unwrap()).lines();
    assert!(lines.by_ref().map_while(Result::ok).any(|line| line == format!("cp: {faults}")));
    let under_way = quorate(&["clean", "run"], dir.path());
    assert_eq!(under_way.status.code(), Some(1), "{}", said(&under_way));
    assert!(said(&under_way).contains("is still under way"), "{}", said(&under_way));
    killed.kill().unwrap();
    killed.wait().unwrap();

    let run = dir.path().join("run");
    let named = run.canonicalize().unwrap().display().to_string();
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    assert!(!mounts.contains(&named), "{mounts}");
    assert!(run.join("cp/node-1").exists());
    let clean = quorate(&["clean", "run"], dir.path());
    assert_eq!(clean.status.code(), Some(0), "{}", said(&clean));
    assert!(said(&clean).contains("run/cp/node-1"), "{}", said(&clean));
    let left = std::fs::read_dir(run.join("cp")).unwrap().map(|entry| entry.unwrap().path());
    assert!(left.into_iter().all(|path| path.extension().is_some_and(|extension| extension == "log")));
    let nowhere = quorate(&["clean", "."], dir.path());
    assert_eq!(nowhere.status.code(), Some(64), "{}", said(&nowhere));
}

#[test]
fn a_schedule_says_what_was_done_to_whom() {
    let dir = directory();
    let args = ["compare", "--systems", "reference", "--seconds-per-system", "8", "--seed", "5", "--out", "run"];
    let done = quorate(&args, dir.path());
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    let schedule = std::fs::read_to_string(dir.path().join("run/schedule.json")).unwrap();
    let schedule: Value = serde_json::from_str(&schedule).unwrap();
    assert_eq!(schedule["format"], 2);
    assert!(
        schedule["faults"][0]["harm"]["cut"]["links"].as_array().is_some_and(|links| !links.is_empty()),
        "{schedule}"
    );
}
