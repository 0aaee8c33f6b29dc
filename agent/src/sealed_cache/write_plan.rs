//! When to write the cache, and when to raise the TPM's counter. Pure.
//!
//! Flash and the chip's NV memory wear. A device that is being set up may write [`WRITE_BURST`] times at once, so that what
//! it has just learned survives the next power cut; over time a write is due every [`WRITE_INTERVAL`] at most, about a
//! hundred a day. Only what must not be lost never waits (the agent's own certificate: the server accepts only the newest).
//! The counter makes every older file worthless; it is raised only when the change must not be undone by putting an old file
//! back (entries, bundle), and over time at most once per [`COUNTER_INTERVAL`]: 88,000 times in ten years, where data sheets
//! promise 100,000 to 500,000. What an older file would give back to somebody who has lost it (an entry that went, other
//! selectors, an eviction) does not wait for the hour: [`COUNTER_BURST`] such increments may follow each other at once.

use std::time::{Duration, Instant};

/// Writes that may follow each other at once.
pub const WRITE_BURST: u32 = 8;
/// Time after which one more write may follow at once.
pub const WRITE_INTERVAL: Duration = Duration::from_secs(15 * 60);
/// Writes before a key gives way that may follow each other at once: a day's. A server whose CAs last a few seconds cannot wear the flash out.
pub const KEY_WRITE_BURST: u32 = 96;
/// Least time between two increments of the counter.
pub const COUNTER_INTERVAL: Duration = Duration::from_secs(3600);
/// Increments that may follow each other at once when something was taken away. Over time there is one per
/// [`COUNTER_INTERVAL`] all the same: whoever can make entries come and go cannot wear the chip out.
pub const COUNTER_BURST: u32 = 8;

/// What has changed since the last write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Something differs, be it only what is known of the time.
    pub any: bool,
    /// The agent's own certificate.
    pub must_not_be_lost: bool,
    /// Entries or authorities: what an old file would bring back.
    pub must_not_be_undone: bool,
    /// Somebody has lost an identity, which an old file would give back.
    pub removal: bool,
    /// The place of a key that the file names is about to be taken by another, and the file does not name the one that is used.
    pub key_at_stake: bool,
}

/// What was done, by the monotonic clock: time since.
#[derive(Clone, Copy, Debug, Default)]
pub struct History {
    /// How long until all writes of this run would have been a [`WRITE_INTERVAL`] apart.
    pub write_debt: Duration,
    /// How long until all increments of this run would have been a [`COUNTER_INTERVAL`] apart.
    pub increment_debt: Duration,
    /// A change that must not be undone was written under the counter's old value.
    pub increment_owed: bool,
    /// One of those took something away.
    pub removal_owed: bool,
}

/// What this run has done and still owes, by the monotonic clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct Debts {
    /// When all writes so far would have been an interval apart.
    written_until: Option<Instant>,
    /// When all increments so far would have been an interval apart.
    incremented_until: Option<Instant>,
    increment_owed: bool,
    removal_owed: bool,
}

impl Debts {
    /// `changes` were written, and the counter raised or not.
    pub fn kept(&mut self, increment: bool, changes: Changes, now: Instant) {
        self.written_until = Some(self.written_until.unwrap_or(now).max(now) + WRITE_INTERVAL);
        self.increment_owed = !increment && (self.increment_owed || changes.must_not_be_undone);
        self.removal_owed = !increment && (self.removal_owed || changes.removal);
        if increment {
            self.incremented_until = Some(self.incremented_until.unwrap_or(now).max(now) + COUNTER_INTERVAL);
        }
    }

    /// There is no file any more. The chip's increments count on.
    pub fn wiped(&mut self) {
        *self = Self { incremented_until: self.incremented_until, ..Self::default() };
    }

    /// What counts for the next [`plan`].
    pub fn history(&self, now: Instant) -> History {
        let debt = |until: Option<Instant>| until.map(|at| at.saturating_duration_since(now)).unwrap_or_default();
        History {
            write_debt: debt(self.written_until),
            increment_debt: debt(self.incremented_until),
            increment_owed: self.increment_owed,
            removal_owed: self.removal_owed,
        }
    }
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

/// What to do at this moment. Pure: the caller looks again when something changes or a wait is over.
pub fn plan(changes: Changes, history: History) -> WritePlan {
    let removal = changes.removal || history.removal_owed;
    let increment_wanted = removal || changes.must_not_be_undone || history.increment_owed;
    let burst = if removal { COUNTER_INTERVAL * (COUNTER_BURST - 1) } else { Duration::ZERO };
    let increment_in = history.increment_debt.saturating_sub(burst);
    let burst_over = history.write_debt.saturating_sub(WRITE_INTERVAL * (WRITE_BURST - 1));
    // A removal is rationed by its increments.
    let saves_a_key = changes.key_at_stake && history.write_debt < WRITE_INTERVAL * KEY_WRITE_BURST;
    let at_once = changes.must_not_be_lost || saves_a_key || (removal && increment_in.is_zero());
    let write_in = if at_once { Duration::ZERO } else { burst_over };
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

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Changes =
        Changes { any: false, must_not_be_lost: false, must_not_be_undone: false, removal: false, key_at_stake: false };
    const ANY: Changes = Changes { any: true, ..NONE };
    const SVID: Changes = Changes { any: true, must_not_be_lost: true, ..NONE };
    const KEY: Changes = Changes { any: true, key_at_stake: true, ..NONE };
    const ENTRIES: Changes = Changes { any: true, must_not_be_undone: true, ..NONE };
    const REMOVAL: Changes = Changes { removal: true, ..ENTRIES };

    /// `writes` just now, an increment `increment` seconds ago.
    fn history(writes: u32, increment: u64, increment_owed: bool) -> History {
        let increment_debt = COUNTER_INTERVAL.saturating_sub(Duration::from_secs(increment));
        History { write_debt: WRITE_INTERVAL * writes, increment_debt, increment_owed, removal_owed: false }
    }

    #[test]
    fn writes_are_rationed_unless_they_must_not_be_lost() {
        let later = History { write_debt: WRITE_INTERVAL * 8 - Duration::from_secs(60), ..history(8, 60, false) };
        for (changes, history, expected) in [
            (Changes::default(), History::default(), WritePlan::Idle),
            (ANY, History::default(), WritePlan::Write),
            (ANY, history(7, 59, false), WritePlan::Write),
            (ANY, history(8, 60, false), WritePlan::Wait(WRITE_INTERVAL)),
            (ANY, later, WritePlan::Wait(WRITE_INTERVAL - Duration::from_secs(60))),
            (SVID, history(20, 0, false), WritePlan::Write),
            (KEY, history(95, 0, false), WritePlan::Write),
            (KEY, history(96, 0, false), WritePlan::Wait(WRITE_INTERVAL * 89)),
        ] {
            assert_eq!(plan(changes, history), expected, "{changes:?} {history:?}");
        }
    }

    #[test]
    fn after_a_wipe_writes_follow_at_once_again_but_increments_count_on() {
        let (mut debts, now) = (Debts::default(), Instant::now());
        (0..8).for_each(|_| debts.kept(true, REMOVAL, now));
        assert_eq!(plan(ANY, debts.history(now)), WritePlan::Wait(WRITE_INTERVAL));
        debts.wiped();
        assert_eq!(plan(ANY, debts.history(now)), WritePlan::Write);
        assert_eq!(plan(ENTRIES, debts.history(now)), WritePlan::Write, "the chip's ration is used up");
    }

    #[test]
    fn counter_is_raised_at_most_hourly_and_never_forgotten() {
        for (changes, history, expected) in [
            (ENTRIES, History::default(), WritePlan::WriteAndIncrement),
            (ENTRIES, history(1, 3600, false), WritePlan::WriteAndIncrement),
            (ENTRIES, history(1, 3599, false), WritePlan::Write),
            (Changes::default(), history(1, 3590, true), WritePlan::Wait(Duration::from_secs(10))),
            (Changes::default(), history(1, 3600, true), WritePlan::WriteAndIncrement),
            (ANY, history(8, 3600, true), WritePlan::Wait(WRITE_INTERVAL)),
            (ANY, history(1, 3600, false), WritePlan::Write),
        ] {
            assert_eq!(plan(changes, history), expected, "{changes:?} {history:?}");
        }
    }

    #[test]
    fn what_was_taken_away_does_not_wait_for_the_hour_but_cannot_wear_the_chip_out() {
        let after = |increments: u32, removal_owed| History {
            write_debt: WRITE_INTERVAL * 20,
            increment_debt: COUNTER_INTERVAL * increments,
            increment_owed: removal_owed,
            removal_owed,
        };
        for increments in 0..COUNTER_BURST {
            assert_eq!(plan(REMOVAL, after(increments, false)), WritePlan::WriteAndIncrement, "{increments}");
        }
        assert_ne!(plan(REMOVAL, after(COUNTER_BURST, false)), WritePlan::WriteAndIncrement);
        assert_eq!(plan(NONE, after(COUNTER_BURST - 1, true)), WritePlan::WriteAndIncrement);
        assert_eq!(
            plan(NONE, History { write_debt: Duration::ZERO, ..after(COUNTER_BURST, true) }),
            WritePlan::Wait(COUNTER_INTERVAL)
        );
        // A day of removals every minute.
        let (mut history, mut increments) = (History::default(), 0);
        for _ in 0..24 * 60 {
            if plan(REMOVAL, history) == WritePlan::WriteAndIncrement {
                increments += 1;
                history.increment_debt += COUNTER_INTERVAL;
            }
            history.increment_debt = history.increment_debt.saturating_sub(Duration::from_secs(60));
        }
        assert!((24..=24 + COUNTER_BURST).contains(&increments), "{increments}");
    }
}
