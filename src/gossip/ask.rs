//! Reading from several nodes at once: each one's grants under the keys asked for, with its context, merged as whole states are.
//!
//! A plain union would bring back what one of them has seen removed; the contexts tell.

use std::borrow::Borrow;
use std::collections::BTreeMap;

use crate::model::entry::Holder;
use crate::model::query::{Answer, Page, Query};

use super::grants::{Held, Slot};
use super::map::{Map, State};
use super::view;

/// What stands under a question's keys. The second part: keys after this one are left out; none: nothing is left out.
pub type Part = (State, Option<String>);

/// What this map has under the keys of the question.
pub fn part(map: &Map, query: &Query) -> Part {
    let grants = &map.grants;
    match query {
        Query::Whereis { name, .. } => (map.state_of(slot(grants.names().get(name))), None),
        Query::Membership { group, member, .. } => {
            let members = grants.groups().get(group);
            (map.state_of(slot(members.and_then(|members| members.slots.get(member)))), None)
        }
        Query::Names { page } => list(map, grants.names(), page, |slot| slot.all().iter().collect()),
        Query::Members { group, page, .. } => {
            let nobody = BTreeMap::new();
            let slots = grants.groups().get(group).map_or(&nobody, |members| &members.slots);
            list(map, slots, page, |slot| slot.all().iter().collect())
        }
        // Leases are not asked of several nodes.
        Query::Lease { .. } | Query::Leases { .. } => (State::default(), None),
        Query::Groups { page } => {
            list(map, grants.groups(), page, |members| members.slots.values().flat_map(|slot| slot.all()).collect())
        }
    }
}

fn slot(slot: Option<&Slot>) -> impl Iterator<Item = &Held> {
    slot.into_iter().flat_map(|slot| slot.all())
}

fn list<'a, K, V>(map: &Map, keys: &'a BTreeMap<K, V>, page: &'a Page, grants: impl Fn(&'a V) -> Vec<&'a Held>) -> Part
where
    K: Ord + Borrow<str>,
{
    let mut keys = view::keys(keys, page);
    let mut found = Vec::new();
    let mut last = None;
    for (key, value) in keys.by_ref().take(page.limit) {
        found.extend(grants(value));
        last = Some(key);
    }
    let upto = keys.next().and(last).map(|key| key.borrow().to_owned());
    (map.state_of(found.into_iter()), upto)
}

/// What several nodes know together, resolved as this node, whose map it is, looks at it.
pub fn together(here: &Map, query: &Query, include_hidden: bool, parts: Vec<Part>) -> Answer {
    // Where one node left off, the others' later keys would look removed there.
    let upto = parts.iter().filter_map(|(_, upto)| upto.clone()).min();
    let mut map = here.unfilled();
    let mut vouches = Vec::new();
    for (mut state, _) in parts {
        // A part names the leases of its own grants alone: that it is silent of another's says nothing. Which vouches stand, this node
        // knows best, and of those that have not come here whoever has them.
        let named = std::mem::take(&mut state.vouches).into_iter().chain(std::mem::take(&mut state.early_vouches));
        vouches.extend(named.filter(|vouch| !here.context.covers(vouch.id) || here.vouches.get(vouch.id).is_some()));
        if let Some(upto) = &upto {
            state.fresh.retain(|(grant, _)| key(query, &grant.holder) <= upto.as_str());
        }
        map.merge(state);
    }
    vouches.into_iter().for_each(|vouch| map.put_up_vouch(vouch));
    let mut answer = view::query(&map.grants, query, include_hidden);
    match &mut answer {
        Answer::Entries { next, .. } | Answer::Groups { next, .. } if next.is_none() => *next = upto,
        Answer::Entries { .. }
        | Answer::Groups { .. }
        | Answer::Entry(_)
        | Answer::Lease(_)
        | Answer::Leases { .. }
        | Answer::Refused(_) => {}
    }
    answer
}

/// What the question's list is ordered by.
fn key<'a>(query: &Query, holder: &'a Holder) -> &'a str {
    match (query, holder) {
        (_, Holder::Owner(name, _)) => name.as_str(),
        (Query::Groups { .. }, Holder::Member(group, _)) => group.as_str(),
        (_, Holder::Member(_, member)) => member.as_str(),
    }
}
