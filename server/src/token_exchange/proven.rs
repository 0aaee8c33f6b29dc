//! A token that proved itself.

use std::fmt;

use ironroot_api::SpiffeId;
use ironroot_api::jwt::IdToken;
use ironroot_attest::SelectorSet;

use super::judgement::told;
use super::policy::IssuerPolicy;

/// A token that its issuer has signed, for this server, which holds now and says what it must. Only the check makes one.
#[derive(Clone, PartialEq, Eq)]
#[must_use]
pub struct ProvenToken {
    issuer: String,
    issuer_url: String,
    parent: SpiffeId,
    selectors: SelectorSet,
    subject: String,
    pub(super) token_id: Option<String>,
    expires_at: i64,
}

impl ProvenToken {
    pub(super) fn new(policy: &IssuerPolicy, selectors: SelectorSet, token: &IdToken) -> Self {
        let token_id = token.token_id().filter(|_| policy.single_use).map(str::to_owned);
        let (issuer, issuer_url, parent) = (policy.name.clone(), policy.url.clone(), policy.parent.clone());
        let (subject, expires_at) = (told(token.subject()), token.expires_at());
        Self { issuer, issuer_url, parent, selectors, subject, token_id, expires_at }
    }

    /// What the configuration calls its issuer.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// What its issuer calls itself, and servers that have another name for it too.
    pub fn issuer_url(&self) -> &str {
        &self.issuer_url
    }

    /// The parent of entries that are for such tokens.
    pub fn parent(&self) -> &SpiffeId {
        &self.parent
    }

    /// What it says.
    pub fn selectors(&self) -> &SelectorSet {
        &self.selectors
    }

    /// About whom it is, in its issuer's words; its beginning, if it is long.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Nothing that is issued for it may last longer, UNIX seconds.
    pub fn expires_at(&self) -> i64 {
        self.expires_at
    }
}

impl fmt::Debug for ProvenToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProvenToken(of {} for {:?}, until {})", self.issuer, self.subject, self.expires_at)
    }
}
