//! What it costs to make log entries durable: group commits of the Raft log beside the disk's own append + fdatasync.
//!
//! `cargo bench --bench log_append`. Entries hold 200 bytes; the raw side writes as many bytes to a growing file.

use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use openraft::EntryPayload;
use openraft::entry::RaftEntry;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use quorate::raft::durable::Fdatasync;
use quorate::raft::log_store::{LogStore, MIRROR_BYTES_MAX};
use quorate::raft::types::{Entry, LogId, Proposal};
use tempfile::TempDir;

const ENTRY_LEN: usize = 200;
const GROUPS: [u64; 3] = [1, 16, 128];
/// Entries between two purges, so that a long run measures a log of bounded length, as a node has.
const PURGE_EVERY: u64 = 20_000;

/// On the disk that is built on: the system's temporary directory may be RAM.
fn directory() -> TempDir {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("the target directory is writable")
}

fn entry(index: u64) -> Entry {
    let proposal = Proposal::from_bytes(vec![index as u8; ENTRY_LEN].into());
    Entry::new(LogId::new_term_index(1, index), EntryPayload::Normal(proposal))
}

fn log_append(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut group = c.benchmark_group("log_append");
    for size in GROUPS {
        group.throughput(Throughput::Elements(size));
        group.bench_function(BenchmarkId::new("raft_log", size), |b| {
            let data = directory();
            let fatal = Arc::new(|line: &str| panic!("{line}"));
            let (mut store, _closed) =
                LogStore::open(data.path(), false, Box::new(Fdatasync), MIRROR_BYTES_MAX, fatal).expect("it opens");
            let mut next = 0;
            b.iter(|| {
                let entries = (next..next + size).map(entry).collect::<Vec<_>>();
                next += size;
                runtime.block_on(store.blocking_append(entries)).expect("it is durable");
                if next % PURGE_EVERY < size && next > PURGE_EVERY {
                    let upto = LogId::new_term_index(1, next - PURGE_EVERY);
                    runtime.block_on(store.purge(upto)).expect("it is purged");
                }
            });
        });
        group.bench_function(BenchmarkId::new("raw_append_fdatasync", size), |b| {
            let data = directory();
            let mut file = File::create(data.path().join("raw")).expect("the target directory is writable");
            let bytes = vec![7; ENTRY_LEN * size as usize];
            b.iter(|| {
                file.write_all(black_box(&bytes)).expect("it is written");
                file.sync_data().expect("it is durable");
            });
        });
    }
    group.finish();
}

criterion_group!(benches, log_append);
criterion_main!(benches);
