//! The hash algorithm of a bank of platform configuration registers.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Not the name of a bank.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is no PCR bank: use sha256, sha384, sha512 or sha1")]
pub struct UnknownPcrHash(String);

/// A bank of PCRs, named by its hash (TPM_ALG_ID, Part 2 §6.3). As text and in JSON: `sha256`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum PcrHash {
    /// What every PC Client TPM has, and firmware fills.
    #[default]
    Sha256,
    /// On newer chips; some have it alone.
    Sha384,
    /// On few chips.
    Sha512,
    /// Broken for collisions: whoever writes the firmware that is measured can make two versions that look the same. Never
    /// taken unless an operator says so.
    Sha1,
}

impl PcrHash {
    /// Every bank, the best known first.
    pub const ALL: [PcrHash; 4] = [PcrHash::Sha256, PcrHash::Sha384, PcrHash::Sha512, PcrHash::Sha1];

    /// The TPM_ALG_ID.
    pub const fn id(self) -> u16 {
        match self {
            PcrHash::Sha1 => 0x0004,
            PcrHash::Sha256 => 0x000b,
            PcrHash::Sha384 => 0x000c,
            PcrHash::Sha512 => 0x000d,
        }
    }

    /// Length of a value, bytes.
    pub const fn bytes(self) -> usize {
        match self {
            PcrHash::Sha1 => 20,
            PcrHash::Sha256 => 32,
            PcrHash::Sha384 => 48,
            PcrHash::Sha512 => 64,
        }
    }

    /// The digest of `parts`, one after the other.
    pub fn digest(self, parts: &[&[u8]]) -> digest::Digest {
        let mut context = digest::Context::new(match self {
            // Not for what anybody signs: what a chip has in this bank is made with it.
            PcrHash::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            PcrHash::Sha256 => &digest::SHA256,
            PcrHash::Sha384 => &digest::SHA384,
            PcrHash::Sha512 => &digest::SHA512,
        });
        parts.iter().for_each(|part| context.update(part));
        context.finish()
    }

    const fn name(self) -> &'static str {
        match self {
            PcrHash::Sha1 => "sha1",
            PcrHash::Sha256 => "sha256",
            PcrHash::Sha384 => "sha384",
            PcrHash::Sha512 => "sha512",
        }
    }

    /// The first bank of `accepted` that is among those `offered`.
    pub fn choose(accepted: &[PcrHash], offered: &[PcrHash]) -> Option<PcrHash> {
        accepted.iter().copied().find(|hash| offered.contains(hash))
    }
}

impl fmt::Display for PcrHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for PcrHash {
    type Err = UnknownPcrHash;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || UnknownPcrHash(text.chars().take(32).collect());
        Self::ALL.into_iter().find(|hash| hash.name() == text).ok_or_else(unknown)
    }
}

impl TryFrom<String> for PcrHash {
    type Error = UnknownPcrHash;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<PcrHash> for String {
    fn from(hash: PcrHash) -> String {
        hash.name().to_owned()
    }
}

/// Banks as a list for people: `sha256, sha384`, or `none`.
pub fn list_banks(banks: &[PcrHash]) -> String {
    if banks.is_empty() {
        return "none".to_owned();
    }
    banks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::PcrHash::{Sha1, Sha256, Sha384};
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for hash in PcrHash::ALL {
            assert_eq!(hash.to_string().parse(), Ok(hash));
        }
        assert!("sha-256".parse::<PcrHash>().is_err());
        assert_eq!(list_banks(&[Sha256, Sha384]), "sha256, sha384");
        assert_eq!(list_banks(&[]), "none");
    }

    #[test]
    fn the_servers_order_decides_and_nothing_else_is_taken() {
        for (accepted, offered, expected) in [
            (&[Sha256][..], &[Sha1, Sha256, Sha384][..], Some(Sha256)),
            (&[Sha384, Sha256], &[Sha256, Sha384], Some(Sha384)),
            (&[Sha384, Sha256], &[Sha1, Sha256], Some(Sha256)),
            (&[Sha256], &[Sha1], None),
            (&[Sha256], &[Sha384], None),
            (&[Sha256, Sha1], &[Sha1], Some(Sha1)),
            (&[Sha256], &[], None),
        ] {
            assert_eq!(PcrHash::choose(accepted, offered), expected, "{accepted:?} {offered:?}");
        }
    }
}
