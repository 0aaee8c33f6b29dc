//! The messages of node attestation as JSON, of a bounded size.

use serde::{Deserialize, Serialize};

use super::base64_bytes::Base64;
use super::refusal::Refusal;

/// Longest message of node attestation accepted, bytes of JSON; an answer with a boot log may be longer.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;

pub(super) fn encode(message: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(message).expect("strings and numbers always serialise")
}

pub(super) fn decode<'de, T: Deserialize<'de>>(json: &'de [u8]) -> Result<T, Refusal> {
    decode_within(json, MAX_MESSAGE_BYTES)
}

/// As [`decode`], of at most `limit` bytes.
pub(super) fn decode_within<'de, T: Deserialize<'de>>(json: &'de [u8], limit: usize) -> Result<T, Refusal> {
    //= TPM-38 RFC 8259 9: "An implementation may set limits on the size of texts that it accepts."
    if json.len() > limit {
        return Err(Refusal::MessageTooLong { bytes: json.len(), limit });
    }
    serde_json::from_slice(json).map_err(|error| Refusal::MessageFormat(printable(&error.to_string())))
}

/// Parser messages quote the peer's text: keep it short and on one line.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(160).collect()
}

/// What `TPM2_MakeCredential` gave, as go-attestation and SPIRE's `tpm_devid` write it; each part has at most `MAX` bytes.
#[derive(Serialize, Deserialize)]
pub(super) struct CredentialJson<const MAX: usize> {
    #[serde(rename = "Credential")]
    pub credential: Base64<MAX>,
    #[serde(rename = "Secret")]
    pub secret: Base64<MAX>,
}

impl<const MAX: usize> CredentialJson<MAX> {
    pub fn of(credential: &[u8], secret: &[u8]) -> Self {
        Self { credential: Base64(credential.to_vec()), secret: Base64(secret.to_vec()) }
    }
}
