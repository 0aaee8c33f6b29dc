//! What a delegate asks, and how it is answered.

use std::sync::Arc;
use std::time::Duration;

use ironroot_api::pb::delegated::{
    SubscribeToJwtBundlesResponse, SubscribeToX509BundlesResponse, SubscribeToX509sviDsResponse, X509svidWithKey,
};
use ironroot_api::pb::types;
use ironroot_attest::SelectorSet;
use tonic::Status;

use super::delegates::Delegates;
use super::subject::Subject;
use super::{SUBSCRIBE_BUNDLES, SUBSCRIBE_JWT_BUNDLES, SUBSCRIBE_SVIDS};
use crate::endpoints::caller::Known;
use crate::endpoints::serving::{
    Attested, Bundles, Heard, NEVER, Question, Seen, Serving, same_bundles, same_jwt_bundles,
};
use crate::identities::{Identities, Identity};
use crate::server_answers::{EntryTerms, ShownBundle};

/// Whether an entry's identity is one that delegates and brokers get. Not if that is not known of it.
pub(in crate::endpoints) fn may_be_handed_on(terms: &EntryTerms) -> bool {
    terms.is_privileged == Some(false)
}

/// The X509-SVIDs of whom it names.
pub(super) struct X509Svids {
    pub delegates: Delegates,
    pub subject: Subject,
}

/// All bundles.
pub(super) struct X509Bundles {
    pub delegates: Delegates,
}

/// The same, of JWT-SVIDs.
pub(super) struct JwtBundles {
    pub delegates: Delegates,
}

/// What a delegate sees of its subject.
pub(super) struct Theirs {
    identities: Vec<Arc<Identity>>,
    /// IDs of the trust domains that it federates with, in order.
    federates_with: Vec<String>,
}

impl Question for X509Svids {
    type Answer = SubscribeToX509sviDsResponse;
    type View = Theirs;
    const METHOD: &'static str = SUBSCRIBE_SVIDS;
    const WHAT: &'static str = "X.509-SVIDs for a delegate";

    /// The delegate, and whom it asks for: both may have become others.
    async fn attest(
        &mut self,
        serving: &Serving,
        caller: &Known,
        before: Option<&Attested>,
    ) -> Result<Attested, Status> {
        self.subject.look_again(serving, caller).await?;
        match before {
            Some(before) => serving.attest_again(caller, before).await,
            None => serving.attest(caller).await,
        }
    }

    fn knows_enough(&self, identities: &Identities) -> (bool, Duration) {
        self.subject.is_known_enough(identities)
    }

    fn about<'a>(&'a self, _caller: &'a Attested) -> &'a SelectorSet {
        self.subject.selectors()
    }

    /// Nobody may have an identity: that is an answer, and the stream stays.
    fn view(&self, seen: &Seen<'_>) -> Result<(Theirs, Duration), Status> {
        self.delegates.admit(seen.serving, seen.caller, seen.attested, seen.all, seen.method)?;
        self.subject.check()?;
        let theirs = seen.all.all_for_selectors(seen.about, seen.now).into_iter();
        let identities = theirs.filter(|identity| may_be_handed_on(identity.terms())).cloned().collect();
        let foreign = seen.whole_view().bundles.into_keys().filter(|domain| domain != seen.all.trust_domain());
        let federates_with = foreign.map(|domain| domain.id().to_string()).collect();
        Ok((Theirs { identities, federates_with }, seen.next_end_of_all().unwrap_or(NEVER)))
    }

    fn is_same(&self, sent: &Theirs, now: &Theirs) -> bool {
        let mut pairs = sent.identities.iter().zip(&now.identities);
        sent.identities.len() == now.identities.len()
            && pairs.all(|(sent, now)| sent.looks_like(now))
            && sent.federates_with == now.federates_with
    }

    fn named<'a>(&self, view: &'a Theirs) -> Option<Vec<&'a str>> {
        Some(view.identities.iter().map(|identity| identity.spiffe_id().as_str()).collect())
    }

    fn answer(&mut self, view: &Theirs) -> SubscribeToX509sviDsResponse {
        let x509_svids = view.identities.iter().map(|identity| svid(identity)).collect();
        SubscribeToX509sviDsResponse { x509_svids, federates_with: view.federates_with.clone() }
    }

    async fn heard(&mut self) -> Result<Heard, Status> {
        Err(self.subject.ended().await)
    }
}

impl Question for X509Bundles {
    type Answer = SubscribeToX509BundlesResponse;
    type View = Bundles;
    const METHOD: &'static str = SUBSCRIBE_BUNDLES;
    const WHAT: &'static str = "X.509 bundles for a delegate";

    fn wants_svids(&self) -> bool {
        false
    }

    fn view(&self, seen: &Seen<'_>) -> Result<(Bundles, Duration), Status> {
        all_bundles(&self.delegates, seen, ShownBundle::is_for_x509)
    }

    fn is_same(&self, sent: &Bundles, now: &Bundles) -> bool {
        same_bundles(sent, now)
    }

    fn answer(&mut self, view: &Bundles) -> SubscribeToX509BundlesResponse {
        let bundles = view.iter().map(|(domain, bundle)| (domain.id().to_string(), bundle.concatenated().clone()));
        SubscribeToX509BundlesResponse { ca_certificates: bundles.collect() }
    }
}

impl Question for JwtBundles {
    type Answer = SubscribeToJwtBundlesResponse;
    type View = Bundles;
    const METHOD: &'static str = SUBSCRIBE_JWT_BUNDLES;
    const WHAT: &'static str = "JWT bundles for a delegate";

    fn wants_svids(&self) -> bool {
        false
    }

    fn view(&self, seen: &Seen<'_>) -> Result<(Bundles, Duration), Status> {
        all_bundles(&self.delegates, seen, |_| true)
    }

    fn is_same(&self, sent: &Bundles, now: &Bundles) -> bool {
        same_jwt_bundles(sent, now)
    }

    fn answer(&mut self, view: &Bundles) -> SubscribeToJwtBundlesResponse {
        let jwks = |bundle: &ShownBundle| bundle.jwt_authorities().jwks().clone();
        let bundles = view.iter().map(|(domain, bundle)| (domain.id().to_string(), jwks(bundle)));
        SubscribeToJwtBundlesResponse { bundles: bundles.collect() }
    }
}

/// Every bundle that the agent has, whoever federates with it. Source: SPIRE.
fn all_bundles(
    delegates: &Delegates,
    seen: &Seen<'_>,
    is_shown: impl Fn(&ShownBundle) -> bool,
) -> Result<(Bundles, Duration), Status> {
    delegates.admit(seen.serving, seen.caller, seen.attested, seen.all, seen.method)?;
    let shown = seen.all.bundles().filter(|(_, bundle)| is_shown(bundle));
    Ok((shown.map(|(domain, bundle)| (domain.clone(), bundle)).collect(), NEVER))
}

fn svid(identity: &Identity) -> X509svidWithKey {
    let svid = types::X509svid {
        cert_chain: identity.svid().chain().iter().map(|der| der.to_vec().into()).collect(),
        id: Some(identity.spiffe_id().to_pb()),
        expires_at: identity.svid().lifetime().span().not_after,
        hint: identity.hint().to_owned(),
    };
    X509svidWithKey { x509_svid: Some(svid), x509_svid_key: identity.key().pkcs8_der().clone() }
}
