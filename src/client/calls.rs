//! The calls that are neither one command nor one question: keep-alives, batches, messages. Each one request, one answer, one deadline.

use serde_json::value::RawValue;

use super::call::{CallOptions, Caller, Cause, CommandError};
use super::judge;
use super::request::{self, Prepared};
use crate::messages::Address;
use crate::model::command::Action;
use crate::model::ident::{LeaseId, Mode, RecordId};
use crate::model::lease::KeptAlive;
use crate::model::outcome::{Outcome, Refusal};
use crate::registry::Reply;
use crate::wire::{batch, lease as lease_body, message as message_body};

impl Caller {
    /// Keeps a lease alive. `seen`: records that need not be told as lost again.
    pub async fn keep_alive(
        &self,
        mode: Mode,
        lease: &LeaseId,
        seen: &[RecordId],
        options: &CallOptions,
    ) -> Result<Result<KeptAlive, Refusal>, CommandError> {
        let prepared = request::keep_alive(mode, lease, seen, options);
        let read = |body: &[u8]| lease_body::read_kept_alive(mode, body);
        Ok(self.settle(mode, prepared, options, read).await?.value)
    }

    /// Keeps up to 1,000 leases alive; what became of each, in their order.
    pub async fn keep_alive_each(
        &self,
        mode: Mode,
        leases: &[LeaseId],
        seen: &[RecordId],
        options: &CallOptions,
    ) -> Result<Vec<Result<KeptAlive, Refusal>>, CommandError> {
        let prepared = request::keep_alive_each(mode, leases, seen, options);
        let read = |body: &[u8]| lease_body::read_kept_alive_each(mode, leases, body);
        whole(self.settle(mode, prepared, options, read).await?.value)
    }

    /// Carries out up to 1,000 commands in order, none of them of a lease; what became of each.
    pub async fn batch(
        &self,
        mode: Mode,
        actions: &[Action],
        options: &CallOptions,
    ) -> Result<Reply<Vec<Outcome>>, CommandError> {
        let Some(prepared) = request::batch(mode, actions, options) else {
            let why = "a batch takes no command of a lease".to_owned();
            return Err(CommandError::NotApplied(Cause::Unreachable(why)));
        };
        let read = |body: &[u8]| batch::read_results(mode, actions, body);
        let Reply { value, revision, provenance } = self.settle(mode, prepared, options, read).await?;
        Ok(Reply { value: whole(value)?, revision, provenance })
    }

    /// Sends a message (JSON) to whoever holds a name or is in a group; how many inboxes have it.
    pub async fn send(
        &self,
        mode: Mode,
        to: &Address,
        message: &RawValue,
        options: &CallOptions,
    ) -> Result<Result<u64, Refusal>, CommandError> {
        let prepared = request::message(mode, to, message, options);
        Ok(self.settle(mode, prepared, options, message_body::read_sent).await?.value)
    }

    async fn settle<T>(
        &self,
        mode: Mode,
        prepared: Prepared,
        options: &CallOptions,
        read: impl FnOnce(&[u8]) -> Result<T, crate::wire::read::Garbled>,
    ) -> Result<Reply<Result<T, Refusal>>, CommandError> {
        judge::settled(mode, &self.exchange(prepared, options).await?, read)
    }
}

/// A call about many things is not refused as a whole: such an answer proves nothing.
fn whole<T>(settled: Result<T, Refusal>) -> Result<T, CommandError> {
    settled.map_err(|refusal| {
        CommandError::Unknown(Cause::Garbled(format!("a refusal that does not fit the call: {refusal:?}")))
    })
}
