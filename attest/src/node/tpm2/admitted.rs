//! An endorsement key that may attest here, about to be challenged.

use super::{Challenge, ClockReading, PcrHash, PcrSelection, Pending, list_banks};
use crate::ek_certificate::EkCertificate;
use crate::node::Refusal;
use crate::structures::{Public, make_credential};

/// Longest trust domain name, bytes (SPIFFE ID standard §2.1).
const MAX_TRUST_DOMAIN_BYTES: usize = 255;

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
    pub(super) ak: Public,
    pub(super) boot_id: String,
    pub(super) pcr_banks: Vec<PcrHash>,
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
    /// Whether the key of the certificate request must be certified to live in the TPM.
    pub require_resident_key: bool,
    /// Clock and counters at this TPM's last attestation, if there was one.
    pub last_seen: Option<ClockReading>,
}

impl AdmittedEk {
    /// SHA-256 of the endorsement key's DER SubjectPublicKeyInfo.
    pub fn ek_sha256(&self) -> [u8; 32] {
        self.ek_sha256
    }

    /// Wraps `secret` for this endorsement key and attestation key and says what to sign.
    ///
    /// `nonce` and `secret`: fresh from a cryptographic random source, used once. `now_unix`: UNIX seconds.
    pub fn challenge(
        self,
        expectation: Expectation,
        nonce: [u8; 32],
        secret: [u8; 32],
        now_unix: i64,
    ) -> Result<(Pending, Challenge), Refusal> {
        if expectation.trust_domain.len() > MAX_TRUST_DOMAIN_BYTES {
            return Err(Refusal::TrustDomain);
        }
        let pcr_bank = self.choose_bank(&expectation)?;
        let credential = make_credential(&self.ek, self.ak.name(), &secret).map_err(|_| Refusal::Credential)?;
        let challenge = Challenge {
            credential: credential.id_object,
            secret: credential.encrypted_secret,
            nonce,
            pcrs: expectation.pcrs,
            pcr_bank,
        };
        Ok((Pending::new(self, expectation, pcr_bank, (nonce, secret), now_unix), challenge))
    }

    fn choose_bank(&self, expectation: &Expectation) -> Result<PcrHash, Refusal> {
        if expectation.pcrs.is_empty() {
            return Ok(PcrHash::default());
        }
        PcrHash::choose(&expectation.pcr_banks, &self.pcr_banks).ok_or_else(|| Refusal::PcrBank {
            offered: list_banks(&self.pcr_banks),
            accepted: list_banks(&expectation.pcr_banks),
        })
    }
}
