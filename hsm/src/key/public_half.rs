//! A key's public half, read from the token and written as a SubjectPublicKeyInfo.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
    VerificationAlgorithm,
};
use cryptoki::object::{Attribute, AttributeType, KeyType, MlDsaParameterSetType, ObjectHandle, ParameterSetType};
use cryptoki::session::Session;
use der::asn1::{AnyRef, BitStringRef, ObjectIdentifier, UintRef};
use der::{Encode, Sequence};
use ironroot_api::MlDsa;

use crate::error::HsmError;
use crate::kind::KeyKind;
use crate::name::KeyName;

/// rsaEncryption. Source: RFC 8017 appendix A.1.
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// id-ecPublicKey, and the curves. Source: RFC 5480 §2.1.1.
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
/// The public exponent of RSA keys, 65537.
pub(super) const RSA_EXPONENT: [u8; 3] = [1, 0, 1];

#[derive(Sequence)]
struct Spki<'a> {
    algorithm: Algorithm<'a>,
    key: BitStringRef<'a>,
}

#[derive(Sequence)]
struct Algorithm<'a> {
    oid: ObjectIdentifier,
    parameters: Option<AnyRef<'a>>,
}

#[derive(Sequence)]
struct RsaPublicKey<'a> {
    modulus: UintRef<'a>,
    exponent: UintRef<'a>,
}

/// Why an object is no public half of the kind that was looked for.
enum Unfit {
    OfAnotherKind(String),
    Unusable(String),
}

/// The public half of a key.
pub(super) struct PublicHalf {
    kind: KeyKind,
    /// The subjectPublicKey: a point, an RSAPublicKey, or the bytes of FIPS 204.
    key: Vec<u8>,
}

impl PublicHalf {
    /// Reads it. An object of another kind than `kind` is refused.
    pub(super) fn read(
        session: &Session,
        name: &KeyName,
        kind: KeyKind,
        public: ObjectHandle,
    ) -> Result<Self, HsmError> {
        let name = name.clone();
        let refusal = |unfit| match unfit {
            Unfit::OfAnotherKind(reason) => HsmError::KeyOfAnotherKind { name, reason },
            Unfit::Unusable(reason) => HsmError::KeyUnusable { name, reason },
        };
        let key = match kind {
            KeyKind::EcP256 | KeyKind::EcP384 => point(session, kind, public)?,
            KeyKind::Rsa2048 | KeyKind::Rsa4096 => rsa_key(session, kind, public)?,
            KeyKind::MlDsa(set) => ml_dsa_key(session, set, public)?,
        };
        Ok(Self { kind, key: key.map_err(refusal)? })
    }

    /// DER of its SubjectPublicKeyInfo.
    pub(super) fn spki(&self) -> Vec<u8> {
        let (oid, parameters) = match self.kind {
            KeyKind::EcP256 => (EC_PUBLIC_KEY, Some(AnyRef::from(&P256))),
            KeyKind::EcP384 => (EC_PUBLIC_KEY, Some(AnyRef::from(&P384))),
            KeyKind::Rsa2048 | KeyKind::Rsa4096 => (RSA_ENCRYPTION, Some(AnyRef::NULL)),
            KeyKind::MlDsa(set) => (set.oid(), None),
        };
        let spki = BitStringRef::from_bytes(&self.key)
            .and_then(|key| Spki { algorithm: Algorithm { oid, parameters }, key }.to_der());
        spki.expect("a key of some thousand bytes is far below DER's bounds")
    }

    /// How many of its last bytes are the key itself.
    pub(super) fn key_bytes(&self) -> usize {
        self.key.len()
    }

    /// Whether it verifies this.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let algorithm: &'static dyn VerificationAlgorithm = match self.kind {
            KeyKind::EcP256 => &ECDSA_P256_SHA256_FIXED,
            KeyKind::EcP384 => &ECDSA_P384_SHA384_FIXED,
            KeyKind::Rsa2048 | KeyKind::Rsa4096 => &RSA_PKCS1_2048_8192_SHA256,
            KeyKind::MlDsa(set) => set.verification(),
        };
        UnparsedPublicKey::new(algorithm, &self.key).verify(message, signature).is_ok()
    }
}

/// CKA_EC_PARAMS of the curve: its object identifier.
pub(super) fn ec_params(kind: KeyKind) -> Vec<u8> {
    let curve = if kind == KeyKind::EcP384 { P384 } else { P256 };
    curve.to_der().expect("an object identifier is DER")
}

/// CKA_PARAMETER_SET of keys of ML-DSA. Source: OASIS PKCS #11 v3.2, CK_ML_DSA_PARAMETER_SET_TYPE.
pub(super) fn parameter_set(set: MlDsa) -> ParameterSetType {
    let set = match set {
        MlDsa::MlDsa44 => MlDsaParameterSetType::ML_DSA_44,
        MlDsa::MlDsa65 => MlDsaParameterSetType::ML_DSA_65,
        MlDsa::MlDsa87 => MlDsaParameterSetType::ML_DSA_87,
    };
    set.into()
}

fn point(session: &Session, kind: KeyKind, public: ObjectHandle) -> Result<Result<Vec<u8>, Unfit>, HsmError> {
    let asked = [AttributeType::KeyType, AttributeType::EcParams, AttributeType::EcPoint];
    let mut point = None;
    for attribute in session.get_attributes(public, &asked)? {
        match attribute {
            Attribute::KeyType(found) if found != KeyType::EC => {
                return Ok(Err(Unfit::OfAnotherKind("it is no elliptic curve key".into())));
            }
            Attribute::EcParams(params) if params != ec_params(kind) => {
                return Ok(Err(Unfit::OfAnotherKind(format!("its curve is not {kind}"))));
            }
            Attribute::EcPoint(value) => point = Some(value),
            _ => {}
        }
    }
    let Some(point) = point else {
        return Ok(Err(Unfit::Unusable("the token does not tell its public point".into())));
    };
    let bytes = kind.signature_bytes() + 1;
    let length = u8::try_from(bytes).unwrap_or(u8::MAX);
    // The standard wants a DER OCTET STRING; some modules return the point itself.
    Ok(match &point[..] {
        [0x04, octets, inner @ ..] if *octets == length && inner.len() == bytes && inner[0] == 0x04 => {
            Ok(inner.to_vec())
        }
        bare if bare.len() == bytes && bare[0] == 0x04 => Ok(bare.to_vec()),
        _ => Err(Unfit::Unusable(format!("its public point is not an uncompressed {kind} point"))),
    })
}

fn ml_dsa_key(session: &Session, set: MlDsa, public: ObjectHandle) -> Result<Result<Vec<u8>, Unfit>, HsmError> {
    let asked = [AttributeType::KeyType, AttributeType::ParameterSet, AttributeType::Value];
    let mut key = Vec::new();
    for attribute in session.get_attributes(public, &asked)? {
        match attribute {
            Attribute::KeyType(found) if found != KeyType::ML_DSA => {
                return Ok(Err(Unfit::OfAnotherKind("it is no ML-DSA key".into())));
            }
            Attribute::ParameterSet(found) if found != parameter_set(set) => {
                return Ok(Err(Unfit::OfAnotherKind(format!("its parameter set is not {set}"))));
            }
            Attribute::Value(value) => key = value,
            _ => {}
        }
    }
    let is_whole = key.len() == set.public_key_bytes();
    let broken = || Unfit::Unusable(format!("its public key has {} bytes, which {set} has not", key.len()));
    Ok(if is_whole { Ok(key) } else { Err(broken()) })
}

fn rsa_key(session: &Session, kind: KeyKind, public: ObjectHandle) -> Result<Result<Vec<u8>, Unfit>, HsmError> {
    let asked = [AttributeType::KeyType, AttributeType::Modulus, AttributeType::PublicExponent];
    let (mut modulus, mut exponent) = (Vec::new(), Vec::new());
    for attribute in session.get_attributes(public, &asked)? {
        match attribute {
            Attribute::KeyType(found) if found != KeyType::RSA => {
                return Ok(Err(Unfit::OfAnotherKind("it is no RSA key".into())));
            }
            Attribute::Modulus(value) => modulus = value,
            Attribute::PublicExponent(value) => exponent = value,
            _ => {}
        }
    }
    let bare = |value: &[u8]| value.iter().skip_while(|byte| **byte == 0).copied().collect::<Vec<u8>>();
    let (modulus, exponent) = (bare(&modulus), bare(&exponent));
    if modulus.len() != kind.signature_bytes() || modulus[0] < 0x80 || exponent != RSA_EXPONENT {
        return Ok(Err(Unfit::OfAnotherKind(format!("it is no {kind} key with the public exponent 65537"))));
    }
    let key = UintRef::new(&modulus)
        .and_then(|modulus| RsaPublicKey { modulus, exponent: UintRef::new(&exponent)? }.to_der());
    Ok(Ok(key.expect("two integers of at most 512 bytes are far below DER's bounds")))
}
