//! PKCS#10 requests: the key they carry and the proof that the requester holds it. Names are read for administrators alone:
//! what goes into a certificate comes from entries, except where they mint one.

mod requested_names;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519,
    ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    VerificationAlgorithm,
};
use const_oid::ObjectIdentifier;
use const_oid::db::{rfc5912, rfc8410};
use der::{Decode, Encode};
use spki::SubjectPublicKeyInfoOwned;
use thiserror::Error;
use x509_cert::request::CertReq;

use crate::ml_dsa::MlDsa;

pub use requested_names::RequestedNames;

/// Longest request accepted, bytes. An RSA-4096 request with a long subject has about 2 kB, one of ML-DSA-87 about 8.
pub const MAX_CSR_BYTES: usize = 16 * 1024;
/// RSA moduli accepted, bits. Larger ones cost the server CPU and buy a short-lived SVID nothing.
pub const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;

/// Why a request or a public key is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CsrError {
    /// Larger than [`MAX_CSR_BYTES`].
    #[error("request is longer than {MAX_CSR_BYTES} bytes")]
    TooLong,
    /// Not DER of a PKCS#10 request.
    #[error("not a DER-encoded PKCS#10 request")]
    Malformed,
    /// A key type, curve or size outside the accepted set.
    #[error("key must be EC P-256, EC P-384, RSA of 2048 to 4096 bits, Ed25519, or ML-DSA")]
    KeyType,
    /// The key's bytes are no valid key: a point off its curve, an even modulus.
    #[error("public key is not valid")]
    InvalidKey,
    /// A signature algorithm that does not go with the key.
    #[error("signature algorithm {0} does not go with the request's key")]
    SignatureAlgorithm(ObjectIdentifier),
    /// The requester has not proved that it holds the private key.
    #[error("signature over the request does not verify with its own key")]
    Signature,
}

/// What kind of public key a [`Spki`] holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// NIST P-256.
    EcP256,
    /// NIST P-384.
    EcP384,
    /// RSA, 2048 to 4096 bits.
    Rsa,
    /// Ed25519 (RFC 8410); 32 bytes.
    Ed25519,
    /// ML-DSA (RFC 9881).
    MlDsa(MlDsa),
}

/// A SubjectPublicKeyInfo whose type, size and point have been checked. Source: RFC 5280 §4.1.2.7.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spki {
    der: Vec<u8>,
    kind: KeyKind,
    /// How many of the last bytes are the key itself.
    key_bytes: usize,
}

impl Spki {
    /// Checks DER bytes of at most [`MAX_CSR_BYTES`]: type, size, and that the point is on its curve.
    pub fn parse(der: &[u8]) -> Result<Self, CsrError> {
        if der.len() > MAX_CSR_BYTES {
            return Err(CsrError::TooLong);
        }
        let info = SubjectPublicKeyInfoOwned::from_der(der).map_err(|_| CsrError::Malformed)?;
        let (kind, key) = (key_kind(&info)?, key_bytes(&info)?);
        ParsedPublicKey::new(default_algorithm(kind), key).map_err(|_| CsrError::InvalidKey)?;
        Ok(Self { der: der.to_vec(), kind, key_bytes: key.len() })
    }

    /// The DER bytes, as they came.
    pub fn as_der(&self) -> &[u8] {
        &self.der
    }

    /// What [`Spki::parse`] found it to be, so that nobody parses it again to tell.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// Length of the modulus of an RSA key, bits; none of another kind.
    pub fn modulus_bits(&self) -> Option<usize> {
        if self.kind != KeyKind::Rsa {
            return None;
        }
        pkcs1_modulus_bits(self.key()).ok()
    }

    /// The bytes of subjectPublicKey: of what key identifiers are made. They are the last ones of the DER. Source: RFC 5280
    /// §4.1 and §4.2.1.2.
    pub fn key(&self) -> &[u8] {
        &self.der[self.der.len() - self.key_bytes..]
    }
}

/// A request whose self-signature has been verified.
#[derive(Clone, Debug)]
pub struct Csr {
    spki: Spki,
}

impl Csr {
    /// Parses a DER PKCS#10 request and verifies that its own key signed it. Unknown extensions and attributes are
    /// ignored, as is the subject. Source: RFC 2986 §4.
    pub fn parse(der: &[u8]) -> Result<Self, CsrError> {
        Self::verified(&decode(der)?)
    }

    /// The same with the names that its requester wants. They say nothing about who that is.
    pub fn parse_with_names(der: &[u8]) -> Result<(Self, RequestedNames), CsrError> {
        let request = decode(der)?;
        let csr = Self::verified(&request)?;
        Ok((csr, RequestedNames::of(&request)?))
    }

    fn verified(request: &CertReq) -> Result<Self, CsrError> {
        let info = &request.info.public_key;
        // The key is decoded with the request and judged with the signature: once each.
        let (kind, bytes) = (key_kind(info)?, key_bytes(info)?);
        let algorithm = signature_algorithm(kind, request.algorithm.oid)?;
        let key = ParsedPublicKey::new(algorithm, bytes).map_err(|_| CsrError::InvalidKey)?;
        let signed = request.info.to_der().map_err(|_| CsrError::Malformed)?;
        let signature = request.signature.as_bytes().ok_or(CsrError::Malformed)?;
        //= FLT-S12 server faults: "not signed by their key"
        key.verify_sig(&signed, signature).map_err(|_| CsrError::Signature)?;
        let der = info.to_der().map_err(|_| CsrError::Malformed)?;
        Ok(Self { spki: Spki { der, kind, key_bytes: bytes.len() } })
    }

    /// The public key, whose private half made the request.
    pub fn spki(&self) -> &Spki {
        &self.spki
    }
}

fn decode(der: &[u8]) -> Result<CertReq, CsrError> {
    if der.len() > MAX_CSR_BYTES {
        return Err(CsrError::TooLong);
    }
    CertReq::from_der(der).map_err(|_| CsrError::Malformed)
}

fn key_bytes(info: &SubjectPublicKeyInfoOwned) -> Result<&[u8], CsrError> {
    info.subject_public_key.as_bytes().ok_or(CsrError::Malformed)
}

fn key_kind(info: &SubjectPublicKeyInfoOwned) -> Result<KeyKind, CsrError> {
    let oid = info.algorithm.oid;
    if oid == rfc5912::RSA_ENCRYPTION {
        let key = pkcs1_modulus_bits(key_bytes(info)?)?;
        return if RSA_BITS.contains(&key) { Ok(KeyKind::Rsa) } else { Err(CsrError::KeyType) };
    }
    if oid == rfc8410::ID_ED_25519 {
        return Ok(KeyKind::Ed25519);
    }
    if let Some(set) = MlDsa::of_oid(oid) {
        // Source: RFC 9881 §2, which has its parameters absent.
        if info.algorithm.parameters.is_some() {
            return Err(CsrError::KeyType);
        }
        let is_whole = key_bytes(info)?.len() == set.public_key_bytes();
        return if is_whole { Ok(KeyKind::MlDsa(set)) } else { Err(CsrError::InvalidKey) };
    }
    if oid != rfc5912::ID_EC_PUBLIC_KEY {
        return Err(CsrError::KeyType);
    }
    let parameters = info.algorithm.parameters.as_ref().ok_or(CsrError::KeyType)?;
    match parameters.decode_as::<ObjectIdentifier>() {
        Ok(curve) if curve == rfc5912::SECP_256_R_1 => Ok(KeyKind::EcP256),
        Ok(curve) if curve == rfc5912::SECP_384_R_1 => Ok(KeyKind::EcP384),
        _ => Err(CsrError::KeyType),
    }
}

/// Bits of the modulus in a PKCS#1 RSAPublicKey. Source: RFC 8017 §A.1.1.
fn pkcs1_modulus_bits(der: &[u8]) -> Result<usize, CsrError> {
    #[derive(der::Sequence)]
    struct RsaPublicKey<'a> {
        modulus: der::asn1::UintRef<'a>,
        _public_exponent: der::asn1::UintRef<'a>,
    }
    let key = RsaPublicKey::from_der(der).map_err(|_| CsrError::InvalidKey)?;
    let bytes = key.modulus.as_bytes();
    let leading = bytes.first().map_or(0, |b| b.leading_zeros() as usize);
    Ok((bytes.len() * 8).saturating_sub(leading))
}

fn default_algorithm(kind: KeyKind) -> &'static dyn VerificationAlgorithm {
    match kind {
        KeyKind::EcP256 => &ECDSA_P256_SHA256_ASN1,
        KeyKind::EcP384 => &ECDSA_P384_SHA384_ASN1,
        KeyKind::Rsa => &RSA_PKCS1_2048_8192_SHA256,
        KeyKind::Ed25519 => &ED25519,
        KeyKind::MlDsa(set) => set.verification(),
    }
}

fn signature_algorithm(kind: KeyKind, oid: ObjectIdentifier) -> Result<&'static dyn VerificationAlgorithm, CsrError> {
    use rfc5912::{
        ECDSA_WITH_SHA_256, ECDSA_WITH_SHA_384, SHA_256_WITH_RSA_ENCRYPTION, SHA_384_WITH_RSA_ENCRYPTION,
        SHA_512_WITH_RSA_ENCRYPTION,
    };
    Ok(match (kind, oid) {
        (KeyKind::EcP256, o) if o == ECDSA_WITH_SHA_256 => &ECDSA_P256_SHA256_ASN1,
        (KeyKind::EcP256, o) if o == ECDSA_WITH_SHA_384 => &ECDSA_P256_SHA384_ASN1,
        (KeyKind::EcP384, o) if o == ECDSA_WITH_SHA_256 => &ECDSA_P384_SHA256_ASN1,
        (KeyKind::EcP384, o) if o == ECDSA_WITH_SHA_384 => &ECDSA_P384_SHA384_ASN1,
        (KeyKind::Rsa, o) if o == SHA_256_WITH_RSA_ENCRYPTION => &RSA_PKCS1_2048_8192_SHA256,
        (KeyKind::Rsa, o) if o == SHA_384_WITH_RSA_ENCRYPTION => &RSA_PKCS1_2048_8192_SHA384,
        (KeyKind::Rsa, o) if o == SHA_512_WITH_RSA_ENCRYPTION => &RSA_PKCS1_2048_8192_SHA512,
        (KeyKind::Ed25519, o) if o == rfc8410::ID_ED_25519 => &ED25519,
        (KeyKind::MlDsa(set), o) if o == set.oid() => set.verification(),
        (_, other) => return Err(CsrError::SignatureAlgorithm(other)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(algorithm: &'static rcgen::SignatureAlgorithm) -> Vec<u8> {
        let key = rcgen::KeyPair::generate_for(algorithm).expect("key");
        let mut params = rcgen::CertificateParams::new(vec!["ignored.example".to_owned()]).expect("params");
        params.subject_alt_names.push(rcgen::SanType::URI("spiffe://evil/spire/server".try_into().expect("uri")));
        params.serialize_request(&key).expect("request").der().to_vec()
    }

    #[test]
    fn accepts_requests_of_every_supported_key() {
        for (algorithm, kind) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, KeyKind::EcP256),
            (&rcgen::PKCS_ECDSA_P384_SHA384, KeyKind::EcP384),
            (&rcgen::PKCS_ED25519, KeyKind::Ed25519),
            (&rcgen::PKCS_RSA_SHA256, KeyKind::Rsa),
            (&rcgen::PKCS_ML_DSA_44, KeyKind::MlDsa(MlDsa::MlDsa44)),
            (&rcgen::PKCS_ML_DSA_65, KeyKind::MlDsa(MlDsa::MlDsa65)),
            (&rcgen::PKCS_ML_DSA_87, KeyKind::MlDsa(MlDsa::MlDsa87)),
        ] {
            let csr = Csr::parse(&request(algorithm)).expect("accepted");
            assert_eq!(csr.spki().kind(), kind);
            assert_eq!(Spki::parse(csr.spki().as_der()).as_ref(), Ok(csr.spki()));
            assert_eq!(csr.spki().modulus_bits(), (kind == KeyKind::Rsa).then_some(2048));
        }
    }

    //= FLT-S12
    #[test]
    fn the_key_of_a_request_is_at_hand_without_parsing_it_again() {
        for algorithm in [
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &rcgen::PKCS_ECDSA_P384_SHA384,
            &rcgen::PKCS_ED25519,
            &rcgen::PKCS_RSA_SHA256,
            &rcgen::PKCS_ML_DSA_65,
        ] {
            let csr = Csr::parse(&request(algorithm)).expect("accepted");
            let info = SubjectPublicKeyInfoOwned::from_der(csr.spki().as_der()).expect("a key");
            assert_eq!(Some(csr.spki().key()), info.subject_public_key.as_bytes(), "{algorithm:?}");
        }
    }

    //= FLT-S12
    #[test]
    fn refuses_a_request_whose_signature_does_not_verify() {
        let mut der = request(&rcgen::PKCS_ECDSA_P256_SHA256);
        let position = der.windows(7).position(|w| w == b"ignored").expect("name inside the signed part");
        der[position] ^= 1;
        assert!(matches!(Csr::parse(&der), Err(CsrError::Signature)));
    }

    //= FLT-S12
    #[test]
    fn refuses_curves_and_sizes_outside_the_set() {
        let p521 = request(&rcgen::PKCS_ECDSA_P521_SHA512);
        assert!(matches!(Csr::parse(&p521), Err(CsrError::KeyType)));
        assert!(matches!(Csr::parse(&vec![0x30; MAX_CSR_BYTES + 1]), Err(CsrError::TooLong)));
    }

    //= FLT-S12
    #[test]
    fn refuses_every_truncation_and_bit_flip_without_panicking() {
        let der = request(&rcgen::PKCS_ECDSA_P256_SHA256);
        for end in 0..der.len() {
            assert!(Csr::parse(&der[..end]).is_err());
        }
        for bit in 0..der.len() * 8 {
            let mut flipped = der.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Csr::parse(&flipped).is_err(), "bit {bit}");
        }
    }
}
