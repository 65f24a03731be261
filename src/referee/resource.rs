//! What names guard: resources in the referee's own memory, each of which accepts a write if its token is not less than the greatest
//! that it has seen. So fencing is tried end to end: by clients that believe that they hold a name, and act on it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::history::What;
use super::recorder::Recorder;

/// One resource for each name. They begin without any token.
#[derive(Default)]
pub struct Resources {
    greatest: Mutex<BTreeMap<String, (Order, String)>>,
}

/// How tokens are ordered: as numbers joined by dots are, the first first; a single one is decimal, several are hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Order(Vec<u64>);

impl Order {
    /// None: a token without an order fences nothing.
    pub fn of(token: &str) -> Option<Self> {
        if let Ok(number) = token.parse() {
            return Some(Self(vec![number]));
        }
        let numbers = token.split('.').map(|part| u64::from_str_radix(part, 16).ok());
        numbers.collect::<Option<_>>().filter(|_| token.contains('.')).map(Self)
    }
}

impl Resources {
    /// One write by one who holds the name, or did. What came of it is noted in the order in which the resource decided.
    pub fn write(&self, recorder: &Recorder, name: &str, owner: &str, token: &str) {
        let Some(order) = Order::of(token) else { return };
        let mut all = self.greatest.lock().unwrap_or_else(PoisonError::into_inner);
        let before = all.get(name).cloned();
        let accepted = before.as_ref().is_none_or(|(greatest, _)| *greatest <= order);
        if accepted {
            all.insert(name.to_owned(), (order, token.to_owned()));
        }
        // Under the lock.
        recorder.resource(What::GuardedWrite {
            name: name.to_owned(),
            owner: owner.to_owned(),
            token: token.to_owned(),
            accepted,
            greatest: before.map(|(_, token)| token),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_both_modes_are_ordered_as_they_are_issued() {
        assert!(Order::of("9") < Order::of("10"));
        assert!(Order::of("ff.1.aa.2") < Order::of("100.1.aa.1"));
        assert_eq!(Order::of("o1"), None);
    }

    #[test]
    fn a_lesser_token_is_refused_once_a_greater_one_was_there() {
        let (resources, recorder) = (Resources::default(), Recorder::start());
        for token in ["5", "5", "7", "6", "7"] {
            resources.write(&recorder, "x", "a", token);
        }
        let accepted = recorder.take().into_iter().map(|event| match event.what {
            What::GuardedWrite { accepted, .. } => accepted,
            other => panic!("{other:?}"),
        });
        assert_eq!(accepted.collect::<Vec<_>>(), [true, true, true, false, true]);
    }
}
