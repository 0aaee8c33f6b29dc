//! What must hold, judged by the truth.
//!
//! *Valid by what the agent can know.* Of an SVID that its issuer's clock was right for:
//!
//! - received in this run, elapsed time says to the second when it ends, but for the back-dating of servers (10 s), which only an agreed
//!   clock tells: it is served until then and no longer, whatever any clock shows;
//! - taken up from the cache, but received in this very boot: the same;
//! - received in an earlier boot, some time may have passed uncounted. That it has ended the device can know if its clock is right, goes on
//!   from the record's, and *stands* ([`Standing`]); or if clock and server agreed in this run, neither behind: elapsed time says the
//!   rest. Then it is not served. A clock that was set away and back, or that a server contradicts, is no witness any more, though it be
//!   right.
//!   That it has not ended it can know unless such a clock, by less than [`LONGEST_ABSENCE`], or clock and server, lie: then it is served.
//!
//! A clock that stands may be ahead by what still counts as agreement ([`AGREEMENT`]): whatever is from the cache ends as much earlier.
//!
//! Nothing is demanded where kernel and server were wrong alike (`misled`), until both are right once: two witnesses are what there is.

use super::Figures;
use crate::trusted_time::{AGREEMENT, LONGEST_ABSENCE};

/// By how much servers date back, seconds.
const BACKDATE: i64 = 10;
/// What rounding and a clock's drift may come to, seconds.
const ROUNDING: i64 = 2;
/// By how much a clock may be set and still be the one that agreed, seconds.
const SMALL_STEP: i64 = 60;
/// By how much a clock that went on with a record may have been behind when that was made, seconds: a year.
const BEHIND: i64 = super::YEAR;

/// An SVID between two moments at which the loop does something.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    /// From when to when, true UNIX seconds.
    pub from: i64,
    pub to: i64,
    /// When it stops being served, if the stretch lasts as long; true UNIX seconds.
    pub served_until: i64,
    /// Its notAfter.
    pub not_after: i64,
    /// Its issuer's clock was right.
    pub is_honest: bool,
    pub knows: Knows,
}

/// What the device has to go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Knows {
    /// It has the SVID from the cache.
    pub is_kept: bool,
    /// It was received in this boot.
    pub is_of_this_boot: bool,
    /// When the record was made its clock agreed with a server.
    pub clock_was_recorded: bool,
    pub standing: Standing,
    /// By how much the kernel's clock was wrong when the machine started, and is.
    pub error_at_boot: i64,
    pub kernel_error: i64,
    /// A server that is ahead has spoken in this run, or had the last word when the record was made.
    pub server_was_ahead: bool,
    /// Kernel and server were ahead of the truth alike.
    pub is_misled: bool,
}

/// What the words of servers so far make of the kernel's clock; by the truth, not by what the keeper holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// It agreed with the last word, or goes on from a record as it was then.
    clock: bool,
    /// In this run it agreed with a server while neither was behind.
    elapsed: bool,
}

impl Standing {
    /// After a start: `then`, if the clock had agreed when the record was made, and `now` are by how much it was and is wrong.
    pub fn taken_up(then: Option<i64>, now: i64, same_boot: bool) -> Self {
        let goes_on = |then: i64| if same_boot { then == now } else { (now - BEHIND..=now).contains(&then) };
        Self { clock: then.is_some_and(goes_on), elapsed: false }
    }

    /// A server that is wrong by `server` signs something, dated back; the kernel's clock is wrong by `kernel`.
    pub fn heard(&mut self, server: i64, kernel: i64) {
        self.clock = (kernel - (server - BACKDATE)).abs() <= AGREEMENT;
        if self.clock {
            self.elapsed = server >= 0 && kernel >= 0;
        }
    }

    /// A server shows a certificate that began so many seconds after the truth.
    pub fn shown(&mut self, began: i64, kernel: i64) {
        self.clock &= began <= kernel + AGREEMENT;
    }

    /// The kernel's clock, wrong by `from`, is set.
    pub fn set(&mut self, from: i64, to: i64) {
        self.clock &= (to - from).abs() <= SMALL_STEP;
    }
}

impl Knows {
    fn that_it_ended(&self) -> bool {
        let clock_says_so = self.standing.clock && self.kernel_error == 0;
        !self.is_kept || self.is_of_this_boot || clock_says_so || self.standing.elapsed
    }

    /// By how much what is from the cache may end early: the clock that is believed is ahead, within what agreement is.
    fn believed_ahead(&self) -> i64 {
        if self.is_kept && self.standing.clock { self.kernel_error.clamp(0, AGREEMENT) } else { 0 }
    }

    fn that_it_lasts(&self) -> bool {
        let clock_lies = self.clock_was_recorded && (1..=LONGEST_ABSENCE).contains(&self.error_at_boot);
        let both_lie = self.server_was_ahead && self.kernel_error > 0;
        !self.is_misled && (!self.is_kept || (!clock_lies && !both_lie))
    }
}

impl Stretch {
    /// Adds what it comes to; how long something valid was served.
    pub fn judge(&self, figures: &mut Figures) -> i64 {
        let within = |at: i64| at.clamp(self.from, self.to);
        if !self.is_honest {
            return 0;
        }
        let (served, valid) = (within(self.served_until), within(self.not_after + 1));
        let unsure =
            if self.knows.that_it_ended() { within(self.not_after + 1 + BACKDATE + ROUNDING) } else { self.to };
        figures.expired += (served - unsure).max(0);
        figures.unknowable += (served.min(unsure) - valid).max(0);
        if self.knows.that_it_lasts() {
            let surely = within(self.not_after - ROUNDING - self.knows.believed_ahead());
            figures.refused += (surely - served).max(0);
        }
        served.min(valid) - self.from
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HONEST: Knows = Knows {
        is_kept: true,
        is_of_this_boot: false,
        clock_was_recorded: false,
        standing: Standing { clock: false, elapsed: false },
        error_at_boot: 0,
        kernel_error: 0,
        server_was_ahead: false,
        is_misled: false,
    };

    fn judged(served_until: i64, not_after: i64, knows: Knows) -> (i64, i64, i64) {
        let mut figures = Figures::default();
        let stretch = Stretch { from: 1000, to: 2000, served_until, not_after, is_honest: true, knows };
        stretch.judge(&mut figures);
        (figures.expired, figures.refused, figures.unknowable)
    }

    #[test]
    fn what_the_device_could_know_is_a_fault_and_what_it_could_not_is_counted_apart() {
        let fresh = Knows { is_kept: false, ..HONEST };
        assert_eq!(judged(1500, 1499, fresh), (0, 0, 0), "to the second");
        assert_eq!(judged(1600, 1499, fresh), (88, 0, 12));
        assert_eq!(judged(1400, 1499, fresh), (0, 97, 0));
        assert_eq!(judged(2600, 1499, HONEST), (0, 0, 500), "off for long, without a clock");
        let standing = Standing::taken_up(Some(0), 0, false);
        let recorded = Knows { clock_was_recorded: true, standing, ..HONEST };
        assert_eq!(judged(1600, 1499, recorded), (88, 0, 12), "with one");
        assert_eq!(
            judged(1000, 1499, Knows { error_at_boot: 400_000_000, ..recorded }),
            (0, 497, 0),
            "no clock is so far ahead"
        );
        assert_eq!(judged(1000, 1499, Knows { error_at_boot: 4_000, ..recorded }), (0, 0, 0), "it may be right");
        let stepped = Knows { kernel_error: 30, is_of_this_boot: true, ..recorded };
        assert_eq!(judged(1400, 1499, stepped), (0, 67, 0), "no earlier than the clock that agreed says");
        assert_eq!(
            judged(1400, 1499, Knows { kernel_error: 4_000, ..stepped }),
            (0, 0, 0),
            "nor than agreement reaches"
        );
        assert_eq!(
            judged(1400, 1499, Knows { is_kept: false, ..stepped }),
            (0, 97, 0),
            "what was received in this run"
        );
    }

    #[test]
    fn a_clock_that_a_server_contradicts_or_that_was_set_tells_nothing_but_what_was_agreed_goes_on_by_elapsed_time() {
        let expired = |standing| judged(1600, 1499, Knows { standing, clock_was_recorded: true, ..HONEST }).0;
        let recorded = Standing::taken_up(Some(0), 0, false);
        let after = |mut standing: Standing, event: fn(&mut Standing)| {
            event(&mut standing);
            standing
        };
        let contradicted: [fn(&mut Standing); 3] = [|s| s.heard(-400, 0), |s| s.shown(301, 0), |s| s.set(0, 61)];
        for event in contradicted {
            assert_eq!(expired(after(recorded, event)), 0, "recorded only");
        }
        let agreed = after(recorded, |s| s.heard(0, 0));
        for event in contradicted {
            assert_eq!(expired(after(agreed, event)), 88, "elapsed time since");
        }
        assert_eq!(
            expired(after(after(agreed, |s| s.heard(-280, 0)), |s| s.heard(-400, 0))),
            0,
            "agreed to be earlier"
        );
        let small: [fn(&mut Standing); 2] = [|s| s.shown(300, 0), |s| s.set(0, 60)];
        small.into_iter().for_each(|event| assert_eq!(expired(after(recorded, event)), 88, "goes on standing"));
        let taken_up = [(None, false), (Some(1), false), (Some(-400), false), (Some(-400), true), (Some(0), true)];
        let clocks = taken_up.map(|(then, same_boot)| Standing::taken_up(then, 0, same_boot).clock);
        assert_eq!(clocks, [false, false, true, false, true]);
    }
}
