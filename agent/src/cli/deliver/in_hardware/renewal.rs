//! When the next certificate is made: by the clock that nobody sets, and by this machine's, which goes on while it sleeps.

use std::time::{Duration, Instant};

/// From which to which part of a certificate's life the next one is made, drawn each time: a fleet's renewals do not come at once.
const RENEWED_FROM: f64 = 0.45;
const RENEWED_WITHIN: f64 = 0.1;
/// A certificate that came just now is not replaced sooner, whatever this machine's clock says of it.
const SHORTEST_LIFE: Duration = Duration::from_secs(1);

/// What both clocks show.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    /// It stands still while the machine sleeps.
    pub(super) monotonic: Instant,
    /// UNIX seconds. Anybody may set it.
    pub(super) wall: i64,
}

/// Whichever comes first: a clock that is behind makes nobody wait longer, and over a sleep nobody waits as if there had been none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Renewal {
    monotonic: Instant,
    wall: i64,
}

impl Renewal {
    /// Of a certificate that came just now and lasts from `begin` to `end`: about at half of what is left of it, and not counted from its
    /// beginning, which servers date back. `unit`: drawn, from 0 to 1.
    pub(super) fn of_new((begin, end): (i64, i64), now: Now, unit: f64) -> Self {
        let left = end.saturating_sub(now.wall.max(begin)).max(0) as f64;
        Self::after(Duration::from_secs_f64(left * part(unit)).max(SHORTEST_LIFE), begin, now)
    }

    /// The same of one that an earlier run had: about at half of its life.
    pub(super) fn of_kept((begin, end): (i64, i64), now: Now, unit: f64) -> Self {
        let at = end.saturating_sub(begin).max(0) as f64 * part(unit);
        let wait = (at - now.wall.saturating_sub(begin) as f64).clamp(0.0, at);
        Self::after(Duration::from_secs_f64(wait), begin, now)
    }

    /// No certificate begins after it was signed: a clock that shows less is behind.
    fn after(wait: Duration, begin: i64, now: Now) -> Self {
        let seconds = i64::try_from(wait.as_secs()).unwrap_or(i64::MAX);
        Self { monotonic: now.monotonic + wait, wall: now.wall.max(begin).saturating_add(seconds) }
    }

    /// How long until then.
    pub(super) fn rest(&self, now: Now) -> Duration {
        let by_wall = u64::try_from(self.wall.saturating_sub(now.wall)).unwrap_or(0);
        self.monotonic.saturating_duration_since(now.monotonic).min(Duration::from_secs(by_wall))
    }
}

fn part(unit: f64) -> f64 {
    RENEWED_FROM + RENEWED_WITHIN * unit
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3600;

    fn at(wall: i64) -> Now {
        Now { monotonic: Instant::now(), wall }
    }

    /// After so many seconds awake, and as many as `wall` says by this machine's clock.
    fn later(then: Now, awake: u64, wall: i64) -> Now {
        Now { monotonic: then.monotonic + Duration::from_secs(awake), wall }
    }

    #[test]
    fn a_certificate_of_an_earlier_run_is_replaced_at_about_half_of_its_life_whatever_the_clock_says() {
        let seconds = |wall: i64, unit: f64| {
            let now = at(wall);
            Renewal::of_kept((1000, 2000), now, unit).rest(now).as_secs_f64().round()
        };
        assert_eq!([seconds(1000, 0.5), seconds(1000, 0.0), seconds(1000, 1.0)], [500.0, 450.0, 550.0]);
        assert_eq!([seconds(1400, 0.5), seconds(1500, 0.5), seconds(9999, 0.5)], [100.0, 0.0, 0.0]);
        assert_eq!(seconds(0, 0.5), 500.0, "a clock that is behind makes nobody wait longer");
        let now = at(1500);
        assert_eq!(Renewal::of_kept((2000, 1000), now, 0.5).rest(now), Duration::ZERO, "never valid");
    }

    #[test]
    fn a_renewal_is_due_by_whichever_clock_comes_first() {
        let then = at(100_000);
        let renewal = Renewal::of_new((100_000, 100_000 + HOUR), then, 0.5);
        let rest = |awake, wall| renewal.rest(later(then, awake, wall)).as_secs();
        assert_eq!(rest(0, 100_000), 1800);
        assert_eq!(rest(600, 100_600), 1200, "both go on");
        assert_eq!(rest(600, 101_500), 300, "asleep for a while");
        assert_eq!(rest(1, 200_000), 0, "asleep for a day, or set right: it has ended");
        assert_eq!(rest(1900, 0), 0, "set back");
    }

    #[test]
    fn a_clock_that_is_years_behind_lets_no_certificate_run_out() {
        for renewal in [Renewal::of_new, Renewal::of_kept] {
            let then = at(5);
            let renewal = renewal((1_800_000_000, 1_800_000_000 + HOUR), then, 0.5);
            assert_eq!(renewal.rest(then).as_secs(), 1800);
            assert_eq!(renewal.rest(later(then, 10, 1_800_000_000 + 10)).as_secs(), 1790, "set right");
            assert_eq!(
                renewal.rest(later(then, 10, 1_800_000_000 + HOUR)),
                Duration::ZERO,
                "set right, and it has ended"
            );
            assert_eq!(renewal.rest(later(then, 1800, 1805)), Duration::ZERO, "still behind");
        }
    }

    #[test]
    fn one_that_comes_in_its_last_moment_is_not_replaced_at_once_again_and_again() {
        let then = at(5000);
        assert_eq!(Renewal::of_new((1000, 5000), then, 0.5).rest(then), Duration::from_secs(1));
    }
}
