//! A challenge that is out, and the judgement of its answer.

use ironroot_text::hex::hex;

use super::certificate::DeviceCertificate;
use super::messages::{Challenge, Response};
use super::refusal::X509PopRefusal;
use super::{ANSWER_SECONDS, ATTESTATION_TYPE};
use crate::authorities::Fingerprint;
use crate::{Selector, SelectorSet};

/// A challenge that waits for its one answer.
#[derive(Debug)]
pub struct Pending {
    certificate: DeviceCertificate,
    issuers: Vec<Fingerprint>,
    challenge: Challenge,
    issued_unix: i64,
}

/// A device that has the key of its certificate. Made by [`Pending::complete`] alone.
#[derive(Clone, Debug)]
pub struct AttestedCertificate {
    fingerprint: Fingerprint,
    certificate_sha256: [u8; 32],
    selectors: SelectorSet,
}

impl Pending {
    pub(super) fn new(
        certificate: DeviceCertificate,
        issuers: Vec<Fingerprint>,
        challenge: Challenge,
        issued_unix: i64,
    ) -> Self {
        Self { certificate, issuers, challenge, issued_unix }
    }

    /// Judges the answer. `response`: the message as received. `now_unix`: UNIX seconds, by the clock of the challenge.
    pub fn complete(self, response: &[u8], now_unix: i64) -> Result<AttestedCertificate, X509PopRefusal> {
        let seconds = now_unix.saturating_sub(self.issued_unix);
        if !(0..=ANSWER_SECONDS).contains(&seconds) {
            return Err(X509PopRefusal::Late(seconds));
        }
        let response = Response::from_json(response, self.challenge.family)?;
        self.certificate.key.check(&self.challenge.nonce, &response)?;
        Ok(AttestedCertificate {
            fingerprint: self.certificate.fingerprint,
            certificate_sha256: self.certificate.signed_sha256,
            selectors: selectors(&self.certificate, &self.issuers),
        })
    }
}

impl AttestedCertificate {
    /// Path of the agent's SPIFFE ID: `/spire/agent/x509pop/` and the SHA-1 of the certificate in hex.
    pub fn agent_path(&self) -> String {
        format!("/spire/agent/{ATTESTATION_TYPE}/{}", hex(&self.fingerprint))
    }

    /// SHA-256 of what the authority has signed (TBSCertificate). The path is of the whole certificate, which its holder can
    /// write in several ways: an ECDSA signature (r, s) is as good as (r, n - s). This is what tells certificates apart.
    pub fn certificate_sha256(&self) -> [u8; 32] {
        self.certificate_sha256
    }

    /// What the certificate says, and who issued it.
    pub fn selectors(&self) -> &SelectorSet {
        &self.selectors
    }
}

fn selectors(certificate: &DeviceCertificate, issuers: &[Fingerprint]) -> SelectorSet {
    let mut values = vec![format!("serialnumber:{}", certificate.serial_number)];
    values.extend(certificate.common_name.iter().map(|name| format!("subject:cn:{name}")));
    values.extend(issuers.iter().map(|issuer| format!("ca:fingerprint:{}", hex(issuer))));
    // A certificate's text may hold what no selector holds, such as control characters: no entry could ask for it.
    values.iter().filter_map(|value| Selector::new(ATTESTATION_TYPE, value).ok()).collect()
}
