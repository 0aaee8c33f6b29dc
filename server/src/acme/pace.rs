//! When a certificate is asked for. Pure: its life, failures and chance in, a moment or a pause out.

use std::time::Duration;

/// A certificate is renewed when this part of its life is left, as CAs recommend for short and long ones.
const LEFT: i64 = 3;
/// What chance takes off that at the most: servers of one day's installation do not come together.
const JITTER: f64 = 0.1;
/// First pause after a CA was not reached (or did not know us), and the longest.
const UNREACHED: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(3600));
/// First pause after a CA refused, and the longest: CAs count failed orders (Let's Encrypt: five of a name an hour).
const REFUSED: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(6 * 3600));
/// Failures in a row after which pauses no longer double.
const MAX_DOUBLINGS: u32 = 12;

/// When a certificate of that life is to be renewed, UNIX seconds. `unit` is chance, from 0 to 1.
pub(super) fn renewal_unix(not_before: i64, not_after: i64, unit: f64) -> i64 {
    let left = not_after.saturating_sub(not_before).max(0) / LEFT;
    #[expect(clippy::cast_possible_truncation, reason = "a tenth of what fits")]
    let earlier = (left as f64 * JITTER * unit.clamp(0.0, 1.0)) as i64;
    not_after.saturating_sub(left).saturating_sub(earlier)
}

/// The pause after `failures` in a row, the first of them included.
pub(super) fn pause(failures: u32, unreached: bool, unit: f64) -> Duration {
    let (first, longest) = if unreached { UNREACHED } else { REFUSED };
    let pause = first.saturating_mul(1 << failures.saturating_sub(1).min(MAX_DOUBLINGS)).min(longest);
    pause.mul_f64(1.0 - JITTER * unit.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;

    #[test]
    fn a_certificate_is_renewed_when_a_third_of_its_life_is_left() {
        assert_eq!(renewal_unix(0, 90 * DAY, 0.0), 60 * DAY);
        assert_eq!(renewal_unix(0, 90 * DAY, 1.0), 57 * DAY);
        assert_eq!(renewal_unix(0, 6 * DAY, 0.0), 4 * DAY);
        assert_eq!(renewal_unix(100, 0, 1.0), 0, "one that ends before it begins is renewed at once");
        assert!(renewal_unix(i64::MIN, i64::MAX, 1.0) < i64::MAX);
    }

    #[test]
    fn pauses_double_up_to_a_bound_and_are_longer_where_the_ca_counts() {
        let pauses = |unreached| (1..6).map(|n| pause(n, unreached, 0.0).as_secs()).collect::<Vec<_>>();
        assert_eq!(pauses(true), [5, 10, 20, 40, 80]);
        assert_eq!(pauses(false), [60, 120, 240, 480, 960]);
        assert_eq!(pause(u32::MAX, true, 0.0), UNREACHED.1);
        assert_eq!(pause(u32::MAX, false, 0.0), REFUSED.1);
        assert_eq!(pause(1, false, 1.0), Duration::from_secs(54));
    }
}
