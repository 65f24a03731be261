//! Simulated watchers in storms: each keeps what it is told, and has to know in the end what the nodes know.

use std::collections::{BTreeMap, BTreeSet};

use rand::{RngExt, SeedableRng, rngs::StdRng};

use quorate::gossip::context::{Context, OpId, Run};
use quorate::gossip::core::{Core, Flaws};
use quorate::gossip::operation::{DropReason, Operation};
use quorate::gossip::rank::Policy;
use quorate::model::command::Action;
use quorate::model::entry::{Entry, Holder};
use quorate::model::event::{Change, Event};
use quorate::model::ident::{LeaseId, Mode, NodeId, Token};
use quorate::model::outcome::Outcome;
use quorate::model::query::{Answer, Page, Query};

use super::simulation::{command, rough};
use super::world::{Weather, World, granted, unregister};

/// A key, and what stands there: the owner's or member's text.
type View = BTreeMap<(bool, String, String), String>;

fn key(entry: &Entry) -> (bool, String, String) {
    match &entry.holder {
        Holder::Owner(name, _) => (true, name.to_string(), String::new()),
        Holder::Member(group, member) => (false, group.to_string(), member.to_string()),
    }
}

/// What a node shows.
fn shown(world: &World, node: NodeId) -> View {
    let page = || Page { limit: 1_000, ..Page::default() };
    let mut view = View::new();
    let mut add = |answer: Answer| {
        let Answer::Entries { entries, next: None } = answer else { panic!("{answer:?}") };
        view.extend(entries.iter().map(|entry| (key(entry), entry.holder_text().to_owned())));
    };
    add(world.query(node, &Query::Names { page: page() }));
    let Answer::Groups { groups, .. } = world.query(node, &Query::Groups { page: page() }) else { panic!() };
    for count in groups {
        add(world.query(node, &Query::Members { group: count.group, page: page(), node: None }));
    }
    view
}

/// Where a watcher goes on: anywhere, or at one process alone.
enum Cursor {
    Context(Context),
    Local(Run, usize),
}

impl Default for Cursor {
    fn default() -> Self {
        Cursor::Context(Context::default())
    }
}

/// A watcher that goes from node to node.
#[derive(Default)]
struct Watcher {
    /// The process whose events it reads.
    at: Option<Run>,
    /// How much of what the node has told it has read.
    read: usize,
    cursor: Cursor,
    view: View,
    granted: BTreeSet<Token>,
    ended: BTreeSet<Token>,
    losers: BTreeSet<String>,
    /// The last operation of each run that it was told of since it came to this node.
    last: BTreeMap<Run, u64>,
    resyncs: u32,
    /// The planted flaw: it is not told what it has missed.
    skips: bool,
}

impl Watcher {
    fn come_to(&mut self, world: &World, node: NodeId) {
        self.at = None;
        self.last.clear();
        let core = &world.nodes[&node];
        let now = world.told[&node].len();
        let cursor = match &self.cursor {
            // What was hidden where it came from, or is hidden here, nobody knows: it has to read the state anew.
            Cursor::Local(run, read) if core.run() == *run => {
                (self.at, self.read) = (Some(*run), *read);
                return;
            }
            Cursor::Local(..) => None,
            Cursor::Context(_) if core.hides() => None,
            // A node that is behind waits until it has caught up: this watcher tries another one instead.
            Cursor::Context(cursor) if !core.context().covers_all(cursor) => return,
            Cursor::Context(cursor) => Some(cursor.clone()),
        };
        if cursor.and_then(|cursor| self.take_missed(core, cursor)).is_none() {
            self.view = shown(world, node);
            self.resyncs += 1;
        }
        (self.at, self.read) = (Some(core.run()), now);
        self.set_position(core);
    }

    fn take_missed(&mut self, core: &Core, mut told: Context) -> Option<()> {
        while !self.skips {
            let missed = core.missed(&told, 7)?;
            missed.events.iter().for_each(|event| self.take(event));
            told = missed.told;
            if missed.all {
                assert!(told.covers_all(core.context()));
                break;
            }
        }
        Some(())
    }

    fn set_position(&mut self, core: &Core) {
        self.cursor = match core.hides() {
            true => Cursor::Local(core.run(), self.read),
            false => Cursor::Context(core.context().clone()),
        };
    }

    fn read_on(&mut self, world: &World, position: bool) {
        let Some(run) = self.at else { return };
        // A process that has died tells nothing any more; what it told last may not have arrived.
        let Some(core) = world.nodes.get(&run.node).filter(|core| core.run() == run) else {
            self.at = None;
            return;
        };
        for event in &world.told[&run.node][self.read..] {
            self.read += 1;
            self.take(event);
            if event.changes.iter().any(|change| matches!(change, Change::Hidden { .. } | Change::Shown { .. })) {
                self.cursor = Cursor::Local(run, self.read);
            }
        }
        // A position comes with a message of its own, now and then: what came after it is told again elsewhere.
        if position {
            self.set_position(core);
        }
    }

    fn take(&mut self, event: &Event) {
        if let Ok(Token::Ap(token)) = Token::parse(Mode::Ap, &event.revision.to_string()) {
            let id = OpId::of(&token);
            let last = self.last.insert(id.run, id.number);
            assert!(last.is_none_or(|last| last < id.number), "{id} came after {last:?}");
        }
        for change in &event.changes {
            self.take_change(change);
        }
    }

    fn stands(&mut self, entry: &Entry, current: Option<&Entry>) {
        match current {
            Some(current) => self.view.insert(key(current), current.holder_text().to_owned()),
            None => self.view.remove(&key(entry)),
        };
    }

    fn take_change(&mut self, change: &Change) {
        match change {
            Change::Registered { entry, current, .. } => {
                self.granted.insert(entry.token);
                self.stands(entry, current.as_deref());
            }
            Change::Updated { entry, previous, current } => {
                self.granted.insert(entry.token);
                // The same grant with another meta has not ended.
                self.ended
                    .extend(previous.as_ref().map(|previous| previous.token).filter(|token| *token != entry.token));
                self.stands(entry, current.as_deref());
            }
            Change::Ended { entry, current, .. } => {
                self.ended.insert(entry.token);
                self.stands(entry, current.as_deref());
            }
            Change::Joined { entry } => {
                self.granted.insert(entry.token);
                self.stands(entry, Some(entry));
            }
            Change::Left { entry, .. } => {
                self.ended.insert(entry.token);
                self.stands(entry, None);
            }
            Change::Hidden { entry } => self.stands(entry, None),
            Change::Shown { entry } => self.stands(entry, Some(entry)),
            Change::Conflict { record } => {
                self.losers.insert(record.id.to_string());
            }
            Change::LeaseExpired { .. } => {}
        }
    }

    /// Whether it has been told of every operation at least once. Of what began and ended while a state was on its way, nobody can tell.
    fn gap(&self, world: &World) -> Option<String> {
        for operation in world.made.values() {
            match operation {
                Operation::Add(grant) if !self.granted.contains(&Token::Ap(grant.token())) => {
                    return Some(format!("it was never told of {}", grant.id));
                }
                Operation::Add(grant) => {
                    let taken = grant.takes.iter().find(|id| !self.has_ended(world, **id));
                    if let Some(id) = taken {
                        return Some(format!("it was never told that {id} was taken over"));
                    }
                }
                Operation::Remove { grants, .. } | Operation::Drop { why: DropReason::Revoked { grants }, .. } => {
                    if let Some(id) = grants.iter().find(|id| !self.has_ended(world, **id)) {
                        return Some(format!("it was never told that {id} ended"));
                    }
                }
                _ => {}
            }
        }
        None
    }

    fn has_ended(&self, world: &World, id: OpId) -> bool {
        match world.made.get(&id) {
            Some(Operation::Add(grant)) => self.ended.contains(&Token::Ap(grant.token())),
            // A token that was never issued.
            _ => true,
        }
    }
}

/// A storm with a watcher that stays at each node, and some that roam. What is wrong in the end.
fn watched_storm(seed: u64, weather: Weather, kills: bool, skips: bool) -> (Vec<String>, u32) {
    let mut rng = StdRng::seed_from_u64(seed);
    let size = rng.random_range(2..=4);
    let operations_only = !kills && weather.kept_operations > 1_000;
    let mut whole = 0;
    let mut world = World::new(seed, size, weather);
    let mut tokens = Vec::new();
    let mut leases: Vec<LeaseId> = Vec::new();
    let mut roaming = [(); 3].map(|()| Watcher { skips, ..Watcher::default() });
    for _ in 0..rng.random_range(4..8) {
        match rng.random_range(0..4) {
            0 | 1 => {
                let left = rng.random_range(1..(1u64 << size) - 1);
                let (a, b): (Vec<NodeId>, Vec<NodeId>) = (1..=size).partition(|node| left >> (node - 1) & 1 == 1);
                world.cut(&[&a, &b]);
            }
            2 if kills && world.nodes.len() > 1 => world.kill(rng.random_range(1..=size)),
            _ => world.heal(),
        }
        let gone = (1..=size).find(|node| !world.nodes.contains_key(node));
        if let Some(gone) = gone.filter(|_| rng.random_bool(0.7)) {
            world.restart(gone);
        }
        for _ in 0..rng.random_range(5..40) {
            world.run(rng.random_range(1..200));
            let up = world.nodes.keys().copied().filter(|node| world.nodes[node].is_serving()).collect::<Vec<_>>();
            if up.is_empty() {
                continue;
            }
            let node = up[rng.random_range(0..up.len())];
            match rng.random_range(0..4) {
                0 => lease_command(&mut world, node, &mut rng, &mut leases),
                _ => command(&mut world, node, &mut rng, &mut tokens),
            }
            for watcher in &mut roaming {
                watcher.read_on(&world, rng.random_bool(0.3));
                if rng.random_bool(0.1) || watcher.at.is_none() {
                    watcher.come_to(&world, up[rng.random_range(0..up.len())]);
                }
            }
        }
    }
    for node in 1..=size {
        if !world.nodes.contains_key(&node) {
            world.restart(node);
        }
    }
    world.heal();
    world.run(30_000);
    let contexts = world.nodes.values().map(|core| core.context()).collect::<Vec<_>>();
    assert!(contexts.windows(2).all(|pair| pair[0] == pair[1]), "seed {seed}: all have applied the same");
    let mut wrong = Vec::new();
    for node in 1..=size {
        let mut staying = Watcher::default();
        world.told[&node].iter().for_each(|event| staying.take(event));
        if staying.view != shown(&world, node) {
            wrong.push(format!("{node} told {:?} and shows {:?}", staying.view, shown(&world, node)));
        }
    }
    for watcher in &mut roaming {
        watcher.read_on(&world, true);
        watcher.come_to(&world, 1);
        if watcher.at.is_none() {
            // What its cursor covers died with the process that told it.
            assert!(kills, "all have caught up");
            continue;
        }
        if watcher.view != shown(&world, 1) {
            wrong.push(format!("a watcher that moved knows {:?}, shown is {:?}", watcher.view, shown(&world, 1)));
        }
        let records = world.losers(1).len();
        if watcher.resyncs == 0 && operations_only {
            whole += 1;
            wrong.extend(watcher.gap(&world));
            if watcher.losers.len() != records {
                wrong.push(format!("it was told of {} losers of {records}", watcher.losers.len()));
            }
        }
    }
    (wrong.into_iter().map(|wrong| format!("seed {seed}: {wrong}")).collect(), whole)
}

fn lease_command(world: &mut World, node: NodeId, rng: &mut StdRng, leases: &mut Vec<LeaseId>) {
    let picked = (!leases.is_empty()).then(|| leases[rng.random_range(0..leases.len())].clone());
    match (rng.random_range(0..6), picked) {
        (0 | 1, _) | (_, None) => leases.push(world.lease(node, rng.random_range(1_000..6_000))),
        (2, Some(lease)) => {
            world.execute(node, Action::RevokeLease { lease, by: None });
        }
        (3, Some(lease)) => {
            let _ = world.keep(node, &lease);
        }
        (4, Some(lease)) => {
            let (group, member) = ("g0".parse().unwrap(), format!("m{}", rng.random_range(0..3)).parse().unwrap());
            let join = Action::Join { group, member, meta: "{}".parse().unwrap(), lease: Some(lease) };
            world.execute(node, join);
        }
        (_, Some(lease)) => {
            let outcome =
                world.register_with(node, &format!("n{}", rng.random_range(0..5)), &format!("l{node}"), &lease);
            assert!(!matches!(outcome, Outcome::LeaseCreated { .. }));
        }
    }
}

/// Holds many storms; gives the number of watchers that moved about and never had to read the state anew.
fn all_right(seeds: std::ops::Range<u64>, weather: impl Fn(u64) -> Weather, kills: bool) -> u32 {
    let (mut wrong, mut whole) = (Vec::new(), 0);
    for seed in seeds {
        let (fresh, more) = watched_storm(seed, weather(seed), kills, false);
        wrong.extend(fresh);
        whole += more;
    }
    assert!(wrong.is_empty(), "{} wrong, the first: {}", wrong.len(), wrong[0]);
    whole
}

#[test]
fn whoever_watches_through_a_storm_misses_nothing_wherever_it_goes_on() {
    let whole = all_right(
        0..60,
        |seed| Weather {
            down_after_ms: if seed % 2 == 0 { 30_000 } else { 3_000 },
            ..rough(if seed % 3 == 0 { Policy::Newest } else { Policy::Oldest }, Flaws::default())
        },
        false,
    );
    assert!(whole > 20, "of {whole} watchers every operation was held against what they were told");
}

#[test]
fn a_state_instead_of_operations_is_told_too() {
    let weather = |_| Weather { kept_operations: 12, ..rough(Policy::Oldest, Flaws::default()) };
    all_right(1_000..1_040, weather, false);
}

#[test]
fn whoever_watches_nodes_that_lose_their_state_knows_what_they_know() {
    all_right(2_000..2_040, |_| rough(Policy::Oldest, Flaws::default()), true);
}

/// Two ended one grant, of which the watcher's first node had not heard: the one end it had been told of before it could mean anything, and
/// the other did nothing where it goes on.
#[test]
fn a_grant_that_was_ended_twice_is_not_told_as_if_it_stood() {
    let mut world = World::new(1, 3, Weather { loss: 0.0, delay_ms_max: 5, ..rough(Policy::Oldest, Flaws::default()) });
    world.run(1_000);
    let mut watcher = Watcher::default();
    watcher.come_to(&world, 1);
    world.cut_but_for(2, &[&[1], &[3]]);
    let token = granted(world.register(3, "x", "a")).token;
    world.run(15);
    world.execute(2, unregister("x", Some(token)));
    world.run(15);
    assert!(!world.nodes[&1].context().covers_all(world.nodes[&2].context()), "the grant is not known there");
    watcher.read_on(&world, true);
    world.execute(1, unregister("x", Some(token)));
    world.run(15);
    watcher.come_to(&world, 2);
    assert_eq!((watcher.resyncs, watcher.granted.contains(&token)), (0, true));
    assert_eq!((watcher.ended.contains(&token), &watcher.view), (true, &shown(&world, 2)));
}

/// Whoever ends a grant that it has not heard of, by its token, may stamp the end below the grant.
#[test]
fn a_grant_whose_end_has_the_earlier_stamp_is_not_told_last_as_if_it_stood() {
    let mut world = World::new(1, 3, Weather { loss: 0.0, delay_ms_max: 5, ..rough(Policy::Oldest, Flaws::default()) });
    world.run(1_000);
    let before = world.nodes[&2].context().clone();
    world.cut_but_for(2, &[&[1], &[3]]);
    world.skew(3, 60_000);
    let token = granted(world.register(3, "x", "a")).token;
    world.run(6);
    world.execute(1, unregister("x", Some(token)));
    world.run(15);
    let missed = world.nodes[&2].missed(&before, 100).unwrap();
    let told = missed.events.iter().flat_map(|event| &event.changes).filter_map(|change| match change {
        Change::Registered { entry, .. } if entry.token == token => Some("registered"),
        Change::Ended { entry, .. } if entry.token == token => Some("ended"),
        _ => None,
    });
    assert_eq!(told.collect::<Vec<_>>(), ["ended", "registered", "ended"]);
}

#[test]
fn a_watcher_that_is_not_told_what_it_has_missed_is_found_out() {
    let weather = || rough(Policy::Oldest, Flaws::default());
    let convicted = (0..10).filter(|seed| !watched_storm(*seed, weather(), false, true).0.is_empty());
    assert!(convicted.count() > 5);
}

/// The losers that a watcher is told of after both sides of a partition registered one name.
fn losers_told(flaws: Flaws) -> BTreeSet<String> {
    let mut world = World::new(1, 2, Weather { loss: 0.0, ..rough(Policy::Oldest, flaws) });
    world.cut(&[&[1], &[2]]);
    world.register(1, "x", "a");
    world.run(100);
    world.register(2, "x", "b");
    world.run(5_000);
    world.heal();
    world.run(10_000);
    assert_eq!(world.owners("x"), vec![Some("a".to_owned()); 2], "it is settled");
    let mut watcher = Watcher::default();
    world.told[&1].iter().for_each(|event| watcher.take(event));
    watcher.losers
}

#[test]
fn a_withdrawal_without_a_record_is_found_out() {
    assert_eq!(losers_told(Flaws::default()).len(), 1);
    assert!(losers_told(Flaws { forget_records: true, ..Flaws::default() }).is_empty());
}
