//! A cluster that is made of a backup (protocol C11).

use quorate::model::command::{Action, Command};
use quorate::model::step::Step;
use quorate::model::table::{News, Table};
use quorate::model::time::UnixMillis;
use quorate::node::restore::restore;
use quorate::raft::backup;
use quorate::raft::durable::Fdatasync;
use quorate::raft::snapshot::SnapshotStore;

/// What each live lease has left for the next leader, in the order of their creation.
fn left(table: &Table) -> Vec<u64> {
    let mut leases = table.leases().map(|facts| (facts.number, facts.left_ms)).collect::<Vec<_>>();
    leases.sort_unstable();
    leases.into_iter().map(|(_, left_ms)| left_ms).collect()
}

#[tokio::test]
async fn c11_restored_leases_begin_with_all_of_their_time() {
    let mut table = Table::default();
    let take = |table: &mut Table, step| {
        table.take(&step, &mut News::default());
    };
    table.lead(1);
    for (lease, ttl_ms) in [("a", 60_000), ("b", 20_000), ("c", 60_000)] {
        let action = Action::CreateLease { lease: Some(lease.parse().unwrap()), ttl_ms, credential: None };
        take(&mut table, Step::Command(Command { action, node: 1, at: UnixMillis(0) }));
    }
    // Two leaders, under which some of them have aged.
    table.lead(2);
    take(&mut table, Step::KeptAlive { leases: vec![3] });
    take(&mut table, Step::Aged { ms: 15_000 });
    table.lead(3);
    take(&mut table, Step::Aged { ms: 4_000 });
    assert_eq!(left(&table), [41_000, 1_000, 56_000]);

    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (file, data) = (dir.path().join("backup"), dir.path().join("data"));
    let bytes = backup::write("old", table, 3, UnixMillis(0)).unwrap().concat();
    std::fs::write(&file, bytes).unwrap();
    restore(&file, &data, 1, "127.0.0.1:1").await.unwrap();
    let store = SnapshotStore::open(&data.join("snap"), true, Box::new(Fdatasync)).unwrap();
    let found = store.current().unwrap().unwrap();
    let content = store.install(&found.meta, &found.snapshot).unwrap();
    assert_eq!(left(&content.table), [60_000, 20_000, 60_000]);
}
