//! Follows the cluster as it changes: what the log of `cp` says of its nodes is what gossip, the links and the data directory go by.

use std::sync::Arc;

use tokio::sync::watch;

use super::identity::Keeper;
use crate::gossip::GossipNode;
use crate::model::ident::NodeId;
use crate::net::links::Links;
use crate::raft::roster::Roster;

/// One node's following.
pub struct Follower {
    pub id: NodeId,
    pub links: Links,
    pub keeper: Arc<Keeper>,
    pub gossip: Arc<GossipNode>,
    /// Told once that this very node was removed.
    pub removed: watch::Sender<Option<String>>,
}

impl Follower {
    /// Runs until it is aborted, or this node is removed.
    pub async fn run(self, mut rosters: watch::Receiver<Arc<Roster>>) {
        let why = tokio::select! {
            // A peer knows it: this node was out of reach when it was removed, or nobody speaks to it any more to tell it.
            why = self.links.removed() => why,
            why = self.follow(&mut rosters) => why,
        };
        let (keeper, kept) = (self.keeper.clone(), why.clone());
        let _ = tokio::task::spawn_blocking(move || keeper.retire()).await;
        self.removed.send_replace(Some(kept));
    }

    /// Returns when the log says that this node was removed.
    async fn follow(&self, rosters: &mut watch::Receiver<Arc<Roster>>) -> String {
        rosters.mark_changed();
        loop {
            if rosters.changed().await.is_err() {
                // The node stops.
                return std::future::pending().await;
            }
            let roster = rosters.borrow_and_update().clone();
            let members = roster.members();
            if roster.retired.contains(&self.id) {
                return format!(
                    "node {} was removed from this cluster, which is final: start it anew, under a new id and with an empty --data",
                    self.id
                );
            }
            if members.is_empty() {
                continue;
            }
            self.links.expel(roster.retired.iter().copied());
            let (keeper, kept) = (self.keeper.clone(), roster.clone());
            let _ = tokio::task::spawn_blocking(move || keeper.follow(&kept.members(), &kept.retired)).await;
            self.gossip.follow(members, roster.retired.clone()).await;
        }
    }
}
