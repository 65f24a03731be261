//! The part of the registry that waits for leases: for one to become known here, and for keep-alives that were passed on.

use std::time::{Duration, Instant};

use crate::model::command::Action;
use crate::model::ident::LeaseId;
use crate::registry::{CommandFailure, KeepAlive, Reason, Reply};

use super::keep_alive::{Keeping, KeptResults};
use super::registry::{GossipRegistry, until};

/// A lease that was created a moment ago, at another node, has this long to become known here.
const LEASE_PATIENCE: Duration = Duration::from_millis(200);

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
