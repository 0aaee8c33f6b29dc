//! What a key must be before it is used: protected, of P-256, and two halves that belong together.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectHandle};
use cryptoki::session::Session;

use super::Held;
use super::protection::{self, Protected, Shortcoming};
use crate::error::HsmError;
use crate::login::Login;
use crate::name::KeyName;
use crate::signature::P256Signature;

/// SubjectPublicKeyInfo of a P-256 key up to its point. Source: RFC 5480 §2.
pub(super) const P256_SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// CKA_EC_PARAMS of P-256: the object identifier prime256v1.
pub(super) const P256_PARAMS: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const POINT_BYTES: usize = 65;

/// Checks how a key is protected, of what kind it is, and that its halves belong together.
pub(super) fn examine(
    session: &Session,
    name: &KeyName,
    private: ObjectHandle,
    public: ObjectHandle,
    login: Login,
) -> Result<Held, HsmError> {
    let says_local = check_protection(session, name, private)?.says_local;
    let point = p256_point(session, name, public)?;
    prove_possession(session, name, private, &point)?;
    let spki = [&P256_SPKI_PREFIX[..], &point].concat();
    Ok(Held::new(name.clone(), spki, says_local, private, login))
}

/// A token's signature, if it has the length of one.
pub(crate) fn checked_signature(name: &KeyName, bytes: &[u8]) -> Result<P256Signature, HsmError> {
    <[u8; 64]>::try_from(bytes).map(P256Signature::from).map_err(|_| HsmError::KeyUnusable {
        name: name.clone(),
        reason: format!("C_Sign returned {} bytes where a P-256 signature has 64", bytes.len()),
    })
}

fn check_protection(session: &Session, name: &KeyName, private: ObjectHandle) -> Result<Protected, HsmError> {
    let told = session.get_attributes(private, &protection::ATTRIBUTES)?;
    protection::judge(&told).map_err(|shortcoming| match shortcoming {
        Shortcoming::Unprotected(attribute) => HsmError::KeyUnprotected { name: name.clone(), attribute },
        Shortcoming::AlwaysAuthenticate => HsmError::KeyUnusable {
            name: name.clone(),
            reason: "the token wants the PIN again for each signature (CKA_ALWAYS_AUTHENTICATE, a login as \
                     CKU_CONTEXT_SPECIFIC); set the token up to make keys without that"
                .to_owned(),
        },
    })
}

fn p256_point(session: &Session, name: &KeyName, public: ObjectHandle) -> Result<Vec<u8>, HsmError> {
    let unusable = |reason: &str| HsmError::KeyUnusable { name: name.clone(), reason: reason.to_owned() };
    let kinds = [AttributeType::KeyType, AttributeType::EcParams, AttributeType::EcPoint];
    let mut point = None;
    for attribute in session.get_attributes(public, &kinds)? {
        match attribute {
            Attribute::KeyType(kind) if kind != KeyType::EC => return Err(unusable("it is no elliptic curve key")),
            Attribute::EcParams(params) if params != P256_PARAMS => return Err(unusable("its curve is not P-256")),
            Attribute::EcPoint(value) => point = Some(value),
            _ => {}
        }
    }
    let point = point.ok_or_else(|| unusable("the token does not tell its public point"))?;
    // The standard wants a DER OCTET STRING; some modules return the point itself.
    match &point[..] {
        [0x04, 0x41, inner @ ..] if inner.len() == POINT_BYTES && inner[0] == 0x04 => Ok(inner.to_vec()),
        bare if bare.len() == POINT_BYTES && bare[0] == 0x04 => Ok(bare.to_vec()),
        _ => Err(unusable("its public point is not an uncompressed P-256 point")),
    }
}

/// Signs something and verifies it: the two objects may carry one CKA_ID and still not belong together.
fn prove_possession(session: &Session, name: &KeyName, private: ObjectHandle, point: &[u8]) -> Result<(), HsmError> {
    let message = [b"ironroot proof of possession ", name.to_string().as_bytes()].concat();
    let hash = digest(&SHA256, &message);
    let signature = session.sign(&Mechanism::Ecdsa, private, hash.as_ref())?;
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(&message, &signature).map_err(|_| {
        HsmError::KeyUnusable {
            name: name.clone(),
            reason: "its private and public halves do not belong together".to_owned(),
        }
    })
}
