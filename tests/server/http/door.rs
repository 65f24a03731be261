//! The door: credentials, and callers who are too many, too slow, or too large.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use quorate::http::caller::Grants;
use quorate::http::credentials::{Credentials, mint};
use quorate::http::{Terms, router};
use quorate::model::command::{Action, Condition};
use quorate::model::ident::Mode;
use quorate::registry::{CommandCall, Registry};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use super::raw;
use super::reference::Reference;
use super::support::{Scripted, Server, reference, state};

const SOON: Duration = Duration::from_secs(20);

fn credential(name: &str) -> (String, String) {
    let grants = Grants { name: name.parse().unwrap(), read: vec![String::new()], write: vec![], admin: false };
    let minted = mint(&grants);
    (minted.token, minted.line)
}

#[tokio::test]
async fn without_a_credential_only_health_and_the_description_are_answered() {
    let (token, line) = credential("team");
    let (next, next_line) = credential("next");
    let credentials = Arc::new(ArcSwap::from_pointee(Credentials::parse(&line).unwrap()));
    let server = Server::start_by(Terms::default(), router(reference()).asking_for(credentials.clone())).await;
    let get = async |path: &str, headers: &[(&str, &str)]| raw::send(server.addr, "GET", path, headers, b"").await;
    // The ap registry here says that it starts; that is told to anybody too.
    for (open, status) in [("/livez", 200), ("/readyz", 503), ("/readyz?mode=cp", 200), ("/openapi.json", 200)] {
        assert_eq!(get(open, &[]).await.status, status, "{open}");
    }
    let bearer = format!("Bearer {token}");
    for path in ["/v1/cp/names", "/v1/cp/names/x", "/v1/cluster", "/v1/faults", "/nowhere", "/livez/x"] {
        let answer = get(path, &[]).await;
        assert_eq!((answer.status, answer.code().as_str()), (401, "unauthorized"), "{path}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        assert_ne!(get(path, &[("Authorization", &bearer)]).await.status, 401, "{path}");
    }
    for wrong in
        ["Bearer", "Bearer ", "Basic dTpw", &bearer[..bearer.len() - 1], &format!("{bearer}0"), &token, "Bearer \u{e9}"]
    {
        let answer = get("/v1/cp/names", &[("Authorization", wrong)]).await;
        assert_eq!(answer.code(), "unauthorized", "{wrong}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer error=\"invalid_token\""));
    }
    let twice = get("/v1/cp/names", &[("Authorization", &bearer), ("Authorization", &bearer)]).await;
    assert_eq!(twice.status, 401);
    let lower = format!("bearer {token}");
    assert_eq!(get("/v1/cp/names", &[("authorization", &lower)]).await.status, 200);
    // A command that was not let in has surely done nothing.
    let put = raw::send(server.addr, "PUT", "/v1/cp/names/x", &[], br#"{"owner":"o"}"#).await;
    assert_eq!((put.status, put.json()["outcome"].as_str()), (401, Some("not_applied")));
    // A browser asks before it shows anything.
    let asks = [("Origin", "https://console.example"), ("Access-Control-Request-Method", "PUT")];
    assert_eq!(raw::send(server.addr, "OPTIONS", "/v1/cp/names/x", &asks, b"").await.status, 204);
    credentials.store(Arc::new(Credentials::parse(&next_line).unwrap()));
    assert_eq!(get("/v1/cp/names", &[("Authorization", &bearer)]).await.status, 401);
    assert_eq!(get("/v1/cp/names", &[("Authorization", &format!("Bearer {next}"))]).await.status, 200);
}

/// Reads until the server closes; how many bytes came. Fails if it does not close soon.
async fn drained(stream: &mut TcpStream) -> usize {
    let mut all = Vec::new();
    let _ = timeout(SOON, stream.read_to_end(&mut all)).await.expect("the server holds the connection");
    all.len()
}

fn impatient() -> Terms {
    let patience = Duration::from_millis(300);
    Terms { handshake_patience: patience, head_patience: patience, answer_patience: patience, ..Terms::default() }
}

#[tokio::test]
async fn a_head_that_does_not_come_is_not_waited_for() {
    let server = Server::start_by(impatient(), router(reference())).await;
    for sent in ["", "GET /liv", "GET /livez HTTP/1.1\r\nHost: x\r\n"] {
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        let begun = Instant::now();
        // Byte by byte, so that there is always a little progress.
        for byte in sent.bytes() {
            if stream.write_all(&[byte]).await.is_err() {
                break;
            }
            sleep(Duration::from_millis(30)).await;
        }
        drained(&mut stream).await;
        assert!(begun.elapsed() < SOON);
    }
}

#[tokio::test]
async fn a_tls_handshake_that_does_not_come_is_not_waited_for() {
    let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = tokio_rustls::rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![key.cert.der().clone()], key.signing_key.into())
        .unwrap();
    let tls = Some(Arc::new(ArcSwap::from_pointee(config)));
    let server = Server::start_by(Terms { tls, ..impatient() }, router(reference())).await;
    for sent in [&b""[..], b"\x16\x03\x01\x02\x00\x01"] {
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        stream.write_all(sent).await.unwrap();
        assert_eq!(drained(&mut stream).await, 0);
    }
}

#[tokio::test]
async fn a_long_answer_is_not_held_for_a_caller_who_does_not_read() {
    let registry = Arc::new(Reference::default());
    let meta = format!("{{\"m\":\"{}\"}}", "x".repeat(16_000));
    for at in 0..900 {
        let action = Action::Register {
            name: format!("n{at}").parse().unwrap(),
            owner: "o".parse().unwrap(),
            meta: meta.parse().unwrap(),
            lease: None,
            condition: Condition::Free,
        };
        let call = CommandCall { deadline: Instant::now() + SOON, forward: true, acks: 1 };
        registry.execute(action, &call).await.unwrap();
    }
    for (terms, whole) in [(impatient(), false), (Terms::default(), true)] {
        let server = Server::start_by(terms, router(state(registry.clone(), Scripted::new(Mode::Ap)))).await;
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(8 * 1024).unwrap();
        let mut stream = socket.connect(server.addr).await.unwrap();
        let ask = b"GET /v1/cp/names?limit=1000&timeout_ms=30000 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(ask).await.unwrap();
        assert_eq!(timeout(SOON, stream.read_u8()).await.unwrap().unwrap(), b'H');
        sleep(Duration::from_secs(2)).await;
        let came = drained(&mut stream).await;
        // The control: whoever is patient enough gets it all, slow reader or not.
        assert_eq!(came > 900 * 16_000, whole, "{came}");
    }
}

#[tokio::test]
async fn more_connections_than_there_is_room_for_are_told_so() {
    let server = Server::start_by(Terms { max_connections: 2, ..Terms::default() }, router(reference())).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        assert_eq!(timeout(SOON, stream.read_u8()).await.unwrap().unwrap(), b'H');
        held.push(stream);
    }
    let answer = raw::send(server.addr, "PUT", "/v1/cp/names/x", &[], br#"{"owner":"o"}"#).await;
    assert_eq!((answer.status, answer.code().as_str()), (429, "overloaded"));
    assert_eq!((answer.header("retry-after"), answer.header("connection")), (Some("1"), Some("close")));
    held.pop();
    let begun = Instant::now();
    while raw::send(server.addr, "GET", "/v1/cluster", &[], b"").await.status != 200 {
        assert!(begun.elapsed() < SOON);
        sleep(Duration::from_millis(20)).await;
    }
}

/// A PUT whose body is announced and does not come.
async fn announced(addr: SocketAddr, length: &str) -> TcpStream {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let head = format!("PUT /v1/cp/names/a?timeout_ms=30000 HTTP/1.1\r\nHost: x\r\n{length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn bodies_that_would_take_too_much_memory_together_are_refused_before_they_are_read() {
    let api = router(reference()).with_body_bytes(1 << 20);
    let server = Server::start_by(Terms::default(), api).await;
    for length in ["Content-Length: 1048576", "Transfer-Encoding: chunked"] {
        let slow = announced(server.addr, length).await;
        let put = async || raw::send(server.addr, "PUT", "/v1/cp/names/b", &[], br#"{"owner":"o"}"#).await;
        let begun = Instant::now();
        let refused = loop {
            let answer = put().await;
            if answer.status == 429 {
                break answer;
            }
            assert!(begun.elapsed() < SOON, "{length}");
        };
        assert_eq!((refused.code().as_str(), refused.json()["outcome"].as_str()), ("overloaded", Some("not_applied")));
        // What has no body, or tells of the node's health, passes.
        assert_eq!(raw::send(server.addr, "GET", "/v1/cluster", &[], b"").await.status, 200);
        drop(slow);
        while put().await.status == 429 {
            assert!(begun.elapsed() < 2 * SOON, "{length}");
        }
    }
}

#[tokio::test]
async fn absurd_heads_are_refused_and_harm_nobody() {
    let server = Server::start_by(Terms::default(), router(reference())).await;
    let long = "x".repeat(100_000);
    let many = (0..500).map(|at| format!("h{at}: v\r\n")).collect::<String>();
    let heads: [Vec<u8>; 9] = [
        format!("GET /v1/cp/names HTTP/1.1\r\nHost: x\r\nX-Long: {long}\r\n\r\n").into(),
        format!("GET /v1/cp/names?prefix={long} HTTP/1.1\r\nHost: x\r\n\r\n").into(),
        format!("GET /v1/cp/names HTTP/1.1\r\nHost: x\r\n{many}\r\n").into(),
        b"GET /v1/cp/names HTTP/1.1\r\nHost: \xff\xfe\r\nOrigin: \xff\r\nAuthorization: Bearer \xff\r\n\r\n".to_vec(),
        b"GET /v1/cp/names/%ff%fe HTTP/1.1\r\nHost: x\r\nIf-Match: \xff\r\n\r\n".to_vec(),
        b"GET /v1/cp/names HTTP/1.1\r\nHost: x\r\nBad\x00Name: v\r\n\r\n".to_vec(),
        b"PUT /v1/cp/names/a HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n".to_vec(),
        b"PUT /v1/cp/names/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n".to_vec(),
        b"\xff\xfe\xfd\r\n\r\n".to_vec(),
    ];
    for head in heads {
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        let _ = stream.write_all(&head).await;
        let mut answer = Vec::new();
        let mut piece = [0; 4096];
        // An answer, or the end of the connection; never silence.
        if let Ok(read) = timeout(SOON, stream.read(&mut piece)).await.expect("an answer") {
            answer.extend_from_slice(&piece[..read]);
        }
        let status = String::from_utf8_lossy(&answer).get(9..12).unwrap_or("400").parse::<u16>().unwrap();
        assert!((400..500).contains(&status), "{}: {status}", String::from_utf8_lossy(&head[..head.len().min(80)]));
        assert_eq!(raw::send(server.addr, "GET", "/livez", &[], b"").await.status, 200);
    }
}
