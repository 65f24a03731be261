//! Clients that hold names under leases: each creates a lease, registers and joins under it, keeps it alive (through any node), writes to what
//! its names guard while it is certain that it holds them, and then stops keeping the lease alive, revokes it, or gives its names
//! up. One that lets its lease run out writes once more long after that, like a process that was asleep: the token has to stop it.
//!
//! Pure: the same seed, asked the same and told the same at the same times, does the same. Every owner is the lease's own, so that
//! the end of the lease tells whose grants ended.

use std::time::Duration;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::client::{Abilities, Completion};
use super::history::{KeptAlive, LeaseMade, Registered, Unregistered, What};
use crate::model::ident::NodeId;

/// Names that holders compete for at a time.
const NAMES: u64 = 2;
/// These make room for others after so long, so that every history of one name stays short.
const NAMES_LAST: Duration = Duration::from_secs(6);
/// Times-to-live, one of which each lease has; the shortest is the shortest that there may be.
const TTLS_MS: [u64; 4] = [1_000, 1_200, 1_500, 2_500];
/// After a refusal or a failure the same is asked again after this long.
const AGAIN: Duration = Duration::from_millis(280);
const WRITE_PERIOD: Duration = Duration::from_millis(300);
const RENEW_PERIOD: Duration = Duration::from_millis(1_100);
/// How long after its lease may have run out a sleeper wakes and writes; so often, for it has not noticed.
const SLEEP: Duration = Duration::from_millis(1_200);
const WAKES: u32 = 3;
/// Between two lives.
const REST: Duration = Duration::from_millis(150);
/// How long nothing is to be done before the holder is asked again.
const IDLE: Duration = Duration::from_millis(15);
/// What every name of a holder begins with; and every group.
pub const PREFIX: &str = "held-";

/// What a holder does next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// To be answered by one [`learn`](Holder::learn).
    Call {
        what: What,
        node: NodeId,
    },
    /// A write to what the name guards.
    Write {
        name: String,
        owner: String,
        token: String,
    },
    Wait(Duration),
}

/// One such client.
pub struct Holder {
    id: u64,
    home: NodeId,
    nodes: Vec<NodeId>,
    abilities: Abilities,
    chance: Xoshiro256PlusPlus,
    lives: u64,
    life: Option<Life>,
    /// Not before then does the next life begin.
    rest_until: Duration,
    /// Writes of sleepers, by when they wake.
    sleepers: Vec<(Duration, String, String, String)>,
    /// Names and groups of the calls so far.
    used: (Vec<String>, Vec<String>),
}

/// From the creation of one lease to its end.
struct Life {
    lease: String,
    ttl: Duration,
    /// Its creation was answered.
    made: bool,
    /// Until then the lease surely lives.
    certain_until: Duration,
    next_keep: Duration,
    keeps: u64,
    names: Vec<Claim>,
    group: Option<Claim>,
    seen: Vec<String>,
    /// When it stops, and how.
    stops_at: Duration,
    ending: Ending,
}

/// A name or group that is wanted, or held.
struct Claim {
    key: String,
    token: Option<String>,
    next_try: Duration,
    next_write: Duration,
    next_renewal: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    RunOut,
    Revoke,
    /// The names one by one; then the lease runs out with nothing bound to it but a membership.
    GiveUp,
}

impl Holder {
    pub fn new(id: u64, home: NodeId, nodes: Vec<NodeId>, abilities: Abilities, seed: u64) -> Self {
        let chance = Xoshiro256PlusPlus::seed_from_u64(seed ^ (id + 77).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Self {
            id,
            home,
            nodes,
            abilities,
            chance,
            lives: 0,
            life: None,
            rest_until: Duration::ZERO,
            sleepers: Vec::new(),
            used: (Vec::new(), Vec::new()),
        }
    }

    /// Every name and every group of the calls so far.
    pub fn used(&self) -> (&[String], &[String]) {
        (&self.used.0, &self.used.1)
    }

    pub fn next(&mut self, now: Duration) -> Step {
        if let Some(at) = self.sleepers.iter().position(|(wakes, ..)| *wakes <= now) {
            let (_, name, owner, token) = self.sleepers.swap_remove(at);
            return Step::Write { name, owner, token };
        }
        let Some(life) = &self.life else {
            return match self.rest_until <= now {
                true => self.begin(now),
                false => Step::Wait(IDLE),
            };
        };
        if now >= life.stops_at {
            return self.stop(now);
        }
        if now >= life.next_keep {
            return self.keep_alive();
        }
        self.act(now).unwrap_or(Step::Wait(IDLE))
    }

    fn begin(&mut self, now: Duration) -> Step {
        self.lives += 1;
        let lease = format!("lease-{}-{}", self.id, self.lives);
        let ttl_ms = TTLS_MS[self.chance.random_range(0..TTLS_MS.len())];
        let ttl = Duration::from_millis(ttl_ms);
        let epoch = now.as_secs() / NAMES_LAST.as_secs();
        let first = self.chance.random_range(0..NAMES);
        let count = self.chance.random_range(1..=2);
        let names = (0..count).map(|k| format!("{PREFIX}{}-{epoch}", (first + k) % NAMES)).collect::<Vec<_>>();
        let group = self.abilities.groups.then(|| format!("{PREFIX}group-{epoch}"));
        self.used.0.extend(names.iter().cloned());
        self.used.1.extend(group.clone());
        let ending = match self.chance.random_range(0..10) {
            0..6 => Ending::RunOut,
            6..8 => Ending::Revoke,
            _ => Ending::GiveUp,
        };
        self.life = Some(Life {
            lease: lease.clone(),
            ttl,
            made: false,
            certain_until: now,
            next_keep: now + ttl / 4,
            keeps: 0,
            names: names.into_iter().map(Claim::new).collect(),
            group: group.map(Claim::new),
            seen: Vec::new(),
            stops_at: now + ttl + Duration::from_millis(self.chance.random_range(500..3_000)),
            ending,
        });
        Step::Call { what: What::CreateLease { lease, ttl_ms, result: None }, node: self.home }
    }

    fn keep_alive(&mut self) -> Step {
        let life = self.life.as_mut().expect("asked while it lives");
        life.keeps += 1;
        // Through any node: every third time through another one.
        let away = life.keeps.is_multiple_of(3) && self.nodes.len() > 1;
        let node = match away {
            true => self.nodes[self.chance.random_range(0..self.nodes.len())],
            false => self.home,
        };
        let (lease, seen) = (life.lease.clone(), life.seen.clone());
        Step::Call { what: What::KeepAlive { lease, seen, result: None }, node }
    }

    /// Something with one of its names or its group.
    fn act(&mut self, now: Duration) -> Option<Step> {
        let (node, tokens) = (self.home, self.abilities.tokens);
        let life = self.life.as_mut()?;
        let (lease, owner, certain) = (life.lease.clone(), life.lease.clone(), now < life.certain_until);
        for claim in &mut life.names {
            let name = claim.key.clone();
            match &claim.token {
                None if now >= claim.next_try => {
                    return Some(Step::Call {
                        what: What::Register { name, owner, lease: Some(lease), result: None },
                        node,
                    });
                }
                Some(token) if tokens && certain && now >= claim.next_write => {
                    claim.next_write = now + WRITE_PERIOD;
                    return Some(Step::Write { name, owner, token: token.clone() });
                }
                Some(token) if tokens && now >= claim.next_renewal => {
                    claim.next_renewal = now + RENEW_PERIOD;
                    let token = token.clone();
                    return Some(Step::Call {
                        what: What::Renew { name, owner, lease: Some(lease), token, result: None },
                        node,
                    });
                }
                None | Some(_) => {}
            }
        }
        let claim = life.group.as_mut().filter(|claim| claim.token.is_none() && now >= claim.next_try)?;
        let what = What::Join { group: claim.key.clone(), member: owner, lease: Some(lease), result: None };
        Some(Step::Call { what, node })
    }

    fn stop(&mut self, now: Duration) -> Step {
        let node = self.home;
        let life = self.life.as_mut().expect("asked while it lives");
        let lease = life.lease.clone();
        match life.ending {
            Ending::RunOut => {
                let certain_until = life.certain_until;
                let held = life.names.iter().filter_map(|claim| Some((claim.key.clone(), claim.token.clone()?)));
                let wake = |nth: u32| certain_until + SLEEP * nth;
                let asleep = held.flat_map(|(name, token)| {
                    (1..=WAKES).map(|nth| (wake(nth), name.clone(), lease.clone(), token.clone())).collect::<Vec<_>>()
                });
                if self.abilities.tokens {
                    self.sleepers.extend(asleep);
                }
                self.end(now);
                Step::Wait(IDLE)
            }
            Ending::Revoke => {
                self.end(now);
                Step::Call { what: What::Revoke { lease, result: None }, node }
            }
            Ending::GiveUp => {
                match life.names.iter_mut().find_map(|claim| Some((claim.key.clone(), claim.token.take()?))) {
                    Some((name, token)) => {
                        let token = Some(token).filter(|token| !token.is_empty());
                        Step::Call { what: What::Unregister { name, token, result: None }, node }
                    }
                    None => {
                        self.end(now);
                        Step::Wait(IDLE)
                    }
                }
            }
        }
    }

    fn end(&mut self, now: Duration) {
        self.life = None;
        self.rest_until = now + REST;
    }

    /// What became of a call that was sent at `sent`.
    pub fn learn(&mut self, what: &What, completion: &Completion, sent: Duration, now: Duration) {
        let Some(life) = self.life.as_mut() else { return };
        let answer = match completion {
            Completion::Ok(answer) => answer,
            // Perhaps it is granted and nobody knows it: what may be had by now goes with the lease.
            Completion::Info(_) if !matches!(what, What::KeepAlive { .. } | What::Renew { .. }) => {
                return self.end(now);
            }
            Completion::Info(_) | Completion::Fail(_) => {
                life.failed(what, now);
                if !life.made || now > life.certain_until + life.ttl {
                    self.end(now);
                }
                return;
            }
        };
        match answer {
            What::CreateLease { result: Some(LeaseMade::Made), .. } => {
                life.made = true;
                life.certain_until = sent + life.ttl;
            }
            What::CreateLease { .. } => self.end(now),
            What::KeepAlive { result: Some(KeptAlive::Alive { lost, moved }), .. } => {
                life.certain_until = sent + life.ttl;
                life.next_keep = now + life.ttl / 4;
                for record in lost {
                    life.seen.push(record.id.clone());
                    life.names.retain(|claim| claim.token.as_ref() != Some(&record.loser.1));
                }
                if *moved {
                    // The node that keeps it now may not know what was registered.
                    life.names.iter_mut().chain(&mut life.group).for_each(|claim| claim.token = None);
                }
            }
            What::KeepAlive { result: Some(KeptAlive::Unknown), .. } if now < life.certain_until + life.ttl => {
                life.next_keep = now + AGAIN;
            }
            What::KeepAlive { .. } => self.end(now),
            What::Register { name, result: Some(result), .. } => match result {
                Registered::Granted { token } | Registered::Held { token } => life.granted(name, token, now),
                Registered::Taken { .. } | Registered::Stale => life.failed(what, now),
                Registered::NoLease => self.end(now),
            },
            What::Renew { name, result: Some(Registered::Stale | Registered::Taken { .. }), .. } => {
                life.names.retain(|claim| claim.key != *name);
            }
            What::Renew { result: Some(Registered::NoLease), .. } => self.end(now),
            What::Join { result: Some(joined), .. } => match (joined.no_lease, &mut life.group) {
                (true, _) => self.end(now),
                (false, Some(claim)) => claim.token = Some(joined.token.clone()),
                (false, None) => {}
            },
            What::Unregister { result: Some(Unregistered::Now | Unregistered::Before), .. } => {}
            _ => {}
        }
    }
}

impl Life {
    fn failed(&mut self, what: &What, now: Duration) {
        match what {
            What::KeepAlive { .. } => self.next_keep = now + self.ttl / 8,
            What::Register { name, .. } => {
                self.names.iter_mut().filter(|claim| claim.key == *name).for_each(|claim| claim.next_try = now + AGAIN);
            }
            What::Join { .. } => self.group.iter_mut().for_each(|claim| claim.next_try = now + AGAIN),
            _ => {}
        }
    }

    fn granted(&mut self, name: &str, token: &str, now: Duration) {
        for claim in self.names.iter_mut().filter(|claim| claim.key == name) {
            claim.token = Some(token.to_owned());
            claim.next_write = now;
            claim.next_renewal = now + RENEW_PERIOD;
        }
    }
}

impl Claim {
    fn new(key: String) -> Self {
        let (next_try, next_write, next_renewal) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        Self { key, token: None, next_try, next_write, next_renewal }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// A holder whose every call is answered at once, for so many milliseconds; what it did, and when.
    fn lived(ms: u64, answer: impl Fn(&What) -> Completion) -> Vec<(u64, Step)> {
        let mut holder = Holder::new(1, 1, vec![1, 2, 3], Abilities::ALL, 9);
        let (mut at, mut done) = (0, Vec::new());
        while at < ms {
            let now = Duration::from_millis(at);
            let step = holder.next(now);
            match &step {
                Step::Call { what, .. } => {
                    holder.learn(what, &answer(what), now, now);
                    at += 1;
                }
                Step::Write { .. } => {}
                Step::Wait(_) => at += 5,
            }
            done.push((at, step));
        }
        done
    }

    fn granted(what: &What) -> Completion {
        let mut what = what.clone();
        match &mut what {
            What::CreateLease { result, .. } => *result = Some(LeaseMade::Made),
            What::KeepAlive { result, .. } => *result = Some(KeptAlive::Alive { lost: Vec::new(), moved: false }),
            What::Register { result, .. } => *result = Some(Registered::Granted { token: "7".to_owned() }),
            What::Renew { result, .. } => *result = Some(Registered::Held { token: "7".to_owned() }),
            What::Unregister { result, .. } | What::Revoke { result, .. } => *result = Some(Unregistered::Now),
            _ => {}
        }
        Completion::Ok(what)
    }

    #[test]
    fn a_long_life_makes_every_call_of_a_lease() {
        let done = lived(60_000, granted);
        let called = done.iter().filter_map(|(_, step)| match step {
            Step::Call { what, .. } => Some(serde_json::to_value(what).unwrap()["f"].as_str().unwrap().to_owned()),
            _ => None,
        });
        let called = called.collect::<BTreeSet<_>>();
        for f in ["create-lease", "keep-alive", "register", "renew", "join", "revoke", "unregister"] {
            assert!(called.contains(f), "{f} of {called:?}");
        }
        assert!(done.iter().any(|(_, step)| matches!(step, Step::Write { .. })));
    }

    #[test]
    fn a_sleeper_writes_after_its_lease_may_have_run_out() {
        let done = lived(60_000, granted);
        let last_keep = |until: usize, lease: &str| {
            let kept = done[..until].iter().rev().find_map(|(at, step)| match step {
                Step::Call {
                    what: What::KeepAlive { lease: of, .. } | What::CreateLease { lease: of, .. }, ..
                } => (of == lease).then_some(*at),
                _ => None,
            });
            kept.expect("it was created")
        };
        let late = done.iter().enumerate().filter(|(place, (at, step))| match step {
            Step::Write { owner, .. } => *at > last_keep(*place, owner) + 2_500,
            _ => false,
        });
        assert!(late.count() > 3);
    }

    #[test]
    fn no_owner_has_two_leases_and_no_lease_two_owners() {
        let mut pairs = BTreeSet::new();
        for (_, step) in lived(30_000, granted) {
            if let Step::Call { what: What::Register { owner, lease, .. }, .. } = step {
                pairs.insert((owner, lease.unwrap()));
            }
        }
        assert!(pairs.iter().all(|(owner, lease)| owner == lease) && pairs.len() > 5);
    }

    #[test]
    fn a_lease_that_nobody_answers_for_is_given_up() {
        let done = lived(20_000, |what| match what {
            What::KeepAlive { .. } => Completion::Fail("no leader".to_owned()),
            other => granted(other),
        });
        let created = done.iter().filter(|(_, s)| matches!(s, Step::Call { what: What::CreateLease { .. }, .. }));
        assert!(created.count() > 3);
    }
}
