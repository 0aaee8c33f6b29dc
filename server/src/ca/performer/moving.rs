//! A CA moves from one key manager to another: a rotation that begins at once, and no outage.
//!
//! ```text
//!  start:  active key in the former one ──► it signs on; the next authority is made in the new one and published
//!          active key gone, and the operator says so (KeyManager "memory") ──► it stays in the bundle; the next one signs at once
//!  later:  the next one signs ──► what the former one holds is laid aside: in the bundle until it ends, never signed with again
//! ```

use tracing::{info, warn};

use super::Performer;
use crate::ca::CaError;
use crate::ca::journal::{Journal, Place, Slot};
use crate::ca::purpose::Purpose;
use crate::ca::rotation::Pace;
use crate::clock::Moment;

impl Performer {
    /// The key of what is in `place` was found where the CA moves away from. What signs now goes on; all else is laid aside, so that
    /// its place is free for the next key.
    pub(super) async fn note_former(&mut self, place: Place, moment: Moment) -> Result<(), CaError> {
        self.check_unused(place).await?;
        let signs_now = self.journal.slots(place.purpose).active().is_some_and(|(_, a)| a.is_valid(moment.now_unix));
        let noun = place.purpose.noun();
        match self.journal.slot(place) {
            Slot::Prepared(_) | Slot::Old(_) if signs_now => {
                info!(slot = %place, "a {noun} that does not sign is left in the key manager of before; it stays in the bundle until it ends");
                self.persist(self.journal.clone().forsake(place)).await
            }
            _ => {
                info!(slot = %place, to = %self.keys.managers().current, "the {noun} moves to another key manager: the next one is made there now");
                self.in_former.push(place);
                Ok(())
            }
        }
    }

    /// The key of what is in `place` cannot be had any more, by the operator's word.
    pub(super) async fn leave_behind(&mut self, place: Place) -> Result<(), CaError> {
        warn!(
            slot = %place,
            "the key of a {} is gone with the key manager that held it, which is configured as one in memory: it stays in the bundle \
             until it ends, and another one signs now; agents that do not know that one yet have to be given the new bundle",
            place.purpose.noun()
        );
        self.persist(self.journal.clone().forsake(place)).await
    }

    /// When authorities are replaced: at once where the one that signs has its key in the key manager of before.
    pub(super) fn paces(&self) -> Vec<Pace> {
        let is_away = self.upstream.as_ref().is_some_and(|upstream| upstream.is_away());
        let ahead =
            |pace: Pace| if is_away && pace.purpose == Purpose::X509Ca { Pace::below_an_absent_root() } else { pace };
        let paces = self.policy.paces().into_iter().map(ahead);
        paces.map(|pace| if self.is_leaving(pace.purpose) { pace.at_once() } else { pace }).collect()
    }

    fn is_leaving(&self, purpose: Purpose) -> bool {
        let active = self.journal.slots(purpose).active();
        active.is_some_and(|(slot, _)| self.in_former.contains(&Place { purpose, slot }))
    }

    /// `place` signs from now on: what the former key manager holds of its purpose is laid aside.
    pub(super) fn without_former(&self, place: Place, journal: Journal) -> Journal {
        let other = Place { slot: place.slot.other(), ..place };
        if self.in_former.contains(&other) && !self.in_former.contains(&place) {
            journal.forsake(other)
        } else {
            journal
        }
    }

    /// Forgets, and says, what has moved with that.
    pub(super) fn note_moved(&mut self, place: Place) {
        let other = Place { slot: place.slot.other(), ..place };
        if self.in_former.contains(&place) || !self.in_former.contains(&other) {
            return;
        }
        self.in_former.retain(|former| *former != other);
        info!(slot = %place, to = %self.keys.managers().current, "the {} has moved", place.purpose.noun());
        if self.in_former.is_empty() {
            info!(
                "nothing is signed any more with keys of the key manager of before: take its KeyManager block (previous = true) out of \
                 the configuration, and destroy what it holds"
            );
        }
    }
}
