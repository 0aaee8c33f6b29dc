//! An endorsement key that may attest here.

use super::{ClockReading, EventLogPolicy, PcrHash, PcrSelection};
use crate::ek_certificate::EkCertificate;
use crate::structures::Public;
use crate::weak_chips::Maker;

/// On whose word an endorsement key was admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Voucher {
    /// The device registry's.
    Registry,
    /// Its manufacturer's certificate.
    Manufacturer,
    /// Nobody's yet.
    Nobody,
}

/// An admitted endorsement key. Whether the device holds it is what the challenge finds out.
#[derive(Clone, Debug)]
pub struct AdmittedEk {
    pub(super) ek: Public,
    pub(super) ek_sha256: [u8; 32],
    pub(super) voucher: Voucher,
    pub(super) verified_certificate: Option<EkCertificate>,
    pub(super) maker: Maker,
    pub(super) ak: Public,
    pub(super) boot_id: String,
    pub(super) pcr_banks: Vec<PcrHash>,
    pub(super) has_event_log: bool,
    pub(super) has_ima_log: bool,
}

/// What the answer must show.
#[derive(Clone, Debug)]
pub struct Expectation {
    /// Our trust domain, its name without scheme.
    pub trust_domain: String,
    /// DER SubjectPublicKeyInfo of the device's certificate request, byte for byte.
    pub csr_spki_der: Vec<u8>,
    /// The PCRs to quote.
    pub pcrs: PcrSelection,
    /// The banks they may be quoted from, the one preferred first. A device that has none of them active is refused.
    ///
    /// Each bank named is trusted for every device: firmware need not fill a bank that it does not know, and in an active
    /// bank that nobody fills, software on the device can write what it likes.
    pub pcr_banks: Vec<PcrHash>,
    /// What is wanted of the log of what was booted. Without PCRs there is nothing to compare one with, and none is asked for.
    pub event_log: EventLogPolicy,
    /// What is wanted of the list of the files that were measured since (IMA). The registers that it is held against are quoted beside
    /// the others.
    pub ima_log: EventLogPolicy,
    /// Whether the key of the certificate request must be certified to live in the TPM.
    pub require_resident_key: bool,
    /// Clock and counters at this TPM's last attestation, if there was one.
    pub last_seen: Option<ClockReading>,
}
