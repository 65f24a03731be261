//! Follows what changes, beside the workload: one stream after another, at one node after another, each from where the last one was.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{sleep, sleep_until, timeout};

use super::client::Watcher;
use super::scene::Scene;
use super::watched::Watched;
use crate::model::ident::NodeId;

/// How long a stream is followed before another node's is tried, so that positions are carried from node to node.
const STAY: Duration = Duration::from_millis(3_500);
/// How long a stream may take to begin.
const BEGIN_MAX: Duration = Duration::from_millis(800);
/// Between a stream and the next: long enough that there is something to be missed.
const PAUSE: Duration = Duration::from_millis(400);
/// A slow reader takes so long over every message.
const SLOWNESS: Duration = Duration::from_millis(10);
/// After the last call nothing new may come for so long until a watcher has been told all.
const QUIET: Duration = Duration::from_millis(700);
/// How long that may take. A node of `ap` that lacks what a position covers says nothing for five seconds before it says that it has gone.
const CATCH_UP_MAX: Duration = Duration::from_secs(9);

/// One watcher, by what sets it apart.
#[derive(Clone, Debug)]
pub struct Habits {
    pub id: u64,
    /// Where it begins.
    pub node: NodeId,
    pub prefix: Option<String>,
    pub slow: bool,
}

/// One watcher at each node, of which the first is slow, and one more that wants to hear of some keys only.
pub fn all(nodes: &[NodeId], prefix: &str) -> Vec<Habits> {
    let each = nodes.iter().enumerate();
    let each = each.map(|(at, node)| Habits { id: at as u64, node: *node, prefix: None, slow: at == 0 });
    let choosy = nodes.last().map(|node| Habits {
        id: nodes.len() as u64,
        node: *node,
        prefix: Some(prefix.to_owned()),
        slow: false,
    });
    each.chain(choosy).collect()
}

/// Watches until `finish` becomes true and all has been told.
pub async fn follow(scene: Arc<Scene>, habits: Habits, mut finish: watch::Receiver<bool>) {
    let mut at = Place { node: habits.node, position: None };
    while !*finish.borrow_and_update() {
        let Some(mut stream) = begin(&scene, &habits, &at).await else {
            at.node = next_of(&scene.up(), at.node);
            sleep(PAUSE).await;
            continue;
        };
        let until = Instant::now() + STAY;
        let mut said = false;
        loop {
            // A stream that has said nothing yet may be about to say that the position is gone: everywhere else it would be the same.
            let until = if said { until } else { until + STAY };
            tokio::select! {
                // Without a position there is no going on elsewhere.
                () = sleep_until(until.into()), if at.position.is_some() => break,
                _ = finish.changed() => break,
                told = stream.next() => {
                    said = true;
                    if !take_in(&scene, &habits, &mut at, told) {
                        break;
                    }
                }
            }
            if habits.slow {
                sleep(SLOWNESS).await;
            }
        }
        at.node = next_of(&scene.up(), at.node);
        sleep(PAUSE).await;
    }
    catch_up(&scene, &habits, &mut at).await;
}

struct Place {
    node: NodeId,
    position: Option<String>,
}

/// At the end: one stream more, at a node of the core, until it has nothing more to tell. What is still cut off cannot be told the rest.
async fn catch_up(scene: &Scene, habits: &Habits, at: &mut Place) {
    let until = Instant::now() + CATCH_UP_MAX;
    let core = scene.core();
    if !core.contains(&at.node) {
        at.node = next_of(&core, at.node);
    }
    while Instant::now() < until {
        if let Some(mut stream) = begin(scene, habits, at).await {
            // The first word says that the stream has come to its position: until then quiet means nothing.
            let mut quiet = CATCH_UP_MAX;
            loop {
                match timeout(quiet, stream.next()).await {
                    Ok(told) => {
                        quiet = QUIET;
                        if !take_in(scene, habits, at, told) {
                            break;
                        }
                    }
                    Err(_) if quiet > QUIET => return,
                    Err(_) => {
                        scene.recorder.watched(habits.id, at.node, Watched::CaughtUp);
                        return;
                    }
                }
                if Instant::now() >= until {
                    return;
                }
            }
        }
        at.node = next_of(&core, at.node);
        sleep(PAUSE).await;
    }
}

async fn begin(scene: &Scene, habits: &Habits, at: &Place) -> Option<Box<dyn Watcher>> {
    if !scene.situation().is_up(at.node) {
        return None;
    }
    let (after, prefix) = (at.position.as_deref(), habits.prefix.as_deref());
    let begun = Watched::Begun { after: at.position.clone(), prefix: habits.prefix.clone() };
    let asked = scene.running.watch(at.node, after, prefix, Instant::now() + BEGIN_MAX);
    match timeout(BEGIN_MAX, asked).await {
        Ok(Ok(stream)) => {
            scene.recorder.watched(habits.id, at.node, begun);
            Some(stream)
        }
        Ok(Err(_)) | Err(_) => None,
    }
}

/// Whether the stream goes on.
fn take_in(scene: &Scene, habits: &Habits, at: &mut Place, told: Option<(Watched, Option<String>)>) -> bool {
    let Some((told, position)) = told else { return false };
    let goes_on = match told {
        Watched::Change { .. } | Watched::Progress { .. } | Watched::Resync => true,
        Watched::Stalled | Watched::Overflow | Watched::Ended { .. } => false,
        Watched::Begun { .. } | Watched::CaughtUp => true,
    };
    scene.recorder.watched(habits.id, at.node, told);
    if position.is_some() {
        at.position = position;
    }
    goes_on
}

fn next_of(nodes: &[NodeId], after: NodeId) -> NodeId {
    nodes.iter().copied().find(|node| *node > after).or(nodes.first().copied()).unwrap_or(after)
}
