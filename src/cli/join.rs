//! A new node's way into a cluster: what it has to know before it starts, and how it then becomes a member.

use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::sleep;

use crate::client::call::{Caller, Cause, CommandError};
use crate::model::ident::NodeId;
use crate::node::config::Joining;
use crate::node::node::Node;

/// How long one call may take.
const CALL_MAX: Duration = Duration::from_secs(5);
/// How long after a failure the next call is made.
const PAUSE: Duration = Duration::from_millis(300);

/// Asks a node of the cluster which cluster it is, and who is in it. The new node must be none of them, unless it has been added under
/// the address that it will have.
pub async fn learn(url: &str, id: NodeId, own: &str) -> anyhow::Result<Joining> {
    let caller = Caller::new(url).map_err(|e| anyhow::anyhow!("--join {e}"))?;
    let cluster = caller.cluster(CALL_MAX).await;
    let cluster =
        cluster.with_context(|| format!("cannot join by {url}: give the URL of a node of the cluster that serves"))?;
    if let Some(known) = cluster.nodes.iter().find(|node| node.id == id)
        && own != known.peer
    {
        bail!("node {id} is at {} already: give this node an --id that was never used", known.peer);
    }
    let members = cluster.nodes.into_iter().map(|node| (node.id, node.peer)).collect();
    Ok(Joining { cluster: cluster.cluster, members })
}

/// Has a node that runs be added to its cluster, and promoted once it has caught up, if it is to vote. An error: it never will be.
pub async fn enter(node: &Node, url: &str, votes: bool) -> anyhow::Result<()> {
    let (id, peer) = (node.id(), node.peer_addr().to_owned());
    let mut callers = vec![Caller::new(url).map_err(|e| anyhow::anyhow!("--join {e}"))?];
    // The one that was given may end before this node is in.
    if let Ok(cluster) = callers[0].cluster(CALL_MAX).await {
        let others = cluster.nodes.into_iter().filter(|other| other.id != id).filter_map(|other| other.http);
        callers.extend(others.filter(|other| other != url).filter_map(|other| Caller::new(&other).ok()));
    }
    repeat(&callers, async |caller| caller.add_node(id, &peer, CALL_MAX).await.map(|_| ())).await?;
    if votes {
        repeat(&callers, async |caller| caller.promote_node(id, CALL_MAX).await.map(|_| ())).await?;
    }
    println!("node {id} has entered the cluster as a {}", if votes { "voter" } else { "learner" });
    node.entered().await;
    Ok(())
}

/// Makes a call until it is answered, at one node after the other. An error: the answer is no, and will be.
async fn repeat(callers: &[Caller], call: impl AsyncFn(&Caller) -> Result<(), CommandError>) -> anyhow::Result<()> {
    let mut at = 0;
    let mut told = None;
    loop {
        match call(&callers[at % callers.len()]).await {
            Ok(()) => return Ok(()),
            Err(CommandError::NotApplied(Cause::Rejected { code, detail })) if !code.is_passing() => {
                bail!("this node is not let into the cluster: {detail} ({})", code.row().text);
            }
            // Every call may be made again without harm.
            Err(CommandError::NotApplied(cause) | CommandError::Unknown(cause)) => {
                let why = cause.to_string();
                if told.as_ref() != Some(&why) {
                    tracing::info!("not in the cluster yet: {why}");
                    told = Some(why);
                }
            }
        }
        at += 1;
        sleep(PAUSE).await;
    }
}

/// Where a node that was meant to join stands, for its operator.
pub fn not_in_yet(id: NodeId) -> String {
    format!("node {id} has not entered its cluster yet: start it with --join URL of a node that serves")
}
