//! What an authority's certificate says of it.

use der::Encode;
use ironroot_api::certificate::{Certificate, CertificateError};
use ironroot_api::issuing::Signer;
use ironroot_hsm::KeyKind;

use super::encoding::algorithm;
use super::error::ProfileError;
use crate::ca::key_kind::certified_kind;

/// What issuing needs to know of an authority's certificate.
pub(in crate::ca) struct AuthorityFacts {
    pub(super) name: Vec<u8>,
    key_id: Vec<u8>,
    /// What kind of key signs.
    pub(super) kind: KeyKind,
    pub(super) not_before: i64,
    not_after: i64,
}

impl AuthorityFacts {
    pub(in crate::ca) fn of(certificate: &Certificate) -> Result<Self, ProfileError> {
        Ok(Self {
            name: certificate.inner().tbs_certificate().subject().to_der()?,
            key_id: certificate.subject_key_id().ok_or(CertificateError::Malformed)?,
            kind: certified_kind(certificate),
            not_before: certificate.not_before_unix(),
            not_after: certificate.not_after_unix(),
        })
    }

    /// Refuses to sign outside the authority's own time.
    pub(in crate::ca) fn check(&self, now_unix: i64) -> Result<(), ProfileError> {
        if self.not_after <= now_unix {
            return Err(ProfileError::AuthorityExpired { not_after: self.not_after, now: now_unix });
        }
        if now_unix < self.not_before {
            return Err(ProfileError::ClockBehind { not_before: self.not_before, now: now_unix });
        }
        Ok(())
    }

    /// It, as it signs.
    pub(super) fn signer(&self) -> Signer<'_> {
        Signer { name: &self.name, key_id: &self.key_id, algorithm: algorithm(self.kind) }
    }

    pub(in crate::ca) fn key_id(&self) -> &[u8] {
        &self.key_id
    }

    pub(in crate::ca) fn not_after(&self) -> i64 {
        self.not_after
    }
}
