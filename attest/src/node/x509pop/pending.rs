//! A challenge that is out, and the judgement of its answer.

use ironroot_text::hex::hex;

use super::certificate::DeviceCertificate;
use super::messages::{Challenge, Response};
use super::names::NamesKind;
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
    /// How long its answer may take.
    seconds: i64,
}

/// A device that has the key of its certificate. Made by [`Pending::complete`] alone.
#[derive(Clone, Debug)]
pub struct AttestedCertificate {
    certificate: DeviceCertificate,
    issuers: Vec<Fingerprint>,
}

impl Pending {
    pub(super) fn new(
        certificate: DeviceCertificate,
        issuers: Vec<Fingerprint>,
        challenge: Challenge,
        issued_unix: i64,
    ) -> Self {
        Self { certificate, issuers, challenge, issued_unix, seconds: ANSWER_SECONDS }
    }

    /// Waits for its answer as long as for that of another challenge, `seconds`, which comes with it; not shorter than for itself.
    pub fn wait_for(&mut self, seconds: i64) {
        self.seconds = self.seconds.max(seconds);
    }

    /// Judges the answer. `response`: the message as received. `now_unix`: UNIX seconds, by the clock of the challenge.
    pub fn complete(self, response: &[u8], now_unix: i64) -> Result<AttestedCertificate, X509PopRefusal> {
        let seconds = now_unix.saturating_sub(self.issued_unix);
        if !(0..=self.seconds).contains(&seconds) {
            return Err(X509PopRefusal::Late(seconds));
        }
        let response = Response::from_json(response, self.challenge.family)?;
        self.certificate.key.check(&self.challenge.nonce, &response)?;
        Ok(AttestedCertificate { certificate: self.certificate, issuers: self.issuers })
    }
}

impl AttestedCertificate {
    /// What it says.
    pub fn certificate(&self) -> &DeviceCertificate {
        &self.certificate
    }

    /// SHA-256 of what the authority has signed (TBSCertificate). The fingerprint is of the whole certificate, which its holder can
    /// write in several ways: an ECDSA signature (r, s) is as good as (r, n - s). This is what tells certificates apart.
    pub fn certificate_sha256(&self) -> [u8; 32] {
        self.certificate.signed_sha256
    }

    /// What the certificate says, also in URIs of `trust_domain`, and who issued it.
    pub fn selectors(&self, trust_domain: &str) -> SelectorSet {
        let certificate = &self.certificate;
        let mut values = vec![format!("serialnumber:{}", certificate.serial_number())];
        values.extend(certificate.subject().last(NamesKind::CommonName).map(|name| format!("subject:cn:{name}")));
        values.extend(self.issuers.iter().map(|issuer| format!("ca:fingerprint:{}", hex(issuer))));
        let pairs = certificate.alternative_names().pairs(trust_domain);
        values.extend(pairs.iter().map(|(key, value)| format!("san:{key}:{value}")));
        // A certificate's text may hold what no selector holds, such as control characters: no entry could ask for it.
        values.iter().filter_map(|value| Selector::new(ATTESTATION_TYPE, value).ok()).collect()
    }
}
