//! What a comparison leaves when it ends before its time: nothing that runs. And what it does not begin at all.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

#[cfg(target_os = "linux")]
use rustix::process::{Pid, Signal, kill_process};

fn compare(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
    command.arg("compare").args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Starts a comparison of `cp` and waits until it says that it has come to a phase.
fn started(out: &Path, faults: &str, phase: &str) -> Child {
    let args = ["--systems", "cp", "--nodes", "3", "--seconds-per-system", "10", "--faults", faults, "--out"];
    let mut child = compare(&args).arg(out).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let reached = lines.by_ref().map_while(Result::ok).any(|line| line == format!("cp: {phase}"));
    assert!(reached, "it never said {phase}");
    // Read on, so that it can write on.
    std::thread::spawn(move || lines.for_each(drop));
    child
}

/// The processes whose command line names the directory, this one's child left out. A zombie has none.
#[cfg(target_os = "linux")]
fn working_in(out: &Path, but: u32) -> Vec<u32> {
    let named = out.display().to_string();
    let processes =
        std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let ours = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        *pid != but && String::from_utf8_lossy(&line).contains(&named)
    };
    processes.filter(ours).collect()
}

#[cfg(target_os = "linux")]
fn assert_all_gone(out: &Path, but: u32) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !working_in(out, but).is_empty() {
        assert!(Instant::now() < deadline, "still there: {:?}", working_in(out, but));
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn no_node_outlives_a_killed_comparison_not_even_one_that_stands_still() {
    let dir = directory();
    let out = dir.path().join("killed");
    let mut child = started(&out, "pause", "pause");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(working_in(&out, child.id()).len(), 3);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_all_gone(&out, child.id());
}

#[cfg(target_os = "linux")]
#[test]
fn an_interrupted_comparison_stops_and_removes_everything() {
    let dir = directory();
    let out = dir.path().join("interrupted");
    let mut child = started(&out, "halves", "halves");
    assert_eq!(working_in(&out, child.id()).len(), 3);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let began = Instant::now();
    assert_eq!(child.wait().unwrap().code(), Some(3));
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_all_gone(&out, child.id());
    assert!(!out.exists());
}

#[test]
fn what_cannot_be_run_is_refused_in_one_line_before_anything_is_started() {
    let dir = directory();
    let taken = dir.path().join("taken");
    std::fs::create_dir(&taken).unwrap();
    std::fs::write(taken.join("report.json"), "{}").unwrap();
    let taken = taken.to_str().unwrap();
    let cases: &[(&[&str], &str)] = &[
        (&["--faults", "flip"], "\"flip\" is no fault; there are halves, isolate-leader, ring"),
        (&["--systems", "zab"], "\"zab\" is no system; there are cp, ap, cp-stale"),
        (&["--systems", "cp,cp"], "cp is given twice"),
        (&["--net", "tun"], "\"tun\" is no way to cut links; there are loopback and netns"),
        (&["--nodes", "2"], "faults need at least 3 nodes"),
        (&["--seconds-per-system", "10", "--faults", "halves,kill,pause"], "take at least 20 s per system"),
        (&["--seconds-per-system", "7"], "7 is not in 8..=600"),
        (&["--out", taken], "is there already and not empty"),
    ];
    for (args, told) in cases {
        let done = compare(args).current_dir(dir.path()).output().unwrap();
        let error = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(64), "{args:?}: {error}");
        assert!(error.contains(told), "{args:?}: {error}");
    }
    let left = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(left.collect::<Vec<_>>(), ["taken"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_directory_in_memory_is_refused_where_there_is_one() {
    if !Path::new("/dev/shm").is_dir() {
        super::skipped("there is no /dev/shm");
        return;
    }
    let done = compare(&["--out", "/dev/shm/quorate-test/run"]).output().unwrap();
    assert_eq!(done.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&done.stderr).contains("is in memory"));
    assert!(!Path::new("/dev/shm/quorate-test").exists());
}

#[test]
fn a_comparison_of_the_reference_prints_a_table_and_the_pages_path() {
    let dir = directory();
    let args = ["--systems", "reference", "--seconds-per-system", "8", "--seed", "5", "--out", "run"];
    let done = compare(&args).current_dir(dir.path()).output().unwrap();
    let (shown, error) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert_eq!(done.status.code(), Some(0), "{shown}{error}");
    assert_eq!(shown.lines().last(), Some("run/index.html"), "{shown}");
    let report = std::fs::read_to_string(dir.path().join("run/report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["format"], 1);
}
