//! Links cut by the kernel: what passes and what does not, and that nothing of it is left.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use quorate::referee::situation::Links;
use quorate::systems::netns::{self, Network};

/// Set in the process that has a network namespace of its own.
const INSIDE: &str = "QUORATE_TEST_INSIDE";

fn possible() -> bool {
    let missing = netns::missing();
    if let Some(why) = &missing {
        super::skipped(why);
    }
    missing.is_none()
}

/// Runs this very test again in a network namespace of its own.
fn again_inside(test: &str) {
    let this = std::env::current_exe().unwrap();
    let mut inside = Command::new("unshare");
    inside.arg("--net").arg(this).args(["--exact", test, "--nocapture"]).env(INSIDE, "1");
    let done = inside.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success() && out.contains("1 passed"), "{out}{err}");
}

#[test]
fn a_link_passes_nothing_in_the_one_direction_in_which_it_is_cut() {
    if std::env::var_os(INSIDE).is_none() {
        if possible() {
            again_inside("namespaces::a_link_passes_nothing_in_the_one_direction_in_which_it_is_cut");
        }
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let net = Network::new(3).unwrap();
        let reached = async |node| {
            let reach = net.reached(node, Instant::now() + Duration::from_secs(5)).await.unwrap();
            assert_eq!(reach.partly, BTreeSet::new());
            (reach.fully, reach.heard_by.unwrap())
        };
        let set = |peers: &[u64]| peers.iter().copied().collect::<BTreeSet<_>>();
        assert_eq!(reached(1).await, (set(&[2, 3]), set(&[2, 3])));
        net.set(&Links { cut: [(1, 2)].into(), ..Links::default() }).await.unwrap();
        assert_eq!(reached(1).await, (set(&[3]), set(&[3])));
        assert_eq!(reached(2).await, (set(&[3]), set(&[1, 3])));
        assert_eq!(reached(3).await, (set(&[1, 2]), set(&[1, 2])));
        net.set(&Links::default()).await.unwrap();
        assert_eq!(reached(1).await, (set(&[2, 3]), set(&[2, 3])));
    });
}

fn compare(out: &Path, systems: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
    let args = ["compare", "--net", "netns", "--nodes", "3", "--seconds-per-system", "10", "--seed", "3", "--systems"];
    command.args(args).arg(systems).arg("--out").arg(out);
    command
}

#[test]
fn both_modes_keep_their_promises_when_the_kernel_cuts_their_links() {
    if !possible() {
        return;
    }
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let out = dir.path().join("run");
    let links = || Command::new("ip").args(["-brief", "link"]).output().unwrap().stdout;
    let before = links();
    let done = compare(&out, "cp,ap").output().unwrap();
    let (shown, error) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert_eq!(done.status.code(), Some(0), "{shown}{error}");
    assert_eq!(String::from_utf8(before).unwrap(), String::from_utf8(links()).unwrap());
    let report: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(out.join("report.json")).unwrap()).unwrap();
    assert!(report["command"].as_str().unwrap().contains("--net netns"), "{}", report["command"]);
    // The nodes were told nothing of faults: the kernel alone cut them off.
    let history = std::fs::read_to_string(out.join("cp/history.ndjson")).unwrap();
    assert!(history.contains("\"side\":\"minority\"") && history.contains("\"as_intended\":true"));
}

#[test]
fn without_root_namespaces_are_refused_with_the_mend() {
    use std::os::unix::process::CommandExt;
    if !possible() {
        return;
    }
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut as_nobody = compare(&dir.path().join("run"), "cp");
    let done = match as_nobody.uid(65_534).gid(65_534).output() {
        Ok(done) => done,
        Err(why) => return super::skipped(&format!("nobody may not run the program here: {why}")),
    };
    let error = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(64), "{error}");
    assert!(error.contains("take root: run it by sudo, or choose --net loopback"), "{error}");
}
