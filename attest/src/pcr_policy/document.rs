//! A signed policy as a file.
//!
//! JSON, one policy in a file:
//! ```json
//! {"format": "ironroot-signed-pcr-policy-1", "name": "firmware 1.3", "epoch": 2, "bank": "sha256", "pcrs": [7],
//!  "policy": "<64 digits>", "key": "<64 digits>", "signature": "<base64>"}
//! ```
//! `policy`: the digest of TPM2_PolicyPCR. `key`: SHA-256 of the signer's SubjectPublicKeyInfo. `signature`: over the 32 bytes of
//! `policy`, "ironroot-cache" and the epoch (u32, big-endian), with SHA-256; ECDSA as DER, RSA as PKCS #1 v1.5. What `bank` and
//! `pcrs` say is in the digest, too; `name` is the operator's word for it and not signed.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ironroot_text::hex::{hex, parse_hex};
use serde::{Deserialize, Serialize};

use super::form::{FORMAT, MAX_POLICY_FILE_BYTES, is_name};
use super::{Epoch, PolicyAuthority, PolicyDigest, SignedPolicyRefusal, Statement};
use crate::node::tpm2::{PcrHash, PcrSelection};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: String,
    name: String,
    epoch: Epoch,
    bank: String,
    pcrs: Vec<u8>,
    policy: String,
    key: String,
    signature: String,
}

/// What a file says; nothing of it is believed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedPolicy {
    statement: Statement,
    key_sha256: [u8; 32],
    signature: Vec<u8>,
}

/// A policy that the operator's key has signed. Made by [`SignedPolicy::authenticate`] alone.
///
/// ```compile_fail
/// # fn forge(signed: ironroot_attest::pcr_policy::SignedPolicy) -> ironroot_attest::pcr_policy::AuthenticPolicy {
/// ironroot_attest::pcr_policy::AuthenticPolicy { signed, public_area: vec![], tpm_signature: vec![] }
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthenticPolicy {
    signed: SignedPolicy,
    public_area: Vec<u8>,
    tpm_signature: Vec<u8>,
}

impl SignedPolicy {
    /// `statement` with a signature over its [bytes](Statement::to_be_signed) by `authority`, which is verified.
    pub fn new(
        statement: Statement,
        authority: &PolicyAuthority,
        signature: Vec<u8>,
    ) -> Result<Self, SignedPolicyRefusal> {
        let signed = Self { statement, key_sha256: authority.fingerprint(), signature };
        signed.clone().authenticate(authority)?;
        Ok(signed)
    }

    /// Reads a file.
    pub fn parse(bytes: &[u8]) -> Result<Self, SignedPolicyRefusal> {
        if bytes.len() > MAX_POLICY_FILE_BYTES {
            return Err(SignedPolicyRefusal::TooLarge);
        }
        let malformed = |said: &str| SignedPolicyRefusal::Malformed(said.to_owned());
        let document: Document = serde_json::from_slice(bytes).map_err(|error| malformed(&error.to_string()))?;
        let Document { format, name, epoch, bank, pcrs, policy, key, signature } = document;
        if format != FORMAT {
            return Err(SignedPolicyRefusal::Format(format.chars().take(64).collect()));
        }
        if !is_name(&name) {
            return Err(malformed("the name is empty, too long, or has control characters"));
        }
        let bank = bank.parse::<PcrHash>().map_err(|error| SignedPolicyRefusal::Registers(error.to_string()))?;
        let pcrs = PcrSelection::from_indices(pcrs).map_err(|e| SignedPolicyRefusal::Registers(e.to_string()))?;
        if pcrs.is_empty() {
            return Err(SignedPolicyRefusal::Registers("none at all".to_owned()));
        }
        let policy = parse_hex(&policy).ok_or_else(|| malformed("policy is not 64 hexadecimal digits"))?;
        let key_sha256 = parse_hex(&key).ok_or_else(|| malformed("key is not 64 hexadecimal digits"))?;
        let signature = STANDARD.decode(signature).map_err(|_| malformed("signature is not base64"))?;
        Ok(Self { statement: Statement { name, epoch, bank, pcrs, policy }, key_sha256, signature })
    }

    /// Which registers of which bank it is about: `sha256:0,7`.
    pub fn registers(&self) -> String {
        format!("{}:{}", self.statement.bank, self.statement.pcrs)
    }

    /// The file.
    pub fn to_json(&self) -> String {
        let Statement { name, epoch, bank, pcrs, policy } = &self.statement;
        let document = Document {
            format: FORMAT.to_owned(),
            name: name.clone(),
            epoch: *epoch,
            bank: bank.to_string(),
            pcrs: pcrs.indices().collect(),
            policy: hex(policy),
            key: hex(&self.key_sha256),
            signature: STANDARD.encode(&self.signature),
        };
        serde_json::to_string_pretty(&document).expect("text and numbers are JSON") + "\n"
    }

    /// Believes it if `authority` has signed it.
    pub fn authenticate(self, authority: &PolicyAuthority) -> Result<AuthenticPolicy, SignedPolicyRefusal> {
        let trusted = authority.fingerprint();
        if self.key_sha256 != trusted {
            let (signed_by, trusted) = (hex(&self.key_sha256), hex(&trusted));
            return Err(SignedPolicyRefusal::OtherKey { signed_by, trusted });
        }
        //= TPM-45 TPM 2.0 Part 3, TPM2_PolicyAuthorize: "what the operator's key has not signed counts for nothing"
        if !authority.has_signed(&self.statement.to_be_signed(), &self.signature) {
            return Err(SignedPolicyRefusal::Signature);
        }
        let tpm_signature = authority.tpm_signature(&self.signature).ok_or(SignedPolicyRefusal::Signature)?;
        Ok(AuthenticPolicy { signed: self, public_area: authority.public_area(), tpm_signature })
    }
}

impl AuthenticPolicy {
    /// The operator's word for the state; not signed.
    pub fn name(&self) -> &str {
        &self.signed.statement.name
    }

    /// What it was signed for.
    pub fn epoch(&self) -> Epoch {
        self.signed.statement.epoch
    }

    /// The policy of the state.
    pub fn policy(&self) -> PolicyDigest {
        self.signed.statement.policy
    }

    /// SHA-256 of the signed bytes: what a TPM verifies the signature over.
    pub fn signed_sha256(&self) -> [u8; 32] {
        super::digest::sha256(&[&self.signed.statement.to_be_signed()])
    }

    /// policyRef of TPM2_PolicyAuthorize.
    pub fn policy_ref(&self) -> Vec<u8> {
        self.epoch().policy_ref().to_vec()
    }

    /// TPMT_PUBLIC of the operator's key.
    pub fn public_area(&self) -> &[u8] {
        &self.public_area
    }

    /// TPMT_SIGNATURE.
    pub fn tpm_signature(&self) -> &[u8] {
        &self.tpm_signature
    }

    /// Refuses a policy about other registers than those of a seal.
    pub fn about(&self, bank: PcrHash, pcrs: PcrSelection) -> Result<(), SignedPolicyRefusal> {
        let statement = &self.signed.statement;
        if statement.bank == bank && statement.pcrs == pcrs {
            return Ok(());
        }
        let (signed, signed_bank) = (statement.pcrs.to_string(), statement.bank.to_string());
        let (sealed, sealed_bank) = (pcrs.to_string(), bank.to_string());
        Err(SignedPolicyRefusal::OtherRegisters { signed, signed_bank, sealed, sealed_bank })
    }

    /// Refuses an epoch that does not open what was sealed when `first` was the highest known.
    pub fn within(&self, first: Epoch) -> Result<(), SignedPolicyRefusal> {
        let (epoch, open) = (self.epoch(), first.open());
        //= TPM-46 TPM 2.0 Part 3, TPM2_PolicyAuthorize: "an older signature is worthless once a newer epoch was seen"
        if epoch < *open.start() {
            return Err(SignedPolicyRefusal::Withdrawn { epoch, first });
        }
        if epoch > *open.end() {
            return Err(SignedPolicyRefusal::TooFarAhead { epoch, last: *open.end() });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
