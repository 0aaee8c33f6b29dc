//! When to do what. Pure: lifetimes in, durations out, randomness (`unit`, 0 to 1) as an argument.

use std::time::{Duration, Instant};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};

use super::REFUSED_PAUSE;
use crate::trusted_time::{Moment, Span};

/// Rotate when half of the lifetime is left, plus or minus this share of the half.
const JITTER: f64 = 0.1;
/// Nothing is rotated more often than this, however short its life.
const SHORTEST_WAIT: Duration = Duration::from_millis(500);
/// What must be confirmed within a `max_age` is confirmed, and that written down, this many times in it: some may fail.
const CONFIRMATIONS: u32 = 8;
/// Failures in a row after which the back-off no longer doubles.
const MAX_DOUBLINGS: u32 = 16;

/// How long to wait before a certificate is to be replaced. `remaining` of its `lifetime` is left, both in seconds.
pub fn renewal_in(remaining: i64, lifetime: i64, unit: f64) -> Duration {
    let threshold = lifetime.max(0) as f64 / 2.0 * (1.0 + JITTER * (2.0 * unit - 1.0));
    let wait = (remaining as f64 - threshold).max(0.0);
    Duration::from_secs_f64(wait).max(SHORTEST_WAIT)
}

/// When a certificate that ends at `end`, by the agent's own clock, and had `lifetime` seconds is to be replaced whatever the
/// monotonic clock says: it stands still while a device sleeps. Two fifths of the life are left then, less than after any jitter.
pub fn overdue(end: i64, lifetime: i64) -> i64 {
    end.saturating_sub(lifetime.max(0) / 5 * 2)
}

/// How long until something is [`overdue`] at `at`; never, if it was replaced by a pause ([`i64::MAX`]).
pub fn overdue_in(at: i64, moment: &Moment) -> Option<Duration> {
    (at < i64::MAX).then(|| seconds(at.saturating_sub(moment.own())))
}

/// How long until now lies outside of a chain's `span`, or in its last part, as far as this device knows, if another was last `asked` for
/// then: what came of it is not asked for again at once.
pub fn out_of_time_in(span: Span, asked: Option<Instant>, now: Instant, moment: &Moment) -> Duration {
    let since = asked.map_or(REFUSED_PAUSE, |asked| now.saturating_duration_since(asked));
    seconds(moment.out_of_time_in(span)).max(REFUSED_PAUSE.saturating_sub(since))
}

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(seconds.try_into().unwrap_or(0))
}

/// By how much an SVID of `lifetime` seconds may be replaced before it is due, so that it is signed together with others: what
/// is due before the `next` time that something is signed, but never more than an eighth of its life.
pub fn brought_forward(lifetime: i64, next: Duration) -> Duration {
    next.min(Duration::from_secs_f64(lifetime.max(0) as f64 / 8.0))
}

/// Full-jitter back-off after `failures` in a row: anything from nothing to `base * 2^failures`, at most `cap`.
/// Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
pub fn backoff(failures: u32, base: Duration, cap: Duration, unit: f64) -> Duration {
    //= FLT-A4 agent faults: "after pauses that are random and bounded"
    let doubled = base.saturating_mul(1 << failures.min(MAX_DOUBLINGS));
    //= FLT-A5 agent faults: "each waits a random part of its pause"
    doubled.min(cap).mul_f64(unit.clamp(0.0, 1.0))
}

/// The pause after a failure when something that is being served ends in `remaining`: a quarter of that, unless the
/// back-off is shorter. So the last attempts before the end come closer together, but never faster than once a second.
pub fn before_the_end(backoff: Duration, remaining: Option<Duration>) -> Duration {
    match remaining {
        Some(remaining) if !remaining.is_zero() => backoff.min((remaining / 4).max(Duration::from_secs(1))),
        _ => backoff,
    }
}

/// The pause between two syncs: `configured`, or a quarter of the shortest lifetime served if that is shorter, but at
/// least a second; plus or minus 10 %.
pub fn poll_in(configured: Duration, shortest_lifetime: Option<Duration>, unit: f64) -> Duration {
    let needed = shortest_lifetime.map_or(configured, |lifetime| (lifetime / 4).max(Duration::from_secs(1)));
    configured.min(needed).mul_f64(1.0 + JITTER * (2.0 * unit - 1.0))
}

/// `pause`, or less if `max_age` (identities that no server has confirmed for that long are withdrawn) leaves no room for it.
pub fn within_age(pause: Duration, max_age: Option<Duration>) -> Duration {
    max_age.map_or(pause, |age| pause.min(age / CONFIRMATIONS))
}

/// A number from 0 to 1, for the functions above.
pub fn unit() -> f64 {
    let mut bytes = [0; 4];
    // Without randomness everybody waits for half of the longest pause: later than best, not wrong.
    match SystemRandom::new().fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 0.5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn rotation_is_due_at_half_life_give_or_take_a_tenth() {
        assert_eq!(renewal_in(3600, 3600, 0.5), 1800 * SECOND);
        assert_eq!(renewal_in(3600, 3600, 0.0), 1980 * SECOND);
        assert_eq!(renewal_in(3600, 3600, 1.0), 1620 * SECOND);
        assert_eq!(renewal_in(1700, 3600, 0.5), SHORTEST_WAIT, "overdue");
        assert_eq!(renewal_in(-5, 3600, 0.5), SHORTEST_WAIT, "expired");
        assert_eq!(renewal_in(10, 10, 0.5), 5 * SECOND);
        assert_eq!(renewal_in(1, 1, 0.5), SHORTEST_WAIT);
    }

    #[test]
    fn what_was_slept_over_is_overdue() {
        assert_eq!(overdue(10_000, 1000), 9_600);
        assert_eq!(overdue(10_000, -5), 10_000);
        let latest = renewal_in(1000, 1000, 0.0).as_secs();
        assert!(9_000 + latest < 9_600, "never before its time");
    }

    #[test]
    fn what_is_due_before_the_next_poll_is_brought_forward_but_not_by_more_than_an_eighth_of_its_life() {
        assert_eq!(brought_forward(3600, 5 * SECOND), 5 * SECOND);
        assert_eq!(brought_forward(3600, 600 * SECOND), 450 * SECOND);
        assert_eq!(brought_forward(4, 5 * SECOND), Duration::from_millis(500));
        assert_eq!(brought_forward(-4, 5 * SECOND), Duration::ZERO);
    }

    //= FLT-A4 FLT-A5
    #[test]
    fn backoff_spreads_over_the_whole_pause_and_is_capped() {
        let cap = 60 * SECOND;
        assert_eq!(backoff(0, SECOND, cap, 1.0), SECOND);
        assert_eq!(backoff(3, SECOND, cap, 1.0), 8 * SECOND);
        assert_eq!(backoff(3, SECOND, cap, 0.25), 2 * SECOND);
        assert_eq!(backoff(9, SECOND, cap, 1.0), cap);
        assert_eq!(backoff(u32::MAX, SECOND, cap, 1.0), cap);
        assert_eq!(backoff(9, SECOND, cap, 0.0), Duration::ZERO);
    }

    #[test]
    fn attempts_come_closer_together_before_the_end() {
        assert_eq!(before_the_end(60 * SECOND, Some(3600 * SECOND)), 60 * SECOND);
        assert_eq!(before_the_end(60 * SECOND, Some(40 * SECOND)), 10 * SECOND);
        assert_eq!(before_the_end(60 * SECOND, Some(2 * SECOND)), SECOND);
        assert_eq!(before_the_end(60 * SECOND, Some(Duration::ZERO)), 60 * SECOND, "nothing left to save");
        assert_eq!(before_the_end(60 * SECOND, None), 60 * SECOND);
    }

    #[test]
    fn short_lives_are_polled_often_enough() {
        assert_eq!(poll_in(5 * SECOND, None, 0.5), 5 * SECOND);
        assert_eq!(poll_in(5 * SECOND, Some(3600 * SECOND), 0.5), 5 * SECOND);
        assert_eq!(poll_in(600 * SECOND, Some(3600 * SECOND), 0.5), 600 * SECOND);
        assert_eq!(poll_in(5 * SECOND, Some(10 * SECOND), 0.5), Duration::from_millis(2500));
        assert_eq!(poll_in(5 * SECOND, Some(SECOND), 0.5), SECOND);
        assert_eq!(poll_in(5 * SECOND, None, 1.0), Duration::from_millis(5500));
    }

    #[test]
    fn units_differ() {
        let drawn: Vec<f64> = (0..8).map(|_| unit()).collect();
        assert!(drawn.iter().all(|u| (0.0..=1.0).contains(u)));
        assert!(drawn.iter().any(|u| *u != drawn[0]));
    }
}
