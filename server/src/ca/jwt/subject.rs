//! For whom a JWT-SVID is signed: an entry that the registry let an agent serve, or an ID that an administrator names.

use ironroot_api::{SpiffeId, SpiffeIdError, TrustDomain};
use thiserror::Error;

use crate::registry::AuthorizedEntry;
use crate::rights::Administrator;

/// An identity that a token may be signed for.
///
/// ```compile_fail
/// # fn forge(id: ironroot_api::SpiffeId) {
/// drop(ironroot_server::ca::JwtSubject { id, ttl_seconds: 0, has_token_id: false, hint: String::new(), ends_by: 0 });
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct JwtSubject {
    pub(super) id: SpiffeId,
    /// 0: the server's default.
    pub(super) ttl_seconds: u32,
    /// Whether the token gets an ID of its own.
    pub(super) has_token_id: bool,
    /// What the entry tells workloads of the identity; empty if it is no entry's.
    pub(super) hint: String,
    /// No token lasts longer, UNIX seconds.
    pub(super) ends_by: i64,
}

/// An ID that no workload can have. Source of the words: SPIRE `VerifyTrustDomainWorkloadID`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotForWorkloads {
    /// It is no ID, another trust domain's, or the trust domain's own.
    #[error(transparent)]
    Id(#[from] SpiffeIdError),
    /// Of a server or an agent.
    #[error("\"{id}\" is not a workload in trust domain \"{trust_domain}\"; path is in the reserved namespace")]
    Reserved {
        /// The ID that was named.
        id: SpiffeId,
        /// This server's.
        trust_domain: TrustDomain,
    },
}

impl JwtSubject {
    /// The identity of an entry that an agent serves.
    pub fn of_entry(entry: &AuthorizedEntry) -> Self {
        let entry = entry.entry();
        Self {
            id: entry.spiffe_id().clone(),
            ttl_seconds: entry.jwt_svid_ttl(),
            has_token_id: entry.jwt_svid_include_jti(),
            hint: entry.hint().to_owned(),
            ends_by: i64::MAX,
        }
    }

    /// The same, for a token that ends by then, UNIX seconds.
    pub fn ending_by(self, ends_by: i64) -> Self {
        Self { ends_by, ..self }
    }

    /// A workload's ID that an administrator asks a token for, `ttl_seconds` long.
    pub fn minted(
        _: &Administrator,
        id: SpiffeId,
        trust_domain: &TrustDomain,
        ttl_seconds: u32,
    ) -> Result<Self, NotForWorkloads> {
        Self::of_id(id, trust_domain, ttl_seconds)
    }

    /// The identity.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// What the entry tells workloads of the identity; empty if it is no entry's.
    pub fn hint(&self) -> &str {
        &self.hint
    }

    pub(super) fn of_id(id: SpiffeId, trust_domain: &TrustDomain, ttl_seconds: u32) -> Result<Self, NotForWorkloads> {
        Ok(Self {
            id: workload_id(id, trust_domain)?,
            ttl_seconds,
            has_token_id: false,
            hint: String::new(),
            ends_by: i64::MAX,
        })
    }
}

/// `id` itself if a workload of `trust_domain` can have it.
pub(in crate::ca) fn workload_id(id: SpiffeId, trust_domain: &TrustDomain) -> Result<SpiffeId, NotForWorkloads> {
    let id = id.as_member_of(trust_domain)?;
    match id.is_reserved() {
        true => Err(NotForWorkloads::Reserved { id, trust_domain: trust_domain.clone() }),
        false => Ok(id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(id: &str) -> Result<JwtSubject, NotForWorkloads> {
        let id = SpiffeId::parse(id).unwrap();
        JwtSubject::of_id(id, &TrustDomain::new("example.org").unwrap(), 0)
    }

    #[test]
    fn only_ids_that_workloads_can_have_are_minted() {
        assert!(named("spiffe://example.org/web").is_ok());
        assert!(matches!(named("spiffe://example.com/web"), Err(NotForWorkloads::Id(_))));
        assert!(matches!(named("spiffe://example.org"), Err(NotForWorkloads::Id(_))));
        let refused = named("spiffe://example.org/spire/agent/x").unwrap_err();
        assert!(matches!(refused, NotForWorkloads::Reserved { .. }), "{refused}");
    }
}
