//! The PKCS#11 objects of a key: searched by name, and destroyed only when the handle leads to what was searched for.

use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use tracing::info;

use super::Held;
use super::examination::examine;
use crate::error::HsmError;
use crate::kind::KeyKind;
use crate::login::{Login, is_logged_in};
use crate::name::{KeyId, KeyName};

/// The one key of this name, after checking what it is and how it is protected.
pub(crate) fn find(session: &Session, name: &KeyName, kind: KeyKind, login: Login) -> Result<Option<Held>, HsmError> {
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
    examine(session, &name, kind, [private, public], login).map(Some)
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

/// Private halves first: what is left when the second call fails is no secret.
pub(super) const CLASSES: [ObjectClass; 2] = [ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY];

/// Destroys an object, if its handle leads to what was looked for.
pub(super) fn destroy_checked(
    session: &Session,
    object: ObjectHandle,
    name: &KeyName,
    class: ObjectClass,
) -> Result<(), HsmError> {
    Identity::of(session, object)?.require(name, class)?;
    Ok(session.destroy_object(object)?)
}

/// What an object says that it is.
pub(super) struct Identity {
    class: Option<ObjectClass>,
    /// Empty if it has none.
    pub(super) id: Vec<u8>,
    pub(super) label: Vec<u8>,
}

impl Identity {
    pub(super) fn of(session: &Session, object: ObjectHandle) -> Result<Self, HsmError> {
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

pub(super) fn by_id(session: &Session, name: &KeyName, class: ObjectClass) -> Result<Vec<ObjectHandle>, HsmError> {
    let Some(id) = name.id() else { return Ok(Vec::new()) };
    let template = [Attribute::Class(class), Attribute::Token(true), Attribute::Id(id.as_bytes().to_vec())];
    Ok(session.find_objects(&template)?)
}

pub(super) fn by_label(session: &Session, name: &KeyName, class: ObjectClass) -> Result<Vec<ObjectHandle>, HsmError> {
    let Some(label) = name.label() else { return Ok(Vec::new()) };
    let template = [Attribute::Class(class), Attribute::Token(true), Attribute::Label(label.as_bytes().to_vec())];
    Ok(session.find_objects(&template)?)
}
