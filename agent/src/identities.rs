//! The immutable snapshot of everything the agent may serve.
//!
//! One writer builds [`Identities`] and publishes it through a `watch` channel; readers ask it who may have what, now.
//! What is in here was checked when it was built: keys fit their certificates, IDs are of the trust domain.

mod bundle;
mod identity;
mod nearest;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use ironroot_api::TrustDomain;
use ironroot_api::certificate::CertificateError;
use ironroot_attest::SelectorSet;
use ironroot_attest::workload::ExecutableDemand;
use thiserror::Error;

pub use bundle::Bundle;
pub use identity::{Identity, IdentityParts, WorkloadKey};
pub use nearest::Nearest;

/// Why something cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IdentitiesError {
    /// A certificate chain without a certificate.
    #[error("identity of entry {0:?} has no certificate")]
    NoCertificate(String),
    /// A certificate of an identity does not parse or is no X509-SVID.
    #[error("identity of entry {entry_id:?} has an unusable certificate")]
    Certificate {
        /// The entry.
        entry_id: String,
        /// What is wrong.
        #[source]
        source: CertificateError,
    },
    /// The certificate carries another SPIFFE ID than the entry.
    #[error("identity of entry {entry_id:?} has a certificate for {found}")]
    OtherId {
        /// The entry.
        entry_id: String,
        /// The certificate's ID.
        found: String,
    },
    /// Not a PKCS#8 key of a supported kind.
    #[error("identity of entry {0:?} has an unusable private key")]
    Key(String),
    /// The key and the certificate do not belong together.
    #[error("identity of entry {0:?} has a private key that does not fit its certificate")]
    KeyMismatch(String),
    /// An identity of another trust domain than the snapshot's.
    #[error("identity {0} is of another trust domain")]
    OtherTrustDomain(String),
    /// One entry twice.
    #[error("two identities of entry {0:?}")]
    DuplicateEntry(String),
    /// A bundle without authorities would make peers trust nobody, or, misread, everybody.
    #[error("trust bundle has no authority")]
    EmptyBundle,
    /// An authority of a bundle does not parse.
    #[error("trust bundle has an unusable authority")]
    Authority(#[source] CertificateError),
}

/// Everything that may be served, at one moment.
#[derive(Clone, Debug)]
pub struct Identities {
    trust_domain: TrustDomain,
    /// Sorted by age and entry ID, the same on every push and after every restart.
    identities: Vec<Arc<Identity>>,
    /// When each of them ends, in the same order, by the clock that [`Identities::for_selectors`] is asked with.
    ends: Vec<i64>,
    /// `None`: still starting.
    bundle: Option<Bundle>,
    federated: BTreeMap<TrustDomain, Bundle>,
    executable_demand: ExecutableDemand,
}

impl Identities {
    /// "Not yet": before the first good answer of a server or cache. Serves nothing, and says that it is early.
    pub fn starting(trust_domain: TrustDomain) -> Self {
        Self {
            trust_domain,
            identities: Vec::new(),
            ends: Vec::new(),
            bundle: None,
            federated: BTreeMap::new(),
            executable_demand: ExecutableDemand::default(),
        }
    }

    /// Everything that may be served: identities of `trust_domain`, its bundle, and bundles of other trust domains.
    pub fn try_new(
        trust_domain: TrustDomain,
        mut identities: Vec<Arc<Identity>>,
        bundle: Bundle,
        mut federated: BTreeMap<TrustDomain, Bundle>,
    ) -> Result<Self, IdentitiesError> {
        let mut entries = HashSet::new();
        for identity in &identities {
            if !identity.spiffe_id().is_member_of(&trust_domain) {
                return Err(IdentitiesError::OtherTrustDomain(identity.spiffe_id().to_string()));
            }
            if !entries.insert(identity.entry_id()) {
                return Err(IdentitiesError::DuplicateEntry(identity.entry_id().to_owned()));
            }
        }
        identities.sort_by(|a, b| (a.created_at(), a.entry_id()).cmp(&(b.created_at(), b.entry_id())));
        federated.remove(&trust_domain);
        let executable_demand = ExecutableDemand::of(identities.iter().map(|identity| identity.selectors()));
        let ends = identities.iter().map(|identity| identity.not_after_unix()).collect();
        Ok(Self { trust_domain, identities, ends, bundle: Some(bundle), federated, executable_demand })
    }

    /// The same, but each identity ends when `end` says and not at its certificate's notAfter: by the agent's own clock,
    /// for which nobody's clock need be right.
    pub fn ending(mut self, end: impl Fn(&Identity) -> i64) -> Self {
        self.ends = self.identities.iter().map(|identity| end(identity)).collect();
        self
    }

    /// The trust domain.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The trust domain's own bundle; `None` while starting.
    pub fn bundle(&self) -> Option<&Bundle> {
        self.bundle.as_ref()
    }

    /// Bundles of other trust domains.
    pub fn federated(&self) -> &BTreeMap<TrustDomain, Bundle> {
        &self.federated
    }

    /// All identities, in order, expired ones too.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Identity>> {
        self.identities.iter()
    }

    /// Whose executables must be looked at to tell what they may have.
    pub fn executable_demand(&self) -> &ExecutableDemand {
        &self.executable_demand
    }

    /// What a workload with these selectors may have now, oldest entry first. Never anything ended.
    ///
    /// An identity is the workload's if the workload has every selector of its entry. Of identities with the same hint
    /// only the oldest counts. Source: SPIFFE_Workload_API.md §5.2, "hint"; SPIRE breaks ties by age and entry ID.
    pub fn for_selectors(&self, selectors: &SelectorSet, now: i64) -> Vec<&Identity> {
        self.lasting(selectors, now).map(|(identity, _)| identity).collect()
    }

    /// When the first of these identities ends; `None` if there is none.
    pub fn next_end(&self, selectors: &SelectorSet, now: i64) -> Option<i64> {
        self.lasting(selectors, now).map(|(_, end)| end).min()
    }

    /// Whether a workload with these selectors has an identity at all, were it only not ended.
    pub fn is_entitled(&self, selectors: &SelectorSet) -> bool {
        self.entitled(selectors).next().is_some()
    }

    fn lasting(&self, selectors: &SelectorSet, now: i64) -> impl Iterator<Item = (&Identity, i64)> {
        self.entitled(selectors).filter(move |(_, end)| now < *end)
    }

    fn entitled(&self, selectors: &SelectorSet) -> impl Iterator<Item = (&Identity, i64)> {
        let mut hints = HashSet::new();
        let all = self.identities.iter().map(Arc::as_ref).zip(self.ends.iter().copied());
        let theirs = all.filter(move |(identity, _)| identity.selectors().is_subset_of(selectors));
        theirs.filter(move |(identity, _)| identity.hint().is_empty() || hints.insert(identity.hint()))
    }
}

#[cfg(test)]
mod tests;
