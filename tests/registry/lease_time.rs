//! The time of leases under a clock of the test's own: leaders that come and go, expiries that are inherited or lost, keep-alives that
//! arrive at any moment (protocol C4 and C5). What decides is the real table and the real timers; the log is a list.
//!
//! Each rule of C4 has a switch that leaves it out, and a run that then ends a lease early.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use quorate::model::command::{Action, Command};
use quorate::model::step::Step;
use quorate::model::table::{LeaseNews, News, Table};
use quorate::model::time::UnixMillis;
use quorate::raft::Pace;
use quorate::raft::lease_timers::{Arrival, Timers};
use tokio::time::Instant;

const TTL_MS: u64 = 5_000;
const TICK_MS: u64 = 100;

/// Which rule is left out.
#[derive(Clone, Copy, Debug, Default)]
struct Flaws {
    /// Leases run out in half their time.
    hasty: bool,
    /// The first keep-alive under a leader is answered without being logged.
    unlogged: bool,
    /// A leader starts its timers, and answers, before it has applied what it inherited.
    before_first_entry: bool,
    /// A keep-alive does not wait for an expiry that is on its way.
    over_expiry: bool,
    /// A node that leads again goes on with the timers of its last leadership.
    old_timers: bool,
}

fn pace(flaws: Flaws) -> Pace {
    if flaws.hasty { Pace::Hasty } else { Pace::Right }
}

/// What a client knows of its lease, and what a bystander does.
#[derive(Clone, Copy, Debug)]
struct Client {
    /// When it sent what was last acknowledged.
    acknowledged_ms: u64,
    /// When its last keep-alive arrived at a leader.
    arrived_ms: u64,
}

struct World {
    began: Instant,
    now_ms: u64,
    /// As of all that is committed and applied.
    table: Table,
    leadership: u64,
    led_since_ms: u64,
    timers: Timers,
    old: BTreeMap<u64, Timers>,
    /// In the leader's log, not committed yet.
    in_flight: Option<Vec<u64>>,
    clients: BTreeMap<u64, Client>,
    flaws: Flaws,
    violations: Vec<String>,
}

impl World {
    fn new(flaws: Flaws) -> Self {
        let began = Instant::now();
        let mut table = Table::default();
        table.lead(1);
        let timers = Timers::begin(1, table.leases(), began, pace(flaws));
        Self {
            began,
            now_ms: 0,
            table,
            leadership: 1,
            led_since_ms: 0,
            timers,
            old: BTreeMap::new(),
            in_flight: None,
            clients: BTreeMap::new(),
            flaws,
            violations: Vec::new(),
        }
    }

    fn now(&self) -> Instant {
        self.began + Duration::from_millis(self.now_ms)
    }

    fn apply(&mut self, step: &Step) {
        let mut news = News::default();
        self.table.take(step, &mut news);
        for news in &news.leases {
            self.timers.hear(news, self.now());
            match news {
                LeaseNews::Began { number, .. } => {
                    let client = Client { acknowledged_ms: self.now_ms, arrived_ms: self.now_ms };
                    self.clients.insert(*number, client);
                }
                LeaseNews::Ended { number } => {
                    let client = self.clients.remove(number).expect("it lived");
                    if self.now_ms < client.acknowledged_ms + TTL_MS {
                        self.violations.push(format!("lease {number} ended at {}: {client:?}", self.now_ms));
                    }
                }
            }
        }
    }

    fn create(&mut self) {
        let action = Action::CreateLease { lease: None, ttl_ms: TTL_MS, credential: None };
        self.apply(&Step::Command(Command { action, node: 1, at: UnixMillis(0) }));
    }

    /// Lets one tick pass: what was proposed in the last one is committed, and what is due is proposed.
    fn tick(&mut self) {
        self.now_ms += TICK_MS;
        if let Some(leases) = self.in_flight.take() {
            self.apply(&Step::Expire { leases });
        }
        let now = self.now();
        let due = self.timers.due(now, |_| 0);
        if !due.is_empty() {
            self.in_flight = Some(due);
        }
        if (self.now_ms - self.led_since_ms).is_multiple_of(1_000)
            && let Some(age) = self.timers.age(now)
        {
            self.apply(&Step::Aged { ms: age.as_millis() as u64 });
        }
        for (number, client) in &self.clients {
            let since = client.arrived_ms.max(self.led_since_ms);
            if self.now_ms > since + TTL_MS + 1_000 {
                self.violations.push(format!("lease {number} lives at {}: {client:?}", self.now_ms));
            }
        }
    }

    fn pass(&mut self, ms: u64) {
        (0..ms / TICK_MS).for_each(|_| self.tick());
    }

    /// A keep-alive, sent a moment ago, with a majority in reach. Whether it was acknowledged.
    fn keep(&mut self, number: u64) -> bool {
        let now = self.now();
        let arrival = self.timers.arrive(number, now);
        if !self.clients.contains_key(&number) {
            return false;
        }
        let acknowledged = match arrival {
            Arrival::Renewed { proven: true } => true,
            Arrival::Renewed { proven: false } => {
                if !self.flaws.unlogged {
                    self.apply(&Step::KeptAlive { leases: vec![number] });
                }
                self.timers.prove(&[number]);
                true
            }
            // What it waits for is the end of the lease.
            Arrival::Expiring => self.flaws.over_expiry,
            Arrival::Unknown => false,
        };
        let client = self.clients.get_mut(&number).expect("it lives");
        client.arrived_ms = self.now_ms;
        if acknowledged {
            client.acknowledged_ms = self.now_ms;
        }
        acknowledged
    }

    /// Another leader, or (by the planted flaw) an earlier one again. What the last one had in flight is inherited or lost.
    fn elect(&mut self, leadership_to_go_on_with: Option<u64>, inherits: bool) {
        let inherited = self.in_flight.take().filter(|_| inherits);
        self.leadership += 1;
        let first = |world: &mut Self| {
            world.table.lead(world.leadership);
            world.led_since_ms = world.now_ms;
            let timers = Timers::begin(world.leadership, world.table.leases(), world.now(), pace(world.flaws));
            let last = std::mem::replace(&mut world.timers, timers);
            world.old.insert(last.leadership(), last);
        };
        if self.flaws.before_first_entry {
            first(self);
            self.in_flight = inherited;
        } else {
            if let Some(leases) = inherited {
                self.apply(&Step::Expire { leases });
            }
            first(self);
        }
        if self.flaws.old_timers
            && let Some(old) = leadership_to_go_on_with.and_then(|leadership| self.old.remove(&leadership))
        {
            self.timers = old;
        }
    }

    fn early(&self) -> bool {
        self.violations.iter().any(|violation| violation.contains("ended"))
    }
}

#[derive(Clone, Debug)]
enum Event {
    Create,
    Keep(usize),
    Pass(u64),
    Elect { inherits: bool },
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        1 => Just(Event::Create),
        6 => (0..4_usize).prop_map(Event::Keep),
        6 => (100..2_500_u64).prop_map(Event::Pass),
        2 => any::<bool>().prop_map(|inherits| Event::Elect { inherits }),
    ];
    proptest::collection::vec(event, 1..80)
}

fn run(events: &[Event], flaws: Flaws) -> World {
    let mut world = World::new(flaws);
    world.create();
    for event in events {
        match event {
            Event::Create => world.create(),
            Event::Keep(at) => {
                if let Some(number) = world.clients.keys().nth(*at).copied() {
                    world.keep(number);
                }
            }
            Event::Pass(ms) => world.pass(*ms),
            Event::Elect { inherits } => world.elect(None, *inherits),
        }
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_lease_ends_early_and_none_lives_on(events in events()) {
        let world = run(&events, Flaws::default());
        prop_assert!(world.violations.is_empty(), "{:?}", world.violations);
    }
}

#[test]
fn a_dead_lease_is_not_prolonged_for_ever_by_elections() {
    let mut world = World::new(Flaws::default());
    world.create();
    // Each leader uses up at least the two whole seconds that it has noted.
    for _ in 0..TTL_MS / 2_000 + 1 {
        world.pass(2_500);
        world.elect(None, false);
    }
    world.pass(1_500);
    assert!(world.clients.is_empty(), "{:?}", world.clients);
    assert!(world.violations.is_empty(), "{:?}", world.violations);
}

/// Whether a run with a rule left out ends a lease early, and the same run with all rules does not.
fn only_without(flaws: Flaws, run: fn(Flaws) -> World) {
    let sound = run(Flaws::default());
    assert!(sound.violations.is_empty(), "{:?}", sound.violations);
    let flawed = run(flaws);
    assert!(flawed.early(), "nothing is wrong without the rule: {:?}", flawed.violations);
}

/// Until an expiry is in flight.
fn until_due(world: &mut World) {
    while world.in_flight.is_none() {
        world.tick();
        assert!(world.now_ms < 60_000, "nothing is ever due");
    }
}

#[test]
fn an_inherited_expiry_is_applied_before_the_new_leader_keeps_anything_alive() {
    only_without(Flaws { before_first_entry: true, ..Flaws::default() }, |flaws| {
        let mut world = World::new(flaws);
        world.create();
        until_due(&mut world);
        world.elect(None, true);
        world.keep(1);
        world.pass(200);
        world
    });
}

#[test]
fn a_keep_alive_waits_for_an_expiry_that_is_on_its_way() {
    only_without(Flaws { over_expiry: true, ..Flaws::default() }, |flaws| {
        let mut world = World::new(flaws);
        world.create();
        until_due(&mut world);
        world.keep(1);
        world.pass(200);
        world
    });
}

#[test]
fn a_node_that_leads_again_has_forgotten_its_old_deadlines() {
    only_without(Flaws { old_timers: true, ..Flaws::default() }, |flaws| {
        let mut world = World::new(flaws);
        world.create();
        world.pass(1_000);
        world.elect(None, false);
        world.pass(3_000);
        world.keep(1);
        world.elect(Some(1), false);
        world.pass(2_000);
        world
    });
}

#[test]
fn the_first_keep_alive_under_a_leader_is_in_the_log_before_it_counts() {
    only_without(Flaws { unlogged: true, ..Flaws::default() }, |flaws| {
        let mut world = World::new(flaws);
        world.create();
        world.elect(None, false);
        world.pass(4_000);
        world.keep(1);
        world.elect(None, false);
        world.pass(2_000);
        world
    });
}

#[test]
fn a_planted_haste_is_found() {
    only_without(Flaws { hasty: true, ..Flaws::default() }, |flaws| {
        let mut world = World::new(flaws);
        world.create();
        world.keep(1);
        world.pass(4_000);
        world
    });
}
