//! Conflict records: exactly one for each grant that lost its name, the same on every node.
//!
//! A record travels with the Remove that withdrew the loser. Several nodes may withdraw one grant at the same time; their
//! Removes collapse into one record, and the smallest stamp stays.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::model::conflict::{ConflictRecord, Contender};
use crate::model::ident::{ApToken, LeaseId, Owner, Token};

use super::context::{Context, OpId};
use super::operation::{Defeat, Stamp};

/// The most records a node keeps. Above it the oldest go, acknowledged or not.
pub const RECORDS_MAX: usize = 100_000;
/// How long a record is kept after it was acknowledged, in milliseconds.
pub const KEPT_ACKNOWLEDGED_MS: u64 = 3_600_000;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The stamp of the Remove.
    pub stamp: Stamp,
    pub defeat: Defeat,
    /// The operation that acknowledged it.
    pub acknowledged: Option<OpId>,
}

/// An acknowledgement that came before its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlyAck {
    pub loser: OpId,
    pub record: OpId,
    pub by: OpId,
}

impl Record {
    pub fn new(stamp: Stamp, defeat: Defeat) -> Self {
        Self { stamp, defeat, acknowledged: None }
    }

    /// The losing grant.
    pub fn loser(&self) -> OpId {
        OpId::of(&self.defeat.loser.1)
    }

    /// As the API shows it. Its id names the losing grant: all nodes agree on it.
    pub fn shown(&self) -> ConflictRecord {
        let contender = |(owner, token): &(Owner, ApToken)| Contender {
            owner: owner.clone(),
            token: Token::Ap(*token),
            node: token.node,
        };
        ConflictRecord {
            id: self.loser().to_string().parse().expect("an operation's id is visible ASCII"),
            name: self.defeat.name.clone(),
            loser: contender(&self.defeat.loser),
            winner: contender(&self.defeat.winner),
            at: self.defeat.at,
            acknowledged: self.acknowledged.is_some(),
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Records {
    by_loser: BTreeMap<OpId, Record>,
    by_age: BTreeSet<(Stamp, OpId)>,
    /// The losers whose leases' keep-alives are to tell of it: those that nobody has acknowledged.
    by_lease: BTreeMap<LeaseId, BTreeSet<OpId>>,
    early_acks: BTreeMap<OpId, EarlyAck>,
    /// Acknowledged since the last [`tick`](Self::tick).
    fresh_acks: Vec<OpId>,
    /// When which acknowledged record is to go.
    leaving: BTreeSet<(u64, OpId)>,
}

impl Records {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.by_loser.len()
    }

    pub fn get(&self, loser: OpId) -> Option<&Record> {
        self.by_loser.get(&loser)
    }

    /// What the keep-alives of a lease are to tell: the records of its losing grants that nobody has acknowledged.
    pub fn lost(&self, lease: &LeaseId) -> impl Iterator<Item = &Record> {
        self.by_lease.get(lease).into_iter().flatten().map(|loser| &self.by_loser[loser])
    }

    /// Oldest first, after the record of this loser; from the beginning if there is none of it (any more).
    pub fn after(&self, loser: Option<OpId>) -> impl Iterator<Item = &Record> {
        use std::ops::Bound::{Excluded, Unbounded};
        let start = match loser.and_then(|loser| self.by_loser.get(&loser)) {
            Some(record) => Excluded((record.stamp, record.loser())),
            None => Unbounded,
        };
        self.by_age.range((start, Unbounded)).map(|(_, loser)| &self.by_loser[loser])
    }

    /// Takes in a record, or what is new in it.
    pub fn add(&mut self, record: Record) {
        let loser = record.loser();
        let early = self.early_acks.remove(&loser).map(|ack| ack.by);
        let mut merged = record;
        merged.acknowledged = earliest(merged.acknowledged, early);
        let mut newly_acknowledged = merged.acknowledged.is_some();
        if let Some(known) = self.by_loser.get(&loser) {
            newly_acknowledged &= known.acknowledged.is_none();
            merged.acknowledged = earliest(merged.acknowledged, known.acknowledged);
            self.by_age.remove(&(known.stamp, loser));
            if known.stamp < merged.stamp {
                merged.stamp = known.stamp;
                merged.defeat = known.defeat.clone();
            }
        }
        if newly_acknowledged {
            self.fresh_acks.push(loser);
        }
        match (&merged.defeat.lease, merged.acknowledged) {
            (Some(lease), None) => {
                self.by_lease.entry(lease.clone()).or_default().insert(loser);
            }
            _ => self.tell_no_more(&merged),
        }
        self.by_age.insert((merged.stamp, loser));
        self.by_loser.insert(loser, merged);
        if self.by_loser.len() > RECORDS_MAX
            && let Some((_, oldest)) = self.by_age.first().copied()
        {
            self.remove(oldest);
        }
    }

    fn remove(&mut self, loser: OpId) {
        if let Some(record) = self.by_loser.remove(&loser) {
            self.by_age.remove(&(record.stamp, loser));
            self.tell_no_more(&record);
        }
    }

    /// The keep-alives of the loser's lease need not tell of it any more.
    fn tell_no_more(&mut self, record: &Record) {
        if let Some(lease) = &record.defeat.lease
            && let Some(losers) = self.by_lease.get_mut(lease)
        {
            losers.remove(&record.loser());
            if losers.is_empty() {
                self.by_lease.remove(lease);
            }
        }
    }

    /// Takes an acknowledgement in; `record` is the Remove that its record came with.
    pub fn acknowledge(&mut self, loser: OpId, record: OpId, by: OpId, context: &Context) {
        match self.by_loser.get_mut(&loser) {
            Some(known) if known.acknowledged.is_none() => {
                known.acknowledged = Some(by);
                let known = known.clone();
                self.fresh_acks.push(loser);
                self.tell_no_more(&known);
            }
            Some(known) => known.acknowledged = earliest(known.acknowledged, Some(by)),
            // Covered and not here: it has been here and is gone.
            None if context.covers(record) => {}
            None => {
                let ack = self.early_acks.entry(loser).or_insert(EarlyAck { loser, record, by });
                ack.by = ack.by.min(by);
                ack.record = ack.record.min(record);
            }
        }
    }

    /// What a node with this context lacks.
    pub fn unknown_to(&self, receiver: &Context) -> Vec<Record> {
        self.by_loser
            .values()
            .filter(|record| {
                !receiver.covers(record.stamp.id) || record.acknowledged.is_some_and(|by| !receiver.covers(by))
            })
            .cloned()
            .collect()
    }

    pub fn early_acks(&self) -> Vec<EarlyAck> {
        self.early_acks.values().copied().collect()
    }

    /// Takes another node's records in. Those that this context covers and that are not here have been here and are gone.
    pub fn merge(&mut self, records: Vec<Record>, early_acks: Vec<EarlyAck>, context: &Context) {
        for record in records {
            if self.by_loser.contains_key(&record.loser()) || !context.covers(record.stamp.id) {
                self.add(record);
            }
        }
        for EarlyAck { loser, record, by } in early_acks {
            self.acknowledge(loser, record, by, context);
        }
    }

    /// Lets go of what was acknowledged an hour ago.
    pub fn tick(&mut self, now_ms: u64) {
        for loser in self.fresh_acks.drain(..) {
            self.leaving.insert((now_ms + KEPT_ACKNOWLEDGED_MS, loser));
        }
        while let Some((due, loser)) = self.leaving.first().copied()
            && due <= now_ms
        {
            self.leaving.pop_first();
            self.remove(loser);
        }
    }
}

fn earliest(a: Option<OpId>, b: Option<OpId>) -> Option<OpId> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
