//! Entries and lists, as callers see them: what of the grants that stand is shown at this node.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::model::entry::{Entry, Holder};
use crate::model::ident::{ApToken, Revision, Token};
use crate::model::outcome::Refusal;
use crate::model::query::{Answer, GroupCount, Page, Query};

use super::context::OpId;
use super::grants::{Grants, Held, Slot};
use super::lens::Lens;
use super::operation::Stamp;

/// What stands under a key, and whose grants it is put together from.
pub struct Shown<'a> {
    /// The best-ranked grant that counts.
    pub best: &'a Held,
    /// All grants of its holder that count: the same holder twice is no conflict, they stand side by side.
    pub siblings: Vec<&'a Held>,
    /// Who answers for it is out of reach: shown only to those who ask for the hidden.
    pub hidden: bool,
}

impl<'a> Shown<'a> {
    pub fn of(slot: &'a Slot, lens: &Lens) -> Option<Self> {
        let best = slot.shown(lens)?;
        let siblings = match slot.all() {
            [only] => vec![only],
            all => {
                all.iter().filter(|held| held.grant.holder == best.grant.holder && lens.counts(&held.grant)).collect()
            }
        };
        Some(Self { best, siblings, hidden: false })
    }

    /// Of what is hidden where nothing is shown, the best-ranked grant with its holder's others.
    fn of_hidden(slot: &'a Slot, lens: &Lens) -> Option<Self> {
        let hidden = || slot.all().iter().filter(|held| lens.hides(&held.grant));
        let best = lens.best(hidden())?;
        let siblings = hidden().filter(|held| held.grant.holder == best.grant.holder).collect();
        Some(Self { best, siblings, hidden: true })
    }

    fn asked_for(slot: &'a Slot, lens: &Lens, include_hidden: bool) -> Option<Self> {
        Self::of(slot, lens).or_else(|| include_hidden.then(|| Self::of_hidden(slot, lens)).flatten())
    }

    /// When it last changed.
    pub fn changed(&self) -> Stamp {
        self.newest().changed()
    }

    fn newest(&self) -> &'a Held {
        self.siblings.iter().copied().max_by_key(|held| held.changed()).unwrap_or(self.best)
    }

    pub fn entry(&self) -> Entry {
        let newest = self.newest();
        let grant = &self.best.grant;
        Entry {
            holder: grant.holder.clone(),
            meta: newest.change.as_ref().map_or(&newest.grant.meta, |change| &change.meta).clone(),
            lease: grant.lease.clone(),
            token: Token::Ap(grant.token()),
            revision: revision(newest.changed()),
            node: grant.id.run.node,
            since: grant.since,
            hidden: self.hidden,
        }
    }

    /// Whether the token is of any of the holder's grants.
    pub fn has(&self, token: &ApToken) -> bool {
        self.siblings.iter().any(|held| held.grant.token() == *token)
    }

    /// Whether one of the holder's grants ended the grant of this token: a retried hand-over still names it.
    pub fn superseded(&self, token: &ApToken) -> bool {
        let id = OpId::of(token);
        self.siblings.iter().any(|held| held.grant.takes.contains(&id))
    }
}

/// A grant by itself, whatever else stands under its key.
pub fn alone(held: &Held) -> Entry {
    Shown { best: held, siblings: vec![held], hidden: false }.entry()
}

/// An entry's revision: the operation that changed it last.
pub fn revision(stamp: Stamp) -> Revision {
    Revision::Ap(Token::Ap(stamp.id.token(stamp.hlc)).to_string().into())
}

/// What stands under the key of this holder.
pub fn current(grants: &Grants, holder: &Holder) -> Option<Entry> {
    Shown::of(grants.slot(holder)?, &grants.lens).map(|shown| shown.entry())
}

/// Answers a question from these grants alone.
pub fn query(grants: &Grants, query: &Query, include_hidden: bool) -> Answer {
    let shown = |slot| Shown::asked_for(slot, &grants.lens, include_hidden);
    let entry = |slot| shown(slot).map(|shown| shown.entry());
    match query {
        Query::Whereis { name, token } => found(grants.names().get(name).and_then(shown), *token),
        Query::Membership { group, member, token } => {
            found(grants.groups().get(group).and_then(|members| members.slots.get(member)).and_then(shown), *token)
        }
        Query::Names { page } => entries(keys(grants.names(), page).filter_map(|(_, slot)| entry(slot)), page.limit),
        Query::Members { group, page, node } => {
            let nobody = BTreeMap::new();
            let slots = grants.groups().get(group).map_or(&nobody, |members| &members.slots);
            let all = keys(slots, page).filter_map(|(_, slot)| entry(slot));
            entries(all.filter(|entry| node.is_none_or(|node| node == entry.node)), page.limit)
        }
        // Leases are no grants: the core answers these two itself.
        Query::Lease { .. } => Answer::Refused(Refusal::LeaseUnknown),
        Query::Leases { .. } => Answer::Leases { leases: Vec::new(), next: None },
        Query::Groups { page } => {
            let counts = keys(grants.groups(), page)
                .filter(|(_, members)| members.shown > 0)
                .map(|(group, members)| GroupCount { group: group.clone(), count: members.shown });
            let (groups, more) = take(counts, page.limit);
            let next = more.then(|| groups.last().map(|last| last.group.to_string())).flatten();
            Answer::Groups { groups, next }
        }
    }
}

fn found(shown: Option<Shown>, token: Option<Token>) -> Answer {
    match (shown, token) {
        (Some(shown), None) => Answer::Entry(shown.entry()),
        (Some(shown), Some(Token::Ap(token))) if shown.has(&token) => Answer::Entry(shown.entry()),
        (shown, Some(_)) => Answer::Refused(Refusal::TokenStale { current: shown.map(|shown| shown.entry()) }),
        (None, None) => Answer::Refused(Refusal::NotFound),
    }
}

/// The part of a list that a page asks for, without its limit.
pub fn keys<'a, K, V>(map: &'a BTreeMap<K, V>, page: &'a Page) -> impl Iterator<Item = (&'a K, &'a V)>
where
    K: Ord + std::borrow::Borrow<str>,
{
    let start = match &page.after {
        Some(after) if after.as_str() >= page.prefix.as_str() => Bound::Excluded(after.as_str()),
        _ => Bound::Included(page.prefix.as_str()),
    };
    map.range::<str, _>((start, Bound::Unbounded)).take_while(|(key, _)| {
        let key: &str = (*key).borrow();
        key.starts_with(&page.prefix)
    })
}

/// As many as the limit says, and whether there are more.
pub fn take<T>(items: impl Iterator<Item = T>, limit: usize) -> (Vec<T>, bool) {
    let mut items = items.take(limit + 1).collect::<Vec<_>>();
    let more = items.len() > limit;
    items.truncate(limit);
    (items, more)
}

fn entries(entries: impl Iterator<Item = Entry>, limit: usize) -> Answer {
    let (entries, more) = take(entries, limit);
    let last = entries.last().map(|entry| match &entry.holder {
        Holder::Owner(name, _) => name.to_string(),
        Holder::Member(_, member) => member.to_string(),
    });
    Answer::Entries { entries, next: last.filter(|_| more) }
}
