//! The device's clocks, read. Everything else about time is pure.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

pub use ironroot_shell::logging::utc;

use super::record::TpmClock;

/// What the clocks show at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Seconds since this boot, sleep included (CLOCK_BOOTTIME). Nobody can set it.
    pub boot: i64,
    /// The kernel's clock, UNIX seconds. Anybody may have set it, or nobody.
    pub kernel: i64,
}

impl Reading {
    /// Reads both.
    pub fn now() -> Self {
        // A kernel without CLOCK_BOOTTIME is older than any that runs this: zero would only stop time, not the agent.
        let boot = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |at| at.tv_sec());
        Self { boot, kernel: system_unix() }
    }
}

/// The system clock, UNIX seconds.
pub fn system_unix() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX)
}

/// What is read when an earlier run's record is taken up, beside the [`Reading`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restart {
    /// The TPM's clock, if it was read.
    pub tpm_clock: Option<TpmClock>,
    /// The kernel's name for this boot; empty if it has none.
    pub boot_id: String,
}

/// The kernel's name for this boot; empty without procfs.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elapsed_time_only_grows() {
        let (first, second) = (Reading::now(), Reading::now());
        assert!(first.boot > 0 && second.boot >= first.boot);
    }
}
