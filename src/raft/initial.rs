//! The state at the beginning of a watch, in pages: what a filter wants of one table, in order, each entry once.

use std::collections::VecDeque;

use crate::model::entry::{Entry, Holder};
use crate::model::event::Filter;
use crate::model::ident::{Group, Name};
use crate::model::query::{Answer, Page, Query};
use crate::model::table::Table;

/// Entries on one page, at most.
const PAGE_LEN_MAX: usize = 100;
/// Metas on one page, at most, but for the last one's length.
const PAGE_BYTES_MAX: usize = 256 * 1024;
/// Groups looked up at once.
const GROUPS_LEN_MAX: usize = 100;

/// What is still to be told of one table: names first, then groups, in byte order. Only what is wanted is looked at, so that a narrow
/// watch of a large table is cheap. It holds on to the table as it was, which shares its structure with the newer ones.
pub struct StatePages {
    table: Table,
    rest: VecDeque<Span>,
}

/// A part of the table that lies together.
enum Span {
    Name(Name),
    Names(Page),
    Members(Group, Page),
    Groups(Page),
}

impl StatePages {
    pub fn new(table: Table, filter: &Filter) -> Self {
        let mut rest = VecDeque::new();
        let everything = [String::new()];
        let all = filter.is_everything();
        let prefixes = if all { &everything[..] } else { &filter.name_prefixes };
        for (text, name) in disjoint(prefixes, &filter.names, Name::as_str) {
            rest.push_back(name.map_or_else(|| Span::Names(page(text, None)), |name| Span::Name(name.clone())));
        }
        let prefixes = if all { &everything[..] } else { &filter.group_prefixes };
        for (text, group) in disjoint(prefixes, &filter.groups, Group::as_str) {
            rest.push_back(match group {
                None => Span::Groups(page(text, None)),
                Some(group) => Span::Members(group.clone(), Page::default()),
            });
        }
        Self { table, rest }
    }

    /// The next page; none at the end, and no page is empty.
    pub fn next_page(&mut self) -> Option<Vec<Entry>> {
        let mut found = Found::default();
        while !found.is_full()
            && let Some(span) = self.rest.pop_front()
        {
            self.take(span, &mut found);
        }
        (!found.entries.is_empty()).then_some(found.entries)
    }

    /// Takes as much of this span as fits, and puts the rest of it back.
    fn take(&mut self, span: Span, found: &mut Found) {
        match span {
            Span::Name(name) => found.take(self.table.name(&name)),
            Span::Names(mut page) => {
                page.limit = found.room();
                let (more, next) = self.look_up(&Query::Names { page: page.clone() });
                page.after = found.take_some(more, next);
                if page.after.is_some() {
                    self.rest.push_front(Span::Names(page));
                }
            }
            Span::Members(group, mut page) => {
                page.limit = found.room();
                let query = Query::Members { group: group.clone(), page: page.clone(), node: None };
                let (more, next) = self.look_up(&query);
                page.after = found.take_some(more, next);
                if page.after.is_some() {
                    self.rest.push_front(Span::Members(group, page));
                }
            }
            Span::Groups(mut page) => {
                page.limit = GROUPS_LEN_MAX;
                let Answer::Groups { groups, next } = self.table.query(&Query::Groups { page: page.clone() }) else {
                    unreachable!("groups are asked for");
                };
                if next.is_some() {
                    page.after = next;
                    self.rest.push_front(Span::Groups(page));
                }
                for found in groups.into_iter().rev() {
                    self.rest.push_front(Span::Members(found.group, Page::default()));
                }
            }
        }
    }

    fn look_up(&self, query: &Query) -> (Vec<Entry>, Option<String>) {
        match self.table.query(query) {
            Answer::Entries { entries, next } => (entries, next),
            _ => unreachable!("entries are asked for"),
        }
    }
}

/// A page that is being filled.
#[derive(Default)]
struct Found {
    entries: Vec<Entry>,
    meta_bytes: usize,
}

impl Found {
    fn is_full(&self) -> bool {
        self.room() == 0 || self.meta_bytes >= PAGE_BYTES_MAX
    }

    fn room(&self) -> usize {
        PAGE_LEN_MAX - self.entries.len()
    }

    fn take(&mut self, entries: impl IntoIterator<Item = Entry>) {
        for entry in entries {
            self.meta_bytes += entry.meta.as_str().len();
            self.entries.push(entry);
        }
    }

    /// Takes entries of one list until the page is full. Returns after which one the list goes on; `next` is what it says itself.
    fn take_some(&mut self, entries: Vec<Entry>, next: Option<String>) -> Option<String> {
        let mut entries = entries.into_iter().peekable();
        while let Some(entry) = entries.next() {
            self.take([entry]);
            if self.is_full() && entries.peek().is_some() {
                return self.entries.last().map(|last| match &last.holder {
                    Holder::Owner(name, _) => name.to_string(),
                    Holder::Member(_, member) => member.to_string(),
                });
            }
        }
        next
    }
}

fn page(prefix: &str, after: Option<String>) -> Page {
    Page { prefix: prefix.to_owned(), after, ..Page::default() }
}

/// Prefixes (with no key) and keys in byte order, without those that another prefix covers, so that nothing is told twice.
fn disjoint<'a, K>(prefixes: &'a [String], keys: &'a [K], text: fn(&K) -> &str) -> Vec<(&'a str, Option<&'a K>)> {
    let prefixes = prefixes.iter().map(|prefix| (prefix.as_str(), None));
    let mut all = prefixes.chain(keys.iter().map(|key| (text(key), Some(key)))).collect::<Vec<_>>();
    // A prefix comes before the keys that begin with it, the one of the same text included.
    all.sort_by_key(|(text, key)| (*text, key.is_some()));
    let mut covered_by: Option<&str> = None;
    all.retain(|(text, key)| {
        if covered_by.is_some_and(|prefix| text.starts_with(prefix)) {
            return false;
        }
        if key.is_none() {
            covered_by = Some(text);
        }
        true
    });
    all.dedup_by_key(|(text, _)| *text);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::command::{Action, Command, Condition};
    use crate::model::ident::Meta;
    use crate::model::table::News;
    use crate::model::time::UnixMillis;

    fn table() -> Table {
        let mut table = Table::default();
        let meta = Meta::empty;
        let mut apply = |action| table.apply(&Command { action, node: 1, at: UnixMillis(0) }, &mut News::default());
        for at in 0..250 {
            let (name, owner) = (format!("n{at:03}").parse().unwrap(), "o".parse().unwrap());
            apply(Action::Register { name, owner, meta: meta(), lease: None, condition: Condition::Free });
            let (group, member) = (format!("g{:03}", at / 2).parse().unwrap(), format!("m{at}").parse().unwrap());
            apply(Action::Join { group, member, meta: meta(), lease: None });
        }
        table
    }

    fn told(filter: &Filter) -> Vec<String> {
        let mut pages = StatePages::new(table(), filter);
        let mut all = Vec::new();
        while let Some(page) = pages.next_page() {
            assert!(!page.is_empty() && page.len() <= PAGE_LEN_MAX);
            all.extend(page.into_iter().map(|entry| format!("{:?}", entry.holder)));
        }
        all
    }

    #[test]
    fn every_entry_is_told_once_and_in_order() {
        let all = told(&Filter::default());
        assert_eq!(all.len(), 500);
        let mut expected = table_holders();
        expected.sort();
        assert_eq!(all, expected.into_iter().map(|holder| format!("{holder:?}")).collect::<Vec<_>>());
    }

    fn table_holders() -> Vec<Holder> {
        let name = |at: usize| Holder::Owner(format!("n{at:03}").parse().unwrap(), "o".parse().unwrap());
        let member =
            |at: usize| Holder::Member(format!("g{:03}", at / 2).parse().unwrap(), format!("m{at}").parse().unwrap());
        (0..250).map(name).chain((0..250).map(member)).collect()
    }

    #[test]
    fn pages_of_large_entries_are_short() {
        let mut table = Table::default();
        let meta = format!("{{\"x\":\"{}\"}}", "y".repeat(16_000)).parse::<Meta>().unwrap();
        for at in 0..60 {
            let (name, owner) = (format!("n{at:02}").parse().unwrap(), "o".parse().unwrap());
            let action = Action::Register { name, owner, meta: meta.clone(), lease: None, condition: Condition::Free };
            table.apply(&Command { action, node: 1, at: UnixMillis(0) }, &mut News::default());
        }
        let mut pages = StatePages::new(table, &Filter::default());
        let pages = std::iter::from_fn(|| pages.next_page()).collect::<Vec<_>>();
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [17, 17, 17, 9]);
        assert!(pages.concat().is_sorted_by_key(|entry| entry.holder.clone()));
    }

    #[test]
    fn a_filter_is_told_what_it_wants_once_although_its_parts_overlap() {
        let filter = Filter {
            names: ["n105", "n007", "n007", "none"].map(|name| name.parse().unwrap()).to_vec(),
            name_prefixes: ["n10", "n1", "n10", "x"].map(String::from).to_vec(),
            groups: ["g001", "g120"].map(|group| group.parse().unwrap()).to_vec(),
            group_prefixes: vec!["g00".into()],
        };
        let all = told(&filter);
        let wanted = table_holders().into_iter().filter(|holder| {
            use crate::model::event::Subject;
            filter.wants(Subject::of(holder))
        });
        let mut wanted = wanted.collect::<Vec<_>>();
        wanted.sort();
        assert_eq!(all, wanted.into_iter().map(|holder| format!("{holder:?}")).collect::<Vec<_>>());
        assert_eq!(all.len(), 1 + 100 + 20 + 2);
    }
}
