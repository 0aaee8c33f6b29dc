//! Sleeps of the device. Over them its timers stand still, while servers give up its connections and routers forget them: what the
//! schedule says after a sleep is of before it, and so is the connection.

use std::time::{Duration, Instant};

use ironroot_shell::clock::boot_seconds;

/// After a sleep as long as this nothing is waited for on connections of before it: the server has given them up by then.
const LONG: Duration = Duration::from_secs(60);

/// When the loop was last awake, by the clock that stands still over a sleep (CLOCK_MONOTONIC) and by the one that does not (CLOCK_BOOTTIME).
#[derive(Clone, Copy, Debug)]
pub(super) struct Awake {
    at: Instant,
    boot: i64,
}

impl Awake {
    /// Now.
    pub fn now() -> Self {
        Self { at: Instant::now(), boot: boot_seconds() }
    }

    /// For how long the device has slept since, if that is long. The next question is about the time from now on.
    pub fn long_sleep(&mut self) -> Option<Duration> {
        let before = std::mem::replace(self, Self::now());
        Some(before.sleep_until(self)).filter(|slept| *slept >= LONG)
    }

    fn sleep_until(&self, later: &Self) -> Duration {
        let in_all = u64::try_from(later.boot.saturating_sub(self.boot)).unwrap_or(0);
        Duration::from_secs(in_all).saturating_sub(later.at.saturating_duration_since(self.at))
    }

    /// As if the device had slept from then until now.
    #[cfg(test)]
    pub fn before_a_sleep_of(seconds: i64) -> Self {
        let now = Self::now();
        Self { boot: now.boot - seconds, ..now }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleep_is_what_one_clock_counts_and_the_other_does_not() {
        let then = Awake { at: Instant::now(), boot: 1_000 };
        let after = |boot: i64, awake: u64| {
            then.sleep_until(&Awake { at: then.at + Duration::from_secs(awake), boot: 1_000 + boot })
        };
        assert_eq!(after(500, 500), Duration::ZERO);
        assert_eq!(after(500, 100), Duration::from_secs(400));
        // The boot's clock is read in whole seconds.
        assert_eq!(after(499, 500), Duration::ZERO);
        assert_eq!(after(-1, 0), Duration::ZERO);
    }

    #[test]
    fn a_long_sleep_is_told_once() {
        let mut awake = Awake::before_a_sleep_of(LONG.as_secs().cast_signed() + 1);
        assert!(awake.long_sleep().is_some());
        assert_eq!(awake.long_sleep(), None);
        assert_eq!(Awake::before_a_sleep_of(LONG.as_secs().cast_signed() - 2).long_sleep(), None);
    }
}
