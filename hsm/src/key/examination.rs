//! What a key must be before it is used: protected, of its kind, and two halves that belong together.

use cryptoki::mechanism::dsa::{HedgeType, SignAdditionalContext};
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsPssParams};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::ObjectHandle;
use cryptoki::session::Session;
use cryptoki::types::Ulong;

use super::Held;
use super::protection::{self, Protected, Shortcoming};
use super::public_half::PublicHalf;
use crate::error::HsmError;
use crate::kind::{KeyKind, SigningInput};
use crate::login::Login;
use crate::name::KeyName;

/// Checks how a key is protected, that it is of this kind, and that its halves belong together.
pub(super) fn examine(
    session: &Session,
    name: &KeyName,
    kind: KeyKind,
    [private, public]: [ObjectHandle; 2],
    login: Login,
) -> Result<Held, HsmError> {
    let says_local = check_protection(session, name, private)?.says_local;
    let public = PublicHalf::read(session, name, kind, public)?;
    prove_possession(session, name, kind, private, &public)?;
    Ok(Held::new(name.clone(), (kind, &public), says_local, private, login))
}

/// SHA-256 and a salt as long as its digest. Source: RFC 8017 §8.1; OASIS PKCS #11 v2.40 mechanisms §2.1.10.
const PSS: PkcsPssParams =
    PkcsPssParams { hash_alg: MechanismType::SHA256, mgf: PkcsMgfType::MGF1_SHA256, s_len: Ulong::new(32) };

/// How a key of this kind signs that. ML-DSA without a context, as certificates want it; whether it is hedged is the token's. Source: RFC 9881
/// §3; OASIS PKCS #11 v3.2, CKM_ML_DSA.
pub(crate) fn mechanism(kind: KeyKind, input: &SigningInput) -> Mechanism<'static> {
    match kind {
        KeyKind::EcP256 | KeyKind::EcP384 => Mechanism::Ecdsa,
        KeyKind::Rsa2048 | KeyKind::Rsa4096 if input.is_for_pss() => Mechanism::RsaPkcsPss(PSS),
        KeyKind::Rsa2048 | KeyKind::Rsa4096 => Mechanism::RsaPkcs,
        KeyKind::MlDsa(_) => Mechanism::MlDsa(SignAdditionalContext::new(HedgeType::Preferred, None)),
    }
}

/// A token's signature, if it has the length of one.
pub(crate) fn checked_signature(name: &KeyName, kind: KeyKind, bytes: Vec<u8>) -> Result<Vec<u8>, HsmError> {
    if bytes.len() == kind.signature_bytes() {
        return Ok(bytes);
    }
    Err(HsmError::KeyUnusable {
        name: name.clone(),
        reason: format!(
            "C_Sign returned {} bytes where a {kind} signature has {}",
            bytes.len(),
            kind.signature_bytes()
        ),
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

/// Signs something and verifies it: the two objects may carry one CKA_ID and still not belong together.
fn prove_possession(
    session: &Session,
    name: &KeyName,
    kind: KeyKind,
    private: ObjectHandle,
    public: &PublicHalf,
) -> Result<(), HsmError> {
    let message = [b"ironroot proof of possession ", name.to_string().as_bytes()].concat();
    let input = SigningInput::of(kind, &message);
    let signature = session.sign(&mechanism(kind, &input), private, input.as_bytes())?;
    match public.verifies(&message, &signature) {
        true => Ok(()),
        false => Err(HsmError::KeyUnusable {
            name: name.clone(),
            reason: "its private and public halves do not belong together".to_owned(),
        }),
    }
}
