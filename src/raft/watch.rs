//! Watches of `cp`: what the table's revisions changed, in order and without gaps, from a position on.
//!
//! The state machine appends each revision's event to a bounded history ([`Feed`], numbered by revision) and never waits for a
//! reader. A watcher has only a number, takes events from the history when it is asked for them, and is told once when the
//! history has passed it by. Since every node applies the same revisions, a position is good at any node.
//!
//! What a node's history holds: a node that restarts begins with its snapshot and applies the log behind it again, so its history
//! reaches back to that snapshot and no further; one that is sent a snapshot by the leader begins there.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant as StdInstant};

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::Instant;

use super::initial::StatePages;
use super::pulse::{News, Pulse, PulseReader};
use super::reads::Proof;
use super::registry::RaftRegistry;
use crate::feed::{Feed, Gone};
use crate::model::event::{Change, Event, Filter};
use crate::model::ident::Revision;
use crate::model::table::Table;
use crate::registry::{Consistency, Position, QueryCall, Told, Watch, WatchFailure, WatchMessage, Watching};

/// Events taken from the history at once. So many are held for a reader beside the history.
const TAKEN_LEN_MAX: usize = 64;

/// What a node's history may take in memory, about.
pub const HISTORY_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Counted for each event, and for each change on top of its metas.
const EVENT_BYTES: usize = 64;
const CHANGE_BYTES: usize = 512;

/// About what an event takes in memory.
pub fn event_size(event: &Event) -> usize {
    let metas = |change: &Change| match change {
        Change::Registered { entry, previous, .. } | Change::Updated { entry, previous, .. } => {
            entry.meta.as_str().len() + previous.as_ref().map_or(0, |previous| previous.meta.as_str().len())
        }
        Change::Ended { entry, .. }
        | Change::Joined { entry }
        | Change::Left { entry, .. }
        | Change::Hidden { entry }
        | Change::Shown { entry } => entry.meta.as_str().len(),
        Change::LeaseExpired { .. } | Change::Conflict { .. } => 0,
    };
    EVENT_BYTES + event.changes.iter().map(|change| CHANGE_BYTES + metas(change)).sum::<usize>()
}

/// What watches need of their node.
#[derive(Clone)]
pub struct Watches {
    pub feed: Feed<Event>,
    pub pulse: watch::Receiver<Pulse>,
    /// How often a watcher is told how far it is.
    pub progress_period: Duration,
}

impl Watches {
    /// What changes after the revision of this table; with `initial` that table first.
    pub fn from_state(&self, table: Table, filter: Filter, initial: bool) -> RaftWatch {
        let next = table.revision() + 1;
        let stage = if initial { Stage::State(Box::new(StatePages::new(table, &filter))) } else { Stage::Changes };
        self.watch(filter, next, stage)
    }

    /// What changes after this revision, or the oldest revision after which all is known.
    pub fn after(&self, revision: u64, filter: Filter) -> Result<RaftWatch, WatchFailure> {
        let next = revision.saturating_add(1);
        let (first, _) = self.feed.bounds();
        if next < first {
            return Err(WatchFailure::Compacted { oldest: Revision::Cp(first - 1) });
        }
        Ok(self.watch(filter, next, Stage::Changes))
    }

    /// What changes after this revision. If that is gone, the first message says so.
    pub fn resume(&self, revision: u64, filter: Filter) -> RaftWatch {
        self.after(revision, filter.clone()).unwrap_or_else(|_| self.watch(filter, 0, Stage::Lost))
    }

    /// The number that the next event will have.
    pub fn end(&self) -> u64 {
        self.feed.bounds().1
    }

    fn watch(&self, filter: Filter, next: u64, stage: Stage) -> RaftWatch {
        RaftWatch {
            feed: self.feed.clone(),
            published: self.feed.subscribe(),
            pulse: PulseReader::new(self.pulse.clone()),
            filter,
            next,
            taken: VecDeque::new(),
            stage,
            // Where it begins is told at once: a reader that is cut off before anything changes can go on from there, and whether
            // this node is in touch with a majority is worth knowing before all else.
            progress_at: Instant::now(),
            progress_period: self.progress_period,
        }
    }
}

impl RaftRegistry {
    pub(super) async fn begin_watch(&self, watch: Watch, deadline: StdInstant) -> Result<RaftWatch, WatchFailure> {
        let Watch { filter, from, initial } = watch;
        match from {
            Position::Now => {
                // What was acknowledged anywhere before the call is not to be told as a change after it.
                let consistency = Consistency::Linearizable;
                let call = QueryCall::new(deadline, consistency);
                self.catch_up(Proof::Majority, &call).await.map_err(WatchFailure::Failed)?;
                let table = self.view.now().table.clone();
                Ok(self.watches.from_state(table, filter, initial))
            }
            Position::After(revision) => self.watches.after(self.reach_position(&revision, deadline).await?, filter),
            Position::Resume(revision) => {
                Ok(self.watches.resume(self.reach_position(&revision, deadline).await?, filter))
            }
        }
    }

    /// The position, once this node is there: another one may have been ahead.
    async fn reach_position(&self, revision: &Revision, deadline: StdInstant) -> Result<u64, WatchFailure> {
        let position = self.reach(revision, Instant::from_std(deadline)).await.map_err(WatchFailure::Failed)?;
        Ok(if self.flaws.drop_on_resume { self.watches.end() - 1 } else { position })
    }
}

/// One watch.
pub struct RaftWatch {
    feed: Feed<Event>,
    published: watch::Receiver<u64>,
    pulse: PulseReader,
    filter: Filter,
    /// The number of the next event to take from the history.
    next: u64,
    /// Taken, and not yet told: those right before `next`.
    taken: VecDeque<Arc<Event>>,
    stage: Stage,
    progress_at: Instant,
    progress_period: Duration,
}

enum Stage {
    /// The state is still being told.
    State(Box<StatePages>),
    Changes,
    /// The position that was asked for is gone, which is still to be told.
    Lost,
    Ended,
}

/// What a watch does next.
enum Step {
    Tell(WatchMessage),
    /// There is more to look at.
    GoOn,
    /// Everything is told.
    Wait,
    End,
}

#[async_trait]
impl Watching for RaftWatch {
    async fn next(&mut self) -> Option<WatchMessage> {
        // Between two awaits everything taken from the history is kept in `self`: this may be cancelled anywhere.
        loop {
            match self.step() {
                Step::Tell(message) => return Some(message),
                // A long stretch that the filter does not want must not keep others from running.
                Step::GoOn => tokio::task::yield_now().await,
                Step::Wait => tokio::select! {
                    // The history is held by this reader too, and so never ends: the pulse ends with the node.
                    _ = self.published.changed() => {}
                    alive = self.pulse.changed() => if !alive {
                        self.stage = Stage::Ended;
                    },
                    () = tokio::time::sleep_until(self.progress_at) => {}
                },
                Step::End => return None,
            }
        }
    }
}

impl RaftWatch {
    fn step(&mut self) -> Step {
        match &mut self.stage {
            Stage::Ended => return Step::End,
            Stage::Lost => return Step::Tell(self.resync()),
            Stage::State(pages) => {
                // What follows the state is gone already: better now than after the last page.
                if let Err(Gone { replaced: false, .. }) = self.feed.read(self.next, 0) {
                    return Step::Tell(self.overflow());
                }
                if let Some(page) = pages.next_page() {
                    return Step::Tell(WatchMessage { told: Told::State(page), position: None });
                }
                self.stage = Stage::Changes;
                self.progress_at = Instant::now() + self.progress_period;
                return Step::Tell(self.message(Told::Synced));
            }
            Stage::Changes => {}
        }
        match self.pulse.news() {
            Some(News::Stalled) => return Step::Tell(WatchMessage { told: Told::Stalled, position: None }),
            // That it goes on again is worth knowing before the period is over.
            Some(News::Recovered) => return Step::Tell(self.progress()),
            None => {}
        }
        if Instant::now() >= self.progress_at {
            return Step::Tell(self.progress());
        }
        if let Some(wanted) = self.next_wanted() {
            return Step::Tell(wanted);
        }
        // Not beyond what is published: a reader must not hear of what a read at this node does not show yet.
        // The state may be ahead of the history for a moment, and with it a reader that begins with the state.
        let there = *self.published.borrow_and_update();
        if there <= self.next {
            return Step::Wait;
        }
        match self.feed.read(self.next, TAKEN_LEN_MAX.min((there - self.next) as usize)) {
            Ok(events) => {
                self.next += events.len() as u64;
                self.taken.extend(events);
                Step::GoOn
            }
            // Another state was put in the place of the one that this reader has followed.
            Err(Gone { replaced: true, .. }) => Step::Tell(self.resync()),
            Err(Gone { replaced: false, .. }) => Step::Tell(self.overflow()),
        }
    }

    /// The next event taken that is wanted.
    fn next_wanted(&mut self) -> Option<WatchMessage> {
        while let Some(event) = self.taken.pop_front() {
            debug_assert_eq!(event.revision, Revision::Cp(self.position()), "events are numbered by revision");
            if let Some(wanted) = self.filter.apply(&event) {
                return Some(self.message(Told::Change(wanted)));
            }
        }
        None
    }

    /// Up to which revision everything has been told.
    fn position(&self) -> u64 {
        self.next - 1 - self.taken.len() as u64
    }

    fn message(&self, told: Told) -> WatchMessage {
        WatchMessage { told, position: Some(Revision::Cp(self.position())) }
    }

    fn progress(&mut self) -> WatchMessage {
        self.progress_at = Instant::now() + self.progress_period;
        self.message(Told::Progress { quorum: Some(self.pulse.has_quorum()) })
    }

    /// Goes on at the end of the history, which is never beyond what a linearizable read shows.
    fn resync(&mut self) -> WatchMessage {
        (_, self.next) = self.feed.bounds();
        self.taken.clear();
        self.stage = Stage::Changes;
        self.progress_at = Instant::now() + self.progress_period;
        self.message(Told::Resync)
    }

    fn overflow(&mut self) -> WatchMessage {
        self.stage = Stage::Ended;
        self.taken.clear();
        WatchMessage { told: Told::Overflow, position: None }
    }
}
