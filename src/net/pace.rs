//! When calls that come in shortly one after another go on together: alone each is soonest, together they cost least.
//!
//! Nobody waits while few come. Once more than a few have come within one spacing, what follows is gathered, a spacing long at a time,
//! for as long as that gathers something: a caller that makes one call after the other, and waits for each, is not slowed down for
//! nothing. Pure: time is an argument, in milliseconds from any beginning.

/// So many within one spacing are still few.
const FEW: usize = 3;

#[derive(Clone, Debug)]
pub struct Pace {
    spacing_ms: u64,
    /// Since when it is counted how many come.
    since_ms: u64,
    came: usize,
    /// When what is being gathered goes on.
    gathering_until_ms: Option<u64>,
}

impl Pace {
    pub fn new(spacing_ms: u64) -> Self {
        Self { spacing_ms, since_ms: 0, came: 0, gathering_until_ms: None }
    }

    /// A call has come: when it is to go on.
    pub fn came(&mut self, now_ms: u64) -> u64 {
        if let Some(until_ms) = self.gathering_until_ms {
            return until_ms.max(now_ms);
        }
        if now_ms >= self.since_ms + self.spacing_ms {
            (self.since_ms, self.came) = (now_ms, 0);
        }
        self.came += 1;
        if self.came > FEW {
            self.gathering_until_ms = Some(self.since_ms + self.spacing_ms);
        }
        self.gathering_until_ms.unwrap_or(now_ms)
    }

    /// So many have gone on together.
    pub fn went(&mut self, count: usize, now_ms: u64) {
        if self.gathering_until_ms.is_some() {
            (self.since_ms, self.came) = (now_ms, 0);
            self.gathering_until_ms = (count > 1).then_some(now_ms + self.spacing_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many messages so many callers need for a call each in every `period_ms`, and how long a call waits at most.
    fn independent(callers: u64, period_ms: u64) -> (usize, u64) {
        let mut pace = Pace::new(50);
        let (mut messages, mut longest) = (0, 0);
        let mut waiting: Vec<(u64, u64)> = Vec::new();
        for now in 0..60_000 {
            if (now * callers).is_multiple_of(period_ms) {
                waiting.push((now, pace.came(now)));
            }
            if waiting.iter().any(|(_, due)| *due <= now) {
                longest = longest.max(now - waiting[0].0);
                pace.went(waiting.len(), now);
                waiting.clear();
                messages += 1;
            }
        }
        (messages, longest)
    }

    #[test]
    fn few_wait_for_nobody_and_many_go_together() {
        assert_eq!(independent(10, 1_000), (600, 0));
        let (messages, longest) = independent(100, 1_000);
        assert!(messages < 1_400, "{messages} for 6,000 calls");
        assert!(longest <= 50, "{longest} ms");
    }

    #[test]
    fn one_call_after_the_other_is_hardly_slowed_down() {
        let mut pace = Pace::new(50);
        let (mut now, mut calls) = (0, 0);
        while now < 10_000 {
            // Waits until it goes on, and a millisecond for the answer.
            now = pace.came(now).max(now);
            pace.went(1, now);
            now += 1;
            calls += 1;
        }
        assert!(calls > 500, "{calls} in ten seconds");
    }
}
