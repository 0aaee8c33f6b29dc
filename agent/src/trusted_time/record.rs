//! What is known of the time when the power goes: written into the sealed cache, taken up by the next run.

use super::clocks::Restart;

/// The part of a TPM clock's progress that is believed, per 256. A TPM's owner may slow its clock down by up to
/// 32.5 %. Source: TPM 2.0 Library, Part 2, TPM_CLOCK_ADJUST; Part 3, TPM2_ClockRateAdjust.
const TPM_CLOCK_SHARE: u64 = 172;

/// A reading of the TPM's clock, which counts while the chip has power and survives reboots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TpmClock {
    /// Milliseconds powered on since the chip was last cleared.
    pub clock_ms: u64,
    /// TPM resets since the chip was last cleared.
    pub reset_count: u32,
}

/// One moment of one boot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct BootMark {
    /// The kernel's name for the boot.
    pub id: String,
    /// Seconds since it began.
    pub seconds: i64,
}

/// The state of [`Keeper`](super::Keeper) as it outlives the process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TimeRecord {
    /// The confirmed bound: now was at least this, UNIX seconds.
    pub confirmed: i64,
    /// The TPM's clock at that moment, if it was read.
    pub tpm_clock: Option<TpmClock>,
    /// Which moment of which boot that was, if the kernel names its boots.
    pub boot: Option<BootMark>,
    /// What the server's last word amounted to then, UNIX seconds. Nobody confirmed it.
    pub claim: Option<i64>,
    /// What the kernel's clock showed then, if it stood in agreement with the server.
    pub kernel: Option<i64>,
}

impl TimeRecord {
    /// A record of a version that kept one bound for everything. What raised it is not known any more, so it is taken for
    /// a server's claim: devices that such a version has led astray come back by themselves.
    pub fn of_an_unconfirmed_bound(unix: i64, tpm_clock: Option<TpmClock>) -> Self {
        Self { tpm_clock, claim: Some(unix), ..Self::default() }
    }

    /// Whether `restart` goes on with the boot of this record.
    pub fn is_of_this_boot(&self, restart: &Restart) -> bool {
        self.boot.as_ref().is_some_and(|mark| !mark.id.is_empty() && mark.id == restart.boot_id)
    }

    /// The least time that has passed since the record was made, seconds, when `boot` seconds of this boot have passed:
    /// exact within one boot; otherwise this boot's age, or the TPM's progress if that is more. A TPM clock that went back,
    /// or a chip that was cleared (fewer resets), adds nothing.
    pub fn least_elapsed(&self, restart: &Restart, boot: i64) -> i64 {
        match &self.boot {
            Some(mark) if self.is_of_this_boot(restart) => boot.saturating_sub(mark.seconds).max(0),
            // Without a mark it may be of this very boot.
            Some(_) => boot.max(self.tpm_elapsed(restart)),
            None => self.tpm_elapsed(restart),
        }
    }

    fn tpm_elapsed(&self, restart: &Restart) -> i64 {
        let (Some(then), Some(now)) = (self.tpm_clock, restart.tpm_clock) else { return 0 };
        if now.reset_count < then.reset_count {
            return 0;
        }
        let ms = now.clock_ms.saturating_sub(then.clock_ms) / 256 * TPM_CLOCK_SHARE;
        i64::try_from(ms / 1000).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(clock_ms: u64, reset_count: u32) -> Option<TpmClock> {
        Some(TpmClock { clock_ms, reset_count })
    }

    fn restart(tpm_clock: Option<TpmClock>, boot_id: &str) -> Restart {
        Restart { tpm_clock, boot_id: boot_id.to_owned() }
    }

    fn record(tpm_clock: Option<TpmClock>, boot: Option<(&str, i64)>) -> TimeRecord {
        let boot = boot.map(|(id, seconds)| BootMark { id: id.to_owned(), seconds });
        TimeRecord { confirmed: 1_000_000, tpm_clock, boot, ..TimeRecord::default() }
    }

    #[test]
    fn elapsed_time_moves_on_with_the_tpm_clock_and_never_back() {
        let record = record(clock(5_000, 7), None);
        let elapsed = |reading| record.least_elapsed(&restart(reading, ""), 40);
        assert_eq!(elapsed(None), 0);
        assert_eq!(elapsed(clock(5_000, 7)), 0);
        assert_eq!(elapsed(clock(5_000 + 256_000, 9)), 172);
        assert_eq!(elapsed(clock(4_000, 7)), 0, "the clock of an unclean stop may go back");
        assert_eq!(elapsed(clock(256_000_000, 6)), 0, "a cleared chip tells nothing");
        assert!(elapsed(clock(u64::MAX, 7)) > 0, "no overflow");
        assert_eq!(self::record(None, None).least_elapsed(&restart(clock(9_999_999, 0), ""), 40), 0);
    }

    #[test]
    fn within_one_boot_it_is_exact_and_another_boot_gives_at_least_its_age() {
        let record = record(clock(0, 1), Some(("a", 100)));
        assert_eq!(record.least_elapsed(&restart(clock(256_000, 1), "a"), 150), 50);
        assert_eq!(record.least_elapsed(&restart(None, "a"), 20), 0);
        assert_eq!(record.least_elapsed(&restart(None, "b"), 30), 30);
        assert_eq!(record.least_elapsed(&restart(clock(256_000, 2), "b"), 30), 172);
        assert_eq!(self::record(None, Some(("", 5))).least_elapsed(&restart(None, ""), 30), 30, "no name, no match");
    }

    #[test]
    fn what_an_older_version_kept_is_a_claim() {
        let old = TimeRecord::of_an_unconfirmed_bound(77, clock(1, 2));
        assert_eq!((old.confirmed, old.claim, old.kernel), (0, Some(77), None));
        assert_eq!(old.tpm_clock, clock(1, 2));
    }
}
