//! What a client may believe of its lease: pure, the time is an argument.
//!
//! Everything bound to a lease stays at least `expires_in` after the *sending* of the last keep-alive that was acknowledged. So that is
//! where a client counts from, whatever the answer's way took; and it counts less than that, for its clock may run slower
//! than the server's.

use std::time::Duration;

use super::moment::Moment;

/// The part of a server's word that is not relied upon: a client's clock that runs up to a tenth slower than the server's is still
/// in time.
const MARGIN: u32 = 10;
/// A lease is kept alive so many times within its time-to-live, so that one lost answer, or two, cost nothing.
const KEEP_ALIVES: u32 = 3;

/// Why a lease is no longer counted upon. Whatever was bound to it may be somebody else's from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// It could not be kept alive in time, and may end any moment.
    #[error("the lease could not be kept alive in time")]
    Unrenewed,
    /// The registry says that it has ended.
    #[error("the lease has ended")]
    Ended,
    /// Its own client revoked it.
    #[error("the lease was given up")]
    Closed,
}

/// What is known of one lease. Once lost it stays lost, for its owner may have acted on that already.
#[derive(Clone, Debug)]
pub struct Belief {
    until: Moment,
    /// When the last acknowledged keep-alive was sent.
    sent: Moment,
    ttl: Duration,
    lost: Option<Lost>,
}

impl Belief {
    /// A lease whose creation was sent then and acknowledged.
    pub fn new(sent: Moment, ttl: Duration) -> Self {
        Self { until: sent.plus(trusted(ttl)), sent, ttl, lost: None }
    }

    /// A keep-alive that was sent then was acknowledged.
    pub fn kept_alive(&mut self, sent: Moment, expires_in: Duration) {
        // Each acknowledgement is a promise of its own: a later one does not take back an earlier one.
        self.until = self.until.max(sent.plus(trusted(expires_in)));
        self.sent = self.sent.max(sent);
    }

    /// It is not to be counted upon any more.
    pub fn lose(&mut self, why: Lost) {
        self.lost.get_or_insert(why);
    }

    /// Whether it is lost by now, and why.
    pub fn lost(&mut self, now: Moment) -> Option<Lost> {
        if now >= self.until {
            self.lose(Lost::Unrenewed);
        }
        self.lost
    }

    /// How long it may be counted upon from now if no keep-alive comes through.
    pub fn remaining(&mut self, now: Moment) -> Duration {
        match self.lost(now) {
            Some(_) => Duration::ZERO,
            None => self.until.since(now),
        }
    }

    /// When the next keep-alive is to be sent; `jitter` between 0 and 1 spreads those of many clients.
    pub fn next_keep_alive(&self, jitter: f64) -> Moment {
        self.sent.plus((self.ttl / KEEP_ALIVES).mul_f64(0.8 + 0.2 * jitter))
    }
}

fn trusted(expires_in: Duration) -> Duration {
    expires_in - expires_in / MARGIN
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::after_start(Duration::from_millis(ms))
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn it_counts_from_the_sending_and_not_from_the_answer() {
        let mut belief = Belief::new(at(1_000), ms(10_000));
        assert_eq!(belief.remaining(at(1_000)), ms(9_000));
        // Sent at 4 s, answered at 9 s.
        belief.kept_alive(at(4_000), ms(10_000));
        assert_eq!(belief.remaining(at(9_000)), ms(4_000));
        assert_eq!(belief.lost(at(13_000)), Some(Lost::Unrenewed));
    }

    #[test]
    fn what_was_told_as_lost_is_never_held_again() {
        let mut belief = Belief::new(at(0), ms(1_000));
        assert_eq!(belief.lost(at(900)), Some(Lost::Unrenewed));
        belief.kept_alive(at(800), ms(1_000));
        assert_eq!(belief.lost(at(901)), Some(Lost::Unrenewed));
        assert_eq!(belief.remaining(at(0)), Duration::ZERO);
    }

    #[test]
    fn keep_alives_come_early_enough_for_two_more_tries() {
        let belief = Belief::new(at(0), ms(9_000));
        assert!(belief.next_keep_alive(0.0) < belief.next_keep_alive(1.0));
        assert!(belief.next_keep_alive(1.0) <= at(3_000));
    }

    /// A server that grants, renews and ends the lease by its own clock, which runs up to a tenth faster than the client's; answers
    /// take their time, and some are lost.
    #[derive(Clone, Debug)]
    struct Round {
        wait: u64,
        way: u64,
        back: Option<u64>,
    }

    prop_compose! {
        fn round()(wait in 0..6_000u64, way in 0..4_000u64, back in proptest::option::of(0..4_000u64)) -> Round {
            Round { wait, way, back }
        }
    }

    proptest! {
        #[test]
        fn it_never_believes_longer_than_the_server_does(
            ttl in 1_000..20_000u64,
            rounds in proptest::collection::vec(round(), 0..20),
        ) {
            // Milliseconds by the client's clock; the server's lease ends by a clock that runs 11 : 10.
            let server_ttl = ttl * 10 / 11;
            let mut belief = Belief::new(at(0), ms(ttl));
            // The server counts from when the request arrived, at once here: the worst case.
            let mut ends = server_ttl;
            let mut now = 0;
            for Round { wait, way, back } in rounds {
                let sent = now + wait;
                let arrived = sent + way;
                // Until the next answer the belief must end before the lease does.
                prop_assert!(belief.clone().lost(at(ends)).is_some());
                if arrived >= ends {
                    break;
                }
                ends = arrived + server_ttl;
                now = arrived;
                if let Some(back) = back {
                    now = arrived + back;
                    if belief.lost(at(now)).is_none() {
                        belief.kept_alive(at(sent), ms(ttl));
                    }
                }
                prop_assert!(belief.clone().lost(at(ends)).is_some());
                prop_assert!(belief.remaining(at(now)) <= ms(ends.saturating_sub(now)));
            }
        }
    }
}
