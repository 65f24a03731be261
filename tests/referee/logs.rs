//! Small histories written by hand: events by time, in milliseconds.

use std::collections::{BTreeMap, BTreeSet};

use quorate::referee::client::{Abilities, Promises};
use quorate::referee::history::{
    Conflict, Event, FaultEvent, Found, Header, Installed, Joined, KeptAlive, Kind, LeaseMade, Membership, Process,
    Registered, Side, Unregistered, View, What,
};
use quorate::referee::report::data::{Bounds, Run};
use quorate::referee::watched::Watched;

pub const CP: Promises = Promises { converges: false, ..Promises::LINEARIZABLE };
pub const AP: Promises = Promises { available: true, converges: true, records: true, ..Promises::NONE };

/// Of systems that have names, groups and conflicts alone.
pub const PLAIN: Abilities =
    Abilities { names: true, groups: true, tokens: false, leases: false, watch: false, conflicts: true };

/// The two sides that most histories here are cut into.
pub const LEFT: [u64; 2] = [1, 2];
pub const RIGHT: [u64; 3] = [3, 4, 5];

#[derive(Default)]
pub struct Log {
    /// With the place of the invocation, so that ends find it after sorting.
    events: Vec<(u64, Event, Option<usize>)>,
    faults: u64,
}

impl Log {
    fn push(&mut self, at_us: u64, kind: Kind, process: Process, what: What, end_of: Option<usize>) -> usize {
        let event = Event {
            index: 0,
            time: at_us * 1_000,
            kind,
            process,
            what,
            node: None,
            side: None,
            error: None,
            end_of: None,
        };
        self.events.push((at_us, event, end_of));
        self.events.len() - 1
    }

    /// One call of a client to a node; `end` tells when and how it ended.
    pub fn call(&mut self, process: u64, node: u64, side: Side, from: f64, what: What, end: Option<(f64, Kind)>) {
        let asked = without_result(&what);
        let at = self.push(micros(from), Kind::Invoke, Process::Client(process), asked.clone(), None);
        (self.events[at].1.node, self.events[at].1.side) = (Some(node), Some(side));
        if let Some((to, kind)) = end {
            let what = if kind == Kind::Ok { what } else { asked };
            let end = self.push(micros(to), kind, Process::Client(process), what, Some(at));
            (self.events[end].1.node, self.events[end].1.side) = (Some(node), Some(side));
            if kind != Kind::Ok {
                self.events[end].1.error = Some("504 timeout".to_owned());
            }
        }
    }

    pub fn ok(&mut self, process: u64, node: u64, side: Side, from: f64, to: f64, what: What) {
        self.call(process, node, side, from, what, Some((to, Kind::Ok)));
    }

    fn nemesis(&mut self, at: f64, what: What) {
        self.push(micros(at), Kind::Info, Process::Nemesis, what, None);
    }

    /// Every link between the two sides, both ways.
    pub fn cut(&mut self, from: f64, to: f64) {
        self.fault("halves", from, to, between(&LEFT, &RIGHT), Vec::new(), Installed::Installed);
    }

    pub fn fault(&mut self, kind: &str, from: f64, to: f64, cut: Vec<(u64, u64)>, nodes: Vec<u64>, state: Installed) {
        self.faults += 1;
        let told = |begins| {
            What::Fault(FaultEvent {
                id: self.faults,
                kind: kind.to_owned(),
                harm: String::new(),
                begins,
                lasts: false,
                cut: cut.clone(),
                nodes: nodes.clone(),
                state,
                detail: String::new(),
            })
        };
        let (begin, end) = (told(true), told(false));
        for (at, what) in [(from, begin.clone()), (from + 1.0, begin), (to, end.clone()), (to + 1.0, end)] {
            self.nemesis(at, what);
        }
    }

    pub fn view(&mut self, node: u64, at: f64, names: &[(&str, &str, &str)]) {
        self.full_view(node, at, names, &[]);
    }

    pub fn full_view(&mut self, node: u64, at: f64, names: &[(&str, &str, &str)], groups: &[(&str, &[&str])]) {
        let names = names.iter().map(|(name, owner, token)| (name.to_string(), (owner.to_string(), token.to_string())));
        let groups = groups.iter().map(|(group, members)| (group.to_string(), set(members)));
        let view = View { node, names: names.collect(), groups: groups.collect(), leader: None };
        let asked = View { node, names: BTreeMap::new(), groups: BTreeMap::new(), leader: None };
        let begun = self.push(micros(at), Kind::Invoke, Process::Observer, What::View(asked), None);
        self.push(micros(at + 1.0), Kind::Ok, Process::Observer, What::View(view), Some(begun));
    }

    pub fn records(&mut self, node: u64, at: f64, records: &[Conflict]) {
        let what = What::Conflicts { records: records.to_vec() };
        let end = self.push(micros(at), Kind::Ok, Process::Observer, what, None);
        self.events[end].1.node = Some(node);
    }

    /// What a guarded resource did.
    pub fn wrote(&mut self, at: f64, name: &str, owner: &str, token: &str, accepted: bool) {
        let (name, owner, token) = (name.to_owned(), owner.to_owned(), token.to_owned());
        let what = What::GuardedWrite { name, owner, token, accepted, greatest: None };
        self.push(micros(at), Kind::Ok, Process::Resource, what, None);
    }

    /// What a watcher was told by node 1.
    pub fn told(&mut self, watcher: u64, at: f64, told: Watched) {
        let end = self.push(micros(at), Kind::Ok, Process::Watcher(watcher), What::Watched(told), None);
        self.events[end].1.node = Some(1);
    }

    pub fn probe(&mut self, at: f64, as_intended: bool) {
        self.nemesis(at, What::Probe { reached: BTreeMap::new(), as_intended });
    }

    pub fn events(mut self) -> Vec<Event> {
        let mut order: Vec<usize> = (0..self.events.len()).collect();
        order.sort_by_key(|at| self.events[*at].0);
        let mut place = vec![0; order.len()];
        order.iter().enumerate().for_each(|(new, old)| place[*old] = new as u64);
        for (at, (_, event, end_of)) in self.events.iter_mut().enumerate() {
            event.index = place[at];
            event.end_of = end_of.map(|at| place[at]);
        }
        let mut events: Vec<Event> = self.events.into_iter().map(|(_, event, _)| event).collect();
        events.sort_by_key(|event| event.index);
        events
    }

    pub fn run(self, system: &str, promises: Promises) -> Run {
        Run {
            header: Header {
                format: 1,
                version: "0.0.0".to_owned(),
                system: system.to_owned(),
                seed: 7,
                nodes: vec![1, 2, 3, 4, 5],
                schedule: "made by hand".to_owned(),
                concurrency: 10,
            },
            promises,
            abilities: Abilities::ALL,
            decides: true,
            events: self.events(),
            required: Vec::new(),
            bounds: Bounds::default(),
            facts: Vec::new(),
        }
    }
}

fn micros(ms: f64) -> u64 {
    (ms * 1e3).round() as u64
}

fn set(members: &[&str]) -> BTreeSet<String> {
    members.iter().map(|member| member.to_string()).collect()
}

pub fn between(left: &[u64], right: &[u64]) -> Vec<(u64, u64)> {
    left.iter().flat_map(|a| right.iter().flat_map(move |b| [(*a, *b), (*b, *a)])).collect()
}

pub fn register(name: &str, owner: &str, token: &str) -> What {
    let result = Some(Registered::Granted { token: token.to_owned() });
    What::Register { name: name.to_owned(), owner: owner.to_owned(), lease: None, result }
}

pub fn create_lease(lease: &str, ttl_ms: u64) -> What {
    What::CreateLease { lease: lease.to_owned(), ttl_ms, result: Some(LeaseMade::Made) }
}

pub fn keep_alive(lease: &str, result: KeptAlive) -> What {
    What::KeepAlive { lease: lease.to_owned(), seen: Vec::new(), result: Some(result) }
}

pub fn alive(lease: &str) -> What {
    keep_alive(lease, KeptAlive::Alive { lost: Vec::new(), moved: false })
}

/// Registered under the lease that is called like the owner.
pub fn claim(name: &str, owner: &str, token: &str) -> What {
    let result = Some(Registered::Granted { token: token.to_owned() });
    What::Register { name: name.to_owned(), owner: owner.to_owned(), lease: Some(owner.to_owned()), result }
}

pub fn taken(name: &str, owner: &str, by: &str, token: &str) -> What {
    let result = Some(Registered::Taken { owner: by.to_owned(), token: token.to_owned() });
    What::Register { name: name.to_owned(), owner: owner.to_owned(), lease: None, result }
}

pub fn unregister(name: &str, token: &str) -> What {
    What::Unregister { name: name.to_owned(), token: Some(token.to_owned()), result: Some(Unregistered::Now) }
}

pub fn whereis(name: &str, found: Option<(&str, &str)>) -> What {
    let found = Found { owner: found.map(|f| f.0.to_owned()), token: found.map(|f| f.1.to_owned()) };
    What::Whereis { name: name.to_owned(), result: Some(found) }
}

pub fn join(group: &str, member: &str, token: &str) -> What {
    let result = Some(Joined { token: token.to_owned(), new: true, no_lease: false, revision: token.parse().ok() });
    What::Join { group: group.to_owned(), member: member.to_owned(), lease: None, result }
}

pub fn leave(group: &str, member: &str, token: &str) -> What {
    let result = Some(Unregistered::Now);
    What::Leave { group: group.to_owned(), member: member.to_owned(), token: Some(token.to_owned()), result }
}

pub fn members(group: &str, members: &[&str], revision: Option<u64>) -> What {
    What::Members {
        group: group.to_owned(),
        result: Some(Membership { members: set(members), twice: BTreeSet::new(), revision }),
    }
}

pub fn record(id: &str, name: &str, loser: (&str, &str), winner: (&str, &str)) -> Conflict {
    let pair = |(owner, token): (&str, &str)| (owner.to_owned(), token.to_owned());
    Conflict { id: id.to_owned(), name: name.to_owned(), loser: pair(loser), winner: pair(winner) }
}

fn without_result(what: &What) -> What {
    let mut asked = what.clone();
    match &mut asked {
        What::Register { result, .. } | What::Renew { result, .. } => *result = None,
        What::Unregister { result, .. } | What::Leave { result, .. } | What::Revoke { result, .. } => *result = None,
        What::CreateLease { result, .. } => *result = None,
        What::KeepAlive { result, .. } => *result = None,
        What::Whereis { result, .. } => *result = None,
        What::Join { result, .. } => *result = None,
        What::Members { result, .. } => *result = None,
        What::GuardedWrite { .. }
        | What::Watched(_)
        | What::Fault(_)
        | What::Probe { .. }
        | What::View(_)
        | What::Conflicts { .. } => {}
    }
    asked
}
