//! Who waits for answers from peers: each question has a number, and is forgotten however its asker ends.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

/// Questions of one kind that are open.
pub struct Waiting<T> {
    last_id: AtomicU64,
    askers: Mutex<HashMap<u64, mpsc::UnboundedSender<T>>>,
}

/// An open question. Dropping it closes it.
pub struct Question<'a, T> {
    waiting: &'a Waiting<T>,
    pub id: u64,
    answers: mpsc::UnboundedReceiver<T>,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self { last_id: AtomicU64::new(0), askers: Mutex::default() }
    }
}

impl<T> Waiting<T> {
    pub fn ask(&self) -> Question<'_, T> {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let (sender, answers) = mpsc::unbounded_channel();
        self.askers.lock().expect("no panic while held").insert(id, sender);
        Question { waiting: self, id, answers }
    }

    /// An answer has come. To a question that is closed it comes too late.
    pub fn told(&self, id: u64, answer: T) {
        if let Some(asker) = self.askers.lock().expect("no panic while held").get(&id) {
            let _ = asker.send(answer);
        }
    }
}

impl<T> Question<'_, T> {
    /// The next answer, if one comes by then.
    pub async fn answer(&mut self, until: tokio::time::Instant) -> Option<T> {
        tokio::time::timeout_at(until, self.answers.recv()).await.ok().flatten()
    }
}

impl<T> Drop for Question<'_, T> {
    fn drop(&mut self) {
        self.waiting.askers.lock().expect("no panic while held").remove(&self.id);
    }
}
