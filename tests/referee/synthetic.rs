//! A seeded comparison without processes: two idealised registries under one schedule, to try the report on.

use std::collections::{BTreeMap, BTreeSet};

use quorate::referee::history::Side::{self, Majority, Minority, Stopped, Whole};
use quorate::referee::history::{Conflict, Installed, Joined, Kind, Registered, Unregistered, What};
use quorate::referee::report::data::{Fact, Run, RunSet, Skipped};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::logs::{AP, CP, Log, PLAIN, between, members, record, whereis};

const NODES: [u64; 5] = [1, 2, 3, 4, 5];
const END_MS: f64 = 26_000.0;
/// No write after this: what is left is the final reads.
const QUIET_MS: f64 = 22_000.0;
const DEADLINE_MS: f64 = 1_000.0;
/// `cp`: until the majority has a leader again.
const ELECTION_MS: f64 = 900.0;
/// `ap`: from the heal until all have heard all.
const SPREAD_MS: f64 = 420.0;

struct Planned {
    kind: &'static str,
    from: f64,
    to: f64,
    minority: Vec<u64>,
    stopped: Vec<u64>,
}

fn plan() -> Vec<Planned> {
    vec![
        Planned { kind: "halves", from: 3_000.0, to: 7_000.0, minority: vec![1, 2], stopped: vec![] },
        Planned { kind: "halves", from: 9_000.0, to: 13_000.0, minority: vec![4, 5], stopped: vec![] },
        Planned { kind: "kill", from: 15_000.0, to: 17_000.0, minority: vec![], stopped: vec![2] },
        Planned { kind: "pause", from: 18_500.0, to: 20_500.0, minority: vec![], stopped: vec![1] },
    ]
}

/// The whole comparison. The same seed makes the same one.
pub fn comparison(seed: u64) -> RunSet {
    let mut runs: Vec<Run> = [("cp", CP), ("ap", AP)]
        .into_iter()
        .map(|(system, promises)| {
            let mut run = World::new(seed, system == "cp").play().run(system, promises);
            run.abilities = PLAIN;
            run.required = ["halves", "kill", "pause"].map(str::to_owned).to_vec();
            run.facts = vec![Fact::new("Nodes", "5 processes on 127.0.0.1"), Fact::new("Restarts", "1")];
            run
        })
        .collect();
    runs.iter_mut().for_each(|run| run.header.seed = seed);
    RunSet {
        version: "0.0.0-synthetic".to_owned(),
        seed,
        command: format!(
            "quorate compare --systems cp,ap --nodes 5 --seconds-per-system 20 --faults halves,kill,pause --seed {seed}"
        ),
        started_at: "2026-01-02T03:04:05Z".to_owned(),
        schedule: serde_json::json!({ "seed": seed, "faults": [] }),
        facts: vec![
            Fact::new("Machine", "2 cores"),
            Fact::new("Disk", "ext4, 1.9 ms per append + fdatasync"),
            Fact::new("Faults by", "the nodes' own transport (loopback)"),
        ],
        runs,
        skipped: vec![Skipped {
            system: "etcd".to_owned(),
            why: "etcd is not installed: apt-get install etcd-server".to_owned(),
        }],
    }
}

#[derive(Clone)]
struct Stand {
    name: String,
    owner: String,
    token: String,
    born: f64,
    known: BTreeSet<u64>,
    ended_at: BTreeSet<u64>,
}

struct World {
    rng: StdRng,
    log: Log,
    cp: bool,
    stands: Vec<Stand>,
    joined: BTreeMap<u64, BTreeMap<String, String>>,
    counter: u64,
    healed: BTreeSet<u64>,
    records: Vec<Conflict>,
    /// `cp`: what each node had applied when it was last in touch.
    frozen: BTreeMap<u64, Vec<(String, String, String)>>,
}

impl World {
    fn new(seed: u64, cp: bool) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            log: Log::default(),
            cp,
            stands: Vec::new(),
            joined: BTreeMap::new(),
            counter: 0,
            healed: BTreeSet::new(),
            records: Vec::new(),
            frozen: BTreeMap::new(),
        }
    }

    fn play(mut self) -> Log {
        for fault in plan() {
            let others: Vec<u64> = NODES.iter().copied().filter(|n| !fault.minority.contains(n)).collect();
            let cut = if fault.minority.is_empty() { vec![] } else { between(&fault.minority, &others) };
            self.log.fault(fault.kind, fault.from, fault.to, cut, fault.stopped, Installed::Installed);
        }
        // Each process calls one node, again and again; the contested names come early in each cut, from both sides.
        let mut ready: BTreeMap<(u64, u64), f64> = (0..10).map(|p| ((p, p % 5 + 1), p as f64 * 17.0)).collect();
        let mut look = 20.0;
        loop {
            let ((process, node), at) =
                ready.iter().map(|(who, at)| (*who, *at)).min_by(|a, b| a.1.total_cmp(&b.1)).expect("ten");
            while look < at.min(END_MS) {
                self.look(look);
                look += 40.0;
            }
            if at > END_MS - 1_000.0 {
                break;
            }
            let done = self.one_call(process, node, at);
            ready.insert((process, node), done + self.rng.random_range(60.0..180.0));
        }
        for node in NODES {
            if !self.cp {
                self.log.records(node, END_MS - 500.0 + node as f64, &self.records);
            }
        }
        self.log
    }

    fn side(node: u64, at: f64) -> Side {
        match plan().iter().find(|f| f.from <= at && at <= f.to + 2.0) {
            None => Whole,
            Some(f) if f.stopped.contains(&node) => Stopped,
            Some(f) if f.minority.contains(&node) => Minority,
            Some(_) => Majority,
        }
    }

    /// Everyone the node shares its state with now.
    fn near(&self, node: u64, at: f64) -> BTreeSet<u64> {
        if self.cp {
            return NODES.into();
        }
        let apart = plan().into_iter().find(|f| f.from <= at && at <= f.to + SPREAD_MS && !f.minority.is_empty());
        match apart {
            None => NODES.into(),
            Some(f) => NODES.into_iter().filter(|n| f.minority.contains(n) == f.minority.contains(&node)).collect(),
        }
    }

    /// `ap`: after each heal the sides exchange what they have, and losers are withdrawn.
    fn settle(&mut self, at: f64) {
        for (id, fault) in plan().iter().enumerate() {
            if self.cp || at < fault.to + SPREAD_MS || !self.healed.insert(id as u64) {
                continue;
            }
            for stand in &mut self.stands {
                stand.known = NODES.into();
                if !stand.ended_at.is_empty() {
                    stand.ended_at = NODES.into();
                }
            }
            let mut standing: Vec<usize> =
                (0..self.stands.len()).filter(|s| self.stands[*s].ended_at.is_empty()).collect();
            standing.sort_by(|a, b| self.stands[*a].born.total_cmp(&self.stands[*b].born));
            let mut winner: BTreeMap<String, usize> = BTreeMap::new();
            for s in standing {
                let first = *winner.entry(self.stands[s].name.clone()).or_insert(s);
                if first != s {
                    let (w, l) = (self.stands[first].clone(), &mut self.stands[s]);
                    l.ended_at = NODES.into();
                    let id = format!("c{:x}", self.records.len() + 1);
                    self.records.push(record(&id, &l.name, (&l.owner, &l.token), (&w.owner, &w.token)));
                }
            }
        }
    }

    fn shown(&self, node: u64) -> Vec<(String, String, String)> {
        let mut best: BTreeMap<&str, &Stand> = BTreeMap::new();
        for stand in self.stands.iter().filter(|s| s.known.contains(&node) && !s.ended_at.contains(&node)) {
            let entry = best.entry(&stand.name).or_insert(stand);
            if stand.born < entry.born {
                *entry = stand;
            }
        }
        best.values().map(|s| (s.name.clone(), s.owner.clone(), s.token.clone())).collect()
    }

    /// The observer takes the nodes in turn.
    fn look(&mut self, at: f64) {
        self.settle(at);
        let node = (at / 40.0) as u64 % 5 + 1;
        let side = Self::side(node, at);
        if side == Stopped {
            return;
        }
        let mut names = self.shown(node);
        if self.cp {
            match side {
                Minority => names = self.frozen.get(&node).cloned().unwrap_or_default(),
                _ => drop(self.frozen.insert(node, names.clone())),
            }
        }
        let names: Vec<(&str, &str, &str)> =
            names.iter().map(|(n, o, t)| (n.as_str(), o.as_str(), t.as_str())).collect();
        let there: Vec<String> = self.joined.values().flat_map(|m| m.keys().cloned()).collect();
        let there: Vec<&str> = there.iter().map(String::as_str).collect();
        let groups = [("workers", there.as_slice())];
        self.log.full_view(node, at, &names, if self.cp && side == Minority { &[] } else { &groups });
    }

    fn one_call(&mut self, process: u64, node: u64, at: f64) -> f64 {
        self.settle(at);
        let side = Self::side(node, at);
        let what = self.choose(process, node, at);
        let quick = if self.cp { self.rng.random_range(2.0..9.0) } else { self.rng.random_range(0.2..1.4) };
        if side == Stopped {
            self.log.call(process, node, side, at, what, Some((at + 0.4, Kind::Fail)));
            return at + 50.0;
        }
        let electing = plan().iter().any(|f| f.from - 5.0 <= at && at < f.from + ELECTION_MS);
        if self.cp && (side == Minority || (side == Majority && electing)) {
            let kind = if self.rng.random_bool(0.8) { Kind::Fail } else { Kind::Info };
            let end = at + if kind == Kind::Fail { DEADLINE_MS / 2.0 } else { DEADLINE_MS };
            self.log.call(process, node, side, at, what, Some((end, kind)));
            return end;
        }
        let what = self.take(what, node, at);
        self.log.ok(process, node, side, at, at + quick, what);
        at + quick
    }

    fn choose(&mut self, process: u64, node: u64, at: f64) -> What {
        let contest =
            plan().iter().position(|f| !f.minority.is_empty() && f.from + 1_200.0 < at && at < f.from + 2_600.0);
        let owner = format!("app-{process}");
        let name = match contest {
            Some(n) => format!("contested/{}", n * 3 + self.rng.random_range(0..3)),
            None => format!("service/{}", self.rng.random_range(0..14)),
        };
        if at > QUIET_MS {
            let name = self.stands[self.rng.random_range(0..self.stands.len())].name.clone();
            return whereis(&name, None);
        }
        let held = self.stands.iter().rev().find(|s| {
            s.owner == owner && s.ended_at.is_empty() && s.known.contains(&node) && !s.name.starts_with("contested")
        });
        match self.rng.random_range(0..10) {
            0..=3 => What::Register { name, owner, lease: None, result: None },
            4 | 5 if held.is_some() && contest.is_none() => {
                let held = held.expect("just seen").clone();
                What::Unregister { name: held.name, token: Some(held.token), result: None }
            }
            6 => What::Join { group: "workers".to_owned(), member: owner, lease: None, result: None },
            7 => members("workers", &[], None),
            _ => whereis(&name, None),
        }
    }

    fn token(&mut self, node: u64, at: f64) -> String {
        self.counter += 1;
        if self.cp {
            self.counter.to_string()
        } else {
            format!("{:x}.{node}.{node}{node}.{:x}", at as u64, self.counter)
        }
    }

    fn take(&mut self, mut what: What, node: u64, at: f64) -> What {
        let near = self.near(node, at);
        let shown = self.shown(node);
        let token = self.token(node, at);
        match &mut what {
            What::Register { name, owner, result, .. } => {
                *result = Some(match shown.iter().find(|(n, _, _)| n == name) {
                    Some((_, by, token)) if by == owner => Registered::Held { token: token.clone() },
                    Some((_, by, token)) => Registered::Taken { owner: by.clone(), token: token.clone() },
                    None => {
                        let (name, owner) = (name.clone(), owner.clone());
                        let ended_at = BTreeSet::new();
                        self.stands.push(Stand { name, owner, token: token.clone(), born: at, known: near, ended_at });
                        Registered::Granted { token }
                    }
                });
            }
            What::Unregister { token, result, .. } => {
                let stand = self.stands.iter_mut().find(|s| Some(&s.token) == token.as_ref()).expect("it was held");
                stand.ended_at = near;
                *result = Some(Unregistered::Now);
            }
            What::Whereis { name, .. } => {
                let found = shown.iter().find(|(n, _, _)| n == name);
                what = whereis(name, found.map(|(_, owner, token)| (owner.as_str(), token.as_str())));
            }
            What::Join { member, result, .. } => {
                let there = self.joined.entry(0).or_default();
                let new = !there.contains_key(member);
                let token = there.entry(member.clone()).or_insert(token).clone();
                *result = Some(Joined { token, new, no_lease: false, revision: None });
            }
            What::Members { .. } => {
                let there: Vec<String> = self.joined.values().flat_map(|m| m.keys().cloned()).collect();
                what = members("workers", &there.iter().map(String::as_str).collect::<Vec<_>>(), None);
            }
            _ => {}
        }
        what
    }
}
