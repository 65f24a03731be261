//! Log entries that are longer than a value of sled's may be: written in pieces, they count as a whole or not at all.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use openraft::EntryPayload;
use openraft::entry::RaftEntry;
use openraft::storage::{RaftLogReader, RaftLogStorage, RaftLogStorageExt};
use quorate::raft::durable::{Disk, Fdatasync};
use quorate::raft::keys::chunk_key;
use quorate::raft::log_store::LogStore;
use quorate::raft::pieces::piece_key;
use quorate::raft::types::{Entry, LogId, Proposal};

use crate::raft_storage::{all, as_killed, close, directory, entries, entry, open, open_with, refusal};

/// An entry that takes `len` bytes: more than one value of sled's, if it is long.
fn long_entry(term: u64, index: u64, len: usize) -> Entry {
    let bytes = (0..len).map(|at| (at / 11 + index as usize) as u8).collect::<Vec<_>>();
    Entry::new(LogId::new_term_index(term, index), EntryPayload::Normal(Proposal::from_bytes(bytes.into())))
}

const LONG: usize = 1_100_000;

#[tokio::test]
async fn long_entries_among_short_ones_outlive_a_kill_a_truncation_and_a_purge() {
    let data = directory();
    let mut store = open(data.path()).unwrap().0;
    let all_of = |term| (0..30).map(move |at| if at % 3 == 0 { long_entry(term, at, LONG) } else { entry(term, at) });
    store.blocking_append(all_of(1)).await.unwrap();
    let (_guard, killed) = as_killed(data.path());
    let mut again = open_with(&killed, true, Fdatasync).unwrap();
    assert_eq!(all(&mut again.0).await, all_of(1).collect::<Vec<_>>());
    close(again);

    // Behind a long one, before one, and then with other entries in their place.
    store.truncate_after(Some(LogId::new_term_index(1, 27))).await.unwrap();
    store.truncate_after(Some(LogId::new_term_index(1, 23))).await.unwrap();
    store.blocking_append([long_entry(2, 24, 200_000), entry(2, 25)]).await.unwrap();
    store.purge(LogId::new_term_index(1, 15)).await.unwrap();
    let kept = all_of(1).skip(16).take(8).chain([long_entry(2, 24, 200_000), entry(2, 25)]).collect::<Vec<_>>();
    assert_eq!(all(&mut store).await, kept);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (_guard, killed) = as_killed(data.path());
    let mut again = open_with(&killed, true, Fdatasync).unwrap();
    assert_eq!(all(&mut again.0).await, kept);
    close(again);
}

#[tokio::test]
async fn a_purge_of_more_pieces_than_are_deleted_at_once_leaves_no_part_of_an_entry() {
    let data = directory();
    let mut store = open(data.path()).unwrap().0;
    for at in 0..40 {
        store.blocking_append([long_entry(1, at, 700_000)]).await.unwrap();
    }
    store.purge(LogId::new_term_index(1, 35)).await.unwrap();
    // Wherever in the purge it is killed: it opens, and shows what was kept.
    for at in 40..44 {
        store.blocking_append([entry(1, at)]).await.unwrap();
        let (_guard, killed) = as_killed(data.path());
        let mut again = open_with(&killed, true, Fdatasync).unwrap();
        let found = all(&mut again.0).await;
        assert_eq!(found.first().map(|entry| entry.log_id.index()), Some(36));
        assert_eq!(found.len() as u64, at - 35);
        close(again);
    }
}

#[tokio::test]
async fn a_long_entry_is_served_from_disk_when_the_mirror_has_let_it_go() {
    let data = directory();
    let fatal = Arc::new(|line: &str| panic!("{line}"));
    let (mut store, _closed) = LogStore::open(data.path(), false, Box::new(Fdatasync), 64 * 1024, fatal).unwrap();
    let mut expected = Vec::new();
    for at in 0..6 {
        let more = [long_entry(1, 2 * at, LONG), entry(1, 2 * at + 1)];
        store.save_committed(Some(LogId::new_term_index(1, 2 * at + 1))).await.unwrap();
        store.blocking_append(more.clone()).await.unwrap();
        expected.extend(more);
    }
    assert_eq!(all(&mut store).await, expected);
    for at in 0..12 {
        let some = store.limited_get_log_entries(at, 12).await.unwrap();
        assert!(!some.is_empty() && some[0] == expected[at as usize], "from {at}");
    }
}

/// A long entry whose write was under way when the machine stopped is there as a whole or not at all, and what was acknowledged
/// before it is there in any case.
#[tokio::test]
async fn a_long_entry_of_which_the_disk_has_only_a_part_never_was() {
    let data = directory();
    let mut store = open(data.path()).unwrap().0;
    store.blocking_append(entries(1, 0..10)).await.unwrap();
    let (_before, before) = as_killed(data.path());
    store.blocking_append([long_entry(1, 10, 300_000)]).await.unwrap();
    let (_after, after) = as_killed(data.path());
    let whole = fs::read(after.join("db")).unwrap();
    let old = fs::read(before.join("db")).unwrap();
    let common = old.iter().zip(&whole).take_while(|(old, new)| old == new).count();
    let end = whole.len() - whole.iter().rev().take_while(|byte| **byte == 0).count();
    assert!(end > common + 300_000);
    let (mut torn, mut complete) = (0, 0);
    for cut in (common..end).step_by((end - common) / 12).chain([end]) {
        let (_guard, copy) = as_killed(&before);
        // Up to the cut as it was to be, behind it as it had been.
        let mut bytes = old.clone();
        bytes.resize(bytes.len().max(whole.len()), 0);
        bytes[..cut].copy_from_slice(&whole[..cut]);
        fs::write(copy.join("db"), bytes).unwrap();
        let mut again = open_with(&copy, true, Fdatasync).unwrap_or_else(|e| panic!("cut at {cut} of {end}: {e}"));
        let found = all(&mut again.0).await;
        assert_eq!(found[..10], entries(1, 0..10));
        match &found[10..] {
            [] => torn += 1,
            [entry] => {
                assert_eq!(*entry, long_entry(1, 10, 300_000));
                complete += 1;
            }
            more => panic!("{} entries", more.len()),
        }
        // It goes on from there.
        let next = found.len() as u64;
        again.0.blocking_append([entry(2, next)]).await.unwrap();
        close(again);
    }
    assert!(torn > 0 && complete > 0, "{torn} torn, {complete} complete");
}

/// What sled gives back as a whole can still be wrong: each piece is missed.
#[tokio::test]
async fn a_missing_piece_is_damage_wherever_it_is() {
    let data = directory();
    let store = open(data.path()).unwrap();
    let all = [entry(1, 0), long_entry(1, 1, 300_000), entry(1, 2)];
    store.0.clone().blocking_append(all.clone()).await.unwrap();
    close(store);
    for piece in 0..5 {
        let (_guard, copy) = as_killed(data.path());
        let mut disk = Disk::open(&copy, Box::new(Fdatasync)).unwrap();
        let mut batch = sled::Batch::default();
        match piece {
            0 => batch.remove(&chunk_key(1)),
            piece => batch.remove(&piece_key(1, piece)),
        }
        disk.apply(batch).unwrap();
        disk.commit().unwrap();
        drop(disk);
        let line = refusal(open_with(&copy, true, Fdatasync));
        let why = if piece == 0 { "has no beginning" } else { "lacks piece" };
        assert!(line.contains("the log from entry 1 on") && line.contains(why), "{line}");
    }
}
