//! Whether the next authority can be made, told while the one that signs still lives.

use ironroot_shell::logging::utc;

/// Failures in a row after which the server is not ready: one may be a token that is just being restarted.
const FAILURES: u32 = 3;

/// Steps of the rotation that failed in a row.
#[derive(Debug, Default)]
pub(super) struct RotationHealth {
    failures: u32,
    since_unix: i64,
    why: String,
}

impl RotationHealth {
    /// A step was done, or there was none to do.
    pub(super) fn worked(&mut self) {
        *self = Self::default();
    }

    /// A step failed at `now_unix`. Returns how loudly to say so.
    pub(super) fn failed(&mut self, why: String, now_unix: i64) -> Loudness {
        if self.failures == 0 {
            self.since_unix = now_unix;
        }
        self.failures = self.failures.saturating_add(1);
        self.why = why;
        match self.failures {
            1 => Loudness::Once,
            n if n >= FAILURES && n.is_multiple_of(FAILURES) && (n / FAILURES).is_power_of_two() => Loudness::Critical,
            _ => Loudness::Silent,
        }
    }

    /// Why the CA that ends at `not_after_unix` may have no successor; none if nothing speaks against one.
    pub(super) fn trouble(&self, not_after_unix: i64) -> Option<String> {
        (self.failures >= FAILURES).then(|| {
            format!(
                "the CA rotation has failed {} times since {} ({}); the CA ends at {}, and every identity with it",
                self.failures,
                utc(self.since_unix),
                self.why,
                utc(not_after_unix)
            )
        })
    }
}

/// How loudly a failure is told. The same failure comes every few seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loudness {
    /// It is in the log already.
    Silent,
    /// The first.
    Once,
    /// Somebody must act: after 3 failures, 6, 12 and so on.
    Critical,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotation_that_keeps_failing_is_told_before_the_ca_ends_and_ever_less_often() {
        let mut health = RotationHealth::default();
        let told: Vec<Loudness> = (0..13).map(|n| health.failed("why".to_owned(), 1_800_000_000 + 2 * n)).collect();
        let critical: Vec<usize> = (1..=13).filter(|n| told[n - 1] == Loudness::Critical).collect();
        assert_eq!((told[0], critical), (Loudness::Once, vec![3, 6, 12]));
        let expected = "the CA rotation has failed 13 times since 2027-01-15T08:00:00Z (why); the CA ends at \
                        2027-01-15T09:00:00Z, and every identity with it";
        assert_eq!(health.trouble(1_800_003_600).as_deref(), Some(expected));
        health.worked();
        assert_eq!(health.trouble(1_800_003_600), None);
        for _ in 0..FAILURES - 1 {
            health.failed("why".to_owned(), 0);
        }
        assert_eq!(health.trouble(0), None, "one or two may be a token that is being restarted");
    }
}
