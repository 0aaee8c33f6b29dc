//! What a caller may see, as the messages of the Workload API.

use std::collections::HashMap;

use ironroot_api::pb::workload::{JwtBundlesResponse, X509BundlesResponse, X509svid, X509svidResponse};

use super::view::View;
use crate::identities::Identity;
use crate::server_answers::TrustBundle;

/// A full-state message.
pub(super) trait Message: Send + 'static {
    /// What it holds, for the log.
    const NAME: &'static str;
    /// The method that answers with it.
    const METHOD: &'static str;
    /// Whether only who has an X509-SVID that has not ended gets it; for others an entry is enough.
    const NEEDS_X509_SVID: bool = true;

    /// Everything in a view that this message tells.
    fn compose(view: &View) -> Self;

    /// Whether it says the same of both.
    fn is_same(one: &View, other: &View) -> bool;
}

impl Message for X509svidResponse {
    const NAME: &'static str = "X.509-SVIDs";
    const METHOD: &'static str = "FetchX509SVID";

    fn compose(view: &View) -> Self {
        let svids = view.theirs.iter().map(|identity| svid(identity, &view.own)).collect();
        Self { svids, crl: Vec::new(), federated_bundles: HashMap::new() }
    }

    fn is_same(one: &View, other: &View) -> bool {
        one.same_identities(other) && one.same_bundle(other)
    }
}

impl Message for X509BundlesResponse {
    const NAME: &'static str = "X.509 bundles";
    const METHOD: &'static str = "FetchX509Bundles";

    fn compose(view: &View) -> Self {
        //= WLA-08 SPIFFE Workload API 5.2.2: "MUST contain at least the trust bundle for the trust domain"
        let own = (view.trust_domain.id().to_string(), view.own.concatenated().clone());
        Self { crl: Vec::new(), bundles: HashMap::from([own]) }
    }

    fn is_same(one: &View, other: &View) -> bool {
        one.same_bundle(other)
    }
}

impl Message for JwtBundlesResponse {
    const NAME: &'static str = "JWT bundles";
    const METHOD: &'static str = "FetchJWTBundles";
    const NEEDS_X509_SVID: bool = false;

    fn compose(view: &View) -> Self {
        //= WLA-10 SPIFFE Workload API 6.2.2: "The server MUST NOT include keys with other uses in the returned JWT bundles."
        let own = (view.trust_domain.id().to_string(), view.own.jwt_authorities().jwks().clone());
        Self { bundles: HashMap::from([own]) }
    }

    fn is_same(one: &View, other: &View) -> bool {
        one.same_jwt_bundle(other)
    }
}

fn svid(identity: &Identity, own: &TrustBundle) -> X509svid {
    X509svid {
        spiffe_id: identity.spiffe_id().to_string(),
        x509_svid: identity.chain_der().clone(),
        x509_svid_key: identity.key().pkcs8_der().clone(),
        bundle: own.concatenated().clone(),
        hint: identity.hint().to_owned(),
    }
}
