//! A chip that was proven, with a clock or counters older than those it had shown before: it was copied, set back or cleared.
//!
//! Alone it is no proof of a copy. It is kept with the device, over restarts, until the chip attests again: a clock that is then
//! further ahead than time alone can bring it is another chip's.

use std::time::Duration;

use ironroot_attest::node::tpm2::ClockReading;

use super::Sighting;

/// What a chip that contradicted itself said, when and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// UNIX seconds.
    pub at_unix: i64,
    /// The address that it was proven at.
    pub address: String,
    /// What it said.
    pub clock: ClockReading,
}

impl Contradiction {
    /// Whether `later`, said at `now_unix`, is another chip's word.
    pub fn is_anothers(&self, later: &ClockReading, now_unix: i64) -> bool {
        // The server's clock was set back: nobody knows how much time has passed.
        let Ok(elapsed) = u64::try_from(now_unix.saturating_sub(self.at_unix)) else { return false };
        !later.is_within_reach_of(&self.clock, Duration::from_secs(elapsed))
    }

    /// As it stands in the reasons for a ban.
    pub fn sighting(&self) -> Sighting {
        Sighting {
            at: self.at_unix,
            address: self.address.clone(),
            what: "proved the chip, with counters or a clock older than it had shown before".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(reset_count: u32, clock_ms: u64) -> ClockReading {
        ClockReading { clock_ms, reset_count, restart_count: 0, safe: true }
    }

    #[test]
    fn a_clock_that_got_ahead_of_time_is_another_chips() {
        let seen = Contradiction { at_unix: 1_000, address: String::new(), clock: reading(1, 60_000) };
        let (hour, day) = (3600 * 1000, 24 * 3600 * 1000);
        assert!(seen.is_anothers(&reading(4, 60_000 + day), 1_000 + 3600), "a day ahead after an hour");
        assert!(
            !seen.is_anothers(&reading(4, 60_000 + hour), 1_000 + 3600),
            "set back, and started often enough since"
        );
        assert!(!seen.is_anothers(&reading(4, 0), 1_000 + 3600), "cleared");
        assert!(!seen.is_anothers(&reading(4, day), 999), "the server's clock was set back");
    }
}
