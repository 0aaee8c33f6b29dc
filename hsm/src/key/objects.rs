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

use super::Held;
use super::protection::{self, Protected, Shortcoming};
use crate::error::HsmError;
use crate::login::{Login, is_logged_in};
use crate::name::{KeyId, KeyName};
use crate::signature::P256Signature;

/// SubjectPublicKeyInfo of a P-256 key up to its point. Source: RFC 5480 §2.
pub(super) const P256_SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// CKA_EC_PARAMS of P-256: the object identifier prime256v1.
const P256_PARAMS: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const POINT_BYTES: usize = 65;

/// What is in the token before a key is made: what comes after it can be told apart.
pub(crate) struct Before {
    /// Handles of all keys, which are valid in this login only.
    handles: Vec<ObjectHandle>,
    /// CKA_IDs of the keys with the new one's label.
    labelled: Vec<Vec<u8>>,
}

impl Before {
    /// Looks at every private and public key that the login shows.
    pub(crate) fn see(session: &Session, name: &KeyName) -> Result<Self, HsmError> {
        let (mut handles, mut labelled) = (Vec::new(), Vec::new());
        for class in CLASSES {
            handles.extend(session.find_objects(&[Attribute::Class(class), Attribute::Token(true)])?);
            for object in by_label(session, name, class)? {
                labelled.push(Identity::of(session, object)?.id);
            }
        }
        Ok(Self { handles, labelled })
    }

    /// Whether both handles are new ones. Seen: tpm2-pkcs11 1.9 gives one handle to both halves, or those of another key.
    fn is_without(&self, handles: [ObjectHandle; 2]) -> bool {
        handles[0] != handles[1] && !handles.iter().any(|handle| self.handles.contains(handle))
    }
}

/// Makes a key pair and checks it. One that fails its checks is destroyed again, by its handles, if they are its own.
pub(crate) fn generate(session: &Session, name: &KeyName, before: &Before, login: Login) -> Result<Held, HsmError> {
    let (public, private) = make(session, name)?;
    if !before.is_without([public, private]) {
        // What these handles lead to may be another key: it is left alone.
        return Err(HsmError::HandlesMixedUp(name.clone()));
    }
    let given = name_given(session, name, private);
    let made = given.and_then(|name| examine(session, &name, private, public, login));
    if made.is_err() {
        for handle in [private, public] {
            if let Err(error) = session.destroy_object(handle) {
                let error = HsmError::from(error);
                warn!(key = %name, %error, "half of a key that failed its checks could not be removed yet");
            }
        }
    }
    made.inspect(|held| info!(key = %held.name(), "key generated in the token"))
}

fn make(session: &Session, name: &KeyName) -> Result<(ObjectHandle, ObjectHandle), HsmError> {
    let label = name.label().unwrap_or_default().as_bytes().to_vec();
    let mut named = vec![Attribute::Token(true), Attribute::Label(label)];
    named.extend(name.id().map(|id| Attribute::Id(id.as_bytes().to_vec())));
    let mut public = vec![Attribute::EcParams(P256_PARAMS.to_vec())];
    public.extend_from_slice(&named);
    let mut private = vec![
        Attribute::Private(true),
        Attribute::Sensitive(true),
        //= FLT-H7 token faults: "no attribute of it leaves the token"
        Attribute::Extractable(false),
        Attribute::Sign(true),
    ];
    private.extend_from_slice(&named);
    Ok(session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private)?)
}

/// The name under which the token keeps the new key.
fn name_given(session: &Session, asked: &KeyName, private: ObjectHandle) -> Result<KeyName, HsmError> {
    let Identity { id, label, .. } = Identity::of(session, private)?;
    let (Some(wanted), Some(given)) = (asked.id(), KeyId::new(&id)) else { return Ok(asked.clone()) };
    if given == *wanted {
        return Ok(asked.clone());
    }
    if asked.label().is_none_or(|wanted| wanted.as_bytes() != label) {
        return Err(HsmError::NameIgnored { id: wanted.clone(), given });
    }
    info!(asked = %asked, given = %given, "the token chooses CKA_IDs itself; the key is found again by its label");
    Ok(asked.clone().told(Some(given)))
}

fn examine(
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

/// Destroys what a failed generation may have left behind: keys of this CKA_ID, and keys of this label that were not there
/// `before`. Only for a name whose CKA_ID did not exist.
pub(crate) fn remove_strays(session: &Session, name: &KeyName, before: &Before) -> Result<(), HsmError> {
    let mut removed = 0usize;
    for class in CLASSES {
        let mut strays = by_id(session, name, class)?;
        for object in by_label(session, name, class)? {
            if !before.labelled.contains(&Identity::of(session, object)?.id) && !strays.contains(&object) {
                strays.push(object);
            }
        }
        for object in strays {
            destroy_checked(session, object, name, class)?;
            removed += 1;
        }
    }
    if removed > 0 {
        warn!(key = %name, objects = removed, "removed from the token what a failed key generation had left behind");
    }
    Ok(())
}

/// Destroys an object, if its handle leads to what was looked for.
fn destroy_checked(
    session: &Session,
    object: ObjectHandle,
    name: &KeyName,
    class: ObjectClass,
) -> Result<(), HsmError> {
    Identity::of(session, object)?.require(name, class)?;
    Ok(session.destroy_object(object)?)
}

/// What an object says that it is.
struct Identity {
    class: Option<ObjectClass>,
    /// Empty if it has none.
    id: Vec<u8>,
    label: Vec<u8>,
}

impl Identity {
    fn of(session: &Session, object: ObjectHandle) -> Result<Self, HsmError> {
        let mut identity = Self { class: None, id: Vec::new(), label: Vec::new() };
        for attribute in
            session.get_attributes(object, &[AttributeType::Class, AttributeType::Id, AttributeType::Label])?
        {
            match attribute {
                Attribute::Class(class) => identity.class = Some(class),
                Attribute::Id(id) => identity.id = id,
                Attribute::Label(label) => identity.label = label,
                _ => {}
            }
        }
        Ok(identity)
    }

    /// A search gave its handle: it must lead to what was searched for.
    fn require(&self, name: &KeyName, class: ObjectClass) -> Result<(), HsmError> {
        let is_named = name.id().is_some_and(|id| id.as_bytes() == self.id)
            || name.label().is_some_and(|label| label.as_bytes() == self.label);
        match self.class == Some(class) && is_named {
            true => Ok(()),
            false => Err(HsmError::HandlesMixedUp(name.clone())),
        }
    }
}

/// The one key of this name, after checking what it is and how it is protected.
pub(crate) fn find(session: &Session, name: &KeyName, login: Login) -> Result<Option<Held>, HsmError> {
    let Some(private) = only_one(session, name, ObjectClass::PRIVATE_KEY, "private")? else {
        // A session that is not logged in sees no private keys, and says so by an empty list.
        return if !login.is_needed || is_logged_in(session)? { Ok(None) } else { Err(HsmError::NotLoggedIn) };
    };
    let identity = Identity::of(session, private)?;
    identity.require(name, ObjectClass::PRIVATE_KEY)?;
    let name = name.clone().told(KeyId::new(&identity.id));
    let public = only_one(session, &name, ObjectClass::PUBLIC_KEY, "public")?;
    let public = public.ok_or_else(|| HsmError::PublicKeyMissing(name.clone()))?;
    Identity::of(session, public)?.require(&name, ObjectClass::PUBLIC_KEY)?;
    examine(session, &name, private, public, login).map(Some)
}

/// Destroys whatever has this name, private halves first; true if there was anything.
pub(crate) fn destroy(session: &Session, name: &KeyName) -> Result<bool, HsmError> {
    let with = |search: &dyn Fn(ObjectClass) -> Result<Vec<ObjectHandle>, HsmError>| {
        let mut found = Vec::new();
        for class in CLASSES {
            found.extend(search(class)?.into_iter().map(|object| (object, class)));
        }
        Ok::<_, HsmError>(found)
    };
    let mut doomed = with(&|class| by_id(session, name, class))?;
    if doomed.is_empty() {
        doomed = with(&|class| by_label(session, name, class))?;
    }
    for (object, class) in &doomed {
        destroy_checked(session, *object, name, *class)?;
    }
    if !doomed.is_empty() {
        info!(key = %name, "key destroyed in the token");
    }
    Ok(!doomed.is_empty())
}

/// A token's signature, if it has the length of one.
pub(crate) fn checked_signature(name: &KeyName, bytes: &[u8]) -> Result<P256Signature, HsmError> {
    <[u8; 64]>::try_from(bytes).map(P256Signature::from).map_err(|_| HsmError::KeyUnusable {
        name: name.clone(),
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
    let mut found = by_id(session, name, class)?;
    if found.is_empty() {
        found = by_label(session, name, class)?;
    }
    match found[..] {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        //= FLT-H5 token faults: "neither is used until one is named exactly"
        _ => Err(HsmError::DuplicateKey { name: name.clone(), class: class_name, count: found.len() }),
    }
}

fn by_id(session: &Session, name: &KeyName, class: ObjectClass) -> Result<Vec<ObjectHandle>, HsmError> {
    let Some(id) = name.id() else { return Ok(Vec::new()) };
    let template = [Attribute::Class(class), Attribute::Token(true), Attribute::Id(id.as_bytes().to_vec())];
    Ok(session.find_objects(&template)?)
}

fn by_label(session: &Session, name: &KeyName, class: ObjectClass) -> Result<Vec<ObjectHandle>, HsmError> {
    let Some(label) = name.label() else { return Ok(Vec::new()) };
    let template = [Attribute::Class(class), Attribute::Token(true), Attribute::Label(label.as_bytes().to_vec())];
    Ok(session.find_objects(&template)?)
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
