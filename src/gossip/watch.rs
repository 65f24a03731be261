//! Watching (protocol A10): a reader at its own pace, that nobody waits for.
//!
//! A reader begins with a [`Scan`], or with what it has missed since its cursor, out of the kept operations; then it follows this
//! node's history of events. What it is told there comes in the order in which it came to this node, and at least once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::model::event::{Change, Event, Filter};
use crate::model::ident::Revision;
use crate::registry::{Position, Reason, Told, Watch, WatchFailure, WatchMessage, Watching};

use super::context::{Context, Run};
use super::core::Core;
use super::cursor::{self, Cursor};
use super::registry::{GossipRegistry, until};
use super::scan::Scan;
use super::shell::Shared;

/// A node that has not applied what a cursor covers waits so long for it: longer than catching up takes where there is contact. What
/// has not come by then may never come, for a process that told of its operations can have died with them.
const BEHIND_PATIENCE: Duration = Duration::from_secs(5);
/// After changes went out the position follows no sooner than this after the last one.
const POSITION_PAUSE: Duration = Duration::from_secs(1);
/// Events that are read at once.
const READ_LEN: usize = 256;
/// Entries of one page of the state.
const PAGE_LEN: usize = 500;

/// One watcher of one node.
pub struct GossipWatch {
    shared: Arc<Shared>,
    /// The run of this process.
    run: Run,
    filter: Filter,
    stage: Stage,
    /// Told next, in this order.
    pending: VecDeque<WatchMessage>,
    history: watch::Receiver<u64>,
    over: watch::Receiver<bool>,
    /// When the last position was told.
    positioned: Instant,
    /// Whether changes were told since.
    changed: bool,
    /// A position, and the number that the reader has to have come to for it.
    goal: Option<(u64, Revision)>,
}

enum Stage {
    /// This node has not applied all that the cursor covers.
    Behind {
        cursor: Context,
        until: Instant,
    },
    /// What is kept and this does not cover is to be told.
    Missed(Context),
    Scanning(Scan),
    /// The scan's pages are to be told, and what goes on after them.
    Paging {
        scan: Scan,
        next: u64,
        position: Revision,
    },
    /// Follows the history: the event of this number is the next.
    Following(u64),
    Over,
}

impl GossipRegistry {
    /// Begins to watch.
    pub(super) async fn begin(&self, watch: Watch, deadline: std::time::Instant) -> Result<GossipWatch, WatchFailure> {
        if !self.shared.view().is_serving() {
            return Err(WatchFailure::Failed(Reason::Starting));
        }
        if !self.shared.view().is_telling() {
            self.shared.core().begin_telling();
        }
        let mut first = None;
        let stage = match &watch.from {
            Position::Now if watch.initial => Stage::Scanning(Scan::new(&watch.filter, self.shared.present().0)),
            Position::Now => {
                let (next, position) = self.shared.present();
                // Where to go on has to be known from the first: a reader without a position would miss what comes while it is away.
                first = Some(position);
                Stage::Following(next)
            }
            Position::After(revision) => self.after(revision, deadline).await?,
            Position::Resume(revision) => self.resume(revision),
        };
        let run = self.shared.view().run();
        let mut reader = GossipWatch {
            shared: Arc::clone(&self.shared),
            run,
            filter: watch.filter,
            stage,
            pending: VecDeque::new(),
            history: self.shared.feed.subscribe(),
            over: self.shared.over.subscribe(),
            positioned: Instant::now(),
            changed: false,
            goal: None,
        };
        if let Stage::Over = reader.stage {
            reader.resync();
        }
        if let Some(position) = first {
            reader.push(Told::Progress { quorum: None }, Some(position));
        }
        Ok(reader)
    }

    fn resume(&self, revision: &Revision) -> Stage {
        match Cursor::parse(revision) {
            Some(Cursor::Context(cursor)) if self.shared.view().skips_missed() => {
                drop(cursor);
                Stage::Following(self.shared.present().0)
            }
            Some(Cursor::Context(_)) if self.shared.view().hides() => Stage::Over,
            Some(Cursor::Context(cursor)) => Stage::Behind { cursor, until: Instant::now() + BEHIND_PATIENCE },
            Some(Cursor::Local(run, next)) if self.shared.view().run() == run && self.keeps(next) => {
                Stage::Following(next)
            }
            Some(Cursor::Local(..)) | None => Stage::Over,
        }
    }

    /// As [`resume`](Self::resume), or not at all.
    async fn after(&self, revision: &Revision, deadline: std::time::Instant) -> Result<Stage, WatchFailure> {
        let stage = self.resume(revision);
        let gone = || WatchFailure::Compacted { oldest: self.shared.present().1 };
        match &stage {
            Stage::Over => Err(gone()),
            Stage::Behind { cursor, .. } => {
                let come = || self.shared.view().context().covers_all(cursor).then_some(());
                until(&self.shared.advanced, deadline, come).await.ok_or_else(gone)?;
                let is_kept = self.shared.view().missed(cursor, 0).is_some();
                if is_kept { Ok(stage) } else { Err(gone()) }
            }
            _ => Ok(stage),
        }
    }

    fn keeps(&self, next: u64) -> bool {
        let (first, end) = self.shared.feed.bounds();
        (first..=end).contains(&next)
    }
}

impl Shared {
    /// The number of the next event, and the position of a reader that has been told everything before it.
    fn present(&self) -> (u64, Revision) {
        let core = self.view();
        let next = self.feed.bounds().1;
        (next, core.position(next))
    }
}

impl GossipWatch {
    fn push(&mut self, told: Told, position: Option<Revision>) {
        if position.is_some() {
            self.positioned = Instant::now();
            self.changed = false;
            self.goal = None;
        }
        self.pending.push_back(WatchMessage { told, position });
    }

    /// The position that was asked for is gone: what is told from here on follows on the present.
    fn resync(&mut self) {
        let (next, position) = self.shared.present();
        self.stage = Stage::Following(next);
        self.push(Told::Resync, Some(position));
    }

    fn overflow(&mut self) {
        self.stage = Stage::Over;
        self.push(Told::Overflow, None);
    }

    fn tell(&mut self, event: &Event, position: Option<Revision>) {
        if let Some(event) = self.filter.apply(event) {
            // What is hidden here is no matter of the last position: from here on the reader goes on at this node alone.
            let of_view = |change: &Change| matches!(change, Change::Hidden { .. } | Change::Shown { .. });
            let position = position.filter(|_| event.changes.iter().any(of_view));
            self.push(Told::Change(event), position);
            self.changed = true;
        }
    }

    /// Tells some of what was missed.
    fn tell_missed(&mut self, told: Context) {
        let (missed, next, position) = {
            let core = self.shared.view();
            let next = self.shared.feed.bounds().1;
            // It may have begun to hide something while the reader waited or read.
            let missed = if core.hides() { None } else { core.missed(&told, READ_LEN) };
            (missed, next, core.position(next))
        };
        let Some(missed) = missed else {
            // The operations went while the reader took its time, or had gone before.
            return match self.changed {
                true => self.overflow(),
                false => self.resync(),
            };
        };
        missed.events.iter().for_each(|event| self.tell(event, None));
        if missed.all {
            self.stage = Stage::Following(next);
            self.push(Told::Progress { quorum: None }, Some(position));
        } else {
            self.stage = Stage::Missed(missed.told);
        }
    }

    fn scan(&mut self, mut scan: Scan) {
        let shared = Arc::clone(&self.shared);
        let core: &Core = &shared.view();
        match scan.step(core, &shared.feed, &self.filter) {
            Ok(Some(next)) => self.stage = Stage::Paging { scan, next, position: core.position(next) },
            Ok(None) => self.stage = Stage::Scanning(scan),
            Err(_) => self.overflow(),
        }
    }

    /// When the next position is due.
    fn position_due(&self) -> Instant {
        let every = self.shared.progress_every;
        self.positioned + if self.changed { POSITION_PAUSE.min(every) } else { every }
    }

    /// Reads on in the history. The number that is next if there is nothing to tell.
    fn follow(&mut self, next: u64) -> Option<u64> {
        if self.goal.is_none() && Instant::now() >= self.position_due() {
            let core = self.shared.view();
            let end = self.shared.feed.bounds().1;
            self.goal = Some((end, core.position(end)));
        }
        let _ = self.history.borrow_and_update();
        let Ok(events) = self.shared.feed.read(next, READ_LEN) else {
            self.overflow();
            return None;
        };
        let run = self.run;
        for (event, after) in events.iter().zip(next + 1..) {
            self.tell(event, Some(cursor::local(run, after)));
        }
        let next = next + events.len() as u64;
        self.stage = Stage::Following(next);
        if let Some((_, position)) = self.goal.take_if(|(end, _)| *end <= next) {
            self.push(Told::Progress { quorum: None }, Some(position));
        }
        (self.pending.is_empty() && events.is_empty()).then_some(next)
    }
}

#[async_trait]
impl Watching for GossipWatch {
    async fn next(&mut self) -> Option<WatchMessage> {
        loop {
            if let Some(message) = self.pending.pop_front() {
                return Some(message);
            }
            if *self.over.borrow() {
                return None;
            }
            // Whatever is taken out of the stage is put back before the next await, so that a call that is cancelled loses nothing.
            match std::mem::replace(&mut self.stage, Stage::Over) {
                Stage::Behind { cursor, until } => {
                    let shared = Arc::clone(&self.shared);
                    let advanced = shared.advanced.notified();
                    tokio::pin!(advanced);
                    advanced.as_mut().enable();
                    if self.shared.view().context().covers_all(&cursor) {
                        self.stage = Stage::Missed(cursor);
                        continue;
                    }
                    self.stage = Stage::Behind { cursor, until };
                    tokio::select! {
                        come = timeout_at(until, advanced) => if come.is_err() {
                            self.resync();
                        },
                        _ = self.over.changed() => {}
                    }
                }
                Stage::Missed(told) => self.tell_missed(told),
                Stage::Scanning(scan) => {
                    self.scan(scan);
                    tokio::task::yield_now().await;
                }
                Stage::Paging { mut scan, next, position } => {
                    let page = scan.take_page(PAGE_LEN);
                    if page.is_empty() {
                        self.stage = Stage::Following(next);
                        self.push(Told::Synced, Some(position));
                    } else {
                        self.stage = Stage::Paging { scan, next, position };
                        self.push(Told::State(page), None);
                    }
                }
                Stage::Following(next) => {
                    let Some(next) = self.follow(next) else { continue };
                    self.stage = Stage::Following(next);
                    let due = self.position_due();
                    tokio::select! {
                        _ = self.history.changed() => {}
                        _ = self.over.changed() => {}
                        () = sleep_until(due) => {}
                    }
                }
                Stage::Over => return None,
            }
        }
    }
}
