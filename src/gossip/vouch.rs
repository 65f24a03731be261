//! Vouches: each a node's word that a lease is alive. They stand in the [map](super::map) beside the grants, and a grant that is bound
//! to a lease counts while a vouch for it counts (protocol A1).
//!
//! Whether a vouch counts is a local view of the process that gave it, and of the time-to-live: of a process that was last heard a
//! while ago, the vouches for shorter leases are hidden first. So hiding 10,000 of them takes one number, not 10,000 timers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::ident::{CredentialName, LeaseId};

use super::context::{OpId, Run};
use super::operation::{ID_LEN, Stamp};

/// A node's word that a lease is alive, from its operation until a Drop. Nothing of it ever changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vouch {
    pub id: OpId,
    pub hlc: u64,
    pub lease: LeaseId,
    pub ttl_ms: u64,
    /// Who created the lease, and so may keep it alive and revoke it.
    pub credential: Option<CredentialName>,
    /// The stamp of the vouch that created the lease. A node that adopts a lease hands it on: two leases that two sides of a partition
    /// created under one id are told apart by it.
    pub origin: Stamp,
}

impl Vouch {
    pub fn stamp(&self) -> Stamp {
        Stamp { hlc: self.hlc, id: self.id }
    }

    /// Whether both are of one lease, or of two that nobody can tell apart.
    pub fn has_terms_of(&self, other: &Vouch) -> bool {
        self.ttl_ms == other.ttl_ms && self.credential == other.credential
    }

    /// About how many bytes it takes in a message.
    pub fn weight(&self) -> usize {
        self.lease.as_str().len() + self.credential.as_ref().map_or(0, |name| name.as_str().len()) + 3 * ID_LEN
    }
}

/// The vouches that stand, by lease and by the process that gave them.
#[derive(Clone, Debug, Default)]
pub struct Vouches {
    by_lease: BTreeMap<LeaseId, Vec<Arc<Vouch>>>,
    by_run: BTreeMap<Run, Given>,
    /// Of these processes, vouches for a time-to-live up to this one do not count here at present.
    silent: BTreeMap<Run, u64>,
    /// Leases that several vouches stand for.
    contested: BTreeSet<LeaseId>,
}

/// What one process has vouched for.
#[derive(Clone, Debug, Default)]
struct Given {
    by_number: BTreeMap<u64, Arc<Vouch>>,
    by_ttl: BTreeSet<(u64, u64)>,
}

impl Vouches {
    /// No vouches, and the same view of processes.
    pub fn unfilled(&self) -> Self {
        Self { silent: self.silent.clone(), ..Self::default() }
    }

    /// Puts a vouch up, unless it stands.
    pub fn insert(&mut self, vouch: Arc<Vouch>) {
        let OpId { run, number } = vouch.id;
        let given = self.by_run.entry(run).or_default();
        if given.by_number.contains_key(&number) {
            return;
        }
        given.by_number.insert(number, Arc::clone(&vouch));
        given.by_ttl.insert((vouch.ttl_ms, number));
        let standing = self.by_lease.entry(vouch.lease.clone()).or_default();
        standing.push(Arc::clone(&vouch));
        // The order depends on the vouches alone, not on the way in which they came: the latest is the last.
        standing.sort_by_key(|vouch| vouch.stamp());
        if standing.len() > 1 {
            self.contested.insert(vouch.lease.clone());
        }
    }

    /// Takes a vouch down, if it stands.
    pub fn remove(&mut self, id: OpId) -> Option<Arc<Vouch>> {
        let given = self.by_run.get_mut(&id.run)?;
        let vouch = given.by_number.remove(&id.number)?;
        given.by_ttl.remove(&(vouch.ttl_ms, id.number));
        if given.by_number.is_empty() {
            self.by_run.remove(&id.run);
        }
        let standing = self.by_lease.get_mut(&vouch.lease).expect("both indexes hold the same vouches");
        standing.retain(|standing| standing.id != id);
        match standing.len() {
            0 => {
                self.by_lease.remove(&vouch.lease);
            }
            1 => {
                self.contested.remove(&vouch.lease);
            }
            _ => {}
        }
        Some(vouch)
    }

    /// The vouches for a lease, the latest last.
    pub fn of(&self, lease: &LeaseId) -> &[Arc<Vouch>] {
        self.by_lease.get(lease).map_or(&[], |standing| standing)
    }

    pub fn get(&self, id: OpId) -> Option<&Arc<Vouch>> {
        self.by_run.get(&id.run)?.by_number.get(&id.number)
    }

    /// All leases that a vouch stands for, in byte order of their ids.
    pub fn leases(&self) -> &BTreeMap<LeaseId, Vec<Arc<Vouch>>> {
        &self.by_lease
    }

    pub fn contested(&self) -> &BTreeSet<LeaseId> {
        &self.contested
    }

    /// The processes that have vouched for something.
    pub fn runs(&self) -> impl Iterator<Item = Run> + '_ {
        self.by_run.keys().copied()
    }

    pub fn has_run(&self, run: Run) -> bool {
        self.by_run.contains_key(&run)
    }

    /// What one process has vouched for, by number.
    pub fn of_run(&self, run: Run) -> impl Iterator<Item = &Arc<Vouch>> {
        self.by_run.get(&run).into_iter().flat_map(|given| given.by_number.values())
    }

    /// Whether a vouch counts here at present.
    pub fn counts(&self, vouch: &Vouch) -> bool {
        self.silent.get(&vouch.id.run).is_none_or(|upto| vouch.ttl_ms > *upto)
    }

    /// Whether a lease lives here; none: no vouch stands for it.
    pub fn lives(&self, lease: &LeaseId) -> Option<bool> {
        let standing = self.by_lease.get(lease)?;
        Some(standing.iter().any(|vouch| self.counts(vouch)))
    }

    /// Up to which time-to-live the vouches of a process do not count here.
    pub fn silence_of(&self, run: Run) -> Option<u64> {
        self.silent.get(&run).copied()
    }

    /// Lets the vouches of a process count only for a time-to-live above this one; all of them if none. The leases that it is about.
    pub fn set_silence(&mut self, run: Run, upto: Option<u64>) -> Vec<LeaseId> {
        let former = match upto {
            Some(upto) => self.silent.insert(run, upto),
            None => self.silent.remove(&run),
        };
        if former == upto {
            return Vec::new();
        }
        let Some(given) = self.by_run.get(&run) else { return Vec::new() };
        let (less, more) = (former.min(upto), former.max(upto).unwrap_or(0));
        let first = less.map_or(0, |less| less.saturating_add(1));
        let between = given.by_ttl.range((first, 0)..=(more, u64::MAX));
        between.map(|(_, number)| given.by_number[number].lease.clone()).collect()
    }

    /// Forgets the view of processes that have vouched for nothing.
    pub fn forget_idle(&mut self) {
        let by_run = &self.by_run;
        self.silent.retain(|run, _| by_run.contains_key(run));
    }
}
