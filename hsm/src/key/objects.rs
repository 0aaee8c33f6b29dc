//! The PKCS#11 objects of a key: minimal templates, strict checks.
//!
//! Templates name only what must not be left to the token's defaults; some tokens refuse anything more.
//! Source: OASIS PKCS #11 v2.40 §4.8, §4.9; mechanisms v2.40 §2.3.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use tracing::info;

use super::{Held, KeyId};
use crate::error::HsmError;
use crate::signature::P256Signature;
use crate::token::{Login, is_logged_in};

/// SubjectPublicKeyInfo of a P-256 key up to its point. Source: RFC 5480 §2.
pub(super) const P256_SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// CKA_EC_PARAMS of P-256: the object identifier prime256v1.
const P256_PARAMS: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const POINT_BYTES: usize = 65;

/// What every private key must say of itself. The token's word is all there is: PKCS#11 has no key attestation.
const REQUIRED: [(AttributeType, bool, &str); 6] = [
    (AttributeType::Private, true, "CKA_PRIVATE"),
    (AttributeType::Sensitive, true, "CKA_SENSITIVE"),
    (AttributeType::Extractable, false, "CKA_EXTRACTABLE"),
    (AttributeType::AlwaysSensitive, true, "CKA_ALWAYS_SENSITIVE"),
    (AttributeType::NeverExtractable, true, "CKA_NEVER_EXTRACTABLE"),
    (AttributeType::Local, true, "CKA_LOCAL"),
];

/// Makes a key pair and checks it. A key that fails its checks is destroyed again.
pub(crate) fn generate(session: &Session, id: &KeyId, label: &str, login: Login) -> Result<Held, HsmError> {
    for class in [ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY] {
        if !objects(session, id, class)?.is_empty() {
            return Err(HsmError::KeyExists(id.clone()));
        }
    }
    let named =
        [Attribute::Token(true), Attribute::Id(id.as_bytes().to_vec()), Attribute::Label(label.as_bytes().to_vec())];
    let mut public = vec![Attribute::EcParams(P256_PARAMS.to_vec())];
    public.extend_from_slice(&named);
    let mut private = vec![
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
    ];
    private.extend_from_slice(&named);
    session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private)?;
    let made = find(session, id, login).and_then(|found| found.ok_or_else(|| HsmError::KeyLost(id.clone())));
    if made.is_err() {
        destroy(session, id)?;
    }
    made.inspect(|_| info!(key_id = %id, label, "key generated in the token"))
}

/// The one key with this CKA_ID, after checking what it is and how it is protected.
pub(crate) fn find(session: &Session, id: &KeyId, login: Login) -> Result<Option<Held>, HsmError> {
    let Some(private) = only_one(session, id, ObjectClass::PRIVATE_KEY, "private")? else {
        // A session that is not logged in sees no private keys, and says so by an empty list.
        return if is_logged_in(session)? { Ok(None) } else { Err(HsmError::NotLoggedIn) };
    };
    check_protection(session, id, private)?;
    let public = only_one(session, id, ObjectClass::PUBLIC_KEY, "public")?;
    let public = public.ok_or_else(|| HsmError::PublicKeyMissing(id.clone()))?;
    let point = p256_point(session, id, public)?;
    prove_possession(session, id, private, &point)?;
    let spki = [&P256_SPKI_PREFIX[..], &point].concat();
    Ok(Some(Held::new(id.clone(), spki, private, login)))
}

/// Destroys whatever has this CKA_ID, private halves first; true if there was anything.
pub(crate) fn destroy(session: &Session, id: &KeyId) -> Result<bool, HsmError> {
    let mut any = false;
    for class in [ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY] {
        for object in objects(session, id, class)? {
            session.destroy_object(object)?;
            any = true;
        }
    }
    if any {
        info!(key_id = %id, "key destroyed in the token");
    }
    Ok(any)
}

/// A token's signature, if it has the length of one.
pub(crate) fn checked_signature(id: &KeyId, bytes: &[u8]) -> Result<P256Signature, HsmError> {
    <[u8; 64]>::try_from(bytes).map(P256Signature::from).map_err(|_| HsmError::KeyUnusable {
        id: id.clone(),
        reason: format!("C_Sign returned {} bytes where a P-256 signature has 64", bytes.len()),
    })
}

fn only_one(
    session: &Session,
    id: &KeyId,
    class: ObjectClass,
    name: &'static str,
) -> Result<Option<ObjectHandle>, HsmError> {
    let found = objects(session, id, class)?;
    match found[..] {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        _ => Err(HsmError::DuplicateKey { id: id.clone(), class: name, count: found.len() }),
    }
}

fn objects(session: &Session, id: &KeyId, class: ObjectClass) -> Result<Vec<ObjectHandle>, HsmError> {
    let template = [Attribute::Class(class), Attribute::Token(true), Attribute::Id(id.as_bytes().to_vec())];
    Ok(session.find_objects(&template)?)
}

fn check_protection(session: &Session, id: &KeyId, private: ObjectHandle) -> Result<(), HsmError> {
    let wanted: Vec<AttributeType> = REQUIRED.iter().map(|(kind, ..)| *kind).collect();
    let found = session.get_attributes(private, &wanted)?;
    for (kind, value, name) in REQUIRED {
        let attribute = match found.iter().find(|a| a.attribute_type() == kind).map(flag) {
            Some(Some(found)) if found == value => continue,
            Some(_) => format!("{name} is {}", !value),
            None => format!("the token does not tell {name}"),
        };
        return Err(HsmError::KeyUnprotected { id: id.clone(), attribute });
    }
    Ok(())
}

fn flag(attribute: &Attribute) -> Option<bool> {
    match attribute {
        Attribute::Private(v)
        | Attribute::Sensitive(v)
        | Attribute::Extractable(v)
        | Attribute::AlwaysSensitive(v)
        | Attribute::NeverExtractable(v)
        | Attribute::Local(v) => Some(*v),
        _ => None,
    }
}

fn p256_point(session: &Session, id: &KeyId, public: ObjectHandle) -> Result<Vec<u8>, HsmError> {
    let unusable = |reason: &str| HsmError::KeyUnusable { id: id.clone(), reason: reason.to_owned() };
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
fn prove_possession(session: &Session, id: &KeyId, private: ObjectHandle, point: &[u8]) -> Result<(), HsmError> {
    let message = [b"ironroot proof of possession ", id.as_bytes()].concat();
    let hash = digest(&SHA256, &message);
    let signature = session.sign(&Mechanism::Ecdsa, private, hash.as_ref())?;
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(&message, &signature).map_err(|_| {
        HsmError::KeyUnusable {
            id: id.clone(),
            reason: "its private and public halves do not belong together".to_owned(),
        }
    })
}
