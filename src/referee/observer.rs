//! Looks at every node's own view, beside the workload.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::client::Completion;
use super::history::{Conflict, Process, View, What};
use super::scene::Scene;
use crate::model::ident::NodeId;

/// How long a look may take.
const LOOK_MAX: Duration = Duration::from_millis(1_000);
/// Between two looks at nodes that do not agree yet.
const SETTLE_PERIOD: Duration = Duration::from_millis(150);

/// Looks at one node until the task is ended. While the node is stopped it is left alone.
pub async fn watch(scene: Arc<Scene>, node: NodeId) {
    let mut ticks = interval(scene.settings.view_period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while !scene.recorder.is_full() {
        ticks.tick().await;
        if scene.situation().is_up(node) {
            look(&scene, node).await;
        }
    }
}

/// Looks at all nodes until they show the same twice in a row, for at most `settings.settle`; then notes every node's conflicts.
/// Whether they agreed.
pub async fn settle(scene: &Arc<Scene>) -> bool {
    let end = Instant::now() + scene.settings.settle;
    let mut agreed = 0;
    let mut conflicts;
    loop {
        let views = at_all(scene, |scene, node| async move { look(&scene, node).await }).await;
        conflicts =
            at_all(
                scene,
                |scene, node| async move { scene.running.conflicts(node, Instant::now() + LOOK_MAX).await.ok() },
            )
            .await;
        // What is cut off for good cannot agree.
        let core = scene.core();
        let views = views.iter().filter(|(node, _)| core.contains(node));
        let agree = same(views.map(|(_, view)| view.as_ref().map(|view| (&view.names, &view.groups))))
            && same(
                conflicts.iter().filter(|(node, _)| core.contains(node)).map(|(_, told)| told.as_ref().map(as_set)),
            );
        agreed = if agree { agreed + 1 } else { 0 };
        if agreed == 2 || Instant::now() >= end {
            break;
        }
        sleep(SETTLE_PERIOD).await;
    }
    for (node, records) in conflicts {
        if let Some(Some(records)) = records {
            scene.recorder.told(node, scene.side(node), records);
        }
    }
    agreed == 2
}

/// The order in which nodes tell of conflicts is their own.
fn as_set(records: &Option<Vec<Conflict>>) -> BTreeSet<&Conflict> {
    records.iter().flatten().collect()
}

async fn look(scene: &Scene, node: NodeId) -> Option<View> {
    let nothing = View { node, names: BTreeMap::new(), groups: BTreeMap::new(), leader: None };
    let looking = scene.recorder.invoke(Process::Observer, node, scene.side(node), &What::View(nothing));
    match scene.running.view(node, Instant::now() + LOOK_MAX).await {
        Ok(view) => {
            scene.recorder.complete(looking, Completion::Ok(What::View(view.clone())));
            Some(view)
        }
        Err(why) => {
            scene.recorder.complete(looking, Completion::Fail(format!("{why:#}")));
            None
        }
    }
}

/// Whether all are there and equal.
fn same<T: PartialEq>(mut all: impl Iterator<Item = Option<T>>) -> bool {
    let first = all.next();
    first.as_ref().is_some_and(Option::is_some) && all.all(|other| Some(other) == first)
}

/// Does the same at every node that is up, all at once.
pub async fn at_all<T, F>(scene: &Arc<Scene>, what: impl Fn(Arc<Scene>, NodeId) -> F) -> Vec<(NodeId, T)>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    for node in scene.up() {
        let done = what(scene.clone(), node);
        tasks.spawn(async move { (node, done.await) });
    }
    let mut all = tasks.join_all().await;
    all.sort_by_key(|(node, _)| *node);
    all
}
