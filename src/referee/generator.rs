//! The random part of the workload: calls on a small pool of names and groups. A key that has had its share of calls, or too many
//! whose outcome is unknown, makes room for a new one, so that every history of one key stays short enough to be judged.
//!
//! The same seed, asked the same and told the same, makes the same calls.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::IteratorRandom;
use rand::{RngExt, SeedableRng};

use super::client::{Abilities, Completion};
use super::history::{Joined, Key, What};

/// Names in the pool at a time.
const NAMES: usize = 12;
/// Groups in the pool at a time.
const GROUPS: usize = 3;
/// Who may join a group: few enough that joins and leaves of one member meet.
const MEMBERS: u32 = 12;
/// Calls that a key gets before it retires.
const NAME_CALLS_MAX: u32 = 60;
const GROUP_CALLS_MAX: u32 = 150;
/// Unknown outcomes after which a key retires: each stays open to the end of the history, and doubles the search at worst.
const UNKNOWN_MAX: u32 = 3;
/// Calls on one key under way at once.
const OPEN_MAX: u32 = 10;

/// Makes the calls.
pub struct Generator {
    chance: Xoshiro256PlusPlus,
    abilities: Abilities,
    names: Vec<Live>,
    groups: Vec<Live>,
    names_made: u64,
    groups_made: u64,
    owners_made: u64,
    /// Last calls on names that have retired.
    farewells: VecDeque<What>,
    names_used: BTreeSet<String>,
    groups_used: BTreeSet<String>,
}

/// A key in the pool.
struct Live {
    key: String,
    calls: u32,
    unknown: u32,
    open: u32,
    /// The last token that was granted for it, by member (names: under the empty text).
    tokens: BTreeMap<String, String>,
}

impl Generator {
    pub fn new(seed: u64, abilities: Abilities) -> Self {
        let mut generator = Self {
            chance: Xoshiro256PlusPlus::seed_from_u64(seed),
            abilities,
            names: Vec::new(),
            groups: Vec::new(),
            names_made: 0,
            groups_made: 0,
            owners_made: 0,
            farewells: VecDeque::new(),
            names_used: BTreeSet::new(),
            groups_used: BTreeSet::new(),
        };
        for _ in 0..NAMES {
            let name = generator.new_name();
            generator.names.push(name);
        }
        for _ in 0..GROUPS {
            let group = generator.new_group();
            generator.groups.push(group);
        }
        generator
    }

    /// Every name and every group of the calls so far.
    pub fn used(&self) -> (&BTreeSet<String>, &BTreeSet<String>) {
        (&self.names_used, &self.groups_used)
    }

    /// The next call. Each is to be answered by one [`learn`](Self::learn).
    pub fn next_call(&mut self) -> What {
        if let Some(what) = self.farewells.pop_front() {
            return what;
        }
        let about_name = match (self.abilities.names, self.abilities.groups) {
            (true, true) => self.chance.random_ratio(4, 5),
            (names, _) => names,
        };
        let what = if about_name { self.name_call() } else { self.group_call() };
        match what.key() {
            Key::Name(name) => self.names_used.insert(name.to_owned()),
            Key::Group(group) => self.groups_used.insert(group.to_owned()),
            Key::Other => false,
        };
        what
    }

    /// What became of a call.
    pub fn learn(&mut self, what: &What, completion: &Completion) {
        let (pool, key) = match what.key() {
            Key::Name(name) => (&mut self.names, name),
            Key::Group(group) => (&mut self.groups, group),
            Key::Other => return,
        };
        // Those that have retired are forgotten.
        let Some(live) = pool.iter_mut().find(|live| live.key == key) else { return };
        live.open = live.open.saturating_sub(1);
        match completion {
            Completion::Info(_) => live.unknown += 1,
            Completion::Fail(_) => {}
            Completion::Ok(What::Register { result: Some(result), .. }) => {
                if let Some(token) = result.token() {
                    live.tokens.insert(String::new(), token.to_owned());
                }
            }
            Completion::Ok(What::Join { member, result: Some(Joined { token, .. }), .. }) if !token.is_empty() => {
                live.tokens.insert(member.clone(), token.clone());
            }
            Completion::Ok(_) => {}
        }
    }

    fn name_call(&mut self) -> What {
        let at = self.pick(Pool::Names);
        let name = self.names[at].key.clone();
        let token = self.names[at].tokens.get("").cloned();
        match self.chance.random_range(0..100) {
            0..36 => {
                self.owners_made += 1;
                What::Register { name, owner: format!("o{}", self.owners_made), lease: None, result: None }
            }
            36..54 if token.is_some() => What::Unregister { name, token, result: None },
            36..60 => What::Unregister { name, token: None, result: None },
            _ => What::Whereis { name, result: None },
        }
    }

    fn group_call(&mut self) -> What {
        let at = self.pick(Pool::Groups);
        let group = self.groups[at].key.clone();
        let member = format!("m{}", self.chance.random_range(1..=MEMBERS));
        let token = self.groups[at].tokens.get(&member).cloned();
        match self.chance.random_range(0..100) {
            0..38 => What::Join { group, member, lease: None, result: None },
            38..52 if token.is_some() => What::Leave { group, member, token, result: None },
            38..60 => What::Leave { group, member, token: None, result: None },
            _ => What::Members { group, result: None },
        }
    }

    /// A key of the pool for one more call; a worn one makes room first.
    fn pick(&mut self, pool: Pool) -> usize {
        let (keys, calls_max) = match pool {
            Pool::Names => (&self.names, NAME_CALLS_MAX),
            Pool::Groups => (&self.groups, GROUP_CALLS_MAX),
        };
        let free = (0..keys.len()).filter(|at| keys[*at].open < OPEN_MAX).choose(&mut self.chance);
        let free = free.map(|at| (at, keys[at].calls >= calls_max || keys[at].unknown >= UNKNOWN_MAX));
        // All are busy: another key for good, with the pool one larger.
        let (at, worn) = free.unwrap_or((keys.len(), true));
        if worn {
            self.replace(pool, at);
        }
        let keys = match pool {
            Pool::Names => &mut self.names,
            Pool::Groups => &mut self.groups,
        };
        keys[at].calls += 1;
        keys[at].open += 1;
        at
    }

    fn replace(&mut self, pool: Pool, at: usize) {
        let fresh = match pool {
            Pool::Names => self.new_name(),
            Pool::Groups => self.new_group(),
        };
        let keys = match pool {
            Pool::Names => &mut self.names,
            Pool::Groups => &mut self.groups,
        };
        if at == keys.len() {
            keys.push(fresh);
            return;
        }
        let old = std::mem::replace(&mut keys[at], fresh);
        // Most names are given up as they retire, so that views stay small; the others are there to be lost.
        if matches!(pool, Pool::Names) && self.chance.random_ratio(2, 3) {
            let token = old.tokens.get("").cloned();
            self.farewells.push_back(What::Unregister { name: old.key, token, result: None });
        }
    }

    fn new_name(&mut self) -> Live {
        self.names_made += 1;
        Live::new(format!("name-{}", self.names_made))
    }

    fn new_group(&mut self) -> Live {
        self.groups_made += 1;
        Live::new(format!("group-{}", self.groups_made))
    }
}

impl Live {
    fn new(key: String) -> Self {
        Self { key, calls: 0, unknown: 0, open: 0, tokens: BTreeMap::new() }
    }
}

#[derive(Clone, Copy)]
enum Pool {
    Names,
    Groups,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::referee::history::Registered;

    /// Answers everything with one fixed completion kind.
    fn run(seed: u64, calls: usize, answer: impl Fn(&What) -> Completion) -> (Vec<What>, Generator) {
        let mut generator = Generator::new(seed, Abilities::ALL);
        let made = (0..calls).map(|_| {
            let what = generator.next_call();
            generator.learn(&what, &answer(&what));
            what
        });
        (made.collect(), generator)
    }

    fn granted(what: &What) -> Completion {
        let mut what = what.clone();
        if let What::Register { result, .. } = &mut what {
            *result = Some(Registered::Granted { token: "7".to_owned() });
        }
        Completion::Ok(what)
    }

    #[test]
    fn one_seed_makes_one_workload() {
        assert_eq!(run(1, 2_000, granted).0, run(1, 2_000, granted).0);
        assert_ne!(run(1, 2_000, granted).0, run(2, 2_000, granted).0);
    }

    #[test]
    fn what_a_system_cannot_do_is_not_asked_of_it() {
        let mut generator = Generator::new(7, Abilities::NAMES);
        assert!((0..1_000).all(|_| matches!(generator.next_call().key(), Key::Name(_))));
    }

    #[test]
    fn no_two_registrations_share_an_owner() {
        let (calls, _) = run(3, 5_000, granted);
        let owners = calls.iter().filter_map(|what| match what {
            What::Register { owner, .. } => Some(owner),
            _ => None,
        });
        let owners = owners.collect::<Vec<_>>();
        assert_eq!(owners.iter().collect::<BTreeSet<_>>().len(), owners.len());
    }

    #[test]
    fn every_kind_of_call_is_made() {
        let (calls, _) = run(4, 2_000, granted);
        let bare = |what: &What| matches!(what, What::Unregister { token: None, .. });
        let by_token = |what: &What| matches!(what, What::Unregister { token: Some(_), .. });
        assert!(calls.iter().any(bare) && calls.iter().any(by_token));
        for word in ["register", "unregister", "whereis", "join", "leave", "members"] {
            let made = |what: &What| serde_json::to_value(what).unwrap()["f"] == word;
            assert!(calls.iter().filter(|what| made(what)).count() > 50, "{word}");
        }
    }

    #[test]
    fn a_name_with_too_many_unknown_outcomes_retires() {
        let (calls, generator) = run(5, 3_000, |_| Completion::Info("timeout".to_owned()));
        let mut per_name = BTreeMap::new();
        for what in &calls {
            if let Key::Name(name) = what.key() {
                *per_name.entry(name).or_insert(0) += 1;
            }
        }
        // Its three, and the farewell.
        assert!(per_name.values().all(|calls| *calls <= 4), "{per_name:?}");
        assert_eq!(per_name.len(), generator.used().0.len());
    }

    #[test]
    fn at_most_ten_calls_on_one_key_are_under_way() {
        let mut generator = Generator::new(6, Abilities::ALL);
        let mut open = BTreeMap::new();
        for _ in 0..1_000 {
            let what = generator.next_call();
            *open.entry(format!("{:?}", what.key())).or_insert(0) += 1;
        }
        assert!(open.values().all(|calls| *calls <= OPEN_MAX), "{open:?}");
    }
}
