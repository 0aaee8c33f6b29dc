//! By which authority something was verified.

use aws_lc_rs::digest::{SHA256, digest};
use rustls_pki_types::TrustAnchor;

/// The authority that a path led to: the SHA-256 of its public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AuthorityMark([u8; 32]);

impl AuthorityMark {
    pub(super) fn of(anchor: &TrustAnchor<'_>) -> Self {
        let hash = digest(&SHA256, &anchor.subject_public_key_info);
        Self(hash.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }
}
