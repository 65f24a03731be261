//! Changes of who is in a cluster of our nodes: leaders moved, members removed and replaced.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{bail, ensure};
use tokio::time::sleep;

use super::nodes::Cluster;
use crate::client::call::{Caller, Cause, CommandError};
use crate::model::ident::NodeId;
use crate::wire::status::Code;

/// How long one call may take.
const CALL_MAX: Duration = Duration::from_secs(2);
const POLL_PERIOD: Duration = Duration::from_millis(100);

impl Cluster {
    /// Who leads the cluster's `cp` registry, as most nodes see it; by place.
    pub(super) async fn cp_leader(&self) -> Option<NodeId> {
        let answers = self.ask_all(|_, caller| async move { caller.cluster(CALL_MAX).await.ok()?.leader }).await;
        let mut votes = BTreeMap::<NodeId, usize>::new();
        for leader in answers.into_iter().filter_map(|(_, leader)| leader) {
            *votes.entry(leader).or_default() += 1;
        }
        let leader = votes.into_iter().find(|(_, votes)| votes * 2 > self.nodes.len()).map(|(leader, _)| leader)?;
        self.place_of(leader)
    }

    /// Callers of every node that runs, but for one.
    fn others(&self, but: NodeId) -> Vec<Arc<Caller>> {
        let others = self.nodes.iter().filter(|(place, node)| **place != but && node.process.runs());
        others.map(|(_, node)| node.caller.clone()).collect()
    }

    pub(super) async fn transfer_to(&self, place: NodeId) -> anyhow::Result<()> {
        let to = self.node(place)?.id();
        let mut last = anyhow::anyhow!("no other node runs");
        for caller in self.others(place) {
            match caller.transfer_leader(Some(to), CALL_MAX).await {
                Ok(_) => return self.await_leader(place).await,
                Err(why) => last = anyhow::anyhow!(cause(why)),
            }
        }
        Err(last)
    }

    async fn await_leader(&self, place: NodeId) -> anyhow::Result<()> {
        // The caller's patience bounds it.
        while self.cp_leader().await != Some(place) {
            sleep(POLL_PERIOD).await;
        }
        Ok(())
    }

    /// Until some node has it done. Whoever is not known any more has been removed before.
    pub(super) async fn remove_member(&self, place: NodeId) -> anyhow::Result<()> {
        let id = self.node(place)?.id();
        let others = self.others(place);
        ensure!(!others.is_empty(), "no other node runs");
        let mut last = String::new();
        for other in others.iter().cycle().take(others.len() * 10) {
            match other.remove_node(id, CALL_MAX).await {
                Ok(_) => return Ok(()),
                Err(CommandError::NotApplied(Cause::Rejected { code: Code::NotFound, .. })) => return Ok(()),
                Err(why) => last = cause(why),
            }
            sleep(POLL_PERIOD).await;
        }
        bail!("node {id} could not be removed: {last}")
    }

    /// The caller's patience bounds it.
    pub(super) async fn replace_member(&self, place: NodeId) -> anyhow::Result<()> {
        let node = self.node(place)?;
        if node.process.runs() {
            node.process.kill()?;
        }
        while let Err(why) = self.remove_member(place).await {
            tracing::info!("{why:#}");
            sleep(POLL_PERIOD).await;
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let by = self.nodes.iter().find(|(other, node)| **other != place && node.process.runs());
        let Some((_, by)) = by else { bail!("no other node runs") };
        node.succeed(id, format!("http://{}", by.http))?;
        node.spawn(&self.nursery, &self.ground)?;
        loop {
            node.process.lives()?;
            if self.has_entered(node.id(), &node.caller).await && self.serves(place).await {
                return Ok(());
            }
            sleep(POLL_PERIOD).await;
        }
    }

    /// Whether it sees itself as one that votes.
    async fn has_entered(&self, id: NodeId, caller: &Caller) -> bool {
        let Ok(cluster) = caller.cluster(CALL_MAX).await else { return false };
        cluster.nodes.iter().any(|node| node.id == id && node.role != "learner")
    }
}

fn cause(error: CommandError) -> String {
    match error {
        CommandError::NotApplied(cause) | CommandError::Unknown(cause) => cause.to_string(),
    }
}
