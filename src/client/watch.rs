//! A watch that goes on: at another server when one is gone, from where it was.

use std::collections::VecDeque;

use super::call::Cause;
use super::client::Client;
use super::follow::Followed;
use super::request;
use super::stream::MESSAGE_LEN_MAX;
use crate::model::entry::Entry;
use crate::model::event::{Event, Filter, Told, WatchMessage};
use crate::model::ident::Revision;
use crate::registry::{Position, Watch as Watched};
use crate::wire::event::read_message;
use crate::wire::status::{Code, Kind};

/// What a watcher learns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A page of what stands at the beginning, if that was asked for.
    State(Vec<Entry>),
    /// That was all of it.
    Synced,
    Change(Event),
    /// All up to the [position](Watch::position) has been told. `cp`: whether the server has contact to a majority.
    Progress {
        quorum: Option<bool>,
    },
    /// `cp`: the server has no contact to a leader; another one is looked for. Nothing may come although things change.
    Stalled,
    /// Something was missed, for the history does not reach back to where this watch was. What was gathered is to be thrown
    /// away; if the state was asked for at the beginning, it follows once more.
    Resync,
    /// The stream broke, and no server has taken it up yet. Nothing is lost by that alone.
    Interrupted(Cause),
}

/// Why there is no watch (any more). It will not come back by itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// The history does not reach back to the position that was asked for.
    #[error("the history no longer reaches back to {after}")]
    Compacted { after: Revision },
    /// No server takes such a watch.
    #[error("{0}")]
    Rejected(Cause),
}

/// A watch of one registry. It keeps itself going: when a server is gone, too slow or cut off, it goes on at another one after the last
/// message that was given out.
///
/// `cp`: every change exactly once and in order, or [`Seen::Resync`]. `ap`: in order for each run of a node, at least once, or
/// [`Seen::Resync`].
#[derive(Debug)]
pub struct Watch {
    follow: Followed,
    filter: Filter,
    initial: bool,
    /// Where to go on.
    from: Position,
    /// The state has been told whole, or was not asked for.
    synced: bool,
    waiting: VecDeque<Seen>,
}

impl Client {
    /// Watches what changes from now on. Nothing is sent before the first [`Watch::next`].
    pub fn watch(&self, filter: Filter) -> Watch {
        Watch {
            follow: Followed::new(self, MESSAGE_LEN_MAX),
            filter,
            initial: false,
            from: Position::Now,
            synced: true,
            waiting: VecDeque::new(),
        }
    }
}

impl Watch {
    /// First what stands now, in pages, then what changes after it.
    pub fn with_state(mut self) -> Self {
        self.initial = true;
        self.synced = false;
        self
    }

    /// What has changed since that revision, which a list or another answer has given, or [`WatchError::Compacted`].
    pub fn after(mut self, revision: Revision) -> Self {
        self.from = Position::After(revision);
        self
    }

    /// What has changed since that position of another watch, or [`Seen::Resync`].
    pub fn resume(mut self, position: Revision) -> Self {
        self.from = Position::Resume(position);
        self
    }

    /// Where another watch could go on after what this one has told; none before it has told anything.
    pub fn position(&self) -> Option<&Revision> {
        match &self.from {
            Position::Now => None,
            Position::After(revision) | Position::Resume(revision) => Some(revision),
        }
    }

    /// The next thing to learn. It waits as long as there is none, also while no server can be reached. May be cancelled without loss.
    pub async fn next(&mut self) -> Result<Seen, WatchError> {
        loop {
            if let Some(seen) = self.waiting.pop_front() {
                return Ok(seen);
            }
            if !self.follow.is_open() {
                let prepared = self.request();
                if let Err(cause) = self.follow.open(prepared).await {
                    self.refused(cause)?;
                }
                continue;
            }
            match self.read().await {
                Ok(message) => self.take_in(message),
                Err(cause) => self.broke(cause),
            }
        }
    }

    fn request(&self) -> request::Prepared {
        // Begun anew, the state comes whole or not at all.
        let from = if self.synced { self.from.clone() } else { Position::Now };
        let watched = Watched { filter: self.filter.clone(), from, initial: !self.synced };
        let client = self.follow.client();
        request::watch(client.mode(), &watched, client.options().timeout)
    }

    async fn read(&mut self) -> Result<WatchMessage, Cause> {
        loop {
            let sent = self.follow.next().await?;
            let id = sent.id.as_deref().filter(|_| sent.has_id);
            let read = read_message(self.follow.client().mode(), &sent.event, id, &sent.data);
            if let Some(message) = read.map_err(|why| Cause::Garbled(why.to_string()))? {
                return Ok(message);
            }
        }
    }

    fn take_in(&mut self, WatchMessage { told, position }: WatchMessage) {
        self.follow.heard();
        if !matches!(told, Told::Stalled | Told::Overflow) {
            self.follow.remember();
        }
        if let Some(position) = position {
            self.from = Position::Resume(position);
        }
        match told {
            Told::State(entries) => self.waiting.push_back(Seen::State(entries)),
            Told::Synced => {
                self.synced = true;
                self.follow.went_well();
                self.waiting.push_back(Seen::Synced);
            }
            Told::Change(event) => {
                self.follow.went_well();
                self.waiting.push_back(Seen::Change(event));
            }
            Told::Progress { quorum } => {
                if quorum != Some(false) {
                    self.follow.went_well();
                }
                self.waiting.push_back(Seen::Progress { quorum });
            }
            // Perhaps it is this server alone that is cut off.
            Told::Stalled => {
                self.waiting.push_back(Seen::Stalled);
                if self.follow.client().servers().callers().len() > 1 {
                    self.go_on();
                }
            }
            Told::Resync => self.missed(),
            // The history may still hold what this reader was too slow for.
            Told::Overflow => self.go_on(),
        }
    }

    /// Something was missed: the state is told anew, if it was asked for.
    fn missed(&mut self) {
        self.waiting.push_back(Seen::Resync);
        if self.initial {
            self.synced = false;
            self.follow.hang_up();
        }
    }

    /// Another server takes it up.
    fn go_on(&mut self) {
        self.follow.go_on();
        // Without a place to go on from, whatever happened in between is not known.
        if !self.synced {
            self.waiting.push_back(Seen::Resync);
        } else if self.from == Position::Now {
            self.missed();
        }
    }

    fn broke(&mut self, cause: Cause) {
        tracing::debug!(%cause, "a watch was interrupted");
        self.go_on();
        self.tell_interruption(cause);
    }

    /// A server did not begin the stream.
    fn refused(&mut self, cause: Cause) -> Result<(), WatchError> {
        if let Cause::Rejected { code, .. } = &cause {
            match (code, &self.from, code.row().kind) {
                (Code::RevisionCompacted, Position::After(after), _) => {
                    return Err(WatchError::Compacted { after: after.clone() });
                }
                (Code::RevisionCompacted, Position::Resume(_), _) => {
                    self.from = Position::Now;
                    self.missed();
                    return Ok(());
                }
                (_, _, Kind::Rejection | Kind::Refusal) => return Err(WatchError::Rejected(cause)),
                (_, _, Kind::Deferral | Kind::Failure) => {}
            }
        }
        self.follow.go_on();
        self.tell_interruption(cause);
        Ok(())
    }

    fn tell_interruption(&mut self, cause: Cause) {
        if self.follow.is_news() {
            self.waiting.push_back(Seen::Interrupted(cause));
        }
    }
}
