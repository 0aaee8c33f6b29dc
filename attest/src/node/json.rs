//! The messages of node attestation as JSON, of a bounded size.

use serde::{Deserialize, Serialize};

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
