//! Finds out who a message is for, and has it delivered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::task::AbortHandle;
use tokio::time::interval;

use super::hub::Hub;
use super::lines::{self, Lines, Parcel};
use crate::messages::{Address, Inbox, Letter, Messages};
use crate::model::ident::{Group, Mode, Name, NodeId, Token};
use crate::model::query::{Answer, PAGE_LIMIT_MAX, Page, Query};
use crate::net::links::{Links, Purpose};
use crate::registry::{CommandFailure, Consistency, QueryCall, QueryFailure, Reason, Registry, Reply};

/// How long a peer has to say how many inboxes took a message. Longer is no use: a message is for now.
const ANSWER_PATIENCE: Duration = Duration::from_millis(500);
/// How often inboxes without a reader are forgotten.
const SWEEP_PERIOD: Duration = Duration::from_secs(60);

/// Sends and delivers messages at one node. Ends its tasks when dropped.
pub struct PostOffice {
    counter: Arc<Counter>,
    lines: Lines,
    tasks: Vec<AbortHandle>,
}

/// What delivering needs.
struct Counter {
    cp: Arc<dyn Registry>,
    ap: Arc<dyn Registry>,
    hub: Hub,
}

impl PostOffice {
    /// Starts to deliver. `members` tells all nodes' peer addresses, and is asked again and again.
    pub fn start(
        cp: Arc<dyn Registry>,
        ap: Arc<dyn Registry>,
        links: Links,
        members: impl Fn() -> BTreeMap<NodeId, String> + Send + Sync + 'static,
    ) -> Self {
        let counter = Arc::new(Counter { cp, ap, hub: Hub::default() });
        let lines = Lines::default();
        let delivering = counter.clone();
        let incoming = lines::serve(links.accept(Purpose::Messages), move |parcel| delivering.deliver(&parcel));
        let sweeping = counter.clone();
        let sweep = async move {
            let mut period = interval(SWEEP_PERIOD);
            loop {
                period.tick().await;
                sweeping.hub.sweep();
            }
        };
        let keep = lines.clone().keep(links, members);
        let tasks = vec![
            tokio::spawn(incoming).abort_handle(),
            tokio::spawn(keep).abort_handle(),
            tokio::spawn(sweep).abort_handle(),
        ];
        Self { counter, lines, tasks }
    }

    /// One page of receivers to all nodes, this one included.
    async fn post(&self, parcel: Parcel, deadline: Instant) -> u64 {
        let until = deadline.min(Instant::now() + ANSWER_PATIENCE);
        let here = self.counter.deliver(&parcel);
        here + self.lines.broadcast(&parcel, until.into()).await
    }

    async fn send_to_name(
        &self,
        mode: Mode,
        name: Name,
        text: Arc<str>,
        deadline: Instant,
    ) -> Result<Reply<Option<u64>>, CommandFailure> {
        let query = Query::Whereis { name: name.clone(), token: None };
        let reply = self.counter.ask(mode, query, deadline).await.map_err(CommandFailure::NotApplied)?;
        let receivers = match reply.value {
            Answer::Entry(entry) => {
                let receivers = vec![(entry.holder_text().to_owned(), entry.token)];
                let parcel = Parcel { mode, to: Address::Name(name), text, receivers };
                Some(self.post(parcel, deadline).await)
            }
            Answer::Refused(_) => None,
            other => return Err(CommandFailure::NotApplied(unexpected(&other))),
        };
        Ok(Reply { value: receivers, revision: reply.revision, provenance: reply.provenance })
    }

    async fn publish_to_group(
        &self,
        mode: Mode,
        group: Group,
        text: Arc<str>,
        deadline: Instant,
    ) -> Result<Reply<Option<u64>>, CommandFailure> {
        let mut after = None;
        let mut taken = 0;
        // Once the first page has gone out, nobody can say any more that nothing was sent.
        let mut failure: fn(Reason) -> CommandFailure = CommandFailure::NotApplied;
        loop {
            let page = Page { after, limit: PAGE_LIMIT_MAX, ..Page::default() };
            let query = Query::Members { group: group.clone(), page, node: None };
            let reply = self.counter.ask(mode, query, deadline).await.map_err(failure)?;
            let Answer::Entries { entries, next } = reply.value else { return Err(failure(unexpected(&reply.value))) };
            let receivers = entries.iter().map(|entry| (entry.holder_text().to_owned(), entry.token));
            let receivers = receivers.collect::<Vec<(String, Token)>>();
            if !receivers.is_empty() {
                let to = Address::Group(group.clone());
                taken += self.post(Parcel { mode, to, text: text.clone(), receivers }, deadline).await;
                failure = CommandFailure::Unknown;
            }
            match next {
                Some(next) => after = Some(next),
                None => {
                    return Ok(Reply { value: Some(taken), revision: reply.revision, provenance: reply.provenance });
                }
            }
        }
    }
}

impl Counter {
    fn registry(&self, mode: Mode) -> &dyn Registry {
        match mode {
            Mode::Cp => &*self.cp,
            Mode::Ap => &*self.ap,
        }
    }

    async fn ask(&self, mode: Mode, query: Query, deadline: Instant) -> Result<Reply<Answer>, Reason> {
        let consistency = Consistency::default_of(mode);
        let call = QueryCall::new(deadline, consistency);
        self.registry(mode).query(query, &call).await.map_err(|QueryFailure(why)| why)
    }

    /// Puts a message into the inboxes that are read here; how many took it.
    fn deliver(&self, parcel: &Parcel) -> u64 {
        let mut taken = 0;
        for (owner, token) in &parcel.receivers {
            if !self.hub.is_read(parcel.mode, owner) {
                continue;
            }
            let letter = Letter { to: parcel.to.clone(), token: *token, text: parcel.text.clone() };
            // It was resolved a moment ago at another node. Who has given the name up since gets nothing that was meant for its holder.
            let ended = letter.holder(owner).is_none_or(|holder| self.registry(parcel.mode).has_ended(&holder, *token));
            if !ended {
                taken += self.hub.deliver(parcel.mode, owner, &Arc::new(letter));
            }
        }
        taken
    }
}

fn unexpected(answer: &Answer) -> Reason {
    Reason::Internal(format!("an answer that does not fit the question: {answer:?}"))
}

#[async_trait]
impl Messages for PostOffice {
    async fn send(
        &self,
        mode: Mode,
        to: Address,
        text: Arc<str>,
        deadline: Instant,
    ) -> Result<Reply<Option<u64>>, CommandFailure> {
        match to {
            Address::Name(name) => self.send_to_name(mode, name, text, deadline).await,
            Address::Group(group) => self.publish_to_group(mode, group, text, deadline).await,
        }
    }

    fn open(&self, mode: Mode, owner: &str) -> Inbox {
        self.counter.hub.open(mode, owner)
    }
}

impl Drop for PostOffice {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}
