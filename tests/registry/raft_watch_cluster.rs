//! Watches of `cp` over real nodes: resumed on other nodes while leaders die, begun with the state while it changes, too slow, cut off.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use quorate::model::command::{Action, Condition};
use quorate::model::entry::{Entry, Holder};
use quorate::model::event::{Change, EndReason, Event, Filter};
use quorate::model::ident::{LeaseId, Meta, NodeId, Revision};
use quorate::model::outcome::Outcome;
use quorate::model::query::{Answer, Page, Query};
use quorate::raft::{Flaws, RaftConfig, RaftNode};
use quorate::registry::{
    CommandFailure, Consistency, Position, Reason, Registry, Reply, Told, Watch, WatchFailure, WatchMessage, Watching,
};

use crate::raft_cluster::{Cluster, command_call, query_call, register};

const PATIENCE: Duration = Duration::from_secs(30);

async fn begin(node: &RaftNode, from: Position, initial: bool) -> Result<Box<dyn Watching>, WatchFailure> {
    let watch = Watch { filter: Filter::default(), from, initial };
    node.registry.watch(watch, Instant::now() + PATIENCE).await
}

async fn next(watch: &mut Box<dyn Watching>) -> Option<WatchMessage> {
    tokio::time::timeout(PATIENCE, watch.next()).await.expect("a message in time")
}

/// The next message that is no progress.
async fn next_news(watch: &mut Box<dyn Watching>) -> Told {
    loop {
        match next(watch).await.expect("the node goes on").told {
            Told::Progress { .. } => {}
            told => return told,
        }
    }
}

fn number(revision: &Revision) -> u64 {
    let Revision::Cp(number) = revision else { panic!("{revision:?}") };
    *number
}

async fn revision(node: &RaftNode) -> u64 {
    let query = Query::Groups { page: Page::default() };
    let reply = node.registry.query(query, &query_call(Consistency::Linearizable, 20_000)).await.unwrap();
    number(&reply.revision)
}

async fn names(node: &RaftNode) -> Vec<Entry> {
    let (mut all, mut page) = (Vec::new(), Page { limit: 1000, ..Page::default() });
    loop {
        let query = Query::Names { page: page.clone() };
        let reply = node.registry.query(query, &query_call(Consistency::Linearizable, 20_000)).await.unwrap();
        let Answer::Entries { entries, next } = reply.value else { panic!("entries were asked for") };
        all.extend(entries);
        match next {
            Some(next) => page.after = Some(next),
            None => return all,
        }
    }
}

/// What events make of a state.
fn fold(state: &mut BTreeMap<Holder, Entry>, event: &Event) {
    for change in &event.changes {
        match change {
            Change::Registered { entry, previous, .. } => {
                state.remove(&previous.as_ref().unwrap_or(entry).holder);
                state.insert(entry.holder.clone(), entry.clone());
            }
            Change::Updated { entry, .. } | Change::Joined { entry } => {
                state.insert(entry.holder.clone(), entry.clone());
            }
            Change::Ended { entry, .. } | Change::Left { entry, .. } => {
                state.remove(&entry.holder);
            }
            other => panic!("{other:?}"),
        }
    }
}

/// One who reads all events, wherever it can, and remembers how far it is.
#[derive(Default)]
struct Reader {
    events: Vec<Event>,
    position: u64,
}

impl Reader {
    async fn watch(&self, node: &RaftNode) -> Box<dyn Watching> {
        begin(node, Position::After(Revision::Cp(self.position)), false).await.unwrap()
    }

    fn take(&mut self, message: WatchMessage) {
        match message.told {
            Told::Change(event) => self.events.push(event),
            Told::Progress { .. } | Told::Stalled => {}
            other => panic!("{other:?} at {}", self.position),
        }
        if let Some(position) = message.position {
            self.position = number(&position);
        }
    }

    async fn read_until(&mut self, node: &RaftNode, revision: u64) {
        let mut watch = self.watch(node).await;
        while self.position < revision {
            let message = next(&mut watch).await.expect("the node goes on");
            self.take(message);
        }
    }

    /// Every revision once, in order, and what was acknowledged as it was acknowledged.
    fn verdict(&self, last: u64, acknowledged: &BTreeMap<u64, Entry>) -> Result<(), String> {
        let mut expected = 1;
        for event in &self.events {
            if number(&event.revision) != expected {
                return Err(format!("revision {} came where {expected} was due", number(&event.revision)));
            }
            if let Some(entry) = acknowledged.get(&expected) {
                let [Change::Registered { entry: told, .. } | Change::Updated { entry: told, .. }] = &event.changes[..]
                else {
                    return Err(format!("{event:?} at a registration"));
                };
                if told != entry {
                    return Err(format!("told of {told:?}, acknowledged was {entry:?}"));
                }
            }
            expected += 1;
        }
        if expected != last + 1 { Err(format!("told up to {}, not {last}", expected - 1)) } else { Ok(()) }
    }
}

async fn write(cluster: &Cluster, through: NodeId, at: u64) -> Result<Reply<Outcome>, CommandFailure> {
    let name = format!("n{}", at % 50);
    let action = match at % 5 {
        4 => Action::Unregister { name: format!("n{}", (at - 2) % 50).parse().unwrap(), token: None },
        _ => {
            let meta = format!("{{\"at\":{at}}}").parse().unwrap();
            let (name, owner) = (name.parse().unwrap(), "a".parse().unwrap());
            Action::Register { name, owner, meta, lease: None, condition: Condition::Free }
        }
    };
    cluster.nodes[&through].registry.execute(action, &command_call(6_000)).await
}

/// A reader goes from node to node as those that serve it die, in the middle of what they had to tell.
async fn a_reader_follows_through_leader_deaths(tune: fn(&mut RaftConfig)) -> Result<(), String> {
    let mut cluster = Cluster::start_tuned(3, tune).await;
    let (mut reader, mut acknowledged) = (Reader::default(), BTreeMap::new());
    let mut at = 0;
    for _ in 0..2 {
        let leader = cluster.leader().await;
        let mut watch = reader.watch(&cluster.nodes[&leader]).await;
        for dead in [None, Some(leader)] {
            if let Some(dead) = dead {
                for _ in 0..15 {
                    let message = next(&mut watch).await.expect("the node goes on");
                    reader.take(message);
                }
                cluster.stop(dead).await;
            }
            for _ in 0..30 {
                at += 1;
                let nodes = cluster.nodes.keys().copied().collect::<Vec<_>>();
                let through = nodes[at as usize % nodes.len()];
                let Ok(reply) = write(&cluster, through, at).await else { continue };
                if let Outcome::Granted { entry, .. } | Outcome::Held { entry } = reply.value {
                    acknowledged.insert(number(&reply.revision), entry);
                }
            }
        }
        drop(watch);
        cluster.restart(leader).await;
    }
    let last = revision(&cluster.nodes[&1]).await;
    for node in cluster.nodes.values() {
        // A few here, a few there.
        let until = (reader.position + 20).min(last);
        reader.read_until(node, until).await;
    }
    reader.read_until(&cluster.nodes[&2], last).await;
    reader.verdict(last, &acknowledged)?;
    let mut state = BTreeMap::new();
    reader.events.iter().for_each(|event| fold(&mut state, event));
    let found = names(&cluster.nodes[&3]).await;
    assert_eq!(state.into_values().collect::<Vec<_>>(), found, "the events lead to another state");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_revision_is_told_once_and_in_order_although_leaders_and_the_readers_nodes_die() {
    a_reader_follows_through_leader_deaths(|_| {}).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_planted_drop_on_resume_is_found_out() {
    let flawed = |config: &mut RaftConfig| config.flaws = Flaws { drop_on_resume: true, ..Flaws::default() };
    let why = a_reader_follows_through_leader_deaths(flawed).await.unwrap_err();
    assert!(why.contains("was due") || why.contains("told up to"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_state_and_what_changes_after_it_fit_together_under_writes() {
    let cluster = Cluster::start(1).await;
    cluster.leader().await;
    for at in 0..250 {
        cluster.register(1, &format!("old{at:03}"), "a").await.unwrap();
    }
    let registry = cluster.nodes[&1].registry.clone();
    let writing = tokio::spawn(async move {
        for at in 0..300 {
            let name = format!("old{:03}", at % 250).parse().unwrap();
            let action = match at % 2 {
                0 => Action::Unregister { name, token: None },
                _ => register(&format!("new{at}"), "b"),
            };
            registry.execute(action, &command_call(20_000)).await.unwrap();
        }
    });
    let mut watch = begin(&cluster.nodes[&1], Position::Now, true).await.unwrap();
    let (mut state, mut order) = (BTreeMap::new(), Vec::new());
    let synced = loop {
        let message = next(&mut watch).await.unwrap();
        match message.told {
            Told::State(page) => {
                assert_eq!(message.position, None);
                order.extend(page.iter().map(|entry| entry.holder.clone()));
                state.extend(page.into_iter().map(|entry| (entry.holder.clone(), entry)));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Told::Synced => break number(&message.position.unwrap()),
            other => panic!("{other:?}"),
        }
    };
    assert!(order.is_sorted() && order.len() == state.len());
    assert!(state.values().all(|entry| number(&entry.revision) <= synced), "newer than its position");
    writing.await.unwrap();
    let last = revision(&cluster.nodes[&1]).await;
    assert!(last > synced);
    for due in synced + 1..=last {
        let told = next_news(&mut watch).await;
        let Told::Change(event) = told else { panic!("{told:?}") };
        assert_eq!(number(&event.revision), due);
        fold(&mut state, &event);
    }
    assert_eq!(state.into_values().collect::<Vec<_>>(), names(&cluster.nodes[&1]).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_before_a_watch_of_now_is_not_told() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    for at in 0..10 {
        let through = at % 3 + 1;
        let (registry, call) = (&cluster.nodes[&leader].registry, command_call(5_000));
        let granted = registry.execute(register(&format!("n{at}"), "a"), &call).await.unwrap();
        let acknowledged = number(&granted.revision);
        let mut watch = begin(&cluster.nodes[&through], Position::Now, false).await.unwrap();
        let message = next(&mut watch).await.unwrap();
        assert!(matches!(message.told, Told::Progress { .. }), "{message:?}");
        assert!(number(&message.position.unwrap()) >= acknowledged);
    }
}

fn short_history(config: &mut RaftConfig) {
    config.watch_history = 50;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_is_cut_off_while_writers_go_on() {
    let cluster = Cluster::start_tuned(1, short_history).await;
    cluster.leader().await;
    let mut slow = begin(&cluster.nodes[&1], Position::Now, false).await.unwrap();
    for at in 0..200 {
        let outcome = cluster.register(1, &format!("n{at}"), "a").await;
        assert!(matches!(outcome, Ok(Outcome::Granted { .. })), "{outcome:?}");
    }
    assert_eq!(next_news(&mut slow).await, Told::Overflow);
    assert_eq!(next(&mut slow).await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_is_kept_gone_or_yet_to_come() {
    let cluster = Cluster::start_tuned(1, short_history).await;
    cluster.leader().await;
    for at in 0..100 {
        cluster.register(1, &format!("n{at}"), "a").await.unwrap();
    }
    let node = &cluster.nodes[&1];
    let after = |revision| begin(node, Position::After(Revision::Cp(revision)), false);
    assert_eq!(after(49).await.err(), Some(WatchFailure::Compacted { oldest: Revision::Cp(50) }));
    let mut kept = after(50).await.unwrap();
    let told = next_news(&mut kept).await;
    assert!(matches!(&told, Told::Change(event) if event.revision == Revision::Cp(51)), "{told:?}");
    let mut gone = begin(node, Position::Resume(Revision::Cp(3)), false).await.unwrap();
    let message = next(&mut gone).await.unwrap();
    assert_eq!(message, WatchMessage { told: Told::Resync, position: Some(Revision::Cp(100)) });

    let watch = Watch { filter: Filter::default(), from: Position::After(Revision::Cp(101)), initial: false };
    let early = node.registry.watch(watch, Instant::now() + Duration::from_millis(200)).await;
    let behind = WatchFailure::Failed(Reason::Behind { applied: Revision::Cp(100) });
    assert_eq!(early.err(), Some(behind));
    let registry = node.registry.clone();
    let writing = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        for name in ["late", "later"] {
            registry.execute(register(name, "a"), &command_call(5_000)).await.unwrap();
        }
    });
    let mut late = after(101).await.unwrap();
    let told = next_news(&mut late).await;
    assert!(matches!(&told, Told::Change(event) if event.revision == Revision::Cp(102)), "{told:?}");
    writing.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_off_nodes_watch_does_not_look_healthy_and_goes_on_after_the_heal() {
    let cluster = Cluster::start_tuned(3, |config| config.watch_progress = Duration::from_millis(300)).await;
    let leader = cluster.leader().await;
    cluster.register(leader, "before", "a").await.unwrap();
    let cut = leader % 3 + 1;
    let mut watch = begin(&cluster.nodes[&cut], Position::Now, false).await.unwrap();
    for round in 1..=2u64 {
        cluster.cut(&[cut]);
        while next(&mut watch).await.unwrap().told != Told::Stalled {}
        // It is told once; from now on its progress is no comfort.
        for _ in 0..3 {
            assert_eq!(next(&mut watch).await.unwrap().told, Told::Progress { quorum: Some(false) });
        }
        let through = cluster.leader_among(&(1..=3).filter(|id| *id != cut).collect::<Vec<_>>()).await;
        cluster.register(through, &format!("during{round}"), "a").await.unwrap();
        cluster.cut(&[]);
        let (mut told, mut is_well) = (None, false);
        while told.is_none() || !is_well {
            match next(&mut watch).await.unwrap().told {
                Told::Change(event) => assert_eq!(told.replace(number(&event.revision)), None),
                Told::Progress { quorum } => is_well = quorum == Some(true),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(told, Some(round + 1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_sent_a_snapshot_tells_its_readers() {
    let cluster = Cluster::start_tuned(3, |config| {
        config.snapshot_every = 50;
        config.log_kept = 10;
    })
    .await;
    let leader = cluster.leader().await;
    let cut = leader % 3 + 1;
    cluster.register(leader, "before", "a").await.unwrap();
    let mut reader = Reader::default();
    reader.read_until(&cluster.nodes[&cut], 1).await;
    let mut watch = reader.watch(&cluster.nodes[&cut]).await;
    cluster.cut(&[cut]);
    let through = cluster.leader_among(&(1..=3).filter(|id| *id != cut).collect::<Vec<_>>()).await;
    for at in 0..300 {
        cluster.register(through, &format!("n{at}"), "a").await.unwrap();
    }
    let deadline = Instant::now() + PATIENCE;
    while cluster.nodes[&through].log_extent().purged < Some(10) {
        assert!(Instant::now() < deadline, "{:?}", cluster.nodes[&through].log_extent());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    cluster.cut(&[]);
    let mut due = 2;
    let position = loop {
        let message = next(&mut watch).await.unwrap();
        match message.told {
            Told::Stalled | Told::Progress { .. } => {}
            Told::Resync => break number(&message.position.unwrap()),
            // On its way already when the link was cut.
            Told::Change(event) if number(&event.revision) == due => due += 1,
            other => panic!("{other:?}"),
        }
    };
    let last = revision(&cluster.nodes[&cut]).await;
    assert!(position >= due && position <= last);
    cluster.register(through, "after", "a").await.unwrap();
    for due in position + 1..=last + 1 {
        let told = next_news(&mut watch).await;
        assert!(matches!(&told, Told::Change(event) if number(&event.revision) == due), "{told:?} where {due} was due");
    }
    // What came as a state cannot be told as changes.
    let gone = begin(&cluster.nodes[&cut], Position::After(Revision::Cp(1)), false).await;
    assert!(matches!(gone.err(), Some(WatchFailure::Compacted { oldest }) if number(&oldest) > 1));
}

/// Each lease ends in one revision with everything bound to it. A reader that is cut off after each single message, and goes on
/// elsewhere, hears of every end once, and never of a part.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_is_cut_off_among_many_ends_never_resumes_behind_a_part_of_one() {
    const LEASES: usize = 10;
    const BOUND: usize = 1_000;
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let registry = &cluster.nodes[&leader].registry;
    let lease = |at: usize| format!("lease-{at}").parse::<LeaseId>().unwrap();
    for at in 0..LEASES {
        let create = Action::CreateLease { lease: Some(lease(at)), ttl_ms: 600_000, credential: None };
        registry.execute(create, &command_call(10_000)).await.unwrap();
        let join = |member| Action::Join {
            group: format!("group-{at}").parse().unwrap(),
            member: format!("member-{member}").parse().unwrap(),
            meta: Meta::empty(),
            lease: Some(lease(at)),
        };
        let reply = registry.batch((0..BOUND).map(join).collect(), &command_call(20_000)).await.unwrap();
        assert!(reply.value.iter().all(|outcome| matches!(outcome, Outcome::Granted { .. })));
    }
    let mut position = revision(&cluster.nodes[&leader]).await;
    for at in 0..LEASES {
        let revoke = Action::RevokeLease { lease: lease(at), by: None };
        registry.execute(revoke, &command_call(10_000)).await.unwrap();
    }
    for at in 0..LEASES {
        let node = &cluster.nodes[&(at as u64 % 3 + 1)];
        let mut watch = begin(node, Position::Resume(Revision::Cp(position)), false).await.unwrap();
        let (event, next_position) = loop {
            let message = next(&mut watch).await.unwrap();
            match message.told {
                Told::Change(event) => break (event, message.position.unwrap()),
                Told::Progress { .. } => {}
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(event.changes.len(), BOUND, "{at}");
        let group = format!("group-{at}").parse().unwrap();
        assert!(event.changes.iter().all(|change| matches!(
            change,
            Change::Left { entry: Entry { holder: Holder::Member(left, _), .. }, reason: EndReason::LeaseRevoked }
                if *left == group
        )));
        assert_eq!(number(&next_position), position + 1);
        position += 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_end_with_their_node_and_do_not_hold_it_up() {
    let mut cluster = Cluster::start(1).await;
    cluster.register(1, "x", "a").await.unwrap();
    let mut watches = Vec::new();
    for initial in [false, true] {
        watches.push(begin(&cluster.nodes[&1], Position::Now, initial).await.unwrap());
    }
    cluster.stop(1).await;
    // Its directory is free although the watches are still there.
    cluster.restart(1).await;
    for mut watch in watches {
        while next(&mut watch).await.is_some() {}
    }
}
