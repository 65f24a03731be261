//! Maps out of bytes whose lengths are not believed (protocol W3): imbl's own decoding takes memory for as many entries as are claimed
//! before it has seen one.

use std::collections::{BTreeMap, BTreeSet};

use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Deserializer};

pub(super) fn map<'de, K, V, D>(from: D) -> Result<OrdMap<K, V>, D::Error>
where
    K: Deserialize<'de> + Ord + Clone,
    V: Deserialize<'de> + Clone,
    D: Deserializer<'de>,
{
    Ok(OrdMap::from_iter(BTreeMap::deserialize(from)?))
}

pub(super) fn map_of_maps<'de, K, L, V, D>(from: D) -> Result<OrdMap<K, OrdMap<L, V>>, D::Error>
where
    K: Deserialize<'de> + Ord + Clone,
    L: Deserialize<'de> + Ord + Clone,
    V: Deserialize<'de> + Clone,
    D: Deserializer<'de>,
{
    let maps = BTreeMap::<K, BTreeMap<L, V>>::deserialize(from)?;
    Ok(maps.into_iter().map(|(key, map)| (key, OrdMap::from_iter(map))).collect())
}

pub(super) fn set<'de, A, D>(from: D) -> Result<OrdSet<A>, D::Error>
where
    A: Deserialize<'de> + Ord + Clone,
    D: Deserializer<'de>,
{
    Ok(OrdSet::from_iter(BTreeSet::deserialize(from)?))
}
