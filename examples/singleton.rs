//! A worker of which only one acts, whatever the network does.
//!
//! Two workers want one job. The one that holds the name `nightly-job` writes to a resource, with its fencing token. Then its node is
//! cut off from the others: it is told in time that it may have lost the name, and stops; the other one gets the name and goes
//! on; and a write that the first one had still under way is refused, for its token is older.
//!
//! ```sh
//! quorate dev &
//! cargo run --example singleton
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quorate::client::call::Caller;
use quorate::client::client::Client;
use quorate::client::election::Election;
use quorate::client::moment::Moment;
use quorate::model::ident::{Mode, Token};
use quorate::wire::cluster::{FaultsBody, PeerFaultsBody};
use tokio::time::{Instant, sleep};

const JOB: &str = "nightly-job";
/// How long the name outlives a worker that is cut off. Short, so that there is something to see; 10 s and more is usual.
const TTL: Duration = Duration::from_secs(2);
const STEP: Duration = Duration::from_millis(50);
/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(30);

type Failure = Box<dyn Error + Send + Sync>;

/// What only one worker may write to: it remembers the newest token that it has seen and refuses older ones. A database does this with
/// one more condition in its update: `… WHERE token <= $1`.
#[derive(Debug, Default)]
pub struct Resource {
    newest: Option<Token>,
    /// Who wrote when.
    pub written: Vec<(Moment, String)>,
    pub refused: usize,
}

impl Resource {
    /// Whether the write was let through.
    pub fn write(&mut self, token: Token, worker: &str) -> bool {
        if self.newest.is_some_and(|newest| token < newest) {
            self.refused += 1;
            return false;
        }
        self.newest = Some(token);
        self.written.push((Moment::now(), worker.to_owned()));
        true
    }
}

/// From when to when a worker acted, and with which token.
pub type Shift = (String, Token, Moment, Moment);

/// What happened, for those who want to check it.
#[derive(Debug, Default)]
pub struct Story {
    pub resource: Mutex<Resource>,
    pub shifts: Mutex<Vec<Shift>>,
}

/// Works whenever it holds the name, and only then.
async fn worker(client: Client, me: &'static str, story: Arc<Story>) -> Result<(), Failure> {
    let election = Election::new(&client, JOB, me)?.ttl(TTL);
    loop {
        let held = election.campaign().await?;
        let (token, begun) = (held.token(), Moment::now());
        println!("{me} holds {JOB}, token {token}");
        let mut acted = begun;
        // Asked before each step: right at once, also after this process has been stopped or the machine has slept.
        while held.is_held() {
            if !story.resource.lock().unwrap().write(token, me) {
                println!("{me}: the resource refused token {token}");
                break;
            }
            acted = Moment::now();
            story.shifts.lock().unwrap().retain(|shift| shift.1 != token);
            story.shifts.lock().unwrap().push((me.to_owned(), token, begun, acted));
            tokio::select! {
                why = held.lost() => println!("{me} stops: {why}"),
                () = sleep(STEP) => {}
            }
        }
        println!("{me} acted for {:?}", acted.since(begun));
    }
}

/// Waits until the resource has been written to by this worker, after so many writes; by which token.
async fn writes_by(story: &Story, me: &str, after: usize) -> Result<Token, Failure> {
    let until = Instant::now() + PATIENCE;
    loop {
        let newest = {
            let resource = story.resource.lock().unwrap();
            resource.written.iter().skip(after).any(|(_, worker)| worker == me).then_some(resource.newest)
        };
        if let Some(newest) = newest {
            return newest.ok_or_else(|| "nobody has written".into());
        }
        if Instant::now() > until {
            return Err(format!("{me} did not take over within {PATIENCE:?}").into());
        }
        sleep(STEP).await;
    }
}

/// Cuts a node off from all its peers, or heals it.
async fn cut_off(node: &Caller, cut: bool) -> Result<(), Failure> {
    let mut faults = FaultsBody { peers: BTreeMap::new() };
    let cluster = node.cluster(PATIENCE).await?;
    for peer in cluster.nodes.iter().filter(|peer| cut && peer.id != cluster.node) {
        let mut links = PeerFaultsBody::default();
        links.incoming.drop = true;
        links.outgoing.drop = true;
        faults.peers.insert(peer.id, links);
    }
    node.set_faults(&faults, PATIENCE).await?;
    Ok(())
}

/// Plays it on a cluster of three with faults enabled: one worker knows the first node alone, the other one the rest.
pub async fn play(endpoints: &[String]) -> Result<Arc<Story>, Failure> {
    let story = Arc::new(Story::default());
    let client = |urls: &[String]| Client::builder().endpoints(urls).mode(Mode::Cp).build();
    let node = Caller::new(&endpoints[0])?;
    let left = tokio::spawn(worker(client(&endpoints[..1])?, "left", story.clone()));
    let old = writes_by(&story, "left", 0).await?;
    let right = tokio::spawn(worker(client(&endpoints[1..])?, "right", story.clone()));

    println!("-- the node of left is cut off");
    cut_off(&node, true).await?;
    let before = story.resource.lock().unwrap().written.len();
    writes_by(&story, "right", before).await?;
    // A write of left's that was under way all the time arrives at last.
    let late = story.resource.lock().unwrap().write(old, "left");
    println!("-- a late write with token {old}: {}", if late { "let through!" } else { "refused" });

    println!("-- and healed");
    cut_off(&node, false).await?;
    // Right keeps the job: left is a candidate like any other.
    let before = story.resource.lock().unwrap().written.len();
    writes_by(&story, "right", before + 20).await?;
    left.abort();
    right.abort();
    Ok(story)
}

#[tokio::main]
#[allow(dead_code, reason = "a test plays it too")]
async fn main() -> Result<(), Failure> {
    let mut endpoints = std::env::args().skip(1).collect::<Vec<_>>();
    if endpoints.is_empty() {
        endpoints = [7401, 7402, 7403].map(|port| format!("http://127.0.0.1:{port}")).to_vec();
    }
    let story = play(&endpoints).await?;
    let resource = story.resource.lock().unwrap();
    println!("{} writes let through, {} refused", resource.written.len(), resource.refused);
    Ok(())
}
