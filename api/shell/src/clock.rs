//! The kernel's clocks, read. Whoever decides by one takes the time as an argument.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// Names the time since the machine started; another after each start. Source: random(4).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The wall clock, UNIX seconds. Anybody may have set it, or nobody.
pub fn wall_unix() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    i64::try_from(since).unwrap_or(i64::MAX)
}

/// Seconds since this boot, sleep included (CLOCK_BOOTTIME). Nobody can set it.
pub fn boot_seconds() -> i64 {
    // A kernel without CLOCK_BOOTTIME is older than any that runs this: zero would only stop time, not the process.
    let since = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |at| Duration::from(at).as_secs());
    i64::try_from(since).unwrap_or(i64::MAX)
}

/// The kernel's name for this boot; none without procfs.
pub fn boot_id() -> Option<String> {
    std::fs::read_to_string(BOOT_ID).map(|id| id.trim().to_owned()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elapsed_time_only_grows_and_the_boot_has_one_name() {
        let first = boot_seconds();
        assert!(first > 0 && boot_seconds() >= first);
        assert!(boot_id().is_some_and(|id| !id.is_empty()) && boot_id() == boot_id());
    }
}
