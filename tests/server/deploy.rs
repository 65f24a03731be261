//! What `deploy/` promises: a unit that systemd accepts, and an image and a compose file whose nodes survive a partition that the
//! container engine's own commands make.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::nodes::{QUORATE, skipped, stderr, temporary};

const SOON: Duration = Duration::from_secs(90);

fn deploy(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(file)
}

fn run(command: &mut Command) -> Option<Output> {
    command.stdin(Stdio::null()).output().ok()
}

#[test]
fn systemd_accepts_the_unit_and_finds_it_hardened() {
    let dir = temporary();
    let unit = dir.path().join("quorate.service");
    // The program need not be installed here, nor the environment be there.
    let text = fs::read_to_string(deploy("quorate.service")).unwrap();
    assert!(text.contains("ExecStart=/usr/local/bin/quorate serve"));
    let text = text.replace("/usr/local/bin/quorate", QUORATE).replace("EnvironmentFile=", "EnvironmentFile=-");
    fs::write(&unit, text).unwrap();
    let Some(verified) = run(Command::new("systemd-analyze").arg("verify").arg(&unit)) else {
        return skipped("systemd-analyze is not here");
    };
    assert!(verified.status.success() && stderr(&verified).is_empty(), "{}", stderr(&verified));
    let judged = run(Command::new("systemd-analyze").args(["security", "--offline=true", "--threshold=20"]).arg(&unit));
    let judged = judged.unwrap();
    if stderr(&judged).contains("nrecognized option") {
        return skipped("this systemd-analyze judges no unit that is not loaded");
    }
    assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stdout));
}

/// Links the program statically, beside the one under test: of what is built already nothing is built again. None: this machine
/// has no C library to link that way.
fn static_program() -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let mut command = Command::new(env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args([
        "rustc",
        "--quiet",
        "--offline",
        "--example",
        "quorate-static",
    ]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    command.arg("--target-dir").arg(target).args(["--", "-C", "target-feature=+crt-static"]);
    let built = run(&mut command).expect("cargo is here");
    if stderr(&built).contains("cannot find -lc") {
        return None;
    }
    assert!(built.status.success(), "{}", stderr(&built));
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    Some(target.join(profile).join("examples").join("quorate-static"))
}

/// Whether an ELF program asks for no interpreter, and so for no library.
fn is_static(program: &[u8]) -> bool {
    let number =
        |at: usize, len: usize| program[at..at + len].iter().rev().fold(0_usize, |n, b| n << 8 | usize::from(*b));
    let (at, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    const INTERPRETER: usize = 3;
    (0..count).all(|header| number(at + header * size, 4) != INTERPRETER)
}

/// Containers of one compose project; they, their network, volumes and image are gone when this is.
struct Project {
    name: String,
    compose: &'static [&'static str],
    dir: tempfile::TempDir,
}

impl Project {
    fn docker(&self, args: &[&str]) -> Output {
        run(Command::new("docker").args(args)).expect("docker is here")
    }

    fn expect(&self, args: &[&str]) -> String {
        let output = self.docker(args);
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn compose(&self, args: &[&str]) -> Output {
        let mut command = Command::new(self.compose[0]);
        command
            .args(&self.compose[1..])
            .arg("--file")
            .arg(deploy("compose.yaml"))
            .args(["--project-name", &self.name])
            .args(args);
        command.env("QUORATE_IMAGE", &self.name);
        for node in 1..=5 {
            // Any port that is free.
            command.env(format!("QUORATE_PORT_{node}"), "0");
        }
        run(&mut command).expect("compose is here")
    }

    /// Found by its labels: how compose names it depends on compose's version.
    fn container(&self, node: u8) -> String {
        let labels = [("project", self.name.clone()), ("service", format!("node-{node}"))];
        let [project, service] = labels.map(|(key, value)| format!("label=com.docker.compose.{key}={value}"));
        self.expect(&["ps", "--all", "--quiet", "--filter", &project, "--filter", &service]).trim().to_owned()
    }

    fn network(&self) -> String {
        format!("{}_peers", self.name)
    }

    /// Runs a command at a node, against that node; its exit code and what it said.
    fn at(&self, node: u8, args: &[&str]) -> (i32, String) {
        let output = self.docker(&[&["exec", &self.container(node), "/quorate"], args].concat());
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &stderr(&output);
        (output.status.code().unwrap_or(-1), said)
    }

    /// Runs it until it succeeds and says this.
    fn until(&self, node: u8, args: &[&str], expected: &str) {
        let begun = Instant::now();
        loop {
            let (code, said) = self.at(node, args);
            if code == 0 && said.contains(expected) {
                return;
            }
            assert!(begun.elapsed() < SOON, "node {node}, {args:?}: {code}, {said}\n{}", self.logs(node));
            sleep(Duration::from_millis(200));
        }
    }

    fn logs(&self, node: u8) -> String {
        stderr(&self.docker(&["logs", "--tail", "20", &self.container(node)]))
    }

    fn leftovers(&self) -> String {
        let label = format!("label=com.docker.compose.project={}", self.name);
        [
            &["ps", "--all", "--quiet", "--filter", &label][..],
            &["network", "ls", "--quiet", "--filter", &label],
            &["volume", "ls", "--quiet", "--filter", &label],
            &["images", "--quiet", &self.name],
        ]
        .map(|args| self.expect(args))
        .concat()
    }

    fn remove(&self) {
        self.compose(&["down", "--volumes", "--timeout", "2"]);
        self.docker(&["rmi", "--force", &self.name]);
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        self.remove();
    }
}

fn answers(program: &str, args: &[&str]) -> bool {
    run(Command::new(program).args(args)).is_some_and(|output| output.status.success())
}

#[test]
fn five_containers_survive_a_partition_made_by_the_engine() {
    let compose = [&["docker-compose"][..], &["docker", "compose"]];
    let compose = compose.into_iter().find(|way| answers(way[0], &[&way[1..], &["version"]].concat()));
    let (true, true, Some(compose)) = (cfg!(target_os = "linux"), answers("docker", &["version"]), compose) else {
        return skipped("no Docker engine with compose is here");
    };
    let Some(program) = static_program() else { return skipped("no static C library is here") };
    let project = Project { name: format!("quorate-test-{}", std::process::id()), compose, dir: temporary() };
    assert!(is_static(&fs::read(&program).unwrap()) && !is_static(&fs::read(QUORATE).unwrap()));
    let context = project.dir.path();
    fs::copy(&program, context.join("quorate")).unwrap();
    let dockerfile = deploy("Dockerfile");
    project.expect(&[
        "build",
        "--tag",
        &project.name,
        "--file",
        dockerfile.to_str().unwrap(),
        context.to_str().unwrap(),
    ]);
    let up = project.compose(&["up", "--detach"]);
    assert!(up.status.success(), "{}", stderr(&up));
    for node in 1..=5 {
        project.until(node, &["names"], "");
    }
    project.until(1, &["register", "before", "--owner", "o"], "o");
    for node in [1, 2] {
        project.expect(&["network", "disconnect", &project.network(), &project.container(node)]);
    }
    project.until(3, &["register", "majority", "--owner", "m"], "m");
    project.until(5, &["whereis", "majority"], "m");
    project.until(4, &["register", "there", "--owner", "t", "--mode", "ap"], "t");
    let mut surely_not = true;
    for node in [1, 2] {
        let (code, said) = project.at(node, &["register", "minority", "--owner", "n", "--timeout-ms", "3000"]);
        assert!(code == 2 || code == 3, "node {node} has not refused: {code}, {said}");
        surely_not &= code == 3;
        project.until(node, &["whereis", "before", "--consistency", "stale"], "o");
        project.until(node, &["register", &format!("here-{node}"), "--owner", "h", "--mode", "ap"], "h");
    }
    for node in [1, 2] {
        let alias = format!("node-{node}");
        project.expect(&["network", "connect", "--alias", &alias, &project.network(), &project.container(node)]);
    }
    for node in 1..=5 {
        project.until(node, &["whereis", "majority"], "m");
        for name in ["there", "here-1", "here-2"] {
            project.until(node, &["whereis", name, "--mode", "ap"], "");
        }
    }
    if surely_not {
        assert_eq!(project.at(3, &["whereis", "minority"]).0, 1, "what was refused has been done");
    }
    assert!(!project.leftovers().is_empty());
    project.remove();
    assert_eq!(project.leftovers(), "");
}
