//! Registries in memory, and a server before them.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use async_trait::async_trait;
use quorate::cluster::{
    ApStatus, Backup, Change, ChangeRefusal, Changed, Cluster, ClusterStatus, Faults, NodeStatus, PeerState, Probe,
    Role, Strangers,
};
use quorate::http::{Api, HttpState, MAX_IN_FLIGHT_DEFAULT, MAX_STREAMS_DEFAULT, Terms, router, serve_by};
use quorate::messages::{Address, Inbox, InboxQueue, Letter, Messages};
use quorate::model::command::Action;
use quorate::model::conflict::{ConflictRecord, Contender};
use quorate::model::entry::Holder;
use quorate::model::ident::{ApToken, Mode, NodeId, RecordId, Revision, Token};
use quorate::model::lease::KeptAlive;
use quorate::model::outcome::{Outcome, Refusal};
use quorate::model::query::{Answer, Query};
use quorate::model::time::UnixMillis;
use quorate::registry::{
    CommandCall, CommandFailure, KeepAlive, Provenance, QueryCall, QueryFailure, Reason, Registry, Reply, Watch,
    WatchFailure, WatchMessage, Watching,
};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use super::reference::Reference;

/// Says what it was told to say, and remembers what it was asked.
pub struct Scripted {
    pub mode: Mode,
    pub outcome: Mutex<Result<Reply<Outcome>, CommandFailure>>,
    pub answer: Mutex<Result<Reply<Answer>, QueryFailure>>,
    pub batched: Mutex<Result<Reply<Vec<Outcome>>, CommandFailure>>,
    pub kept: Mutex<Result<Reply<Vec<Kept>>, CommandFailure>>,
    /// What each of the next watches says; every further one fails.
    pub watches: Mutex<VecDeque<Result<Telling, WatchFailure>>>,
    pub asked: Mutex<Option<Asked>>,
}

/// What became of one lease that was to be kept alive.
pub type Kept = Result<KeptAlive, Refusal>;

/// What one watch says.
pub type Telling = mpsc::Receiver<WatchMessage>;

/// A watch that says what comes through a channel.
struct Channel(Telling);

#[async_trait]
impl Watching for Channel {
    async fn next(&mut self) -> Option<WatchMessage> {
        self.0.recv().await
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    Command(Action),
    Query(Query),
    Batch(Vec<Action>),
    KeepAlive(KeepAlive),
    Watch(Watch),
}

impl Scripted {
    pub fn new(mode: Mode) -> Arc<Self> {
        Arc::new(Self {
            mode,
            outcome: Mutex::new(Err(CommandFailure::NotApplied(Reason::Starting))),
            answer: Mutex::new(Err(QueryFailure(Reason::Starting))),
            batched: Mutex::new(Err(CommandFailure::NotApplied(Reason::Starting))),
            kept: Mutex::new(Err(CommandFailure::NotApplied(Reason::Starting))),
            watches: Mutex::default(),
            asked: Mutex::new(None),
        })
    }
}

#[async_trait]
impl Registry for Scripted {
    fn mode(&self) -> Mode {
        self.mode
    }

    async fn execute(&self, action: Action, _: &CommandCall) -> Result<Reply<Outcome>, CommandFailure> {
        *self.asked.lock().unwrap() = Some(Asked::Command(action));
        self.outcome.lock().unwrap().clone()
    }

    async fn query(&self, query: Query, _: &QueryCall) -> Result<Reply<Answer>, QueryFailure> {
        *self.asked.lock().unwrap() = Some(Asked::Query(query));
        self.answer.lock().unwrap().clone()
    }

    async fn batch(&self, actions: Vec<Action>, _: &CommandCall) -> Result<Reply<Vec<Outcome>>, CommandFailure> {
        *self.asked.lock().unwrap() = Some(Asked::Batch(actions));
        self.batched.lock().unwrap().clone()
    }

    async fn keep_alive(
        &self,
        keep: KeepAlive,
        _: &CommandCall,
    ) -> Result<Reply<Vec<Result<KeptAlive, Refusal>>>, CommandFailure> {
        *self.asked.lock().unwrap() = Some(Asked::KeepAlive(keep));
        self.kept.lock().unwrap().clone()
    }

    async fn watch(&self, watch: Watch, _: Instant) -> Result<Box<dyn Watching>, WatchFailure> {
        *self.asked.lock().unwrap() = Some(Asked::Watch(watch));
        match self.watches.lock().unwrap().pop_front() {
            Some(Ok(telling)) => Ok(Box::new(Channel(telling))),
            Some(Err(failure)) => Err(failure),
            None => Err(WatchFailure::Failed(Reason::Starting)),
        }
    }

    fn has_ended(&self, _: &Holder, _: Token) -> bool {
        false
    }

    async fn ready(&self, _: Instant) -> Result<(), Reason> {
        match &*self.answer.lock().unwrap() {
            Ok(_) => Ok(()),
            Err(QueryFailure(reason)) => Err(reason.clone()),
        }
    }
}

/// Never answers, whatever the deadline.
pub struct Silent(pub Mode);

#[async_trait]
impl Registry for Silent {
    fn mode(&self) -> Mode {
        self.0
    }

    async fn execute(&self, _: Action, _: &CommandCall) -> Result<Reply<Outcome>, CommandFailure> {
        std::future::pending().await
    }

    async fn query(&self, _: Query, _: &QueryCall) -> Result<Reply<Answer>, QueryFailure> {
        std::future::pending().await
    }

    async fn batch(&self, _: Vec<Action>, _: &CommandCall) -> Result<Reply<Vec<Outcome>>, CommandFailure> {
        std::future::pending().await
    }

    async fn keep_alive(
        &self,
        _: KeepAlive,
        _: &CommandCall,
    ) -> Result<Reply<Vec<Result<KeptAlive, Refusal>>>, CommandFailure> {
        std::future::pending().await
    }

    async fn watch(&self, _: Watch, _: Instant) -> Result<Box<dyn Watching>, WatchFailure> {
        std::future::pending().await
    }

    fn has_ended(&self, _: &Holder, _: Token) -> bool {
        false
    }

    async fn ready(&self, _: Instant) -> Result<(), Reason> {
        std::future::pending().await
    }
}

/// Three nodes of which the second leads, two conflicts, and faults that can be set.
pub struct Still {
    pub faults: Option<Mutex<Faults>>,
    acknowledged: Mutex<Vec<String>>,
}

impl Still {
    pub fn new(faults_enabled: bool) -> Self {
        Self { faults: faults_enabled.then(Mutex::default), acknowledged: Mutex::default() }
    }
}

#[async_trait]
impl Cluster for Still {
    fn status(&self) -> ClusterStatus {
        let node = |id: NodeId| NodeStatus {
            id,
            peer: format!("127.0.0.1:750{id}"),
            http: (id != 3).then(|| format!("http://127.0.0.1:740{id}")),
            role: if id == 2 { Role::Leader } else { Role::Voter },
            state: if id == 1 { PeerState::Me } else { PeerState::Alive },
            refused: None,
        };
        ClusterStatus {
            cluster: "still".to_owned(),
            node: 1,
            version: "0".to_owned(),
            leader: Some(2),
            term: 3,
            applied: 4,
            committed: 5,
            ap: ApStatus::default(),
            nodes: vec![node(1), node(2), node(3)],
            strangers: Strangers::default(),
        }
    }

    async fn change(&self, change: Change, _: &CommandCall) -> Result<Result<Changed, ChangeRefusal>, CommandFailure> {
        let refused = |refusal| Ok(Err(refusal));
        match change {
            Change::Add { node: 9, .. } => refused(ChangeRefusal::Removed { node: 9 }),
            Change::Add { node, peer } => Ok(Ok(Changed::Member { node, peer, role: Role::Learner, now: node != 3 })),
            Change::Promote { node: 4 } => refused(ChangeRefusal::Behind { node: 4, entries: 5_000 }),
            Change::Promote { node } => {
                Ok(Ok(Changed::Member { node, peer: "h:1".to_owned(), role: Role::Voter, now: true }))
            }
            Change::Remove { node: 1 } => refused(ChangeRefusal::QuorumAtRisk { voters: 2, in_reach: 1 }),
            Change::Remove { node: 8 } => refused(ChangeRefusal::Unknown { node: 8 }),
            Change::Remove { node } => Ok(Ok(Changed::Removed { node, now: node != 9 })),
            Change::Lead { node: Some(3) } => Err(CommandFailure::Unknown(Reason::Timeout)),
            Change::Lead { node: Some(4) } => Err(CommandFailure::NotApplied(Reason::NoQuorum)),
            Change::Lead { node } => Ok(Ok(Changed::Leads { node: node.unwrap_or(2) })),
        }
    }

    async fn backup(&self, _: Instant) -> Result<Backup, Reason> {
        Ok(Backup { revision: 7, pieces: vec!["the ".into(), "table".into()] })
    }

    async fn take_snapshot(&self, _: Instant) -> Result<u64, Reason> {
        Ok(4)
    }

    fn conflicts(&self, after: Option<&RecordId>, limit: usize) -> Result<Vec<ConflictRecord>, Reason> {
        let acknowledged = self.acknowledged.lock().unwrap();
        let contender = |owner: &str, node| Contender { owner: owner.parse().unwrap(), token: Token::Cp(node), node };
        let records = ["c1", "c2"]
            .into_iter()
            .filter(|id| after.is_none_or(|after| *id > after.as_str()))
            .map(|id| ConflictRecord {
                id: id.parse().unwrap(),
                name: "billing".parse().unwrap(),
                loser: contender("b2", 2),
                winner: contender("a1", 1),
                at: UnixMillis(1_600_000_000_000),
                acknowledged: acknowledged.iter().any(|known| known == id),
            })
            .take(limit)
            .collect();
        Ok(records)
    }

    fn acknowledge_conflict(&self, id: &RecordId) -> Result<bool, Reason> {
        let known = matches!(id.as_str(), "c1" | "c2");
        if known {
            self.acknowledged.lock().unwrap().push(id.to_string());
        }
        Ok(known)
    }

    fn faults(&self) -> Option<Faults> {
        self.faults.as_ref().map(|faults| faults.lock().unwrap().clone())
    }

    fn set_faults(&self, faults: Faults) -> bool {
        match &self.faults {
            Some(inner) => {
                *inner.lock().unwrap() = faults;
                true
            }
            None => false,
        }
    }

    async fn probe(&self, _: Instant) -> BTreeMap<NodeId, Probe> {
        BTreeMap::from([(2, Probe { tcp: true, udp: false })])
    }
}

/// A server on a port of its own, stopped when dropped.
pub struct Server {
    pub addr: SocketAddr,
    _stop: oneshot::Sender<()>,
}

impl Server {
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub async fn start(state: HttpState) -> Self {
        Self::start_by(Terms::default(), router(state)).await
    }

    pub async fn start_by(terms: Terms, api: Api) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(serve_by(terms, listener, api, async {
            let _ = stopped.await;
        }));
        Self { addr, _stop: stop }
    }
}

/// Both registries before a still cluster with faults.
pub fn state(cp: Arc<dyn Registry>, ap: Arc<dyn Registry>) -> HttpState {
    HttpState {
        node: 1,
        messages: Arc::new(Postbox::default()),
        cp,
        ap,
        cluster: Arc::new(Still::new(true)),
        default_mode: Mode::Cp,
        allow_origins: vec!["https://console.example".to_owned()],
        max_in_flight: MAX_IN_FLIGHT_DEFAULT,
        max_streams: MAX_STREAMS_DEFAULT,
    }
}

/// An in-memory `cp`, and an `ap` that says that it starts.
pub fn reference() -> HttpState {
    state(Arc::new(Reference::default()), Scripted::new(Mode::Ap))
}

/// Messages that go to one inbox after another, here in memory.
#[derive(Default)]
pub struct Postbox {
    open: Mutex<Vec<(String, Arc<InboxQueue>)>>,
}

#[async_trait]
impl Messages for Postbox {
    async fn send(
        &self,
        mode: Mode,
        to: Address,
        text: Arc<str>,
        _: Instant,
    ) -> Result<Reply<Option<u64>>, CommandFailure> {
        let revision = Revision::Cp(7);
        let owner = match &to {
            Address::Name(name) if name.as_str() == "nobody" => {
                return Ok(Reply { value: None, revision, provenance: Provenance::default() });
            }
            Address::Name(name) if name.as_str() == "cut" => return Err(CommandFailure::NotApplied(Reason::NoQuorum)),
            Address::Name(name) => name.to_string(),
            Address::Group(group) => group.to_string(),
        };
        let token = match mode {
            Mode::Cp => Token::Cp(7),
            Mode::Ap => Token::Ap(ApToken { hlc: 7, node: 1, run: 2, number: 3 }),
        };
        let letter = Arc::new(Letter { to, token, text });
        let open = self.open.lock().unwrap();
        let taken = open.iter().filter(|(reader, queue)| *reader == owner && queue.put(&letter)).count() as u64;
        Ok(Reply { value: Some(taken), revision, provenance: Provenance::default() })
    }

    fn open(&self, _: Mode, owner: &str) -> Inbox {
        let (inbox, queue) = Inbox::new();
        self.open.lock().unwrap().push((owner.to_owned(), queue));
        inbox
    }
}
