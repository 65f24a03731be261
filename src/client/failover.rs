//! From one server to the next, as long as that can do no harm and there is time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::call::{Caller, Cause, CommandError};
use crate::registry::Reason;
use crate::wire::status::Kind;

/// The pause after every server has been tried once; it doubles with each round.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// A try that has less time than this is not worth splitting what is left.
const SPLIT_MIN: Duration = Duration::from_millis(100);

/// Servers of one cluster, and which of them answered last.
#[derive(Debug)]
pub struct Servers {
    callers: Vec<Caller>,
    good: AtomicUsize,
}

impl Servers {
    /// At least one.
    pub fn new(callers: Vec<Caller>) -> Self {
        assert!(!callers.is_empty(), "a client without a server");
        Self { callers, good: AtomicUsize::new(0) }
    }

    pub fn callers(&self) -> &[Caller] {
        &self.callers
    }

    /// Where the next call begins.
    pub fn good(&self) -> usize {
        // A hint and no more: whatever order it is seen in, some server is asked.
        self.good.load(Ordering::Relaxed)
    }

    pub fn remember(&self, at: usize) {
        self.good.store(at, Ordering::Relaxed);
    }

    /// Begins the tries of one call. `once`: no server is asked a second time.
    pub fn tries(&self, timeout: Duration, repeating_is_safe: bool, once: bool) -> Tries<'_> {
        let pace = Pace::new(self.callers.len());
        Tries {
            servers: self,
            deadline: Instant::now() + timeout,
            repeating_is_safe,
            once,
            at: self.good(),
            pace,
            unknown: None,
        }
    }
}

/// The tries of one call.
#[derive(Debug)]
pub struct Tries<'s> {
    servers: &'s Servers,
    deadline: Instant,
    repeating_is_safe: bool,
    once: bool,
    at: usize,
    pace: Pace,
    /// Why the first try of unknown outcome had none.
    unknown: Option<Cause>,
}

impl<'s> Tries<'s> {
    /// Where the next try goes, and how long it may take: as a whole, and until there is a connection.
    pub fn next(&self) -> (&'s Caller, Duration, Duration) {
        let left = self.deadline.saturating_duration_since(Instant::now());
        // A server that says nothing must not use up the time in which another one would have answered.
        let half = if self.servers.callers.len() > 1 && left > 2 * SPLIT_MIN { left / 2 } else { left };
        // What may not be sent twice has all the time there is once it is sent.
        let whole = if self.repeating_is_safe { half } else { left };
        (&self.servers.callers[self.at], whole, half)
    }

    /// What the call comes to, if that was its last try. Once a try has ended unknown, so does the call, unless one brings an outcome.
    pub async fn end<T>(&mut self, result: Result<T, CommandError>) -> Option<Result<T, CommandError>> {
        let error = match result {
            Ok(value) => {
                self.servers.remember(self.at);
                return Some(Ok(value));
            }
            Err(error) => error,
        };
        let again = match &error {
            CommandError::NotApplied(cause) => may_help(cause),
            CommandError::Unknown(cause) => {
                self.unknown.get_or_insert_with(|| cause.clone());
                self.repeating_is_safe && may_help(cause)
            }
        };
        if again && self.elsewhere().await {
            return None;
        }
        Some(Err(match self.unknown.take() {
            Some(cause) => CommandError::Unknown(cause),
            None => error,
        }))
    }

    /// Turns to the next server, after a pause if all have been asked. False: no time is left for that, or no server.
    pub async fn elsewhere(&mut self) -> bool {
        let pause = self.pace.next();
        if self.once && self.pace.has_gone_round() {
            return false;
        }
        let left = self.deadline.saturating_duration_since(Instant::now());
        if pause >= left {
            return false;
        }
        sleep(pause).await;
        self.at = (self.at + 1) % self.servers.callers.len();
        true
    }

    /// The same for a question, which has no outcome and may always be repeated.
    pub async fn end_query<T>(&mut self, result: Result<T, Cause>) -> Option<Result<T, Cause>> {
        let ended = self.end(result.map_err(CommandError::NotApplied)).await?;
        Some(ended.map_err(|error| match error {
            CommandError::NotApplied(cause) | CommandError::Unknown(cause) => cause,
        }))
    }
}

/// Whether another server, or the same one later, may have another answer.
fn may_help(cause: &Cause) -> bool {
    match cause {
        Cause::Unreachable(_) | Cause::Lost(_) | Cause::Late | Cause::Garbled(_) => true,
        Cause::Server(reason) => match reason {
            Reason::NoLeader
            | Reason::NoQuorum
            | Reason::Starting
            | Reason::Behind { .. }
            | Reason::Overloaded
            | Reason::Timeout
            | Reason::NotLeader { .. }
            | Reason::Internal(_) => true,
        },
        Cause::Rejected { code, .. } => match code.row().kind {
            Kind::Deferral | Kind::Failure => true,
            Kind::Refusal | Kind::Rejection => false,
        },
    }
}

/// Pauses between tries: none within the first round over the servers, then jittered ones that double, so that many clients that lost
/// one server do not meet at the next.
#[derive(Debug)]
pub struct Pace {
    servers: usize,
    tries: usize,
}

impl Pace {
    pub fn new(servers: usize) -> Self {
        Self { servers, tries: 0 }
    }

    /// The pause before the next try.
    pub fn next(&mut self) -> Duration {
        self.tries += 1;
        match (self.tries / self.servers) as u32 {
            0 => Duration::ZERO,
            round => {
                let most = PAUSE_MAX.min(PAUSE_FIRST.saturating_mul(1 << (round - 1).min(16)));
                most.mul_f64(rand::random_range(0.5..1.0))
            }
        }
    }

    /// Whether every server has been tried since something went well.
    pub fn has_gone_round(&self) -> bool {
        self.tries >= self.servers
    }

    /// After something went well.
    pub fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::status::Code;

    fn servers(count: usize) -> Servers {
        Servers::new((0..count).map(|_| Caller::new("http://127.0.0.1:1").unwrap()).collect())
    }

    fn not_applied<T>() -> Result<T, CommandError> {
        Err(CommandError::NotApplied(Cause::Server(Reason::NoLeader)))
    }

    fn unknown<T>() -> Result<T, CommandError> {
        Err(CommandError::Unknown(Cause::Lost("gone".to_owned())))
    }

    #[tokio::test]
    async fn what_was_perhaps_applied_is_sent_again_only_if_that_is_safe() {
        let servers = servers(3);
        let timeout = Duration::from_secs(60);
        assert_eq!(servers.tries(timeout, false, false).end::<()>(unknown()).await, Some(unknown()));
        assert_eq!(servers.tries(timeout, true, false).end::<()>(unknown()).await, None);
        assert_eq!(servers.tries(timeout, false, false).end::<()>(not_applied()).await, None);
    }

    #[tokio::test]
    async fn one_unknown_try_makes_the_failure_unknown_whatever_the_later_ones_say() {
        let servers = servers(2);
        let mut tries = servers.tries(Duration::from_millis(200), true, false);
        assert_eq!(tries.end::<()>(unknown()).await, None);
        let ended = loop {
            if let Some(ended) = tries.end::<()>(not_applied()).await {
                break ended;
            }
        };
        assert_eq!(ended, unknown());
    }

    #[tokio::test]
    async fn a_request_that_no_server_would_take_is_sent_once() {
        let servers = servers(3);
        let rejected = || CommandError::NotApplied(Cause::Rejected { code: Code::TooLarge, detail: String::new() });
        let ended = servers.tries(Duration::from_secs(60), true, false).end::<()>(Err(rejected())).await;
        assert_eq!(ended, Some(Err(rejected())));
    }

    #[tokio::test]
    async fn the_server_that_answered_is_asked_first_the_next_time() {
        let servers = servers(3);
        let mut tries = servers.tries(Duration::from_secs(60), true, false);
        assert_eq!(tries.end::<()>(not_applied()).await, None);
        assert_eq!(tries.end(Ok(())).await, Some(Ok(())));
        assert_eq!(servers.good(), 1);
    }

    #[tokio::test]
    async fn where_each_server_is_asked_once_nobody_is_waited_for() {
        let servers = servers(3);
        let mut tries = servers.tries(Duration::from_secs(60), true, true);
        assert_eq!(tries.end::<()>(not_applied()).await, None);
        assert_eq!(tries.end::<()>(not_applied()).await, None);
        assert_eq!(tries.end::<()>(not_applied()).await, Some(not_applied()));
    }

    #[test]
    fn a_silent_server_does_not_use_up_the_time_of_the_others() {
        let several = servers(3);
        let (_, whole, connect) = several.tries(Duration::from_secs(8), true, false).next();
        assert!(whole <= Duration::from_secs(4) && connect <= Duration::from_secs(4));
        let (_, whole, connect) = several.tries(Duration::from_secs(8), false, false).next();
        assert!(whole > Duration::from_secs(4) && connect <= Duration::from_secs(4));
        let one = servers(1);
        assert!(one.tries(Duration::from_secs(8), true, false).next().1 > Duration::from_secs(4));
    }

    #[test]
    fn pauses_come_after_whole_rounds_and_grow_to_a_bound() {
        let mut pace = Pace::new(3);
        let pauses = (0..300).map(|_| pace.next()).collect::<Vec<_>>();
        assert!(pauses[0].is_zero() && pauses[1].is_zero() && !pauses[2].is_zero());
        assert!(pauses.iter().all(|pause| *pause <= PAUSE_MAX) && pauses[299] >= PAUSE_MAX / 2);
    }
}
