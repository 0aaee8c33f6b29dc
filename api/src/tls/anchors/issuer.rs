//! The certificate between a leaf and the bundle: all SVIDs of one server come with the same, which need not be verified with each.

use rustls_pki_types::{CertificateDer, TrustAnchor};
use webpki::{KeyUsage, VerifiedPath, anchor_from_trusted_cert};

use super::authority_mark::AuthorityMark;
use crate::certificate::Certificate;

/// A certificate that was the only one between a leaf and an authority of a bundle, on a path that was verified for one usage.
///
/// Only such a path makes one, and it is kept beside the very authorities that the path led to: when they are replaced, it goes with
/// them. What else a path demands of it does not change with the leaf below it (its signature, basicConstraints, key usages), but the
/// time does, and is asked for each leaf.
#[derive(Debug)]
pub(super) struct VerifiedIssuer {
    certificate: CertificateDer<'static>,
    usage: KeyUsage,
    not_before_unix: i64,
    not_after_unix: i64,
    /// Its name, its key, and what names it may sign.
    anchor: TrustAnchor<'static>,
    /// What the path led to.
    authority: AuthorityMark,
    /// Itself.
    mark: AuthorityMark,
}

impl VerifiedIssuer {
    /// What `path`, verified for `usage`, says about the issuer of its leaf. `None` if there are more certificates above that one, or
    /// if the authority constrains names: then each leaf's names are to be held against more than what is remembered.
    pub fn on(path: &VerifiedPath<'_>, usage: KeyUsage) -> Option<Self> {
        let mut between = path.intermediate_certificates();
        let (issuer, None) = (between.next()?, between.next()) else { return None };
        //= X509-09 X509-SVID 4.2: "MUST either process the constraint or reject the certificate"
        if path.anchor().name_constraints.is_some() {
            return None;
        }
        let certificate = issuer.der().into_owned();
        let parsed = Certificate::parse(&certificate).ok()?;
        let anchor = anchor_from_trusted_cert(&certificate).ok()?.to_owned();
        let (not_before_unix, not_after_unix) = (parsed.not_before_unix(), parsed.not_after_unix());
        let (authority, mark) = (AuthorityMark::of(path.anchor()), AuthorityMark::of(&anchor));
        Some(Self { certificate, usage, not_before_unix, not_after_unix, anchor, authority, mark })
    }

    /// What a leaf may be verified against that it [stands for](Self::stands_for).
    pub fn anchor(&self) -> &TrustAnchor<'static> {
        &self.anchor
    }

    /// What the path led to, and does below it.
    pub fn authority(&self) -> AuthorityMark {
        self.authority
    }

    /// What has signed the leaves below it.
    pub fn mark(&self) -> AuthorityMark {
        self.mark
    }

    /// Itself, if a leaf that is shown with `others` may be verified against it in place of the bundle: only if they are this very
    /// certificate, for the same usage, at a moment at which it is valid.
    pub fn stands_for(&self, others: &[CertificateDer<'_>], usage: KeyUsage, now_unix: i64) -> Option<&Self> {
        let is_this = matches!(others, [only] if *only == self.certificate);
        let is_valid = (self.not_before_unix..=self.not_after_unix).contains(&now_unix);
        (is_this && is_valid && usage == self.usage).then_some(self)
    }
}
