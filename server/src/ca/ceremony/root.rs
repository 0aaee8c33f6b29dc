//! The root: made, and ready to sign.

use ironroot_api::TrustDomain;
use ironroot_api::certificate::Certificate;

use super::{CeremonyRefusal, WantedCa};
use crate::ca::profile::AuthorityFacts;
use crate::ca::{CaError, CaSubject, issuer, profile};
use crate::keys::Key;

/// Certifies `key` with itself as the root of this trust domain, for `ttl_seconds` from now on; verified before it is returned.
pub async fn make_root(
    key: &Key,
    subject: &CaSubject,
    trust_domain: &TrustDomain,
    ttl_seconds: i64,
    now_unix: i64,
) -> Result<Certificate, CaError> {
    let subject = profile::root_subject(subject, trust_domain);
    issuer::certify_itself(key, &subject, trust_domain, now_unix, now_unix.saturating_add(ttl_seconds)).await
}

/// A root that may sign now, with its key at hand.
///
/// ```compile_fail
/// # fn forge(key: ironroot_server::keys::Key, certificate: ironroot_api::certificate::Certificate) {
/// let root = ironroot_server::ca::RootToSign { key, certificate };
/// # }
/// ```
#[must_use]
pub struct RootToSign {
    key: Key,
    facts: AuthorityFacts,
}

impl RootToSign {
    /// `key` is what the token gave for the root's name, `certificate` the root's. Refused: another root's token, no CA, another trust
    /// domain's, one that has ended.
    pub fn of(
        key: Key,
        certificate: &Certificate,
        trust_domain: &TrustDomain,
        now_unix: i64,
    ) -> Result<Self, CeremonyRefusal> {
        refuse_no_root(certificate, trust_domain)?;
        if certificate.spki_der() != key.spki_der() {
            return Err(CeremonyRefusal::WrongToken(key.name().clone()));
        }
        if certificate.not_after_unix() <= now_unix {
            return Err(CeremonyRefusal::RootEnded(certificate.not_after_unix()));
        }
        if now_unix < certificate.not_before_unix() {
            let begins = certificate.not_before_unix();
            return Err(CeremonyRefusal::RootNotYet { now: now_unix, begins });
        }
        let facts = AuthorityFacts::of(certificate).map_err(|_| CeremonyRefusal::NoCa("it has no subject key ID"))?;
        Ok(Self { key, facts })
    }

    /// Signs the CA for `ttl_seconds`, and no longer than the root lives; verified before it is returned.
    pub async fn sign(&self, wanted: &WantedCa, ttl_seconds: i64, now_unix: i64) -> Result<Certificate, CaError> {
        let end = now_unix.saturating_add(ttl_seconds);
        let (name, key) = (&wanted.name, (&wanted.spki).into());
        issuer::certify_below((&self.key, &self.facts), name, &wanted.trust_domain, key, now_unix, end).await
    }
}

/// Refuses what cannot be a root of this trust domain, whatever the time.
pub fn refuse_no_root(certificate: &Certificate, trust_domain: &TrustDomain) -> Result<(), CeremonyRefusal> {
    if !certificate.is_ca() {
        return Err(CeremonyRefusal::NoCa("its basic constraints do not say so"));
    }
    if !certificate.key_usage().is_some_and(|usage| usage.key_cert_sign()) {
        return Err(CeremonyRefusal::NoCa("its key usage lets it sign no certificates"));
    }
    let signed = certificate.inner().tbs_certificate();
    if signed.subject() != signed.issuer() {
        return Err(CeremonyRefusal::NoCa("it has another issuer: it is below a root, and no root itself"));
    }
    let found = certificate.spiffe_id()?;
    match found == trust_domain.id() {
        true => Ok(()),
        false => {
            let (found, wanted) = (found.to_string(), trust_domain.id().to_string());
            Err(CeremonyRefusal::RootOfAnotherTrustDomain { found, wanted })
        }
    }
}
