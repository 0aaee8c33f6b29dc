//! How often something may be done: so many times at once, then once more each interval.

use std::time::{Duration, Instant};

/// `burst` at once, then one more every `interval`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Tokens that may be taken at once after a rest.
    pub burst: u32,
    /// How long it takes until one more is there.
    pub interval: Duration,
}

impl Rate {
    /// `burst` at once, `tokens` a second in the long run (at least one).
    pub fn per_second(burst: u32, tokens: u32) -> Self {
        Self { burst, interval: Duration::from_secs(1) / tokens.max(1) }
    }

    /// How long an empty bucket takes to be full.
    fn span(self) -> Duration {
        self.interval.saturating_mul(self.burst)
    }
}

/// A token bucket, kept as the one instant at which it will be full. Source: generic cell rate algorithm, ITU-T I.371 Annex A.
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    full_at: Instant,
}

impl TokenBucket {
    /// A bucket with a whole burst in it.
    pub fn full(now: Instant) -> Self {
        Self { full_at: now }
    }

    /// Takes `tokens`, on credit if need be: how long to wait until they are there. None, and nothing is taken, if that is longer
    /// than `patience` or more than a burst.
    pub fn take(&mut self, rate: Rate, tokens: u32, patience: Duration, now: Instant) -> Option<Duration> {
        let full_at = self.full_at.max(now) + rate.interval.saturating_mul(tokens);
        let wait = full_at.saturating_duration_since(now).saturating_sub(rate.span());
        if tokens > rate.burst || wait > patience {
            return None;
        }
        self.full_at = full_at;
        Some(wait)
    }

    /// Takes one token, never on credit; false, and nothing is taken, if there is none.
    pub fn take_one(&mut self, rate: Rate, now: Instant) -> bool {
        self.take(rate, 1, Duration::ZERO, now).is_some()
    }

    /// Whether it has rested long enough to be as good as a new one.
    pub fn is_full(&self, now: Instant) -> bool {
        self.full_at <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const RATE: Rate = Rate { burst: 3, interval: SECOND };

    #[test]
    fn a_burst_goes_through_at_once_then_one_each_interval() {
        let now = Instant::now();
        let mut bucket = TokenBucket::full(now);
        let taken = |bucket: &mut TokenBucket, at| (0..10).filter(|_| bucket.take_one(RATE, at)).count();
        assert_eq!(taken(&mut bucket, now), 3);
        assert_eq!(taken(&mut bucket, now + SECOND / 2), 0);
        assert_eq!(taken(&mut bucket, now + SECOND), 1);
        assert!(!bucket.is_full(now + 3 * SECOND) && bucket.is_full(now + 4 * SECOND));
        assert_eq!(taken(&mut bucket, now + 3600 * SECOND), 3, "rest is not saved up beyond a burst");
    }

    #[test]
    fn who_waits_gets_a_turn_each_and_who_would_wait_too_long_takes_nothing() {
        let now = Instant::now();
        let mut bucket = TokenBucket::full(now);
        let waits: Vec<_> = (0..7).map(|_| bucket.take(RATE, 1, 2 * SECOND, now)).collect();
        let none_then = |seconds: u32| Some(SECOND * seconds);
        assert_eq!(waits, [none_then(0), none_then(0), none_then(0), none_then(1), none_then(2), None, None]);
        assert_eq!(bucket.take(RATE, 4, 60 * SECOND, now), None, "more than a burst");
        assert_eq!(bucket.take(RATE, 1, 2 * SECOND, now + SECOND), Some(2 * SECOND), "the refused took nothing");
    }

    #[test]
    fn a_clock_that_goes_back_fills_nothing() {
        let now = Instant::now() + 10 * SECOND;
        let mut bucket = TokenBucket::full(now);
        assert_eq!((0..3).filter(|_| bucket.take_one(RATE, now)).count(), 3);
        assert!(!bucket.take_one(RATE, now - 5 * SECOND));
    }
}
