//! Ends what does not end by itself: whoever is asked knows the deadline, and what it has done by then; this is for the case that it
//! does not keep it.

use std::time::{Duration, Instant};

use tokio::time::timeout_at;

/// How long after its deadline a call is given up, if there is no answer by then.
const GRACE: Duration = Duration::from_millis(250);

/// What is said by the deadline; `late` if that is nothing.
pub async fn by<T, E>(deadline: Instant, late: E, said: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    timeout_at((deadline + GRACE).into(), said).await.unwrap_or(Err(late))
}
