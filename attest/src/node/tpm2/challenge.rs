//! What an admitted endorsement key is asked.

use super::ima::with_those_of_ima;
use super::{AdmittedEk, Challenge, EventLogPolicy, Expectation, PcrHash, PcrSelection, Pending, list_banks};
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
        let asks_for_ima = self.asks_for_ima(expectation.ima_log)?;
        let pcrs = if asks_for_ima { with_those_of_ima(expectation.pcrs) } else { expectation.pcrs };
        let pcr_bank = self.choose_bank(&expectation, pcrs)?;
        let event_log = self.asks_for_log(&expectation)?;
        let credential = make_credential(&self.ek, self.ak.name(), &secret).map_err(|_| Refusal::Credential)?;
        let challenge = Challenge {
            credential: credential.id_object,
            secret: credential.encrypted_secret,
            nonce,
            pcrs,
            pcr_bank,
            event_log,
        };
        Ok((Pending::new(self, expectation, (pcr_bank, pcrs), (nonce, secret), now_unix), challenge))
    }

    /// Whether the log of the boot is asked for: an agent that did not say that it has one may not know the question.
    fn asks_for_log(&self, expectation: &Expectation) -> Result<bool, Refusal> {
        match expectation.event_log {
            EventLogPolicy::Required if !self.has_event_log => Err(Refusal::NoEventLog),
            EventLogPolicy::Ignored => Ok(false),
            EventLogPolicy::Lenient | EventLogPolicy::Verified | EventLogPolicy::Required => {
                Ok(self.has_event_log && !expectation.pcrs.is_empty())
            }
        }
    }

    fn choose_bank(&self, expectation: &Expectation, pcrs: PcrSelection) -> Result<PcrHash, Refusal> {
        if pcrs.is_empty() {
            return Ok(PcrHash::default());
        }
        PcrHash::choose(&expectation.pcr_banks, &self.pcr_banks).ok_or_else(|| Refusal::PcrBank {
            offered: list_banks(&self.pcr_banks),
            accepted: list_banks(&expectation.pcr_banks),
        })
    }
}
