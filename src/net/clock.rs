//! Time, as the protocols see it.

use std::time::{SystemTime, UNIX_EPOCH};

/// Where time comes from. Simulations bring their own.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since the Unix epoch. May jump in either direction.
    fn wall_ms(&self) -> u64;
    /// Steady: never goes back, and goes on while the machine's wall clock is set.
    fn now(&self) -> tokio::time::Instant;
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn wall_ms(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
    }

    fn now(&self) -> tokio::time::Instant {
        tokio::time::Instant::now()
    }
}
