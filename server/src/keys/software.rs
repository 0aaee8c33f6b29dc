//! A private key in this process: whoever reads its memory has it.

use std::fmt;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair,
    ML_DSA_44_SIGNING, ML_DSA_65_SIGNING, ML_DSA_87_SIGNING, PqdsaKeyPair, PqdsaSigningAlgorithm, RSA_PKCS1_SHA256,
    RsaKeyPair,
};
use ironroot_api::MlDsa;
use ironroot_hsm::KeyKind;
use zeroize::Zeroizing;

use super::error::KeyError;

/// A private key and its public half.
pub struct SoftwareKey {
    kind: KeyKind,
    pair: Pair,
    pkcs8: Zeroizing<Vec<u8>>,
    spki: Vec<u8>,
    /// How many of the last bytes of `spki` are the key itself.
    key_bytes: usize,
}

enum Pair {
    Ec(EcdsaKeyPair),
    Rsa(RsaKeyPair),
    MlDsa(PqdsaKeyPair),
}

impl SoftwareKey {
    /// A new key. One of RSA takes seconds: not for an async worker.
    pub fn generate(kind: KeyKind) -> Result<Self, KeyError> {
        let (pair, pkcs8) = Pair::generate(kind).map_err(|_| KeyError::Crypto("make a key"))?;
        Self::of(kind, pair, pkcs8).ok_or(KeyError::Crypto("tell a key's public half"))
    }

    /// A stored key; none if it is not the DER PKCS#8 of a key of a known kind.
    pub fn from_pkcs8(der: &[u8]) -> Option<Self> {
        let stored = || Zeroizing::new(der.to_vec());
        for kind in [KeyKind::EcP256, KeyKind::EcP384] {
            if let Ok(pair) = EcdsaKeyPair::from_pkcs8(ec_algorithm(kind), der) {
                return Self::of(kind, Pair::Ec(pair), stored());
            }
        }
        for set in MlDsa::ALL {
            if let Ok(pair) = PqdsaKeyPair::from_pkcs8(ml_dsa_algorithm(set), der) {
                return Self::of(KeyKind::MlDsa(set), Pair::MlDsa(pair), stored());
            }
        }
        let pair = RsaKeyPair::from_pkcs8(der).ok()?;
        let kind = match pair.public_modulus_len() {
            256 => KeyKind::Rsa2048,
            512 => KeyKind::Rsa4096,
            _ => return None,
        };
        Self::of(kind, Pair::Rsa(pair), stored())
    }

    fn of(kind: KeyKind, pair: Pair, pkcs8: Zeroizing<Vec<u8>>) -> Option<Self> {
        let (spki, key_bytes) = match &pair {
            Pair::Ec(pair) => (pair.public_key().as_der().ok()?.as_ref().to_vec(), pair.public_key().as_ref().len()),
            Pair::Rsa(pair) => (pair.public_key().as_der().ok()?.as_ref().to_vec(), pair.public_key().as_ref().len()),
            Pair::MlDsa(pair) => (pair.public_key().as_der().ok()?.as_ref().to_vec(), pair.public_key().as_ref().len()),
        };
        Some(Self { kind, pair, pkcs8, spki, key_bytes })
    }

    /// What kind of key it is.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The public half, a DER SubjectPublicKeyInfo.
    pub fn spki_der(&self) -> &[u8] {
        &self.spki
    }

    /// The public half, as its SubjectPublicKeyInfo has it: an uncompressed point, a DER RSAPublicKey, or the bytes of FIPS 204.
    pub fn public_key(&self) -> &[u8] {
        &self.spki[self.spki.len() - self.key_bytes..]
    }

    /// The private half, DER PKCS#8.
    pub fn pkcs8_der(&self) -> &[u8] {
        &self.pkcs8
    }

    /// Signs with the digest that goes with the kind, in the form of JWS; ML-DSA signs the message itself. With RSA it takes milliseconds, with
    /// ML-DSA up to one.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let random = SystemRandom::new();
        let failed = |_| KeyError::Crypto("sign");
        match &self.pair {
            Pair::Ec(pair) => Ok(pair.sign(&random, message).map_err(failed)?.as_ref().to_vec()),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).map_err(failed)?;
                Ok(signature)
            }
            Pair::MlDsa(pair) => {
                let mut signature = vec![0; pair.algorithm().signature_len()];
                pair.sign(message, &mut signature).map_err(failed)?;
                Ok(signature)
            }
        }
    }
}

impl Pair {
    /// A new one, and the DER PKCS#8 of its private half.
    fn generate(kind: KeyKind) -> Result<(Self, Zeroizing<Vec<u8>>), Unspecified> {
        let stored = |der: &[u8]| Zeroizing::new(der.to_vec());
        match kind {
            KeyKind::EcP256 | KeyKind::EcP384 => {
                let pair = EcdsaKeyPair::generate(ec_algorithm(kind))?;
                let pkcs8 = stored(pair.to_pkcs8v1()?.as_ref());
                Ok((Self::Ec(pair), pkcs8))
            }
            KeyKind::Rsa2048 | KeyKind::Rsa4096 => {
                let size = if kind == KeyKind::Rsa2048 { KeySize::Rsa2048 } else { KeySize::Rsa4096 };
                let pair = RsaKeyPair::generate(size)?;
                let pkcs8: Pkcs8V1Der<'_> = pair.as_der()?;
                let pkcs8 = stored(pkcs8.as_ref());
                Ok((Self::Rsa(pair), pkcs8))
            }
            KeyKind::MlDsa(set) => {
                let pair = PqdsaKeyPair::generate(ml_dsa_algorithm(set))?;
                let pkcs8 = stored(pair.to_pkcs8v1()?.as_ref());
                Ok((Self::MlDsa(pair), pkcs8))
            }
        }
    }
}

impl fmt::Debug for SoftwareKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SoftwareKey({})", self.kind)
    }
}

fn ec_algorithm(kind: KeyKind) -> &'static EcdsaSigningAlgorithm {
    if kind == KeyKind::EcP384 { &ECDSA_P384_SHA384_FIXED_SIGNING } else { &ECDSA_P256_SHA256_FIXED_SIGNING }
}

fn ml_dsa_algorithm(set: MlDsa) -> &'static PqdsaSigningAlgorithm {
    match set {
        MlDsa::MlDsa44 => &ML_DSA_44_SIGNING,
        MlDsa::MlDsa65 => &ML_DSA_65_SIGNING,
        MlDsa::MlDsa87 => &ML_DSA_87_SIGNING,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_private_key_of_a_known_kind_is_none() {
        let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("key").serialize_der();
        for wrong in [&[][..], b"x", &other] {
            assert!(SoftwareKey::from_pkcs8(wrong).is_none());
        }
        let der = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("key").serialize_der();
        assert_eq!(SoftwareKey::from_pkcs8(&der).map(|key| key.kind()), Some(KeyKind::EcP384));
    }
}
