//! What we rely on in openraft, and would not notice the loss of otherwise. Re-read at every upgrade.

use std::collections::BTreeMap;
use std::sync::Arc;

use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, RPCError, RaftError, ReplicationClosed, StreamingError};
use openraft::network::{NetSnapshot, RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::storage::RaftLogStorage;
use openraft::{BasicNode, Config, LinearizerOption, OptionalSend};
use quorate::model::step::Step;
use quorate::net::clock::SystemClock;
use quorate::net::fault::FaultTable;
use quorate::net::links::{Identity, Links};
use quorate::net::wire::RealWire;
use quorate::raft::contact::Contacts;
use quorate::raft::durable::Fdatasync;
use quorate::raft::leases::{Unnoted, note};
use quorate::raft::log_store::{LogStore, MIRROR_BYTES_MAX};
use quorate::raft::network::NetworkFactory;
use quorate::raft::snapshot::{SnapshotData, SnapshotStore};
use quorate::raft::state_machine::StateMachine;
use quorate::raft::types::{LogId, Membership, Proposal, Raft, Snapshot, TypeConfig, Vote};
use tempfile::TempDir;
use tokio::sync::watch;

async fn node(data: &TempDir) -> (Raft, LogStore) {
    let identity = Identity { cluster: "test".into(), node: 1, run: 1, policy: "oldest".into() };
    let links = Links::bind(Arc::new(RealWire), identity, "127.0.0.1:0".parse().unwrap(), FaultTable::new(1)).await;
    let contacts = Arc::new(Contacts::new(Arc::new(SystemClock)));
    let network = NetworkFactory::new(links.unwrap(), contacts, std::time::Duration::from_millis(300));
    node_over(network, data).await
}

async fn node_over<N>(network: N, data: &TempDir) -> (Raft, LogStore)
where
    N: RaftNetworkFactory<TypeConfig, Network: NetSnapshot<TypeConfig, SnapshotData = SnapshotData>>,
{
    let fatal = Arc::new(|line: &str| panic!("{line}"));
    let (log, _) =
        LogStore::open(&data.path().join("raft"), false, Box::new(Fdatasync), MIRROR_BYTES_MAX, fatal).unwrap();
    let snapshots = SnapshotStore::open(&data.path().join("snap"), false, Box::new(Fdatasync)).unwrap();
    let (machine, _) = StateMachine::new(snapshots, Some(log.durable()), 100, Arc::default());
    let config = Config { enable_elect: false, ..Config::default() };
    (Raft::new(1, Arc::new(config), network, log.clone(), machine).await.unwrap(), log)
}

/// Protocol C4: what the timers of one leadership lead to is appended under that very one, or not at all. openraft compares them when it
/// appends, not before: a node that leads again, or that slept while it did not, must not take the one for the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_note_of_an_earlier_leadership_is_not_appended_under_a_later_one() {
    let data = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (raft, mut log) = node(&data).await;
    raft.initialize(BTreeMap::from([(1, BasicNode::new("127.0.0.1:1"))])).await.unwrap();
    let lead_after = async |former: u64| {
        raft.trigger().elect(false).await.unwrap();
        let led = raft.wait(Some(std::time::Duration::from_secs(20)));
        let leads = |metrics: &openraft::RaftMetrics<_>| {
            metrics.current_leader == Some(1) && metrics.current_term > former && metrics.last_applied.is_some()
        };
        led.metrics(leads, "it leads anew").await.unwrap().current_term
    };
    let expiry = Step::Expire { leases: vec![7] };
    let first = lead_after(0).await;
    note(&raft, first, &expiry).await.unwrap();
    // Another one led in between.
    let last = log.get_log_state().await.unwrap().last_log_id;
    let vote = Vote::new_committed(first + 1, 2);
    let request = AppendEntriesRequest { vote, prev_log_id: last, entries: Vec::new(), leader_commit: None };
    assert!(matches!(raft.append_entries(request).await, Ok(AppendEntriesResponse::Success)));
    assert_eq!(note(&raft, first, &expiry).await, Err(Unnoted::NotLeader));
    let second = lead_after(first).await;
    note(&raft, second, &expiry).await.unwrap();
    let before = log.get_log_state().await.unwrap().last_log_id;
    for other in [first, second + 1] {
        assert_eq!(note(&raft, other, &expiry).await, Err(Unnoted::NotLeader));
    }
    assert_eq!(log.get_log_state().await.unwrap().last_log_id, before);
    raft.shutdown().await.unwrap();
}

/// Protocol C3 calls a command "not applied" when openraft says that another node is to be asked. That is true only as long as it
/// says so before it appends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_is_to_go_to_the_leader_has_not_been_appended() {
    let data = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (raft, mut log) = node(&data).await;
    let command = || Proposal::from_bytes(vec![1; 100].into());
    let sent_on = |result: Result<_, RaftError<_, ClientWriteError<_>>>| match result {
        Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => forward.leader_id,
        Err(other) => panic!("{other}"),
        Ok::<openraft::raft::ClientWriteResponse<_>, _>(_) => panic!("it was written"),
    };

    assert_eq!(sent_on(raft.client_write(command()).await), None);
    assert_eq!(log.get_log_state().await.unwrap().last_log_id, None);

    // A leader appears: node 2 of three.
    let members = (1..=3).map(|id| (id, BasicNode::new(format!("127.0.0.1:{id}")))).collect::<BTreeMap<_, _>>();
    let entry = openraft::entry::RaftEntry::new(
        LogId::new_term_index(5, 0),
        openraft::EntryPayload::Membership(Membership::from(members)),
    );
    let vote = Vote::new_committed(5, 2);
    let request = AppendEntriesRequest { vote, prev_log_id: None, entries: vec![entry], leader_commit: None };
    assert!(matches!(raft.append_entries(request).await, Ok(AppendEntriesResponse::Success)));
    let before = log.get_log_state().await.unwrap().last_log_id;
    assert!(before.is_some());
    assert_eq!(sent_on(raft.client_write(command()).await), Some(2));
    assert_eq!(log.get_log_state().await.unwrap().last_log_id, before);
    raft.shutdown().await.unwrap();
}

/// A peer that votes for everybody and answers heartbeats, but takes entries only once it is let.
#[derive(Clone)]
struct Grudging {
    takes_entries: watch::Receiver<bool>,
    is_for_heartbeats: bool,
}

impl RaftNetworkFactory<TypeConfig> for Grudging {
    type Network = Self;

    async fn new_client(&mut self, _: u64, _: &BasicNode) -> Self {
        self.clone()
    }

    async fn new_heartbeat_client(&mut self, _: u64, _: &BasicNode) -> Self {
        Self { is_for_heartbeats: true, ..self.clone() }
    }
}

impl RaftNetworkV2<TypeConfig> for Grudging {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        _: AppendEntriesRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        if !self.is_for_heartbeats {
            self.takes_entries.wait_for(|takes| *takes).await.expect("the test lasts longer");
        }
        Ok(AppendEntriesResponse::Success)
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        Ok(VoteResponse::new(request.vote, None, true))
    }

    async fn full_snapshot(
        &mut self,
        _: Vote,
        _: Snapshot,
        _: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        unreachable!("the log is short")
    }

    async fn transfer_leader(
        &mut self,
        _: TransferLeaderRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        unreachable!("nobody wants another leader")
    }
}

/// A new leader does not know how much of its log the former one had committed and acknowledged, until an entry of its own term is
/// committed (Raft, section 8; rqlite once answered before). A majority's heartbeats do not tell it, so a read has to wait for more
/// than what is known to be committed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_leaders_reads_wait_for_an_entry_of_its_own_term() {
    let data = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (let_take, takes_entries) = watch::channel(false);
    let (raft, _log) = node_over(Grudging { takes_entries, is_for_heartbeats: false }, &data).await;
    // The former leader's last entry is here, and so are not the news that it was committed and acknowledged.
    let members = (1..=2).map(|id| (id, BasicNode::new(format!("127.0.0.1:{id}")))).collect::<BTreeMap<_, _>>();
    let entry = |index, payload| openraft::entry::RaftEntry::new(LogId::new_term_index(5, index), payload);
    let entries = vec![
        entry(0, openraft::EntryPayload::Membership(Membership::from(members))),
        entry(1, openraft::EntryPayload::Blank),
    ];
    let committed = Some(LogId::new_term_index(5, 0));
    let vote = Vote::new_committed(5, 2);
    let request = AppendEntriesRequest { vote, prev_log_id: None, entries, leader_commit: committed };
    assert!(matches!(raft.append_entries(request).await, Ok(AppendEntriesResponse::Success)));

    raft.trigger().elect(false).await.unwrap();
    let patience = std::time::Duration::from_secs(20);
    let leads = |metrics: &openraft::RaftMetrics<_>| metrics.current_leader == Some(1) && metrics.current_term > 5;
    raft.wait(Some(patience)).metrics(leads, "it leads").await.unwrap();
    // As linearizable reads ask, and then, since a majority has answered just now, as leader reads do.
    for (age, beat) in [(std::time::Duration::ZERO, true), (patience, false)] {
        let option = LinearizerOption::new(Some(age), beat).with_wait_timeout(patience);
        let linearizer = raft.get_read_linearizer(option).await.unwrap();
        let read = linearizer.read_log_id();
        assert_eq!((read.committed_leader_id().term, read.index()), (6, 2));
        let applied = raft.metrics().borrow_watched().last_applied;
        assert!(applied.is_none_or(|applied| applied.index() == 0), "{applied:?}");
    }
    // What it waits for comes as soon as the peer takes entries.
    let_take.send_replace(true);
    raft.wait(Some(patience)).applied_index_at_least(Some(2), "its own entry is committed").await.unwrap();
    raft.shutdown().await.unwrap();
}
