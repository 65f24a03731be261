//! Our watches as the referee's watchers read them: one stream of one node, in the history's words.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use async_trait::async_trait;

use crate::client::call::Caller;
use crate::client::stream::WatchStream;
use crate::model::entry::{Entry, Holder};
use crate::model::event::{self, EndReason, Event, Filter, Told};
use crate::model::ident::{Mode, Revision, Token};
use crate::referee::client::Watcher;
use crate::referee::watched::{Change, ChangeKind, ChangeRevision, Watched};
use crate::registry::{Position, Watch};

/// How long a state that is read anew may take to begin.
const BEGIN_MAX: Duration = Duration::from_secs(1);

/// Begins one.
pub async fn begin(
    caller: &Arc<Caller>,
    mode: Mode,
    after: Option<&str>,
    prefix: Option<&str>,
    deadline: Instant,
) -> anyhow::Result<Box<dyn Watcher>> {
    let from = match after {
        None => Position::Now,
        Some(position) => Position::Resume(Revision::parse(mode, position)?),
    };
    let prefixes = prefix.map(|prefix| vec![prefix.to_owned()]).unwrap_or_default();
    let filter = Filter { name_prefixes: prefixes.clone(), group_prefixes: prefixes, ..Filter::default() };
    let timeout = deadline.checked_duration_since(Instant::now()).unwrap_or(Duration::ZERO);
    let stream = caller.watch(mode, &Watch { filter: filter.clone(), from, initial: false }, timeout).await;
    let stream = stream.context("no watch")?;
    Ok(Box::new(RegistryWatcher { caller: caller.clone(), mode, filter, stream, next: Next::Message }))
}

struct RegistryWatcher {
    caller: Arc<Caller>,
    mode: Mode,
    filter: Filter,
    stream: WatchStream,
    next: Next,
}

enum Next {
    Message,
    /// The position was gone: what stands is to be read anew, as any reader would.
    State,
    Nothing,
}

#[async_trait]
impl Watcher for RegistryWatcher {
    async fn next(&mut self) -> Option<(Watched, Option<String>)> {
        loop {
            let message = match self.next {
                Next::Message => self.stream.next().await,
                Next::State => {
                    let watch = Watch { filter: self.filter.clone(), from: Position::Now, initial: true };
                    match self.caller.watch(self.mode, &watch, BEGIN_MAX).await {
                        Ok(stream) => {
                            self.stream = stream;
                            self.next = Next::Message;
                            continue;
                        }
                        Err(why) => Err(why),
                    }
                }
                Next::Nothing => return None,
            };
            let message = match message {
                Ok(message) => message,
                Err(why) => {
                    self.next = Next::Nothing;
                    return Some((Watched::Ended { why: why.to_string() }, None));
                }
            };
            let position = message.position.map(|position| position.to_string());
            let told = match message.told {
                Told::Change(event) => changed(self.mode, event),
                Told::Progress { .. } => {
                    Watched::Progress { revision: position.as_deref().and_then(|p| p.parse().ok()) }
                }
                Told::Stalled => Watched::Stalled,
                Told::Resync => {
                    self.next = Next::State;
                    // Where to go on is known when the state has been read.
                    return Some((Watched::Resync, None));
                }
                Told::Overflow => Watched::Overflow,
                Told::State(entries) => {
                    let changes = entries.iter().map(standing).collect();
                    Watched::Change { revision: ChangeRevision::Local, changes }
                }
                Told::Synced => Watched::Progress { revision: position.as_deref().and_then(|p| p.parse().ok()) },
            };
            return Some((told, position));
        }
    }
}

fn changed(mode: Mode, event: Event) -> Watched {
    let revision = match &event.revision {
        Revision::Cp(revision) => ChangeRevision::Number(*revision),
        Revision::Ap(text) => match Token::parse(mode, text) {
            Ok(Token::Ap(of)) => {
                ChangeRevision::Operation { origin: format!("{:x}.{:x}", of.node, of.run), number: of.number }
            }
            Ok(Token::Cp(_)) | Err(_) => ChangeRevision::Local,
        },
    };
    Watched::Change { revision, changes: event.changes.into_iter().map(change).collect() }
}

fn change(change: event::Change) -> Change {
    use event::Change as Told;
    let held = |entry: Option<Box<Entry>>| entry.map(|entry| (entry.holder_text().to_owned(), entry.token.to_string()));
    match change {
        Told::Registered { entry, current, .. } => of(ChangeKind::Registered, &entry, held(current)),
        Told::Updated { entry, current, .. } => of(ChangeKind::Updated, &entry, held(current)),
        Told::Ended { entry, reason, current } => {
            let kind = if reason == EndReason::LeaseExpired { ChangeKind::Expired } else { ChangeKind::Ended };
            of(kind, &entry, held(current))
        }
        Told::Joined { entry } => of(ChangeKind::Joined, &entry, None),
        Told::Left { entry, reason } => {
            let kind = if reason == EndReason::LeaseExpired { ChangeKind::LeftExpired } else { ChangeKind::Left };
            of(kind, &entry, None)
        }
        Told::Hidden { entry } => of(ChangeKind::Hidden, &entry, None),
        Told::Shown { entry } => of(ChangeKind::Shown, &entry, None),
        Told::LeaseExpired { lease } => Change {
            kind: ChangeKind::LeaseExpired,
            key: String::new(),
            owner: String::new(),
            token: String::new(),
            lease: Some(lease.to_string()),
            current: None,
        },
        Told::Conflict { record } => Change {
            kind: ChangeKind::Conflict,
            key: record.name.to_string(),
            owner: record.loser.owner.to_string(),
            token: record.loser.token.to_string(),
            lease: None,
            current: None,
        },
    }
}

/// What stands when the state is read, as if it had just begun.
fn standing(entry: &Entry) -> Change {
    match entry.holder {
        Holder::Owner(..) => of(ChangeKind::Registered, entry, None),
        Holder::Member(..) => of(ChangeKind::Joined, entry, None),
    }
}

fn of(kind: ChangeKind, entry: &Entry, current: Option<(String, String)>) -> Change {
    let key = match &entry.holder {
        Holder::Owner(name, _) => name.to_string(),
        Holder::Member(group, _) => group.to_string(),
    };
    let (owner, token) = (entry.holder_text().to_owned(), entry.token.to_string());
    Change { kind, key, owner, token, lease: entry.lease.as_ref().map(|lease| lease.to_string()), current }
}
