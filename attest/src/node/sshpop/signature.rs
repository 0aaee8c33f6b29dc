//! Signatures, with the name of what made them.

use super::refusal::SshPopRefusal;
use super::wire::{self, Reader};
use crate::other_forms;

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

    /// Those that are as good: of ECDSA's (r, s) there is (r, n - s).
    pub(super) fn other_forms(&self) -> Vec<Self> {
        let mut numbers = Reader::new(&self.blob);
        let (true, Ok(r), Ok(s)) = (self.format.starts_with("ecdsa-"), numbers.positive(), numbers.positive()) else {
            return Vec::new();
        };
        let written = |s: Vec<u8>| [wire::positive(r), wire::positive(&s)].concat();
        other_forms::negated(s).map(|s| Self { format: self.format.clone(), blob: written(s) }).collect()
    }

    /// As it is parsed.
    pub fn to_bytes(&self) -> Vec<u8> {
        [wire::string(self.format.as_bytes()), wire::string(&self.blob)].concat()
    }
}
