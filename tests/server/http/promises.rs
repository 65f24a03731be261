//! What every registry promises, whatever its mode and however it is reached: one suite over the reference, `cp` and `ap`, and over
//! each of them through the client and HTTP. What a mode promises beyond that has tests of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use quorate::client::call::{CallOptions, Caller};
use quorate::client::client::Client;
use quorate::client::watch::{Seen, Watch as ClientWatch};
use quorate::gossip::{self, GossipConfig, GossipNode};
use quorate::model::command::{Action, Condition};
use quorate::model::entry::{Entry, Holder};
use quorate::model::event::{Change, EndReason, Event, Filter, Told};
use quorate::model::ident::{LeaseId, Meta, Mode, RecordId, Revision, Token};
use quorate::model::lease::KeptAlive;
use quorate::model::outcome::{Ended, Outcome, Refusal};
use quorate::model::query::{Answer, Page, Query};
use quorate::net::fault::FaultTable;
use quorate::net::links::{Identity, Links};
use quorate::net::wire::RealWire;
use quorate::raft::{self, RaftConfig, RaftNode};
use quorate::registry::{CommandCall, Consistency, KeepAlive, Position, QueryCall, Registry, Watch, Watching};
use tokio::time::timeout;

use super::reference::Reference;
use super::support::{Server, state};

/// Generous: the machine may be busy.
const SOON: Duration = Duration::from_secs(30);

/// A registry, as the suite sees it.
#[async_trait]
trait Subject: Send + Sync {
    fn mode(&self) -> Mode;
    async fn execute(&self, action: Action) -> Outcome;
    async fn query(&self, query: Query) -> Answer;
    async fn batch(&self, actions: Vec<Action>) -> Vec<Outcome>;
    async fn keep_alive(&self, lease: &LeaseId, seen: Vec<RecordId>) -> Result<KeptAlive, Refusal>;
    /// A watch that begins with the state, or after a position.
    async fn watch(&self, filter: Filter, after: Option<Revision>) -> Box<dyn Following>;
}

#[async_trait]
trait Following: Send {
    /// The next thing told, with where one may go on after it. Progress is passed over.
    async fn next(&mut self) -> (Story, Option<Revision>);
}

#[derive(Debug)]
enum Story {
    State(Vec<Entry>),
    Synced,
    Change(Event),
}

/// A registry in this process.
struct Direct(Arc<dyn Registry>);

struct DirectWatch(Box<dyn Watching>);

#[async_trait]
impl Subject for Direct {
    fn mode(&self) -> Mode {
        self.0.mode()
    }

    async fn execute(&self, action: Action) -> Outcome {
        self.0.execute(action, &command_call()).await.unwrap().value
    }

    async fn query(&self, query: Query) -> Answer {
        let consistency = Consistency::default_of(self.0.mode());
        let call = QueryCall::new(Instant::now() + SOON, consistency);
        self.0.query(query, &call).await.unwrap().value
    }

    async fn batch(&self, actions: Vec<Action>) -> Vec<Outcome> {
        self.0.batch(actions, &command_call()).await.unwrap().value
    }

    async fn keep_alive(&self, lease: &LeaseId, seen: Vec<RecordId>) -> Result<KeptAlive, Refusal> {
        let keep = KeepAlive { leases: vec![lease.clone()], seen, by: None };
        self.0.keep_alive(keep, &command_call()).await.unwrap().value.remove(0)
    }

    async fn watch(&self, filter: Filter, after: Option<Revision>) -> Box<dyn Following> {
        let initial = after.is_none();
        let watch = Watch { filter, from: after.map_or(Position::Now, Position::After), initial };
        Box::new(DirectWatch(self.0.watch(watch, Instant::now() + SOON).await.unwrap()))
    }
}

fn command_call() -> CommandCall {
    CommandCall { deadline: Instant::now() + SOON, forward: true, acks: 1 }
}

#[async_trait]
impl Following for DirectWatch {
    async fn next(&mut self) -> (Story, Option<Revision>) {
        loop {
            let message = timeout(SOON, self.0.next()).await.expect("a message").expect("no end");
            let story = match message.told {
                Told::State(entries) => Story::State(entries),
                Told::Synced => Story::Synced,
                Told::Change(event) => Story::Change(event),
                Told::Progress { .. } => continue,
                other => panic!("{other:?}"),
            };
            return (story, message.position);
        }
    }
}

/// A registry behind a server.
struct Remote {
    caller: Caller,
    client: Client,
    _server: Server,
}

struct RemoteWatch(ClientWatch);

#[async_trait]
impl Subject for Remote {
    fn mode(&self) -> Mode {
        self.client.mode()
    }

    async fn execute(&self, action: Action) -> Outcome {
        self.caller.execute(self.mode(), &action, &options()).await.unwrap().value
    }

    async fn query(&self, query: Query) -> Answer {
        self.caller.query(self.mode(), &query, &options()).await.unwrap().value
    }

    async fn batch(&self, actions: Vec<Action>) -> Vec<Outcome> {
        self.caller.batch(self.mode(), &actions, &options()).await.unwrap().value
    }

    async fn keep_alive(&self, lease: &LeaseId, seen: Vec<RecordId>) -> Result<KeptAlive, Refusal> {
        self.caller.keep_alive(self.mode(), lease, &seen, &options()).await.unwrap()
    }

    async fn watch(&self, filter: Filter, after: Option<Revision>) -> Box<dyn Following> {
        let watch = self.client.watch(filter);
        Box::new(RemoteWatch(match after {
            None => watch.with_state(),
            Some(after) => watch.after(after),
        }))
    }
}

fn options() -> CallOptions {
    CallOptions { timeout: SOON, ..CallOptions::default() }
}

#[async_trait]
impl Following for RemoteWatch {
    async fn next(&mut self) -> (Story, Option<Revision>) {
        loop {
            let seen = timeout(SOON, self.0.next()).await.expect("a message").unwrap();
            let story = match seen {
                Seen::State(entries) => Story::State(entries),
                Seen::Synced => Story::Synced,
                Seen::Change(event) => Story::Change(event),
                Seen::Progress { .. } => continue,
                other => panic!("{other:?}"),
            };
            return (story, self.0.position().cloned());
        }
    }
}

/// Registries that this process runs: a node of each mode, alone, over real links and a real disk.
struct World {
    cp: RaftNode,
    ap: GossipNode,
    _directory: tempfile::TempDir,
}

impl World {
    async fn start() -> Self {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let links = |run| async move {
            let me = Identity { cluster: "promises".into(), node: 1, run, policy: "oldest".into() };
            let at = "127.0.0.1:0".parse().unwrap();
            Links::bind(Arc::new(RealWire), me, at, FaultTable::new(1)).await.unwrap()
        };
        let members = |links: &Links| BTreeMap::from([(1, links.local_addr().to_string())]);
        let (one, two) = (links(1).await, links(2).await);
        let mut config = RaftConfig::new(1, members(&one), directory.path().join("cp"));
        config.fatal = Arc::new(|line| panic!("{line}"));
        let cp = raft::start(config, one).await.unwrap();
        let config = GossipConfig::new(1, members(&two), directory.path().join("ap"));
        let ap = gossip::start(config, two).await.unwrap();
        let deadline = Instant::now() + SOON;
        for registry in [&*cp.registry as &dyn Registry, &*ap.registry] {
            while registry.ready(Instant::now() + SOON).await.is_err() {
                assert!(Instant::now() < deadline, "never ready");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Self { cp, ap, _directory: directory }
    }

    fn registry(&self, mode: Mode) -> Arc<dyn Registry> {
        match mode {
            Mode::Cp => self.cp.registry.clone(),
            Mode::Ap => self.ap.registry.clone(),
        }
    }
}

async fn remote(registry: Arc<dyn Registry>) -> Remote {
    let mode = registry.mode();
    let server = Server::start(state(registry.clone(), registry)).await;
    let client = Client::builder().endpoints([server.url()]).mode(mode).build().unwrap();
    Remote { caller: Caller::new(&server.url()).unwrap(), client, _server: server }
}

/// The suite, but for what takes a clock that goes on.
async fn keeps_its_promises(subject: &dyn Subject) {
    a_name_has_one_owner(subject).await;
    a_condition_is_held_or_refused(subject).await;
    a_group_has_its_members(subject).await;
    what_is_bound_to_a_lease_ends_with_it(subject).await;
    a_batch_is_carried_out_in_order(subject).await;
    a_lost_name_is_told_until_it_is_seen(subject).await;
    a_watch_tells_everything_in_order(subject).await;
}

#[tokio::test]
async fn the_reference_keeps_its_promises() {
    keeps_its_promises(&Direct(Arc::new(Reference::default()))).await;
}

#[tokio::test]
async fn the_reference_keeps_its_promises_through_http() {
    keeps_its_promises(&remote(Arc::new(Reference::default())).await).await;
}

#[tokio::test]
async fn both_modes_keep_their_promises() {
    let world = World::start().await;
    for mode in Mode::ALL {
        let subject = Direct(world.registry(mode));
        keeps_its_promises(&subject).await;
        a_lease_lives_its_time_and_no_longer(&subject).await;
    }
}

#[tokio::test]
async fn both_modes_keep_their_promises_through_http() {
    let world = World::start().await;
    for mode in Mode::ALL {
        let subject = remote(world.registry(mode)).await;
        keeps_its_promises(&subject).await;
        a_lease_lives_its_time_and_no_longer(&subject).await;
    }
}

fn register(name: &str, owner: &str, lease: Option<&LeaseId>, condition: Condition) -> Action {
    Action::Register {
        name: name.parse().unwrap(),
        owner: owner.parse().unwrap(),
        meta: Meta::empty(),
        lease: lease.cloned(),
        condition,
    }
}

fn unregister(name: &str, token: Option<Token>) -> Action {
    Action::Unregister { name: name.parse().unwrap(), token }
}

fn join(group: &str, member: &str, lease: Option<&LeaseId>) -> Action {
    let (group, member) = (group.parse().unwrap(), member.parse().unwrap());
    Action::Join { group, member, meta: Meta::empty(), lease: lease.cloned() }
}

fn whereis(name: &str, token: Option<Token>) -> Query {
    Query::Whereis { name: name.parse().unwrap(), token }
}

fn granted(outcome: Outcome) -> Entry {
    match outcome {
        Outcome::Granted { entry, .. } => entry,
        other => panic!("not granted: {other:?}"),
    }
}

fn held(outcome: Outcome) -> Entry {
    match outcome {
        Outcome::Held { entry } => entry,
        other => panic!("not held: {other:?}"),
    }
}

fn refused(outcome: Outcome) -> Refusal {
    match outcome {
        Outcome::Refused(refusal) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

async fn lease(subject: &dyn Subject, id: Option<&str>, ttl_ms: u64) -> LeaseId {
    let id = id.map(|id| id.parse().unwrap());
    match subject.execute(Action::CreateLease { lease: id, ttl_ms, credential: None }).await {
        Outcome::LeaseCreated { lease, ttl_ms: lives } => {
            assert_eq!(lives, ttl_ms);
            lease
        }
        other => panic!("no lease: {other:?}"),
    }
}

/// A token of this mode that nobody was ever given.
fn never_issued(mode: Mode) -> Token {
    match mode {
        Mode::Cp => Token::Cp(u64::MAX),
        Mode::Ap => Token::parse(Mode::Ap, "1.1.1.ffff").unwrap(),
    }
}

async fn a_name_has_one_owner(subject: &dyn Subject) {
    assert_eq!(subject.query(whereis("own", None)).await, Answer::Refused(Refusal::NotFound));
    assert_eq!(refused(subject.execute(unregister("own", None)).await), Refusal::NotFound);
    let first = granted(subject.execute(register("own", "a", None, Condition::Free)).await);
    assert_eq!(held(subject.execute(register("own", "a", None, Condition::Free)).await), first);
    match refused(subject.execute(register("own", "b", None, Condition::Free)).await) {
        Refusal::NameTaken { current } => assert_eq!(current, first),
        other => panic!("{other:?}"),
    }
    assert_eq!(subject.query(whereis("own", Some(first.token))).await, Answer::Entry(first.clone()));
    assert_eq!(
        subject.execute(unregister("own", Some(first.token))).await,
        Outcome::Ended(Ended::Now),
        "its own grant"
    );
    let second = granted(subject.execute(register("own", "b", None, Condition::Free)).await);
    assert!(second.token > first.token, "tokens rise");
    // A copy of the first end that comes late does not touch the successor's grant.
    assert_eq!(subject.execute(unregister("own", Some(first.token))).await, Outcome::Ended(Ended::Before));
    assert_eq!(subject.query(whereis("own", None)).await, Answer::Entry(second.clone()));
    match subject.query(whereis("own", Some(first.token))).await {
        Answer::Refused(Refusal::TokenStale { current }) => assert_eq!(current, Some(second.clone())),
        other => panic!("{other:?}"),
    }
    if subject.mode() == Mode::Cp {
        let never = subject.execute(unregister("own", Some(never_issued(Mode::Cp)))).await;
        assert!(matches!(refused(never), Refusal::TokenStale { .. }));
    }
    assert_eq!(subject.execute(unregister("own", None)).await, Outcome::Ended(Ended::Now));
}

async fn a_condition_is_held_or_refused(subject: &dyn Subject) {
    let with = |owner: &str, condition| register("cond", owner, None, condition);
    let absent = refused(subject.execute(with("a", Condition::Present)).await);
    assert_eq!(absent, Refusal::RevisionStale { current: None });
    let first = granted(subject.execute(with("a", Condition::Absent)).await);
    let exists = refused(subject.execute(with("a", Condition::Absent)).await);
    assert_eq!(exists, Refusal::NameExists { current: first.clone() });
    // Hand-over: another owner by the current token, and again when the answer was lost.
    let second = granted(subject.execute(with("b", Condition::Token(first.token))).await);
    assert!(second.token > first.token);
    assert_eq!(held(subject.execute(with("b", Condition::Token(first.token))).await).token, second.token);
    let stale = refused(subject.execute(with("c", Condition::Token(first.token))).await);
    assert_eq!(stale, Refusal::TokenStale { current: Some(second.clone()) });
    // Compare and set: nobody has changed it since, so another owner may have it by that.
    let third = granted(subject.execute(with("c", Condition::Unchanged(second.revision.clone()))).await);
    assert!(third.token > second.token);
    // A change of meta by whoever holds it, guarded by the revision: the second writer is told that it was not first.
    let update = |text: &str, revision: &Revision| Action::Register {
        name: "cond".parse().unwrap(),
        owner: "c".parse().unwrap(),
        meta: text.parse().unwrap(),
        lease: None,
        condition: Condition::Unchanged(revision.clone()),
    };
    let changed = held(subject.execute(update(r#"{"v":1}"#, &third.revision)).await);
    assert_eq!((changed.token, changed.meta.as_str()), (third.token, r#"{"v":1}"#));
    assert_ne!(changed.revision, third.revision);
    let lost = refused(subject.execute(update(r#"{"v":3}"#, &third.revision)).await);
    assert_eq!(lost, Refusal::RevisionStale { current: Some(changed.clone()) });
    let taken = granted(subject.execute(with("d", Condition::Takeover)).await);
    assert!(taken.token > changed.token);
    assert_eq!(subject.query(whereis("cond", None)).await, Answer::Entry(taken));
}

async fn a_group_has_its_members(subject: &dyn Subject) {
    let members = || Query::Members { group: "crew".parse().unwrap(), page: Page::default(), node: None };
    let texts = |answer: Answer| match answer {
        Answer::Entries { entries, next: None } => {
            entries.iter().map(|entry| entry.holder_text().to_owned()).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(texts(subject.query(members()).await), Vec::<String>::new());
    let joined = granted(subject.execute(join("crew", "b", None)).await);
    granted(subject.execute(join("crew", "a", None)).await);
    assert_eq!(held(subject.execute(join("crew", "b", None)).await), joined);
    assert_eq!(texts(subject.query(members()).await), ["a", "b"]);
    match subject.query(Query::Groups { page: Page { prefix: "crew".into(), ..Page::default() } }).await {
        Answer::Groups { groups, next: None } => {
            assert_eq!(groups.iter().map(|g| (g.group.as_str(), g.count)).collect::<Vec<_>>(), [("crew", 2)]);
        }
        other => panic!("{other:?}"),
    }
    let leave = |token| Action::Leave { group: "crew".parse().unwrap(), member: "b".parse().unwrap(), token };
    assert_eq!(subject.execute(leave(Some(joined.token))).await, Outcome::Ended(Ended::Now));
    let again = granted(subject.execute(join("crew", "b", None)).await);
    assert_eq!(subject.execute(leave(Some(joined.token))).await, Outcome::Ended(Ended::Before));
    assert_eq!(texts(subject.query(members()).await), ["a", "b"]);
    assert_eq!(subject.execute(leave(Some(again.token))).await, Outcome::Ended(Ended::Now));
    assert_eq!(refused(subject.execute(leave(None)).await), Refusal::NotFound);
}

async fn what_is_bound_to_a_lease_ends_with_it(subject: &dyn Subject) {
    let unknown: LeaseId = match subject.mode() {
        Mode::Cp => "never".parse().unwrap(),
        Mode::Ap => "1.1.ffff".parse().unwrap(),
    };
    assert_eq!(
        refused(subject.execute(register("bound", "a", Some(&unknown), Condition::Free)).await),
        Refusal::LeaseUnknown
    );
    assert_eq!(subject.keep_alive(&unknown, vec![]).await, Err(Refusal::LeaseUnknown));
    // Under an id of the client's own the call may be sent again.
    let own = lease(subject, Some("own-lease"), 60_000).await;
    let again = Action::CreateLease { lease: Some(own.clone()), ttl_ms: 60_000, credential: None };
    assert_eq!(subject.execute(again).await, Outcome::LeaseHeld { lease: own.clone(), ttl_ms: 60_000 });
    let other = Action::CreateLease { lease: Some(own.clone()), ttl_ms: 50_000, credential: None };
    assert_eq!(refused(subject.execute(other).await), Refusal::LeaseTaken);
    let chosen = lease(subject, None, 60_000).await;
    assert_ne!(chosen, own);
    granted(subject.execute(register("bound", "a", Some(&own), Condition::Free)).await);
    granted(subject.execute(register("kept", "a", Some(&chosen), Condition::Free)).await);
    granted(subject.execute(join("bound", "a", Some(&own))).await);
    let kept = subject.keep_alive(&own, vec![]).await.unwrap();
    assert!(kept.expires_in_ms <= 60_000 && kept.expires_in_ms > 0 && kept.lost.is_empty() && !kept.moved);
    match subject.query(Query::Lease { lease: own.clone(), page: Page::default() }).await {
        Answer::Lease(status) => {
            assert_eq!((status.info.lease.clone(), status.info.ttl_ms), (own.clone(), 60_000));
            assert_eq!(status.entries.len(), 2);
        }
        other => panic!("{other:?}"),
    }
    match subject.query(Query::Leases { page: Page::default() }).await {
        Answer::Leases { leases, next: None } => {
            let listed = leases.into_iter().map(|info| info.lease).collect::<BTreeSet<_>>();
            assert!(listed.contains(&own) && listed.contains(&chosen));
        }
        other => panic!("{other:?}"),
    }
    let revoke = Action::RevokeLease { lease: own.clone(), by: None };
    assert_eq!(subject.execute(revoke.clone()).await, Outcome::Ended(Ended::Now));
    assert_eq!(subject.query(whereis("bound", None)).await, Answer::Refused(Refusal::NotFound));
    assert!(matches!(subject.query(whereis("kept", None)).await, Answer::Entry(_)));
    let members = Query::Members { group: "bound".parse().unwrap(), page: Page::default(), node: None };
    assert_eq!(subject.query(members).await, Answer::Entries { entries: vec![], next: None });
    // An id of the client's own proves nothing to an `ap` node: it may have come to others, and have ended there or not.
    let (again, gone) = match subject.mode() {
        Mode::Cp => (Outcome::Ended(Ended::Before), Refusal::LeaseExpired),
        Mode::Ap => (Outcome::Refused(Refusal::LeaseUnknown), Refusal::LeaseUnknown),
    };
    assert_eq!(subject.execute(revoke).await, again, "revoking again does no harm");
    assert_eq!(subject.keep_alive(&own, vec![]).await, Err(gone.clone()));
    assert_eq!(refused(subject.execute(register("bound", "a", Some(&own), Condition::Free)).await), gone);
    // Of an id that the registry has chosen every mode knows the end for certain.
    let revoke = Action::RevokeLease { lease: chosen.clone(), by: None };
    for ended in [Ended::Now, Ended::Before] {
        assert_eq!(subject.execute(revoke.clone()).await, Outcome::Ended(ended));
    }
    assert_eq!(subject.keep_alive(&chosen, vec![]).await, Err(Refusal::LeaseExpired));
}

async fn a_batch_is_carried_out_in_order(subject: &dyn Subject) {
    let outcomes = subject
        .batch(vec![
            register("batch/1", "a", None, Condition::Free),
            register("batch/1", "b", None, Condition::Free),
            register("batch/2", "b", None, Condition::Free),
            unregister("batch/1", None),
            register("batch/1", "c", None, Condition::Free),
            join("batch", "m", None),
        ])
        .await;
    assert_eq!(outcomes.len(), 6);
    let first = granted(outcomes[0].clone());
    assert_eq!(refused(outcomes[1].clone()), Refusal::NameTaken { current: first.clone() });
    let second = granted(outcomes[2].clone());
    assert_eq!(outcomes[3], Outcome::Ended(Ended::Now));
    let third = granted(outcomes[4].clone());
    granted(outcomes[5].clone());
    assert!(first.token < second.token && second.token < third.token, "each has a revision of its own");
    assert_eq!(subject.query(whereis("batch/1", None)).await, Answer::Entry(third));
}

async fn a_lost_name_is_told_until_it_is_seen(subject: &dyn Subject) {
    // In `ap` a takeover is no conflict: what it told the loser is the end of its grant, in the watch.
    if subject.mode() == Mode::Ap {
        return;
    }
    let lease = lease(subject, None, 60_000).await;
    let loser = granted(subject.execute(register("lost", "a", Some(&lease), Condition::Free)).await);
    let winner = granted(subject.execute(register("lost", "b", None, Condition::Takeover)).await);
    for _ in 0..2 {
        let kept = subject.keep_alive(&lease, vec![]).await.unwrap();
        let [record] = &kept.lost[..] else { panic!("{kept:?}") };
        assert_eq!((record.loser.token, record.winner.token), (loser.token, winner.token));
    }
    let seen = subject.keep_alive(&lease, vec![]).await.unwrap().lost.into_iter().map(|record| record.id).collect();
    assert_eq!(subject.keep_alive(&lease, seen).await.unwrap().lost, []);
    assert_eq!(subject.keep_alive(&lease, vec![]).await.unwrap().lost, []);
}

/// What a change is about, in short.
fn short(change: &Change) -> String {
    let text = |entry: &Entry| match &entry.holder {
        Holder::Owner(name, owner) => format!("{name}={owner}"),
        Holder::Member(group, member) => format!("{group}/{member}"),
    };
    match change {
        Change::Registered { entry, .. } => format!("registered {}", text(entry)),
        Change::Updated { entry, .. } => format!("updated {}", text(entry)),
        Change::Ended { entry, reason, .. } => format!("ended {} {}", text(entry), why(reason)),
        Change::Joined { entry } => format!("joined {}", text(entry)),
        Change::Left { entry, reason } => format!("left {} {}", text(entry), why(reason)),
        other => format!("{other:?}"),
    }
}

fn why(reason: &EndReason) -> &'static str {
    match reason {
        EndReason::Given => "given",
        EndReason::Taken => "taken",
        EndReason::LeaseExpired => "expired",
        EndReason::LeaseRevoked => "revoked",
        EndReason::Conflict { .. } => "conflict",
    }
}

/// The changes of the next events, until this one has come.
async fn changes_to(watch: &mut Box<dyn Following>, last: &str) -> Vec<String> {
    let mut found = Vec::new();
    loop {
        if let (Story::Change(event), _) = watch.next().await {
            found.extend(event.changes.iter().map(short));
        }
        if found.iter().any(|change| change == last) {
            return found;
        }
    }
}

async fn a_watch_tells_everything_in_order(subject: &dyn Subject) {
    granted(subject.execute(register("seen/0", "a", None, Condition::Free)).await);
    granted(subject.execute(register("unseen", "a", None, Condition::Free)).await);
    let filter =
        Filter { name_prefixes: vec!["seen/".into()], groups: vec!["seen".parse().unwrap()], ..Filter::default() };
    let mut watch = subject.watch(filter.clone(), None).await;
    let mut state = Vec::new();
    let synced = loop {
        match watch.next().await {
            (Story::State(entries), _) => state.extend(entries),
            (Story::Synced, position) => break position.expect("a place to go on from"),
            (Story::Change(event), _) => panic!("a change before the state: {event:?}"),
        }
    };
    assert_eq!(state.iter().map(Entry::holder_text).collect::<Vec<_>>(), ["a"]);
    let bound = lease(subject, None, 60_000).await;
    let first = granted(subject.execute(register("seen/1", "a", Some(&bound), Condition::Free)).await);
    held(
        subject
            .execute(Action::Register {
                name: "seen/1".parse().unwrap(),
                owner: "a".parse().unwrap(),
                meta: r#"{"v":1}"#.parse().unwrap(),
                lease: Some(bound.clone()),
                condition: Condition::Free,
            })
            .await,
    );
    // No change, no event.
    held(subject.execute(register("seen/0", "a", None, Condition::Free)).await);
    granted(subject.execute(register("other", "a", None, Condition::Takeover)).await);
    granted(subject.execute(join("seen", "m", Some(&bound))).await);
    subject.execute(Action::RevokeLease { lease: bound, by: None }).await;
    granted(subject.execute(register("seen/1", "b", None, Condition::Free)).await);
    assert_eq!(subject.execute(unregister("seen/1", Some(first.token))).await, Outcome::Ended(Ended::Before));
    subject.execute(unregister("seen/1", None)).await;
    subject.execute(unregister("seen/0", None)).await;
    let last = "ended seen/0=a given";
    let told = changes_to(&mut watch, last).await;
    let mut in_one = told[3..5].to_vec();
    in_one.sort();
    assert_eq!(told[..3], ["registered seen/1=a", "updated seen/1=a", "joined seen/m"]);
    assert_eq!(in_one, ["ended seen/1=a revoked", "left seen/m revoked"], "{told:?}");
    assert_eq!(told[5..], ["registered seen/1=b", "ended seen/1=b given", last]);
    // Another reader, from the same place: the same story.
    let mut again = subject.watch(filter, Some(synced)).await;
    assert_eq!(changes_to(&mut again, last).await, told);
}

/// Protocol C5 and A1–A3, on a clock that goes on: never sooner than its ttl after the last keep-alive was sent, and in the end.
async fn a_lease_lives_its_time_and_no_longer(subject: &dyn Subject) {
    let ttl = Duration::from_millis(1_000);
    let lease = lease(subject, None, 1_000).await;
    granted(subject.execute(register("timed", "a", Some(&lease), Condition::Free)).await);
    let mut sent = Instant::now();
    for _ in 0..4 {
        tokio::time::sleep(ttl / 3).await;
        let now = Instant::now();
        match subject.keep_alive(&lease, vec![]).await {
            Ok(kept) => {
                assert!(kept.expires_in_ms <= 1_000);
                sent = now;
            }
            // A machine that stops for a whole ttl proves nothing.
            Err(Refusal::LeaseExpired) if now.duration_since(sent) >= ttl => return,
            Err(other) => panic!("{other:?} after {:?}", now.duration_since(sent)),
        }
    }
    let deadline = Instant::now() + SOON;
    loop {
        let answer = subject.query(whereis("timed", None)).await;
        let after = sent.elapsed();
        match answer {
            Answer::Entry(_) => assert!(Instant::now() < deadline, "it never ended"),
            Answer::Refused(Refusal::NotFound) => {
                assert!(after >= ttl, "it ended {after:?} after the keep-alive was sent");
                break;
            }
            other => panic!("{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(subject.keep_alive(&lease, vec![]).await, Err(Refusal::LeaseExpired));
}
