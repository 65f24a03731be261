//! The planned part of the workload, made for the faults of the schedule; each call is for one node and one time.
//!
//! *Contested names* are fresh names that both sides of a partition register as it begins, look at while it lasts and after it,
//! and otherwise leave alone; every second one under a lease that is kept alive beyond the fault, so that its owner can be told what it lost. *Kept names* are registered before a fault; during it one is given up on the smaller side, one on
//! the larger, one not at all; none is ever registered again, so that whatever returns was resurrected and whatever goes was lost.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::client::{Abilities, Completion};
use super::history::{KeptAlive, Registered, Side, What};
use super::schedule::Fault;
use super::situation::Situation;
use crate::model::ident::NodeId;

/// Contested names of each partition, and kept names of each fault.
const CONTESTED: usize = 4;
const KEPT: usize = 3;
/// Every second contested name is registered under a lease, which is kept alive until so long after the fault.
const LEASE_TTL_MS: u64 = 3_000;
const KEEP_PERIOD: Duration = Duration::from_millis(600);
const KEPT_AFTER: Duration = Duration::from_millis(3_000);
/// The lease of a name that each node's client keeps alive as a fault begins.
const LEASH_TTL_MS: u64 = 1_000;
const LEASH_PERIOD: Duration = Duration::from_millis(250);
const LEASH_LASTS: Duration = Duration::from_millis(4_000);
/// A call that surely had no effect is made anew (with a new owner) after this long.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Calls on a fault that lasts are planned for so long.
const LASTING: Duration = Duration::from_secs(3);
/// Unknown outcomes after which a side gives a contested name up.
const UNKNOWN_MAX: u32 = 1;

/// The planned calls. All times are since the run began.
pub struct Contest {
    nodes: Vec<NodeId>,
    due: BTreeMap<NodeId, Vec<Planned>>,
    /// Tokens of the kept names.
    tokens: BTreeMap<String, String>,
    /// Contested names by fault, with the two nodes that register them.
    contested: BTreeMap<u64, Vec<(String, [NodeId; 2])>>,
    kept: BTreeMap<u64, Vec<String>>,
    owners_made: u64,
    used: BTreeSet<String>,
    abilities: Abilities,
    /// What each lease was told that it lost, to be acknowledged.
    seen: BTreeMap<String, Vec<String>>,
}

/// One planned call.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    pub what: What,
    at: Duration,
    /// Not made (again) later than this.
    until: Duration,
    unknown: u32,
}

/// When a fault will be, as far as it is known before it fires.
#[derive(Clone, Copy, Debug)]
pub struct Ahead {
    pub id: u64,
    pub at: Duration,
    /// Since when nothing has been in force by then.
    pub calm_since: Duration,
}

impl Contest {
    pub fn new(nodes: Vec<NodeId>, abilities: Abilities, ahead: &[Ahead]) -> Self {
        let mut contest = Self {
            nodes,
            due: BTreeMap::new(),
            tokens: BTreeMap::new(),
            contested: BTreeMap::new(),
            kept: BTreeMap::new(),
            owners_made: 0,
            used: BTreeSet::new(),
            abilities,
            seen: BTreeMap::new(),
        };
        for fault in ahead {
            let before = (fault.at.saturating_sub(fault.calm_since) / 2).min(Duration::from_millis(1_200));
            let names = (0..KEPT).map(|k| format!("kept-{}-{}", fault.id, letter(k))).collect::<Vec<_>>();
            for (k, name) in names.iter().enumerate() {
                let node = contest.nodes[(fault.id as usize + k) % contest.nodes.len()];
                let until = fault.at.saturating_sub(before / 3);
                contest.register(node, name, fault.at - before, until);
            }
            contest.kept.insert(fault.id, names);
            if abilities.leases {
                for node in contest.nodes.clone() {
                    contest.keep_through(fault.id, node, fault.at - before);
                }
            }
        }
        contest
    }

    /// Every name of the calls so far.
    pub fn used(&self) -> &BTreeSet<String> {
        &self.used
    }

    /// A fault is in force.
    pub fn began(&mut self, fault: &Fault, situation: &Situation, now: Duration) {
        let on = |wanted: Side| self.nodes.iter().copied().filter(move |node| situation.side(*node) == wanted);
        let (few, many) = (on(Side::Minority).collect::<Vec<_>>(), on(Side::Majority).collect::<Vec<_>>());
        let end = fault.until_ms.map_or(now + LASTING, Duration::from_millis).max(now);
        let last = end.saturating_sub(AGAIN_AFTER).max(now);
        let part = |percent: u32| now + (end - now) * percent / 100;
        if let (Some(_), Some(_)) = (few.first(), many.first()) {
            for k in 0..CONTESTED {
                let name = format!("contested-{}-{}", fault.id, letter(k));
                let pair = [few[k % few.len()], many[k % many.len()]];
                for node in pair {
                    let at = now + Duration::from_millis(50) * k as u32;
                    match k % 2 == 1 && self.abilities.leases {
                        true => self.register_under_lease(node, &name, at, last, end),
                        false => self.register(node, &name, at, last),
                    }
                    self.look(node, &name, part(45));
                    self.look(node, &name, part(80));
                }
                self.contested.entry(fault.id).or_default().push((name, pair));
            }
        }
        let enders = [few.first().or(many.last()), many.first()];
        for (name, node) in self.kept.get(&fault.id).cloned().unwrap_or_default().into_iter().zip(enders) {
            if let (Some(node), Some(token)) = (node, self.tokens.get(&name)) {
                let what = What::Unregister { name, token: Some(token.clone()), result: None };
                self.plan(*node, what, part(30), last);
            }
        }
    }

    /// Nothing is in force any more of that fault.
    pub fn ended(&mut self, fault: &Fault, now: Duration) {
        for (name, pair) in self.contested.get(&fault.id).cloned().unwrap_or_default() {
            for node in pair {
                self.look(node, &name, now + Duration::from_millis(1_000));
                self.look(node, &name, now + Duration::from_millis(2_000));
            }
        }
        for (k, name) in self.kept.get(&fault.id).cloned().unwrap_or_default().into_iter().enumerate() {
            let node = self.nodes[k % self.nodes.len()];
            self.look(node, &name, now + Duration::from_millis(1_500));
        }
    }

    /// A planned call of a node whose time has come. Each is to be answered by one [`learn`](Self::learn).
    pub fn next(&mut self, node: NodeId, now: Duration) -> Option<Planned> {
        let due = self.due.get_mut(&node)?;
        due.retain(|planned| planned.until >= now);
        let first = (0..due.len()).filter(|at| due[*at].at <= now).min_by_key(|at| due[*at].at)?;
        let mut planned = due.remove(first);
        if let What::KeepAlive { lease, seen, .. } = &mut planned.what {
            seen.extend(self.seen.get(lease).into_iter().flatten().cloned());
        }
        if let What::Register { name, .. } | What::Whereis { name, .. } | What::Unregister { name, .. } = &planned.what
        {
            self.used.insert(name.clone());
        }
        Some(planned)
    }

    /// What became of a planned call.
    pub fn learn(&mut self, node: NodeId, planned: Planned, completion: &Completion, now: Duration) {
        let again = now + AGAIN_AFTER;
        match (planned.what, completion) {
            (_, Completion::Ok(What::Register { name, result: Some(Registered::Granted { token }), .. })) => {
                self.tokens.insert(name.clone(), token.clone());
            }
            (
                What::KeepAlive { lease, .. },
                Completion::Ok(What::KeepAlive { result: Some(KeptAlive::Alive { lost, .. }), .. }),
            ) => {
                self.seen.entry(lease).or_default().extend(lost.iter().map(|record| record.id.clone()));
            }
            (what @ What::CreateLease { .. }, Completion::Fail(_)) => {
                self.plan_after(node, what, again, planned.until, planned.unknown);
            }
            (
                What::Register { name, lease: lease @ Some(_), .. },
                Completion::Fail(_) | Completion::Ok(What::Register { result: Some(Registered::NoLease), .. }),
            ) => {
                let what = self.registration(node, &name, lease);
                self.plan_after(node, what, again, planned.until, planned.unknown);
            }
            // One lease, one owner: it is not tried anew by another.
            (What::Register { lease: Some(_), .. }, Completion::Info(_)) => {}
            (What::Register { name, .. }, Completion::Fail(_)) => {
                let what = self.registration(node, &name, None);
                self.plan_after(node, what, again, planned.until, planned.unknown);
            }
            // Another owner, so that it shows which of the two it was that went through.
            (What::Register { name, .. }, Completion::Info(_)) if planned.unknown < UNKNOWN_MAX => {
                let what = self.registration(node, &name, None);
                self.plan_after(node, what, again, planned.until, planned.unknown + 1);
            }
            (what @ What::Unregister { .. }, Completion::Fail(_)) => {
                self.plan_after(node, what, again, planned.until, planned.unknown);
            }
            _ => {}
        }
    }

    fn register(&mut self, node: NodeId, name: &str, at: Duration, until: Duration) {
        let what = self.registration(node, name, None);
        self.plan(node, what, at, until);
    }

    /// The same under a lease that is kept alive until some time after the fault, so that its owner can be told what it lost.
    fn register_under_lease(&mut self, node: NodeId, name: &str, at: Duration, until: Duration, healed: Duration) {
        let lease = format!("lease-{name}-{node}");
        let create = What::CreateLease { lease: lease.clone(), ttl_ms: LEASE_TTL_MS, result: None };
        self.plan(node, create, at, until);
        let what = self.registration(node, name, Some(lease.clone()));
        self.plan(node, what, at + Duration::from_millis(1), until);
        let mut keep_at = at + KEEP_PERIOD;
        while keep_at < healed + KEPT_AFTER {
            let what = What::KeepAlive { lease: lease.clone(), seen: Vec::new(), result: None };
            self.plan(node, what, keep_at, keep_at + KEEP_PERIOD);
            keep_at += KEEP_PERIOD;
        }
    }

    /// One name of each node under a short lease that is kept alive there from before the fault until some way into it, whatever the answers:
    /// so that a node which promises what it cannot keep has somebody to promise it to.
    fn keep_through(&mut self, fault: u64, node: NodeId, at: Duration) {
        let (name, lease) = (format!("leashed-{fault}-{node}"), format!("lease-leashed-{fault}-{node}"));
        let until = at + LEASH_LASTS;
        let create = What::CreateLease { lease: lease.clone(), ttl_ms: LEASH_TTL_MS, result: None };
        self.plan(node, create, at, at + LEASH_PERIOD);
        let what = self.registration(node, &name, Some(lease.clone()));
        self.plan(node, what, at + Duration::from_millis(1), at + LEASH_PERIOD);
        let mut keep_at = at + LEASH_PERIOD;
        while keep_at < until {
            let what = What::KeepAlive { lease: lease.clone(), seen: Vec::new(), result: None };
            self.plan(node, what, keep_at, keep_at + LEASH_PERIOD);
            keep_at += LEASH_PERIOD;
        }
    }

    fn registration(&mut self, node: NodeId, name: &str, lease: Option<String>) -> What {
        self.owners_made += 1;
        // Under a lease the same one again: the end of the lease has to tell whose grant ended.
        let owner = lease.clone().unwrap_or_else(|| format!("at-{node}-{}", self.owners_made));
        What::Register { name: name.to_owned(), owner, lease, result: None }
    }

    fn look(&mut self, node: NodeId, name: &str, at: Duration) {
        let what = What::Whereis { name: name.to_owned(), result: None };
        self.plan(node, what, at, at + Duration::from_secs(2));
    }

    fn plan(&mut self, node: NodeId, what: What, at: Duration, until: Duration) {
        self.plan_after(node, what, at, until, 0);
    }

    fn plan_after(&mut self, node: NodeId, what: What, at: Duration, until: Duration, unknown: u32) {
        self.due.entry(node).or_default().push(Planned { what, at, until, unknown });
    }
}

fn letter(k: usize) -> char {
    char::from(b'a' + u8::try_from(k).unwrap_or(25).min(25))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::referee::kinds::FaultKind;
    use crate::referee::schedule::Harm;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn cut() -> (Fault, Situation) {
        let links = [1, 2].into_iter().flat_map(|a| [3, 4, 5].into_iter().flat_map(move |b| [(a, b), (b, a)]));
        let harm = Harm::Cut { links: links.collect() };
        let fault = Fault { id: 1, group: 1, kind: FaultKind::Halves, at_ms: 2_500, until_ms: Some(7_000), harm };
        let mut situation = Situation::new(vec![1, 2, 3, 4, 5]);
        situation.begin(&fault);
        (fault, situation)
    }

    fn contest() -> Contest {
        Contest::new(vec![1, 2, 3, 4, 5], Abilities::NAMES, &[Ahead { id: 1, at: ms(2_500), calm_since: ms(0) }])
    }

    fn made_until(contest: &mut Contest, now: Duration) -> Vec<(NodeId, Planned)> {
        let mut made = Vec::new();
        for node in 1..=5 {
            while let Some(planned) = contest.next(node, now) {
                made.push((node, planned));
            }
        }
        made
    }

    #[test]
    fn both_sides_register_each_contested_name_within_the_first_second() {
        let (fault, situation) = cut();
        let mut contest = contest();
        made_until(&mut contest, ms(2_400));
        contest.began(&fault, &situation, ms(2_520));
        let mut sides = BTreeMap::<String, Vec<Side>>::new();
        let mut owners = BTreeSet::new();
        for (node, planned) in made_until(&mut contest, ms(3_500)) {
            if let What::Register { name, owner, .. } = planned.what {
                sides.entry(name).or_default().push(situation.side(node));
                assert!(owners.insert(owner));
            }
        }
        assert_eq!(sides.len(), CONTESTED);
        for side in sides.values_mut() {
            side.sort();
            assert_eq!(*side, [Side::Majority, Side::Minority]);
        }
    }

    #[test]
    fn a_refused_registration_is_tried_anew_by_another_owner_until_the_fault_ends() {
        let (fault, situation) = cut();
        let mut contest = contest();
        contest.began(&fault, &situation, ms(2_520));
        let first = contest.next(3, ms(2_520)).unwrap();
        contest.learn(3, first.clone(), &Completion::Fail("no leader".to_owned()), ms(3_000));
        let second = std::iter::from_fn(|| contest.next(3, ms(3_500))).find(|p| p.what != first.what).unwrap();
        let (What::Register { owner: one, .. }, What::Register { owner: other, .. }) = (&first.what, &second.what)
        else {
            panic!("{first:?} {second:?}");
        };
        assert_ne!(one, other);
        contest.learn(3, second, &Completion::Fail("no leader".to_owned()), ms(6_900));
        let late = std::iter::from_fn(|| contest.next(3, ms(8_000))).find(|p| matches!(p.what, What::Register { .. }));
        assert_eq!(late, None);
    }

    #[test]
    fn kept_names_are_registered_before_and_two_of_three_given_up_during_the_fault() {
        let (fault, situation) = cut();
        let mut contest = contest();
        for (node, planned) in made_until(&mut contest, ms(1_400)) {
            let What::Register { name, owner, .. } = planned.what.clone() else { panic!("{planned:?}") };
            let result = Some(Registered::Granted { token: format!("{name}'s") });
            contest.learn(
                node,
                planned,
                &Completion::Ok(What::Register { name, owner, lease: None, result }),
                ms(1_420),
            );
        }
        contest.began(&fault, &situation, ms(2_520));
        let mut ended = Vec::new();
        for (node, planned) in made_until(&mut contest, ms(4_100)) {
            if let What::Unregister { name, token, .. } = planned.what {
                assert_eq!(token, Some(format!("{name}'s")));
                ended.push((name, situation.side(node)));
            }
        }
        ended.sort();
        let expected = [("kept-1-a".to_owned(), Side::Minority), ("kept-1-b".to_owned(), Side::Majority)];
        assert_eq!(ended, expected);
    }
}
