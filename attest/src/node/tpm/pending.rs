//! A challenge that is out, and the judgement of its answer.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use ironroot_text::hex::hex;
use zeroize::Zeroizing;

use super::ATTESTATION_TYPE;
use super::messages::Response;
use super::refusal::TpmRefusal;
use crate::node::Refusal;
use crate::node::tpm2::CHALLENGE_SECONDS;
use crate::{Selector, SelectorSet};

/// A challenge that waits for its one answer.
pub struct Pending {
    ek_sha256: [u8; 32],
    secret: Zeroizing<[u8; 32]>,
    issued_unix: i64,
}

/// A device that has the TPM of an endorsement key. Made by [`Pending::complete`] alone.
#[derive(Clone, Debug)]
pub struct AttestedKey {
    ek_sha256: [u8; 32],
}

impl Pending {
    pub(super) fn new(ek_sha256: [u8; 32], secret: [u8; 32], issued_unix: i64) -> Self {
        Self { ek_sha256, secret: Zeroizing::new(secret), issued_unix }
    }

    /// Judges the answer. `response`: the message as received. `now_unix`: UNIX seconds, by the clock of the challenge.
    pub fn complete(self, response: &[u8], now_unix: i64) -> Result<AttestedKey, TpmRefusal> {
        let seconds = now_unix.saturating_sub(self.issued_unix);
        if !(0..=CHALLENGE_SECONDS).contains(&seconds) {
            return Err(Refusal::ChallengeExpired { seconds, limit: CHALLENGE_SECONDS }.into());
        }
        let response = Response::from_json(response)?;
        verify_slices_are_equal(&response.secret, &self.secret[..]).map_err(|_| Refusal::WrongSecret)?;
        Ok(AttestedKey { ek_sha256: self.ek_sha256 })
    }
}

impl AttestedKey {
    /// Path of the agent's SPIFFE ID: `/spire/agent/tpm/` and the hash in hex.
    pub fn agent_path(&self) -> String {
        format!("/spire/agent/{ATTESTATION_TYPE}/{}", hex(&self.ek_sha256))
    }

    /// SHA-256 of the endorsement key's DER SubjectPublicKeyInfo.
    pub fn ek_sha256(&self) -> [u8; 32] {
        self.ek_sha256
    }

    /// The hash again.
    pub fn selectors(&self) -> SelectorSet {
        Selector::new(ATTESTATION_TYPE, &format!("pub_hash:{}", hex(&self.ek_sha256))).into_iter().collect()
    }
}

// Not derived: the secret stays out of logs.
impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pending").field("ek_sha256", &hex(&self.ek_sha256)).finish_non_exhaustive()
    }
}
