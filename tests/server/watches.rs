//! Streams of `cp` from real processes: a reader whose node is killed goes on at another one, and misses nothing.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::http::stream::Stream;
use super::nodes::{Nodes, http};

async fn open(nodes: &Nodes, at: usize, path: &str, headers: &[(&str, &str)]) -> Stream {
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, nodes.http_port(at)));
    let stream = Stream::open(addr, path, headers).await;
    assert_eq!(stream.status(), 200, "{}", stream.head);
    stream
}

/// Registers a name at one node, however long that takes.
fn register(nodes: &Nodes, at: usize, name: &str) {
    let begun = Instant::now();
    loop {
        let path = format!("/v1/cp/names/{name}?timeout_ms=2000");
        let answer = http(nodes.http_port(at), "PUT", &path, "{\"owner\":\"a\"}").unwrap();
        match answer.status {
            200 | 201 => return,
            503 | 504 => assert!(begun.elapsed() < Duration::from_secs(20), "{answer:?}"),
            _ => panic!("{answer:?}"),
        }
    }
}

/// What a reader remembers.
#[derive(Default)]
struct Reader {
    revisions: Vec<u64>,
    names: Vec<String>,
    last_id: Option<String>,
}

impl Reader {
    /// Reads until so many changes have come.
    async fn read(&mut self, stream: &mut Stream, count: usize) {
        while self.revisions.len() < count {
            let event = stream.next().await.expect("the stream goes on");
            self.last_id = event.id.or(self.last_id.take());
            match event.event.as_str() {
                "change" => {
                    let data: serde_json::Value = serde_json::from_str(&event.data).unwrap();
                    self.revisions.push(data["revision"].as_str().unwrap().parse().unwrap());
                    self.names.push(data["changes"][0]["entry"]["name"].as_str().unwrap().to_owned());
                }
                "progress" | "stalled" => {}
                other => panic!("{other}: {}", event.data),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_goes_on_at_another_node_after_kill_9_of_the_one_that_served_it() {
    let mut nodes = Nodes::start(3, &[]);
    let mut reader = Reader::default();
    let mut stream = open(&nodes, 0, "/v1/cp/watch", &[]).await;
    // Where it begins is told before anything changes.
    let first = stream.next().await.unwrap();
    assert_eq!(first.event, "progress", "{}", first.data);
    let names = (0..40).map(|at| format!("n{at:02}")).collect::<Vec<_>>();
    for name in &names[..20] {
        register(&nodes, 1, name);
    }
    reader.read(&mut stream, 7).await;
    nodes.kill(0);
    for name in &names[20..] {
        register(&nodes, 1, name);
    }
    drop(stream);
    for (at, until) in [(1, 30), (2, 40)] {
        let id = reader.last_id.clone().unwrap();
        let mut stream = open(&nodes, at, "/v1/cp/watch", &[("Last-Event-ID", &id)]).await;
        reader.read(&mut stream, until).await;
    }
    assert_eq!(reader.names, names);
    assert_eq!(reader.revisions, (1..=40).collect::<Vec<_>>());

    // A node that was killed tells again what its log holds.
    nodes.restart(0);
    nodes.wait_ready(0);
    let mut again = Reader::default();
    again.read(&mut open(&nodes, 0, "/v1/cp/watch?after=0", &[]).await, 40).await;
    assert_eq!(again.names, names);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_history_is_told_apart_from_a_long_one() {
    let nodes = Nodes::start(1, &["--watch-history", "10"]);
    for at in 0..30 {
        register(&nodes, 0, &format!("n{at:02}"));
    }
    let gone = http(nodes.http_port(0), "GET", "/v1/cp/watch?after=5", "").unwrap();
    assert_eq!((gone.status, gone.json()["code"].as_str()), (410, Some("revision_compacted")), "{gone:?}");
    let mut stream = open(&nodes, 0, "/v1/cp/watch", &[("Last-Event-ID", "5")]).await;
    let event = stream.next().await.unwrap();
    assert_eq!((event.event.as_str(), event.id.as_deref()), ("resync", Some("30")));
    let mut reader = Reader::default();
    reader.read(&mut open(&nodes, 0, "/v1/cp/watch?after=20", &[]).await, 10).await;
    assert_eq!(reader.revisions, (21..=30).collect::<Vec<_>>());
}
