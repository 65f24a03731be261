//! A sign of life from a peer, over streams and over datagrams, through the faults in force.

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::link::Link;
use super::links::{Links, Purpose};
use crate::model::ident::NodeId;

/// Whether the peer answers over TCP and over UDP before the deadline; `back` is where it reaches this node.
pub async fn probe(links: &Links, to: NodeId, addr: &str, back: &str, deadline: Instant) -> (bool, bool) {
    let tcp = timeout_at(deadline, async {
        let mut link = links.dial(to, addr, Purpose::Probe).await.ok()?;
        link.writer.send(b"ping").await.ok()?;
        link.reader.recv().await.ok()
    });
    let udp = timeout_at(deadline, links.hub().ping(to, addr, back));
    let (tcp, udp) = tokio::join!(tcp, udp);
    (matches!(tcp, Ok(Some(_))), matches!(udp, Ok(Ok(()))))
}

/// Sends back whatever comes on probe connections.
pub(super) async fn answer_all(mut links: mpsc::Receiver<Link>) {
    while let Some(mut link) = links.recv().await {
        tokio::spawn(async move {
            while let Ok(payload) = link.reader.recv().await {
                if link.writer.send(&payload).await.is_err() {
                    break;
                }
            }
        });
    }
}
