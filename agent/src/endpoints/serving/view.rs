//! What a caller may see, by reference: cheap to compare with what it was sent last.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ironroot_api::TrustDomain;
use prost::bytes::Bytes;

use crate::identities::{Identities, Identity};
use crate::server_answers::{ForeignBundle, ShownBundle, TrustBundle};

/// Bundles by their trust domains: no two are ever put together.
pub(in crate::endpoints) type Bundles = BTreeMap<TrustDomain, ShownBundle>;

/// See the module.
pub(in crate::endpoints) struct View {
    pub trust_domain: TrustDomain,
    pub own: Arc<TrustBundle>,
    /// Every bundle that is the caller's to see, its own trust domain's too, for those that verify X509-SVIDs.
    pub bundles: Bundles,
    /// The same for those that verify JWT-SVIDs.
    pub jwt_bundles: Bundles,
    pub theirs: Vec<Arc<Identity>>,
}

impl View {
    /// Of `all`, what whoever owns the identities `theirs` may see beside the bundle `own` and the `federated` ones.
    pub fn of(
        all: &Identities,
        own: Arc<TrustBundle>,
        theirs: Vec<Arc<Identity>>,
        federated: Vec<Arc<ForeignBundle>>,
    ) -> Self {
        let trust_domain = all.trust_domain().clone();
        let own_one = (trust_domain.clone(), ShownBundle::Own(own.clone()));
        let foreign = federated.into_iter().map(|b| (b.trust_domain().clone(), ShownBundle::Foreign(b)));
        let bundles: Bundles = std::iter::once(own_one).chain(foreign).collect();
        Self { bundles: only(&bundles, ShownBundle::is_for_x509), jwt_bundles: bundles, trust_domain, own, theirs }
    }

    /// The X.509 authorities of other trust domains, by their IDs.
    pub fn federated(&self) -> impl Iterator<Item = (String, Bytes)> {
        let others = self.bundles.iter().filter(|(domain, _)| **domain != self.trust_domain);
        others.map(|(domain, bundle)| (domain.id().to_string(), bundle.concatenated().clone()))
    }

    /// Every X.509 bundle, DER laid end to end, by its trust domain's ID.
    pub fn x509_bundles(&self) -> HashMap<String, Bytes> {
        self.bundles.iter().map(|(domain, bundle)| (domain.id().to_string(), bundle.concatenated().clone())).collect()
    }

    /// Every JWT bundle, a JWKS, by its trust domain's ID.
    pub fn jwks(&self) -> HashMap<String, Bytes> {
        let jwks = |bundle: &ShownBundle| bundle.jwt_authorities().jwks().clone();
        self.jwt_bundles.iter().map(|(domain, bundle)| (domain.id().to_string(), jwks(bundle))).collect()
    }

    /// Whether both show the same bundles. Most often they are the very same; else the same to a workload, which does not see taints.
    pub fn same_bundles(&self, other: &Self) -> bool {
        same_bundles(&self.bundles, &other.bundles)
    }

    /// Whether both show the same keys of JWT-SVIDs; workloads do not see taints here either.
    pub fn same_jwt_bundles(&self, other: &Self) -> bool {
        same_jwt_bundles(&self.jwt_bundles, &other.jwt_bundles)
    }

    /// Whether both show the same identities.
    pub fn same_identities(&self, other: &Self) -> bool {
        let mut pairs = self.theirs.iter().zip(&other.theirs);
        self.theirs.len() == other.theirs.len() && pairs.all(|(mine, its)| mine.looks_like(its))
    }
}

fn only(bundles: &Bundles, is_shown: impl Fn(&ShownBundle) -> bool) -> Bundles {
    let shown = bundles.iter().filter(|(_, bundle)| is_shown(bundle));
    shown.map(|(domain, bundle)| (domain.clone(), bundle.clone())).collect()
}

/// Whether X.509 clients see no difference.
pub(in crate::endpoints) fn same_bundles(one: &Bundles, other: &Bundles) -> bool {
    pairwise(one, other, |one, other| one.concatenated() == other.concatenated())
}

/// Whether JWT clients see no difference.
pub(in crate::endpoints) fn same_jwt_bundles(one: &Bundles, other: &Bundles) -> bool {
    pairwise(one, other, |one, other| one.jwt_authorities().jwks() == other.jwt_authorities().jwks())
}

fn pairwise(one: &Bundles, other: &Bundles, looks: impl Fn(&ShownBundle, &ShownBundle) -> bool) -> bool {
    let mut pairs = one.iter().zip(other);
    one.len() == other.len() && pairs.all(|((a, mine), (b, its))| a == b && (mine.is(its) || looks(mine, its)))
}
