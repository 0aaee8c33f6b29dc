//! X509-SVIDs for keys that workloads hold in hardware: the server signs for a key of the workload's, and this agent holds neither.
//!
//! ```text
//!  certify ─► places (the user's, the server's) ─► BatchNewX509SVID over the loop's connection ─► verified by the bundle ─► the chain
//!             the server of the entry, then others that have the same
//! ```
//! Nothing here decides who may have what: who calls [`HardwareKeys::certify`] names an entry that its workload has. Nothing is kept: a
//! certificate is of use to nobody but who has its key, and that one keeps it beside the key's name.

use std::sync::Arc;
use std::time::Duration;

use ironroot_api::csr::Csr;
use ironroot_api::pb::svid::svid_client::SvidClient;
use ironroot_api::pb::svid::{BatchNewX509svidRequest, NewX509svidParams};
use ironroot_api::pb::types::X509svid;
use ironroot_api::permission::denial_reason;
use ironroot_shell::command_line::code_name;
use prost::bytes::Bytes;
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tonic::{Code, Status};
use tracing::debug;

use crate::identities::Identities;
use crate::jwt_svids::Turns;
use crate::server_answers::{AnswerRefusal, DerList, EntryTerms, chain_for_key};
use crate::server_channel::{Channel, MAX_ANSWER_BYTES, RPC_DEADLINE, within};
use crate::server_number::{MAX_SERVERS, ServerNumber};
use crate::upstreams::{Upstream, Upstreams};

/// Calls that are under way at once at one server, for all users.
pub const MAX_CALLS: usize = 8;
/// Longest wait for a place among them.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no certificate; for whoever asked, so nothing of it is secret.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum CertifyError {
    /// The agent knows that it cannot reach its server, or that it may not.
    #[error("the server cannot be reached")]
    ServerAway,
    /// The server's own refusal.
    #[error("the server does not sign: code = {} desc = {message}", code_name(*code))]
    Server { code: Code, message: String },
    /// What the server signed is not used.
    #[error("the server's SVID is refused")]
    Answer(#[from] AnswerRefusal),
    /// Too many calls are under way.
    #[error("too many certificates are being asked for")]
    Busy,
}

impl From<Status> for CertifyError {
    fn from(status: Status) -> Self {
        Self::Server { code: status.code(), message: status.message().chars().take(500).collect() }
    }
}

/// See the module. Clones share everything.
#[derive(Clone)]
pub struct HardwareKeys(Arc<State>);

struct State {
    identities: watch::Receiver<Arc<Identities>>,
    upstreams: Upstreams,
    /// Of each server, by its number: one that hangs takes no other's.
    calls: [Arc<Semaphore>; MAX_SERVERS],
}

impl HardwareKeys {
    /// Has what `identities` has entries for signed at the server whose entry it is.
    pub fn new(identities: watch::Receiver<Arc<Identities>>, upstreams: Upstreams) -> Self {
        let calls = std::array::from_fn(|_| Arc::new(Semaphore::new(MAX_CALLS)));
        Self(Arc::new(State { identities, upstreams, calls }))
    }

    /// A chain for the key of `request`, of which `der` are the bytes: of this entry's server, else of the first that has the same entry
    /// and signs. `turns` are those of the user that asks, at a server.
    pub async fn certify(
        &self,
        terms: &Arc<EntryTerms>,
        (request, der): (&Csr, &Bytes),
        turns: Turns<'_>,
    ) -> Result<DerList, CertifyError> {
        let standbys: Vec<_> = self.0.identities.borrow().standbys_of(terms).cloned().collect();
        let mut first_refusal = None;
        for terms in std::iter::once(terms).chain(&standbys) {
            let refusal = match self.certify_at(terms, (request, der), turns).await {
                Ok(chain) => return Ok(chain),
                Err(refusal) => refusal,
            };
            debug!(spiffe_id = %terms.spiffe_id, entry_id = terms.id, %refusal, "no certificate for a key in hardware");
            first_refusal.get_or_insert(refusal);
        }
        Err(first_refusal.unwrap_or(CertifyError::ServerAway))
    }

    async fn certify_at(
        &self,
        terms: &EntryTerms,
        (request, der): (&Csr, &Bytes),
        turns: Turns<'_>,
    ) -> Result<DerList, CertifyError> {
        let _places = self.places(terms.server, turns).await?;
        let upstream = self.0.upstreams.at(terms.server);
        let signed = signed(upstream, terms, der.clone()).await?;
        let bundle = self.0.identities.borrow().bundle().cloned().ok_or(CertifyError::ServerAway)?;
        let moment = upstream.time.moment();
        let checked = chain_for_key(&signed, &terms.spiffe_id, request.spki().as_der(), &bundle, &moment);
        // The server may sign with an authority that it has had since the last sync.
        checked.inspect_err(|_| upstream.requests.refresh()).map_err(Into::into)
    }

    /// A place among the user's calls at this server, and one among all calls there: in this order, so that who waits for a place
    /// holds none.
    async fn places(
        &self,
        server: ServerNumber,
        turns: Turns<'_>,
    ) -> Result<(OwnedSemaphorePermit, OwnedSemaphorePermit), CertifyError> {
        let (turns, calls) = (turns(server), server.own(&self.0.calls).clone());
        let both = async { Ok((turns.acquire_owned().await?, calls.acquire_owned().await?)) };
        match tokio::time::timeout(PATIENCE, both).await {
            Ok(Ok::<_, tokio::sync::AcquireError>(places)) => Ok(places),
            _ => Err(CertifyError::Busy),
        }
    }
}

async fn signed(upstream: &Upstream, terms: &EntryTerms, csr: Bytes) -> Result<X509svid, CertifyError> {
    let channel = upstream.channel().await.ok_or(CertifyError::ServerAway)?;
    call(channel, terms, csr).await.map_err(|status| {
        // What the server has against this agent is the loop's to hear.
        if denial_reason(&status).is_some() {
            upstream.requests.refresh();
        }
        status.into()
    })
}

async fn call(channel: Channel, terms: &EntryTerms, csr: Bytes) -> Result<X509svid, Status> {
    let params = vec![NewX509svidParams { entry_id: terms.id.clone(), csr }];
    let mut client = SvidClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
    let asked = client.batch_new_x509svid(BatchNewX509svidRequest { params });
    let results = within(RPC_DEADLINE, asked).await?.into_inner().results;
    let result = results.into_iter().next().ok_or_else(|| Status::internal("the server answered nothing"))?;
    match (result.status.unwrap_or_default(), result.svid) {
        (status, _) if status.code != 0 => Err(Status::new(Code::from(status.code), status.message)),
        (_, svid) => svid.ok_or_else(|| Status::internal("the server's answer has no SVID")),
    }
}
