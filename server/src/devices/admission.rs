//! Who may attest: a claim goes in, and comes out as an endorsement key that may be challenged, or not at all.

use std::sync::Arc;

use ironroot_attest::ek_certificate::ManufacturerRoots;
use ironroot_attest::node::Refusal;
use ironroot_attest::node::tpm2::{Admission, AdmittedEk, AttestedTpm, Claim, ClockReading, Voucher};
use ironroot_attest::weak_chips::Maker;
use ironroot_text::hex::hex;
use thiserror::Error;

use super::Devices;
use crate::facts::device::{BootFacts, DeviceRecord, DeviceState, ImaFacts};

/// Whose TPMs may attest. `R`: the manufacturers, as files in a configuration or as roots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdmissionPolicy<R = ManufacturerRoots> {
    /// Those in the device registry.
    Enrolled,
    /// Those, and any whose endorsement key certificate chains to these manufacturers.
    Manufacturer(R),
    /// Those, once an operator has approved them; new ones wait in the registry.
    Approval,
}

/// An endorsement key that may be challenged, and what its chip's clock said last.
#[derive(Debug)]
pub struct Admitted {
    /// On the word of the registry, of its manufacturer or, if it then waits for approval, of nobody.
    pub ek: AdmittedEk,
    /// None before its first attestation.
    pub last_clock: Option<ClockReading>,
}

/// Why an endorsement key may not attest.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotAdmitted {
    /// An operator, or its copy, shut the device out.
    #[error("agent with device {ek_sha256} is banned")]
    Banned {
        /// SHA-256 of the endorsement key, hex.
        ek_sha256: String,
    },
    /// Nobody announced it.
    #[error("device {ek_sha256} is not enrolled: import it, or approve it, and attest again")]
    NotEnrolled {
        /// SHA-256 of the endorsement key, hex.
        ek_sha256: String,
    },
    /// Its certificate does not lead to a manufacturer that is trusted.
    #[error("TPM evidence refused: {0}")]
    Evidence(Refusal),
}

/// A TPM whose endorsement key has been proven, on somebody's word. Made from the proof alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvenDevice {
    pub(super) ek_sha256: [u8; 32],
    pub(super) clock: ClockReading,
    /// Whether its manufacturer's word enrols it; otherwise it must be in the registry still.
    pub(super) may_be_new: bool,
    pub(super) boot: Arc<BootFacts>,
    /// Who made the chip, if that is proven; empty if not.
    pub(super) manufacturer: String,
}

impl ProvenDevice {
    /// None of a TPM that nobody vouched for.
    pub fn of(attested: &AttestedTpm) -> Option<Self> {
        let may_be_new = match attested.voucher() {
            Voucher::Registry => false,
            Voucher::Manufacturer => true,
            Voucher::Nobody => return None,
        };
        let boot = Arc::new(BootFacts::of(attested.boot()));
        let manufacturer = match attested.maker() {
            Maker::Proven(maker) => maker.clone(),
            Maker::Claimed(_) | Maker::Unknown => String::new(),
        };
        Some(Self { ek_sha256: attested.ek_sha256(), clock: attested.clock(), may_be_new, boot, manufacturer })
    }

    /// SHA-256 of the endorsement key's SPKI.
    pub fn ek_sha256(&self) -> [u8; 32] {
        self.ek_sha256
    }

    /// The TPM's clock.
    pub fn clock(&self) -> ClockReading {
        self.clock
    }

    /// With the files that it has measured, or why nobody knows them.
    pub fn with_files(mut self, files: Result<ImaFacts, String>) -> Self {
        let boot = Arc::make_mut(&mut self.boot);
        match files {
            Ok(files) => boot.ima = Some(files),
            Err(missing) => boot.ima_missing = missing,
        }
        self
    }

    /// What it has booted.
    pub fn boot(&self) -> &BootFacts {
        &self.boot
    }
}

impl Devices {
    /// Admits a claim, or refuses it. A ban comes first, then enrolment; a manufacturer's word, or nobody's, only where
    /// `policy` says so. A device that waits for approval is let prove its key again.
    pub fn admit(&self, claim: Claim, policy: &AdmissionPolicy, now_unix: i64) -> Result<Admitted, NotAdmitted> {
        let (known, last_clock) = (self.device(&claim.ek_sha256()), self.last_clock(&claim.ek_sha256()));
        let admission = admission_of(known.as_deref(), policy, now_unix);
        let admission = admission.map_err(|refuse| refuse(hex(&claim.ek_sha256())))?;
        Ok(Admitted { ek: claim.admit(admission).map_err(NotAdmitted::Evidence)?, last_clock })
    }
}

/// On whose word a device may prove its key.
fn admission_of<'a>(
    known: Option<&DeviceRecord>,
    policy: &'a AdmissionPolicy,
    now_unix: i64,
) -> Result<Admission<'a>, fn(String) -> NotAdmitted> {
    match (known.map(|device| (device.state, device.ek_sha256)), policy) {
        (Some((DeviceState::Banned, _)), _) => Err(|ek_sha256| NotAdmitted::Banned { ek_sha256 }),
        (Some((DeviceState::Enrolled, ek_sha256)), _) => Ok(Admission::Enrolled { ek_sha256 }),
        (_, AdmissionPolicy::Manufacturer(roots)) => Ok(Admission::Manufacturer { roots, now_unix }),
        (Some((DeviceState::Pending, _)), _) | (None, AdmissionPolicy::Approval) => Ok(Admission::Unvouched),
        (None, AdmissionPolicy::Enrolled) => Err(|ek_sha256| NotAdmitted::NotEnrolled { ek_sha256 }),
    }
}
