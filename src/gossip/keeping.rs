//! The part of the registry that waits for leases: for one to become known here, and for keep-alives that were passed on.

use std::time::{Duration, Instant};

use crate::model::command::Action;
use crate::model::ident::LeaseId;
use crate::registry::{CommandFailure, KeepAlive, Reason, Reply};

use super::keep_alive::{Keeping, KeptResults};
use super::registry::{GossipRegistry, MARGIN, until};

/// A lease that was created a moment ago, at another node, has this long to become known here.
const LEASE_PATIENCE: Duration = Duration::from_millis(200);
/// The nodes that keep a lease have this long to say how long it still lives.
const LEFT_PATIENCE: Duration = Duration::from_millis(200);

impl GossipRegistry {
    pub(super) async fn keep(&self, keep: KeepAlive, deadline: Instant) -> Result<Reply<KeptResults>, CommandFailure> {
        let (kept, stamp) = self.shared.with(|core, now, effects| {
            if !core.is_serving() {
                return Err(CommandFailure::NotApplied(Reason::Starting));
            }
            let kept = match core.keep_alive(&keep, now, effects) {
                Keeping::Done(results) => Ok(results),
                Keeping::Pending(id) => Err(self.shared.await_kept(id)),
            };
            Ok((kept, core.hlc()))
        })?;
        let results = match kept {
            Ok(results) => results,
            Err(pending) => match tokio::time::timeout_at(deadline.into(), pending).await {
                Ok(Ok(results)) => results,
                Ok(Err(_)) | Err(_) => return Err(CommandFailure::Unknown(Reason::Timeout)),
            },
        };
        self.shared.make_durable(stamp).await;
        Ok(self.reply(&self.shared.view(), results))
    }

    /// How long a lease lives that others keep, by their word. None: it is kept here, or none of them answers in time.
    pub(super) async fn left_elsewhere(&self, lease: &LeaseId, deadline: Instant) -> Option<u64> {
        let mut question = self.shared.times.ask();
        let asked = self.shared.with(|core, _, effects| core.ask_left(question.id, lease, effects));
        let until = deadline.min(Instant::now() + LEFT_PATIENCE + MARGIN) - MARGIN;
        let mut left_ms = None;
        for _ in 0..asked {
            match question.answer(until.into()).await {
                Some(word) => left_ms = left_ms.max(word),
                None => break,
            }
        }
        left_ms
    }

    /// Waits until the lease that a command names is known here, as long as it may be on its way.
    pub(super) async fn await_lease(&self, action: &Action, deadline: Instant) {
        let (Action::Register { lease: Some(lease), .. } | Action::Join { lease: Some(lease), .. }) = action else {
            return;
        };
        if self.is_decided(lease) {
            return;
        }
        self.shared.with(|core, now, effects| core.look_for(lease, now, effects));
        let patience = deadline.min(Instant::now() + LEASE_PATIENCE);
        let decided = || self.is_decided(lease).then_some(());
        until(&self.shared.advanced, patience, decided).await;
    }

    fn is_decided(&self, lease: &LeaseId) -> bool {
        self.shared.view().is_lease_decided(lease)
    }
}
