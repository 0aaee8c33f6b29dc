//! What is known of the time at one moment: the argument of everything that decides by it.

use super::clocks::{Reading, utc};
use super::keeper::{AGREEMENT, ChainTime, ClockStanding, Keeper};
use super::lifetime::{Lifetime, Span};

/// A [`Keeper`] and a reading of the clocks. It does not move on.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    keeper: Keeper,
    reading: Reading,
}

impl Moment {
    /// What `keeper` knows when the clocks show `reading`.
    pub fn new(keeper: Keeper, reading: Reading) -> Self {
        Self { keeper, reading }
    }

    /// The agent's own clock, seconds: near to UNIX time when it started, and then elapsed time only. Ends are on it.
    pub fn own(&self) -> i64 {
        self.keeper.own(self.reading)
    }

    /// The best estimate of now, UNIX seconds.
    pub fn estimate(&self) -> i64 {
        self.keeper.estimate(self.reading)
    }

    /// See [`Keeper::is_placed`].
    pub fn is_placed(&self) -> bool {
        self.keeper.is_placed()
    }

    /// When a chain ends, by the [`own`](Self::own) clock; see [`Keeper::end`].
    pub fn end(&self, lifetime: &Lifetime) -> i64 {
        self.keeper.end(lifetime, self.reading)
    }

    /// Seconds until a chain ends; negative if it has.
    pub fn remaining(&self, lifetime: &Lifetime) -> i64 {
        self.end(lifetime).saturating_sub(self.own())
    }

    /// Seconds left of a chain by elapsed time alone, for the record.
    pub fn left(&self, lifetime: &Lifetime) -> i64 {
        self.keeper.left(lifetime, self.reading)
    }

    /// See [`Keeper::prefers`].
    pub fn prefers(&self, fresh: &Lifetime, held: Option<&Lifetime>) -> bool {
        self.keeper.prefers(fresh, held, self.reading)
    }

    /// See [`Keeper::judge`].
    pub fn judge(&self, span: Span) -> Option<ChainTime> {
        self.keeper.judge(span, self.reading)
    }

    /// See [`Keeper::is_out_of_time`].
    pub fn is_out_of_time(&self, span: Span) -> bool {
        self.keeper.is_out_of_time(span, self.reading)
    }

    /// See [`Keeper::out_of_time_in`].
    pub fn out_of_time_in(&self, span: Span) -> i64 {
        self.keeper.out_of_time_in(span, self.reading)
    }

    /// Grows whenever something that was learned changed what may be served.
    pub fn version(&self) -> u64 {
        self.keeper.version()
    }

    /// How the device's clock stands.
    pub fn clock(&self) -> ClockStanding {
        self.keeper.standing()
    }

    /// What the device's clock says and what that is worth, for people:
    /// `2026-11-25T21:14:35Z (no server has confirmed it since the start)`.
    pub fn in_words(&self) -> String {
        let why = match self.keeper.standing() {
            ClockStanding::Confirmed => "the server confirmed it before",
            ClockStanding::Unconfirmed => "no server has confirmed it since the start",
            ClockStanding::Contradicted => "the server contradicts it",
        };
        let (estimate, kernel) = (self.estimate(), self.reading.kernel);
        if estimate.saturating_sub(kernel).saturating_abs() <= AGREEMENT {
            return format!("{} ({why})", utc(kernel));
        }
        format!("{} ({why}; by all that is known it is {})", utc(kernel), utc(estimate))
    }
}

#[cfg(test)]
mod tests {
    use super::super::clocks::Restart;
    use super::*;

    #[test]
    fn a_moment_says_what_the_clock_shows_and_what_it_is_worth() {
        let reading = Reading { boot: 100, kernel: 1_795_641_275 };
        let mut keeper = Keeper::new(1_767_225_600, reading);
        let unconfirmed = "2026-11-25T21:14:35Z (no server has confirmed it since the start)";
        assert_eq!(Moment::new(keeper, reading).in_words(), unconfirmed);
        let span = Span { not_before: reading.kernel, not_after: reading.kernel + 60 };
        keeper.receive(reading.kernel, span, reading);
        assert!(Moment::new(keeper, reading).in_words().contains("confirmed it before"));
        let in_1970 = Reading { boot: 100, kernel: 5 };
        let text = Moment::new(Keeper::new(1_767_225_600, in_1970), in_1970).in_words();
        assert!(text.starts_with("1970-01-01T00:00:05Z") && text.contains("it is 2026-01-01T00:00:00Z"), "{text}");
    }
    #[test]
    fn a_moment_stays_what_its_keeper_knew_at_its_reading() {
        let (then, now) = (Reading { boot: 100, kernel: 2_000_000 }, Reading { boot: 500, kernel: 2_000_400 });
        let span = Span { not_before: then.kernel, not_after: then.kernel + 3_600 };
        let mut keeper = Keeper::new(1_000_000, then);
        let held = keeper.receive(span.not_before, span, then);
        keeper.restore(&keeper.record(Restart::default(), then), &Restart::default(), then);
        let moment = Moment::new(keeper, now);
        keeper.lift(9_000_000, now);
        assert_eq!((moment.own(), moment.estimate(), moment.version()), (2_000_400, 2_000_400, 2));
        assert_eq!((moment.end(&held), moment.remaining(&held), moment.left(&held)), (2_003_600, 3_200, 3_200));
        let ends = |not_after| Span { not_after, ..span };
        assert!(moment.is_out_of_time(ends(2_000_400)) && !moment.is_out_of_time(span));
        assert!(moment.judge(ends(2_000_099)).expect("a span").in_doubt);
        assert_eq!(moment.judge(span), Some(ChainTime { at: 2_000_400, in_doubt: false }));
        let disputed = Lifetime::fresh(span, moment.own(), 3_600, true);
        assert!(!moment.prefers(&disputed, Some(&held)) && moment.prefers(&disputed, None));
    }
}
