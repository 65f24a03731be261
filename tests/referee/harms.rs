//! Our nodes through every other kind of fault, as processes: they keep their promises, and what was done is seen to have been done.

use quorate::referee::analysis::verdict::Verdict;
use quorate::referee::history::Installed;
use quorate::systems::{clocks, disks};
use serde_json::Value;

use super::comparison::{Run, by_program, shown};

async fn keeps_its_promises(run: Run) {
    let kinds = run.faults.split(',').map(str::to_owned).collect::<Vec<_>>();
    let (findings, verdict) = run.judged().await;
    for found in &findings {
        for kind in &kinds {
            let installed = found.faults.iter().any(|f| f.kind == *kind && f.state == Installed::Installed);
            assert!(installed, "{kind}: {:?}", found.faults);
        }
    }
    assert_eq!(verdict, Some(Verdict::Holds), "{}", findings.iter().map(shown).collect::<Vec<_>>().join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_modes_keep_their_promises_through_odd_cuts_and_bad_links() {
    let faults = "ring,bridge,oneway,loss,drop-response";
    keeps_its_promises(Run { systems: &["cp", "ap"], nodes: 5, seconds: 26, faults, seed: 31 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_modes_keep_their_promises_while_members_leaders_and_everybody_go_and_come() {
    let faults = "membership,transfer,kill-all";
    keeps_its_promises(Run { systems: &["cp", "ap"], nodes: 3, seconds: 26, faults, seed: 32 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_modes_keep_their_promises_through_chaos_and_with_a_mere_core_left() {
    let faults = "chaos,core-only";
    keeps_its_promises(Run { systems: &["cp", "ap"], nodes: 5, seconds: 26, faults, seed: 33 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_modes_keep_their_promises_while_wall_clocks_jump() {
    if clocks::library().is_none() {
        return super::skipped(clocks::MISSING);
    }
    keeps_its_promises(Run { systems: &["cp", "ap"], nodes: 3, seconds: 10, faults: "skew", seed: 34 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_files_were_changed_spreads_nothing_of_it() {
    keeps_its_promises(Run { systems: &["cp"], nodes: 3, seconds: 10, faults: "corrupt", seed: 35 }).await;
}

fn all_installed(found: &Value) {
    let faults = found["faults"].as_array().unwrap();
    assert!(!faults.is_empty() && faults.iter().all(|fault| fault["state"] == "installed"), "{faults:?}");
}

#[test]
fn a_node_without_room_on_its_disk_stops_with_one_line_and_loses_nothing() {
    if let Some(why) = disks::missing() {
        return super::skipped(&why);
    }
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let out = dir.path().join("run");
    let args =
        ["--systems", "cp", "--nodes", "3", "--seconds-per-system", "18", "--seed", "36", "--faults", "disk-full"];
    let (code, report, told) = by_program(&out, &args);
    let found = &report["systems"][0];
    assert_eq!(code, Some(0), "{told}");
    all_installed(found);
    let told = found["faults"][0]["detail"].as_str().unwrap();
    assert!(told.contains("No space left on device") && told.contains("this node stops"), "{told}");
    let left =
        std::fs::read_dir(out.join("cp")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(
        left.filter(|name| name.starts_with("node-") && !name.ends_with(".log")).collect::<Vec<_>>(),
        Vec::<String>::new()
    );
}

#[test]
fn what_is_acknowledged_outlives_a_power_cut_of_all_nodes_and_without_its_fsync_it_does_not() {
    if let Some(why) = disks::missing() {
        return super::skipped(&why);
    }
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for (system, code) in [("cp", 0), ("cp-loses-fsyncs", 1)] {
        let args = [
            "--systems",
            system,
            "--nodes",
            "3",
            "--seconds-per-system",
            "10",
            "--seed",
            "37",
            "--faults",
            "power-cut",
        ];
        let (exit, report, told) = by_program(&dir.path().join(system), &args);
        let found = &report["systems"][0];
        assert_eq!(exit, Some(code), "{told}");
        all_installed(found);
        let lost =
            found["promises"].as_array().unwrap().iter().find(|promise| promise["id"] == "nothing-lost").unwrap();
        assert_eq!(lost["verdict"], if code == 0 { "holds" } else { "violated" }, "{system}: {lost}");
    }
}
