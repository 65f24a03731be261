//! The Raft log on disk: what openraft asks of a store, what a crash leaves, what damage is told.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage, RaftLogStorageExt};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt;
use openraft::{EntryPayload, StorageError};
use quorate::raft::StartError;
use quorate::raft::durable::{Barrier, Disk, Fdatasync, Owner};
use quorate::raft::flaws::LostFsync;
use quorate::raft::keys::{ChunkWriter, chunk_key};
use quorate::raft::log_store::{Closed, LogStore, MIRROR_BYTES_MAX};
use quorate::raft::snapshot::SnapshotStore;
use quorate::raft::state_machine::StateMachine;
use quorate::raft::types::{Entry, LogId, Proposal, TypeConfig, Vote};
use tempfile::TempDir;

pub fn directory() -> TempDir {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

pub fn open_with(path: &Path, required: bool, barrier: impl Barrier) -> Result<(LogStore, Closed), StartError> {
    LogStore::open(path, required, Box::new(barrier), MIRROR_BYTES_MAX, Arc::new(|line| panic!("{line}")))
}

pub fn open(path: &Path) -> Result<(LogStore, Closed), StartError> {
    open_with(path, false, Fdatasync)
}

pub fn close((store, closed): (LogStore, Closed)) {
    drop(store);
    closed.wait(Duration::from_secs(10));
}

pub fn entry(term: u64, index: u64) -> Entry {
    let bytes = format!("{term} {index} {}", "x".repeat(200)).into_bytes();
    Entry::new(LogId::new_term_index(term, index), EntryPayload::Normal(Proposal::from_bytes(bytes.into())))
}

pub fn entries(term: u64, range: std::ops::Range<u64>) -> Vec<Entry> {
    range.map(|index| entry(term, index)).collect()
}

pub async fn all(store: &mut LogStore) -> Vec<Entry> {
    store.try_get_log_entries(..).await.unwrap()
}

/// The directory as a kill would leave it now: what was handed to the kernel, and nothing that happens on a proper end.
pub fn as_killed(path: &Path) -> (TempDir, PathBuf) {
    let copy = directory();
    let to = copy.path().join("copy");
    copy_all(path, &to);
    (copy, to)
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_all(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

struct Stores;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for Stores {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
        let data = directory();
        let (store, _) = open(&data.path().join("raft")).unwrap();
        let snapshots = SnapshotStore::open(&data.path().join("snap"), false, Box::new(Fdatasync)).unwrap();
        // openraft's suite applies entries that were never appended.
        let (machine, _) = StateMachine::new(snapshots, None, 100, Arc::default());
        Ok((data, store, machine))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openrafts_own_storage_suite_passes() {
    Suite::test_all(Stores).await.unwrap();
}

/// Really syncs, and counts.
struct Counting(Arc<AtomicU64>);

impl Barrier for Counting {
    fn sync(&mut self, file: &File) -> io::Result<()> {
        Fdatasync.sync(file)?;
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

/// Every acknowledged append, vote and truncation has at least one `fdatasync` between itself and its acknowledgement.
async fn every_acknowledgement_is_paid_for(barrier: impl Barrier, syncs: Arc<AtomicU64>) -> Result<(), String> {
    let data = directory();
    let mut store = open_with(data.path(), false, barrier).unwrap();
    let paid = |before: u64, what: &str| match syncs.load(Ordering::SeqCst) > before {
        true => Ok(()),
        false => Err(format!("{what} was acknowledged without fdatasync")),
    };
    for index in 0..20 {
        let before = syncs.load(Ordering::SeqCst);
        store.0.blocking_append([entry(1, index)]).await.unwrap();
        paid(before, "an append")?;
        let before = syncs.load(Ordering::SeqCst);
        store.0.save_vote(&Vote::new(index, 1)).await.unwrap();
        paid(before, "a vote")?;
    }
    let before = syncs.load(Ordering::SeqCst);
    store.0.truncate_after(Some(LogId::new_term_index(1, 10))).await.unwrap();
    paid(before, "a truncation")
}

#[tokio::test]
async fn nothing_is_acknowledged_before_it_is_synced() {
    let syncs = Arc::new(AtomicU64::new(0));
    every_acknowledgement_is_paid_for(Counting(syncs.clone()), syncs).await.unwrap();
}

#[tokio::test]
async fn a_store_that_never_syncs_is_found_out() {
    let verdict = every_acknowledgement_is_paid_for(LostFsync, Arc::default()).await;
    assert_eq!(verdict, Err("an append was acknowledged without fdatasync".into()));
}

/// Each sync waits to be let through.
struct Gate {
    arrived: Sender<()>,
    go: Receiver<()>,
}

impl Barrier for Gate {
    fn sync(&mut self, file: &File) -> io::Result<()> {
        let _ = self.arrived.send(());
        let _ = self.go.recv();
        Fdatasync.sync(file)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_wait_for_the_sync_that_began_after_them_and_are_told_in_order() {
    let data = directory();
    let ((arrived, arrivals), (go, gate)) = (channel(), channel());
    go.send(()).unwrap();
    go.send(()).unwrap();
    // Two syncs belong to opening.
    let mut store = open_with(data.path(), false, Gate { arrived, go: gate }).unwrap();
    arrivals.recv().unwrap();
    arrivals.recv().unwrap();
    let mut acknowledged = Vec::new();
    for index in 0..3 {
        let (flushed, when) = TypeConfig::oneshot();
        store.0.append([entry(1, index)], IOFlushed::signal(flushed)).await.unwrap();
        acknowledged.push(when);
        if index == 0 {
            // The first one's sync is under way before the others come: they must not be acknowledged by it.
            arrivals.recv().unwrap();
        }
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(acknowledged.iter_mut().all(|when| when.try_recv().is_err()), "acknowledged before any sync ended");
    go.send(()).unwrap();
    acknowledged.remove(0).await.unwrap().unwrap();
    arrivals.recv().unwrap();
    assert!(acknowledged.iter_mut().all(|when| when.try_recv().is_err()), "acknowledged by an older sync");
    go.send(()).unwrap();
    for when in acknowledged {
        when.await.unwrap().unwrap();
    }
    // Let the rest through.
    (0..100).for_each(|_| go.send(()).unwrap_or_default());
}

/// Fails once it is told to.
struct Failing(Arc<Mutex<bool>>);

impl Barrier for Failing {
    fn sync(&mut self, file: &File) -> io::Result<()> {
        if *self.0.lock().unwrap() { Err(io::Error::other("the disk is gone")) } else { Fdatasync.sync(file) }
    }
}

#[tokio::test]
async fn a_failed_sync_is_told_once_and_is_final() {
    let data = directory();
    let (fails, told) = (Arc::new(Mutex::new(false)), Arc::new(Mutex::new(Vec::new())));
    let fatal = told.clone();
    let fatal = Arc::new(move |line: &str| fatal.lock().unwrap().push(line.to_owned()));
    let barrier = Box::new(Failing(fails.clone()));
    let (mut store, _closed) = LogStore::open(data.path(), false, barrier, MIRROR_BYTES_MAX, fatal).unwrap();
    store.blocking_append([entry(1, 0)]).await.unwrap();
    *fails.lock().unwrap() = true;
    assert!(store.blocking_append([entry(1, 1)]).await.is_err());
    // A sync that would succeed now says nothing of what was lost.
    *fails.lock().unwrap() = false;
    assert!(store.blocking_append([entry(1, 2)]).await.is_err());
    assert!(store.save_vote(&Vote::new(2, 1)).await.is_err());
    let told = told.lock().unwrap();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("the disk is gone"), "{told:?}");
}

#[tokio::test]
async fn a_kill_keeps_everything_acknowledged() {
    let data = directory();
    let mut store = open(data.path()).unwrap();
    let mut expected = Vec::new();
    for batch in 0..30u64 {
        let more = entries(1, batch * 40..batch * 40 + 40);
        store.0.blocking_append(more.clone()).await.unwrap();
        expected.extend(more);
        store.0.save_vote(&Vote::new_committed(batch, 3)).await.unwrap();
        if batch % 10 == 9 {
            let (_guard, killed) = as_killed(data.path());
            let mut again = open_with(&killed, true, Fdatasync).unwrap();
            assert_eq!(all(&mut again.0).await, expected);
            assert_eq!(again.0.read_vote().await.unwrap(), Some(Vote::new_committed(batch, 3)));
            close(again);
        }
    }
}

#[tokio::test]
async fn truncation_and_purge_outlive_a_kill() {
    let data = directory();
    let mut store = open(data.path()).unwrap().0;
    for batch in 0..20 {
        store.blocking_append(entries(1, batch * 10..batch * 10 + 10)).await.unwrap();
    }
    store.purge(LogId::new_term_index(1, 44)).await.unwrap();
    // In the middle of a chunk.
    store.truncate_after(Some(LogId::new_term_index(1, 152))).await.unwrap();
    store.blocking_append(entries(2, 153..160)).await.unwrap();
    let expected = [entries(1, 45..153), entries(2, 153..160)].concat();
    assert_eq!(all(&mut store).await, expected);
    let (_guard, killed) = as_killed(data.path());
    let mut again = open_with(&killed, true, Fdatasync).unwrap().0;
    assert_eq!(all(&mut again).await, expected);
    assert_eq!(again.get_log_state().await.unwrap().last_purged_log_id, Some(LogId::new_term_index(1, 44)));
}

#[tokio::test]
async fn a_purge_beyond_the_end_makes_room_for_what_follows_a_snapshot() {
    let data = directory();
    let mut store = open(data.path()).unwrap().0;
    store.blocking_append(entries(1, 0..10)).await.unwrap();
    store.purge(LogId::new_term_index(3, 99)).await.unwrap();
    store.blocking_append(entries(3, 100..105)).await.unwrap();
    let (_guard, killed) = as_killed(data.path());
    let mut again = open_with(&killed, true, Fdatasync).unwrap().0;
    assert_eq!(all(&mut again).await, entries(3, 100..105));
}

#[tokio::test]
async fn a_log_longer_than_its_mirror_is_read_whole() {
    let data = directory();
    let fatal = Arc::new(|line: &str| panic!("{line}"));
    let mirror_bytes_max = 64 * 1024;
    let (mut store, _closed) =
        LogStore::open(data.path(), false, Box::new(Fdatasync), mirror_bytes_max, fatal).unwrap();
    let mut committed = None;
    for batch in 0..50 {
        store.blocking_append(entries(1, batch * 40..batch * 40 + 40)).await.unwrap();
        store.save_committed(committed).await.unwrap();
        committed = Some(LogId::new_term_index(1, batch * 40 + 39));
    }
    assert_eq!(all(&mut store).await, entries(1, 0..2000));
    assert_eq!(store.try_get_log_entries(1995..2000).await.unwrap(), entries(1, 1995..2000));
    let some = store.limited_get_log_entries(7, 2000).await.unwrap();
    assert!(!some.is_empty());
    assert_eq!(some, entries(1, 7..7 + some.len() as u64));
}

#[tokio::test]
async fn an_idle_log_notes_how_far_it_is_committed() {
    let data = directory();
    let mut store = open(data.path()).unwrap().0;
    store.blocking_append(entries(1, 0..10)).await.unwrap();
    store.save_committed(Some(LogId::new_term_index(1, 9))).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (_guard, killed) = as_killed(data.path());
    let mut again = open_with(&killed, true, Fdatasync).unwrap().0;
    assert_eq!(again.read_committed().await.unwrap(), Some(LogId::new_term_index(1, 9)));
    assert_eq!(again.recovery(), None);
}

#[tokio::test]
async fn an_uncommitted_end_is_to_be_recovered_unless_it_is_truncated() {
    let data = directory();
    let store = open(data.path()).unwrap();
    store.0.clone().blocking_append(entries(1, 0..10)).await.unwrap();
    close(store);
    let mut again = open_with(data.path(), true, Fdatasync).unwrap().0;
    assert_eq!(again.recovery(), Some(9));
    again.truncate_after(Some(LogId::new_term_index(1, 6))).await.unwrap();
    assert_eq!(again.recovery(), Some(6));
}

#[tokio::test]
async fn what_a_kill_during_opening_leaves_is_cleared_away() {
    let data = directory();
    let store = open(data.path()).unwrap();
    store.0.clone().blocking_append(entries(1, 0..10)).await.unwrap();
    close(store);
    // sled itself refuses to open with this: it takes it for its newest index.
    fs::write(data.path().join("snap.00000000FFFFFFFF.generating"), b"cut short").unwrap();
    let mut again = open_with(data.path(), true, Fdatasync).unwrap().0;
    assert_eq!(all(&mut again).await, entries(1, 0..10));
}

#[tokio::test]
async fn a_torn_index_of_sleds_is_made_anew() {
    let data = directory();
    for term in 1..4 {
        let store = open(data.path()).unwrap();
        store.0.clone().blocking_append(entries(term, term * 10 - 10..term * 10)).await.unwrap();
        close(store);
    }
    let snap = fs::read_dir(data.path()).unwrap().map(|entry| entry.unwrap().path());
    let snaps =
        snap.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("snap.")).collect::<Vec<_>>();
    assert!(!snaps.is_empty());
    for snap in snaps {
        let len = fs::metadata(&snap).unwrap().len();
        OpenOptions::new().write(true).open(&snap).unwrap().set_len(len / 2).unwrap();
    }
    let mut again = open_with(data.path(), true, Fdatasync).unwrap().0;
    assert_eq!(all(&mut again).await.len(), 30);
}

pub fn refusal(result: Result<(LogStore, Closed), StartError>) -> String {
    let line = match result {
        Ok(_) => panic!("it was opened"),
        Err(e) => e.to_string(),
    };
    assert!(!line.contains('\n') && line.contains("nothing was changed"), "{line}");
    line
}

fn write_raw(path: &Path, first: u64, bytes: Vec<u8>) {
    let mut disk = Disk::open(path, Box::new(Fdatasync)).unwrap();
    disk.insert(&chunk_key(first), bytes).unwrap();
    disk.commit().unwrap();
}

fn chunk(range: std::ops::Range<u64>) -> Vec<u8> {
    let mut writer = ChunkWriter::default();
    entries(1, range).iter().for_each(|entry| assert!(writer.push(entry).is_none()));
    writer.finish().unwrap().1
}

#[tokio::test]
async fn a_flipped_bit_and_a_hole_are_refused_with_one_line() {
    let data = directory();
    let store = open(data.path()).unwrap();
    store.0.clone().blocking_append(entries(1, 0..10)).await.unwrap();
    close(store);
    write_raw(data.path(), 12, chunk(12..14));
    let line = refusal(open(data.path()));
    assert!(line.contains("entry 10 is missing"), "{line}");
    let mut flipped = chunk(10..14);
    flipped[60] ^= 4;
    write_raw(data.path(), 10, flipped);
    let line = refusal(open(data.path()));
    assert!(line.contains("entry 10 on does not match its checksum"), "{line}");
    // Still there for whoever can mend it.
    write_raw(data.path(), 10, chunk(10..12));
    assert_eq!(all(&mut open(data.path()).unwrap().0).await, entries(1, 0..14));
}

#[tokio::test]
async fn a_torn_database_is_refused_with_one_line_and_left_as_it_is() {
    let data = directory();
    let store = open(data.path()).unwrap();
    for batch in 0..40 {
        store.0.clone().blocking_append(entries(1, batch * 200..batch * 200 + 200)).await.unwrap();
    }
    close(store);
    let whole = fs::read(data.path().join("db")).unwrap();
    let tear = |name: &str, tear: &dyn Fn(&mut File)| {
        let (guard, torn) = as_killed(data.path());
        tear(&mut OpenOptions::new().write(true).open(torn.join("db")).unwrap());
        let before = fs::read(torn.join("db")).unwrap();
        let line = match open_with(&torn, true, Fdatasync) {
            Ok((store, _)) => panic!("{name}: opened with a log up to {:?}", store.recovery()),
            Err(e) => e.to_string(),
        };
        assert!(!line.contains('\n') && line.contains("nothing was changed"), "{name}: {line}");
        assert!(before == fs::read(torn.join("db")).unwrap(), "{name}: the file was changed");
        drop(guard);
    };
    let len = whole.len() as u64;
    tear("half is gone", &|file| file.set_len(len / 2).unwrap());
    tear("all is gone", &|file| file.set_len(0).unwrap());
    tear("the first page is gone", &|file| file.write_all(&[0; 4096]).unwrap());
    tear("noise in the middle", &|file| {
        file.seek(SeekFrom::Start(1_000_000)).unwrap();
        file.write_all(&[0xa5; 4096]).unwrap();
    });
}

#[test]
fn another_nodes_clusters_or_versions_directory_is_refused_with_the_mend() {
    let data = directory();
    let owner = Owner { cluster: "blue".into(), node: 1 };
    assert!(!owner.check(data.path()).unwrap());
    owner.claim(data.path()).unwrap();
    assert!(owner.check(data.path()).unwrap());
    let line = |owner: Owner| owner.check(data.path()).unwrap_err().to_string();
    let other = line(Owner { cluster: "blue".into(), node: 2 });
    assert!(other.contains("belongs to node 1, not to node 2; start with --id 1"), "{other}");
    let other = line(Owner { cluster: "green".into(), node: 1 });
    assert!(other.contains("belongs to the cluster \"blue\""), "{other}");
    let file = data.path().join("cp.owner");
    let text = fs::read_to_string(&file).unwrap().replace("format 1", "format 2");
    fs::write(&file, text).unwrap();
    let other = line(owner);
    assert!(other.contains("is of format 2, this program reads format 1"), "{other}");
}

#[test]
fn a_directory_in_use_is_refused() {
    let data = directory();
    let _open = open(data.path()).unwrap();
    let line = open(data.path()).map(|_| ()).unwrap_err().to_string();
    assert!(line.contains("is in use by another process"), "{line}");
}
