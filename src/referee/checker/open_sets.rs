//! Sets of open calls that have been taken, each set numbered once.
//!
//! An open call may be left out for ever. So of two ways to the same state with the same returned calls taken, the one that used
//! fewer open calls can do all that the other can: the other need not be looked at. That is what keeps histories with many
//! timed-out calls tractable.

use std::collections::HashMap;

use super::hash::Mixing;

/// The number of a set; the empty one is 0.
pub(super) type OpenSet = u32;
pub(super) const EMPTY: OpenSet = 0;

pub(super) struct OpenSets {
    sets: Vec<Box<[u64]>>,
    number_of: HashMap<Box<[u64]>, OpenSet, Mixing>,
    with: HashMap<(OpenSet, u32), OpenSet, Mixing>,
}

impl OpenSets {
    /// For sets of elements 0..`universe`.
    pub fn new(universe: usize) -> Self {
        let empty: Box<[u64]> = vec![0; universe.div_ceil(64)].into();
        Self { sets: vec![empty.clone()], number_of: HashMap::from_iter([(empty, EMPTY)]), with: HashMap::default() }
    }

    pub fn contains(&self, set: OpenSet, element: u32) -> bool {
        self.sets[set as usize][element as usize / 64] & (1 << (element % 64)) != 0
    }

    /// `set` and `element`.
    pub fn with(&mut self, set: OpenSet, element: u32) -> OpenSet {
        if let Some(&number) = self.with.get(&(set, element)) {
            return number;
        }
        let mut larger = self.sets[set as usize].clone();
        larger[element as usize / 64] |= 1 << (element % 64);
        let number = match self.number_of.get(&larger) {
            Some(&number) => number,
            None => {
                let number = self.sets.len() as OpenSet;
                self.sets.push(larger.clone());
                self.number_of.insert(larger, number);
                number
            }
        };
        self.with.insert((set, element), number);
        number
    }

    /// Whether all of `small` is in `large`.
    pub fn is_subset(&self, small: OpenSet, large: OpenSet) -> bool {
        small == large
            || small == EMPTY
            || self.sets[small as usize].iter().zip(&self.sets[large as usize]).all(|(s, l)| s & !l == 0)
    }
}

/// For each key the smallest sets that it was reached with, none a subset of another's.
pub(super) struct Smallest<K> {
    first: HashMap<K, u32, Mixing>,
    links: Vec<Link>,
}

struct Link {
    set: OpenSet,
    next: u32,
}

const END: u32 = u32::MAX;

impl<K: Eq + std::hash::Hash + Copy> Smallest<K> {
    pub fn new() -> Self {
        Self { first: HashMap::default(), links: Vec::new() }
    }

    pub fn clear(&mut self) {
        self.first.clear();
        self.links.clear();
    }

    /// How many sets have been kept since the last [`clear`](Self::clear).
    pub fn len(&self) -> usize {
        self.links.len()
    }

    /// Whether `key` is new with `set`: not reached before with a subset of it. Sets that `set` is a subset of are forgotten.
    pub fn insert(&mut self, sets: &OpenSets, key: K, set: OpenSet) -> bool {
        let fresh = self.links.len() as u32;
        let first = match self.first.entry(key) {
            std::collections::hash_map::Entry::Vacant(vacant) => {
                vacant.insert(fresh);
                self.links.push(Link { set, next: END });
                return true;
            }
            std::collections::hash_map::Entry::Occupied(occupied) => occupied.into_mut(),
        };
        let mut at = *first;
        while at != END {
            if sets.is_subset(self.links[at as usize].set, set) {
                return false;
            }
            at = self.links[at as usize].next;
        }
        let (mut at, mut previous) = (*first, END);
        while at != END {
            let next = self.links[at as usize].next;
            if sets.is_subset(set, self.links[at as usize].set) {
                match previous {
                    END => *first = next,
                    previous => self.links[previous as usize].next = next,
                }
            } else {
                previous = at;
            }
            at = next;
        }
        self.links.push(Link { set, next: *first });
        *first = fresh;
        true
    }

    /// Calls `visit` with every key and each of its sets.
    pub fn for_each(&self, mut visit: impl FnMut(K, OpenSet)) {
        for (&key, &first) in &self.first {
            let mut at = first;
            while at != END {
                let link = &self.links[at as usize];
                visit(key, link.set);
                at = link.next;
            }
        }
    }

    /// The least set kept for `key` is still `set`, or one that `set` is a superset of was found since.
    pub fn holds(&self, key: K, set: OpenSet) -> bool {
        let mut at = self.first.get(&key).copied().unwrap_or(END);
        while at != END {
            let link = &self.links[at as usize];
            if link.set == set {
                return true;
            }
            at = link.next;
        }
        false
    }
}
