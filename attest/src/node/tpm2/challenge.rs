//! What an admitted endorsement key is asked.

use super::{AdmittedEk, Challenge, Expectation, PcrHash, Pending, list_banks};
use crate::node::Refusal;
use crate::structures::make_credential;

/// Longest trust domain name, bytes (SPIFFE ID standard §2.1).
const MAX_TRUST_DOMAIN_BYTES: usize = 255;

impl AdmittedEk {
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
