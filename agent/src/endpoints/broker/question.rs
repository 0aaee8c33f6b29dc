//! What a broker asks of a workload, and how it is answered.

use std::sync::Arc;
use std::time::Duration;

use ironroot_api::pb::broker::{
    SubscribeToJwtBundlesResponse, SubscribeToX509BundlesResponse, SubscribeToX509svidResponse, X509svid,
};
use tonic::Status;

use super::refusal::BrokerRefusal;
use super::trust::{AuthenticatedBroker, BrokerTrust};
use super::workload::Workload;
use super::{SUBSCRIBE_BUNDLES, SUBSCRIBE_JWT_BUNDLES, SUBSCRIBE_SVIDS};
use crate::endpoints::caller::Known;
use crate::endpoints::delegated::may_be_handed_on;
use crate::endpoints::serving::{Attested, Heard, NEVER, Question, Seen, Serving, View};
use crate::identities::Identity;
use crate::server_answers::TrustBundle;

/// Who asks, and about whom.
pub(super) struct Asked {
    pub trust: Arc<BrokerTrust>,
    pub broker: Arc<AuthenticatedBroker>,
    pub workload: Workload,
}

/// The X509-SVIDs of the workload.
pub(super) struct X509Svids(pub Asked);

/// The bundles that it may trust.
pub(super) struct X509Bundles(pub Asked);

/// The same, of JWT-SVIDs.
pub(super) struct JwtBundles(pub Asked);

impl Asked {
    /// Whether nothing speaks against an answer now.
    pub fn check(&self, serving: &Serving, caller: &Known, method: &'static str) -> Result<(), Status> {
        let believed = self.trust.still_believes(&self.broker).map_err(BrokerRefusal::from);
        let checked = believed.and_then(|()| self.workload.check());
        checked.map_err(|refusal| refusal.told(serving, caller, &self.broker, method))
    }

    //= BRK-07 SPIFFE Broker API 4.9: "Once the workload has stopped, the server MUST stop sending responses for that workload"
    async fn ended(&self) -> Result<Heard, Status> {
        self.workload.exited().await;
        Err(BrokerRefusal::Exited(self.workload.pid()).into())
    }

    fn not_entitled(&self, seen: &Seen<'_>) -> Status {
        self.workload.not_entitled(seen.serving, seen.attested, seen.method, seen.all)
    }

    /// The bundles that the workload may trust, if it has an entry.
    fn bundles(&self, seen: &Seen<'_>) -> Result<(View, Duration), Status> {
        self.check(seen.serving, seen.caller, seen.method)?;
        match seen.entries().into_iter().any(|terms| may_be_handed_on(terms)) {
            true => Ok((seen.view(), NEVER)),
            false => Err(self.not_entitled(seen)),
        }
    }
}

/// What is the same for each question.
macro_rules! asked_of_a_workload {
    () => {
        async fn attest(
            &mut self,
            serving: &Serving,
            caller: &Known,
            _: Option<&Attested>,
        ) -> Result<Attested, Status> {
            self.0.workload.attest(serving, caller).await
        }

        async fn heard(&mut self) -> Result<Heard, Status> {
            self.0.ended().await
        }
    };
}

impl Question for X509Svids {
    type Answer = SubscribeToX509svidResponse;
    type View = View;
    const METHOD: &'static str = SUBSCRIBE_SVIDS;
    const WHAT: &'static str = "X.509-SVIDs for a broker";

    asked_of_a_workload!();

    fn view(&self, seen: &Seen<'_>) -> Result<(View, Duration), Status> {
        self.0.check(seen.serving, seen.caller, seen.method)?;
        if !seen.entries().into_iter().any(|terms| may_be_handed_on(terms)) {
            return Err(self.0.not_entitled(seen));
        }
        let lasts = seen.svids_last()?;
        let mut view = seen.view();
        view.theirs.retain(|identity| may_be_handed_on(identity.terms()));
        match view.theirs.is_empty() {
            true => Err(Status::unavailable("no X509-SVID of this workload that is handed on is signed, or lasts")),
            false => Ok((view, lasts)),
        }
    }

    fn is_same(&self, sent: &View, now: &View) -> bool {
        sent.same_identities(now) && sent.same_bundles(now)
    }

    fn answer(&mut self, view: &View) -> SubscribeToX509svidResponse {
        let svids = view.theirs.iter().map(|identity| svid(identity, &view.own)).collect();
        SubscribeToX509svidResponse { svids, crl: Vec::new(), federated_bundles: view.federated().collect() }
    }
}

impl Question for X509Bundles {
    type Answer = SubscribeToX509BundlesResponse;
    type View = View;
    const METHOD: &'static str = SUBSCRIBE_BUNDLES;
    const WHAT: &'static str = "X.509 bundles for a broker";

    asked_of_a_workload!();

    fn wants_svids(&self) -> bool {
        false
    }

    fn view(&self, seen: &Seen<'_>) -> Result<(View, Duration), Status> {
        self.0.bundles(seen)
    }

    fn is_same(&self, sent: &View, now: &View) -> bool {
        sent.same_bundles(now)
    }

    fn answer(&mut self, view: &View) -> SubscribeToX509BundlesResponse {
        SubscribeToX509BundlesResponse { crl: Vec::new(), bundles: view.x509_bundles() }
    }
}

impl Question for JwtBundles {
    type Answer = SubscribeToJwtBundlesResponse;
    type View = View;
    const METHOD: &'static str = SUBSCRIBE_JWT_BUNDLES;
    const WHAT: &'static str = "JWT bundles for a broker";

    asked_of_a_workload!();

    fn wants_svids(&self) -> bool {
        false
    }

    fn view(&self, seen: &Seen<'_>) -> Result<(View, Duration), Status> {
        self.0.bundles(seen)
    }

    fn is_same(&self, sent: &View, now: &View) -> bool {
        sent.same_jwt_bundles(now)
    }

    fn answer(&mut self, view: &View) -> SubscribeToJwtBundlesResponse {
        SubscribeToJwtBundlesResponse { bundles: view.jwks() }
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
