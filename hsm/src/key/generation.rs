//! Keys are made in the token: minimal templates, and nothing left behind by a failure.
//!
//! Templates name only what must not be left to the token's defaults; some tokens refuse anything more.
//! Source: OASIS PKCS #11 v2.40 §4.8, §4.9; mechanisms v2.40 §2.3.

use cryptoki::context::Pkcs11;
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, ObjectHandle};
use cryptoki::session::Session;
use cryptoki::slot::Slot;
use tracing::{info, warn};

use super::Held;
use super::examination::examine;
use super::objects::{CLASSES, Identity, by_id, by_label, destroy_checked};
use super::public_half::{RSA_EXPONENT, ec_params, parameter_set};
use crate::error::HsmError;
use crate::kind::KeyKind;
use crate::login::Login;
use crate::name::{KeyId, KeyName};

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
pub(crate) fn generate(
    session: &Session,
    name: &KeyName,
    kind: KeyKind,
    before: &Before,
    login: Login,
) -> Result<Held, HsmError> {
    let (public, private) = make(session, name, kind)?;
    if !before.is_without([public, private]) {
        // What these handles lead to may be another key: it is left alone.
        return Err(HsmError::HandlesMixedUp(name.clone()));
    }
    let given = name_given(session, name, private);
    let made = given.and_then(|name| examine(session, &name, kind, [private, public], login));
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

/// How keys of this kind are made: the mechanism, what it is called, and their length, bits. Those of ML-DSA have none by which tokens agree:
/// their parameter set says it.
fn maker(kind: KeyKind) -> (Mechanism<'static>, &'static str, Option<usize>) {
    match kind {
        KeyKind::EcP256 => (Mechanism::EccKeyPairGen, "CKM_EC_KEY_PAIR_GEN", Some(256)),
        KeyKind::EcP384 => (Mechanism::EccKeyPairGen, "CKM_EC_KEY_PAIR_GEN", Some(384)),
        KeyKind::Rsa2048 | KeyKind::Rsa4096 => {
            (Mechanism::RsaPkcsKeyPairGen, "CKM_RSA_PKCS_KEY_PAIR_GEN", kind.modulus_bits())
        }
        KeyKind::MlDsa(_) => (Mechanism::MlDsaKeyPairGen, "CKM_ML_DSA_KEY_PAIR_GEN", None),
    }
}

/// What a template says of a public key of this kind. Source: OASIS PKCS #11 v2.40 mechanisms §2.1.4, §2.3.5; v3.2, CKM_ML_DSA_KEY_PAIR_GEN.
fn parameters(kind: KeyKind) -> Vec<Attribute> {
    match kind {
        KeyKind::EcP256 | KeyKind::EcP384 => vec![Attribute::EcParams(ec_params(kind))],
        KeyKind::Rsa2048 | KeyKind::Rsa4096 => {
            let bits = kind.modulus_bits().and_then(|bits| std::ffi::c_ulong::try_from(bits).ok());
            let exponent = Attribute::PublicExponent(RSA_EXPONENT.to_vec());
            vec![Attribute::ModulusBits(bits.unwrap_or(std::ffi::c_ulong::MAX).into()), exponent]
        }
        KeyKind::MlDsa(set) => vec![Attribute::ParameterSet(parameter_set(set))],
    }
}

/// Why the token, by its own word, makes no keys of this kind; none if nothing speaks against it. Source: OASIS PKCS #11 v2.40 §5.5,
/// C_GetMechanismInfo: the lengths of EC and RSA keys are in bits.
pub(crate) fn what_it_lacks(pkcs11: &Pkcs11, slot: Slot, kind: KeyKind) -> Result<Option<String>, HsmError> {
    let (mechanism, name, bits) = maker(kind);
    let mechanism = mechanism.mechanism_type();
    if !pkcs11.get_mechanism_list(slot)?.contains(&mechanism) {
        return Ok(Some(format!("it offers no {name}")));
    }
    let Some(bits) = bits else { return Ok(None) };
    let info = pkcs11.get_mechanism_info(slot, mechanism)?;
    let (least, most) = (info.min_key_size(), info.max_key_size());
    let fits = (least..=most).contains(&bits) || most == 0;
    Ok((!fits).then(|| format!("by its {name} it makes keys of {least} to {most} bits")))
}

fn make(session: &Session, name: &KeyName, kind: KeyKind) -> Result<(ObjectHandle, ObjectHandle), HsmError> {
    let label = name.label().unwrap_or_default().as_bytes().to_vec();
    let mut named = vec![Attribute::Token(true), Attribute::Label(label)];
    named.extend(name.id().map(|id| Attribute::Id(id.as_bytes().to_vec())));
    let ((mechanism, ..), mut public) = (maker(kind), parameters(kind));
    public.extend_from_slice(&named);
    let mut private = vec![
        Attribute::Private(true),
        Attribute::Sensitive(true),
        //= FLT-H7 token faults: "no attribute of it leaves the token"
        Attribute::Extractable(false),
        Attribute::Sign(true),
    ];
    private.extend_from_slice(&named);
    Ok(session.generate_key_pair(&mechanism, &public, &private)?)
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
