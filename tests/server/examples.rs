//! The examples, played against real nodes.

#[path = "../../examples/presence.rs"]
mod presence;
#[path = "../../examples/singleton.rs"]
mod singleton;

use std::time::Duration;

use tokio::sync::mpsc::unbounded_channel;
use tokio::time::timeout;

use super::nodes::Nodes;

const SOON: Duration = Duration::from_secs(30);

fn urls(nodes: &Nodes) -> Vec<String> {
    nodes.ports.iter().map(|(http, _)| format!("http://127.0.0.1:{http}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_workers_only_one_acts_whatever_the_network_does() {
    let nodes = Nodes::start(3, &["--enable-faults"]);
    let story = singleton::play(&urls(&nodes)).await.unwrap();
    let resource = story.resource.lock().unwrap();
    assert!(resource.refused > 0, "the late write was let through");
    // The resource saw left, then right, and never left again.
    let workers = resource.written.iter().map(|(_, worker)| worker.as_str()).collect::<Vec<_>>();
    let first_right = workers.iter().position(|worker| *worker == "right").unwrap();
    assert!(workers[..first_right].iter().all(|worker| *worker == "left"));
    assert!(workers[first_right..].iter().all(|worker| *worker == "right"));
    // No moment at which two acted, by one clock.
    let mut shifts = story.shifts.lock().unwrap().clone();
    shifts.sort_by_key(|(_, _, begun, _)| *begun);
    for pair in shifts.windows(2) {
        assert!(pair[0].3 <= pair[1].2, "{pair:?} overlap");
        assert!(pair[0].1 < pair[1].1, "{pair:?}: the later token is not the greater one");
    }
    assert!(shifts.len() >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_and_goes_is_seen_at_another_node() {
    let nodes = Nodes::start(2, &[]);
    let (told, mut heard) = unbounded_channel();
    let [one, two] = <[String; 2]>::try_from(urls(&nodes)).unwrap();
    let alice = tokio::spawn(presence::be_there(one, "alice".to_owned(), move |here| {
        told.send(here.iter().cloned().collect::<Vec<_>>().join(" ")).is_ok()
    }));
    let mut until = async |wanted: &str| {
        while heard.recv().await.expect("alice is gone") != wanted {}
    };
    timeout(SOON, until("alice")).await.unwrap();
    // Bob leaves as soon as he has seen somebody.
    let bob = tokio::spawn(presence::be_there(two, "bob".to_owned(), |here| here.len() < 2));
    timeout(SOON, until("alice bob")).await.unwrap();
    timeout(SOON, bob).await.unwrap().unwrap().unwrap();
    timeout(SOON, until("alice")).await.unwrap();
    alice.abort();
}
