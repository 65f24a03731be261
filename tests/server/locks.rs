//! The locks on a node's doors, on real processes: TLS, credentials, what is said where they are missing.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::certificates::{Authority, Files};
use super::nodes::{Nodes, QUORATE, free_port, http, quorate, stderr, temporary};

const SOON: Duration = Duration::from_secs(30);

/// One node of its own, ended with the test.
struct Alone {
    child: std::process::Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Alone {
    fn start(dir: tempfile::TempDir, flags: &[&str]) -> Self {
        let port = free_port();
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let child = Command::new(QUORATE)
            .args(["serve", "--exit-with-stdin", "--http", &format!("127.0.0.1:{port}")])
            .args(["--peer", &format!("127.0.0.1:{}", free_port())])
            .arg("--data")
            .arg(dir.path().join("data"))
            .args(flags)
            // Whatever could be said is said, so that a search for secrets is worth something.
            .env("RUST_LOG", "trace")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child, port, dir }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap()
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a caller trusts and shows.
fn tls(ca: &Path, own: Option<&Files>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let config = match own {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let chain = vec![CertificateDer::from_pem_file(&own.cert).unwrap()];
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(&own.key).unwrap()).unwrap()
        }
    };
    TlsConnector::from(Arc::new(config))
}

/// The status of `GET /livez` by TLS, and the server's certificate.
async fn livez(port: u16, connector: &TlsConnector) -> io::Result<(u16, CertificateDer<'static>)> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let mut stream = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await?;
    let shown = stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned();
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let status = answer.get(9..12).and_then(|status| status.parse().ok());
    Ok((status.ok_or(io::ErrorKind::UnexpectedEof)?, shown))
}

/// Asks until the answer is as wanted.
async fn until<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Ok(Some(found)) = timeout(Duration::from_secs(5), ask()).await {
            return found;
        }
        assert!(begun.elapsed() < SOON, "it never came about");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn certificates_are_renewed_while_a_node_runs() {
    let dir = temporary();
    let authority = Authority::new();
    let ca = authority.file(dir.path(), "ca");
    let files = authority.issue(dir.path(), "http", "localhost");
    let node = Alone::start(dir, &["--tls-cert", &files.cert, "--tls-key", &files.key]);
    let connector = tls(&ca, None);
    let (status, first) = until(async || livez(node.port, &connector).await.ok()).await;
    assert_eq!(status, 200);
    authority.issue(node.dir.path(), "http", "localhost");
    let changed =
        async || livez(node.port, &connector).await.ok().map(|(_, shown)| shown).filter(|shown| *shown != first);
    let second = until(changed).await;
    // What cannot be read changes nothing; asked by a signal, the node looks at once and lives on.
    fs::write(&files.cert, "no certificate").unwrap();
    let pid = rustix::process::Pid::from_child(&node.child);
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    until(async || node.log().contains("stays in force").then_some(())).await;
    assert_eq!(livez(node.port, &connector).await.unwrap().1, second);
    // A stranger's authority is not taken for ours, and plain HTTP is no way in.
    let stranger = tls(&Authority::new().file(node.dir.path(), "other"), None);
    assert!(livez(node.port, &stranger).await.is_err());
    let mut plain = TcpStream::connect(("127.0.0.1", node.port)).await.unwrap();
    plain.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = timeout(SOON, plain.read_to_end(&mut answer)).await.unwrap();
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
}

#[tokio::test]
async fn with_a_client_authority_only_its_clients_come_in() {
    let dir = temporary();
    let (authority, clients) = (Authority::new(), Authority::new());
    let (ca, client_ca) = (authority.file(dir.path(), "ca"), clients.file(dir.path(), "clients"));
    let files = authority.issue(dir.path(), "http", "localhost");
    let (own, foreign) = (clients.issue(dir.path(), "own", "client"), authority.issue(dir.path(), "foreign", "client"));
    let flags = ["--tls-cert", &files.cert, "--tls-key", &files.key, "--tls-client-ca", client_ca.to_str().unwrap()];
    let node = Alone::start(dir, &flags);
    let connector = tls(&ca, Some(&own));
    assert_eq!(until(async || livez(node.port, &connector).await.ok()).await.0, 200);
    assert!(livez(node.port, &tls(&ca, None)).await.is_err());
    assert!(livez(node.port, &tls(&ca, Some(&foreign))).await.is_err());
}

fn minted(args: &[&str]) -> (String, String) {
    let output = quorate(&[&["credential", "new"], args].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let said = String::from_utf8(output.stdout).unwrap();
    let mut lines = said.lines().map(str::to_owned);
    (lines.next().unwrap(), lines.next().unwrap())
}

/// The status of one request with this token.
async fn asked(port: u16, token: Option<&str>, method: &str, path: &str, body: &str) -> io::Result<u16> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let shown = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{shown}");
    stream.write_all(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    answer.get(9..12).and_then(|status| status.parse().ok()).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

#[tokio::test]
async fn a_credential_lets_in_until_it_is_struck_out_and_no_secret_is_logged() {
    let dir = temporary();
    let file = dir.path().join("credentials");
    let (team, team_line) = minted(&["team", "--write", "team/", "--read", "shared/"]);
    let (boss, boss_line) = minted(&["boss", "--admin"]);
    fs::write(&file, format!("{team_line}\n{boss_line}\n")).unwrap();
    let node = Alone::start(dir, &["--credentials", file.to_str().unwrap()]);
    let port = node.port;
    until(async || asked(port, None, "GET", "/readyz", "").await.ok().filter(|status| *status == 200)).await;
    let last = if boss.ends_with('0') { '1' } else { '0' };
    let wrong = format!("{}{last}", &boss[..boss.len() - 1]);
    let register = ("PUT", "/v1/ap/names/team%2Fx", "{\"owner\":\"o\"}");
    for (token, status) in
        [(None, 401), (Some("nonsense"), 401), (Some(wrong.as_str()), 401), (Some(team.as_str()), 201)]
    {
        assert_eq!(asked(port, token, register.0, register.1, register.2).await.unwrap(), status);
    }
    assert_eq!(asked(port, Some(&boss), "GET", "/v1/cluster", "").await.unwrap(), 200);
    fs::write(&file, format!("{boss_line}\n")).unwrap();
    until(async || asked(port, Some(&team), "GET", "/v1/cluster", "").await.ok().filter(|status| *status == 401)).await;
    assert_eq!(asked(port, Some(&boss), "GET", "/v1/cluster", "").await.unwrap(), 200);
    let log = node.log();
    assert!(log.contains("read again"), "the log has nothing that could be searched: {log}");
    let hash =
        |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["sha256"].as_str().unwrap().to_owned();
    for secret in [&team, &boss, &wrong, &hash(&team_line), &hash(&boss_line)] {
        assert!(
            !log.contains(secret.as_str()) && !log.contains(&secret[secret.len() - 32..]),
            "{secret} is in the log"
        );
    }
}

/// Starts a node that ends by itself, for its standard input has ended.
fn started(flags: &[&str]) -> Output {
    let dir = temporary();
    let command = ["serve", "--exit-with-stdin", "--data", dir.path().to_str().unwrap()];
    quorate(&[&command, flags].concat())
}

#[test]
fn an_address_for_strangers_without_locks_is_warned_of_and_loopback_is_not() {
    let (http, peer) = (free_port(), free_port());
    let flags = |host: &str| [format!("{host}:{http}"), format!("{host}:{peer}")];
    let [open_http, open_peer] = flags("0.0.0.0");
    let said = stderr(&started(&["--http", &open_http, "--peer", &open_peer]));
    for missing in ["--tls-cert", "--credentials", "--peer-cert"] {
        assert_eq!(
            said.lines().filter(|line| line.starts_with("warning:") && line.contains(missing)).count(),
            1,
            "{said}"
        );
    }
    let [http, peer] = flags("127.0.0.1");
    let said = stderr(&started(&["--http", &http, "--peer", &peer]));
    assert_eq!(said, "");
}

#[test]
fn locks_that_do_not_fit_together_are_told_with_the_mend() {
    let dir = temporary();
    let authority = Authority::new();
    let one = authority.issue(dir.path(), "one", "localhost");
    let two = authority.issue(dir.path(), "two", "localhost");
    let empty = dir.path().join("empty");
    fs::write(&empty, "").unwrap();
    let empty = empty.to_str().unwrap();
    let own = authority.issue(dir.path(), "own", "node-1.quorate");
    let whole =
        |cert, keys| ["--peer-cert", cert, "--peer-key", &own.key, "--peer-ca", &own.cert, "--cluster-key-file", keys];
    let at = [format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port())];
    for (flags, code, expected) in [
        (&["--tls-cert", &one.cert][..], 64, "--tls-key"),
        (&["--tls-key", &one.key], 64, "--tls-cert"),
        (&["--tls-client-ca", &one.cert], 64, "--tls-cert"),
        (&["--tls-cert", &one.cert, "--tls-key", &one.key, "--advertise-http", "http://a:1"], 64, "https://"),
        (&["--advertise-http", "ftp://a:1"], 64, "http://"),
        (&["--tls-cert", &one.cert, "--tls-key", &two.key], 3, &two.key),
        (&["--tls-cert", empty, "--tls-key", &one.key], 3, "certificate"),
        (&["--tls-cert", &one.cert, "--tls-key", &one.cert], 3, "private key"),
        (&["--tls-cert", "/nowhere", "--tls-key", &one.key], 3, "/nowhere"),
        (&["--peer-cert", &one.cert], 64, "--peer-ca"),
        (&["--cluster-key-file", empty], 64, "--peer-cert"),
        (&["--peer-cert", &one.cert, "--peer-key", &one.key, "--peer-ca", &one.cert], 64, "--cluster-key-file"),
        (&whole(&one.cert, empty), 3, "node-1.quorate"),
        (&whole(&own.cert, empty), 3, "--cluster-key-file"),
        (&["--credentials", empty], 3, "nobody could come in"),
        (&["--credentials", "/nowhere"], 3, "/nowhere"),
    ] {
        let output = started(&[&["--http", &at[0], "--peer", &at[1]], flags].concat());
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{flags:?}: {said}");
        assert!(said.contains(expected) && said.lines().count() == 1, "{flags:?}: {said}");
    }
    assert_eq!(quorate(&["credential", "new", "idle"]).status.code(), Some(64));
}

/// Flags that lock a cluster's links; each node's own certificate is `node-{id}.crt`.
fn peer_flags(dir: &Path, authority: &Authority, nodes: u64) -> Vec<String> {
    for id in 1..=nodes {
        authority.issue(dir, &format!("node-{id}"), &format!("node-{id}.quorate"));
    }
    let ca = authority.file(dir, "peers");
    let key = dir.join("cluster-key");
    fs::write(&key, "5a".repeat(32)).unwrap();
    let at = dir.display();
    [
        ("--peer-cert", format!("{at}/node-{{id}}.crt")),
        ("--peer-key", format!("{at}/node-{{id}}.key")),
        ("--peer-ca", ca.display().to_string()),
        ("--cluster-key-file", key.display().to_string()),
    ]
    .into_iter()
    .flat_map(|(flag, file)| [flag.to_owned(), file])
    .collect()
}

#[test]
fn a_cluster_behind_locks_serves_both_modes_and_lets_no_stranger_in() {
    let (dir, authority) = (temporary(), Authority::new());
    let flags = peer_flags(dir.path(), &authority, 3);
    let mut nodes = Nodes::start(3, &flags.iter().map(String::as_str).collect::<Vec<_>>());
    for mode in ["cp", "ap"] {
        let path = format!("/v1/{mode}/names/x");
        assert_eq!(http(nodes.http_port(0), "PUT", &path, "{\"owner\":\"o\"}").unwrap().status, 201);
        let begun = Instant::now();
        while http(nodes.http_port(2), "GET", &path, "").unwrap().status != 200 {
            assert!(begun.elapsed() < SOON);
        }
    }
    let status = |at: usize| http(nodes.http_port(at), "GET", "/v1/cluster", "").unwrap().json();
    let begun = Instant::now();
    let alive = |status: &serde_json::Value| {
        status["nodes"].as_array().unwrap().iter().all(|node| matches!(node["state"].as_str(), Some("alive" | "me")))
    };
    // Gossip's datagrams come through, for nothing else makes a node alive.
    while !alive(&status(0)) {
        assert!(begun.elapsed() < SOON, "{}", status(0));
    }
    // A node that comes back under another authority is told so, and so are the others.
    nodes.kill(2);
    Authority::new().issue(dir.path(), "node-3", "node-3.quorate");
    nodes.restart(2);
    let begun = Instant::now();
    loop {
        let (here, there) = (
            http(nodes.http_port(0), "GET", "/v1/cluster", "").unwrap().json(),
            http(nodes.http_port(2), "GET", "/v1/cluster", "").map(|answer| answer.json()).unwrap_or_default(),
        );
        let refused = |status: &serde_json::Value, node: usize| status["nodes"][node]["refused"].is_string();
        if refused(&here, 2) && here["strangers"]["last"].is_string() && refused(&there, 0) {
            break;
        }
        assert!(begun.elapsed() < SOON, "{here}\n{there}");
    }
    assert!(nodes.log(0).contains("certificates") && nodes.log(2).contains("certificates"));
    assert_eq!(http(nodes.http_port(1), "PUT", "/v1/cp/names/y", "{\"owner\":\"o\"}").unwrap().status, 201);
}

/// TLS comes from ring alone: nothing that wants a second C library or a generator of code on a fresh machine.
#[test]
fn no_other_cryptography_is_linked() {
    let lock = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock")).unwrap();
    assert!(lock.contains("name = \"ring\"") && lock.contains("name = \"rustls\""));
    for foreign in ["openssl-sys", "aws-lc-sys", "aws-lc-rs", "native-tls", "openssl"] {
        assert!(!lock.contains(&format!("name = \"{foreign}\"\n")), "{foreign} has come in");
    }
}
