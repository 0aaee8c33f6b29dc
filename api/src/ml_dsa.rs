//! ML-DSA, whose signatures outlive quantum computers: parameter sets, as certificates and configurations call them.

use std::fmt;

use aws_lc_rs::signature::{ML_DSA_44, ML_DSA_65, ML_DSA_87, PqdsaVerificationAlgorithm};
use const_oid::ObjectIdentifier;
use const_oid::db::fips204::{ID_ML_DSA_44, ID_ML_DSA_65, ID_ML_DSA_87};
use der::Decode;
use spki::SubjectPublicKeyInfoRef;

/// A parameter set. Keys sign the message itself, without a context. Source: FIPS 204 §4; RFC 9881 §3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MlDsa {
    /// ML-DSA-44.
    MlDsa44,
    /// ML-DSA-65.
    MlDsa65,
    /// ML-DSA-87.
    MlDsa87,
}

impl MlDsa {
    /// All of them, the shortest keys first.
    pub const ALL: [Self; 3] = [Self::MlDsa44, Self::MlDsa65, Self::MlDsa87];

    /// The set of this name in certificates, of keys and of signatures alike. Source: RFC 9881 §2.
    pub fn of_oid(oid: ObjectIdentifier) -> Option<Self> {
        Self::ALL.into_iter().find(|set| set.oid() == oid)
    }

    /// The set of a key, DER SubjectPublicKeyInfo; none of a key of another kind.
    pub fn of_spki(der: &[u8]) -> Option<Self> {
        Self::of_oid(SubjectPublicKeyInfoRef::from_der(der).ok()?.algorithm.oid)
    }

    /// As the standard calls it, and JOSE.
    pub fn name(self) -> &'static str {
        match self {
            Self::MlDsa44 => "ML-DSA-44",
            Self::MlDsa65 => "ML-DSA-65",
            Self::MlDsa87 => "ML-DSA-87",
        }
    }

    /// Its name in certificates.
    pub fn oid(self) -> ObjectIdentifier {
        match self {
            Self::MlDsa44 => ID_ML_DSA_44,
            Self::MlDsa65 => ID_ML_DSA_65,
            Self::MlDsa87 => ID_ML_DSA_87,
        }
    }

    /// Length of a public key, bytes. Source: FIPS 204 §4, table 2.
    pub fn public_key_bytes(self) -> usize {
        match self {
            Self::MlDsa44 => 1312,
            Self::MlDsa65 => 1952,
            Self::MlDsa87 => 2592,
        }
    }

    /// Length of a signature, bytes. Source: FIPS 204 §4, table 2.
    pub fn signature_bytes(self) -> usize {
        match self {
            Self::MlDsa44 => 2420,
            Self::MlDsa65 => 3309,
            Self::MlDsa87 => 4627,
        }
    }

    /// What its signatures are verified with.
    pub fn verification(self) -> &'static PqdsaVerificationAlgorithm {
        match self {
            Self::MlDsa44 => &ML_DSA_44,
            Self::MlDsa65 => &ML_DSA_65,
            Self::MlDsa87 => &ML_DSA_87,
        }
    }
}

impl fmt::Display for MlDsa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ML_DSA_44_SIGNING, ML_DSA_65_SIGNING, ML_DSA_87_SIGNING};
    use rcgen::{PKCS_ML_DSA_44, PKCS_ML_DSA_65, PKCS_ML_DSA_87, PublicKeyData};

    use super::*;

    #[test]
    fn sets_are_told_by_their_keys_and_have_the_lengths_that_the_library_makes() {
        let signing = [&ML_DSA_44_SIGNING, &ML_DSA_65_SIGNING, &ML_DSA_87_SIGNING];
        for (set, signing) in MlDsa::ALL.into_iter().zip(signing) {
            assert_eq!(
                (signing.public_key_len(), signing.signature_len()),
                (set.public_key_bytes(), set.signature_bytes())
            );
        }
        for (set, kind) in MlDsa::ALL.into_iter().zip([&PKCS_ML_DSA_44, &PKCS_ML_DSA_65, &PKCS_ML_DSA_87]) {
            let spki = rcgen::KeyPair::generate_for(kind).expect("a key").subject_public_key_info();
            assert_eq!(MlDsa::of_spki(&spki), Some(set));
        }
        let other = rcgen::KeyPair::generate().expect("a key").subject_public_key_info();
        assert_eq!((MlDsa::of_spki(&other), MlDsa::of_spki(b"0")), (None, None));
    }
}
