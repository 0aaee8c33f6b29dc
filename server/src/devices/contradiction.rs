//! A chip that was proven, with a clock or counters older than those it had shown before: it was copied, set back or cleared.
//!
//! Alone it is no proof of a copy. It is kept with the device, over restarts, until the chip attests again. Two things prove that
//! two chips answer to one name: a connection that was opened before still asks then, or the chip attests later with a clock
//! further ahead than time alone can bring it.

use std::time::Duration;

use crate::facts::device::{Contradiction, Sighting};
use ironroot_attest::node::Refusal;
use ironroot_attest::node::tpm2::ClockReading;
use tokio::time::Instant;

use super::{DeviceError, Devices, ProvenDevice};
use crate::store::Transaction;

/// A chip that has proven its key, and with it a clock or counters older than it had shown before. Made only where its answer is
/// judged, of the refusal:
///
/// ```compile_fail
/// # fn forge(clock: ironroot_attest::node::tpm2::ClockReading) -> ironroot_server::devices::ContradictedChip {
/// ironroot_server::devices::ContradictedChip { ek_sha256: [0; 32], clock }
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContradictedChip {
    ek_sha256: [u8; 32],
    clock: ClockReading,
}

impl ContradictedChip {
    /// `ek_sha256` is the key that was challenged; none if the answer was refused for another reason.
    pub(crate) fn of(ek_sha256: [u8; 32], refusal: &Refusal) -> Option<Self> {
        Some(Self { ek_sha256, clock: refusal.contradicting_clock()? })
    }

    /// SHA-256 of the endorsement key's SPKI.
    pub fn ek_sha256(&self) -> &[u8; 32] {
        &self.ek_sha256
    }
}

/// A contradiction, and when it was seen; none if that was before this server's start.
#[derive(Clone, Debug)]
pub(super) struct Suspicion {
    pub contradiction: Contradiction,
    pub seen: Option<Instant>,
}

impl Suspicion {
    /// Whether both are of one contradiction.
    pub fn is_of(&self, other: &Self) -> bool {
        self.contradiction == other.contradiction
    }

    /// Whether `later`, said at `now_unix`, is another chip's word.
    fn is_anothers(&self, later: &ClockReading, now_unix: i64) -> bool {
        // The server's clock was set back: nobody knows how much time has passed.
        let Ok(elapsed) = u64::try_from(now_unix.saturating_sub(self.contradiction.at_unix)) else { return false };
        !later.is_within_reach_of(&self.contradiction.clock, Duration::from_secs(elapsed))
    }

    /// Whether a connection that was opened at `opened` is another chip's: one that was set back dials anew.
    fn is_after(&self, opened: Instant) -> bool {
        self.seen.is_some_and(|seen| opened < seen)
    }

    fn sighting(&self) -> Sighting {
        Sighting {
            at: self.contradiction.at_unix,
            address: self.contradiction.address.clone(),
            what: "proved the chip, with counters or a clock older than it had shown before".into(),
        }
    }
}

/// Two chips answer to a device's name. Only the checks of this file make it.
#[derive(Clone, Debug)]
#[must_use]
pub struct ForkProof {
    pub(super) ek_sha256: [u8; 32],
    sightings: [Sighting; 2],
}

impl ForkProof {
    /// Who was seen, in the order of time.
    pub fn sightings(&self) -> &[Sighting; 2] {
        &self.sightings
    }
}

impl Devices {
    fn suspicion(&self, ek_sha256: &[u8; 32]) -> Option<Suspicion> {
        self.read().suspicions.get(ek_sha256).cloned()
    }

    /// Whether any chip is under suspicion: the usual answer, for every call, is no.
    pub fn suspects_any(&self) -> bool {
        !self.read().suspicions.is_empty()
    }

    /// Whether a call over a connection of the device's agent, opened at `opened`, would prove a copy.
    pub fn suspects(&self, ek_sha256: &[u8; 32], opened: Instant) -> bool {
        self.suspicion(ek_sha256).is_some_and(|suspicion| suspicion.is_after(opened))
    }

    /// Whether a connection of the device's agent, opened at `opened`, proves a copy. `here`: the call over it.
    pub fn fork_by_connection(&self, ek_sha256: &[u8; 32], opened: Instant, here: Sighting) -> Option<ForkProof> {
        let suspicion = self.suspicion(ek_sha256).filter(|suspicion| suspicion.is_after(opened))?;
        Some(ForkProof { ek_sha256: *ek_sha256, sightings: [suspicion.sighting(), here] })
    }

    /// Whether the clock of an attestation at `now_unix` proves a copy. `here`: that attestation.
    pub fn fork_by_clock(&self, device: &ProvenDevice, here: Sighting, now_unix: i64) -> Option<ForkProof> {
        let suspicion = self.suspicion(&device.ek_sha256)?;
        let is_proof = suspicion.is_anothers(&device.clock, now_unix);
        is_proof.then(|| ForkProof { ek_sha256: device.ek_sha256, sightings: [suspicion.sighting(), here] })
    }

    /// Keeps the newest contradiction of a device that is known. `address`: where it was proven, at `at_unix`.
    pub async fn note_contradiction(
        &self,
        chip: &ContradictedChip,
        address: String,
        at_unix: i64,
    ) -> Result<(), DeviceError> {
        let (ek_sha256, seen) = (chip.ek_sha256, Contradiction { at_unix, address, clock: chip.clock });
        let note = move |tx: &Transaction<'_>| {
            tx.device(&ek_sha256)?.ok_or(DeviceError::NotFound)?;
            Ok(tx.put_contradiction(&ek_sha256, &seen)?)
        };
        self.store.change(note).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(reset_count: u32, clock_ms: u64) -> ClockReading {
        ClockReading { clock_ms, reset_count, restart_count: 0, safe: true }
    }

    fn seen(seen: Option<Instant>) -> Suspicion {
        let contradiction = Contradiction { at_unix: 1_000, address: String::new(), clock: reading(1, 60_000) };
        Suspicion { contradiction, seen }
    }

    #[test]
    fn a_clock_that_got_ahead_of_time_is_another_chips() {
        let (seen, hour, day) = (seen(None), 3600 * 1000, 24 * 3600 * 1000);
        assert!(seen.is_anothers(&reading(4, 60_000 + day), 1_000 + 3600), "a day ahead after an hour");
        assert!(
            !seen.is_anothers(&reading(4, 60_000 + hour), 1_000 + 3600),
            "set back, and started often enough since"
        );
        assert!(!seen.is_anothers(&reading(4, 0), 1_000 + 3600), "cleared");
        assert!(!seen.is_anothers(&reading(4, day), 999), "the server's clock was set back");
    }

    #[test]
    fn only_a_connection_from_before_contradicts() {
        let now = Instant::now();
        let since = seen(Some(now + Duration::from_secs(5)));
        assert!(since.is_after(now));
        assert!(!since.is_after(now + Duration::from_secs(6)), "a chip that was set back dials anew");
        assert!(!seen(None).is_after(now), "after a restart of the server every connection is new");
    }
}
