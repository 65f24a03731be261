//! Doing harm and undoing it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::client::Corrupted;
use super::nemesis::{NemesisError, failed};
use super::scene::Scene;
use super::schedule::{Fault, Harm};
use crate::model::ident::NodeId;

/// How long links are tried to be set before the run is given up: a node may be too busy to take the word at once.
const LINKS_FOR: Duration = Duration::from_secs(5);
/// How long an act on one node may take.
const ACT_MAX: Duration = Duration::from_secs(5);
/// How long a node that another fault has stopped is waited for.
const UP_MAX: Duration = Duration::from_secs(15);
/// How long killed nodes may take to come back: longer than any other fault that is in force meanwhile.
const RESTART_MAX: Duration = Duration::from_secs(30);
/// How long it may take to remove a member and to have another in its place.
const REPLACE_MAX: Duration = Duration::from_secs(40);

/// What came of an act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// With what there is to be said of it.
    Surely(String),
    Perhaps(String),
}

fn surely() -> Done {
    Done::Surely(String::new())
}

/// Does it. Afterwards the situation has it, unless nothing was done.
pub async fn begin(scene: &Arc<Scene>, fault: &Fault) -> Result<Done, NemesisError> {
    let running = &scene.running;
    let done = match &fault.harm {
        Harm::Cut { .. } | Harm::Lose { .. } | Harm::Delay { .. } => {
            scene.situation().begin(fault);
            set_links(scene, "cutting").await?;
            surely()
        }
        Harm::DropAnswers { .. } => {
            scene.answers_dropped();
            surely()
        }
        Harm::Kill { nodes } => {
            kill(scene, fault, nodes).await?;
            surely()
        }
        Harm::CutPower { nodes } => {
            kill(scene, fault, nodes).await?;
            for node in nodes {
                in_time(running.cut_power(*node)).await.map_err(failed(format!("cutting the power of node {node}")))?;
            }
            surely()
        }
        Harm::Pause { nodes } => {
            scene.situation().begin(fault);
            for node in nodes {
                in_time(running.pause(*node)).await.map_err(failed(format!("pausing node {node}")))?;
            }
            surely()
        }
        Harm::Skew { offsets_ms } => {
            scene.situation().begin(fault);
            set_clocks(scene, offsets_ms).await
        }
        Harm::Replace { nodes } => {
            kill(scene, fault, nodes).await?;
            remove(scene, nodes).await
        }
        Harm::Transfer { to } => match in_time(running.transfer(*to)).await {
            Ok(()) => surely(),
            Err(why) => Done::Perhaps(format!("{why:#}")),
        },
        Harm::FillDisk { nodes } => {
            scene.situation().begin(fault);
            for node in nodes {
                in_time(running.fill_disk(*node)).await.map_err(failed(format!("filling node {node}'s disk")))?;
            }
            surely()
        }
        Harm::Corrupt { nodes, seed } => {
            kill(scene, fault, nodes).await?;
            corrupt(scene, nodes, *seed).await?
        }
    };
    scene.situation().begin(fault);
    Ok(done)
}

/// Undoes it. Afterwards the situation does not have it.
pub async fn end(scene: &Arc<Scene>, fault: &Fault) -> Result<Done, NemesisError> {
    let running = &scene.running;
    let mut done = surely();
    match &fault.harm {
        Harm::Cut { .. } | Harm::Lose { .. } | Harm::Delay { .. } => {
            let kept = scene.situation().clone();
            scene.situation().end(fault.id);
            if let Err(why) = set_links(scene, "healing").await {
                *scene.situation() = kept;
                return Err(why);
            }
        }
        Harm::DropAnswers { .. } => {
            if scene.answers_dropped() == 0 {
                done = Done::Perhaps("no answer came that could have been dropped".to_owned());
            }
        }
        Harm::Kill { nodes } | Harm::CutPower { nodes } => restart(scene, nodes).await?,
        Harm::Pause { nodes } => {
            for node in nodes {
                in_time(running.resume(*node)).await.map_err(failed(format!("resuming node {node}")))?;
            }
        }
        Harm::Skew { offsets_ms } => {
            scene.situation().end(fault.id);
            done = set_clocks(scene, offsets_ms).await;
        }
        Harm::Replace { nodes } => replace(scene, nodes).await?,
        Harm::Transfer { .. } => {}
        Harm::FillDisk { nodes } => {
            let mut told = Vec::new();
            for node in nodes {
                let said = in_time(running.empty_disk(*node)).await;
                told.push(said.map_err(failed(format!("emptying node {node}'s disk")))?);
            }
            restart(scene, nodes).await?;
            done = Done::Surely(told.join("; "));
        }
        Harm::Corrupt { nodes, .. } => {
            // One that ran at first may have met what was changed since.
            let ended = |node: &NodeId| !scene.situation().is_up(*node) || !running.runs(*node);
            let ended = nodes.iter().copied().filter(ended).collect::<Vec<_>>();
            replace(scene, &ended).await?;
        }
    }
    scene.situation().end(fault.id);
    // A node that came back knows nothing of faults; one that stood still missed what was said meanwhile.
    if !fault.harm.stopped().is_empty() {
        set_links(scene, "setting the links of nodes that came back").await?;
    }
    Ok(done)
}

/// A node that it is to be done to and that another fault has stopped; one that is just coming back is waited for.
pub async fn still_down(scene: &Scene, fault: &Fault) -> Option<NodeId> {
    let end = Instant::now() + UP_MAX;
    loop {
        let down = {
            let situation = scene.situation();
            fault.harm.nodes().into_iter().find(|node| !situation.is_up(*node))
        };
        if down.is_none() || Instant::now() >= end {
            return down;
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// The calls of a node that is being killed do not count, so the situation knows first.
async fn kill(scene: &Arc<Scene>, fault: &Fault, nodes: &[NodeId]) -> Result<(), NemesisError> {
    scene.situation().begin(fault);
    for node in nodes {
        in_time(scene.running.kill(*node)).await.map_err(failed(format!("killing node {node}")))?;
    }
    Ok(())
}

/// Makes the links what the situation says. One at a time: each sets them all.
async fn set_links(scene: &Scene, what: &str) -> Result<(), NemesisError> {
    let _turn = scene.turn.lock().await;
    let end = Instant::now() + LINKS_FOR;
    loop {
        let links = scene.situation().links();
        match in_time(scene.running.set_links(&links)).await {
            Ok(()) => return Ok(()),
            Err(_) if Instant::now() < end => sleep(Duration::from_millis(100)).await,
            Err(why) => return Err(failed(what)(why)),
        }
    }
}

/// Makes the clocks what the situation says. One at a time: one fault may end as another begins.
async fn set_clocks(scene: &Scene, of: &[(NodeId, i64)]) -> Done {
    let _turn = scene.turn.lock().await;
    for (node, _) in of {
        let offset_ms = scene.situation().clock(*node);
        if let Err(why) = in_time(scene.running.skew(*node, offset_ms)).await {
            return Done::Perhaps(format!("the clock of node {node}: {why:#}"));
        }
    }
    surely()
}

async fn corrupt(scene: &Scene, nodes: &[NodeId], seed: u64) -> Result<Done, NemesisError> {
    let mut told = Vec::new();
    for node in nodes {
        let came = timeout(RESTART_MAX, scene.running.corrupt(*node, seed));
        let came = came.await.unwrap_or_else(|_| Err(anyhow::anyhow!("it neither serves nor ends")));
        match came.map_err(failed(format!("corrupting node {node}")))? {
            Corrupted::Refused(what) => told.push(what),
            Corrupted::Runs(what) => {
                scene.situation().runs(*node);
                told.push(what);
            }
        }
    }
    Ok(Done::Surely(told.join("; ")))
}

/// What a majority is needed for may have to wait until there is one.
async fn remove(scene: &Scene, nodes: &[NodeId]) -> Done {
    let mut told = String::new();
    for node in nodes {
        if let Err(why) = in_time(scene.running.remove(*node)).await {
            told = format!("not removed yet: {why:#}");
        }
    }
    Done::Surely(told)
}

async fn restart(scene: &Arc<Scene>, nodes: &[NodeId]) -> Result<(), NemesisError> {
    let mut tasks = JoinSet::new();
    for node in nodes.iter().copied() {
        let scene = scene.clone();
        tasks.spawn(async move {
            let restarted = timeout(RESTART_MAX, scene.running.restart(node)).await;
            let restarted = restarted.unwrap_or_else(|_| Err(anyhow::anyhow!("it does not answer its clients")));
            restarted.map_err(failed(format!("restarting node {node}")))
        });
    }
    tasks.join_all().await.into_iter().collect()
}

async fn replace(scene: &Scene, nodes: &[NodeId]) -> Result<(), NemesisError> {
    for node in nodes {
        let replaced = timeout(REPLACE_MAX, scene.running.replace(*node)).await;
        let replaced = replaced.unwrap_or_else(|_| Err(anyhow::anyhow!("there is no new member yet")));
        replaced.map_err(failed(format!("replacing node {node}")))?;
    }
    Ok(())
}

async fn in_time<T>(act: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    timeout(ACT_MAX, act).await.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {ACT_MAX:?}")))
}
