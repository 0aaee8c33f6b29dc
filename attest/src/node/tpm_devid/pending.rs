//! A challenge that is out, and the judgement of its answer.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use ironroot_text::hex::hex;
use zeroize::Zeroizing;

use super::messages::Response;
use super::refusal::TpmDevIdRefusal;
use super::verified::Verified;
use super::{ATTESTATION_TYPE, NONCE_BYTES};
use crate::authorities::Fingerprint;
use crate::node::Refusal;
use crate::node::tpm2::CHALLENGE_SECONDS;
use crate::{Selector, SelectorSet};

/// A challenge that waits for its one answer.
pub struct Pending {
    verified: Verified,
    nonce: [u8; NONCE_BYTES],
    secret: Zeroizing<[u8; 32]>,
    issued_unix: i64,
}

/// A device whose DevID key lives in a genuine chip. Made by [`Pending::complete`] alone.
#[derive(Clone, Debug)]
pub struct AttestedDevId {
    fingerprint: Fingerprint,
    other_fingerprints: Vec<Fingerprint>,
    certificate_sha256: [u8; 32],
    ek_sha256: [u8; 32],
    selectors: SelectorSet,
}

impl Pending {
    pub(super) fn new(verified: Verified, (nonce, secret): ([u8; NONCE_BYTES], [u8; 32]), issued_unix: i64) -> Self {
        Self { verified, nonce, secret: Zeroizing::new(secret), issued_unix }
    }

    /// Judges the answer. `response`: the message as received. `now_unix`: UNIX seconds, by the clock of the challenge.
    pub fn complete(self, response: &[u8], now_unix: i64) -> Result<AttestedDevId, TpmDevIdRefusal> {
        let seconds = now_unix.saturating_sub(self.issued_unix);
        if !(0..=CHALLENGE_SECONDS).contains(&seconds) {
            return Err(Refusal::ChallengeExpired { seconds, limit: CHALLENGE_SECONDS }.into());
        }
        let response = Response::from_json(response)?;
        verify_slices_are_equal(&response.secret, &self.secret[..]).map_err(|_| Refusal::WrongSecret)?;
        if !self.verified.certificate.key.signed_with_sha256(&self.nonce, &response.signature) {
            return Err(TpmDevIdRefusal::Possession);
        }
        Ok(AttestedDevId {
            fingerprint: self.verified.certificate.fingerprint,
            other_fingerprints: self.verified.certificate.other_fingerprints.clone(),
            certificate_sha256: self.verified.certificate.signed_sha256,
            ek_sha256: self.verified.ek_sha256,
            selectors: selectors(&self.verified),
        })
    }
}

impl AttestedDevId {
    /// Path of the agent's SPIFFE ID: `/spire/agent/tpm_devid/` and the SHA-1 of the certificate in hex.
    pub fn agent_path(&self) -> String {
        agent_path(&self.fingerprint)
    }

    /// The same of the certificate with its signature written in another way, which its holder can do.
    pub fn other_agent_paths(&self) -> Vec<String> {
        self.other_fingerprints.iter().map(agent_path).collect()
    }

    /// SHA-256 of what the authority has signed (TBSCertificate): the same however the signature is written, which the path is not.
    pub fn certificate_sha256(&self) -> [u8; 32] {
        self.certificate_sha256
    }

    /// SHA-256 of the endorsement key's DER SubjectPublicKeyInfo.
    pub fn ek_sha256(&self) -> [u8; 32] {
        self.ek_sha256
    }

    /// What the certificate says, and who issued it.
    pub fn selectors(&self) -> &SelectorSet {
        &self.selectors
    }
}

fn agent_path(fingerprint: &Fingerprint) -> String {
    format!("/spire/agent/{ATTESTATION_TYPE}/{}", hex(fingerprint))
}

fn selectors(verified: &Verified) -> SelectorSet {
    let certificate = &verified.certificate;
    let mut values: Vec<String> = certificate.subject.iter().map(|name| format!("subject:cn:{name}")).collect();
    values.extend(certificate.issuer.iter().map(|name| format!("issuer:cn:{name}")));
    values.extend(verified.issuers.iter().map(|issuer| format!("ca:fingerprint:{}", hex(issuer))));
    // A certificate's text may hold what no selector holds, such as control characters: no entry could ask for it.
    values.iter().filter_map(|value| Selector::new(ATTESTATION_TYPE, value).ok()).collect()
}

// Not derived: the secret stays out of logs.
impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pending").field("verified", &self.verified).finish_non_exhaustive()
    }
}
