//! Public keys, checked, in the form that all three sources (TPM, certificate, certificate request) come down to.

use aws_lc_rs::agreement::{self, ParsedPublicKey, UnparsedPublicKey};
use const_oid::ObjectIdentifier;
use const_oid::db::rfc5912;
use der::asn1::{AnyRef, BitStringRef, UintRef};
use der::{Decode, Encode, Sequence};
use spki::{AlgorithmIdentifier, SubjectPublicKeyInfo};
use thiserror::Error;

use super::Curve;

/// Shortest RSA modulus accepted, bits.
pub(super) const MIN_RSA_BITS: usize = 2048;
/// Longest RSA modulus accepted, bits.
pub(super) const MAX_RSA_BITS: usize = 4096;
/// The only public exponent accepted.
pub(super) const RSA_EXPONENT: u32 = 65537;

/// Why a public key is not one that we work with.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    /// Too weak or too long.
    #[error("its RSA modulus has {0} bits, {MIN_RSA_BITS} to {MAX_RSA_BITS} are accepted")]
    RsaBits(usize),
    /// The modulus is shorter than its field, or even: no RSA key.
    #[error("its RSA modulus is not a product of two primes of full length")]
    RsaModulus,
    /// Any public exponent but 65537.
    #[error("its RSA exponent is not 65537")]
    RsaExponent,
    /// Coordinates that are too long, or of a point elsewhere.
    #[error("its point is not on the curve")]
    NotOnCurve,
    /// Not DER, or not a SubjectPublicKeyInfo of RFC 5280.
    #[error("its SubjectPublicKeyInfo is malformed")]
    Malformed,
    /// Neither RSA nor EC with P-256 or P-384.
    #[error("its algorithm is not RSA, P-256 or P-384")]
    Algorithm,
}

/// A public key whose numbers are plausible: RSA of 2048 to 4096 bits with exponent 65537, or a point on P-256 or P-384.
///
/// Equal exactly when the keys are, whatever encoding they came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey(Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Modulus, big-endian, without leading zeros.
    Rsa { modulus: Box<[u8]> },
    /// SEC 1 uncompressed point: 04 || x || y.
    Ecc { curve: Curve, point: heapless::Vec<u8, 97> },
}

#[derive(Sequence)]
struct RsaPublicKey<'a> {
    modulus: UintRef<'a>,
    exponent: UintRef<'a>,
}

impl PublicKey {
    /// From a modulus, big-endian and without leading zeros; the exponent is 65537.
    pub fn rsa(modulus: &[u8]) -> Result<Self, KeyError> {
        let bits = modulus.len() * 8;
        //= TPM-24 TPM 2.0 Part 2, TPM_ALG_ID: "weak attestation key"
        if !(MIN_RSA_BITS..=MAX_RSA_BITS).contains(&bits) {
            return Err(KeyError::RsaBits(bits));
        }
        let (first, last) = (modulus[0], modulus[modulus.len() - 1]);
        //= TPM-27 TPM 2.0 Part 1, Credential Protection: "(point off the curve, weak modulus)"
        if first & 0x80 == 0 || last & 1 == 0 {
            return Err(KeyError::RsaModulus);
        }
        Ok(Self(Kind::Rsa { modulus: modulus.into() }))
    }

    /// From coordinates, big-endian. Some chips strip leading zeros: shorter ones are padded.
    pub fn ecc(curve: Curve, x: &[u8], y: &[u8]) -> Result<Self, KeyError> {
        let mut point = heapless::Vec::new();
        point.push(4).expect("97 bytes hold an uncompressed P-384 point");
        for coordinate in [x, y] {
            let padding = curve.coordinate_bytes().checked_sub(coordinate.len()).ok_or(KeyError::NotOnCurve)?;
            point.extend(std::iter::repeat_n(0, padding));
            point.extend_from_slice(coordinate).expect("97 bytes hold an uncompressed P-384 point");
        }
        Self::ecc_point(curve, point)
    }

    /// From DER SubjectPublicKeyInfo (RFC 5280 §4.1.2.7), as rsaEncryption, id-RSAES-OAEP or id-ecPublicKey.
    pub fn from_spki_der(der: &[u8]) -> Result<Self, KeyError> {
        let spki =
            SubjectPublicKeyInfo::<AnyRef<'_>, BitStringRef<'_>>::from_der(der).map_err(|_| KeyError::Malformed)?;
        let key = spki.subject_public_key.as_bytes().ok_or(KeyError::Malformed)?;
        match spki.algorithm.oid {
            // The second names the padding that an EK is used with; old EK certificates have it. The key is the same.
            //= TPM-23 RFC 4055 1.2: "the key is the same key"
            rfc5912::RSA_ENCRYPTION | rfc5912::ID_RSAES_OAEP => Self::from_rsa_der(key),
            rfc5912::ID_EC_PUBLIC_KEY => {
                let parameters = spki.algorithm.parameters.ok_or(KeyError::Malformed)?;
                let curve = parameters.decode_as::<ObjectIdentifier>().map_err(|_| KeyError::Algorithm)?;
                let curve = match curve {
                    rfc5912::SECP_256_R_1 => Curve::P256,
                    rfc5912::SECP_384_R_1 => Curve::P384,
                    _ => return Err(KeyError::Algorithm),
                };
                Self::ecc_point(curve, heapless::Vec::from_slice(key).map_err(|_| KeyError::NotOnCurve)?)
            }
            _ => Err(KeyError::Algorithm),
        }
    }

    /// As DER SubjectPublicKeyInfo: rsaEncryption with NULL, or id-ecPublicKey with a named curve and an uncompressed point.
    pub fn to_spki_der(&self) -> Vec<u8> {
        match &self.0 {
            Kind::Rsa { modulus } => {
                let uint = |bytes| UintRef::new(bytes).expect("a few hundred bytes are an INTEGER");
                let exponent = RSA_EXPONENT.to_be_bytes();
                let key = RsaPublicKey { modulus: uint(modulus), exponent: uint(&exponent) };
                let key = key.to_der().expect("two bounded integers always encode");
                spki_der(rfc5912::RSA_ENCRYPTION, AnyRef::NULL, &key)
            }
            Kind::Ecc { curve, point } => {
                let curve = match curve {
                    Curve::P256 => rfc5912::SECP_256_R_1,
                    Curve::P384 => rfc5912::SECP_384_R_1,
                };
                spki_der(rfc5912::ID_EC_PUBLIC_KEY, AnyRef::from(&curve), point)
            }
        }
    }

    /// Whether it is an RSA key; else it is on a curve.
    pub fn is_rsa(&self) -> bool {
        matches!(self.0, Kind::Rsa { .. })
    }

    /// The numbers that are the key, as every encoding holds them: modulus, or x and y.
    pub(crate) fn numbers(&self) -> &[u8] {
        match &self.0 {
            Kind::Rsa { modulus } => modulus,
            Kind::Ecc { point, .. } => &point[1..],
        }
    }

    pub(super) fn kind(&self) -> &Kind {
        &self.0
    }

    fn from_rsa_der(der: &[u8]) -> Result<Self, KeyError> {
        let key = RsaPublicKey::from_der(der).map_err(|_| KeyError::Malformed)?;
        let exponent = RSA_EXPONENT.to_be_bytes();
        if key.exponent.as_bytes() != &exponent[1..] {
            return Err(KeyError::RsaExponent);
        }
        Self::rsa(key.modulus.as_bytes())
    }

    fn ecc_point(curve: Curve, point: heapless::Vec<u8, 97>) -> Result<Self, KeyError> {
        let uncompressed = point.len() == 1 + 2 * curve.coordinate_bytes() && point[0] == 4;
        if !uncompressed || ParsedPublicKey::try_from(UnparsedPublicKey::new(ecdh(curve), &point)).is_err() {
            return Err(KeyError::NotOnCurve);
        }
        Ok(Self(Kind::Ecc { curve, point }))
    }
}

/// ECDH of the crypto library on that curve; it also checks that a point is on it.
pub(super) fn ecdh(curve: Curve) -> &'static agreement::Algorithm {
    match curve {
        Curve::P256 => &agreement::ECDH_P256,
        Curve::P384 => &agreement::ECDH_P384,
    }
}

fn spki_der(oid: ObjectIdentifier, parameters: AnyRef<'_>, key: &[u8]) -> Vec<u8> {
    let subject_public_key = BitStringRef::from_bytes(key).expect("a few hundred bytes are a BIT STRING");
    let algorithm = AlgorithmIdentifier { oid, parameters: Some(parameters) };
    SubjectPublicKeyInfo { algorithm, subject_public_key }.to_der().expect("a checked key always encodes")
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::AsDer;
    use aws_lc_rs::rsa::{KeyPair, KeySize};
    use aws_lc_rs::signature::KeyPair as _;
    use rcgen::PublicKeyData;

    use super::*;

    fn modulus() -> Vec<u8> {
        let mut modulus = vec![0xc5; 256];
        modulus[255] |= 1;
        modulus
    }

    #[test]
    fn spki_is_what_others_write() {
        for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384] {
            let spki = rcgen::KeyPair::generate_for(algorithm).expect("key").subject_public_key_info();
            let key = PublicKey::from_spki_der(&spki).expect("valid key");
            assert_eq!(key.to_spki_der(), spki);
        }
        let rsa = KeyPair::generate(KeySize::Rsa2048).expect("key");
        let spki = rsa.public_key().as_der().expect("encodes");
        let key = PublicKey::from_spki_der(spki.as_ref()).expect("valid key");
        assert_eq!(key.to_spki_der(), spki.as_ref());
    }

    //= TPM-27
    #[test]
    fn refuses_weak_rsa_keys() {
        assert_eq!(PublicKey::rsa(&modulus()[128..]), Err(KeyError::RsaBits(1024)));
        assert_eq!(PublicKey::rsa(&[0xff; 513]), Err(KeyError::RsaBits(4104)));
        assert_eq!(PublicKey::rsa(&[]), Err(KeyError::RsaBits(0)));
        let mut top_bit_clear = modulus();
        top_bit_clear[0] = 0x7f;
        assert_eq!(PublicKey::rsa(&top_bit_clear), Err(KeyError::RsaModulus));
        let mut even = modulus();
        even[255] = 0xc4;
        assert_eq!(PublicKey::rsa(&even), Err(KeyError::RsaModulus));
        let modulus = modulus();
        let uint = |bytes| UintRef::new(bytes).expect("integer");
        let key = RsaPublicKey { modulus: uint(&modulus), exponent: uint(&[3]) }.to_der().expect("encodes");
        let spki = spki_der(rfc5912::RSA_ENCRYPTION, AnyRef::NULL, &key);
        assert_eq!(PublicKey::from_spki_der(&spki), Err(KeyError::RsaExponent));
    }

    //= TPM-27
    #[test]
    fn refuses_points_off_the_curve() {
        assert_eq!(PublicKey::ecc(Curve::P256, &[1; 32], &[1; 32]), Err(KeyError::NotOnCurve));
        assert_eq!(PublicKey::ecc(Curve::P256, &[1; 33], &[1; 32]), Err(KeyError::NotOnCurve));
        assert_eq!(PublicKey::ecc(Curve::P384, &[], &[]), Err(KeyError::NotOnCurve));
    }

    //= TPM-27
    #[test]
    fn refuses_a_point_in_any_form_but_the_uncompressed() {
        let private = aws_lc_rs::agreement::PrivateKey::generate(&agreement::ECDH_P256).expect("key");
        let point = private.compute_public_key().expect("point").as_ref().to_vec();
        let read = |point: &[u8]| {
            let curve = rfc5912::SECP_256_R_1;
            PublicKey::from_spki_der(&spki_der(rfc5912::ID_EC_PUBLIC_KEY, AnyRef::from(&curve), point))
        };
        assert!(read(&point).is_ok());
        let parity = point[64] & 1;
        let hybrid = [&[6 | parity], &point[1..]].concat();
        let compressed = [&[2 | parity], &point[1..33]].concat();
        for other in [&hybrid[..], &compressed, &point[1..], &[4], &[]] {
            assert_eq!(read(other), Err(KeyError::NotOnCurve));
        }
    }

    #[test]
    fn pads_coordinates_with_leading_zeros() {
        // One key in 256 has an x that begins with a zero byte.
        let short = (0..20_000).find_map(|_| {
            let key = aws_lc_rs::agreement::PrivateKey::generate(&agreement::ECDH_P256).expect("key");
            let point = key.compute_public_key().expect("point").as_ref().to_vec();
            (point[1] == 0 && point[2] != 0).then_some(point)
        });
        let point = short.expect("such a key within 20,000");
        let padded = PublicKey::ecc(Curve::P256, &point[1..33], &point[33..]).expect("on the curve");
        assert_eq!(PublicKey::ecc(Curve::P256, &point[2..33], &point[33..]), Ok(padded));
    }

    //= TPM-23
    #[test]
    fn an_oaep_key_is_the_same_key() {
        let modulus = modulus();
        let key = PublicKey::rsa(&modulus).expect("plausible");
        let uint = |bytes| UintRef::new(bytes).expect("integer");
        let rsa = RsaPublicKey { modulus: uint(&modulus), exponent: uint(&[1, 0, 1]) }.to_der().expect("encodes");
        assert_eq!(PublicKey::from_spki_der(&spki_der(rfc5912::ID_RSAES_OAEP, AnyRef::NULL, &rsa)), Ok(key));
        assert_eq!(
            PublicKey::from_spki_der(&spki_der(rfc5912::ID_RSASSA_PSS, AnyRef::NULL, &rsa)),
            Err(KeyError::Algorithm)
        );
    }
}
