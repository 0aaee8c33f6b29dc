//! What a caller may see, as the messages of the Workload API.

use std::collections::{BTreeSet, HashMap};

use ironroot_api::TrustDomain;
use ironroot_api::pb::workload::{X509BundlesResponse, X509svid, X509svidResponse};
use prost::bytes::Bytes;

use super::subscription::Message;
use crate::identities::{Bundle, Identities, Identity};

impl Message for X509svidResponse {
    const NAME: &'static str = "X.509-SVIDs";
    const METHOD: &'static str = "FetchX509SVID";

    fn compose(all: &Identities, own: &Bundle, theirs: &[&Identity]) -> Self {
        let svids = theirs.iter().map(|identity| svid(identity, own)).collect();
        Self { svids, crl: Vec::new(), federated_bundles: federated(all, theirs) }
    }
}

impl Message for X509BundlesResponse {
    const NAME: &'static str = "X.509 bundles";
    const METHOD: &'static str = "FetchX509Bundles";

    fn compose(all: &Identities, own: &Bundle, theirs: &[&Identity]) -> Self {
        let mut bundles = federated(all, theirs);
        //= WLA-08 SPIFFE Workload API 5.2.2: "MUST contain at least the trust bundle for the trust domain"
        bundles.insert(all.trust_domain().id().to_string(), own.concatenated().clone());
        Self { crl: Vec::new(), bundles }
    }
}

fn svid(identity: &Identity, own: &Bundle) -> X509svid {
    X509svid {
        spiffe_id: identity.spiffe_id().to_string(),
        x509_svid: identity.chain_der().clone(),
        x509_svid_key: identity.key().pkcs8_der().clone(),
        bundle: own.concatenated().clone(),
        hint: identity.hint().to_owned(),
    }
}

/// The bundles of the trust domains that any of `theirs` federates with, by trust domain ID.
fn federated(all: &Identities, theirs: &[&Identity]) -> HashMap<String, Bytes> {
    let names: BTreeSet<&TrustDomain> = theirs.iter().flat_map(|identity| identity.federates_with()).collect();
    let known = names.into_iter().filter_map(|name| Some((name, all.federated().get(name)?)));
    known.map(|(name, bundle)| (name.id().to_string(), bundle.concatenated().clone())).collect()
}
