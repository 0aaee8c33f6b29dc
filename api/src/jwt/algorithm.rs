//! The nine signature algorithms that a JWT-SVID may name, and which key each goes with.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384,
    RSA_PSS_2048_8192_SHA512, VerificationAlgorithm,
};

use super::key_kind::KeyKind;

/// A value of the `alg` header. Source: JWT-SVID.md §2.1; RFC 7518 §3.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of RFC 7518")]
pub enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Es256,
    Es384,
    Es512,
    Ps256,
    Ps384,
    Ps512,
}

/// All there are. What is not here is refused before anything else is looked at.
const NAMES: [(&str, Algorithm); 9] = [
    ("RS256", Algorithm::Rs256),
    ("RS384", Algorithm::Rs384),
    ("RS512", Algorithm::Rs512),
    ("ES256", Algorithm::Es256),
    ("ES384", Algorithm::Es384),
    ("ES512", Algorithm::Es512),
    ("PS256", Algorithm::Ps256),
    ("PS384", Algorithm::Ps384),
    ("PS512", Algorithm::Ps512),
];

impl Algorithm {
    /// The algorithm of this name, case and all.
    pub fn named(name: &str) -> Option<Self> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, algorithm)| *algorithm)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(_, known)| *known == self).map_or("", |(name, _)| name)
    }

    /// How a signature of a key of this `kind` is verified; `None` if the two do not go together, so that no key is ever used in
    /// a way that its owner did not mean.
    pub(super) fn verification(self, kind: KeyKind) -> Option<&'static dyn VerificationAlgorithm> {
        Some(match (self, kind) {
            (Self::Rs256, KeyKind::Rsa) => &RSA_PKCS1_2048_8192_SHA256,
            (Self::Rs384, KeyKind::Rsa) => &RSA_PKCS1_2048_8192_SHA384,
            (Self::Rs512, KeyKind::Rsa) => &RSA_PKCS1_2048_8192_SHA512,
            (Self::Ps256, KeyKind::Rsa) => &RSA_PSS_2048_8192_SHA256,
            (Self::Ps384, KeyKind::Rsa) => &RSA_PSS_2048_8192_SHA384,
            (Self::Ps512, KeyKind::Rsa) => &RSA_PSS_2048_8192_SHA512,
            (Self::Es256, KeyKind::P256) => &ECDSA_P256_SHA256_FIXED,
            (Self::Es384, KeyKind::P384) => &ECDSA_P384_SHA384_FIXED,
            (Self::Es512, KeyKind::P521) => &ECDSA_P521_SHA512_FIXED,
            _ => return None,
        })
    }
}
