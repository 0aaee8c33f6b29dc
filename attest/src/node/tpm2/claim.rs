//! What the device claims to be, parsed and bounded; nothing is believed yet.

use super::{AdmittedEk, Evidence, PcrHash, Voucher};
use crate::ek_certificate::{EkCertificate, EkCertificateError, ManufacturerRoots, ek_sha256};
use crate::node::Refusal;
use crate::node::tpm_keys::{attestation_key, endorsement_key};
use crate::structures::Public;
use crate::weak_chips::Maker;

/// The device's first message: an endorsement key, its certificate if there is one, and an attestation key.
///
/// The keys are plausible and have the attributes they must have, and a certificate that can be read is for this endorsement
/// key.
/// Whether a TPM holds them is yet to be proven.
#[derive(Clone, Debug)]
pub struct Claim {
    ek: Public,
    ek_sha256: [u8; 32],
    /// One that does not parse keeps nobody out who is known by the key.
    certificate: Option<Result<EkCertificate, EkCertificateError>>,
    intermediates: Vec<Vec<u8>>,
    ak: Public,
    boot_id: String,
    pcr_banks: Vec<PcrHash>,
    has_event_log: bool,
    has_ima_log: bool,
}

/// Why an endorsement key may attest here.
#[derive(Clone, Copy, Debug)]
pub enum Admission<'a> {
    /// It is in the device registry. A certificate, if sent, must not be for another key, but need not be trusted, current or
    /// even readable.
    Enrolled {
        /// SHA-256 of the enrolled key's DER SubjectPublicKeyInfo.
        ek_sha256: [u8; 32],
    },
    /// Its certificate leads to a manufacturer that we trust.
    Manufacturer {
        /// The CA certificates of `manufacturer_ca_paths` that its certificate must lead to.
        roots: &'a ManufacturerRoots,
        /// UNIX seconds.
        now_unix: i64,
    },
    /// Nobody vouches for it yet: it proves its key and no more, so that an operator can decide.
    Unvouched,
}

impl Claim {
    /// Parses the first message and refuses keys that could not be what they are said to be.
    pub fn parse(payload: &[u8]) -> Result<Claim, Refusal> {
        let evidence = Evidence::from_json(payload)?;
        let ek = endorsement_key(&evidence.ek_public)?;
        let mut certificates = evidence.ek_certificates.into_iter();
        let certificate = certificates.next().map(|der| EkCertificate::parse(&der));
        if matches!(&certificate, Some(Ok(certificate)) if certificate.key() != ek.key()) {
            //= TPM-02 TPM 2.0 Part 1, Endorsement Hierarchy: "the certificate's key is the endorsement key, always"
            return Err(Refusal::EkCertificateOfAnotherKey);
        }
        let ak = attestation_key(&evidence.ak_public)?;
        Ok(Claim {
            ek_sha256: ek_sha256(ek.key()),
            ek,
            certificate,
            intermediates: certificates.collect(),
            ak,
            boot_id: evidence.boot_id,
            pcr_banks: evidence.pcr_banks,
            has_event_log: evidence.event_log,
            has_ima_log: evidence.ima_log,
        })
    }

    /// SHA-256 of the endorsement key's DER SubjectPublicKeyInfo: look here for bans and enrolment before going on.
    pub fn ek_sha256(&self) -> [u8; 32] {
        self.ek_sha256
    }

    /// The certificate sent, not verified; it is for this endorsement key. None if there is none that can be read.
    pub fn ek_certificate(&self) -> Option<&EkCertificate> {
        self.certificate.as_ref()?.as_ref().ok()
    }

    /// Admits the endorsement key, or refuses it.
    pub fn admit(self, admission: Admission<'_>) -> Result<AdmittedEk, Refusal> {
        let model = self.ek_certificate().and_then(EkCertificate::tpm_model);
        let maker = model.map(|model| model.manufacturer.clone());
        let (voucher, verified_certificate) = match admission {
            Admission::Enrolled { ek_sha256 } if ek_sha256 == self.ek_sha256 => (Voucher::Registry, None),
            Admission::Enrolled { .. } => return Err(Refusal::NotEnrolled),
            Admission::Manufacturer { roots, now_unix } => {
                let certificate = self.certificate.ok_or(Refusal::NoEkCertificate)??;
                //= TPM-01 TCG EK Credential Profile 3.2: "a certificate leads to a manufacturer's root"
                certificate.verify(&self.intermediates, roots, now_unix)?;
                (Voucher::Manufacturer, Some(certificate))
            }
            Admission::Unvouched => (Voucher::Nobody, None),
        };
        let maker = match (maker, &verified_certificate) {
            (None, _) => Maker::Unknown,
            (Some(maker), Some(_)) => Maker::Proven(maker),
            (Some(maker), None) => Maker::Claimed(maker),
        };
        Ok(AdmittedEk {
            ek: self.ek,
            ek_sha256: self.ek_sha256,
            voucher,
            verified_certificate,
            maker,
            ak: self.ak,
            boot_id: self.boot_id,
            pcr_banks: self.pcr_banks,
            has_event_log: self.has_event_log,
            has_ima_log: self.has_ima_log,
        })
    }
}
