//! Joining and backing up a cluster whose door is locked: TLS and credentials, on real processes.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::certificates::Authority;
use super::nodes::{QUORATE, free_port, quorate, stderr, temporary};

const SOON: Duration = Duration::from_secs(30);

/// A node behind locks, ended with the test.
struct Locked {
    child: Child,
    http: u16,
}

impl Drop for Locked {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A place with certificates and credentials, and what both sides say of them.
struct Door {
    dir: tempfile::TempDir,
    ca: String,
    serve: Vec<String>,
}

impl Door {
    fn new() -> Self {
        let dir = temporary();
        let authority = Authority::new();
        let ca = authority.file(dir.path(), "ca").display().to_string();
        let own = authority.issue(dir.path(), "http", "localhost");
        let lines = ["boss", "clerk"].map(|name| {
            let rights: &[&str] = if name == "boss" { &["--admin"] } else { &["--write", ""] };
            let minted = quorate(&[&["credential", "new", name], rights].concat());
            let text = String::from_utf8(minted.stdout).unwrap();
            let (token, line) = text.trim().split_once('\n').unwrap();
            fs::write(dir.path().join(name), token).unwrap();
            line.to_owned()
        });
        let credentials = dir.path().join("credentials");
        fs::write(&credentials, lines.join("\n")).unwrap();
        let credentials = credentials.display().to_string();
        let serve = ["--tls-cert", &own.cert, "--tls-key", &own.key, "--credentials", &credentials];
        let serve = serve.map(str::to_owned).to_vec();
        Self { dir, ca, serve }
    }

    fn file(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn node(&self, id: u64, more: &[&str]) -> Locked {
        let http = free_port();
        let log = fs::File::create(self.dir.path().join(format!("log-{id}"))).unwrap();
        let child = Command::new(QUORATE)
            .args(["serve", "--exit-with-stdin", "--id", &id.to_string(), "--data", &self.file(&format!("data-{id}"))])
            .args(["--http", &format!("127.0.0.1:{http}"), "--peer", &format!("127.0.0.1:{}", free_port())])
            .args(["--advertise-http", &format!("https://localhost:{http}")])
            .args(&self.serve)
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Locked { child, http }
    }

    fn log(&self, id: u64) -> String {
        fs::read_to_string(self.dir.path().join(format!("log-{id}"))).unwrap()
    }

    /// A command by somebody who knows the servers.
    fn by(&self, who: &str, endpoints: &str, args: &[&str]) -> std::process::Output {
        let shown = ["--endpoints", endpoints, "--tls-roots", &self.ca, "--credential-file", &self.file(who)];
        quorate(&[args, &shown].concat())
    }
}

fn url(node: &Locked) -> String {
    format!("https://localhost:{}", node.http)
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < SOON, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn joining_and_backing_up_show_a_credential_and_believe_by_roots_as_every_other_command() {
    let door = Door::new();
    let one = door.node(1, &[]);
    let at = url(&one);
    until("the node does not serve", || {
        door.by("boss", &at, &["register", "x", "--owner", "a"]).status.code() == Some(0)
    });

    // By the first of two servers that is there.
    let urls = format!("https://localhost:{},{at}", free_port());
    let (boss, clerk) = (door.file("boss"), door.file("clerk"));
    let join = ["--join", &urls, "--join-tls-roots", &door.ca, "--join-credential-file"];
    let two = door.node(2, &[&join[..], &[&boss]].concat());
    let there = url(&two);
    until("the node has not joined", || {
        let status = door.by("boss", &at, &["cluster", "--json"]);
        let status = serde_json::from_slice::<serde_json::Value>(&status.stdout).unwrap_or_default();
        status["nodes"][1]["role"] == "voter"
    });
    until("the newcomer does not know the name", || {
        door.by("boss", &there, &["whereis", "x"]).status.code() == Some(0)
    });

    // Whom the roots do not vouch for is not believed, and who may not change the cluster does not enter it.
    let three = |more: &[&str], told: &str| {
        let mut three = door.node(3, more);
        until("it goes on", || three.child.try_wait().unwrap().is_some());
        let code = three.child.try_wait().unwrap().unwrap().code();
        assert!(door.log(3).contains(told), "{}", door.log(3));
        let _ = fs::remove_dir_all(door.file("data-3"));
        code
    };
    let stranger = Authority::new().file(door.dir.path(), "stranger").display().to_string();
    let doubted = ["--join", &at, "--join-tls-roots", &stranger, "--join-credential-file", &boss];
    assert_eq!(three(&doubted, "cannot join by"), Some(3));
    assert_eq!(three(&[&join[..], &[&clerk]].concat(), "may not"), Some(3));
    assert_eq!(three(&["--join", &at, "--join-tls-roots", &door.ca], "unauthorized"), Some(3));
    assert_eq!(three(&["--join", &at], "say by which roots"), Some(64));
    assert_eq!(three(&["--join-tls-roots", &door.ca], "--join"), Some(64));
    assert_eq!(three(&["--join", &at, "--join-credential-file", "/nowhere"], "/nowhere"), Some(64));

    let file = door.file("backup");
    let done = door.by("boss", &urls, &["backup", &file]);
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    assert!(String::from_utf8_lossy(&done.stdout).contains("at revision "), "{done:?}");
    let done = quorate(&["restore", &file, "--data", &door.file("restored")]);
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    fs::remove_file(&file).unwrap();
    for (who, told) in [("clerk", "forbidden"), ("nobody", "unauthorized")] {
        fs::write(door.file("nobody"), "quorate_00").unwrap();
        let done = door.by(who, &at, &["backup", &file]);
        assert_eq!(done.status.code(), Some(3), "{}", stderr(&done));
        assert!(stderr(&done).contains(told) && !Path::new(&file).exists(), "{}", stderr(&done));
    }
}
