//! The inboxes that are read at this node.

use std::collections::HashMap;
use std::sync::{Arc, RwLock, Weak};

use crate::messages::{Inbox, InboxQueue, Letter};
use crate::model::ident::Mode;

/// This node's inboxes, by mode and owner.
#[derive(Default)]
pub struct Hub {
    inboxes: RwLock<HashMap<Mode, Owners>>,
}

/// Each owner's inboxes.
type Owners = HashMap<String, Vec<Weak<InboxQueue>>>;

impl Hub {
    /// Opens one more inbox of this owner.
    pub fn open(&self, mode: Mode, owner: &str) -> Inbox {
        let (inbox, queue) = Inbox::new();
        let mut inboxes = self.inboxes.write().expect("no panic while held");
        let owners = inboxes.entry(mode).or_default();
        let queues = owners.entry(owner.to_owned()).or_default();
        queues.retain(|queue| queue.strong_count() > 0);
        queues.push(Arc::downgrade(&queue));
        inbox
    }

    /// Whether anybody reads this owner's messages here.
    pub fn is_read(&self, mode: Mode, owner: &str) -> bool {
        let inboxes = self.inboxes.read().expect("no panic while held");
        inboxes.get(&mode).is_some_and(|owners| owners.contains_key(owner))
    }

    /// Puts a message into every inbox of this owner; how many took it.
    pub fn deliver(&self, mode: Mode, owner: &str, letter: &Arc<Letter>) -> u64 {
        let inboxes = self.inboxes.read().expect("no panic while held");
        let Some(queues) = inboxes.get(&mode).and_then(|owners| owners.get(owner)) else { return 0 };
        queues.iter().filter_map(Weak::upgrade).map(|queue| u64::from(queue.put(letter))).sum()
    }

    /// Forgets the inboxes whose readers have gone.
    pub fn sweep(&self) {
        let mut inboxes = self.inboxes.write().expect("no panic while held");
        for owners in inboxes.values_mut() {
            owners.retain(|_, queues| {
                queues.retain(|queue| queue.strong_count() > 0);
                !queues.is_empty()
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::{Address, Delivery};
    use crate::model::ident::Token;

    #[tokio::test]
    async fn every_open_inbox_of_the_owner_gets_it_and_no_other() {
        let hub = Hub::default();
        let letter = Letter { to: Address::Name("n".parse().unwrap()), token: Token::Cp(1), text: "1".into() };
        let letter = Arc::new(letter);
        assert_eq!(hub.deliver(Mode::Cp, "a", &letter), 0);
        let (mut one, mut two) = (hub.open(Mode::Cp, "a"), hub.open(Mode::Cp, "a"));
        let others = (hub.open(Mode::Ap, "a"), hub.open(Mode::Cp, "b"));
        assert_eq!(hub.deliver(Mode::Cp, "a", &letter), 2);
        assert_eq!(one.next().await, Delivery::Letter(letter.clone()));
        assert_eq!(two.next().await, Delivery::Letter(letter.clone()));
        drop(one);
        assert_eq!(hub.deliver(Mode::Cp, "a", &letter), 1);
        drop((two, others));
        assert!(hub.is_read(Mode::Cp, "b"));
        hub.sweep();
        assert!(!hub.is_read(Mode::Cp, "b"));
        assert_eq!(hub.deliver(Mode::Cp, "a", &letter), 0);
    }
}
