//! What a caller may see, by reference: cheap to compare with what it was sent last.

use std::collections::BTreeMap;
use std::sync::Arc;

use ironroot_api::TrustDomain;

use crate::identities::{Identities, Identity};
use crate::server_answers::TrustBundle;

/// See the module.
pub(in crate::endpoints) struct View {
    pub trust_domain: TrustDomain,
    pub own: Arc<TrustBundle>,
    /// Every bundle that is the caller's to see, its own trust domain's too.
    pub bundles: BTreeMap<TrustDomain, Arc<TrustBundle>>,
    pub theirs: Vec<Arc<Identity>>,
}

impl View {
    /// Of `all`, what whoever owns the identities `theirs` may see beside the bundle `own`.
    pub fn of(all: &Identities, own: Arc<TrustBundle>, theirs: Vec<Arc<Identity>>) -> Self {
        let trust_domain = all.trust_domain().clone();
        Self { bundles: BTreeMap::from([(trust_domain.clone(), own.clone())]), trust_domain, own, theirs }
    }

    /// Whether both show the same bundles. Most often they are the very same; else the same to a workload, which does not see taints.
    pub fn same_bundles(&self, other: &Self) -> bool {
        self.pairwise(other, |mine, its| mine.concatenated() == its.concatenated())
    }

    /// Whether both show the same keys of JWT-SVIDs; workloads do not see taints here either.
    pub fn same_jwt_bundles(&self, other: &Self) -> bool {
        self.pairwise(other, |mine, its| mine.jwt_authorities().jwks() == its.jwt_authorities().jwks())
    }

    fn pairwise(&self, other: &Self, is_same: impl Fn(&TrustBundle, &TrustBundle) -> bool) -> bool {
        let mut pairs = self.bundles.iter().zip(&other.bundles);
        let same = |mine: &Arc<TrustBundle>, its: &Arc<TrustBundle>| Arc::ptr_eq(mine, its) || is_same(mine, its);
        self.bundles.len() == other.bundles.len() && pairs.all(|((a, mine), (b, its))| a == b && same(mine, its))
    }

    /// Whether both show the same identities.
    pub fn same_identities(&self, other: &Self) -> bool {
        let mut pairs = self.theirs.iter().zip(&other.theirs);
        self.theirs.len() == other.theirs.len() && pairs.all(|(mine, its)| mine.looks_like(its))
    }
}
