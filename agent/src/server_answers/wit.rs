//! A WIT-SVID that goes with a workload's X509-SVID: for the same ID and the same key.

use std::fmt;
use std::sync::Arc;

use ironroot_api::SpiffeId;
use ironroot_api::csr::{KeyKind, Spki};
use ironroot_api::jwt::{HolderKey, JwtAuthorities, WitSvid};

use super::AnswerRefusal;
use crate::trusted_time::{Lifetime, Span, TrustedTime};

/// What a workload's key, a DER SubjectPublicKeyInfo, signs by, in the name of RFC 7518; none if workloads have no such keys.
pub fn holder_algorithm(spki_der: &[u8]) -> Option<&'static str> {
    match Spki::parse(spki_der).ok()?.kind() {
        KeyKind::EcP256 => Some("ES256"),
        KeyKind::EcP384 => Some("ES384"),
        KeyKind::Rsa => Some("RS256"),
        KeyKind::Ed25519 | KeyKind::MlDsa(_) => None,
    }
}

/// See the module. Worth nothing without the key; clones share the text.
#[derive(Clone, PartialEq, Eq)]
pub struct Wit {
    token: Arc<str>,
    key_id: Arc<str>,
    lifetime: Lifetime,
}

impl Wit {
    /// Checks what the server signed: by a key of the bundle, for that ID and that key, a DER SubjectPublicKeyInfo.
    pub fn from_answer(
        token: &str,
        (expected, spki_der): (&SpiffeId, &[u8]),
        authorities: &JwtAuthorities,
        time: &TrustedTime,
    ) -> Result<Self, AnswerRefusal> {
        let (key_id, span) = checked(token, (expected, spki_der), authorities)?;
        let lifetime = time.count(span.not_before, span);
        Ok(Self { token: token.into(), key_id: key_id.into(), lifetime })
    }

    /// The same of one that was stored, with the seconds that were `left` then, if known.
    pub fn restored(
        token: &str,
        (expected, spki_der): (&SpiffeId, &[u8]),
        authorities: &JwtAuthorities,
        left: Option<i64>,
    ) -> Result<Self, AnswerRefusal> {
        let (key_id, span) = checked(token, (expected, spki_der), authorities)?;
        Ok(Self { token: token.into(), key_id: key_id.into(), lifetime: Lifetime::kept(span, left) })
    }

    /// The token itself.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The key that signed it.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// How long it lasts.
    pub fn lifetime(&self) -> &Lifetime {
        &self.lifetime
    }

    /// Whether the key that signed it still is among `authorities`, and is not tainted.
    pub fn is_trusted(&self, authorities: &JwtAuthorities) -> bool {
        authorities.find(&self.key_id).is_some_and(|key| !key.is_tainted())
    }
}

/// The key that signed it, and when it is valid.
fn checked(
    token: &str,
    (expected, spki_der): (&SpiffeId, &[u8]),
    authorities: &JwtAuthorities,
) -> Result<(String, Span), AnswerRefusal> {
    let svid = WitSvid::verify(token, authorities)?;
    if svid.subject() != expected {
        let (found, expected) = (svid.subject().to_string(), expected.to_string());
        return Err(AnswerRefusal::OtherId { found, expected });
    }
    let algorithm = holder_algorithm(spki_der).ok_or(AnswerRefusal::Key)?;
    let holder = HolderKey::new(spki_der, algorithm).map_err(|_| AnswerRefusal::Key)?;
    if !svid.is_for(&holder) {
        return Err(AnswerRefusal::OtherKey);
    }
    let (not_before, not_after) = svid.times();
    match not_before < not_after {
        true => Ok((svid.key_id().to_owned(), Span { not_before, not_after })),
        false => Err(AnswerRefusal::NeverValid),
    }
}

impl fmt::Debug for Wit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wit").field("key_id", &self.key_id).field("lifetime", &self.lifetime).finish_non_exhaustive()
    }
}
