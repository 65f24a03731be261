//! A bounded history of events and its readers, one for both modes.
//!
//! Events stand in one ring, numbered without gaps. A reader has only a number: where it goes on. So a slow reader costs nothing and
//! holds nothing up; when the ring has passed it by, it is told so, once.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::watch;

/// A feed's writing end and its readers' meeting place. Clones share it.
#[derive(Debug)]
pub struct Feed<E> {
    ring: Arc<Mutex<Ring<E>>>,
    /// The number of the next event; raised after the event is in the ring.
    next: watch::Sender<u64>,
}

#[derive(Debug)]
struct Ring<E> {
    events: VecDeque<Arc<E>>,
    /// The number of the first event that is kept.
    first: u64,
    /// The number with which the history began, anew if it was restarted.
    began: u64,
    len_max: usize,
    weight: usize,
    weight_max: usize,
    weigh: fn(&E) -> usize,
}

/// The reader was too slow, or came too late: the history begins later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone {
    /// The number of the oldest event that is kept.
    pub first: u64,
    /// The history has begun anew since then, with a state that was replaced as a whole: it is not that the reader was slow.
    pub replaced: bool,
}

impl<E> Clone for Feed<E> {
    fn clone(&self) -> Self {
        Self { ring: self.ring.clone(), next: self.next.clone() }
    }
}

impl<E> Feed<E> {
    /// An empty history whose next event has this number. At most `len_max` events (at least one) are kept.
    pub fn new(next: u64, len_max: usize) -> Self {
        Self::weighing(next, len_max, usize::MAX, |_| 0)
    }

    /// A history that is kept shorter where its events are heavy: together, all but the last weigh at most `weight_max`.
    pub fn weighing(next: u64, len_max: usize, weight_max: usize, weigh: fn(&E) -> usize) -> Self {
        let (events, len_max) = (VecDeque::new(), len_max.max(1));
        let ring = Ring { events, first: next, began: next, len_max, weight: 0, weight_max, weigh };
        Self { ring: Arc::new(Mutex::new(ring)), next: watch::Sender::new(next) }
    }

    fn ring(&self) -> MutexGuard<'_, Ring<E>> {
        self.ring.lock().expect("no panic while held")
    }

    /// Appends events. Readers see them when [`publish`](Self::publish) is called.
    pub fn append(&self, events: impl IntoIterator<Item = E>) {
        let mut ring = self.ring();
        for event in events {
            ring.weight += (ring.weigh)(&event);
            ring.events.push_back(Arc::new(event));
            while ring.events.len() > ring.len_max || (ring.weight > ring.weight_max && ring.events.len() > 1) {
                let gone = ring.events.pop_front().expect("it is not empty");
                ring.weight -= (ring.weigh)(&gone);
                ring.first += 1;
            }
        }
    }

    /// Wakes the readers. Apart from [`append`](Self::append), so that a writer may first publish the state that the events led to.
    pub fn publish(&self) {
        let next = self.ring().next();
        self.next.send_if_modified(|known| std::mem::replace(known, next) != next);
    }

    /// Forgets everything and goes on with this number: the state was replaced as a whole.
    pub fn restart(&self, next: u64) {
        let mut ring = self.ring();
        ring.events.clear();
        (ring.first, ring.began, ring.weight) = (next, next, 0);
        drop(ring);
        self.next.send_replace(next);
    }

    /// The number of the oldest event kept, and of the next one to come.
    pub fn bounds(&self) -> (u64, u64) {
        let ring = self.ring();
        (ring.first, ring.next())
    }

    /// Up to `max` events from this number on; none at the end.
    pub fn read(&self, from: u64, max: usize) -> Result<Vec<Arc<E>>, Gone> {
        let ring = self.ring();
        // Beyond the end, too: the history was restarted behind this reader.
        if !(ring.first..=ring.next()).contains(&from) {
            return Err(Gone { first: ring.first, replaced: from < ring.began || from > ring.next() });
        }
        Ok(ring.events.iter().skip((from - ring.first) as usize).take(max).cloned().collect())
    }

    /// Tells how far the history goes, whenever that changes. It ends when the feed's last clone is gone.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.next.subscribe()
    }
}

impl<E> Ring<E> {
    fn next(&self) -> u64 {
        self.first + self.events.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_the_ring_has_passed_by_is_told_so() {
        let feed = Feed::new(5, 3);
        feed.append(["e", "f", "g", "h"]);
        assert_eq!(feed.bounds(), (6, 9));
        assert_eq!(feed.read(5, 10), Err(Gone { first: 6, replaced: false }));
        assert_eq!(feed.read(7, 10).unwrap().iter().map(|e| **e).collect::<Vec<_>>(), ["g", "h"]);
        assert_eq!(feed.read(9, 10), Ok(Vec::new()));
        feed.restart(100);
        assert_eq!(feed.read(9, 10), Err(Gone { first: 100, replaced: true }));
        assert_eq!(feed.read(101, 10), Err(Gone { first: 100, replaced: true }));
    }

    #[test]
    fn heavy_events_shorten_the_history_but_the_last_one_is_kept() {
        let feed = Feed::weighing(1, 100, 10, |text: &&str| text.len());
        feed.append(["aaaa", "bbbb", "cc"]);
        assert_eq!(feed.bounds(), (1, 4));
        feed.append(["d"]);
        assert_eq!(feed.bounds(), (2, 5));
        feed.append(["heavier than all"]);
        assert_eq!(feed.bounds(), (5, 6));
        feed.append(["f"]);
        assert_eq!(feed.bounds(), (6, 7));
    }

    #[test]
    fn readers_wake_when_events_are_published_and_not_before() {
        let feed = Feed::new(1, 10);
        let mut reader = feed.subscribe();
        feed.append(["a"]);
        assert!(!reader.has_changed().unwrap());
        feed.publish();
        assert!(reader.has_changed().unwrap());
        assert_eq!(*reader.borrow_and_update(), 2);
    }
}
