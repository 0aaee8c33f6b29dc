//! Signatures, with the name of what made them.

use super::refusal::SshPopRefusal;
use super::wire::{self, Reader};

/// Longest signature accepted, bytes: one of an RSA key of 8192 bits.
pub(super) const MAX_BYTES: usize = 1024;

/// A signature. Source: RFC 4253, 6.6; RFC 8332, 3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshSignature {
    /// The algorithm: `ssh-ed25519`, `rsa-sha2-256` and so on.
    pub format: String,
    /// What it made, in the algorithm's own form.
    pub blob: Vec<u8>,
}

impl SshSignature {
    /// Reads a signature by itself.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, SshPopRefusal> {
        let mut reader = Reader::new(bytes);
        let (format, blob) = (reader.text()?.to_owned(), reader.string()?.to_vec());
        reader.finish()?;
        Ok(Self { format, blob })
    }

    /// As it is parsed.
    pub fn to_bytes(&self) -> Vec<u8> {
        [wire::string(self.format.as_bytes()), wire::string(&self.blob)].concat()
    }
}
