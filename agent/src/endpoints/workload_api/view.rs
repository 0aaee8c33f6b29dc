//! What a caller may see, by reference: cheap to compare with what it was sent last.

use std::sync::Arc;

use ironroot_api::TrustDomain;

use crate::identities::{Identities, Identity};
use crate::server_answers::TrustBundle;

/// See the module.
pub(super) struct View {
    pub trust_domain: TrustDomain,
    pub own: Arc<TrustBundle>,
    pub theirs: Vec<Arc<Identity>>,
}

impl View {
    /// Of `all`, what whoever owns the identities `theirs` may see beside the bundle `own`.
    pub fn of(all: &Identities, own: Arc<TrustBundle>, theirs: Vec<Arc<Identity>>) -> Self {
        Self { trust_domain: all.trust_domain().clone(), own, theirs }
    }

    /// Whether both show the same bundle. Most often it is the very same; else the same to a workload, which does not see taints.
    pub fn same_bundle(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.own, &other.own) || self.own.concatenated() == other.own.concatenated()
    }

    /// Whether both show the same keys of JWT-SVIDs; workloads do not see taints here either.
    pub fn same_jwt_bundle(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.own, &other.own) || self.own.jwt_authorities().jwks() == other.own.jwt_authorities().jwks()
    }

    /// Whether both show the same identities.
    pub fn same_identities(&self, other: &Self) -> bool {
        let mut pairs = self.theirs.iter().zip(&other.theirs);
        self.theirs.len() == other.theirs.len() && pairs.all(|(mine, its)| mine.looks_like(its))
    }
}
