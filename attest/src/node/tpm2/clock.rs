//! The TPM's clock and counters, which a clone or a rolled back chip cannot keep consistent.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::node::Refusal;

/// How far the clock may go back without suspicion, ms. A TPM saves its clock at least this often (2^22 ms, Part 1 §36.3)
/// and after an unorderly stop it may resume from the value saved last.
const MAX_CLOCK_REGRESS_MS: u64 = 1 << 22;

/// Clock and counters as one attestation reported them (TPMS_CLOCK_INFO, Part 2 §10.11.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClockReading {
    /// Milliseconds the TPM has been powered, over all its life or since it was last cleared.
    pub clock_ms: u64,
    /// TPM resets (power cycles) since the TPM was last cleared.
    pub reset_count: u32,
    /// Restarts and resumes since the last reset.
    pub restart_count: u32,
    /// Whether no greater clock value may have been reported before.
    pub safe: bool,
}

impl ClockReading {
    /// Refuses a reading that cannot come after `earlier` on one and the same TPM: a counter went back, or, with equal
    /// counters, the clock went back further than an unorderly stop explains.
    pub fn check_follows(&self, earlier: &ClockReading) -> Result<(), Refusal> {
        //= TPM-18 TPM 2.0 Part 2, TPMS_CLOCK_INFO: "clock and counters go on and never back"
        if self.reset_count != earlier.reset_count {
            return refuse_unless(
                self.reset_count > earlier.reset_count,
                Refusal::ResetCountWentBack { seen: *earlier, now: *self },
            );
        }
        if self.restart_count != earlier.restart_count {
            return refuse_unless(
                self.restart_count > earlier.restart_count,
                Refusal::RestartCountWentBack { seen: *earlier, now: *self },
            );
        }
        refuse_unless(
            self.clock_ms.saturating_add(MAX_CLOCK_REGRESS_MS) >= earlier.clock_ms,
            Refusal::ClockWentBack { seen: *earlier, now: *self },
        )
    }

    /// Whether a chip that said `earlier` can say this `elapsed` later. Its clock stands still while it is off and runs by at
    /// most 15 % too fast (Part 1 §36.6); only its owner could set it forward.
    pub fn is_within_reach_of(&self, earlier: &ClockReading, elapsed: Duration) -> bool {
        let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let furthest = elapsed_ms.saturating_add(elapsed_ms / 4).saturating_add(MAX_CLOCK_REGRESS_MS);
        self.clock_ms <= earlier.clock_ms.saturating_add(furthest)
    }
}

fn refuse_unless(holds: bool, refusal: Refusal) -> Result<(), Refusal> {
    if holds { Ok(()) } else { Err(refusal) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(reset_count: u32, restart_count: u32, clock_ms: u64) -> ClockReading {
        ClockReading { clock_ms, reset_count, restart_count, safe: true }
    }

    //= TPM-18
    #[test]
    fn time_and_counters_may_only_go_forward() {
        let seen = reading(5, 2, 10_000_000);
        for follows in [
            reading(5, 2, 10_000_000),
            reading(5, 2, 99_000_000),
            reading(5, 3, 10_000_000),
            reading(6, 0, 10_000_000),
            // A reset chip may resume from the clock value it saved last.
            reading(6, 0, 9_999_999),
            reading(5, 2, 10_000_000 - MAX_CLOCK_REGRESS_MS),
        ] {
            assert_eq!(follows.check_follows(&seen), Ok(()), "{follows:?}");
        }
        let refused = [
            Refusal::ResetCountWentBack { seen, now: reading(4, 9, 99_000_000) },
            Refusal::RestartCountWentBack { seen, now: reading(5, 1, 99_000_000) },
            Refusal::ClockWentBack { seen, now: reading(5, 2, 10_000_000 - MAX_CLOCK_REGRESS_MS - 1) },
        ];
        for refusal in refused {
            let now = refusal.contradicting_clock().expect("the reading that is refused");
            assert_eq!(now.check_follows(&seen), Err(refusal));
        }
    }

    #[test]
    fn one_chip_cannot_get_ahead_of_time() {
        let (hour, then) = (Duration::from_secs(3600), reading(3, 0, 1_000));
        let furthest = 1_000 + 4_500_000 + MAX_CLOCK_REGRESS_MS;
        assert!(reading(9, 0, furthest).is_within_reach_of(&then, hour), "a fast clock, after an unorderly stop");
        assert!(!reading(9, 0, furthest + 1).is_within_reach_of(&then, hour));
        assert!(reading(1, 0, 0).is_within_reach_of(&then, Duration::ZERO), "what is behind says nothing");
        assert!(reading(9, 0, u64::MAX).is_within_reach_of(&then, Duration::MAX));
    }
}
