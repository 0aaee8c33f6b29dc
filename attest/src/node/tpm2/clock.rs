//! The TPM's clock and counters.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How far the clock may go back without suspicion, ms. A TPM saves its clock at least this often (2^22 ms, Part 1 §36.3)
/// and after an unorderly stop it may resume from the value saved last.
pub(super) const MAX_CLOCK_REGRESS_MS: u64 = 1 << 22;

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
    /// Whether a chip that said `earlier` can say this `elapsed` later. Its clock stands still while it is off and runs by at
    /// most 15 % too fast (Part 1 §36.6); only its owner could set it forward.
    pub fn is_within_reach_of(&self, earlier: &ClockReading, elapsed: Duration) -> bool {
        let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let furthest = elapsed_ms.saturating_add(elapsed_ms / 4).saturating_add(MAX_CLOCK_REGRESS_MS);
        self.clock_ms <= earlier.clock_ms.saturating_add(furthest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(reset_count: u32, restart_count: u32, clock_ms: u64) -> ClockReading {
        ClockReading { clock_ms, reset_count, restart_count, safe: true }
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
