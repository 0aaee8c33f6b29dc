//! `ironroot.api.agent.hardwarekey.v1`: certificates for keys that callers hold in hardware.
//!
//! A caller has here what its entries with `ironroot:hardware_key` give it, and nothing else; the other APIs give it nothing of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{Context, SHA256};
use ironroot_api::csr::Csr;
use ironroot_api::pb::hardware_key::hardware_key_server::HardwareKey;
use ironroot_api::pb::hardware_key::{
    FetchIdentitiesRequest, FetchIdentitiesResponse, Identity, NewX509svidRequest, NewX509svidResponse,
};
use ironroot_shell::telemetry::otlp::SPANS;
use prost::bytes::Bytes;
use tonic::{Request, Response, Status};
use tracing::{info, warn};

use super::admission::About;
use super::caller::Known;
use super::serving::{MessageStream, NEVER, Question, Seen, Serving, View};
use super::workload_api::wanted;
use crate::hardware_keys::CertifyError;
use crate::server_answers::{EntryTerms, TrustBundle};

const NEW: &str = "NewX509SVID";
/// What is served, for the log.
const WHAT: &str = "X.509-SVID for a key in hardware";

/// The service. Clones share everything.
#[derive(Clone)]
pub(super) struct HardwareKeyApi(pub Serving);

#[tonic::async_trait]
impl HardwareKey for HardwareKeyApi {
    type FetchIdentitiesStream = MessageStream<FetchIdentitiesResponse>;

    async fn fetch_identities(
        &self,
        request: Request<FetchIdentitiesRequest>,
    ) -> Result<Response<Self::FetchIdentitiesStream>, Status> {
        self.0.subscribe(&request, HardwareIdentities).await.map(Response::new)
    }

    async fn new_x509svid(
        &self,
        request: Request<NewX509svidRequest>,
    ) -> Result<Response<NewX509svidResponse>, Status> {
        let caller = self.0.caller(&request)?;
        let NewX509svidRequest { spiffe_id, csr: der } = request.into_inner();
        let named = wanted(&spiffe_id)?.ok_or_else(|| Status::invalid_argument("spiffe_id must be specified"))?;
        let attested = self.0.attest(&caller).await?;
        let all = self.0.started()?;
        let theirs = all.hardware_entries_for(&attested.selectors);
        let Some(terms) = theirs.into_iter().find(|terms| terms.spiffe_id == named).cloned() else {
            return Err(self.0.no_identity(&caller.peer, &attested, NEW, &all));
        };
        self.certify(&caller, &terms, der).await.map(Response::new)
    }
}

impl HardwareKeyApi {
    async fn certify(
        &self,
        caller: &Known,
        terms: &Arc<EntryTerms>,
        der: Bytes,
    ) -> Result<NewX509svidResponse, Status> {
        // A signature is verified when it is the user's turn, and not on the threads that serve the others.
        let bytes = der.clone();
        let parsed = self.0.in_turn(&caller.peer, move |_, _| Ok(Csr::parse(&bytes))).await?;
        let request = parsed.map_err(|error| Status::invalid_argument(format!("invalid CSR: {error}")))?;
        let turns = |server| self.0.admission().signatures(caller.peer.uid(), server, Instant::now());
        let chain = self.0.hardware_keys().certify(terms, (&request, &der), &turns).await;
        let chain = chain.map_err(|error| self.not_certified(caller, terms, &error))?;
        let (uid, pid, spiffe_id) = (caller.peer.uid(), caller.peer.pid(), &terms.spiffe_id);
        info!(target: SPANS, %spiffe_id, what = WHAT, "served");
        if let Some(pass) = self.0.admission().should_log_served(uid, Instant::now()) {
            info!(uid, pid, %spiffe_id, what = WHAT, suppressed = pass.suppressed, "served a workload");
        }
        Ok(NewX509svidResponse { x509_svid: chain.concatenated().clone() })
    }

    fn not_certified(&self, caller: &Known, terms: &EntryTerms, error: &CertifyError) -> Status {
        let (uid, pid, error) = (caller.peer.uid(), caller.peer.pid(), ironroot_shell::describe(error));
        if let Some(pass) = self.0.admission().should_log(uid, About::Signature, Instant::now()) {
            let (spiffe_id, suppressed) = (&terms.spiffe_id, pass.suppressed);
            warn!(uid, pid, method = NEW, %spiffe_id, %error, suppressed, "no certificate for a key in hardware");
        }
        Status::unavailable(format!("no certificate for {}: {error}", terms.spiffe_id))
    }
}

/// What FetchIdentities asks.
struct HardwareIdentities;

/// Entries and bundles of a caller.
struct HardwareView {
    entries: Vec<Arc<EntryTerms>>,
    bundles: View,
}

impl Question for HardwareIdentities {
    type Answer = FetchIdentitiesResponse;
    type View = HardwareView;
    const METHOD: &'static str = "FetchIdentities";
    const WHAT: &'static str = "identities whose keys are in hardware";

    fn wants_svids(&self) -> bool {
        false
    }

    fn view(&self, seen: &Seen<'_>) -> Result<(HardwareView, Duration), Status> {
        let entries = seen.all.hardware_entries_for(seen.about);
        if entries.is_empty() {
            return Err(seen.no_identity());
        }
        let bundles = View::of(seen.all, seen.own.clone(), Vec::new(), seen.all.federated_of(&entries));
        Ok((HardwareView { entries: entries.into_iter().cloned().collect(), bundles }, NEVER))
    }

    fn is_same(&self, sent: &HardwareView, now: &HardwareView) -> bool {
        sent.bundles.same_bundles(&now.bundles) && sent.identities() == now.identities()
    }

    fn named<'a>(&self, view: &'a HardwareView) -> Option<Vec<&'a str>> {
        Some(view.entries.iter().map(|terms| terms.spiffe_id.as_str()).collect())
    }

    fn answer(&mut self, view: &HardwareView) -> FetchIdentitiesResponse {
        FetchIdentitiesResponse {
            identities: view.identities(),
            bundle: view.bundles.own.concatenated().clone(),
            federated_bundles: view.bundles.federated().collect(),
        }
    }
}

impl HardwareView {
    fn identities(&self) -> Vec<Identity> {
        let identity = |terms: &Arc<EntryTerms>| Identity {
            spiffe_id: terms.spiffe_id.to_string(),
            hint: terms.hint.clone(),
            version: version(terms, &self.bundles.own),
        };
        self.entries.iter().map(identity).collect()
    }
}

/// Changes with whatever makes a server sign something else for the entry, or makes what was signed worth less.
fn version(terms: &EntryTerms, bundle: &TrustBundle) -> Bytes {
    let mut digest = Context::new(&SHA256);
    digest.update(terms.id.as_bytes());
    digest.update(&terms.created_at.to_be_bytes());
    digest.update(&terms.revision_number.to_be_bytes());
    for (der, _) in bundle.tainted_authorities().filter(|(_, is_tainted)| *is_tainted) {
        digest.update(&der);
    }
    Bytes::copy_from_slice(digest.finish().as_ref())
}
