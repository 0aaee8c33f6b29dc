//! The PKCS#11 objects of a key: minimal templates, strict checks.
//!
//! Templates name only what must not be left to the token's defaults; some tokens refuse anything more.
//! Source: OASIS PKCS #11 v2.40 §4.8, §4.9; mechanisms v2.40 §2.3.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use tracing::{info, warn};

use super::protection::{self, Protected, Shortcoming};
use super::{Held, KeyId, KeyName};
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

/// How often a pair is made anew at once when the token tells one handle for both halves: tpm2-pkcs11 1.9 does at times.
const ONE_HANDLE_RETRIES: usize = 2;

/// Makes a key pair and checks it. One that fails its checks is destroyed again. `before`: what [`labelled`] found.
pub(crate) fn generate(session: &Session, name: &KeyName, before: &[Vec<u8>], login: Login) -> Result<Held, HsmError> {
    let mut retries = ONE_HANDLE_RETRIES;
    loop {
        let (public, private) = make(session, name)?;
        let made = examine_new(session, name, public, private, login);
        if made.is_err() {
            remove_made(session, name, before, [private, public]);
        }
        match made {
            Err(error @ HsmError::OneHandle(_)) if retries > 0 => {
                retries -= 1;
                warn!(key = %name, "{error}");
            }
            made => return made.inspect(|held| info!(key_id = %held.id(), key = %name, "key generated in the token")),
        }
    }
}

fn make(session: &Session, name: &KeyName) -> Result<(ObjectHandle, ObjectHandle), HsmError> {
    let label = name.label().unwrap_or_default().as_bytes().to_vec();
    let named = [Attribute::Token(true), Attribute::Id(name.id().as_bytes().to_vec()), Attribute::Label(label)];
    let mut public = vec![Attribute::EcParams(P256_PARAMS.to_vec())];
    public.extend_from_slice(&named);
    let mut private = vec![
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
    ];
    private.extend_from_slice(&named);
    Ok(session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private)?)
}

/// What was made, by its handles: whether it will be found again by its name is a part of the examination.
fn examine_new(
    session: &Session,
    name: &KeyName,
    public: ObjectHandle,
    private: ObjectHandle,
    login: Login,
) -> Result<Held, HsmError> {
    if public == private {
        return Err(HsmError::OneHandle(name.id().clone()));
    }
    let name = name_given(session, name, private)?;
    examine(session, &name, private, public, login)
}

/// The name under which the token keeps the new key.
fn name_given(session: &Session, asked: &KeyName, private: ObjectHandle) -> Result<KeyName, HsmError> {
    let (mut id, mut label) = (None, Vec::new());
    for attribute in session.get_attributes(private, &[AttributeType::Id, AttributeType::Label])? {
        match attribute {
            Attribute::Id(bytes) => id = KeyId::new(&bytes),
            Attribute::Label(bytes) => label = bytes,
            _ => {}
        }
    }
    let id = id.unwrap_or_else(|| asked.id().clone());
    if id == *asked.id() {
        return Ok(asked.clone());
    }
    if asked.label().is_none_or(|wanted| wanted.as_bytes() != label) {
        return Err(HsmError::NameIgnored { id: asked.id().clone(), given: id });
    }
    info!(asked = %asked, given = %id, "the token chooses CKA_IDs itself; the key is found again by its label");
    Ok(KeyName { id, label: asked.label.clone() })
}

fn examine(
    session: &Session,
    name: &KeyName,
    private: ObjectHandle,
    public: ObjectHandle,
    login: Login,
) -> Result<Held, HsmError> {
    let says_local = check_protection(session, name.id(), private)?.says_local;
    let point = p256_point(session, name.id(), public)?;
    prove_possession(session, name.id(), private, &point)?;
    let spki = [&P256_SPKI_PREFIX[..], &point].concat();
    Ok(Held::new(name.clone(), spki, says_local, private, login))
}

/// A pair that failed its examination goes, by handle and by name. What cannot be removed is told; the examination's own error
/// is the one that is reported.
fn remove_made(session: &Session, name: &KeyName, before: &[Vec<u8>], handles: [ObjectHandle; 2]) {
    for handle in handles {
        // The second of two equal handles is gone with the first.
        let _ = session.destroy_object(handle);
    }
    if let Err(error) = remove_strays(session, name, before) {
        warn!(key = %name, error = %error, "a key that failed its checks could not be removed: delete it by hand");
    }
}

/// CKA_IDs of all keys with this label: what is there before one is made.
pub(crate) fn labelled(session: &Session, label: &str) -> Result<Vec<Vec<u8>>, HsmError> {
    let mut ids = Vec::new();
    for class in CLASSES {
        for object in by_label(session, label, class)? {
            ids.push(id_of(session, object)?);
        }
    }
    Ok(ids)
}

/// Destroys what a failed generation may have left behind: keys of this CKA_ID, and keys of this label that were not there
/// `before`. Only for a name whose CKA_ID did not exist.
pub(crate) fn remove_strays(session: &Session, name: &KeyName, before: &[Vec<u8>]) -> Result<(), HsmError> {
    let mut removed = 0usize;
    for class in CLASSES {
        let mut strays = by_id(session, name.id(), class)?;
        for object in by_label(session, name.label().unwrap_or_default(), class)? {
            if !before.contains(&id_of(session, object)?) && !strays.contains(&object) {
                strays.push(object);
            }
        }
        for object in strays {
            session.destroy_object(object)?;
            removed += 1;
        }
    }
    if removed > 0 {
        warn!(key = %name, objects = removed, "removed from the token what a failed key generation had left behind");
    }
    Ok(())
}

/// The one key of this name, after checking what it is and how it is protected.
pub(crate) fn find(session: &Session, name: &KeyName, login: Login) -> Result<Option<Held>, HsmError> {
    let Some(private) = only_one(session, name, ObjectClass::PRIVATE_KEY, "private")? else {
        // A session that is not logged in sees no private keys, and says so by an empty list.
        return if !login.is_needed || is_logged_in(session)? { Ok(None) } else { Err(HsmError::NotLoggedIn) };
    };
    let id = KeyId::new(&id_of(session, private)?).unwrap_or_else(|| name.id().clone());
    let name = KeyName { id, label: name.label.clone() };
    let public = only_one(session, &name, ObjectClass::PUBLIC_KEY, "public")?;
    let public = public.ok_or_else(|| HsmError::PublicKeyMissing(name.id().clone()))?;
    examine(session, &name, private, public, login).map(Some)
}

/// Destroys whatever has this name, private halves first; true if there was anything.
pub(crate) fn destroy(session: &Session, name: &KeyName) -> Result<bool, HsmError> {
    let mut doomed = Vec::new();
    for class in CLASSES {
        doomed.extend(by_id(session, name.id(), class)?);
    }
    if doomed.is_empty() {
        for class in CLASSES {
            doomed.extend(by_label(session, name.label().unwrap_or_default(), class)?);
        }
    }
    for object in &doomed {
        session.destroy_object(*object)?;
    }
    if !doomed.is_empty() {
        info!(key = %name, "key destroyed in the token");
    }
    Ok(!doomed.is_empty())
}

/// A token's signature, if it has the length of one.
pub(crate) fn checked_signature(id: &KeyId, bytes: &[u8]) -> Result<P256Signature, HsmError> {
    <[u8; 64]>::try_from(bytes).map(P256Signature::from).map_err(|_| HsmError::KeyUnusable {
        id: id.clone(),
        reason: format!("C_Sign returned {} bytes where a P-256 signature has 64", bytes.len()),
    })
}

/// Private halves first: what is left when the second call fails is no secret.
const CLASSES: [ObjectClass; 2] = [ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY];

/// The object with this CKA_ID; if there is none, the one with this label.
fn only_one(
    session: &Session,
    name: &KeyName,
    class: ObjectClass,
    class_name: &'static str,
) -> Result<Option<ObjectHandle>, HsmError> {
    let mut found = by_id(session, name.id(), class)?;
    if found.is_empty() {
        found = by_label(session, name.label().unwrap_or_default(), class)?;
    }
    match found[..] {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        _ => Err(HsmError::DuplicateKey { name: name.clone(), class: class_name, count: found.len() }),
    }
}

fn by_id(session: &Session, id: &KeyId, class: ObjectClass) -> Result<Vec<ObjectHandle>, HsmError> {
    let template = [Attribute::Class(class), Attribute::Token(true), Attribute::Id(id.as_bytes().to_vec())];
    Ok(session.find_objects(&template)?)
}

/// An empty label names nothing.
fn by_label(session: &Session, label: &str, class: ObjectClass) -> Result<Vec<ObjectHandle>, HsmError> {
    if label.is_empty() {
        return Ok(Vec::new());
    }
    let template = [Attribute::Class(class), Attribute::Token(true), Attribute::Label(label.as_bytes().to_vec())];
    Ok(session.find_objects(&template)?)
}

/// The object's CKA_ID; empty if it has none.
fn id_of(session: &Session, object: ObjectHandle) -> Result<Vec<u8>, HsmError> {
    let told = session.get_attributes(object, &[AttributeType::Id])?;
    Ok(told.into_iter().find_map(|a| if let Attribute::Id(id) = a { Some(id) } else { None }).unwrap_or_default())
}

fn check_protection(session: &Session, id: &KeyId, private: ObjectHandle) -> Result<Protected, HsmError> {
    let told = session.get_attributes(private, &protection::ATTRIBUTES)?;
    protection::judge(&told).map_err(|shortcoming| match shortcoming {
        Shortcoming::Unprotected(attribute) => HsmError::KeyUnprotected { id: id.clone(), attribute },
        Shortcoming::AlwaysAuthenticate => HsmError::KeyUnusable {
            id: id.clone(),
            reason: "the token wants the PIN again for each signature (CKA_ALWAYS_AUTHENTICATE, a login as \
                     CKU_CONTEXT_SPECIFIC); set the token up to make keys without that"
                .to_owned(),
        },
    })
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
