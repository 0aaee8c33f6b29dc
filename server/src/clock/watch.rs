//! Whether the wall clock may be believed: a pure machine that watches it against the clock that only counts.
//!
//! ```text
//!            within a minute of the line            accepted on its own word
//!          ┌────────────┐                         ┌──────────────────────────┐
//!          ▼            │  more than a minute off │                          ▼
//!        Agreed ────────┴───────────────────► Incident ──steady 10 min──► Settling ──24 h counted──► Agreed
//!          ▲                                      │
//!          └───────────back on the line───────────┘
//! ```
//! The line: where the wall clock must be, by the last reading that was agreed on and the seconds counted since.

use serde::{Deserialize, Serialize};

/// The largest step of the wall clock that is not an incident, seconds: more than time services correct in small.
pub const STEP: i64 = 60;
/// An incident ends when the wall clock has gone steadily for this long, seconds counted.
pub const STEADY: i64 = 10 * 60;
/// After a wall clock was accepted on its own word, nothing is destroyed or swept for this long, seconds counted.
pub const SETTLE: i64 = 24 * 60 * 60;
/// A server that was off for longer than this has only the wall clock's word for it, seconds.
pub const FAR: i64 = 60 * 60;
/// The line is drawn anew this often, seconds counted: in that time a clock that is slewed drifts two seconds. Source:
/// adjtimex(2), at most 500 ppm.
const LINE_LIFE: i64 = 60 * 60;

/// Both clocks at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Reading {
    /// The wall clock, UNIX seconds. It can be set.
    pub wall_unix: i64,
    /// Seconds since the machine started, sleep included. It can only count.
    pub boot_seconds: i64,
}

impl Reading {
    /// Where the wall clock must be at `boot_seconds` if it was right here, UNIX seconds.
    fn wall_at(&self, boot_seconds: i64) -> i64 {
        self.wall_unix.saturating_add(boot_seconds.saturating_sub(self.boot_seconds))
    }
}

/// How far the wall clock may be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// It has jumped: nothing may be decided by it.
    Incident,
    /// It has only its own word for it: what cannot be undone waits.
    Settling,
    /// It agrees with what was counted.
    Agreed,
}

/// The time as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// What the wall clock says, UNIX seconds.
    pub now_unix: i64,
    /// Seconds counted since the CA began, incidents and the time when the machine was off left out: never more than have
    /// passed, whatever any wall clock says.
    pub counted: i64,
    /// How far `now_unix` may be believed.
    pub trust: Trust,
}

impl Moment {
    /// Whether what cannot be undone may be decided by `now_unix`.
    pub fn may_destroy(&self) -> bool {
        self.trust == Trust::Agreed
    }
}

/// What is kept of the clock across restarts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ClockRecord {
    boot_id: String,
    last: Reading,
    /// Whether `last` is only a lower bound.
    is_floor: bool,
    counted: i64,
    settled_at: i64,
}

impl ClockRecord {
    /// Of a CA that kept no record: all that is known is that it lived at `seen_unix`.
    pub fn unwatched(seen_unix: i64) -> Self {
        let last = Reading { wall_unix: seen_unix, boot_seconds: 0 };
        Self { boot_id: String::new(), last, is_floor: true, counted: 0, settled_at: SETTLE }
    }

    /// Seconds counted when it was kept.
    pub fn counted(&self) -> i64 {
        self.counted
    }
}

/// A jump of the wall clock that has not been resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incident {
    /// Where the wall clock must be by what was agreed before, UNIX seconds.
    pub expected_unix: i64,
    /// Whether that is only the least, because the machine was off since.
    pub is_floor: bool,
    /// What it says, UNIX seconds.
    pub found_unix: i64,
    /// The reading since which it has gone steadily.
    steady_from: Reading,
}

/// The machine. Time is an argument.
#[derive(Clone, Debug)]
pub struct ClockWatch {
    boot_id: String,
    /// Where the line begins.
    line: Reading,
    /// Whether the line is only a lower bound, because the machine was off.
    is_floor: bool,
    /// The last reading on the line.
    last: Reading,
    counted: i64,
    settled_at: i64,
    incident: Option<Incident>,
}

impl ClockWatch {
    /// Begins at `reading` in the boot `boot_id`, with what was kept by the process before, if there was one.
    pub fn start(record: Option<&ClockRecord>, boot_id: &str, reading: Reading) -> Self {
        let new = Self {
            boot_id: boot_id.to_owned(),
            line: reading,
            is_floor: false,
            last: reading,
            counted: 0,
            settled_at: 0,
            incident: None,
        };
        let Some(record) = record else { return new };
        let known = Self { counted: record.counted, settled_at: record.settled_at, ..new };
        let same_boot = record.boot_id == boot_id && record.last.boot_seconds <= reading.boot_seconds;
        let mut watch = if same_boot {
            Self { line: record.last, last: record.last, is_floor: record.is_floor, ..known }
        } else {
            let floor = Reading { wall_unix: record.last.wall_unix, ..reading };
            Self { line: floor, last: floor, is_floor: true, ..known }
        };
        watch.observe(reading);
        watch
    }

    /// Takes in a reading.
    pub fn observe(&mut self, reading: Reading) -> Moment {
        let expected_unix = self.line.wall_at(reading.boot_seconds);
        let off = reading.wall_unix.saturating_sub(expected_unix);
        let agrees = off >= -STEP && (self.is_floor || off <= STEP);
        let (is_floor, found_unix) = (self.is_floor, reading.wall_unix);
        let jump = move |steady_from| Some(Incident { expected_unix, is_floor, found_unix, steady_from });
        match self.incident {
            _ if agrees && (self.is_floor || self.incident.is_some()) => self.accept(reading, off > FAR),
            _ if agrees => self.follow(reading),
            Some(Incident { steady_from, .. }) if is_steady(steady_from, reading) => {
                self.incident = jump(steady_from);
                if reading.boot_seconds.saturating_sub(steady_from.boot_seconds) >= STEADY {
                    self.accept(reading, true);
                }
            }
            _ => self.incident = jump(reading),
        }
        self.moment(reading.wall_unix)
    }

    /// The jump that is not resolved, if there is one.
    pub fn incident(&self) -> Option<Incident> {
        self.incident
    }

    /// What to keep: the last reading that was agreed on.
    pub fn record(&self) -> ClockRecord {
        let Self { boot_id, last, is_floor, counted, settled_at, .. } = self.clone();
        ClockRecord { boot_id, last, is_floor, counted, settled_at }
    }

    fn moment(&self, now_unix: i64) -> Moment {
        let trust = match self.incident {
            Some(_) => Trust::Incident,
            None if self.counted < self.settled_at => Trust::Settling,
            None => Trust::Agreed,
        };
        Moment { now_unix, counted: self.counted, trust }
    }

    fn follow(&mut self, reading: Reading) {
        self.counted += reading.boot_seconds.saturating_sub(self.last.boot_seconds).max(0);
        self.last = reading;
        if reading.boot_seconds.saturating_sub(self.line.boot_seconds) >= LINE_LIFE {
            self.line = reading;
        }
    }

    fn accept(&mut self, reading: Reading, on_its_word: bool) {
        (self.line, self.last, self.is_floor, self.incident) = (reading, reading, false, None);
        if on_its_word {
            self.settled_at = self.counted + SETTLE;
        }
    }
}

fn is_steady(from: Reading, reading: Reading) -> bool {
    reading.wall_unix.saturating_sub(from.wall_at(reading.boot_seconds)).saturating_abs() <= STEP
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: i64 = 1_800_000_000;
    const YEAR: i64 = 365 * 24 * 3600;

    fn at(wall: i64, boot: i64) -> Reading {
        Reading { wall_unix: START + wall, boot_seconds: boot }
    }

    fn watch() -> ClockWatch {
        ClockWatch::start(None, "boot", at(0, 100))
    }

    #[test]
    fn a_step_of_more_than_a_minute_is_an_incident_and_less_is_not() {
        for (wall, boot, trust) in [
            (10, 110, Trust::Agreed),
            (70, 110, Trust::Agreed),
            (-50, 110, Trust::Agreed),
            (71, 110, Trust::Incident),
            (-51, 110, Trust::Incident),
            (10 * YEAR, 110, Trust::Incident),
            (-10 * YEAR, 110, Trust::Incident),
            // Asleep for a day: both clocks say so.
            (24 * 3600, 24 * 3600 + 100, Trust::Agreed),
        ] {
            let mut watch = watch();
            assert_eq!(watch.observe(at(wall, boot)).trust, trust, "{wall} at {boot}");
            assert_eq!(watch.incident().is_some(), trust == Trust::Incident);
        }
    }

    #[test]
    fn small_steps_do_not_add_up_to_a_large_one() {
        let mut watch = watch();
        let trusts: Vec<_> = (1..10).map(|n| watch.observe(at(n * 10 + n * 20, 100 + n * 10)).trust).collect();
        assert_eq!(trusts[..3], [Trust::Agreed; 3]);
        assert!(trusts[3..].iter().all(|trust| *trust == Trust::Incident), "{trusts:?}");
    }

    #[test]
    fn an_incident_ends_at_once_when_the_clock_is_back_and_nothing_was_counted_meanwhile() {
        let mut watch = watch();
        watch.observe(at(50, 150));
        for second in 0..85 {
            assert_eq!(watch.observe(at(21 * 3600 + 51 + second, 151 + second)).trust, Trust::Incident);
        }
        let back = watch.observe(at(140, 240));
        assert_eq!((back.trust, back.counted), (Trust::Agreed, 50));
    }

    #[test]
    fn a_steady_new_clock_is_accepted_but_destroys_nothing_for_a_day() {
        let mut watch = watch();
        let moved = |boot| at(10 * YEAR + boot, boot);
        assert_eq!(watch.observe(moved(110)).trust, Trust::Incident);
        assert_eq!(watch.observe(moved(109 + STEADY)).trust, Trust::Incident);
        let accepted = watch.observe(moved(110 + STEADY));
        assert_eq!(accepted.trust, Trust::Settling);
        assert!(!accepted.may_destroy());
        let later = 110 + STEADY + SETTLE;
        assert_eq!(watch.observe(moved(later - 1)).trust, Trust::Settling);
        assert_eq!(watch.observe(moved(later)).trust, Trust::Agreed);
    }

    #[test]
    fn a_clock_that_jumps_again_and_again_is_never_accepted() {
        let mut watch = watch();
        for n in 1..1000 {
            let moment = watch.observe(at(n * YEAR, 100 + n * STEADY / 2));
            assert_eq!((moment.trust, moment.counted), (Trust::Incident, 0));
        }
    }

    #[test]
    fn a_restart_within_a_boot_does_not_make_a_wrong_clock_right() {
        let mut watch = watch();
        watch.observe(at(50, 150));
        watch.observe(at(10 * YEAR, 160));
        let record = watch.record();
        let mut again = ClockWatch::start(Some(&record), "boot", at(10 * YEAR + 10, 170));
        assert!(again.incident().is_some());
        let back = again.observe(at(80, 180));
        assert_eq!((back.trust, back.counted), (Trust::Agreed, 50));
        // One that was right meanwhile has been counted across the restart.
        let mut right = ClockWatch::start(Some(&record), "boot", at(100, 200));
        assert_eq!(right.observe(at(101, 201)), Moment { now_unix: START + 101, counted: 101, trust: Trust::Agreed });
    }

    #[test]
    fn a_start_before_the_last_time_is_an_incident_and_long_after_it_destroys_nothing_for_a_day() {
        let mut before = watch();
        before.observe(at(1000, 1100));
        let record = before.record();
        let start = |wall| ClockWatch::start(Some(&record), "another boot", at(wall, 5));
        for (wall, trust) in [
            (-YEAR, Trust::Incident),
            (939, Trust::Incident),
            (940, Trust::Agreed),
            (1000 + FAR, Trust::Agreed),
            (1001 + FAR, Trust::Settling),
            (10 * YEAR, Trust::Settling),
        ] {
            let mut watch = start(wall);
            let moment = watch.observe(at(wall, 5));
            assert_eq!((moment.trust, moment.counted), (trust, 1000), "{wall}");
        }
        let mut behind = start(-2 * 24 * 3600);
        let corrected = behind.observe(at(3 * 24 * 3600, 30));
        assert_eq!(corrected.trust, Trust::Settling, "a time service has set it: past the last time, on its own word");
        let mut forward = start(1500);
        assert_eq!(forward.observe(at(YEAR, 30)).trust, Trust::Incident, "the line of the new boot counts");
    }

    #[test]
    fn what_an_older_server_left_is_not_destroyed_on_the_first_day() {
        let record = ClockRecord::unwatched(START);
        let mut watch = ClockWatch::start(Some(&record), "boot", at(600, 5));
        assert_eq!(watch.observe(at(600, 5)).trust, Trust::Settling);
        assert_eq!(watch.observe(at(600 + SETTLE, 5 + SETTLE)).trust, Trust::Agreed);
    }
}
