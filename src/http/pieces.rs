//! Lists for a caller who may read only some prefixes: one page, put together from a list of each of them.
//!
//! What is out of its reach is not even passed over, so that a page is as full as anybody's and its `next` tells of nothing that
//! the caller may not know.

use super::caller::Caller;
use crate::model::entry::{Entry, Holder};
use crate::model::query::{Answer, Page, Query};
use crate::registry::{QueryCall, QueryFailure, Registry, Reply};

/// The page of a list that this caller may see, if it is a list and not all of it is the caller's to see.
pub async fn ask(
    registry: &dyn Registry,
    query: &Query,
    call: &QueryCall,
    caller: &Caller,
) -> Option<Result<Reply<Answer>, QueryFailure>> {
    let (page, list): (&Page, fn(Page) -> Query) = match query {
        Query::Names { page } => (page, |page| Query::Names { page }),
        Query::Groups { page } => (page, |page| Query::Groups { page }),
        Query::Whereis { .. }
        | Query::Membership { .. }
        | Query::Members { .. }
        | Query::Lease { .. }
        | Query::Leases { .. } => return None,
    };
    let pages = within(page, caller.readable()?);
    Some(join(registry, page, pages, list, call).await)
}

/// The revision is that of the first list: what has changed since may be missing in the others' place.
async fn join(
    registry: &dyn Registry,
    whole: &Page,
    pages: Vec<Page>,
    list: fn(Page) -> Query,
    call: &QueryCall,
) -> Result<Reply<Answer>, QueryFailure> {
    let mut pages = pages.into_iter();
    let Some(first) = pages.next() else {
        // Even of nothing at all somebody has to know the revision.
        let mut reply = registry.query(list(Page { limit: 1, ..whole.clone() }), call).await?;
        clear(&mut reply.value);
        return Ok(reply);
    };
    let mut reply = registry.query(list(first), call).await?;
    for page in pages {
        let limit = room(&reply.value, whole.limit);
        if limit == 0 {
            leave_open(&mut reply.value);
            break;
        }
        append(&mut reply.value, registry.query(list(Page { limit, ..page }), call).await?.value);
    }
    Ok(reply)
}

/// The parts of a page that lie within these prefixes, in order.
fn within(page: &Page, mut prefixes: Vec<&str>) -> Vec<Page> {
    prefixes.sort_unstable();
    let mut pages: Vec<Page> = Vec::new();
    for prefix in prefixes {
        let prefix = match (prefix.starts_with(&page.prefix), page.prefix.starts_with(prefix)) {
            (true, _) => prefix,
            (false, true) => page.prefix.as_str(),
            (false, false) => continue,
        };
        // A prefix within the one before it: all of it has been there already.
        if pages.last().is_some_and(|last| prefix.starts_with(&last.prefix)) {
            continue;
        }
        // All that begins so comes before the page.
        if page.after.as_deref().is_some_and(|after| after > prefix && !after.starts_with(prefix)) {
            continue;
        }
        pages.push(Page { prefix: prefix.to_owned(), ..page.clone() });
    }
    pages
}

/// How many more a page may hold. None, once it has a next one.
fn room(answer: &Answer, limit: usize) -> usize {
    match answer {
        Answer::Entries { entries, next: None } => limit.saturating_sub(entries.len()),
        Answer::Groups { groups, next: None } => limit.saturating_sub(groups.len()),
        Answer::Entries { .. } | Answer::Groups { .. } => 0,
        Answer::Entry(_) | Answer::Lease(_) | Answer::Leases { .. } | Answer::Refused(_) => 0,
    }
}

/// A full page that ended with its prefix: there may be more under the next one.
fn leave_open(answer: &mut Answer) {
    match answer {
        Answer::Entries { entries, next } if next.is_none() => *next = entries.last().map(key),
        Answer::Groups { groups, next } if next.is_none() => *next = groups.last().map(|last| last.group.to_string()),
        Answer::Entries { .. } | Answer::Groups { .. } => {}
        Answer::Entry(_) | Answer::Lease(_) | Answer::Leases { .. } | Answer::Refused(_) => {}
    }
}

fn key(entry: &Entry) -> String {
    match &entry.holder {
        Holder::Owner(name, _) => name.to_string(),
        Holder::Member(group, _) => group.to_string(),
    }
}

/// Puts what follows behind it. An answer of another kind (a refusal) takes its place.
fn append(answer: &mut Answer, more: Answer) {
    match (answer, more) {
        (Answer::Entries { entries, next }, Answer::Entries { entries: others, next: then }) => {
            entries.extend(others);
            *next = then;
        }
        (Answer::Groups { groups, next }, Answer::Groups { groups: others, next: then }) => {
            groups.extend(others);
            *next = then;
        }
        (answer, other) => *answer = other,
    }
}

fn clear(answer: &mut Answer) {
    match answer {
        Answer::Entries { entries, next } => (entries.clear(), *next = None),
        Answer::Groups { groups, next } => (groups.clear(), *next = None),
        Answer::Entry(_) | Answer::Lease(_) | Answer::Leases { .. } | Answer::Refused(_) => ((), ()),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts_of(prefix: &str, after: Option<&str>, readable: &[&str]) -> Vec<String> {
        let page = Page { prefix: prefix.to_owned(), after: after.map(str::to_owned), limit: 5 };
        within(&page, readable.to_vec()).into_iter().map(|page| page.prefix).collect()
    }

    #[test]
    fn a_page_is_made_of_what_may_be_read_of_it() {
        assert_eq!(parts_of("", None, &["b/", "a/", "a/x", "a/"]), ["a/", "b/"]);
        assert_eq!(parts_of("a", None, &["b/", "a/"]), ["a/"]);
        assert_eq!(parts_of("a/b", None, &["b/", "a/"]), ["a/b"]);
        assert_eq!(parts_of("c", None, &["b/", "a/"]), [""; 0]);
        assert_eq!(parts_of("", Some("a/z"), &["b/", "a/"]), ["a/", "b/"]);
        assert_eq!(parts_of("", Some("a0"), &["b/", "a/"]), ["b/"]);
        assert_eq!(parts_of("", Some("z"), &["b/", "a/"]), [""; 0]);
        assert_eq!(parts_of("", None, &["", "a/"]), [""]);
        assert_eq!(parts_of("", None, &[]), [""; 0]);
    }
}
