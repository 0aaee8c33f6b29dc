//! TPMT_SIGNATURE (Part 2 §11.3.4), schemes, and their verification by aws-lc.

use aws_lc_rs::signature::{self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm};

use super::algorithm::ALG_NULL;
use super::public_key::{Kind, MAX_RSA_BITS, PublicKey, RSA_EXPONENT};
use super::wire::{Reader, StructureError};
use super::{Curve, Hash};

pub(super) const ALG_RSASSA: u16 = 0x0014;
pub(super) const ALG_ECDSA: u16 = 0x0018;

/// A signature scheme with its hash: RSASSA (PKCS #1 v1.5) or ECDSA, nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// TPM_ALG_RSASSA.
    RsaSsa(Hash),
    /// TPM_ALG_ECDSA.
    Ecdsa(Hash),
}

impl Scheme {
    /// The hash that is signed. A quote's PCR digest is taken with it too.
    pub fn hash(self) -> Hash {
        match self {
            Scheme::RsaSsa(hash) | Scheme::Ecdsa(hash) => hash,
        }
    }

    /// TPMT_RSA_SCHEME or TPMT_ECC_SCHEME; `None` for TPM_ALG_NULL.
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Option<Self>, StructureError> {
        match reader.u16()? {
            ALG_NULL => Ok(None),
            ALG_RSASSA => Ok(Some(Scheme::RsaSsa(Hash::from_id(reader.u16()?)?))),
            ALG_ECDSA => Ok(Some(Scheme::Ecdsa(Hash::from_id(reader.u16()?)?))),
            other => Err(StructureError::Scheme(other)),
        }
    }
}

/// A signature made by a TPM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    scheme: Scheme,
    value: Value,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Rsa(Box<[u8]>),
    /// Big-endian integers as received.
    Ecdsa {
        r: heapless::Vec<u8, { Curve::MAX_COORDINATE_BYTES }>,
        s: heapless::Vec<u8, { Curve::MAX_COORDINATE_BYTES }>,
    },
}

impl Signature {
    /// Parses one whole TPMT_SIGNATURE.
    pub fn parse(bytes: &[u8]) -> Result<Self, StructureError> {
        Reader::whole(bytes, |reader| match reader.u16()? {
            ALG_RSASSA => {
                let scheme = Scheme::RsaSsa(Hash::from_id(reader.u16()?)?);
                Ok(Self { scheme, value: Value::Rsa(reader.sized(MAX_RSA_BITS / 8)?.into()) })
            }
            ALG_ECDSA => {
                let scheme = Scheme::Ecdsa(Hash::from_id(reader.u16()?)?);
                Ok(Self { scheme, value: Value::Ecdsa { r: reader.bounded()?, s: reader.bounded()? } })
            }
            //= TPM-26 TPM 2.0 Part 2, TPMT_SIGNATURE: "structure that nobody signed (TPM_ALG_NULL): refused"
            other => Err(StructureError::SignatureAlgorithm(other)),
        })
    }

    /// What it claims to be made with.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Whether `key` made this signature over `message`. A key of another kind, a P-256 key with any hash but SHA-256 and
    /// a P-384 key with any hash but SHA-384 made none.
    pub fn is_by(&self, key: &PublicKey, message: &[u8]) -> bool {
        match (&self.value, key.kind()) {
            (Value::Rsa(value), Kind::Rsa { modulus }) => {
                let exponent = RSA_EXPONENT.to_be_bytes();
                let key = RsaPublicKeyComponents { n: &modulus[..], e: &exponent[1..] };
                key.verify(rsa_parameters(self.scheme.hash()), message, value).is_ok()
            }
            (Value::Ecdsa { r, s }, Kind::Ecc { curve, point }) => {
                let algorithm = ecdsa_algorithm(*curve, self.scheme.hash());
                let fixed = fixed_ecdsa(*curve, r, s);
                algorithm.zip(fixed).is_some_and(|(algorithm, fixed)| {
                    UnparsedPublicKey::new(algorithm, point).verify(message, &fixed).is_ok()
                })
            }
            _ => false,
        }
    }
}

fn rsa_parameters(hash: Hash) -> &'static RsaParameters {
    match hash {
        Hash::Sha256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        Hash::Sha384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        Hash::Sha512 => &signature::RSA_PKCS1_2048_8192_SHA512,
    }
}

fn ecdsa_algorithm(curve: Curve, hash: Hash) -> Option<&'static dyn VerificationAlgorithm> {
    match (curve, hash) {
        (Curve::P256, Hash::Sha256) => Some(&signature::ECDSA_P256_SHA256_FIXED),
        (Curve::P384, Hash::Sha384) => Some(&signature::ECDSA_P384_SHA384_FIXED),
        _ => None,
    }
}

/// r || s, each padded to the curve's length: some chips strip leading zeros.
fn fixed_ecdsa(curve: Curve, r: &[u8], s: &[u8]) -> Option<heapless::Vec<u8, 96>> {
    let mut fixed = heapless::Vec::new();
    for integer in [r, s] {
        let padding = curve.coordinate_bytes().checked_sub(integer.len())?;
        fixed.extend(std::iter::repeat_n(0, padding));
        fixed.extend_from_slice(integer).ok()?;
    }
    Some(fixed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_no_longer_than_the_longest_key() {
        let signed = |bytes: usize| {
            let header = [ALG_RSASSA, Hash::Sha256.id(), u16::try_from(bytes).expect("short")].map(u16::to_be_bytes);
            Signature::parse(&[header.concat(), vec![0; bytes]].concat()).map(|signature| signature.scheme())
        };
        assert_eq!(signed(512), Ok(Scheme::RsaSsa(Hash::Sha256)));
        assert_eq!(signed(513), Err(StructureError::TooLong { bytes: 513, limit: 512 }));
    }
}
