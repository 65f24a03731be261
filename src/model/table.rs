//! The replicated table of `cp`: every replica applies the same commands in the same order and computes the same outcomes.
//!
//! A clone is O(1) and shares structure, so that a snapshot is a clone and readers never wait for a writer.

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::command::{Action, Command, Condition};
use super::entry::{Entry, Holder};
use super::ident::{Group, LeaseId, Member, Meta, Name, NodeId, Owner, Revision, Token};
use super::outcome::{Ended, Outcome, Refusal};
use super::query::{Answer, GroupCount, Page, Query};
use super::time::UnixMillis;

/// Names, groups, and the counter that numbers every change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// +1 for every command that changed something; a grant's token is the revision that made it, so tokens only rise.
    revision: u64,
    names: OrdMap<Name, (Owner, Grant)>,
    groups: OrdMap<Group, OrdMap<Member, Grant>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Grant {
    meta: Meta,
    lease: Option<LeaseId>,
    token: u64,
    /// The token of the grant that this one was handed over from: a retried hand-over still names it.
    superseded: Option<u64>,
    changed: u64,
    node: NodeId,
    since: UnixMillis,
}

impl Grant {
    fn entry(&self, holder: Holder) -> Entry {
        Entry {
            holder,
            meta: self.meta.clone(),
            lease: self.lease.clone(),
            token: Token::Cp(self.token),
            revision: Revision::Cp(self.changed),
            node: self.node,
            since: self.since,
        }
    }
}

impl Table {
    /// How many commands have changed something so far.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Applies one command. Total: it refuses, but never fails. A refusal changes nothing, not even the revision.
    pub fn apply(&mut self, command: &Command) -> Outcome {
        match &command.action {
            Action::Register { name, owner, meta, lease, condition } => {
                self.register(command, name, owner, meta, lease.as_ref(), condition)
            }
            Action::Unregister { name, token } => {
                let current = self.names.get(name).map(|(_, grant)| grant.token);
                match self.may_end(current, *token) {
                    Ok(Ended::Now) => {
                        self.names.remove(name);
                        self.revision += 1;
                        Outcome::Ended(Ended::Now)
                    }
                    Ok(Ended::Before) => Outcome::Ended(Ended::Before),
                    Err(NeverIssued) => Outcome::Refused(match token {
                        Some(_) => Refusal::TokenStale { current: self.name(name) },
                        None => Refusal::NotFound,
                    }),
                }
            }
            Action::CreateLease { .. } | Action::RevokeLease { .. } => Outcome::Refused(Refusal::LeaseUnknown),
            Action::Join { group, member, meta, lease } => self.join(command, group, member, meta, lease.as_ref()),
            Action::Leave { group, member, token } => {
                let current = self.groups.get(group).and_then(|members| members.get(member)).map(|grant| grant.token);
                match self.may_end(current, *token) {
                    Ok(Ended::Now) => {
                        self.remove_member(group, member);
                        self.revision += 1;
                        Outcome::Ended(Ended::Now)
                    }
                    Ok(Ended::Before) => Outcome::Ended(Ended::Before),
                    Err(NeverIssued) => Outcome::Refused(match token {
                        Some(_) => Refusal::TokenStale { current: self.member(group, member) },
                        None => Refusal::NotFound,
                    }),
                }
            }
        }
    }

    /// The order of the checks is part of the contract: a retry after an unknown outcome has to find its own grant
    /// before any condition is held against it.
    fn register(
        &mut self,
        command: &Command,
        name: &Name,
        owner: &Owner,
        meta: &Meta,
        lease: Option<&LeaseId>,
        condition: &Condition,
    ) -> Outcome {
        if let Some(refusal) = self.lease_refusal(lease) {
            return Outcome::Refused(refusal);
        }
        let held = self.names.get(name).cloned();
        let current = || self.name(name);
        if let (Condition::Absent, Some(current)) = (condition, current()) {
            return Outcome::Refused(Refusal::NameExists { current });
        }
        let mut superseded = None;
        if let Some((holder, grant)) = &held
            && holder == owner
            && grant.lease.as_ref() == lease
            && *condition != Condition::Takeover
        {
            let allowed = match condition {
                Condition::Token(Token::Cp(token)) => *token == grant.token || Some(*token) == grant.superseded,
                Condition::Token(Token::Ap(_)) => false,
                Condition::Unchanged(revision) => *revision == Revision::Cp(grant.changed),
                Condition::Free | Condition::Present | Condition::Absent | Condition::Takeover => true,
            };
            if !allowed {
                return Outcome::Refused(match condition {
                    Condition::Token(_) => Refusal::TokenStale { current: current() },
                    _ => Refusal::RevisionStale { current: current() },
                });
            }
            if grant.meta != *meta {
                let mut grant = grant.clone();
                self.revision += 1;
                grant.meta = meta.clone();
                grant.changed = self.revision;
                self.names.insert(name.clone(), (owner.clone(), grant));
            }
            return Outcome::Held { entry: self.name(name).expect("it is held") };
        }
        match (condition, &held) {
            (Condition::Token(token), Some((_, grant))) if *token == Token::Cp(grant.token) => {
                superseded = Some(grant.token);
            }
            (Condition::Token(_), _) => return Outcome::Refused(Refusal::TokenStale { current: current() }),
            (Condition::Unchanged(revision), Some((_, grant))) if *revision == Revision::Cp(grant.changed) => {}
            (Condition::Unchanged(_), _) | (Condition::Present, None) => {
                return Outcome::Refused(Refusal::RevisionStale { current: current() });
            }
            (Condition::Present, Some(_)) | (Condition::Takeover, _) | (_, None) => {}
            (Condition::Free | Condition::Absent, Some(_)) => {
                return Outcome::Refused(Refusal::NameTaken { current: current().expect("it is held") });
            }
        }
        let grant = self.grant(command, meta, lease, superseded);
        let entry = grant.entry(Holder::Owner(name.clone(), owner.clone()));
        self.names.insert(name.clone(), (owner.clone(), grant));
        Outcome::Granted { entry, hides: None }
    }

    fn join(
        &mut self,
        command: &Command,
        group: &Group,
        member: &Member,
        meta: &Meta,
        lease: Option<&LeaseId>,
    ) -> Outcome {
        if let Some(refusal) = self.lease_refusal(lease) {
            return Outcome::Refused(refusal);
        }
        let holder = Holder::Member(group.clone(), member.clone());
        let held = self.groups.get(group).and_then(|members| members.get(member)).cloned();
        match held {
            Some(grant) if grant.lease.as_ref() == lease && grant.meta == *meta => {
                Outcome::Held { entry: grant.entry(holder) }
            }
            // A member that moves to another lease keeps its place: the same member never conflicts with itself.
            Some(mut grant) => {
                self.revision += 1;
                grant.meta = meta.clone();
                grant.lease = lease.cloned();
                grant.changed = self.revision;
                let entry = grant.entry(holder);
                self.insert_member(group, member, grant);
                Outcome::Held { entry }
            }
            None => {
                let grant = self.grant(command, meta, lease, None);
                let entry = grant.entry(holder);
                self.insert_member(group, member, grant);
                Outcome::Granted { entry, hides: None }
            }
        }
    }

    fn grant(&mut self, command: &Command, meta: &Meta, lease: Option<&LeaseId>, superseded: Option<u64>) -> Grant {
        self.revision += 1;
        Grant {
            meta: meta.clone(),
            lease: lease.cloned(),
            token: self.revision,
            superseded,
            changed: self.revision,
            node: command.node,
            since: command.at,
        }
    }

    /// No lease is ever granted by this version, so none is known.
    fn lease_refusal(&self, lease: Option<&LeaseId>) -> Option<Refusal> {
        lease.map(|_| Refusal::LeaseUnknown)
    }

    /// A token up to the counter was issued at some time; if it is not the current grant's, that grant has ended before.
    fn may_end(&self, current: Option<u64>, token: Option<Token>) -> Result<Ended, NeverIssued> {
        match (current, token) {
            (Some(_), None) => Ok(Ended::Now),
            (None, None) => Err(NeverIssued),
            (Some(current), Some(Token::Cp(token))) if token == current => Ok(Ended::Now),
            (_, Some(Token::Cp(token))) if (1..=self.revision).contains(&token) => Ok(Ended::Before),
            (_, Some(_)) => Err(NeverIssued),
        }
    }

    fn insert_member(&mut self, group: &Group, member: &Member, grant: Grant) {
        self.groups.entry(group.clone()).or_default().insert(member.clone(), grant);
    }

    /// A group is there while it has members.
    fn remove_member(&mut self, group: &Group, member: &Member) {
        if let Some(members) = self.groups.get_mut(group) {
            members.remove(member);
            if members.is_empty() {
                self.groups.remove(group);
            }
        }
    }

    /// Who holds the name.
    pub fn name(&self, name: &Name) -> Option<Entry> {
        let (owner, grant) = self.names.get(name)?;
        Some(grant.entry(Holder::Owner(name.clone(), owner.clone())))
    }

    /// The membership, if that member has joined.
    pub fn member(&self, group: &Group, member: &Member) -> Option<Entry> {
        let grant = self.groups.get(group)?.get(member)?;
        Some(grant.entry(Holder::Member(group.clone(), member.clone())))
    }

    /// Answers one question from this state alone.
    pub fn query(&self, query: &Query) -> Answer {
        match query {
            Query::Whereis { name, token } => found(self.name(name), *token),
            Query::Membership { group, member, token } => found(self.member(group, member), *token),
            Query::Names { page } => {
                let entries = keys(&self.names, page)
                    .map(|(name, (owner, grant))| grant.entry(Holder::Owner(name.clone(), owner.clone())));
                entries_page(entries, page.limit)
            }
            Query::Members { group, page, node } => {
                let nobody = OrdMap::new();
                let members = self.groups.get(group).unwrap_or(&nobody);
                let entries = keys(members, page)
                    .filter(|(_, grant)| node.is_none_or(|node| node == grant.node))
                    .map(|(member, grant)| grant.entry(Holder::Member(group.clone(), member.clone())));
                entries_page(entries, page.limit)
            }
            Query::Lease { .. } => Answer::Refused(Refusal::LeaseUnknown),
            Query::Leases { .. } => Answer::Leases { leases: Vec::new(), next: None },
            Query::Groups { page } => {
                let counts = keys(&self.groups, page)
                    .map(|(group, members)| GroupCount { group: group.clone(), count: members.len() as u64 });
                let (groups, more) = take(counts, page.limit);
                let next = more.then(|| groups.last().map(|g| g.group.to_string())).flatten();
                Answer::Groups { groups, next }
            }
        }
    }
}

struct NeverIssued;

/// The entry, unless a token was given and it is not this grant's.
pub fn found(entry: Option<Entry>, token: Option<Token>) -> Answer {
    match (entry, token) {
        (Some(entry), None) => Answer::Entry(entry),
        (Some(entry), Some(token)) if entry.token == token => Answer::Entry(entry),
        (current, Some(_)) => Answer::Refused(Refusal::TokenStale { current }),
        (None, None) => Answer::Refused(Refusal::NotFound),
    }
}

fn keys<'a, K, V>(map: &'a OrdMap<K, V>, page: &'a Page) -> impl Iterator<Item = (&'a K, &'a V)>
where
    K: Ord + Clone + std::borrow::Borrow<str>,
    V: Clone,
{
    use std::ops::Bound::{Excluded, Included, Unbounded};
    let start = match &page.after {
        Some(after) if after.as_str() >= page.prefix.as_str() => Excluded(after.as_str()),
        _ => Included(page.prefix.as_str()),
    };
    map.range::<(std::ops::Bound<&str>, std::ops::Bound<&str>), str>((start, Unbounded)).take_while(|(key, _)| {
        let key: &str = (*key).borrow();
        key.starts_with(&page.prefix)
    })
}

fn take<T>(items: impl Iterator<Item = T>, limit: usize) -> (Vec<T>, bool) {
    let mut items = items.take(limit + 1).collect::<Vec<_>>();
    let more = items.len() > limit;
    items.truncate(limit);
    (items, more)
}

/// Cuts a list of entries in key order into one page.
pub fn entries_page(entries: impl Iterator<Item = Entry>, limit: usize) -> Answer {
    let (entries, more) = take(entries, limit);
    let last = entries.last().map(|entry| match &entry.holder {
        Holder::Owner(name, _) => name.to_string(),
        Holder::Member(_, member) => member.to_string(),
    });
    Answer::Entries { entries, next: last.filter(|_| more) }
}
