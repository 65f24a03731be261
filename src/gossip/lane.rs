//! One connection to one peer for one lane of messages: dialled, kept, dialled again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::model::ident::NodeId;
use crate::net::frame::FRAME_LEN_MAX;
use crate::net::link::Link;
use crate::net::links::{Links, Purpose};

use super::message::{Lane, Message};
use super::shell::Shared;

/// How long a dial may take: a lost first packet would be sent again only after a second. Doubled each time, for slow networks.
const DIAL_PATIENCE: Duration = Duration::from_millis(500);
const DIAL_PATIENCE_MAX: Duration = Duration::from_secs(4);
const REDIAL_FIRST: Duration = Duration::from_millis(50);
const REDIAL_LAST: Duration = Duration::from_secs(1);
/// A push that is not confirmed for this long is stuck: the connection is opened anew.
const STUCK_AFTER: Duration = Duration::from_secs(2);
/// Messages that wait for a peer. More are dropped: anti-entropy makes up for each.
pub const QUEUE_LEN_MAX: usize = 1_024;
/// Messages that go out in one write, at most.
const WRITE_BATCH: usize = 64;

/// A peer's lane, and how to wake it.
pub struct LaneTask {
    pub shared: Arc<Shared>,
    pub links: Links,
    pub peer: NodeId,
    pub addr: String,
    pub lane: Lane,
    pub queue: mpsc::Receiver<Message>,
    /// There is something to push.
    pub pushable: Arc<Notify>,
    /// Whether membership hears the peer.
    pub alive: watch::Receiver<bool>,
}

impl LaneTask {
    /// Runs until it is aborted.
    pub async fn run(mut self) {
        let purpose = match self.lane {
            Lane::Operations => Purpose::Operations,
            Lane::Sync => Purpose::Sync,
        };
        let mut backoff = REDIAL_FIRST;
        let mut patience = DIAL_PATIENCE;
        loop {
            self.alive.mark_unchanged();
            let dial = timeout(patience, self.links.dial(self.peer, &self.addr, purpose));
            let dialled = tokio::select! {
                dialled = dial => dialled,
                // It has just been heard again: a dial that began before may wait for a lost packet.
                Ok(()) = self.alive.changed() => {
                    patience = DIAL_PATIENCE;
                    continue;
                }
            };
            match dialled {
                Ok(Ok(link)) => {
                    (backoff, patience) = (REDIAL_FIRST, DIAL_PATIENCE);
                    self.serve(link).await;
                }
                Ok(Err(error)) => tracing::debug!(peer = self.peer, "dialling: {error}"),
                Err(_) => {
                    tracing::debug!(peer = self.peer, "dialling took too long");
                    patience = DIAL_PATIENCE_MAX.min(patience * 2);
                }
            }
            if self.lane == Lane::Operations {
                self.shared.core().unreachable(self.peer);
            }
            // What waited is stale by the time there is a connection again.
            while self.queue.try_recv().is_ok() {}
            tokio::select! {
                () = sleep(backoff) => backoff = REDIAL_LAST.min(backoff * 2),
                Ok(()) = self.alive.changed() => backoff = REDIAL_FIRST,
            }
        }
    }

    /// Sends until the connection breaks, or the peer is given up and owes an answer.
    async fn serve(&mut self, link: Link) {
        let Link { mut reader, mut writer, peer_run, .. } = link;
        if self.lane == Lane::Operations {
            self.shared.core().link_up(self.peer, peer_run);
            self.pushable.notify_one();
        }
        let mut check = interval(Duration::from_millis(200));
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut watch = Watch { was_alive: false, owed_after: None, since: Instant::now() };
        loop {
            let sent = tokio::select! {
                message = self.queue.recv() => match message {
                    Some(message) => {
                        let batch = self.batch(message);
                        writer.send_all(&batch).await
                    }
                    None => break,
                },
                () = self.pushable.notified(), if self.lane == Lane::Operations => {
                    let push = self.shared.core().next_push(self.peer);
                    match push {
                        Some(message) => {
                            // There may be more than fits one frame.
                            self.pushable.notify_one();
                            writer.send(&message.encode()).await
                        }
                        None => Ok(()),
                    }
                }
                // Nothing comes this way: each node speaks on the connections that it opened.
                received = reader.recv() => received.map(|_| ()),
                _ = check.tick() => {
                    if self.is_stuck(&mut watch) {
                        tracing::debug!(peer = self.peer, "a connection is stuck");
                        break;
                    }
                    Ok(())
                }
            };
            if let Err(error) = sent {
                tracing::debug!(peer = self.peer, "a connection ended: {error}");
                break;
            }
        }
        if self.lane == Lane::Operations {
            self.shared.core().link_down(self.peer);
        }
    }

    /// The message with those that wait behind it, encoded. Of several confirmations the last says all.
    fn batch(&mut self, first: Message) -> Vec<Bytes> {
        let mut messages = vec![first];
        while messages.len() < WRITE_BATCH
            && let Ok(message) = self.queue.try_recv()
        {
            messages.push(message);
        }
        let last = messages.iter().rposition(|message| matches!(message, Message::Covered { .. }));
        let kept = messages
            .iter()
            .enumerate()
            .filter(|(at, message)| !matches!(message, Message::Covered { .. }) || Some(*at) == last);
        let encoded = kept.map(|(_, message)| Bytes::from(message.encode()));
        // An answer to a question about a giant group: the asker counts it as none.
        encoded.filter(|bytes| bytes.len() <= FRAME_LEN_MAX).collect()
    }

    /// A connection with nothing under way is kept whatever membership says; one that waits for a peer that is gone, or for
    /// too long, would wait for its retransmission timer after the network has healed.
    fn is_stuck(&self, watch: &mut Watch) -> bool {
        let alive = *self.alive.borrow();
        watch.was_alive |= alive;
        let gone = watch.was_alive && !alive;
        match self.lane {
            Lane::Sync => gone,
            Lane::Operations => {
                let owed_after = self.shared.view().owes_confirmation(self.peer);
                if owed_after.is_none() || owed_after != watch.owed_after {
                    watch.owed_after = owed_after;
                    watch.since = Instant::now();
                }
                owed_after.is_some() && (gone || watch.since.elapsed() > STUCK_AFTER)
            }
        }
    }
}

/// What a connection has been waiting for.
struct Watch {
    was_alive: bool,
    /// The last number that the peer has confirmed, while it owes more.
    owed_after: Option<u64>,
    since: Instant,
}
