//! The public key of a device's certificate, as signatures are verified with it.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P521_SHA256_ASN1, EcdsaVerificationAlgorithm,
    RSA_PSS_2048_8192_SHA256, RsaParameters, RsaPssSaltLength, UnparsedPublicKey,
};
use const_oid::ObjectIdentifier;
use const_oid::db::rfc5912;
use der::asn1::UintRef;
use der::{Decode, Encode};
use x509_cert::Certificate;

use super::family::Family;
use super::messages::Response;
use super::refusal::X509PopRefusal;

/// Longest RSA modulus that the crypto library verifies with, bits. Source: SPIRE's default of `max_rsa_key_size`.
pub(super) const MOST_RSA_BITS: usize = 8192;
/// Below 2048 bits nobody verifies.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=MOST_RSA_BITS;
/// What Go signs with unless it is told otherwise, and SPIRE's agents do: the longest salt that fits.
static WITH_LONGEST_SALT: RsaParameters = RSA_PSS_2048_8192_SHA256.with_pss_salt_length(RsaPssSaltLength::Max);

/// A curve that certificates of devices have keys on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Curve {
    P256,
    P384,
    P521,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Rsa,
    Ecdsa(Curve),
}

/// The key, not yet used.
#[derive(Clone, Debug)]
pub(super) struct ProofKey {
    pub(super) algorithm: Algorithm,
    /// RSAPublicKey (RFC 8017 §A.1.1), or a point (SEC 1 §2.3.3).
    pub(super) bits: Vec<u8>,
}

/// Source: RFC 8017 §A.1.1.
#[derive(der::Sequence)]
struct RsaPublicKey<'a> {
    modulus: UintRef<'a>,
    exponent: UintRef<'a>,
}

/// Source: RFC 5480 §A.
#[derive(der::Sequence)]
struct EcdsaSigValue<'a> {
    r: UintRef<'a>,
    s: UintRef<'a>,
}

impl ProofKey {
    pub(super) fn of(certificate: &Certificate) -> Result<Self, X509PopRefusal> {
        let spki = certificate.tbs_certificate().subject_public_key_info();
        let algorithm = match spki.algorithm.oid {
            rfc5912::RSA_ENCRYPTION => Algorithm::Rsa,
            rfc5912::ID_EC_PUBLIC_KEY => {
                let parameters = spki.algorithm.parameters.as_ref().ok_or(X509PopRefusal::Key)?;
                Algorithm::Ecdsa(curve(parameters.decode_as().map_err(|_| X509PopRefusal::Key)?)?)
            }
            _ => return Err(X509PopRefusal::Key),
        };
        let bits = spki.subject_public_key.as_bytes().ok_or(X509PopRefusal::Key)?.to_vec();
        if algorithm == Algorithm::Rsa && !modulus_bits(&bits).is_some_and(|bits| RSA_BITS.contains(&bits)) {
            return Err(X509PopRefusal::Key);
        }
        Ok(Self { algorithm, bits })
    }

    pub(super) fn family(&self) -> Family {
        match self.algorithm {
            Algorithm::Rsa => Family::Rsa,
            Algorithm::Ecdsa(_) => Family::Ecdsa,
        }
    }

    /// Length of the modulus of an RSA key, bits.
    pub(super) fn rsa_bits(&self) -> usize {
        modulus_bits(&self.bits).unwrap_or(0)
    }

    /// Whether `response` was signed by this key, over the `nonce` of the challenge and its own.
    pub(super) fn check(&self, nonce: &[u8; 32], response: &Response) -> Result<(), X509PopRefusal> {
        match (self.algorithm, response) {
            (Algorithm::Rsa, Response::Rsa { nonce: own, signature }) => {
                self.check_rsa(&[*nonce, *own].concat(), signature)
            }
            (Algorithm::Ecdsa(curve), Response::Ecdsa { nonce: own, r, s }) => {
                let signature = ecdsa_der(r, s).map_err(|_| X509PopRefusal::Signature)?;
                let key = UnparsedPublicKey::new(curve.ecdsa(), &self.bits);
                key.verify(&[*nonce, *own].concat(), &signature).map_err(|_| X509PopRefusal::Signature)
            }
            _ => Err(X509PopRefusal::OtherFamily),
        }
    }

    /// The salt is as long as the longest that fits, or as the hash.
    fn check_rsa(&self, signed: &[u8], signature: &[u8]) -> Result<(), X509PopRefusal> {
        let verified = |parameters| UnparsedPublicKey::new(parameters, &self.bits).verify(signed, signature).is_ok();
        if verified(&WITH_LONGEST_SALT) || verified(&RSA_PSS_2048_8192_SHA256) {
            return Ok(());
        }
        Err(X509PopRefusal::Signature)
    }
}

impl Curve {
    fn ecdsa(self) -> &'static EcdsaVerificationAlgorithm {
        match self {
            Self::P256 => &ECDSA_P256_SHA256_ASN1,
            Self::P384 => &ECDSA_P384_SHA256_ASN1,
            Self::P521 => &ECDSA_P521_SHA256_ASN1,
        }
    }
}

/// Length of the modulus of a certificate's RSA key, bits; none of what is no RSA key, or none that can be read.
pub(super) fn rsa_bits(certificate: &Certificate) -> Option<usize> {
    let spki = certificate.tbs_certificate().subject_public_key_info();
    let key = Some(spki.subject_public_key.as_bytes()?).filter(|_| spki.algorithm.oid == rfc5912::RSA_ENCRYPTION);
    modulus_bits(key?)
}

/// `key`: RSAPublicKey (RFC 8017 §A.1.1).
fn modulus_bits(key: &[u8]) -> Option<usize> {
    let modulus = RsaPublicKey::from_der(key).ok()?.modulus.as_bytes();
    let unused = usize::try_from(modulus.first()?.leading_zeros()).ok()?;
    (8 * modulus.len()).checked_sub(unused)
}

fn curve(oid: ObjectIdentifier) -> Result<Curve, X509PopRefusal> {
    match oid {
        rfc5912::SECP_256_R_1 => Ok(Curve::P256),
        rfc5912::SECP_384_R_1 => Ok(Curve::P384),
        rfc5912::SECP_521_R_1 => Ok(Curve::P521),
        _ => Err(X509PopRefusal::Key),
    }
}

fn ecdsa_der(r: &[u8], s: &[u8]) -> Result<Vec<u8>, der::Error> {
    EcdsaSigValue { r: UintRef::new(r)?, s: UintRef::new(s)? }.to_der()
}
