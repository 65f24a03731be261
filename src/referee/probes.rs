//! Whether the links are as they are meant to be: every node that is up tries every link.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::client::Reach;
use super::history::What;
use super::observer::at_all;
use super::scene::Scene;
use super::situation::Situation;
use crate::model::ident::NodeId;

/// How long a node may take to try its links and say so. It is busy, and a link that is cut is tried for a while.
const PROBE_MAX: Duration = Duration::from_millis(1_500);
/// How long links may take to become as they are meant to be. After a heal nodes may be busy with what they have to tell each other.
const PROBE_FOR: Duration = Duration::from_millis(2_000);

/// Has them tried until they are as they are meant to be, or time is up: the usual time, and not beyond `until` but for one try. The
/// error says which are not.
pub async fn probe(scene: &Arc<Scene>, until: Option<Instant>) -> Result<(), String> {
    let usual = Instant::now() + PROBE_FOR;
    let end = until.map_or(usual, |until| until.min(usual));
    loop {
        let before = scene.situation().clone();
        let answers =
            at_all(scene, |scene, node| async move { scene.running.reached(node, Instant::now() + PROBE_MAX).await })
                .await;
        if *scene.situation() != before {
            // Another fault came or went meanwhile; its own probe will tell of all.
            if Instant::now() >= usual {
                return Ok(());
            }
            continue;
        }
        let unlike = answers.iter().filter_map(|(node, reach)| match reach {
            Ok(reach) => differs(&before, *node, reach),
            Err(why) => Some(format!("node {node} did not try its links: {why:#}")),
        });
        let unlike = unlike.collect::<Vec<_>>();
        if unlike.is_empty() || Instant::now() >= end {
            let reached = answers.into_iter().filter_map(|(node, reach)| {
                let reach = reach.ok()?;
                Some((node, reach.fully.union(&reach.partly).copied().collect()))
            });
            let reached = reached.collect::<BTreeMap<_, _>>();
            scene.recorder.nemesis(What::Probe { reached, as_intended: unlike.is_empty() });
            return if unlike.is_empty() { Ok(()) } else { Err(unlike.join("; ")) };
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// How what a node reaches differs from what it is meant to reach. Links to nodes that are stopped may pass or not, and lossy ones may
/// pass a probe or not.
fn differs(situation: &Situation, node: NodeId, reach: &Reach) -> Option<String> {
    let counts = |peer: &NodeId| situation.is_up(*peer) && situation.is_plain(node, *peer);
    let counted = |peers: &BTreeSet<NodeId>| peers.iter().copied().filter(counts).collect::<BTreeSet<_>>();
    let (fully, partly) = (counted(&reach.fully), counted(&reach.partly));
    let wanted = counted(&situation.reach(node));
    if !partly.is_empty() || fully != wanted {
        return Some(format!("node {node} reaches {fully:?} fully and {partly:?} in part, not {wanted:?}"));
    }
    let heard_by = counted(reach.heard_by.as_ref()?);
    let wanted = counted(&situation.heard_by(node));
    (heard_by != wanted).then(|| format!("node {node} is heard by {heard_by:?}, not by {wanted:?}"))
}
