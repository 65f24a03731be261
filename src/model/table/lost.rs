//! What the keepers of leases have lost to others, until they have seen it.

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::Table;
use crate::model::conflict::{ConflictRecord, Contender};
use crate::model::entry::{Entry, Holder};
use crate::model::ident::{RecordId, Token};
use crate::model::step::LostKey;
use crate::model::time::UnixMillis;

/// How many records are kept for one lease; the oldest go first.
pub const LOST_PER_LEASE_MAX: usize = 100;

/// Records of grants that were taken or handed over while their lease lived.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lost {
    #[serde(deserialize_with = "super::decode::map")]
    records: OrdMap<LostKey, ConflictRecord>,
}

impl Lost {
    /// Of one lease, oldest first.
    pub fn of(&self, lease: u64) -> impl Iterator<Item = (&LostKey, &ConflictRecord)> {
        self.records.range(LostKey { lease, token: 0 }..=LostKey { lease, token: u64::MAX })
    }

    pub fn forget(&mut self, key: LostKey) {
        self.records.remove(&key);
    }

    pub fn forget_lease(&mut self, lease: u64) {
        let keys = self.of(lease).map(|(key, _)| *key).collect::<Vec<_>>();
        keys.iter().for_each(|key| self.forget(*key));
    }

    fn note(&mut self, key: LostKey, record: ConflictRecord) {
        if self.of(key.lease).count() == LOST_PER_LEASE_MAX {
            let oldest = self.of(key.lease).next().map(|(key, _)| *key).expect("there are many");
            self.forget(oldest);
        }
        self.records.insert(key, record);
    }
}

impl LostKey {
    /// The record's id: the same on every node, and never another record's.
    pub fn id(&self) -> RecordId {
        format!("{}-{}", self.lease, self.token).parse().expect("digits and a dash make an id")
    }

    /// Which record an id names. None: none of this mode's.
    pub fn parse(id: &RecordId) -> Option<Self> {
        let text = id.to_string();
        let (lease, token) = text.split_once('-')?;
        let key = Self { lease: lease.parse().ok()?, token: token.parse().ok()? };
        // One record has one id: `parse` alone would let signs and leading zeros through.
        (key.id() == *id).then_some(key)
    }
}

impl Table {
    /// What the keeper of this lease has lost and not yet seen, oldest first.
    pub fn lost(&self, lease: u64) -> Vec<ConflictRecord> {
        self.lost.of(lease).map(|(_, record)| record.clone()).collect()
    }

    /// Whether that record is still to be seen.
    pub fn has_lost(&self, key: LostKey) -> bool {
        self.lost.records.contains_key(&key)
    }

    /// Notes that a grant bound to a lease has lost its name to another owner or lease.
    pub(super) fn note_lost(&mut self, loser: &Entry, winner: &Entry, at: UnixMillis) {
        let (Some(lease), Holder::Owner(name, _), Token::Cp(token)) = (&loser.lease, &loser.holder, loser.token) else {
            return;
        };
        let Some(lease) = self.leases.number(lease) else { return };
        let key = LostKey { lease, token };
        let (loser, winner) = (contender(loser), contender(winner));
        let record = ConflictRecord { id: key.id(), name: name.clone(), loser, winner, at, acknowledged: false };
        self.lost.note(key, record);
    }
}

fn contender(entry: &Entry) -> Contender {
    let owner = entry.holder_text().parse().expect("the owner of a name");
    Contender { owner, token: entry.token, node: entry.node }
}
