//! When an authority is replaced: thresholds that scale with its own lifetime, so that a `ca_ttl` of a minute works as one of a year
//! does.

use crate::ca::purpose::Purpose;

/// Thirty days and seven, seconds.
const DAYS_30: i64 = 30 * 24 * 60 * 60;
const DAYS_7: i64 = 7 * 24 * 60 * 60;

/// When the authorities of a purpose are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// What the authorities of this pace sign.
    pub purpose: Purpose,
    prepare: Remainder,
    activate: Remainder,
    is_patient: bool,
}

/// What is left of a life: a part of it, within bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Remainder {
    /// Of a lifetime, one in this many is kept in reserve.
    part: i64,
    /// At least, seconds.
    least: i64,
    /// At most, seconds.
    most: i64,
}

impl Pace {
    /// Of what signs SVIDs. Source: SPIRE pkg/server/ca/manager, `preparationThreshold`, `activationThreshold`.
    pub fn of_signers(purpose: Purpose) -> Self {
        let prepare = Remainder { part: 2, least: 0, most: DAYS_30 };
        let activate = Remainder { part: 6, least: 0, most: DAYS_7 };
        Self { purpose, prepare, activate, is_patient: false }
    }

    /// Of the root, whose CAs live `ca_ttl_seconds`. Devices that were off for long know the oldest only, so it signs for as long as it
    /// can: to the last quarter of its life, or until it would cut a CA's life short. Its successor joins the bundle at half of it, and
    /// not on the word of a clock in doubt: a root that nobody has yet locks out who knows only the one before.
    pub fn of_the_root(ca_ttl_seconds: i64) -> Self {
        let prepare = Remainder { part: 2, least: 0, most: i64::MAX };
        let activate = Remainder { part: 4, least: ca_ttl_seconds, most: i64::MAX };
        Self { purpose: Purpose::Root, prepare, activate, is_patient: true }
    }

    /// Of CAs below a root that is plugged in now and then: the next one is asked for at half of a life, whatever its length, so that there
    /// is as long to bring the root.
    pub fn below_an_absent_root() -> Self {
        let prepare = Remainder { part: 2, least: 0, most: i64::MAX };
        Self { prepare, ..Self::of_signers(Purpose::X509Ca) }
    }

    /// The same, but the next authority is prepared now, and activated as soon as it is known: the one that signs is to sign no longer
    /// than it must.
    pub fn at_once(self) -> Self {
        let all = Remainder { part: 1, least: 0, most: i64::MAX };
        Self { prepare: all, activate: all, ..self }
    }

    /// The next authority is prepared when less than this remains of one that lives `lifetime`, seconds.
    pub(super) fn prepare_before(&self, lifetime: i64) -> i64 {
        self.prepare.of(lifetime)
    }

    /// The next authority is activated when less than this remains, seconds.
    pub(super) fn activate_before(&self, lifetime: i64) -> i64 {
        self.activate.of(lifetime)
    }

    /// Whether a new one waits while the clock is in doubt and one is there.
    pub(super) fn is_patient(&self) -> bool {
        self.is_patient
    }
}

impl Remainder {
    fn of(self, lifetime: i64) -> i64 {
        (lifetime / self.part).min(self.most).max(self.least)
    }
}
