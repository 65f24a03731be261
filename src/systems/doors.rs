//! Nodes that are no process: a program of the referee's own that stands at a node and calls servers from there. What harms a
//! node harms it, too: killed, its connections break and nothing more is sent; paused, it stands still.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::sync::watch;

use super::netns::Network;
use crate::model::ident::NodeId;

/// How it is with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    Up,
    Paused,
    Killed,
}

/// The node was killed before the work was done.
#[derive(Debug)]
pub struct Killed;

/// What stands at a node.
pub struct Door {
    node: NodeId,
    net: Option<Arc<Network>>,
    condition: watch::Sender<Condition>,
}

impl Door {
    pub fn new(node: NodeId, net: Option<Arc<Network>>) -> Self {
        Self { node, net, condition: watch::Sender::new(Condition::Up) }
    }

    pub fn node(&self) -> NodeId {
        self.node
    }

    pub fn set(&self, condition: Condition) {
        self.condition.send_replace(condition);
    }

    /// Does a piece of work as long as the node is up: it stands still while the node is paused, and is dropped when it is killed.
    pub async fn through<T>(&self, work: impl Future<Output = T>) -> Result<T, Killed> {
        let mut work = pin!(work);
        let mut condition = self.condition.subscribe();
        loop {
            let now = *condition.borrow_and_update();
            match now {
                Condition::Killed => return Err(Killed),
                Condition::Paused => drop(condition.changed().await),
                Condition::Up => tokio::select! {
                    biased;
                    _ = condition.changed() => {}
                    done = &mut work => return Ok(done),
                },
            }
        }
    }

    /// Returns when the node is up.
    pub async fn up(&self) {
        // The sender is ours: it cannot have gone.
        let _ = self.condition.subscribe().wait_for(|condition| *condition == Condition::Up).await;
    }

    /// A connection from the node, through what is done to its links.
    pub async fn dial(&self, to: SocketAddr) -> io::Result<TcpStream> {
        match &self.net {
            Some(net) => net.dial(self.node, to).await,
            None => TcpStream::connect(to).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_stands_still_while_its_node_is_paused_and_ends_when_it_is_killed() {
        let door = Arc::new(Door::new(1, None));
        assert!(door.through(async { 1 }).await.is_ok_and(|done| done == 1));
        door.set(Condition::Paused);
        let worked = tokio::spawn({
            let door = door.clone();
            async move { door.through(async { 2 }).await }
        });
        tokio::task::yield_now().await;
        assert!(!worked.is_finished());
        door.set(Condition::Up);
        assert!(worked.await.unwrap().is_ok());
        let waiting = tokio::spawn({
            let door = door.clone();
            async move { door.through(std::future::pending::<()>()).await }
        });
        tokio::task::yield_now().await;
        door.set(Condition::Killed);
        assert!(waiting.await.unwrap().is_err());
        assert!(door.through(async { 3 }).await.is_err());
    }
}
