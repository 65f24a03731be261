//! Many calls made into few: what comes in shortly one after another is carried out together.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

/// Batches begin so far apart at least. A call that comes alone waits for nobody.
const SPACING: Duration = Duration::from_millis(20);
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
            let mut next_batch = Instant::now();
            let mut left_over = None;
            loop {
                let permit = permits.clone().acquire_owned().await.expect("never closed");
                let first = match left_over.take() {
                    Some(first) => first,
                    None => match waiting.recv().await {
                        Some(first) => first,
                        None => return,
                    },
                };
                if next_batch > Instant::now() {
                    sleep_until(next_batch).await;
                }
                next_batch = Instant::now() + SPACING;
                let mut total = weight(&first.0);
                let mut batch = vec![first];
                while let Ok(more) = waiting.try_recv() {
                    total += weight(&more.0);
                    if total > weight_max {
                        left_over = Some(more);
                        // What is too much for one batch need not wait for the next.
                        next_batch = Instant::now();
                        break;
                    }
                    batch.push(more);
                }
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
