//! No length in a message is believed: a decoder takes no more memory at once than the bytes that are there allow (protocol W3).

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use quorate::gossip::context::{Context, OpId, Run};
use quorate::gossip::message::Message;
use quorate::gossip::operation::{Operation, Reason, Stamp};
use quorate::gossip::passing::{Asked, Passed};
use quorate::model::command::{Action, Command, Condition};
use quorate::model::ident::{LeaseId, Meta};
use quorate::model::step::Step;
use quorate::model::table::{News, Table};
use quorate::model::time::UnixMillis;
use quorate::net::frame;
use quorate::raft::rpc::{self, Small};
use quorate::raft::types::{Proposal, Vote};

/// Notes the largest piece of memory that a thread has asked for.
struct Noting;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

fn note(size: usize) {
    let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(size)));
}

// SAFETY: everything is left to the system's allocator; a thread-local cell of a number allocates nothing.
unsafe impl GlobalAlloc for Noting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        // SAFETY: as the caller promised.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Noting = Noting;

/// What serde and the maps take ahead at most, whatever length is claimed: about a megabyte.
const AHEAD_MAX: usize = 2 << 20;
/// An element in memory is larger than in bytes.
const GROWTH_MAX: usize = 64;

/// Has damaged and invented messages decoded; what was taken beyond what they allow.
fn greed(samples: &[Vec<u8>], decode: impl Fn(&[u8])) -> Option<String> {
    let mut rng = StdRng::seed_from_u64(1);
    for round in 0..4_000 {
        let mut bytes = samples[round % samples.len()].clone();
        match round % 4 {
            0 => bytes.truncate(rng.random_range(0..=bytes.len())),
            1 => bytes = (0..rng.random_range(2..200)).map(|_| rng.random()).collect(),
            // A length as long as a varint can be, somewhere.
            _ => {
                let at = rng.random_range(0..bytes.len());
                bytes.splice(at..(at + 1).min(bytes.len()), [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
            }
        }
        // So that more of them get past the first byte.
        if round % 8 == 1 {
            let head = samples[0].len().min(2);
            bytes[..head].copy_from_slice(&samples[0][..head]);
        }
        LARGEST.set(0);
        decode(&bytes);
        let (largest, allowed) = (LARGEST.get(), AHEAD_MAX + GROWTH_MAX * bytes.len());
        if largest > allowed {
            return Some(format!("{largest} bytes at once for a message of {}: {bytes:?}", bytes.len()));
        }
    }
    None
}

fn commands(count: usize) -> Vec<Command> {
    let command = |at: usize| {
        let (name, owner) = (format!("name-{at}").parse().unwrap(), "owner".parse().unwrap());
        let meta = "{\"k\":[1,2,3]}".parse::<Meta>().unwrap();
        let action = Action::Register { name, owner, meta, lease: None, condition: Condition::Free };
        Command { action, node: 1, at: UnixMillis(7) }
    };
    (0..count).map(command).collect()
}

fn gossip() -> Vec<Vec<u8>> {
    let id = OpId { run: Run { node: 1, bits: 7 }, number: 3 };
    let context = Context::from_iter([(id.run, 9), (Run { node: 2, bits: 8 }, 4)]);
    let stamp = Stamp { hlc: 5, id };
    let remove = Operation::Remove { stamp, grants: vec![id; 5], reason: Reason::Given };
    let passed = Passed { slot: 0, lease: "worker-7".parse().unwrap() };
    let calls = vec![Asked { id: 1, leases: vec![passed; 3], by: None }];
    let messages = [
        Message::Push { operations: vec![remove; 4] },
        Message::Vector { context, answer: true },
        Message::Keep { calls },
        Message::PassOn { leases: vec![("worker-7".parse().unwrap(), 1_000); 3], adopt: false },
    ];
    messages.iter().map(Message::encode).collect()
}

#[test]
fn no_decoder_of_messages_and_log_entries_takes_more_memory_than_the_bytes_that_are_there_allow() {
    assert_eq!(greed(&gossip(), |bytes| drop(black_box(Message::decode(bytes)))), None, "gossip");

    let entry = |at: u64| {
        let proposal = Proposal::encode(&Step::Batch(commands(3))).unwrap();
        openraft::entry::RaftEntry::new(
            quorate::raft::types::LogId::new_term_index(1, at),
            openraft::EntryPayload::Normal(proposal),
        )
    };
    let entries = (0..5).map(entry).collect();
    let append = openraft::raft::AppendEntriesRequest {
        vote: Vote::new_committed(1, 1),
        prev_log_id: None,
        entries,
        leader_commit: None,
    };
    let meta = quorate::raft::types::SnapshotMeta::default();
    let snapshot = Small::Snapshot { vote: Vote::new_committed(1, 1), meta, pieces: 7 };
    let requests = [rpc::encode_append(&append), rpc::encode_small(&snapshot)];
    let decode = |bytes: &[u8]| {
        black_box(rpc::decode_request(Bytes::copy_from_slice(bytes)).is_ok());
    };
    assert_eq!(greed(&requests, decode), None, "Raft's requests");
    let decode = |bytes: &[u8]| {
        black_box(rpc::decode_response(bytes).is_ok());
    };
    assert_eq!(greed(&requests, decode), None, "Raft's answers");

    let steps = [Step::Batch(commands(5)), Step::Expire { leases: vec![3; 40] }];
    let steps = steps.map(|step| Proposal::encode(&step).unwrap().bytes().to_vec());
    let decode = |bytes: &[u8]| {
        black_box(Proposal::from_bytes(Bytes::copy_from_slice(bytes)).decode().is_ok());
    };
    assert_eq!(greed(&steps, decode), None, "log entries");

    let decode = |bytes: &[u8]| {
        black_box(postcard::from_bytes::<Table>(bytes).is_ok());
    };
    assert_eq!(greed(&tables(), decode), None, "snapshots");
}

/// Names, groups, leases with what is bound to them, and leases that have ended.
fn tables() -> Vec<Vec<u8>> {
    let mut table = Table::default();
    let mut take = |action| {
        let command = Command { action, node: 1, at: UnixMillis(7) };
        table.take(&Step::Command(command), &mut News::default());
    };
    for at in 0..20 {
        let lease: LeaseId = format!("lease-{at}").parse().unwrap();
        take(Action::CreateLease { lease: Some(lease.clone()), ttl_ms: 5_000, credential: None });
        let (name, owner, meta) = (format!("name-{at}").parse().unwrap(), "owner".parse().unwrap(), Meta::empty());
        take(Action::Register { name, owner, meta, lease: Some(lease.clone()), condition: Condition::Free });
        let (group, member) = ("group".parse().unwrap(), format!("member-{at}").parse().unwrap());
        take(Action::Join { group, member, meta: Meta::empty(), lease: Some(lease.clone()) });
        if at % 2 == 0 {
            take(Action::RevokeLease { lease, by: None });
        }
    }
    vec![postcard::to_allocvec(&table).unwrap()]
}

#[test]
fn a_decoder_that_believes_a_length_is_found_out() {
    let believing = |bytes: &[u8]| {
        if let Ok((claimed, _)) = postcard::take_from_bytes::<u64>(bytes.get(1..).unwrap_or_default()) {
            black_box(Vec::<u8>::with_capacity(claimed.min(1 << 31) as usize));
        }
    };
    assert!(greed(&gossip(), believing).is_some());
}

#[tokio::test]
async fn a_frames_memory_is_taken_as_its_bytes_come_and_a_length_beyond_the_limit_is_refused() {
    for (len, max) in [(30_000_000_u32, frame::FRAME_LEN_MAX), (u32::MAX, frame::FRAME_LEN_MAX), (1_000, 999)] {
        let bytes = [&len.to_le_bytes()[..], &[0; 4], &[7; 100]].concat();
        LARGEST.set(0);
        let read = frame::read(&mut &bytes[..], &mut BytesMut::new(), max).await;
        assert!(read.is_err(), "{len}");
        assert!(LARGEST.get() <= 256 * 1024, "{} bytes at once", LARGEST.get());
    }
}
