//! The hash algorithms and curves that we accept, with their TPM identifiers (Part 2 §6.3, §6.4).

use aws_lc_rs::{digest, hmac};

use super::wire::StructureError;

/// TPM_ALG_NULL.
pub(super) const ALG_NULL: u16 = 0x0010;

/// A hash algorithm. SHA-1 is absent on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// TPM_ALG_SHA256, 0x000b.
    Sha256,
    /// TPM_ALG_SHA384, 0x000c.
    Sha384,
    /// TPM_ALG_SHA512, 0x000d.
    Sha512,
}

impl Hash {
    /// Longest digest, bytes.
    pub const MAX_BYTES: usize = 64;

    /// From a TPM_ALG_ID.
    pub fn from_id(id: u16) -> Result<Self, StructureError> {
        match id {
            0x000b => Ok(Hash::Sha256),
            0x000c => Ok(Hash::Sha384),
            0x000d => Ok(Hash::Sha512),
            other => Err(StructureError::HashAlgorithm(other)),
        }
    }

    /// The TPM_ALG_ID.
    pub fn id(self) -> u16 {
        match self {
            Hash::Sha256 => 0x000b,
            Hash::Sha384 => 0x000c,
            Hash::Sha512 => 0x000d,
        }
    }

    /// Length of a digest, bytes.
    pub fn bytes(self) -> usize {
        self.algorithm().output_len()
    }

    /// The digest of `parts`, one after the other.
    pub fn digest(self, parts: &[&[u8]]) -> digest::Digest {
        let mut context = digest::Context::new(self.algorithm());
        parts.iter().for_each(|part| context.update(part));
        context.finish()
    }

    /// The same hash in the crypto library's HMAC: KDFa and sessions are made with it.
    pub(super) fn hmac(self) -> hmac::Algorithm {
        match self {
            Hash::Sha256 => hmac::HMAC_SHA256,
            Hash::Sha384 => hmac::HMAC_SHA384,
            Hash::Sha512 => hmac::HMAC_SHA512,
        }
    }

    fn algorithm(self) -> &'static digest::Algorithm {
        match self {
            Hash::Sha256 => &digest::SHA256,
            Hash::Sha384 => &digest::SHA384,
            Hash::Sha512 => &digest::SHA512,
        }
    }
}

/// An elliptic curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    /// TPM_ECC_NIST_P256, 0x0003.
    P256,
    /// TPM_ECC_NIST_P384, 0x0004.
    P384,
}

impl Curve {
    /// Longest coordinate that a TPM may send, bytes (P-521). Longer than any curve accepted.
    pub(super) const MAX_COORDINATE_BYTES: usize = 66;

    /// From a TPM_ECC_CURVE.
    pub fn from_id(id: u16) -> Result<Self, StructureError> {
        match id {
            0x0003 => Ok(Curve::P256),
            0x0004 => Ok(Curve::P384),
            other => Err(StructureError::EccCurve(other)),
        }
    }

    /// The TPM_ECC_CURVE.
    pub fn id(self) -> u16 {
        match self {
            Curve::P256 => 0x0003,
            Curve::P384 => 0x0004,
        }
    }

    /// Length of a coordinate, bytes.
    pub fn coordinate_bytes(self) -> usize {
        match self {
            Curve::P256 => 32,
            Curve::P384 => 48,
        }
    }
}
