//! When the CA does what: a pure function of the time and the journal.
//!
//! Thresholds are SPIRE's and scale with each authority's own lifetime, so that a `ca_ttl` of a minute works as one of a
//! year does. Source: SPIRE pkg/server/ca/manager, `preparationThreshold`, `activationThreshold`.

use super::journal::{Authority, Journal, SlotName};

/// The next authority is prepared when less than this remains, seconds, or half the lifetime if that is shorter.
const PREPARE_BEFORE: i64 = 30 * 24 * 60 * 60;
/// The next authority is activated when less than this remains, seconds, or a sixth of the lifetime if that is shorter.
const ACTIVATE_BEFORE: i64 = 7 * 24 * 60 * 60;

/// The one thing to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing until this time, UNIX seconds.
    Wait {
        /// When to ask again.
        until_unix: i64,
    },
    /// Write down that a key will be made in this slot.
    Intend(SlotName),
    /// Make and certify the key of this slot, and publish its certificate.
    Prepare(SlotName),
    /// Sign with this slot from now on.
    Activate(SlotName),
    /// Take authorities out of the bundle whose time is over.
    Prune,
}

/// What to do at `now_unix`. Performing the step and asking again converges to `Wait`.
pub fn plan(now_unix: i64, journal: &Journal) -> Step {
    // What was begun is finished first: the key of an intended slot may or may not exist.
    if let Some(slot) = journal.intended() {
        return Step::Prepare(slot);
    }
    let prepared = journal.prepared().filter(|(_, authority)| !authority.is_expired(now_unix));
    let active = journal.active().filter(|(_, authority)| !authority.is_expired(now_unix));
    let next = match (active, prepared) {
        (None, Some((slot, _))) => return Step::Activate(slot),
        (None, None) => return Step::Intend(free_slot(journal)),
        (Some((_, active)), Some((slot, _))) => {
            let due = activate_at(active);
            if due <= now_unix {
                return Step::Activate(slot);
            }
            due
        }
        (Some((slot, active)), None) => {
            let due = prepare_at(active);
            if due <= now_unix {
                return Step::Intend(slot.other());
            }
            due
        }
    };
    let prune = journal.next_prune().unwrap_or(i64::MAX);
    if prune <= now_unix { Step::Prune } else { Step::Wait { until_unix: next.min(prune) } }
}

/// The first moment at which less than the threshold remains.
fn prepare_at(active: &Authority) -> i64 {
    active.not_after - PREPARE_BEFORE.min(active.lifetime() / 2)
}

fn activate_at(active: &Authority) -> i64 {
    active.not_after - ACTIVATE_BEFORE.min(active.lifetime() / 6)
}

/// Where to make a key when nothing alive signs: not over an authority that was active last, if the other slot will do.
fn free_slot(journal: &Journal) -> SlotName {
    journal.active().map_or(SlotName::A, |(expired, _)| expired.other())
}
