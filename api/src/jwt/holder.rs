//! The key of a WIT-SVID's holder: what the token names, so that nobody else can use it.

use serde::{Serialize, Serializer};
use thiserror::Error;

use super::algorithm::Algorithm;
use super::public_key::PublicKey;

/// Why a key cannot be named. Source of the words: SPIRE `ValidatePublicKeyAndSigningAlgorithm`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HolderKeyError {
    /// No key, or one of a kind that signs nothing here.
    #[error(
        "it is no DER SubjectPublicKeyInfo of an EC P-256, P-384 or P-521 key or of an RSA key of 2048 to 8192 bits"
    )]
    Key,
    /// None of the standard's nine.
    #[error("unsupported signing algorithm: {0:?}")]
    UnknownAlgorithm(String),
    /// It signs with keys of another kind.
    #[error("unsupported signing algorithm for {kind} key: {algorithm}")]
    Algorithm {
        /// What kind of key it is.
        kind: &'static str,
        /// What was asked for.
        algorithm: &'static str,
    },
}

/// The public half of a workload's key, and what the workload signs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HolderKey {
    key: PublicKey,
    algorithm: Algorithm,
}

impl HolderKey {
    /// `spki`: DER SubjectPublicKeyInfo; `algorithm`: its name in RFC 7518.
    pub fn new(spki: &[u8], algorithm: &str) -> Result<Self, HolderKeyError> {
        let key = PublicKey::parse(spki).ok_or(HolderKeyError::Key)?;
        let unknown = || HolderKeyError::UnknownAlgorithm(algorithm.chars().take(16).collect());
        let algorithm = Algorithm::named(algorithm).ok_or_else(unknown)?;
        match key.goes_with(algorithm) {
            true => Ok(Self { key, algorithm }),
            false => Err(HolderKeyError::Algorithm { kind: key.kind_name(), algorithm: algorithm.name() }),
        }
    }
}

/// A JWK with its algorithm.
impl Serialize for HolderKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let jwk = self.key.jwk(None, None).ok_or_else(|| serde::ser::Error::custom("not a key"))?;
        jwk.with(self.algorithm).serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{KeyPair, PublicKeyData};

    use super::*;

    fn refused(algorithm: &'static rcgen::SignatureAlgorithm, named: &str) -> Option<String> {
        let spki = KeyPair::generate_for(algorithm).unwrap().subject_public_key_info();
        HolderKey::new(&spki, named).err().map(|error| error.to_string())
    }

    #[test]
    fn a_key_is_named_with_an_algorithm_that_it_can_sign_with_and_no_other() {
        let (p256, p384) = (&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384);
        assert_eq!(refused(p256, "ES256"), None);
        assert_eq!(refused(p384, "ES384"), None);
        assert_eq!(refused(p256, "RS256").unwrap(), "unsupported signing algorithm for ec-p256 key: RS256");
        assert_eq!(refused(p384, "ES256").unwrap(), "unsupported signing algorithm for ec-p384 key: ES256");
        assert_eq!(refused(p256, "none").unwrap(), "unsupported signing algorithm: \"none\"");
        assert_eq!(refused(p256, "").unwrap(), "unsupported signing algorithm: \"\"");
        for rsa in ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"] {
            assert_eq!(refused(&rcgen::PKCS_RSA_SHA256, rsa), None, "{rsa}");
        }
        assert_eq!(HolderKey::new(b"no key", "ES256"), Err(HolderKeyError::Key));
    }
}
