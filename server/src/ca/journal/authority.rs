//! An authority: what it is verified with, its life, and its key.

use serde::{Deserialize, Serialize};

use super::credential::Credential;
use super::key::KeyRecord;
use super::upstream_chain::UpstreamChain;
use super::verdict::Verdict;
use crate::ca::profile::NOT_BEFORE_CUSHION;
use crate::clock::Moment;

/// An expired authority stays in the bundle this long, seconds, or for its own lifetime if that is shorter. Source: SPIRE,
/// `safetyThreshold`.
const PRUNE_AFTER: i64 = 24 * 60 * 60;
/// Of an authority's lifetime all but this must have been counted before it is gone, seconds, or all but a twelfth if that is
/// shorter: counting loses a little at each restart.
const COUNTING_SLACK: i64 = 60;

/// An authority and its life. `C`: what it is verified with.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Authority<C = Credential> {
    /// What the world verifies its signatures with.
    pub credential: C,
    /// UNIX seconds, by the wall clock of that moment.
    pub issued_at: i64,
    /// UNIX seconds.
    pub not_after: i64,
    /// The seconds counted when it was issued; see [`Moment::counted`].
    pub issued_counted: i64,
    /// Which of the keys ever used it certifies.
    pub key: u64,
    /// How that key is found in the token, and who made it.
    pub in_token: KeyRecord,
    /// The key of this server's root that signed it, if one has.
    pub root: Option<u64>,
    /// What is between it and a root of the authority above this server, if that has signed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<UpstreamChain>,
    /// What an operator has said of it.
    #[serde(default, skip_serializing_if = "Verdict::is_none")]
    pub verdict: Verdict,
}

impl<C> Authority<C> {
    /// Whether it is in the bundle itself: nobody has signed it but itself.
    pub fn is_anchor(&self) -> bool {
        self.root.is_none() && self.upstream.is_none()
    }

    /// Seconds from issue to end.
    pub fn lifetime(&self) -> i64 {
        self.not_after.saturating_sub(self.issued_at)
    }

    /// Whether its life is over.
    pub fn is_expired(&self, now_unix: i64) -> bool {
        self.not_after <= now_unix
    }

    /// Whether an operator has said that its key is in other hands.
    pub fn is_tainted(&self) -> bool {
        self.verdict == Verdict::Tainted
    }

    /// Whether it begins later than `now_unix`: it was issued when the clock was ahead, or the clock is behind.
    pub fn is_ahead_of(&self, now_unix: i64) -> bool {
        self.issued_at - NOT_BEFORE_CUSHION > now_unix
    }

    /// Whether it may sign, as far as its time goes.
    pub fn is_valid(&self, now_unix: i64) -> bool {
        !self.is_expired(now_unix) && !self.is_ahead_of(now_unix)
    }

    /// When it leaves the bundle at the earliest, UNIX seconds.
    pub fn prune_at(&self) -> i64 {
        self.not_after + PRUNE_AFTER.min(self.lifetime())
    }

    /// Whether nothing that it signed can be valid any more, by the wall clock *and* by the seconds counted since it was
    /// issued. If it was issued by a right clock, the second alone proves it, however wrong the first is now.
    pub fn is_over(&self, moment: Moment) -> bool {
        self.is_over_by(moment, self.not_after)
    }

    /// The same, and it has stayed in the bundle for as long as it should.
    pub fn is_prunable(&self, moment: Moment) -> bool {
        self.is_over_by(moment, self.prune_at())
    }

    //= FED-02 SPIFFE Federation 4.1: "no longer has any active, valid SVIDs issued from those keys"
    fn is_over_by(&self, moment: Moment, end_unix: i64) -> bool {
        let lived = moment.counted.saturating_sub(self.issued_counted);
        let slack = COUNTING_SLACK.min(self.lifetime() / 12);
        let by_the_wall = end_unix <= moment.now_unix || self.is_ahead_of(moment.now_unix);
        moment.may_destroy() && by_the_wall && lived >= self.lifetime() - slack
    }
}

#[cfg(test)]
mod tests {
    use ironroot_hsm::KeyName;

    use super::*;
    use crate::clock::Trust;

    const START: i64 = 1_800_000_000;
    const DAY: i64 = 24 * 60 * 60;

    fn of_a_day() -> Authority<()> {
        Authority {
            credential: (),
            issued_at: START,
            not_after: START + DAY,
            issued_counted: 0,
            key: 0,
            in_token: KeyRecord::made(KeyName::labelled("a").unwrap()),
            root: None,
            upstream: None,
            verdict: Verdict::None,
        }
    }

    #[test]
    fn an_authority_is_over_only_when_both_clocks_say_so_and_are_believed() {
        let authority = Authority { issued_counted: 1000, ..of_a_day() };
        let moment = |now, counted, trust| Moment { now_unix: START + now, counted: 1000 + counted, trust };
        for (now, counted, trust, over) in [
            (DAY, DAY, Trust::Agreed, true),
            (DAY - 1, DAY, Trust::Agreed, false),
            (DAY, DAY - COUNTING_SLACK, Trust::Agreed, true),
            (DAY, DAY - COUNTING_SLACK - 1, Trust::Agreed, false),
            (3650 * DAY, 100, Trust::Agreed, false),
            (3650 * DAY, 3650 * DAY, Trust::Incident, false),
            (3650 * DAY, 3650 * DAY, Trust::Settling, false),
            // Dated in the future: it signs nothing now, and what it signed then cannot be told from a mistake.
            (-3650 * DAY, DAY, Trust::Agreed, true),
            (-3650 * DAY, DAY / 2, Trust::Agreed, false),
        ] {
            assert_eq!(authority.is_over(moment(now, counted, trust)), over, "{now} {counted} {trust:?}");
        }
        let minute = Authority { not_after: START + 60, ..of_a_day() };
        for (counted, over) in [(55, true), (54, false)] {
            let moment = Moment { now_unix: START + 60, counted, trust: Trust::Agreed };
            assert_eq!(minute.is_over(moment), over, "of a short life a twelfth may be missing: {counted}");
        }
        assert!(!authority.is_prunable(moment(2 * DAY - 1, 2 * DAY, Trust::Agreed)));
        assert!(authority.is_prunable(moment(2 * DAY, 2 * DAY, Trust::Agreed)));
    }

    #[test]
    fn an_authority_is_valid_from_the_cushion_before_its_issue_to_its_end() {
        let authority = of_a_day();
        for (now, valid) in [(-11, false), (-10, true), (0, true), (DAY - 1, true), (DAY, false)] {
            assert_eq!(authority.is_valid(START + now), valid, "{now}");
        }
    }
}
