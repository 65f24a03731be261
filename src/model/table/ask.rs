//! Answers to questions, from the table as it is.

use imbl::OrdMap;

use super::Table;
use super::leases::Key;
use crate::model::entry::{Entry, Holder};
use crate::model::ident::Token;
use crate::model::lease::{self, LeaseStatus};
use crate::model::outcome::Refusal;
use crate::model::query::{Answer, GroupCount, Page, Query};

impl Table {
    /// Answers one question from this state alone. Of a lease it tells what a leader that begins now would give it.
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
            Query::Groups { page } => {
                let counts = keys(&self.groups, page)
                    .map(|(group, members)| GroupCount { group: group.clone(), count: members.len() as u64 });
                let (groups, more) = take(counts, page.limit);
                let next = more.then(|| groups.last().map(|g| g.group.to_string())).flatten();
                Answer::Groups { groups, next }
            }
            Query::Lease { lease, page } => match self.lease_info(lease) {
                Ok((number, info)) => {
                    let left_ms = self.lease_numbered(number).map_or(0, |facts| facts.left_ms);
                    let after = page.after.as_deref().and_then(Key::from_cursor);
                    let bound = self.leases.keys(number, after).filter_map(|key| self.entry(key));
                    let (entries, more) = take(bound, page.limit);
                    let next = more.then(|| entries.last().map(|entry| lease::cursor(&entry.holder))).flatten();
                    Answer::Lease(LeaseStatus { info, expires_in_ms: left_ms, entries, next })
                }
                Err(refusal) => Answer::Refused(refusal),
            },
            Query::Leases { page } => {
                let (leases, more) = take(self.lease_infos(page), page.limit);
                let next = more.then(|| leases.last().map(|info| info.lease.to_string())).flatten();
                Answer::Leases { leases, next }
            }
        }
    }

    fn entry(&self, key: &Key) -> Option<Entry> {
        match key {
            Key::Name(name) => self.name(name),
            Key::Member(group, member) => self.member(group, member),
        }
    }
}

impl Key {
    /// What a cursor over a lease's entries points at. None: it is no cursor.
    fn from_cursor(cursor: &str) -> Option<Self> {
        if let Some(name) = cursor.strip_prefix("name:") {
            return name.parse().ok().map(Key::Name);
        }
        let (group, member) = cursor.strip_prefix("member:")?.split_once('\u{1f}')?;
        Some(Key::Member(group.parse().ok()?, member.parse().ok()?))
    }
}

/// The entry, unless a token was given and it is not this grant's.
pub fn found(entry: Option<Entry>, token: Option<Token>) -> Answer {
    match (entry, token) {
        (Some(entry), None) => Answer::Entry(entry),
        (Some(entry), Some(token)) if entry.token == token => Answer::Entry(entry),
        (current, Some(_)) => Answer::Refused(Refusal::TokenStale { current }),
        (None, None) => Answer::Refused(Refusal::NotFound),
    }
}

pub(super) fn keys<'a, K, V>(map: &'a OrdMap<K, V>, page: &'a Page) -> impl Iterator<Item = (&'a K, &'a V)>
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
