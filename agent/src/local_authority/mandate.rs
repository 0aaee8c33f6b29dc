//! Whether the agent's own CA may sign now, and until when what it signs may last. Pure; `docs/trusted_time.md`, section 4.

use std::time::Duration;

use ironroot_api::issuing::NOT_BEFORE_CUSHION;
use thiserror::Error;

use crate::trusted_time::{AGREEMENT, ClockStanding, Lifetime, Moment, utc};

/// Nothing is signed that would last for less than this, seconds.
const SHORTEST: i64 = 5;

/// The right to sign: only [`judge`](Self::judge) makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mandate {
    now: i64,
    /// notBefore of the CA: nothing that it signs begins earlier.
    not_before: i64,
    until: i64,
}

/// Why nothing is signed. What is held is served until it ends.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum NoMandate {
    /// The server has given none yet, or it is not usable any more.
    #[error("this agent has no CA of its own")]
    NoAuthority,
    /// Neither a server in this run nor a clock that has agreed with one says what time it is.
    #[error("the time is not known well enough to sign by: no server has confirmed this device's clock")]
    ClockUnconfirmed,
    /// The server contradicted the clock before it went away.
    #[error("the time is not known well enough to sign by: the server's time and this device's clock differ")]
    ClockContradicted,
    /// The clock shows a time at which the server was still there.
    #[error("this device's clock shows a time before the server's last word")]
    ClockBehind,
    /// The published end of the key that signs JWT-SVIDs.
    #[error("this agent's key for JWT-SVIDs ends at {}, and only with its server can it publish another", utc(*not_after))]
    JwtKeyEnds { not_after: i64 },
    /// The server has been away for too long.
    #[error("the server was last heard at {}: max_offline is over", utc(*synced_unix))]
    OfflineTooLong { synced_unix: i64 },
    /// The CA ends.
    #[error("this agent's own CA ends at {}, and only its server can give another", utc(*not_after))]
    AuthorityEnds { not_after: i64 },
}

impl Mandate {
    /// Asks the clock first, then both bounds: the end of the CA, by elapsed time and by the clock, and `max_offline` since the server's last
    /// word.
    pub fn judge(
        moment: &Moment,
        authority: &Lifetime,
        synced_unix: i64,
        max_offline: Duration,
    ) -> Result<Self, NoMandate> {
        if moment.clock() == ClockStanding::Contradicted {
            return Err(NoMandate::ClockContradicted);
        }
        if !moment.is_placed() {
            return Err(NoMandate::ClockUnconfirmed);
        }
        let (now, span) = (moment.estimate(), authority.span());
        let earliest = synced_unix.max(span.not_before).saturating_sub(AGREEMENT);
        if now < earliest {
            return Err(NoMandate::ClockBehind);
        }
        let authority_ends = span.not_after.min(now.saturating_add(moment.remaining(authority)));
        let offline_ends = synced_unix.saturating_add(i64::try_from(max_offline.as_secs()).unwrap_or(i64::MAX));
        let least = now.saturating_add(SHORTEST);
        if offline_ends < least {
            return Err(NoMandate::OfflineTooLong { synced_unix });
        }
        if authority_ends < least {
            return Err(NoMandate::AuthorityEnds { not_after: span.not_after });
        }
        Ok(Self { now, not_before: span.not_before, until: authority_ends.min(offline_ends) })
    }

    /// When it is, UNIX seconds.
    pub fn now(&self) -> i64 {
        self.now
    }

    /// notBefore and notAfter of an SVID that is to last for `ttl_seconds`: no longer than the mandate.
    pub fn span(&self, ttl_seconds: i64) -> (i64, i64) {
        let not_before = (self.now - NOT_BEFORE_CUSHION).max(self.not_before);
        (not_before, self.now.saturating_add(ttl_seconds.max(SHORTEST)).min(self.until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trusted_time::{Keeper, Reading, Restart, Span, TimeRecord};

    const NOW: i64 = 1_800_000_000;
    const DAY: i64 = 24 * 3600;
    const MAX_OFFLINE: Duration = Duration::from_secs(24 * 3600);

    fn reading(seconds: i64) -> Reading {
        Reading { boot: 100 + seconds, kernel: NOW + seconds }
    }

    /// A CA of a day, received at [`NOW`] from a server whose clock agrees; and what is known then.
    fn confirmed() -> (Keeper, Lifetime) {
        let mut keeper = Keeper::new(0, reading(0));
        let authority = keeper.receive(NOW, Span { not_before: NOW, not_after: NOW + DAY }, reading(0));
        (keeper, authority)
    }

    fn judge(keeper: Keeper, reading: Reading, authority: &Lifetime) -> Result<Mandate, NoMandate> {
        Mandate::judge(&Moment::new(keeper, reading), authority, NOW, MAX_OFFLINE)
    }

    #[test]
    fn nothing_that_is_signed_outlasts_the_ca_or_the_longest_absence() {
        let (keeper, authority) = confirmed();
        let mandate = judge(keeper, reading(60), &authority).expect("a good clock");
        assert_eq!((mandate.now(), mandate.span(3600)), (NOW + 60, (NOW + 50, NOW + 3660)));
        assert_eq!(mandate.span(10 * DAY).1, NOW + DAY, "no longer than the CA");
        let short = Mandate::judge(&Moment::new(keeper, reading(60)), &authority, NOW, Duration::from_secs(600));
        assert_eq!(short.expect("within").span(3600).1, NOW + 600, "no longer than max_offline");
        let over = Mandate::judge(&Moment::new(keeper, reading(600)), &authority, NOW, Duration::from_secs(600));
        assert_eq!(over, Err(NoMandate::OfflineTooLong { synced_unix: NOW }));
        let long_ago = Mandate::judge(&Moment::new(keeper, reading(DAY - 1)), &authority, NOW, MAX_OFFLINE * 7);
        assert_eq!(long_ago, Err(NoMandate::AuthorityEnds { not_after: NOW + DAY }));
        for seconds in [0, 1, DAY / 2, DAY - 60] {
            let mandate = judge(keeper, reading(seconds), &authority).expect("a good clock");
            let (not_before, not_after) = mandate.span(i64::MAX);
            assert!(not_before >= NOW && not_after <= NOW + DAY, "signed at {seconds}");
        }
    }

    #[test]
    fn elapsed_time_ends_a_ca_though_the_clock_was_put_back() {
        let (keeper, authority) = confirmed();
        let back = Reading { kernel: NOW - 3600, ..reading(DAY) };
        let mut moved = keeper;
        moved.observe(back);
        let judged = Mandate::judge(&Moment::new(moved, back), &authority, NOW, MAX_OFFLINE * 7);
        assert_eq!(judged, Err(NoMandate::AuthorityEnds { not_after: NOW + DAY }));
    }

    #[test]
    fn a_clock_that_nobody_has_confirmed_signs_nothing() {
        let (keeper, _) = confirmed();
        let record = keeper.record(Restart::default(), reading(60));
        let kept = Lifetime::kept(Span { not_before: NOW, not_after: NOW + DAY }, Some(DAY - 60));
        let restarted = |record: &TimeRecord, kernel| {
            let reading = Reading { boot: 5, kernel };
            let mut keeper = Keeper::new(0, reading);
            keeper.restore(record, &Restart::default(), reading);
            judge(keeper, reading, &kept)
        };
        restarted(&record, NOW + 120).expect("a clock with a battery goes on as it was");
        let unconfirmed = Err(NoMandate::ClockUnconfirmed);
        assert_eq!(restarted(&record, 0), unconfirmed, "1970");
        assert_eq!(restarted(&record, NOW - DAY), unconfirmed, "the last shutdown");
        assert_eq!(restarted(&record, NOW + 3650 * DAY), unconfirmed, "ten years ahead");
        assert_eq!(restarted(&TimeRecord { kernel: None, ..record.clone() }, NOW + 120), unconfirmed);
        let a_week_on = restarted(&record, NOW + 7 * DAY);
        assert_eq!(a_week_on, Err(NoMandate::OfflineTooLong { synced_unix: NOW }), "or it was off for so long");
    }

    #[test]
    fn a_clock_that_the_server_contradicts_or_that_is_before_its_last_word_signs_nothing() {
        let (mut keeper, authority) = confirmed();
        keeper.receive(NOW + 7200, Span { not_before: NOW + 7200, not_after: NOW + DAY }, reading(60));
        assert_eq!(judge(keeper, reading(61), &authority), Err(NoMandate::ClockContradicted));
        let (keeper, authority) = confirmed();
        let moment = Moment::new(keeper, reading(60));
        assert_eq!(Mandate::judge(&moment, &authority, NOW + 3600, MAX_OFFLINE), Err(NoMandate::ClockBehind));
        let of_tomorrow = Lifetime::kept(Span { not_before: NOW + DAY, not_after: NOW + 2 * DAY }, None);
        assert_eq!(judge(keeper, reading(60), &of_tomorrow), Err(NoMandate::ClockBehind));
    }
}
