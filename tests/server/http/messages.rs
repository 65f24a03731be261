//! Messages over HTTP: what is sent, who reads it, and what is refused.

use std::sync::Arc;

use super::raw;
use super::stream::Stream;
use super::support::{Server, reference};

async fn send(server: &Server, path: &str, body: &str) -> raw::Answer {
    raw::send(server.addr, "POST", path, &[], body.as_bytes()).await
}

#[tokio::test]
async fn a_message_goes_from_its_sender_to_every_inbox() {
    let server = Server::start(reference()).await;
    assert_eq!(send(&server, "/v1/cp/names/n/messages", r#"{"message": {"a": 1}}"#).await.body, r#"{"receivers":0}"#);
    let mut one = Stream::open(server.addr, "/v1/cp/inbox/n", &[]).await;
    let mut two = Stream::open(server.addr, "/v1/cp/inbox/n", &[]).await;
    for header in ["content-type: text/event-stream", "cache-control: no-store", "quorate-mode: cp"] {
        assert!(one.head.contains(header), "{}", one.head);
    }
    let text = "{\"message\": [1.50, \"a\\nb\",\n null] }";
    let answer = send(&server, "/v1/cp/names/n/messages", text).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, r#"{"receivers":2}"#));
    for inbox in [&mut one, &mut two] {
        let event = inbox.next().await.unwrap();
        // As it was sent, digit for digit, without the white space between its parts.
        let data = r#"{"name":"n","token":"7","message":[1.50,"a\nb",null]}"#;
        assert_eq!((event.event.as_str(), event.data.as_str(), event.id), ("message", data, None));
    }
    let answer = send(&server, "/v1/ap/groups/n/messages", r#"{"message":"x"}"#).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, r#"{"receivers":2}"#));
    assert_eq!(one.next().await.unwrap().data, r#"{"group":"n","token":"7.1.2.3","message":"x"}"#);
}

#[tokio::test]
async fn a_message_without_addressee_or_shape_is_refused() {
    let server = Server::start(reference()).await;
    let long = format!(r#"{{"message":"{}"}}"#, "x".repeat(64 * 1024));
    let cases = [
        ("/v1/cp/names/nobody/messages", r#"{"message":1}"#, 404, "not_found"),
        ("/v1/cp/names/cut/messages", r#"{"message":1}"#, 503, "no_quorum"),
        ("/v1/cp/names/n/messages", "", 400, "malformed"),
        ("/v1/cp/names/n/messages", "{", 400, "malformed"),
        ("/v1/cp/names/n/messages", "{}", 422, "wrong_shape"),
        ("/v1/cp/names/n/messages", r#"{"message":1,"to":2}"#, 422, "wrong_shape"),
        ("/v1/cp/names/n/messages", &long, 413, "too_large"),
        ("/v1/cp/names/n/messages?w=2", r#"{"message":1}"#, 400, "malformed"),
        ("/v1/ap/groups/../messages", r#"{"message":1}"#, 400, "malformed"),
    ];
    for (path, body, status, code) in cases {
        let answer = send(&server, path, body).await;
        assert_eq!(answer.status, status, "{path} {body:.40}: {}", answer.body);
        let problem = answer.json();
        assert_eq!(problem["code"], code);
        // A message that may be on its way would come twice.
        assert_eq!(problem["outcome"], "not_applied", "{problem}");
    }
    for path in ["/v1/cp/inbox/", "/v1/cp/inbox/a%00b", "/v1/cp/inbox/n?after=1"] {
        let answer = raw::send(server.addr, "GET", path, &[], b"").await;
        assert!(matches!(answer.status, 400 | 404), "{path}: {}", answer.status);
    }
    let answer = raw::send(server.addr, "GET", "/v1/cp/names/n/messages", &[], b"").await;
    assert_eq!(answer.status, 405);
}

#[tokio::test]
async fn an_inbox_is_a_stream_among_those_that_are_allowed() {
    let state = quorate::http::HttpState { max_streams: 1, ..reference() };
    let messages = Arc::clone(&state.messages);
    let server = Server::start(state).await;
    let first = Stream::open(server.addr, "/v1/cp/inbox/a", &[]).await;
    assert_eq!(first.status(), 200);
    let refused = raw::send(server.addr, "GET", "/v1/cp/inbox/b", &[], b"").await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (429, Some("overloaded")));
    // A reader that does not read holds up nobody, and is told what it has missed.
    for _ in 0..2_000 {
        let text = format!("\"{}\"", "x".repeat(60_000)).into();
        let to = quorate::messages::Address::Name("a".parse().unwrap());
        let mode = quorate::model::ident::Mode::Cp;
        messages.send(mode, to, text, std::time::Instant::now()).await.unwrap();
    }
    let mut first = first;
    loop {
        let event = first.next().await.expect("a gap before the end");
        if event.event == "gap" {
            assert!(event.data.starts_with(r#"{"lost":"#), "{}", event.data);
            break;
        }
    }
}
