//! Authorities that an administrator puts into the trust domain's own bundle: those of a server that is to take over, or that has gone.

use std::fmt;

use ironroot_api::certificate::{Certificate, CertificateError};
use ironroot_api::pb::types;
use thiserror::Error;

use super::bundle::TrustBundle;
use super::published::{PublishError, usable};
use crate::facts::tier::{TierAuthority, TierCredential, TierOrigin};
use crate::rights::Administrator;
use crate::store::{StoreError, Transaction};

/// Authorities that administrators may have appended and that have not ended. A move of servers takes a few.
pub const MAX_APPENDED: usize = 64;
/// When a key ends of which nothing is said, seconds from now: a hundred years.
const NEVER: i64 = 100 * 365 * 24 * 60 * 60;

/// Authorities that may be appended.
///
/// ```compile_fail
/// # fn forge(root: ironroot_api::pb::types::X509Certificate) {
/// drop(ironroot_server::ca::AppendedAuthorities::judge(&[root], &[], 0));
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct AppendedAuthorities(Vec<TierAuthority>);

/// Why authorities are not appended. Source of the first words: SPIRE, pkg/server/api/bundle/v1/service.go.
#[derive(Debug, Error)]
pub enum AppendError {
    /// The request has none.
    #[error("no authorities to append")]
    Nothing,
    /// A key that verifies no JWT-SVIDs, or whose ID is another's.
    #[error(transparent)]
    JwtKey(PublishError),
    /// What is to be a certificate is none.
    #[error(transparent)]
    NotACertificate(#[from] CertificateError),
    /// It would be refused by whoever gets the bundle.
    #[error("the certificate with serial number {0} is no authority's: it may sign no other")]
    NotAnAuthority(String),
    /// It would be forgotten at once.
    #[error("it has ended")]
    Ended,
    /// More than bundles should have.
    #[error("{MAX_APPENDED} authorities that were appended have not ended; more are not taken")]
    TooMany,
    /// The data store.
    #[error("the authorities cannot be stored")]
    Store(#[from] StoreError),
    /// They are on disk.
    #[error(
        "the authorities are stored, and will be in the bundle when the CA's rotation goes on: see the server's log"
    )]
    NotShownYet,
}

impl AppendedAuthorities {
    /// What `_by` appends, if others can use it. Whether it is tainted is not said this way, as in SPIRE.
    pub fn judge(
        _by: &Administrator,
        x509: &[types::X509Certificate],
        jwt: &[types::JwtKey],
        now_unix: i64,
    ) -> Result<Self, AppendError> {
        Self::of(x509, jwt, now_unix)
    }

    fn of(x509: &[types::X509Certificate], jwt: &[types::JwtKey], now_unix: i64) -> Result<Self, AppendError> {
        if x509.is_empty() && jwt.is_empty() {
            return Err(AppendError::Nothing);
        }
        let mut all = jwt.iter().map(|key| key_to_append(key, now_unix)).collect::<Result<Vec<_>, _>>()?;
        for wire in x509 {
            for certificate in Certificate::parse_concatenated(&wire.asn1)? {
                all.push(root_to_append(&certificate, now_unix)?);
            }
        }
        Ok(Self(all))
    }

    /// Stores what `known` does not have.
    pub(super) fn store(&self, tx: &Transaction<'_>, known: &TrustBundle) -> Result<(), AppendError> {
        let mut kept = tx.tier_authorities()?.authorities;
        kept.retain(|authority| authority.origin == TierOrigin::Administrator);
        for authority in &self.0 {
            if is_taken(authority, known) {
                return Err(AppendError::JwtKey(PublishError::KeyIdTaken));
            }
            if is_in(authority, known) || kept.contains(authority) {
                continue;
            }
            kept.push(authority.clone());
            if kept.len() > MAX_APPENDED {
                return Err(AppendError::TooMany);
            }
            tx.put_tier_authority(authority)?;
        }
        Ok(())
    }

    /// Whether the bundle has all of them.
    pub(super) fn are_in(&self, bundle: &TrustBundle) -> bool {
        self.0.iter().all(|authority| is_in(authority, bundle))
    }
}

/// What audit lines say of them.
impl fmt::Display for AppendedAuthorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, authority) in self.0.iter().enumerate() {
            let gap = if number == 0 { "" } else { " " };
            match &authority.credential {
                TierCredential::JwtKey { key_id, .. } | TierCredential::WitKey { key_id, .. } => {
                    write!(f, "{gap}{key_id}")?;
                }
                TierCredential::Certificate(_) => {
                    write!(f, "{gap}{}", authority.subject_key_id().unwrap_or_default())?;
                }
            }
        }
        Ok(())
    }
}

fn key_to_append(key: &types::JwtKey, now_unix: i64) -> Result<TierAuthority, AppendError> {
    let key = usable(key).map_err(AppendError::JwtKey)?;
    let expires_at = match key.expires_at {
        0 => now_unix.saturating_add(NEVER),
        ended if ended <= now_unix => return Err(AppendError::JwtKey(PublishError::Ended)),
        to_come => to_come,
    };
    let credential = TierCredential::JwtKey { key_id: key.key_id, spki: key.public_key.to_vec() };
    Ok(TierAuthority { origin: TierOrigin::Administrator, credential, expires_at, tainted: false })
}

fn root_to_append(certificate: &Certificate, now_unix: i64) -> Result<TierAuthority, AppendError> {
    if !certificate.is_ca() {
        return Err(AppendError::NotAnAuthority(certificate.serial_decimal()));
    }
    let expires_at = certificate.not_after_unix();
    if expires_at <= now_unix {
        return Err(AppendError::Ended);
    }
    let credential = TierCredential::Certificate(certificate.der().to_vec());
    Ok(TierAuthority { origin: TierOrigin::Administrator, credential, expires_at, tainted: false })
}

fn is_in(authority: &TierAuthority, bundle: &TrustBundle) -> bool {
    match &authority.credential {
        TierCredential::Certificate(der) => bundle.authorities.contains(der),
        TierCredential::JwtKey { key_id, .. } => bundle.jwt_authorities.iter().any(|key| key.key_id == *key_id),
        TierCredential::WitKey { key_id, .. } => bundle.wit_authorities.iter().any(|key| key.key_id == *key_id),
    }
}

/// Whether its ID is another key's.
fn is_taken(authority: &TierAuthority, bundle: &TrustBundle) -> bool {
    let TierCredential::JwtKey { key_id, spki } = &authority.credential else { return false };
    bundle.jwt_authorities.iter().any(|key| key.key_id == *key_id && key.spki_der != *spki)
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, PublicKeyData};

    use super::*;

    fn certificate(is_ca: bool) -> types::X509Certificate {
        let mut params = CertificateParams::default();
        params.is_ca = if is_ca { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::ExplicitNoCa };
        let der = params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
        types::X509Certificate { asn1: der.into(), tainted: true }
    }

    fn key(key_id: &str, expires_at: i64) -> types::JwtKey {
        let public_key = KeyPair::generate().unwrap().subject_public_key_info().into();
        types::JwtKey { public_key, key_id: key_id.to_owned(), expires_at, tainted: true }
    }

    #[test]
    fn authorities_are_appended_untainted_and_each_that_nobody_could_use_is_refused_by_name() {
        let appended = AppendedAuthorities::of(&[certificate(true)], &[key("k", 0), key("l", 9)], 5).unwrap();
        assert!(appended.0.iter().all(|one| !one.tainted && one.origin == TierOrigin::Administrator));
        assert_eq!([appended.0[0].expires_at, appended.0[1].expires_at], [5 + NEVER, 9]);
        let refused =
            |x509: &[types::X509Certificate], jwt: &[types::JwtKey]| AppendedAuthorities::of(x509, jwt, 5).unwrap_err();
        assert!(matches!(refused(&[], &[]), AppendError::Nothing));
        assert!(matches!(refused(&[certificate(false)], &[]), AppendError::NotAnAuthority(_)));
        let garbage = types::X509Certificate { asn1: b"none".to_vec().into(), tainted: false };
        assert!(matches!(refused(&[garbage], &[]), AppendError::NotACertificate(_)));
        assert!(matches!(refused(&[], &[key("", 9)]), AppendError::JwtKey(PublishError::NoKeyId)));
        assert!(matches!(refused(&[], &[key("k", 5)]), AppendError::JwtKey(PublishError::Ended)));
        let unusable = types::JwtKey { public_key: vec![1].into(), ..key("k", 9) };
        assert!(matches!(refused(&[], &[unusable]), AppendError::JwtKey(PublishError::Key)));
        let ended = AppendedAuthorities::of(&[certificate(true)], &[], i64::MAX);
        assert!(matches!(ended, Err(AppendError::Ended)));
    }
}
