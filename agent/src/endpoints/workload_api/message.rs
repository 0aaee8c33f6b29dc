//! What a caller may see, as the messages of the Workload API.

use std::time::Duration;

use ironroot_api::pb::workload::{JwtBundlesResponse, X509BundlesResponse, X509svid, X509svidResponse};
use tonic::Status;

use crate::endpoints::BoundedCall;
use crate::endpoints::serving::{NEVER, Question, Seen, View};
use crate::identities::Identity;
use crate::server_answers::TrustBundle;

/// What FetchX509SVID asks.
pub(super) struct X509Svids;

/// What FetchX509Bundles asks.
pub(super) struct X509Bundles;

/// What FetchJWTBundles asks.
pub(super) struct JwtBundles;

impl Question for X509Svids {
    type Answer = X509svidResponse;
    type View = View;
    const METHOD: &'static str = "FetchX509SVID";
    const BOUNDED: Option<BoundedCall> = Some(BoundedCall::FetchX509Svid);
    const WHAT: &'static str = "X.509-SVIDs";

    fn view(&self, seen: &Seen<'_>) -> Result<(View, Duration), Status> {
        let lasts = seen.svids_last()?;
        Ok((seen.view(), lasts))
    }

    fn is_same(&self, sent: &View, now: &View) -> bool {
        sent.same_identities(now) && sent.same_bundles(now)
    }

    fn answer(&mut self, view: &View) -> X509svidResponse {
        let svids = view.theirs.iter().map(|identity| svid(identity, &view.own)).collect();
        X509svidResponse { svids, crl: Vec::new(), federated_bundles: view.federated().collect() }
    }
}

impl Question for X509Bundles {
    type Answer = X509BundlesResponse;
    type View = View;
    const METHOD: &'static str = "FetchX509Bundles";
    const BOUNDED: Option<BoundedCall> = Some(BoundedCall::FetchX509Bundles);
    const WHAT: &'static str = "X.509 bundles";

    fn view(&self, seen: &Seen<'_>) -> Result<(View, Duration), Status> {
        let lasts = match seen.are_bundles_for_all()? {
            true => seen.next_end().unwrap_or(NEVER),
            false => seen.svids_last()?,
        };
        Ok((seen.view(), lasts))
    }

    fn is_same(&self, sent: &View, now: &View) -> bool {
        sent.same_bundles(now)
    }

    fn answer(&mut self, view: &View) -> X509BundlesResponse {
        //= WLA-08 SPIFFE Workload API 5.2.2: "MUST contain at least the trust bundle for the trust domain"
        X509BundlesResponse { crl: Vec::new(), bundles: view.x509_bundles() }
    }
}

impl Question for JwtBundles {
    type Answer = JwtBundlesResponse;
    type View = View;
    const METHOD: &'static str = "FetchJWTBundles";
    const BOUNDED: Option<BoundedCall> = Some(BoundedCall::FetchJwtBundles);
    const WHAT: &'static str = "JWT bundles";

    fn wants_svids(&self) -> bool {
        false
    }

    fn view(&self, seen: &Seen<'_>) -> Result<(View, Duration), Status> {
        let lasts = if seen.are_bundles_for_all()? { NEVER } else { seen.entries_last()? };
        Ok((seen.view(), lasts))
    }

    fn is_same(&self, sent: &View, now: &View) -> bool {
        sent.same_jwt_bundles(now)
    }

    fn answer(&mut self, view: &View) -> JwtBundlesResponse {
        //= WLA-10 SPIFFE Workload API 6.2.2: "The server MUST NOT include keys with other uses in the returned JWT bundles."
        JwtBundlesResponse { bundles: view.jwks() }
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
