//! A run, read once and put in order, so that each analysis asks its own question only.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;

use super::faults::Faults;
use super::grants::{self, Grant, Grants};
use super::ops::{self, Op};
use super::views::{self, Seen, Told};
use crate::model::ident::NodeId;
use crate::referee::history::{Found, Key, What};
use crate::referee::leases::{self, Leases};
use crate::referee::report::data::Run;

/// After a lease may have run out at the latest, what was bound to it may be seen for so long.
const EXPIRY_SHOWS_NS: u64 = 2_000_000_000;

pub struct Story<'a> {
    pub run: &'a Run,
    /// By invocation.
    pub ops: Vec<Op<'a>>,
    pub faults: Faults,
    /// By the end of the look.
    pub views: Vec<Seen<'a>>,
    pub told: Vec<Told<'a>>,
    pub names: Grants<'a>,
    pub groups: Grants<'a>,
    pub leases: Leases<'a>,
    /// The nodes among which everything is mended in the end.
    core: Vec<NodeId>,
    last_write: BTreeMap<Key<'a>, u64>,
    /// Answered reads of each name and group, by their places among the calls.
    reads: HashMap<Key<'a>, Vec<usize>>,
    /// Where among the views the first and the last are that show a name.
    showing: HashMap<&'a str, Range<usize>>,
    /// Names and tokens of what lost a conflict, by any node's word.
    losers: HashSet<(&'a str, &'a str)>,
    /// Where the last change may be the end of a lease.
    ends_with_lease: BTreeSet<Key<'a>>,
}

/// One last word on a name: by a node's view, or by a client's read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastWord<'a> {
    /// None: nobody holds it.
    pub owner: Option<&'a str>,
    pub token: Option<&'a str>,
    pub at: u64,
}

/// What each node said last: a read straight after a heal is no last word if the node was looked at again.
struct Latest<T>(BTreeMap<Option<NodeId>, (u64, T)>);

impl<T> Default for Latest<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> Latest<T> {
    fn add(&mut self, node: Option<NodeId>, from: u64, word: T) {
        match self.0.get(&node) {
            Some((later, _)) if *later > from => {}
            _ => drop(self.0.insert(node, (from, word))),
        }
    }

    fn all(self) -> Vec<T> {
        self.0.into_values().map(|(_, word)| word).collect()
    }
}

impl<'a> Story<'a> {
    pub fn of(run: &'a Run) -> Self {
        let ops = ops::pair(&run.events);
        let faults = Faults::of(&run.events);
        let (views, told) = views::seen(&run.events);
        let leases = leases::of(&run.events);
        let names = grants::names(&ops, run.promises.one_order, &leases, faults.run_end());
        let groups = grants::groups(&ops, run.promises.one_order, &leases, faults.run_end());
        let mut last_write = BTreeMap::new();
        for op in ops.iter().filter(|op| op.changes()) {
            let at = op.ended.unwrap_or(op.invoked);
            let last = last_write.entry(op.key()).or_insert(at);
            *last = at.max(*last);
        }
        let mut reads: HashMap<Key, Vec<usize>> = HashMap::new();
        for (at, op) in ops.iter().enumerate().filter(|(_, op)| op.acked().is_some()) {
            if matches!(op.what, What::Whereis { .. } | What::Members { .. }) {
                reads.entry(op.key()).or_default().push(at);
            }
        }
        let mut showing: HashMap<&str, Range<usize>> = HashMap::new();
        for (at, seen) in views.iter().enumerate() {
            for name in seen.view.names.keys() {
                showing.entry(name).or_insert(at..at).end = at + 1;
            }
        }
        let records = told.iter().flat_map(|told| told.records);
        let losers = records.map(|record| (record.name.as_str(), record.loser.1.as_str())).collect();
        let core = faults.core(&run.header.nodes);
        let mut story = Self {
            run,
            ops,
            faults,
            views,
            told,
            names,
            groups,
            leases,
            core,
            last_write,
            reads,
            showing,
            losers,
            ends_with_lease: BTreeSet::new(),
        };
        for (key, _, until) in story.expiries() {
            let last = story.last_write.entry(key).or_insert(0);
            if until > *last {
                *last = until;
                story.ends_with_lease.insert(key);
            }
        }
        story
    }

    /// Where grants may end with their leases: the name or group, and from when until when it may show.
    pub fn expiries(&self) -> Vec<(Key<'a>, u64, u64)> {
        let names = self.names.all().map(|grant| (Key::Name(grant.key), grant.lease));
        let groups = self.groups.all().map(|grant| (Key::Group(grant.key), grant.lease));
        let silent =
            self.names.all_silent().map(|silent| (Key::Name(silent.key), grants::lease_of(&self.ops, silent.op)));
        let joins =
            self.groups.all_silent().map(|silent| (Key::Group(silent.key), grants::lease_of(&self.ops, silent.op)));
        let all = names.chain(groups).chain(silent).chain(joins);
        all.filter_map(|(key, lease)| {
            let lease = self.leases.get(lease?).filter(|lease| lease.may_end() < self.run_end())?;
            Some((key, lease.may_end(), lease.last_touched() + lease.ttl_ns + EXPIRY_SHOWS_NS))
        })
        .collect()
    }

    /// Whether the writes are said to have one order, so that what one ended is ended everywhere.
    pub fn one_order(&self) -> bool {
        self.run.promises.one_order
    }

    pub fn run_end(&self) -> u64 {
        self.faults.run_end()
    }

    /// The nodes among which everything is mended in the end: all of them, unless a fault was meant to last.
    pub fn core(&self) -> &[NodeId] {
        &self.core
    }

    pub fn in_core(&self, node: NodeId) -> bool {
        self.core.contains(&node)
    }

    /// From when on the key's state is the one that the run leaves behind; None: a fault was never lifted.
    pub fn final_from(&self, key: Key) -> Option<u64> {
        let healed = self.faults.last_heal()?;
        Some(self.last_write.get(&key).copied().unwrap_or(0).max(healed))
    }

    /// Whether the last change of a key may be the end of a lease, which nobody waits for: then there may be no last word on it.
    pub fn ends_with_lease(&self, key: Key) -> bool {
        self.ends_with_lease.contains(&key)
    }

    /// What is known of a name at the end: the last read or view of every node of the core that began after the last
    /// write and after the last heal.
    pub fn last_words(&self, name: &str) -> Vec<LastWord<'_>> {
        let Some(from) = self.final_from(Key::Name(name)) else { return Vec::new() };
        let mut last = Latest::default();
        for op in self.last_reads(Key::Name(name), from) {
            if let (What::Whereis { result: Some(Found { owner, token }), .. }, Some(at)) = (op.what, op.acked()) {
                last.add(op.node, op.invoked, LastWord { owner: owner.as_deref(), token: token.as_deref(), at });
            }
        }
        for seen in self.views_from(from).filter(|seen| self.in_core(seen.node)) {
            let held = seen.view.names.get(name);
            let (owner, token) = (held.map(|held| held.0.as_str()), held.map(|held| held.1.as_str()));
            last.add(Some(seen.node), seen.from, LastWord { owner, token, at: seen.at });
        }
        last.all()
    }

    /// For every last look at, or read of, a group: whether the member was there. As [`last_words`](Self::last_words).
    pub fn last_members(&self, group: &str, member: &str) -> Vec<bool> {
        let Some(from) = self.final_from(Key::Group(group)) else { return Vec::new() };
        let mut last = Latest::default();
        for op in self.last_reads(Key::Group(group), from) {
            if let What::Members { result: Some(found), .. } = op.what {
                last.add(op.node, op.invoked, found.members.contains(member));
            }
        }
        for seen in self.views_from(from).filter(|seen| self.in_core(seen.node)) {
            let there = seen.view.groups.get(group).is_some_and(|members| members.contains(member));
            last.add(Some(seen.node), seen.from, there);
        }
        last.all()
    }

    /// Answered reads of the key by the core that began at that time or later.
    fn last_reads<'s>(&'s self, key: Key<'s>, from: u64) -> impl Iterator<Item = &'s Op<'a>> {
        let of_key = self.reads.get(&key).map_or(&[][..], Vec::as_slice);
        let begin = of_key.partition_point(|at| self.ops[*at].invoked < from);
        let ops = of_key[begin..].iter().map(|at| &self.ops[*at]);
        ops.filter(|op| op.node.is_none_or(|node| self.in_core(node)))
    }

    /// Looks that began at that time or later.
    pub fn views_from(&self, from: u64) -> impl Iterator<Item = &Seen<'a>> {
        // They are in the order in which they ended, and none ended before it began.
        self.views[self.views.partition_point(|seen| seen.at < from)..].iter().filter(move |seen| seen.from >= from)
    }

    /// Where among the views those lie that show the name: none before, none after.
    pub fn showing(&self, name: &str) -> Range<usize> {
        self.showing.get(name).cloned().unwrap_or(0..0)
    }

    pub fn grant(&self, name: &str, token: &str) -> Option<&Grant<'a>> {
        self.names.of(name).iter().find(|grant| grant.token == token)
    }

    /// Whether some node told a record of its loss.
    pub fn is_recorded_loser(&self, grant: &Grant) -> bool {
        self.losers.contains(&(grant.key, grant.token))
    }
}
