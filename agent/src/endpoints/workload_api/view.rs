//! What a caller may see, by reference: cheap to compare with what it was sent last.

use std::collections::BTreeMap;
use std::sync::Arc;

use ironroot_api::TrustDomain;

use crate::identities::{Identities, Identity};
use crate::server_answers::TrustBundle;

/// See the module.
pub(super) struct View {
    pub trust_domain: TrustDomain,
    pub own: Arc<TrustBundle>,
    pub theirs: Vec<Arc<Identity>>,
    /// The bundles of the trust domains that any of `theirs` federates with.
    pub federated: BTreeMap<TrustDomain, Arc<TrustBundle>>,
}

impl View {
    /// Of `all`, what whoever owns the identities `theirs` may see beside the bundle `own`.
    pub fn of(all: &Identities, own: Arc<TrustBundle>, theirs: Vec<Arc<Identity>>) -> Self {
        let names = theirs.iter().flat_map(|identity| identity.federates_with());
        let federated = names.filter_map(|name| Some((name.clone(), all.federated().get(name)?.clone()))).collect();
        Self { trust_domain: all.trust_domain().clone(), own, theirs, federated }
    }

    /// Whether both show the same bundles.
    pub fn same_bundles(&self, other: &Self) -> bool {
        let pairs = self.federated.iter().zip(&other.federated);
        same(&self.own, &other.own)
            && self.federated.len() == other.federated.len()
            && pairs.into_iter().all(|((name, bundle), (others, its))| name == others && same(bundle, its))
    }

    /// Whether both show the same identities.
    pub fn same_identities(&self, other: &Self) -> bool {
        let mut pairs = self.theirs.iter().zip(&other.theirs);
        self.theirs.len() == other.theirs.len() && pairs.all(|(mine, its)| mine.looks_like(its))
    }
}

/// Most often the very same; else the same to a workload, which does not see taints.
fn same(one: &Arc<TrustBundle>, other: &Arc<TrustBundle>) -> bool {
    Arc::ptr_eq(one, other) || one.concatenated() == other.concatenated()
}
