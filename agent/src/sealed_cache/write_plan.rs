//! When to write the cache, and when to raise the TPM's counter. Pure.
//!
//! Flash and the chip's NV memory wear. A write waits until [`COALESCE`] after the one before, unless it must not be lost
//! (the agent's own certificate: the server accepts only the newest). The counter makes every older file worthless; it is
//! raised only when the change must not be undone by putting an old file back (entries, bundle), and at most once per
//! [`COUNTER_INTERVAL`]: 88,000 times in ten years, where data sheets promise 100,000 to 500,000.

use std::time::Duration;

/// Least time between two writes.
pub const COALESCE: Duration = Duration::from_secs(60);
/// Least time between two increments of the counter.
pub const COUNTER_INTERVAL: Duration = Duration::from_secs(3600);

/// What has changed since the last write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Anything at all.
    pub any: bool,
    /// The agent's own certificate.
    pub must_not_be_lost: bool,
    /// Entries or authorities: what an old file would bring back.
    pub must_not_be_undone: bool,
}

/// What was done, by the monotonic clock: time since.
#[derive(Clone, Copy, Debug, Default)]
pub struct History {
    /// Since the last write of this run.
    pub since_write: Option<Duration>,
    /// Since the last increment of this run.
    pub since_increment: Option<Duration>,
    /// A change that must not be undone was written under the counter's old value.
    pub increment_owed: bool,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WritePlan {
    /// Nothing, now or later.
    Idle,
    /// Ask again after this time.
    Wait(Duration),
    /// Write under the counter's current value.
    Write,
    /// Write under the next value, then increment the counter.
    WriteAndIncrement,
}

/// Decides.
pub fn plan(changes: Changes, history: History) -> WritePlan {
    let increment_wanted = changes.must_not_be_undone || history.increment_owed;
    let increment_in = remaining(history.since_increment, COUNTER_INTERVAL);
    let write_in = if changes.must_not_be_lost { Duration::ZERO } else { remaining(history.since_write, COALESCE) };
    if increment_wanted && increment_in.is_zero() && write_in.is_zero() {
        return WritePlan::WriteAndIncrement;
    }
    match (changes.any, increment_wanted) {
        (true, _) if write_in.is_zero() => WritePlan::Write,
        (true, _) => WritePlan::Wait(write_in),
        (false, true) => WritePlan::Wait(increment_in.max(write_in)),
        (false, false) => WritePlan::Idle,
    }
}

fn remaining(since: Option<Duration>, interval: Duration) -> Duration {
    since.map_or(Duration::ZERO, |since| interval.saturating_sub(since))
}

/// Whether a file of generation `file` may be believed while the chip's counter is at `counter`. One ahead is what a power
/// cut between writing and incrementing leaves.
pub fn is_current(file: u64, counter: u64) -> bool {
    file == counter || Some(file) == counter.checked_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: Changes = Changes { any: true, must_not_be_lost: false, must_not_be_undone: false };
    const SVID: Changes = Changes { any: true, must_not_be_lost: true, must_not_be_undone: false };
    const ENTRIES: Changes = Changes { any: true, must_not_be_lost: false, must_not_be_undone: true };

    fn history(write: u64, increment: u64, increment_owed: bool) -> History {
        let since = |s: u64| Some(Duration::from_secs(s));
        History { since_write: since(write), since_increment: since(increment), increment_owed }
    }

    #[test]
    fn writes_are_coalesced_unless_they_must_not_be_lost() {
        let seconds = Duration::from_secs;
        for (changes, history, expected) in [
            (Changes::default(), History::default(), WritePlan::Idle),
            (ANY, History::default(), WritePlan::Write),
            (ANY, history(59, 59, false), WritePlan::Wait(seconds(1))),
            (ANY, history(60, 60, false), WritePlan::Write),
            (SVID, history(0, 0, false), WritePlan::Write),
        ] {
            assert_eq!(plan(changes, history), expected, "{changes:?} {history:?}");
        }
    }

    #[test]
    fn counter_is_raised_at_most_hourly_and_never_forgotten() {
        for (changes, history, expected) in [
            (ENTRIES, History::default(), WritePlan::WriteAndIncrement),
            (ENTRIES, history(60, 3600, false), WritePlan::WriteAndIncrement),
            (ENTRIES, history(60, 3599, false), WritePlan::Write),
            (Changes::default(), history(60, 3590, true), WritePlan::Wait(Duration::from_secs(10))),
            (Changes::default(), history(60, 3600, true), WritePlan::WriteAndIncrement),
            (ANY, history(10, 3600, true), WritePlan::Wait(Duration::from_secs(50))),
            (ANY, history(60, 3600, false), WritePlan::Write),
        ] {
            assert_eq!(plan(changes, history), expected, "{changes:?} {history:?}");
        }
    }

    #[test]
    fn a_power_cut_between_write_and_increment_loses_nothing() {
        let counter = 7;
        assert!(is_current(7, counter), "before the write");
        assert!(is_current(8, counter), "written, not incremented");
        assert!(is_current(8, counter + 1), "incremented");
        assert!(!is_current(7, counter + 1), "the older file is worthless from then on");
        assert!(!is_current(9, counter) && !is_current(u64::MAX, 0) && !is_current(0, u64::MAX));
    }
}
