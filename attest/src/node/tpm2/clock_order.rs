//! Readings of one TPM come one after the other, which a clone or a rolled back chip cannot keep up.

use std::cmp::Ordering;

use super::clock::{ClockReading, MAX_CLOCK_REGRESS_MS};
use crate::node::Refusal;

impl ClockReading {
    /// Refuses a reading that cannot come after `earlier` on one and the same TPM: a counter went back, or, with equal
    /// counters, the clock went back further than an unorderly stop explains.
    pub fn check_follows(&self, earlier: &ClockReading) -> Result<(), Refusal> {
        //= TPM-18 TPM 2.0 Part 2, TPMS_CLOCK_INFO: "clock and counters go on and never back"
        match (self.reset_count.cmp(&earlier.reset_count), self.restart_count.cmp(&earlier.restart_count)) {
            (Ordering::Less, _) => Err(Refusal::ResetCountWentBack { seen: *earlier, now: *self }),
            (Ordering::Equal, Ordering::Less) => Err(Refusal::RestartCountWentBack { seen: *earlier, now: *self }),
            (Ordering::Equal, Ordering::Equal) if self.is_further_back_than_a_stop_explains(earlier) => {
                Err(Refusal::ClockWentBack { seen: *earlier, now: *self })
            }
            _ => Ok(()),
        }
    }

    fn is_further_back_than_a_stop_explains(&self, earlier: &ClockReading) -> bool {
        self.clock_ms.saturating_add(MAX_CLOCK_REGRESS_MS) < earlier.clock_ms
    }
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
}
