//! Snapshots that come in pieces: whole or not at all, whenever they are cut short.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use quorate::model::command::{Action, Command, Condition};
use quorate::model::ident::Meta;
use quorate::model::table::News;
use quorate::model::time::UnixMillis;
use quorate::raft::content::{self, Content};
use quorate::raft::durable::{Disk, Fdatasync};
use quorate::raft::snapshot::{SnapshotData, SnapshotStore};
use quorate::raft::types::{LogId, SnapshotMeta};

use crate::raft_storage::{as_killed, directory};

fn content(names: usize) -> Content {
    let mut content = Content::default();
    for at in 0..names {
        let meta = format!("{{\"m\":\"{}\"}}", "x".repeat(1_000)).parse::<Meta>().unwrap();
        let (name, owner) = (format!("name-{at}").parse().unwrap(), "owner".parse().unwrap());
        let action = Action::Register { name, owner, meta, lease: None, condition: Condition::Free };
        content.table.apply(&Command { action, node: 1, at: UnixMillis(0) }, &mut News::default());
    }
    content
}

fn pieces(content: &Content) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    let mut take = |piece: bytes::Bytes| {
        pieces.push(piece.to_vec());
        Ok(())
    };
    content::encode(content, &mut take).unwrap();
    pieces
}

fn meta(index: u64) -> SnapshotMeta {
    SnapshotMeta { last_log_id: Some(LogId::new_term_index(1, index)), ..SnapshotMeta::default() }
}

fn open(path: &Path) -> Arc<SnapshotStore> {
    SnapshotStore::open(path, false, Box::new(Fdatasync)).unwrap()
}

fn close(store: Arc<SnapshotStore>) {
    let closed = store.when_closed().unwrap();
    drop(store);
    closed.wait(Duration::from_secs(10));
}

/// What lies on the disk of a store that is closed.
fn rows(path: &Path) -> usize {
    let disk = Disk::open(path, Box::new(Fdatasync)).unwrap();
    disk.scan(b"S").filter(|row| row.as_ref().unwrap().0.starts_with(b"S")).count()
}

fn current(store: &Arc<SnapshotStore>) -> (Option<LogId>, Content) {
    let snapshot = store.current().unwrap().unwrap();
    let content = store.install(&snapshot.meta, &snapshot.snapshot).unwrap();
    (snapshot.meta.last_log_id, content)
}

/// Has these pieces arrive and be installed.
fn receive(store: &Arc<SnapshotStore>, index: u64, pieces: &[Vec<u8>]) -> std::io::Result<Content> {
    let mut draft = store.draft()?;
    pieces.iter().try_for_each(|piece| draft.push(piece))?;
    store.install(&meta(index), &SnapshotData::Received(Arc::new(draft)))
}

#[test]
fn a_snapshot_that_has_arrived_replaces_the_current_one_and_leaves_nothing_of_it() {
    let data = directory();
    let store = open(data.path());
    store.build(&meta(5), &content(300)).unwrap();
    let arrived = content(500);
    assert_eq!(receive(&store, 9, &pieces(&arrived)).unwrap(), arrived);
    assert_eq!(current(&store), (meta(9).last_log_id, arrived.clone()));
    // An older one does not come before it, though it was read.
    receive(&store, 7, &pieces(&content(200))).unwrap();
    assert_eq!(current(&store).0, meta(9).last_log_id);
    close(store);
    let again = open(data.path());
    assert_eq!(current(&again), (meta(9).last_log_id, arrived.clone()));
    close(again);
    assert_eq!(rows(data.path()), pieces(&arrived).len());
}

#[test]
fn what_does_not_arrive_whole_changes_nothing() {
    let data = directory();
    let store = open(data.path());
    let kept = content(300);
    store.build(&meta(5), &kept).unwrap();
    let whole = pieces(&content(500));
    let (mut swapped, mut flipped, mut longer) = (whole.clone(), whole.clone(), whole.clone());
    swapped.swap(1, 3);
    flipped[0][0] ^= 1;
    longer.push(vec![7]);
    for (what, torn) in
        [("without its end", &whole[..4]), ("swapped", &swapped), ("flipped", &flipped), ("longer", &longer)]
    {
        assert!(receive(&store, 9, torn).is_err(), "{what}");
        assert_eq!(current(&store), (meta(5).last_log_id, kept.clone()), "{what}");
    }
    // The connection breaks, and the leader begins anew.
    let mut draft = store.draft().unwrap();
    whole[..5].iter().for_each(|piece| draft.push(piece).unwrap());
    drop(draft);
    let (_guard, killed) = as_killed(data.path());
    let mut draft = store.draft().unwrap();
    whole[..3].iter().for_each(|piece| draft.push(piece).unwrap());
    drop(draft);
    drop(store.draft().unwrap());
    close(store);
    assert_eq!(rows(data.path()), pieces(&kept).len(), "what was given up is gone");
    // A kill in the middle of it.
    let again = open(&killed);
    assert_eq!(current(&again), (meta(5).last_log_id, kept.clone()));
    close(again);
    assert_eq!(rows(&killed), pieces(&kept).len());
}
