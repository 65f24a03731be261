//! What we rely on in openraft, and would not notice the loss of otherwise. Re-read at every upgrade.

use std::collections::BTreeMap;
use std::sync::Arc;

use openraft::errors::{ClientWriteError, RaftError};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};
use openraft::storage::RaftLogStorage;
use openraft::{BasicNode, Config};
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
use quorate::raft::snapshot::SnapshotStore;
use quorate::raft::state_machine::StateMachine;
use quorate::raft::types::{Membership, Proposal, Raft, Vote};
use tempfile::TempDir;

async fn node(data: &TempDir) -> (Raft, LogStore) {
    let identity = Identity { cluster: "test".into(), node: 1, run: 1, policy: "oldest".into() };
    let links = Links::bind(Arc::new(RealWire), identity, "127.0.0.1:0".parse().unwrap(), FaultTable::new(1)).await;
    let contacts = Arc::new(Contacts::new(Arc::new(SystemClock)));
    let network = NetworkFactory::new(links.unwrap(), contacts, std::time::Duration::from_millis(300));
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
        quorate::raft::types::LogId::new_term_index(5, 0),
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
