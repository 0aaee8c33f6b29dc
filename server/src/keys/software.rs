//! A private key in this process: whoever reads its memory has it.

use std::fmt;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair,
    RSA_PKCS1_SHA256, RsaKeyPair,
};
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
}

impl SoftwareKey {
    /// A new key. One of RSA takes seconds: not for an async worker.
    pub fn generate(kind: KeyKind) -> Result<Self, KeyError> {
        let failed = |_| KeyError::Crypto("make a key");
        match rsa_size(kind) {
            None => {
                let pair = EcdsaKeyPair::generate(ec_algorithm(kind)).map_err(failed)?;
                let pkcs8 = Zeroizing::new(pair.to_pkcs8v1().map_err(failed)?.as_ref().to_vec());
                Self::of(kind, Pair::Ec(pair), pkcs8).ok_or(KeyError::Crypto("tell a key's public half"))
            }
            Some(size) => {
                let pair = RsaKeyPair::generate(size).map_err(failed)?;
                let pkcs8: Pkcs8V1Der<'_> = pair.as_der().map_err(failed)?;
                let pkcs8 = Zeroizing::new(pkcs8.as_ref().to_vec());
                Self::of(kind, Pair::Rsa(pair), pkcs8).ok_or(KeyError::Crypto("tell a key's public half"))
            }
        }
    }

    /// A stored key; none if it is not the DER PKCS#8 of a key of a known kind.
    pub fn from_pkcs8(der: &[u8]) -> Option<Self> {
        let stored = || Zeroizing::new(der.to_vec());
        for kind in [KeyKind::EcP256, KeyKind::EcP384] {
            if let Ok(pair) = EcdsaKeyPair::from_pkcs8(ec_algorithm(kind), der) {
                return Self::of(kind, Pair::Ec(pair), stored());
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

    /// The public half, as its SubjectPublicKeyInfo has it: an uncompressed point, or a DER RSAPublicKey.
    pub fn public_key(&self) -> &[u8] {
        &self.spki[self.spki.len() - self.key_bytes..]
    }

    /// The private half, DER PKCS#8.
    pub fn pkcs8_der(&self) -> &[u8] {
        &self.pkcs8
    }

    /// Signs with the digest that goes with the kind, in the form of JWS. With RSA it takes milliseconds.
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

fn rsa_size(kind: KeyKind) -> Option<KeySize> {
    match kind {
        KeyKind::EcP256 | KeyKind::EcP384 => None,
        KeyKind::Rsa2048 => Some(KeySize::Rsa2048),
        KeyKind::Rsa4096 => Some(KeySize::Rsa4096),
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
