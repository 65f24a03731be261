//! Messages by the Rust client: sent once or not at all, and inboxes that go on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use quorate::client::call::Cause;
use quorate::client::client::Client;
use quorate::client::error::Error;
use quorate::client::inbox::{Arrived, Inbox};
use quorate::http::HttpState;
use quorate::messages::{Address, Letter};
use quorate::model::ident::Mode;
use quorate::model::outcome::Refusal;
use quorate::registry::Reason;
use quorate::wire::status::Code;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::http::support::{Postbox, Server, reference};
use crate::nodes::{Nodes, free_port};

const SOON: Duration = Duration::from_secs(30);

fn client<'a>(urls: impl IntoIterator<Item = &'a str>) -> Client {
    Client::builder().endpoints(urls).timeout(SOON).build().unwrap()
}

async fn next(inbox: &mut Inbox) -> Arrived {
    timeout(SOON, inbox.next()).await.expect("nothing came").unwrap()
}

/// What comes next of messages and gaps.
async fn next_of_all(inbox: &mut Inbox) -> Arrived {
    loop {
        match next(inbox).await {
            Arrived::Interrupted(_) => {}
            arrived => return arrived,
        }
    }
}

fn text(arrived: Arrived) -> String {
    match arrived {
        Arrived::Message(Letter { text, .. }) => text.to_string(),
        other => panic!("no message: {other:?}"),
    }
}

/// A server that gives every caller this answer and hangs up; how many it has had.
async fn saying(answer: &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (addr, asked) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4_096]).await;
            count.fetch_add(1, Ordering::Relaxed);
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (addr, asked)
}

#[tokio::test]
async fn what_is_sent_arrives_in_every_inbox_and_what_cannot_be_is_told_apart() {
    let server = Server::start(reference()).await;
    let client = client([server.url().as_str()]);
    assert_eq!(client.send("n", "to nobody").await, Ok(0));
    let mut inboxes = [client.inbox("n").unwrap(), client.inbox("n").unwrap()];
    for inbox in &mut inboxes {
        inbox.opened().await.unwrap();
    }
    assert_eq!(client.send("n", &json!({ "a": [1.5, null] })).await, Ok(2));
    assert_eq!(client.publish("n", "x").await, Ok(2));
    for inbox in &mut inboxes {
        let Arrived::Message(letter) = next(inbox).await else { panic!() };
        assert_eq!(letter.to, Address::Name("n".parse().unwrap()));
        assert_eq!((letter.token.to_string().as_str(), &*letter.text), ("7", r#"{"a":[1.5,null]}"#));
        let Arrived::Message(letter) = next(inbox).await else { panic!() };
        assert_eq!((letter.to, &*letter.text), (Address::Group("n".parse().unwrap()), "\"x\""));
    }
    assert_eq!(client.send("nobody", "x").await, Err(Error::Refused(Box::new(Refusal::NotFound))));
    let cut = client.within(Duration::from_millis(300)).send("cut", "x").await;
    assert_eq!(cut, Err(Error::NotApplied(Cause::Server(Reason::NoQuorum))));
    assert!(matches!(client.send("n", &"x".repeat(65_535)).await, Err(Error::Word(_))));
    assert!(matches!(client.send("..", "x").await, Err(Error::Word(_))));
}

#[tokio::test]
async fn a_message_that_may_be_on_its_way_is_not_sent_again_and_one_that_is_not_is() {
    let state = reference();
    let server = Server::start(state).await;
    let url = server.url();
    let mut inbox = client([url.as_str()]).inbox("n").unwrap();
    inbox.opened().await.unwrap();
    let passed_on = |first: SocketAddr| {
        let first = format!("http://{first}");
        let client = client([first.as_str(), url.as_str()]);
        async move { client.send("n", "x").await }
    };
    // The first server has read it, and nobody knows what it has done with it.
    for lost in [
        "",
        "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{\"rec",
        "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
    ] {
        let (first, asked) = saying(lost).await;
        let sent = passed_on(first).await;
        assert!(matches!(sent, Err(Error::Unknown(_))), "{lost:?}: {sent:?}");
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }
    // It is surely not sent: the next one is asked.
    assert_eq!(passed_on(([127, 0, 0, 1], free_port()).into()).await, Ok(1));
    let refused = concat!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nQuorate-Revision: 1\r\n",
        "Content-Length: 100\r\n\r\n",
        r#"{"title":"x","status":503,"code":"no_leader","outcome":"not_applied","retryable":true, "detail":"x"}"#
    );
    let (first, _) = saying(refused).await;
    assert_eq!(passed_on(first).await, Ok(1));
    // So many have come, and no more.
    assert_eq!(client([url.as_str()]).send("n", "last").await, Ok(1));
    let came = [next(&mut inbox).await, next(&mut inbox).await, next(&mut inbox).await].map(text);
    assert_eq!(came, ["\"x\"", "\"x\"", "\"last\""]);
}

#[tokio::test]
async fn an_inbox_goes_on_at_another_server_and_says_that_something_may_be_missing() {
    let post = Arc::new(Postbox::default());
    let start = || Server::start(HttpState { messages: post.clone(), ..reference() });
    let servers = [start().await, start().await];
    let urls = servers.each_ref().map(Server::url);
    let mut inbox = client(urls.each_ref().map(String::as_str)).inbox("n").unwrap();
    inbox.opened().await.unwrap();
    let sender = client([urls[1].as_str()]);
    assert_eq!(sender.send("n", &1).await, Ok(1));
    assert_eq!(text(next(&mut inbox).await), "1");
    let [first, _second] = servers;
    drop(first);
    assert_eq!(next_of_all(&mut inbox).await, Arrived::Gap { lost: None });
    let sent = sender.send("n", &2).await;
    assert!(matches!(sent, Ok(1..)), "{sent:?}");
    assert_eq!(text(next(&mut inbox).await), "2");
}

#[tokio::test]
async fn a_gap_of_the_servers_and_events_of_later_versions_are_read() {
    let stream = concat!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\nretry: 1000\n\n",
        "event: message\ndata: {\"group\":\"g\",\"token\":\"7\",\"message\":1,\"more\":2}\n\n",
        "event: weather\ndata: {\"fine\":true}\n\n:\n\n",
        "event: gap\ndata: {\"lost\":3}\n\n",
        "event: message\ndata: {\"token\":\"7\",\"message\":1}\n\n",
    );
    let (addr, asked) = saying(stream).await;
    let mut inbox = client([format!("http://{addr}").as_str()]).inbox("o").unwrap();
    assert_eq!(text(next(&mut inbox).await), "1");
    assert_eq!(next(&mut inbox).await, Arrived::Gap { lost: Some(3) });
    // A message to nobody is none of ours: the stream is given up, and begun anew.
    assert!(matches!(next(&mut inbox).await, Arrived::Interrupted(Cause::Garbled(_))));
    assert_eq!(next(&mut inbox).await, Arrived::Gap { lost: None });
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn an_inbox_that_no_server_will_give_is_an_error() {
    let refused = concat!(
        "HTTP/1.1 401 Unauthorized\r\nContent-Type: application/problem+json\r\nContent-Length: 82\r\n\r\n",
        r#"{"title":"x","status":401,"code":"unauthorized","detail":"show","retryable":false}"#
    );
    let (addr, _) = saying(refused).await;
    let mut inbox = client([format!("http://{addr}").as_str()]).inbox("o").unwrap();
    let opened = timeout(SOON, inbox.opened()).await.unwrap();
    assert!(matches!(&opened, Err(Error::Unanswered(Cause::Rejected { code: Code::Unauthorized, .. }))), "{opened:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_cross_real_nodes_and_an_inbox_outlives_its_node() {
    let mut nodes = Nodes::start(3, &[]);
    let urls = nodes.ports.iter().map(|(http, _)| format!("http://127.0.0.1:{http}")).collect::<Vec<_>>();
    let all = client(urls.iter().map(String::as_str));
    let last = client([urls[2].as_str()]);
    for mode in Mode::ALL {
        let (all, last) = (all.in_mode(mode), last.in_mode(mode));
        let mut inbox = all.inbox("a").unwrap();
        inbox.opened().await.unwrap();
        all.register("n", "a").send().await.unwrap();
        all.join("g", "a").send().await.unwrap();
        until_received(async || last.send("n", &1).await).await;
        assert_eq!(text(next(&mut inbox).await), "1");
        until_received(async || last.publish("g", &2).await).await;
        assert_eq!(text(next(&mut inbox).await), "2");
        if mode == Mode::Ap {
            break;
        }
        nodes.kill(0);
        assert_eq!(next_of_all(&mut inbox).await, Arrived::Gap { lost: None });
        until_received(async || last.send("n", &3).await).await;
        assert_eq!(text(next(&mut inbox).await), "3");
        nodes.restart(0);
        nodes.wait_ready(0);
    }
}

/// Sends until somebody has it: a node may not have heard of the name, or of a peer that is back, yet.
async fn until_received(send: impl AsyncFn() -> Result<u64, Error>) {
    let begun = std::time::Instant::now();
    loop {
        match send().await {
            Ok(1..) => return,
            other => assert!(begun.elapsed() < SOON, "{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}
