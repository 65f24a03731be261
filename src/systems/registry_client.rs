//! Our API as the referee's clients call it: one request for one call, and no more certainty than the answer gives.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use async_trait::async_trait;

use crate::client::call::{CallOptions, Caller, CommandError};
use crate::model::command::{Action, Condition};
use crate::model::conflict::{ConflictRecord, Contender};
use crate::model::entry::{Entry, Holder};
use crate::model::ident::{Group, LeaseId, Meta, Mode, NodeId, RecordId, Revision, Token};
use crate::model::outcome::{Ended, Outcome, Refusal};
use crate::model::query::{Answer, PAGE_LIMIT_MAX, Page, Query};
use crate::referee::client::{Client, Completion};
use crate::referee::history::{
    Conflict, Found, Joined, KeptAlive, LeaseMade, Membership, Registered, Unregistered, View, What,
};
use crate::registry::{Consistency, Provenance, Reply};

/// How much a client asks for beside what the mode gives by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// Of reads; the mode's default unless given.
    pub consistency: Option<Consistency>,
    /// Of writes in `ap`: how many nodes are to have it.
    pub acks: Option<usize>,
}

/// A client of one node.
pub struct RegistryClient {
    caller: Arc<Caller>,
    mode: Mode,
    level: Level,
}

impl RegistryClient {
    pub fn new(caller: Arc<Caller>, mode: Mode, level: Level) -> Self {
        Self { caller, mode, level }
    }

    async fn command(&self, what: &What, action: Action, options: &CallOptions) -> Completion {
        match self.caller.execute(self.mode, &action, options).await {
            // Too few have it for it to count as done, and those that have it keep it.
            Ok(Reply { provenance: Provenance { acks: Some((have, wanted)), .. }, .. }) if have < wanted => {
                Completion::Info(format!("{have} of {wanted} nodes have it"))
            }
            Ok(reply) => match told(what, &reply) {
                Some(what) => Completion::Ok(what),
                // Whatever it means, it is no proof that nothing was done.
                None => Completion::Info(format!("an outcome that does not fit the call: {:?}", reply.value)),
            },
            Err(why) => without(why),
        }
    }

    async fn keep_alive(&self, lease: &str, seen: &[String], options: &CallOptions) -> Completion {
        let (id, records) = match (lease.parse::<LeaseId>(), seen.iter().map(|id| id.parse()).collect()) {
            (Ok(id), Ok(records)) => (id, records),
            // Nothing was sent.
            (Err(why), _) | (_, Err(why)) => return Completion::Fail(why.to_string()),
        };
        let records: Vec<RecordId> = records;
        let result = match self.caller.keep_alive(self.mode, &id, &records, options).await {
            Ok(Ok(kept)) => KeptAlive::Alive { lost: kept.lost.into_iter().map(conflict).collect(), moved: kept.moved },
            Ok(Err(Refusal::LeaseExpired)) => KeptAlive::Ended,
            Ok(Err(Refusal::LeaseUnknown)) => KeptAlive::Unknown,
            Ok(Err(other)) => return Completion::Info(format!("a refusal that does not fit the call: {other:?}")),
            Err(why) => return without(why),
        };
        Completion::Ok(What::KeepAlive { lease: lease.to_owned(), seen: seen.to_vec(), result: Some(result) })
    }

    async fn query(&self, what: &What, query: Query, options: &CallOptions) -> Completion {
        match self.caller.query(self.mode, &query, options).await {
            Ok(reply) => match answered(what, &reply) {
                Some(what) => Completion::Ok(what),
                None => Completion::Fail(format!("an answer that does not fit the question: {:?}", reply.value)),
            },
            Err(cause) => Completion::Fail(cause.to_string()),
        }
    }
}

fn without(why: CommandError) -> Completion {
    match why {
        CommandError::NotApplied(cause) => Completion::Fail(cause.to_string()),
        CommandError::Unknown(cause) => Completion::Info(cause.to_string()),
    }
}

#[async_trait]
impl Client for RegistryClient {
    async fn call(&mut self, what: &What, deadline: Instant) -> Completion {
        let timeout = deadline.saturating_duration_since(Instant::now());
        let Level { consistency, acks } = self.level;
        let options = CallOptions { timeout, consistency, acks, ..CallOptions::default() };
        if let What::KeepAlive { lease, seen, .. } = what {
            return self.keep_alive(lease, seen, &options).await;
        }
        match asked(self.mode, what) {
            Ok(Asked::Command(action)) => self.command(what, action, &options).await,
            Ok(Asked::Query(query)) => self.query(what, query, &options).await,
            // Nothing was sent.
            Err(why) => Completion::Fail(format!("{why:#}")),
        }
    }
}

enum Asked {
    Command(Action),
    Query(Query),
}

/// A call in the registry's words.
fn asked(mode: Mode, what: &What) -> anyhow::Result<Asked> {
    let token = |token: &Option<String>| token.as_deref().map(|token| Token::parse(mode, token)).transpose();
    let lease = |lease: &Option<String>| lease.as_deref().map(str::parse::<LeaseId>).transpose();
    Ok(match what {
        What::Register { name, owner, lease: under, .. } => Asked::Command(Action::Register {
            name: name.parse()?,
            owner: owner.parse()?,
            meta: Meta::empty(),
            lease: lease(under)?,
            condition: Condition::Free,
        }),
        What::Renew { name, owner, lease: under, token: of, .. } => Asked::Command(Action::Register {
            name: name.parse()?,
            owner: owner.parse()?,
            meta: Meta::empty(),
            lease: lease(under)?,
            condition: Condition::Token(Token::parse(mode, of)?),
        }),
        What::CreateLease { lease, ttl_ms, .. } => {
            Asked::Command(Action::CreateLease { lease: Some(lease.parse()?), ttl_ms: *ttl_ms, credential: None })
        }
        What::Revoke { lease, .. } => Asked::Command(Action::RevokeLease { lease: lease.parse()?, by: None }),
        What::Unregister { name, token: of, .. } => {
            Asked::Command(Action::Unregister { name: name.parse()?, token: token(of)? })
        }
        What::Join { group, member, lease: under, .. } => Asked::Command(Action::Join {
            group: group.parse()?,
            member: member.parse()?,
            meta: Meta::empty(),
            lease: lease(under)?,
        }),
        What::Leave { group, member, token: of, .. } => {
            Asked::Command(Action::Leave { group: group.parse()?, member: member.parse()?, token: token(of)? })
        }
        What::Whereis { name, .. } => Asked::Query(Query::Whereis { name: name.parse()?, token: None }),
        What::Members { group, .. } => {
            Asked::Query(Query::Members { group: group.parse()?, page: whole_page(None), node: None })
        }
        What::KeepAlive { .. }
        | What::GuardedWrite { .. }
        | What::Watched(_)
        | What::Fault(_)
        | What::Probe { .. }
        | What::View(_)
        | What::Conflicts { .. } => bail!("no command and no question"),
    })
}

/// The call with what came of it; None if the outcome is none of that call's.
fn told(what: &What, reply: &Reply<Outcome>) -> Option<What> {
    let revision = revision(&reply.revision);
    Some(match (what.clone(), &reply.value) {
        (What::Register { name, owner, lease, .. }, outcome) => {
            What::Register { name, owner, lease, result: Some(registered(outcome)?) }
        }
        (What::Renew { name, owner, lease, token, .. }, outcome) => {
            What::Renew { name, owner, lease, token, result: Some(registered(outcome)?) }
        }
        (What::CreateLease { lease, ttl_ms, .. }, outcome) => {
            let result = match outcome {
                Outcome::LeaseCreated { .. } | Outcome::LeaseHeld { .. } => LeaseMade::Made,
                Outcome::Refused(Refusal::LeaseTaken | Refusal::LeaseExpired) => LeaseMade::Refused,
                Outcome::Refused(_) | Outcome::Ended(_) | Outcome::Granted { .. } | Outcome::Held { .. } => {
                    return None;
                }
            };
            What::CreateLease { lease, ttl_ms, result: Some(result) }
        }
        (What::Revoke { lease, .. }, outcome) => What::Revoke { lease, result: Some(revoked(outcome)?) },
        (What::Unregister { name, token, .. }, outcome) => {
            What::Unregister { name, token, result: Some(ended(outcome)?) }
        }
        (What::Leave { group, member, token, .. }, outcome) => {
            What::Leave { group, member, token, result: Some(ended(outcome)?) }
        }
        (What::Join { group, member, lease, .. }, outcome) => {
            let (token, new, no_lease) = match outcome {
                Outcome::Granted { entry, .. } => (entry.token.to_string(), true, false),
                Outcome::Held { entry } => (entry.token.to_string(), false, false),
                Outcome::Refused(Refusal::LeaseExpired | Refusal::LeaseUnknown) => (String::new(), false, true),
                Outcome::Refused(_) | Outcome::Ended(_) | Outcome::LeaseCreated { .. } | Outcome::LeaseHeld { .. } => {
                    return None;
                }
            };
            What::Join { group, member, lease, result: Some(Joined { token, new, no_lease, revision }) }
        }
        _ => return None,
    })
}

fn registered(outcome: &Outcome) -> Option<Registered> {
    Some(match outcome {
        Outcome::Granted { entry, .. } => Registered::Granted { token: entry.token.to_string() },
        Outcome::Held { entry } => Registered::Held { token: entry.token.to_string() },
        Outcome::Refused(Refusal::NameTaken { current }) => {
            Registered::Taken { owner: current.holder_text().to_owned(), token: current.token.to_string() }
        }
        Outcome::Refused(Refusal::TokenStale { .. }) => Registered::Stale,
        Outcome::Refused(Refusal::LeaseExpired | Refusal::LeaseUnknown) => Registered::NoLease,
        Outcome::Refused(_) | Outcome::Ended(_) | Outcome::LeaseCreated { .. } | Outcome::LeaseHeld { .. } => {
            return None;
        }
    })
}

fn revoked(outcome: &Outcome) -> Option<Unregistered> {
    match outcome {
        Outcome::Ended(Ended::Now) => Some(Unregistered::Now),
        Outcome::Ended(Ended::Before) | Outcome::Refused(Refusal::LeaseExpired) => Some(Unregistered::Before),
        Outcome::Refused(Refusal::LeaseUnknown) => Some(Unregistered::Absent),
        Outcome::Refused(_)
        | Outcome::Granted { .. }
        | Outcome::Held { .. }
        | Outcome::LeaseCreated { .. }
        | Outcome::LeaseHeld { .. } => None,
    }
}

fn ended(outcome: &Outcome) -> Option<Unregistered> {
    match outcome {
        Outcome::Ended(Ended::Now) => Some(Unregistered::Now),
        Outcome::Ended(Ended::Before) => Some(Unregistered::Before),
        Outcome::Refused(Refusal::NotFound) => Some(Unregistered::Absent),
        Outcome::Refused(Refusal::TokenStale { .. }) => Some(Unregistered::Never),
        Outcome::Refused(_)
        | Outcome::Granted { .. }
        | Outcome::Held { .. }
        | Outcome::LeaseCreated { .. }
        | Outcome::LeaseHeld { .. } => None,
    }
}

/// The question with its answer; None if the answer is none to that question.
fn answered(what: &What, reply: &Reply<Answer>) -> Option<What> {
    Some(match (what.clone(), &reply.value) {
        (What::Whereis { name, .. }, Answer::Entry(entry)) => {
            let found = Found { owner: Some(entry.holder_text().to_owned()), token: Some(entry.token.to_string()) };
            What::Whereis { name, result: Some(found) }
        }
        (What::Whereis { name, .. }, Answer::Refused(Refusal::NotFound)) => {
            What::Whereis { name, result: Some(Found { owner: None, token: None }) }
        }
        // A group that does not fit one page would not be one answer; the workload makes none.
        (What::Members { group, .. }, Answer::Entries { entries, next: None }) => {
            let mut members = BTreeSet::new();
            let twice = entries.iter().map(|entry| entry.holder_text().to_owned());
            let twice = twice.filter(|member| !members.insert(member.clone())).collect();
            What::Members { group, result: Some(Membership { members, twice, revision: revision(&reply.revision) }) }
        }
        _ => return None,
    })
}

fn revision(revision: &Revision) -> Option<u64> {
    match revision {
        Revision::Cp(revision) => Some(*revision),
        Revision::Ap(_) => None,
    }
}

fn whole_page(after: Option<String>) -> Page {
    Page { after, limit: PAGE_LIMIT_MAX, ..Page::default() }
}

/// Everything that one node shows, whatever others know. Its parts are read one after the other.
pub async fn view(caller: &Caller, mode: Mode, node: NodeId, deadline: Instant) -> anyhow::Result<View> {
    let reader = Reader { caller, mode, deadline };
    let mut names = BTreeMap::new();
    for entry in reader.entries(|page| Query::Names { page }).await? {
        if let Holder::Owner(name, owner) = entry.holder {
            names.insert(name.into(), (owner.into(), entry.token.to_string()));
        }
    }
    let mut groups = BTreeMap::new();
    for group in reader.groups().await? {
        let members = |page| Query::Members { group: group.clone(), page, node: None };
        let members = reader.entries(members).await?;
        let members = members.iter().map(|entry| entry.holder_text().to_owned()).collect::<BTreeSet<_>>();
        groups.insert(group.clone().into(), members);
    }
    let leader = match mode {
        Mode::Cp => caller.cluster(reader.left()?).await?.leader,
        Mode::Ap => None,
    };
    Ok(View { node, names, groups, leader })
}

fn conflict(record: ConflictRecord) -> Conflict {
    let party = |party: Contender| (party.owner.into(), party.token.to_string());
    Conflict {
        id: record.id.to_string(),
        name: record.name.to_string(),
        loser: party(record.loser),
        winner: party(record.winner),
    }
}

/// Every conflict record that one node knows.
pub async fn conflicts(caller: &Caller, deadline: Instant) -> anyhow::Result<Vec<Conflict>> {
    let mut records = Vec::new();
    let mut after = None;
    loop {
        let left = left(deadline)?;
        let page = caller.conflicts(after.as_deref(), PAGE_LIMIT_MAX, left).await?;
        records.extend(page.conflicts.into_iter().map(|record| Conflict {
            id: record.id,
            name: record.name,
            loser: (record.loser.owner, record.loser.token),
            winner: (record.winner.owner, record.winner.token),
        }));
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(records),
        }
    }
}

/// Reads lists of one node to their end.
struct Reader<'a> {
    caller: &'a Caller,
    mode: Mode,
    deadline: Instant,
}

impl Reader<'_> {
    async fn entries(&self, query: impl Fn(Page) -> Query) -> anyhow::Result<Vec<Entry>> {
        let mut all = Vec::new();
        let mut after = None;
        loop {
            match self.ask(query(whole_page(after))).await? {
                Answer::Entries { entries, next } => {
                    all.extend(entries);
                    match next {
                        Some(next) => after = Some(next),
                        None => return Ok(all),
                    }
                }
                other => bail!("not a list of entries: {other:?}"),
            }
        }
    }

    async fn groups(&self) -> anyhow::Result<Vec<Group>> {
        let mut all = Vec::new();
        let mut after = None;
        loop {
            match self.ask(Query::Groups { page: whole_page(after) }).await? {
                Answer::Groups { groups, next } => {
                    all.extend(groups.into_iter().map(|count| count.group));
                    match next {
                        Some(next) => after = Some(next),
                        None => return Ok(all),
                    }
                }
                other => bail!("not a list of groups: {other:?}"),
            }
        }
    }

    async fn ask(&self, query: Query) -> anyhow::Result<Answer> {
        let consistency = match self.mode {
            Mode::Cp => Consistency::Stale,
            Mode::Ap => Consistency::Local,
        };
        let options = CallOptions { timeout: self.left()?, consistency: Some(consistency), ..CallOptions::default() };
        Ok(self.caller.query(self.mode, &query, &options).await?.value)
    }

    fn left(&self) -> anyhow::Result<Duration> {
        left(self.deadline)
    }
}

fn left(deadline: Instant) -> anyhow::Result<Duration> {
    deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()).context("no time is left")
}
