//! A public key that signatures of JWT-SVIDs are verified with, checked once, and as the members of a JWK.

use aws_lc_rs::signature::{ParsedPublicKey, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use const_oid::db::rfc5912;
use der::asn1::{ObjectIdentifier, UintRef};
use der::{Decode, Reader, SliceReader};
use serde::Serialize;
use spki::SubjectPublicKeyInfoRef;

use super::algorithm::Algorithm;
use super::key_kind::KeyKind;
use crate::ml_dsa::MlDsa;

/// Longest SubjectPublicKeyInfo accepted, bytes: RSA with 8192 bits takes about a thousand.
pub(super) const MAX_SPKI_BYTES: usize = 2048;
/// Lengths of RSA moduli accepted, bytes: 2048 to 8192 bits.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PublicKey {
    kind: KeyKind,
    /// A point, uncompressed, or PKCS#1.
    bytes: Box<[u8]>,
}

/// A key as a JWK; members in SPIRE's order. Source: RFC 7517 §4, RFC 7518 §6.2.1, §6.3.1.
#[derive(Debug, Serialize)]
pub(crate) struct Jwk<'a> {
    #[serde(rename = "use", skip_serializing_if = "Option::is_none")]
    purpose: Option<&'static str>,
    kty: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alg: Option<&'static str>,
    #[serde(flatten)]
    members: Members,
    #[serde(skip_serializing_if = "Option::is_none")]
    x5c: Option<[String; 1]>,
}

impl Jwk<'static> {
    /// Of an X.509 authority with a key of ML-DSA, its bytes as FIPS 204 has them. No token is signed with such a key. Source:
    /// draft-ietf-cose-dilithium §3.
    pub fn of_ml_dsa(set: MlDsa, key: &[u8]) -> Self {
        let members = Members::Akp { r#pub: base64url(key) };
        Jwk { purpose: Some("x509-svid"), kty: "AKP", kid: None, alg: Some(set.name()), members, x5c: None }
    }
}

impl Jwk<'_> {
    /// With the algorithm that servers sign with the key by. Source: RFC 7518 §3.1.
    pub fn with_algorithm(self) -> Self {
        let alg = match &self.members {
            Members::Rsa { .. } => "RS256",
            Members::Ec { crv: "P-256", .. } => "ES256",
            Members::Ec { crv: "P-384", .. } => "ES384",
            Members::Ec { .. } => "ES512",
            Members::Akp { .. } => return self,
        };
        Self { alg: Some(alg), ..self }
    }

    /// With that algorithm, of those that the key can sign with.
    pub fn with(self, algorithm: Algorithm) -> Self {
        Self { alg: Some(algorithm.name()), ..self }
    }

    /// With the certificate that the key is of, DER.
    pub fn with_certificate(self, der: &[u8]) -> Self {
        Self { x5c: Some([STANDARD.encode(der)]), ..self }
    }
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Members {
    Ec { crv: &'static str, x: String, y: String },
    Rsa { n: String, e: String },
    Akp { r#pub: String },
}

impl PublicKey {
    /// Of a DER SubjectPublicKeyInfo; `None` if it is none, or of a kind that signs no JWT-SVID, or no valid key.
    pub fn parse(spki: &[u8]) -> Option<Self> {
        if spki.len() > MAX_SPKI_BYTES {
            return None;
        }
        let info = SubjectPublicKeyInfoRef::try_from(spki).ok()?;
        let kind = kind(&info)?;
        let bytes: Box<[u8]> = info.subject_public_key.as_bytes()?.into();
        ParsedPublicKey::new(kind.any_algorithm(), &bytes).ok()?;
        let key = Self { kind, bytes };
        // Whether it can be published is known from the start.
        key.members().map(|_| key)
    }

    /// Whether such a key signs by that algorithm.
    pub fn goes_with(&self, algorithm: Algorithm) -> bool {
        algorithm.verification(self.kind).is_some()
    }

    /// As configurations call it. Source: SPIRE.
    pub fn kind_name(&self) -> &'static str {
        match self.kind {
            KeyKind::Rsa => "RSA",
            KeyKind::P256 => "ec-p256",
            KeyKind::P384 => "ec-p384",
            KeyKind::P521 => "ec-p521",
        }
    }

    /// Whether `signature` over `message` is this key's, by an algorithm that goes with it; `None` if it does not.
    pub fn has_signed(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> Option<bool> {
        let algorithm = algorithm.verification(self.kind)?;
        Some(UnparsedPublicKey::new(algorithm, &self.bytes).verify(message, signature).is_ok())
    }

    /// For a JWK set, with its ID and its use where it is to have them; never `None` once it was parsed.
    pub fn jwk<'a>(&self, kid: Option<&'a str>, purpose: Option<&'static str>) -> Option<Jwk<'a>> {
        let members = self.members()?;
        let kty = if self.kind == KeyKind::Rsa { "RSA" } else { "EC" };
        Some(Jwk { purpose, kty, kid, alg: None, members, x5c: None })
    }

    fn members(&self) -> Option<Members> {
        match self.kind {
            KeyKind::Rsa => {
                let (n, e) = modulus_and_exponent(&self.bytes)?;
                Some(Members::Rsa { n: base64url(n), e: base64url(e) })
            }
            KeyKind::P256 => self.point("P-256", 32),
            KeyKind::P384 => self.point("P-384", 48),
            KeyKind::P521 => self.point("P-521", 66),
        }
    }

    fn point(&self, crv: &'static str, coordinate: usize) -> Option<Members> {
        let (form, point) = self.bytes.split_first()?;
        let (x, y) = point.split_at_checked(coordinate)?;
        let is_uncompressed = *form == 4 && y.len() == coordinate;
        is_uncompressed.then(|| Members::Ec { crv, x: base64url(x), y: base64url(y) })
    }
}

fn kind(info: &SubjectPublicKeyInfoRef<'_>) -> Option<KeyKind> {
    let curve = || info.algorithm.parameters?.decode_as::<ObjectIdentifier>().ok();
    match info.algorithm.oid {
        rfc5912::RSA_ENCRYPTION => Some(KeyKind::Rsa),
        rfc5912::ID_EC_PUBLIC_KEY => match curve()? {
            rfc5912::SECP_256_R_1 => Some(KeyKind::P256),
            rfc5912::SECP_384_R_1 => Some(KeyKind::P384),
            rfc5912::SECP_521_R_1 => Some(KeyKind::P521),
            _ => None,
        },
        _ => None,
    }
}

/// Base64 as JOSE has it. Source: RFC 7515 §2.
fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Of a PKCS#1 RSAPublicKey, without leading zeros. Source: RFC 8017 A.1.1.
fn modulus_and_exponent(pkcs1: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut reader = SliceReader::new(pkcs1).ok()?;
    let read = reader.sequence(|fields| Ok::<_, der::Error>((UintRef::decode(fields)?, UintRef::decode(fields)?)));
    let (n, e) = read.ok()?;
    RSA_BYTES.contains(&n.as_bytes().len()).then_some((n.as_bytes(), e.as_bytes()))
}
