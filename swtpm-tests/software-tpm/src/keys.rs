//! The private halves.

use aws_lc_rs::agreement::{ECDH_P256, ECDH_P384, PrivateKey};
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{self, KeySize, PrivateDecryptingKey};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256,
};
use der::asn1::{AnyRef, BitStringRef, UintRef};
use der::{Decode, Encode, Sequence};
use ironroot_attest::structures::{Curve, PublicKey};
use spki::SubjectPublicKeyInfo;

use super::marshal::{Unique, sized};
use super::{ECDSA, RSASSA, SHA256, SHA384};

/// An endorsement key.
pub enum Decryptor {
    Rsa(PrivateDecryptingKey),
    Ecc { curve: Curve, key: PrivateKey },
}

impl Decryptor {
    pub fn rsa() -> Self {
        Decryptor::Rsa(PrivateDecryptingKey::generate(KeySize::Rsa2048).expect("key"))
    }

    pub fn p256() -> Self {
        Decryptor::Ecc { curve: Curve::P256, key: PrivateKey::generate(&ECDH_P256).expect("key") }
    }

    pub fn p384() -> Self {
        Decryptor::Ecc { curve: Curve::P384, key: PrivateKey::generate(&ECDH_P384).expect("key") }
    }

    pub fn is_p384(&self) -> bool {
        matches!(self, Decryptor::Ecc { curve: Curve::P384, .. })
    }

    pub fn unique(&self) -> Unique {
        match self {
            Decryptor::Rsa(key) => rsa_unique(key.public_key().as_der().expect("encodes").as_ref()),
            Decryptor::Ecc { curve, key } => ecc_unique(*curve, key.compute_public_key().expect("point").as_ref()),
        }
    }

    pub fn spki_der(&self) -> Vec<u8> {
        spki_der(&self.unique())
    }
}

/// A key that signs with the one scheme it has.
pub enum SigningKey {
    Rsa(rsa::KeyPair),
    Ecc { curve: Curve, key: EcdsaKeyPair },
}

impl SigningKey {
    pub fn rsa() -> Self {
        SigningKey::Rsa(rsa::KeyPair::generate(KeySize::Rsa2048).expect("key"))
    }

    pub fn p256() -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("key");
        SigningKey::Ecc { curve: Curve::P256, key }
    }

    pub fn p384() -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).expect("key");
        SigningKey::Ecc { curve: Curve::P384, key }
    }

    pub fn hash(&self) -> u16 {
        if matches!(self, SigningKey::Ecc { curve: Curve::P384, .. }) { SHA384 } else { SHA256 }
    }

    pub fn unique(&self) -> Unique {
        match self {
            SigningKey::Rsa(key) => rsa_unique(key.public_key().as_der().expect("encodes").as_ref()),
            SigningKey::Ecc { curve, key } => ecc_unique(*curve, key.public_key().as_ref()),
        }
    }

    pub fn spki_der(&self) -> Vec<u8> {
        spki_der(&self.unique())
    }

    /// As certificates and TLS have it, with the key's hash: PKCS #1 v1.5, or DER ECDSA-Sig-Value.
    pub fn sign_plain(&self, message: &[u8]) -> Vec<u8> {
        let signature = self.sign(message);
        match self {
            // Algorithm, hash, size.
            SigningKey::Rsa(_) => signature[6..].to_vec(),
            SigningKey::Ecc { curve, .. } => {
                let bytes = curve.coordinate_bytes();
                let uint = |number| UintRef::new(number).expect("a scalar is an INTEGER");
                let (r, s) = (&signature[6..6 + bytes], &signature[8 + bytes..]);
                EcdsaSigValue { r: uint(r), s: uint(s) }.to_der().expect("two integers encode")
            }
        }
    }

    /// TPMT_SIGNATURE over `message`.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            SigningKey::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).expect("signs");
                [&RSASSA.to_be_bytes()[..], &SHA256.to_be_bytes(), &sized(&signature)].concat()
            }
            SigningKey::Ecc { key, .. } => {
                let signature = key.sign(&random, message).expect("signs");
                let (r, s) = signature.as_ref().split_at(signature.as_ref().len() / 2);
                [&ECDSA.to_be_bytes()[..], &self.hash().to_be_bytes(), &sized(r), &sized(s)].concat()
            }
        }
    }
}

#[derive(Sequence)]
struct EcdsaSigValue<'a> {
    r: UintRef<'a>,
    s: UintRef<'a>,
}

#[derive(Sequence)]
struct RsaPublicKey<'a> {
    modulus: UintRef<'a>,
    exponent: UintRef<'a>,
}

fn rsa_unique(spki: &[u8]) -> Unique {
    let spki = SubjectPublicKeyInfo::<AnyRef<'_>, BitStringRef<'_>>::from_der(spki).expect("SPKI");
    let key = RsaPublicKey::from_der(spki.subject_public_key.raw_bytes()).expect("RSA key");
    Unique::Rsa { bits: 2048, exponent: 0, modulus: key.modulus.as_bytes().to_vec() }
}

fn ecc_unique(curve: Curve, point: &[u8]) -> Unique {
    let (x, y) = point[1..].split_at(curve.coordinate_bytes());
    Unique::Ecc { curve: curve.id(), x: x.to_vec(), y: y.to_vec() }
}

fn spki_der(unique: &Unique) -> Vec<u8> {
    let key = match unique {
        Unique::Rsa { modulus, .. } => PublicKey::rsa(modulus),
        Unique::Ecc { curve, x, y } => PublicKey::ecc(Curve::from_id(*curve).expect("curve"), x, y),
    };
    key.expect("valid key").to_spki_der()
}
