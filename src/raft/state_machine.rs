//! The replicated table: steps in, outcomes out, and a view that readers take without waiting.
//!
//! One task applies. After each batch it publishes a clone of the table, which costs nothing to make since clones share
//! structure; a reader takes the newest view in nanoseconds and keeps it as long as it likes. What changed goes into a feed, where an
//! event's number is its revision; its readers hear of it once the view shows it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use tokio::sync::watch;
use tokio::time::Instant;

use super::content::Content;
use super::lease_clock::LeaseClock;
use super::roster::Roster;
use super::snapshot::{SnapshotData, SnapshotStore};
use super::types::{Applied, LogId, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};
use super::watch::{HISTORY_BYTES_MAX, event_size};
use crate::feed::Feed;
use crate::model::event::Event;
use crate::model::table::{News, Table};

/// Entries applied before readers see them and clients hear of them, at most.
const APPLY_BATCH_LEN_MAX: usize = 512;
/// A snapshot that nobody insists on is not begun sooner after the last one.
const SNAPSHOT_PERIOD_MIN: Duration = Duration::from_secs(10);

/// The table as of one log entry.
#[derive(Clone, Default)]
pub struct Published {
    pub table: Table,
    pub applied: Option<LogId>,
}

impl Published {
    /// The leadership whose entry was applied last.
    pub fn leadership(&self) -> u64 {
        self.applied.map_or(0, |applied| applied.committed_leader_id().term)
    }

    /// Index of the next entry to apply.
    pub fn next_index(&self) -> u64 {
        self.applied.map_or(0, |applied| applied.index() + 1)
    }
}

/// What readers see of the state machine. Clones share it.
#[derive(Clone)]
pub struct View {
    published: Arc<ArcSwap<Published>>,
    /// Index of the next entry to apply; raised after `published`.
    next: watch::Receiver<u64>,
    events: Feed<Event>,
    roster: watch::Receiver<Arc<Roster>>,
    snapshot_wanted: Arc<AtomicBool>,
}

impl View {
    /// The newest state. It stays as it is while it is held.
    pub fn now(&self) -> arc_swap::Guard<Arc<Published>> {
        self.published.load()
    }

    /// Who is in the cluster, as of the last membership applied here, and who was removed from it. Raised before `now`.
    pub fn roster(&self) -> watch::Receiver<Arc<Roster>> {
        self.roster.clone()
    }

    /// Returns once the entry of this index, and all before it, are applied. False: the state machine is gone.
    pub async fn wait_for(&self, index: u64) -> bool {
        self.next.clone().wait_for(|next| *next > index).await.is_ok()
    }

    /// Whether somebody insists on a snapshot: the next one is then begun however short a time ago the last one was. It counts once.
    pub fn want_snapshot(&self, wanted: bool) {
        self.snapshot_wanted.store(wanted, Ordering::Relaxed);
    }

    /// What has changed here, numbered by revision. An event is published after the view that shows it.
    pub fn events(&self) -> &Feed<Event> {
        &self.events
    }

    /// Returns once this revision is reached. False: the state machine is gone.
    pub async fn wait_for_revision(&self, revision: u64) -> bool {
        self.wait_until(|state| state.table.revision() >= revision).await
    }

    /// Returns once the state is like this. False: the state machine is gone.
    pub async fn wait_until(&self, condition: impl Fn(&Published) -> bool) -> bool {
        self.next.clone().wait_for(|_| condition(&self.now())).await.is_ok()
    }
}

/// Applies the log to the table.
pub struct StateMachine {
    table: Table,
    applied: Option<LogId>,
    roster: watch::Sender<Arc<Roster>>,
    published: Arc<ArcSwap<Published>>,
    next: watch::Sender<u64>,
    events: Feed<Event>,
    leases: Arc<LeaseClock>,
    snapshots: Arc<SnapshotStore>,
    snapshot_began: Option<Instant>,
    snapshot_wanted: Arc<AtomicBool>,
    /// How far the log is on disk here, if that is to be waited for.
    durable: Option<watch::Receiver<u64>>,
}

impl StateMachine {
    /// An empty table, and a history of at most `watch_history` events. Whatever is applied, and so seen by readers, is on this node's
    /// disk first if `durable` is given: a restarted node can then tell by its log what it may have shown. `leases` hears of leases that
    /// begin and end.
    pub fn new(
        snapshots: Arc<SnapshotStore>,
        durable: Option<watch::Receiver<u64>>,
        watch_history: usize,
        leases: Arc<LeaseClock>,
    ) -> (Self, View) {
        let published = Arc::new(ArcSwap::default());
        let (next, next_seen) = watch::channel(0);
        let events = Feed::weighing(1, watch_history, HISTORY_BYTES_MAX, event_size);
        let (roster, roster_seen) = watch::channel(Arc::default());
        let snapshot_wanted = Arc::<AtomicBool>::default();
        let view = View {
            published: published.clone(),
            next: next_seen,
            events: events.clone(),
            roster: roster_seen,
            snapshot_wanted: snapshot_wanted.clone(),
        };
        let machine = Self {
            table: Table::default(),
            applied: None,
            roster,
            published,
            next,
            events,
            leases,
            snapshots,
            snapshot_began: None,
            snapshot_wanted,
            durable,
        };
        (machine, view)
    }

    async fn apply_batch(&mut self, batch: &mut Vec<EntryResponder<TypeConfig>>) -> io::Result<()> {
        let Some((last, _)) = batch.last() else { return Ok(()) };
        let last = last.log_id.index();
        if let Some(durable) = &mut self.durable {
            let gone = |_| io::Error::other("the Raft log is closed");
            durable.wait_for(|next| *next > last).await.map_err(gone)?;
        }
        let mut answers = Vec::with_capacity(batch.len());
        let mut news = News::default();
        for (entry, responder) in batch.drain(..) {
            self.table.lead(entry.log_id.committed_leader_id().term);
            let effect = match &entry.payload {
                EntryPayload::Blank => None,
                EntryPayload::Normal(proposal) => {
                    // Every replica would fail alike: better to stop than to differ.
                    let step = proposal.decode().map_err(io::Error::other)?;
                    let outcomes = self.table.take(&step, &mut news);
                    Some(Applied { outcomes, revision: self.table.revision() })
                }
                EntryPayload::Membership(membership) => {
                    let stored = StoredMembership::new(Some(entry.log_id), membership.clone());
                    self.roster.send_modify(|roster| Arc::make_mut(roster).follow(stored));
                    None
                }
            };
            self.applied = Some(entry.log_id);
            answers.extend(responder.map(|responder| (responder, effect)));
        }
        // Readers first: whoever has been told of a write must see it.
        self.publish();
        self.events.append(news.events);
        self.events.publish();
        self.leases.hear(&news.leases);
        answers.into_iter().for_each(|(responder, effect)| responder.send(effect));
        Ok(())
    }

    fn publish(&mut self) {
        let published = Published { table: self.table.clone(), applied: self.applied };
        let next = published.next_index();
        self.published.store(Arc::new(published));
        self.next.send_replace(next);
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, self.roster.borrow().membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut batch = Vec::new();
        while let Some(entry) = entries.next().await {
            batch.push(entry?);
            if batch.len() == APPLY_BATCH_LEN_MAX {
                self.apply_batch(&mut batch).await?;
            }
        }
        self.apply_batch(&mut batch).await
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<SnapshotBuilder> {
        let recent = self.snapshot_began.is_some_and(|began| began.elapsed() < SNAPSHOT_PERIOD_MIN);
        // Raft itself never insists, not even when it is asked for one.
        let wanted = self.snapshot_wanted.swap(false, Ordering::Relaxed);
        if recent && !force && !wanted {
            return None;
        }
        Some(self.get_snapshot_builder().await)
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        self.snapshot_began = Some(Instant::now());
        let roster = self.roster.borrow().clone();
        let meta = SnapshotMeta { last_log_id: self.applied, last_membership: roster.membership.clone() };
        let content = Content { table: self.table.clone(), retired: roster.retired.clone() };
        SnapshotBuilder { content, meta, store: self.snapshots.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotData) -> io::Result<()> {
        let (store, keep) = (self.snapshots.clone(), meta.clone());
        let Content { table, retired } = blocking(move || store.install(&keep, &snapshot)).await?;
        self.table = table;
        self.applied = meta.last_log_id;
        self.roster.send_replace(Arc::new(Roster { membership: meta.last_membership.clone(), retired }));
        self.publish();
        // What lies between is in no event: readers begin anew.
        self.events.restart(self.table.revision() + 1);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let store = self.snapshots.clone();
        blocking(move || store.current()).await
    }
}

/// Writes a snapshot of the state as it was when this was made, in the background.
pub struct SnapshotBuilder {
    content: Content,
    meta: SnapshotMeta,
    store: Arc<SnapshotStore>,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let (content, meta, store) = (self.content.clone(), self.meta.clone(), self.store.clone());
        blocking(move || store.build(&meta, &content)).await
    }
}

/// Runs what touches the disk away from the threads that serve requests.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
