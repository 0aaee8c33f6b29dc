//! The device's clocks, read. Everything else about time is pure.

use ironroot_shell::clock;

pub use ironroot_api::utc;
pub use ironroot_shell::clock::wall_unix as system_unix;

use super::record::TpmClock;

/// What the clocks show at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reading {
    /// Seconds since this boot, sleep included (CLOCK_BOOTTIME). Nobody can set it.
    pub boot: i64,
    /// The kernel's clock, UNIX seconds. Anybody may have set it, or nobody.
    pub kernel: i64,
}

impl Reading {
    /// Reads both.
    pub fn now() -> Self {
        Self { boot: clock::boot_seconds(), kernel: system_unix() }
    }
}

/// What is read when an earlier run's record is taken up, beside the [`Reading`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Restart {
    /// The TPM's clock, if it was read.
    pub tpm_clock: Option<TpmClock>,
    /// The kernel's name for this boot; empty if it has none.
    pub boot_id: String,
}

/// The kernel's name for this boot; empty without procfs.
pub fn boot_id() -> String {
    clock::boot_id().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elapsed_time_only_grows() {
        let (first, second) = (Reading::now(), Reading::now());
        assert!(first.boot > 0 && second.boot >= first.boot);
    }

    #[test]
    fn a_boot_has_the_name_that_the_kernel_gives_it() {
        let name = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("procfs");
        assert_eq!(boot_id(), name.trim());
    }
}
