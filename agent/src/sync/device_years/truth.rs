//! What must hold, judged by the truth.
//!
//! *Valid by what the agent can know.* Of an SVID that its issuer's clock was right for:
//!
//! - received in this run, elapsed time says to the second when it ends, but for the back-dating of servers (10 s), which only an agreed
//!   clock tells: it is served until then and no longer, whatever any clock shows;
//! - taken up from the cache of this very boot: the same;
//! - taken up from the cache of an earlier boot, some time may have passed uncounted. That it has ended the device can know if its clock is
//!   right, goes on from the record's, and had agreed with a server: then it is not served. That it has not ended it can know unless such a
//!   clock, by less than [`LONGEST_ABSENCE`], or clock and server, lie: then it is served.
//!
//! Nothing is demanded where kernel and server were wrong alike (`misled`), until both are right once: two witnesses are what there is.

use super::Figures;
use crate::trusted_time::LONGEST_ABSENCE;

/// By how much servers date back, seconds.
const BACKDATE: i64 = 10;
/// What rounding and a clock's drift may come to, seconds.
const ROUNDING: i64 = 2;

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
    /// Of this boot.
    pub is_of_this_boot: bool,
    /// When the record was made its clock agreed with a server.
    pub clock_was_recorded: bool,
    /// By how much the kernel's clock was wrong when the machine started, and is.
    pub error_at_boot: i64,
    pub kernel_error: i64,
    /// A server that is ahead has spoken in this run.
    pub server_was_ahead: bool,
    /// Kernel and server were ahead of the truth alike.
    pub is_misled: bool,
}

impl Knows {
    fn that_it_ended(&self) -> bool {
        let clock_is_right = self.clock_was_recorded && self.error_at_boot == 0 && self.kernel_error == 0;
        !self.is_kept || self.is_of_this_boot || clock_is_right
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
            let surely = within(self.not_after - ROUNDING);
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
        let recorded = Knows { clock_was_recorded: true, ..HONEST };
        assert_eq!(judged(1600, 1499, recorded), (88, 0, 12), "with one");
        assert_eq!(
            judged(1000, 1499, Knows { error_at_boot: 400_000_000, ..recorded }),
            (0, 497, 0),
            "no clock is so far ahead"
        );
        assert_eq!(judged(1000, 1499, Knows { error_at_boot: 4_000, ..recorded }), (0, 0, 0), "it may be right");
    }
}
