//! A token key that becomes an authority: what the bundle will say of it.

use ironroot_api::csr::Spki;

use super::error::JwtError;
use crate::ca::issuer::Candidate;
use crate::ca::journal::{Authority, Credential, JwtKey, KeyId, Verdict};
use crate::ca::{CaError, CaPolicy};
use crate::clock::Moment;

/// The authority of a key of that kind from now on, for the policy's lifetime of CAs, under a new key ID: a key that is published once more is
/// told from its earlier life. Source of the lifetime: SPIRE `prepareJWTKey`.
pub(in crate::ca) fn publishable(
    candidate: Candidate,
    kind: fn(JwtKey) -> Credential,
    policy: &CaPolicy,
    moment: Moment,
    key_id: KeyId,
) -> Result<Authority, CaError> {
    let Candidate { key, number, record } = candidate;
    let spki = Spki::parse(key.spki_der()).map_err(JwtError::Key)?;
    Ok(Authority {
        credential: kind(JwtKey::new(key_id, spki)),
        issued_at: moment.now_unix,
        not_after: moment.now_unix.saturating_add(policy.ca_ttl_seconds),
        issued_counted: moment.counted,
        key: number,
        in_token: record,
        root: None,
        upstream: None,
        verdict: Verdict::None,
    })
}
