//! Many calls made into few: what comes in shortly one after another is carried out together.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use crate::net::pace::Pace;

/// Calls are gathered for so long, if there are many.
const SPACING_MS: u64 = 50;
/// Calls waiting for their batch to begin. More are refused as overload.
const QUEUE_LEN_MAX: usize = 64 * 1024;
/// Batches under way at once.
const BATCHES_MAX: usize = 8;

type Waiting<Q, A> = (Q, oneshot::Sender<A>);

/// Gathers calls into batches. Ends when this is dropped.
pub struct Gather<Q, A> {
    queue: mpsc::Sender<Waiting<Q, A>>,
}

/// Why a call was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// Too many are waiting; nothing was done.
    Overloaded,
    /// The node is stopping.
    Stopped,
}

impl<Q: Send + 'static, A: Send + 'static> Gather<Q, A> {
    /// `carry_out` has one answer for each question, in order. A batch weighs `weight_max` at most, unless a single question does more.
    pub fn new<F, R>(weight: fn(&Q) -> usize, weight_max: usize, carry_out: F) -> Self
    where
        F: Fn(Vec<Q>) -> R + Send + 'static,
        R: Future<Output = Vec<A>> + Send + 'static,
    {
        let (queue, mut waiting) = mpsc::channel::<Waiting<Q, A>>(QUEUE_LEN_MAX);
        tokio::spawn(async move {
            let permits = Arc::new(Semaphore::new(BATCHES_MAX));
            let (began, mut pace) = (Instant::now(), Pace::new(SPACING_MS));
            let now_ms = || began.elapsed().as_millis() as u64;
            let (mut left_over, mut crowded) = (None, false);
            loop {
                let permit = permits.clone().acquire_owned().await.expect("never closed");
                let first = match left_over.take() {
                    Some(first) => first,
                    None => match waiting.recv().await {
                        Some(first) => first,
                        None => return,
                    },
                };
                // What was too much for one batch need not wait for the next.
                let due_ms = if crowded { 0 } else { pace.came(now_ms()) };
                if due_ms > now_ms() {
                    sleep_until(began + Duration::from_millis(due_ms)).await;
                }
                crowded = false;
                let mut total = weight(&first.0);
                let mut batch = vec![first];
                while let Ok(more) = waiting.try_recv() {
                    total += weight(&more.0);
                    if total > weight_max {
                        (left_over, crowded) = (Some(more), true);
                        break;
                    }
                    batch.push(more);
                }
                pace.went(batch.len(), now_ms());
                let (questions, answers): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
                let carried_out = carry_out(questions);
                tokio::spawn(async move {
                    for (answer, waiter) in carried_out.await.into_iter().zip(answers) {
                        let _ = waiter.send(answer);
                    }
                    drop(permit);
                });
            }
        });
        Self { queue }
    }

    pub async fn call(&self, question: Q) -> Result<A, NoAnswer> {
        let (waiter, answer) = oneshot::channel();
        self.queue.try_send((question, waiter)).map_err(|_| NoAnswer::Overloaded)?;
        answer.await.map_err(|_| NoAnswer::Stopped)
    }
}
