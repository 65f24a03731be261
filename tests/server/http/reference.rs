//! The registry as one machine would keep it: a table behind a lock, with the history of what changed. Its clock stands still.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use async_trait::async_trait;
use quorate::feed::Feed;
use quorate::model::command::{Action, Command};
use quorate::model::entry::{Entry, Holder};
use quorate::model::event::{Event, Filter, Subject, Told};
use quorate::model::ident::{Mode, Revision, Token};
use quorate::model::lease::KeptAlive;
use quorate::model::outcome::{Outcome, Refusal};
use quorate::model::query::{Answer, PAGE_LIMIT_MAX, Page, Query};
use quorate::model::step::{LostKey, Step};
use quorate::model::table::{News, Table};
use quorate::model::time::UnixMillis;
use quorate::registry::{
    CommandCall, CommandFailure, KeepAlive, Position, Provenance, QueryCall, QueryFailure, Reason, Registry, Reply,
    Watch, WatchFailure, WatchMessage, Watching,
};

const HISTORY_LEN: usize = 10_000;

pub struct Reference {
    table: Mutex<Table>,
    feed: Feed<Event>,
    /// Whether it answers no question, as a node without a majority.
    pub cut_off: AtomicBool,
}

impl Default for Reference {
    fn default() -> Self {
        Self { table: Mutex::default(), feed: Feed::new(1, HISTORY_LEN), cut_off: AtomicBool::new(false) }
    }
}

impl Reference {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap()
    }

    /// Carries out what `work` does with the table, and tells of it.
    fn with<T>(&self, work: impl FnOnce(&mut Table, &mut News) -> T) -> Reply<T> {
        let mut table = self.table();
        let mut news = News::default();
        let value = work(&mut table, &mut news);
        self.feed.append(news.events);
        self.feed.publish();
        Reply { value, revision: Revision::Cp(table.revision()), provenance: Provenance::default() }
    }
}

fn command(action: Action) -> Command {
    Command { action, node: 1, at: UnixMillis(1_600_000_000_000) }
}

#[async_trait]
impl Registry for Reference {
    fn mode(&self) -> Mode {
        Mode::Cp
    }

    async fn execute(&self, action: Action, _: &CommandCall) -> Result<Reply<Outcome>, CommandFailure> {
        let action = match action {
            Action::CreateLease { lease: None, ttl_ms, credential } => {
                let chosen = format!("lease-{}", self.table().revision() + 1).parse().unwrap();
                Action::CreateLease { lease: Some(chosen), ttl_ms, credential }
            }
            action => action,
        };
        Ok(self.with(|table, news| table.apply(&command(action), news)))
    }

    async fn query(&self, query: Query, call: &QueryCall) -> Result<Reply<Answer>, QueryFailure> {
        if self.cut_off.load(Ordering::Relaxed) {
            return Err(QueryFailure(Reason::NoQuorum));
        }
        let table = self.table();
        let revision = Revision::Cp(table.revision());
        match &call.min_revision {
            Some(Revision::Cp(least)) if *least > table.revision() => {
                Err(QueryFailure(Reason::Behind { applied: revision }))
            }
            Some(_) | None => Ok(Reply { value: table.query(&query), revision, provenance: Provenance::default() }),
        }
    }

    async fn batch(&self, actions: Vec<Action>, _: &CommandCall) -> Result<Reply<Vec<Outcome>>, CommandFailure> {
        Ok(self.with(|table, news| actions.into_iter().map(|action| table.apply(&command(action), news)).collect()))
    }

    async fn keep_alive(
        &self,
        keep: KeepAlive,
        _: &CommandCall,
    ) -> Result<Reply<Vec<Result<KeptAlive, Refusal>>>, CommandFailure> {
        Ok(self.with(|table, news| {
            let records = keep.seen.iter().filter_map(LostKey::parse).collect();
            table.take(&Step::Seen { records }, news);
            let kept = |lease| {
                let facts = table.renewable(lease, keep.by.as_ref())?;
                Ok(KeptAlive { expires_in_ms: facts.ttl_ms, lost: table.lost(facts.number), moved: false })
            };
            keep.leases.iter().map(kept).collect()
        }))
    }

    async fn watch(&self, watch: Watch, _: Instant) -> Result<Box<dyn Watching>, WatchFailure> {
        let table = self.table();
        let (first, next) = self.feed.bounds();
        let next = match watch.from {
            Position::Now => next,
            Position::After(Revision::Cp(after)) | Position::Resume(Revision::Cp(after)) if after + 1 >= first => {
                after + 1
            }
            Position::After(_) | Position::Resume(_) => {
                return Err(WatchFailure::Compacted { oldest: Revision::Cp(first) });
            }
        };
        let mut waiting = Vec::new();
        if watch.initial {
            waiting.push(WatchMessage { told: Told::State(all(&table, &watch.filter)), position: None });
            waiting.push(WatchMessage { told: Told::Synced, position: Some(Revision::Cp(table.revision())) });
            waiting.reverse();
        }
        Ok(Box::new(Following { feed: self.feed.clone(), filter: watch.filter, next, waiting }))
    }

    fn has_ended(&self, holder: &Holder, token: Token) -> bool {
        let table = self.table();
        let entry = match holder {
            Holder::Owner(name, _) => table.name(name),
            Holder::Member(group, member) => table.member(group, member),
        };
        entry.is_none_or(|entry| entry.token != token)
    }

    async fn ready(&self, _: Instant) -> Result<(), Reason> {
        Ok(())
    }
}

/// Everything that stands, in one page: the reference is never large.
fn all(table: &Table, filter: &Filter) -> Vec<Entry> {
    let page = Page { limit: PAGE_LIMIT_MAX, ..Page::default() };
    let entries = |query: Query| match table.query(&query) {
        Answer::Entries { entries, next: None } => entries,
        other => panic!("{other:?}"),
    };
    let mut found = entries(Query::Names { page: page.clone() });
    if let Answer::Groups { groups, .. } = table.query(&Query::Groups { page: page.clone() }) {
        for group in groups {
            found.extend(entries(Query::Members { group: group.group, page: page.clone(), node: None }));
        }
    }
    found.retain(|entry| filter.wants(Subject::of(&entry.holder)));
    found
}

struct Following {
    feed: Feed<Event>,
    filter: Filter,
    next: u64,
    /// Told first, the last one of these before the others.
    waiting: Vec<WatchMessage>,
}

#[async_trait]
impl Watching for Following {
    async fn next(&mut self) -> Option<WatchMessage> {
        if let Some(message) = self.waiting.pop() {
            return Some(message);
        }
        let mut published = self.feed.subscribe();
        loop {
            let Ok(events) = self.feed.read(self.next, 1) else {
                return Some(WatchMessage { told: Told::Overflow, position: None });
            };
            match events.first() {
                Some(event) => {
                    self.next += 1;
                    if let Some(event) = self.filter.apply(event) {
                        let position = Some(event.revision.clone());
                        return Some(WatchMessage { told: Told::Change(event), position });
                    }
                }
                None => published.changed().await.ok()?,
            }
        }
    }
}
