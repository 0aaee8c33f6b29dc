//! The services, each answering by the script.

use std::pin::Pin;
use std::sync::Arc;

use ironroot_api::csr::{Csr, Spki};
use ironroot_api::pb::agent::agent_server::Agent;
use ironroot_api::pb::agent::{
    AttestAgentRequest, AttestAgentResponse, BanAgentRequest, CountAgentsRequest, CountAgentsResponse,
    CreateJoinTokenRequest, DeleteAgentRequest, GetAgentRequest, ListAgentsRequest, ListAgentsResponse,
    PostStatusRequest, PostStatusResponse, RenewAgentRequest, RenewAgentResponse, attest_agent_request,
    attest_agent_response,
};
use ironroot_api::pb::bundle::bundle_server::Bundle;
use ironroot_api::pb::bundle::{
    AppendBundleRequest, BatchCreateFederatedBundleRequest, BatchCreateFederatedBundleResponse,
    BatchDeleteFederatedBundleRequest, BatchDeleteFederatedBundleResponse, BatchSetFederatedBundleRequest,
    BatchSetFederatedBundleResponse, BatchUpdateFederatedBundleRequest, BatchUpdateFederatedBundleResponse,
    CountBundlesRequest, CountBundlesResponse, GetBundleRequest, GetFederatedBundleRequest,
    ListFederatedBundlesRequest, ListFederatedBundlesResponse, PublishJwtAuthorityRequest, PublishJwtAuthorityResponse,
    PublishWitAuthorityRequest, PublishWitAuthorityResponse,
};
use ironroot_api::pb::change::change_server::Change;
use ironroot_api::pb::change::{WatchChangesRequest, WatchChangesResponse};
use ironroot_api::pb::entry::entry_server::Entry;
use ironroot_api::pb::entry::{
    BatchCreateEntryRequest, BatchCreateEntryResponse, BatchDeleteEntryRequest, BatchDeleteEntryResponse,
    BatchUpdateEntryRequest, BatchUpdateEntryResponse, CountEntriesRequest, CountEntriesResponse, EntryRevision,
    GetAuthorizedEntriesRequest, GetAuthorizedEntriesResponse, GetEntryRequest, ListEntriesRequest,
    ListEntriesResponse, SyncAuthorizedEntriesRequest, SyncAuthorizedEntriesResponse,
};
use ironroot_api::pb::svid::svid_server::Svid;
use ironroot_api::pb::svid::{
    BatchNewWitsvidRequest, BatchNewWitsvidResponse, BatchNewX509svidRequest, BatchNewX509svidResponse,
    MintJwtsvidRequest, MintJwtsvidResponse, MintWitsvidRequest, MintWitsvidResponse, MintX509svidRequest,
    MintX509svidResponse, NewDownstreamX509caRequest, NewDownstreamX509caResponse, NewJwtsvidRequest,
    NewJwtsvidResponse, NewX509svidParams, batch_new_x509svid_response,
};
use ironroot_api::pb::types;
use ironroot_api::permission::permission_denied;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{AgentLie, BundleLie, JwtScript, Play, PushPlay, SvidLie, TRUST_DOMAIN, changes, jwt, lock};
use crate::toy_ca::{ToyCa, ToySvid};

/// The path of the agent that every attestation makes.
const AGENT_PATH: &str = "/spire/agent/join_token/lab";

fn has_field(payload: &[u8], field: &str) -> bool {
    String::from_utf8_lossy(payload).contains(field)
}

/// Items of two bytes that make an answer of just below 4 MiB.
const EMPTY_ITEMS: usize = 2_090_000;

#[derive(Clone)]
pub(super) struct Services(pub(super) Arc<Play>);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Services {
    fn permitted(&self) -> Result<(), Status> {
        match lock(&self.0.script).denial {
            Some(reason) => Err(permission_denied(reason, "scripted")),
            None => Ok(()),
        }
    }

    /// Who signs now.
    fn authority(&self) -> &ToyCa {
        let script = lock(&self.0.script);
        match (script.stolen, script.tainted) {
            (true, _) => &self.0.rogue,
            (false, true) => &self.0.second_ca,
            (false, false) => &self.0.ca,
        }
    }

    /// One, if a part with WIT-SVIDs is played.
    fn wit_authorities(&self) -> Vec<types::WitKey> {
        let script = lock(&self.0.script);
        let keys = self.0.jwt.bundle(&JwtScript::default()).into_iter().filter(|_| script.wit_refusal.is_some());
        let wit = |key: types::JwtKey| types::WitKey {
            public_key: key.public_key,
            key_id: key.key_id,
            expires_at: key.expires_at,
            tainted: key.tainted,
        };
        keys.map(wit).collect()
    }

    /// What it says of the trust domain's authorities.
    pub(super) fn bundle(&self) -> types::Bundle {
        let (lie, tainted) = {
            let script = lock(&self.0.script);
            (script.bundle, script.tainted)
        };
        let authority = |der: Vec<u8>, tainted| types::X509Certificate { asn1: der.into(), tainted };
        let first = if lock(&self.0.script).stolen { &self.0.rogue } else { &self.0.ca };
        let mut authorities = vec![authority(first.der().to_vec(), tainted)];
        if tainted {
            authorities.push(authority(self.0.second_ca.der().to_vec(), false));
        }
        let leaf = || self.0.ca.identity(&ToySvid::new(&format!("spiffe://{TRUST_DOMAIN}/x"), 60)).0.to_vec();
        match lie {
            BundleLie::Empty => authorities.clear(),
            BundleLie::NotAnAuthority => authorities.push(authority(leaf(), false)),
            BundleLie::Garbage => authorities.push(authority(b"no certificate".to_vec(), false)),
            BundleLie::Honest | BundleLie::OtherTrustDomain | BundleLie::Amplified => {}
        }
        let trust_domain = if lie == BundleLie::OtherTrustDomain { "other.example" } else { TRUST_DOMAIN };
        types::Bundle {
            trust_domain: trust_domain.to_owned(),
            x509_authorities: authorities,
            jwt_authorities: if lie == BundleLie::Amplified {
                vec![types::JwtKey::default(); EMPTY_ITEMS]
            } else {
                self.0.jwt.bundle(&lock(&self.0.script).jwt)
            },
            wit_authorities: self.wit_authorities(),
            ..types::Bundle::default()
        }
    }

    fn agent_svid(&self, csr: &[u8]) -> types::X509svid {
        let (lie, ttl, clock_error) = {
            let script = lock(&self.0.script);
            (script.agent, script.agent_ttl, script.clock_error)
        };
        let path = match lie {
            AgentLie::NotAnAgent => "/workload",
            AgentLie::Server => "/spire/server",
            _ => AGENT_PATH,
        };
        let svid = ToySvid::new(&format!("spiffe://{TRUST_DOMAIN}{path}"), ttl).moved(clock_error);
        let der = match lie {
            AgentLie::OtherKey => self.authority().identity(&svid).0,
            _ => self.authority().sign_request(csr, &svid),
        };
        answer(path, svid.not_after, vec![der.to_vec()])
    }

    fn workload_svid(&self, params: &NewX509svidParams) -> batch_new_x509svid_response::Result {
        let (entry, lie, ttl, clock_error) = {
            let script = lock(&self.0.script);
            let entry = script.entries.iter().find(|entry| entry.id == params.entry_id).cloned();
            (entry, script.svid, script.svid_ttl, script.clock_error)
        };
        let Some(entry) = entry else {
            let status = types::Status { code: tonic::Code::NotFound.into(), message: "no such entry".to_owned() };
            return batch_new_x509svid_response::Result { status: Some(status), svid: None };
        };
        let path = entry.spiffe_id.unwrap_or_default().path;
        let mut svid = ToySvid::new(&format!("spiffe://{TRUST_DOMAIN}{path}"), ttl).moved(clock_error);
        match lie {
            SvidLie::OtherId => svid.spiffe_id = format!("spiffe://{TRUST_DOMAIN}/somebody-else"),
            SvidLie::OtherTrustDomain => svid.spiffe_id = format!("spiffe://other.example{path}"),
            SvidLie::SigningCertificate => svid.is_ca = true,
            SvidLie::Expired => {
                (svid.not_before, svid.not_after) = (svid.not_before - 90_000, svid.not_before - 86_400)
            }
            _ => {}
        }
        let request = Csr::parse(&params.csr).expect("an honest request");
        let spki: Spki = request.spki().clone();
        let der = match lie {
            SvidLie::OtherKey => self.authority().identity(&svid).0,
            SvidLie::UnknownAuthority => self.0.rogue.sign(&spki, &svid),
            _ => self.authority().sign(&spki, &svid),
        };
        let chain = match lie {
            SvidLie::EmptyChain => Vec::new(),
            SvidLie::Garbage => vec![b"no certificate".to_vec()],
            SvidLie::Oversized => vec![vec![0; 64 * 1024 * 1024]],
            SvidLie::Amplified => vec![vec![]; EMPTY_ITEMS],
            _ => vec![der.to_vec()],
        };
        let svid = answer(&path, svid.not_after, chain);
        batch_new_x509svid_response::Result { status: Some(types::Status::default()), svid: Some(svid) }
    }
}

fn answer(path: &str, expires_at: i64, chain: Vec<Vec<u8>>) -> types::X509svid {
    types::X509svid {
        cert_chain: chain.into_iter().map(Into::into).collect(),
        id: Some(types::Spiffeid { trust_domain: TRUST_DOMAIN.to_owned(), path: path.to_owned() }),
        expires_at,
        hint: String::new(),
    }
}

#[tonic::async_trait]
impl Bundle for Services {
    async fn get_bundle(&self, _: Request<GetBundleRequest>) -> Result<Response<types::Bundle>, Status> {
        lock(&self.0.asked).bundles += 1;
        Ok(Response::new(self.bundle()))
    }

    async fn publish_jwt_authority(
        &self,
        _: Request<PublishJwtAuthorityRequest>,
    ) -> Result<Response<PublishJwtAuthorityResponse>, Status> {
        Err(Status::unimplemented("scripted for agents"))
    }

    async fn publish_wit_authority(
        &self,
        _: Request<PublishWitAuthorityRequest>,
    ) -> Result<Response<PublishWitAuthorityResponse>, Status> {
        unscripted()
    }

    async fn append_bundle(&self, _: Request<AppendBundleRequest>) -> Result<Response<types::Bundle>, Status> {
        unscripted()
    }

    async fn count_bundles(&self, _: Request<CountBundlesRequest>) -> Result<Response<CountBundlesResponse>, Status> {
        unscripted()
    }

    async fn list_federated_bundles(
        &self,
        _: Request<ListFederatedBundlesRequest>,
    ) -> Result<Response<ListFederatedBundlesResponse>, Status> {
        unscripted()
    }

    async fn get_federated_bundle(
        &self,
        request: Request<GetFederatedBundleRequest>,
    ) -> Result<Response<types::Bundle>, Status> {
        self.permitted()?;
        lock(&self.0.asked).federated += 1;
        if let Some(code) = lock(&self.0.script).federated_refusal {
            return Err(Status::new(code, "scripted"));
        }
        let answer = lock(&self.0.script).federated.get(&request.get_ref().trust_domain).cloned();
        answer.map(Response::new).ok_or_else(|| Status::not_found("bundle not found"))
    }

    async fn batch_create_federated_bundle(
        &self,
        _: Request<BatchCreateFederatedBundleRequest>,
    ) -> Result<Response<BatchCreateFederatedBundleResponse>, Status> {
        unscripted()
    }

    async fn batch_update_federated_bundle(
        &self,
        _: Request<BatchUpdateFederatedBundleRequest>,
    ) -> Result<Response<BatchUpdateFederatedBundleResponse>, Status> {
        unscripted()
    }

    async fn batch_set_federated_bundle(
        &self,
        _: Request<BatchSetFederatedBundleRequest>,
    ) -> Result<Response<BatchSetFederatedBundleResponse>, Status> {
        unscripted()
    }

    async fn batch_delete_federated_bundle(
        &self,
        _: Request<BatchDeleteFederatedBundleRequest>,
    ) -> Result<Response<BatchDeleteFederatedBundleResponse>, Status> {
        unscripted()
    }
}

#[tonic::async_trait]
impl Svid for Services {
    async fn batch_new_x509svid(
        &self,
        request: Request<BatchNewX509svidRequest>,
    ) -> Result<Response<BatchNewX509svidResponse>, Status> {
        self.permitted()?;
        lock(&self.0.asked).batches += 1;
        let mut results: Vec<_> = request.get_ref().params.iter().map(|params| self.workload_svid(params)).collect();
        if lock(&self.0.script).svid == SvidLie::MissingResult {
            results.pop();
        }
        Ok(Response::new(BatchNewX509svidResponse { results }))
    }

    async fn mint_x509svid(&self, _: Request<MintX509svidRequest>) -> Result<Response<MintX509svidResponse>, Status> {
        Err(Status::unimplemented("scripted for agents"))
    }

    async fn new_downstream_x509ca(
        &self,
        _: Request<NewDownstreamX509caRequest>,
    ) -> Result<Response<NewDownstreamX509caResponse>, Status> {
        Err(Status::unimplemented("scripted for agents"))
    }

    async fn mint_witsvid(&self, _: Request<MintWitsvidRequest>) -> Result<Response<MintWitsvidResponse>, Status> {
        unscripted()
    }

    async fn batch_new_witsvid(
        &self,
        _: Request<BatchNewWitsvidRequest>,
    ) -> Result<Response<BatchNewWitsvidResponse>, Status> {
        lock(&self.0.asked).wits += 1;
        let code = lock(&self.0.script).wit_refusal.unwrap_or(tonic::Code::Unimplemented);
        Err(Status::new(code, "scripted"))
    }

    async fn mint_jwtsvid(&self, _: Request<MintJwtsvidRequest>) -> Result<Response<MintJwtsvidResponse>, Status> {
        Err(Status::unimplemented("JWT functionality is disabled"))
    }

    async fn new_jwtsvid(&self, request: Request<NewJwtsvidRequest>) -> Result<Response<NewJwtsvidResponse>, Status> {
        self.permitted()?;
        lock(&self.0.asked).tokens += 1;
        let svid = jwt::answer(&self.0, request.into_inner()).await?;
        Ok(Response::new(NewJwtsvidResponse { svid: Some(svid) }))
    }
}

#[tonic::async_trait]
impl Change for Services {
    type WatchChangesStream = Answers<WatchChangesResponse>;

    async fn watch_changes(
        &self,
        request: Request<WatchChangesRequest>,
    ) -> Result<Response<Self::WatchChangesStream>, Status> {
        self.permitted()?;
        lock(&self.0.asked).watches += 1;
        let play = lock(&self.0.script).pushes;
        match play {
            PushPlay::Absent => return Err(Status::unimplemented("an older server")),
            PushPlay::Refused(code) => return Err(Status::new(code, "scripted")),
            _ => {}
        }
        let (answers, stream) = mpsc::channel(4);
        tokio::spawn(changes::tell(self.0.clone(), play, request.into_inner(), answers));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

#[tonic::async_trait]
impl Agent for Services {
    type AttestAgentStream = Answers<AttestAgentResponse>;

    async fn attest_agent(
        &self,
        request: Request<Streaming<AttestAgentRequest>>,
    ) -> Result<Response<Self::AttestAgentStream>, Status> {
        lock(&self.0.asked).attestations += 1;
        if let Some(reason) = lock(&self.0.script).attestation_denial {
            return Err(permission_denied(reason, "scripted"));
        }
        if let Some(code) = lock(&self.0.script).attestation_refusal {
            return Err(Status::new(code, "scripted"));
        }
        let first = request.into_inner().message().await?.and_then(|message| message.step);
        let Some(attest_agent_request::Step::Params(params)) = first else {
            return Err(Status::invalid_argument("no params"));
        };
        let (lie, reattestable) = {
            let script = lock(&self.0.script);
            (script.agent, script.reattestable)
        };
        let step = match lie {
            AgentLie::Silence => None,
            AgentLie::KnowsNo(field) if params.data.as_ref().is_some_and(|data| has_field(&data.payload, field)) => {
                let refusal = format!(
                    "failed to attest: TPM evidence refused: the message is malformed: unknown field `{field}`, expected \
                     one of `version`, `ek_certificates` at line 1 column 9"
                );
                return Err(Status::permission_denied(refusal));
            }
            AgentLie::Challenge => Some(attest_agent_response::Step::Challenge(b"answer me".to_vec().into())),
            _ => {
                let svid = self.agent_svid(&params.params.unwrap_or_default().csr);
                let result = attest_agent_response::Result { svid: Some(svid), reattestable };
                Some(attest_agent_response::Step::Result(result))
            }
        };
        let answers = step.into_iter().map(|step| Ok(AttestAgentResponse { step: Some(step) }));
        Ok(Response::new(Box::pin(tokio_stream::iter(answers.collect::<Vec<_>>()))))
    }

    async fn renew_agent(&self, request: Request<RenewAgentRequest>) -> Result<Response<RenewAgentResponse>, Status> {
        self.permitted()?;
        lock(&self.0.asked).renewals += 1;
        let csr = request.into_inner().params.unwrap_or_default().csr;
        Ok(Response::new(RenewAgentResponse { svid: Some(self.agent_svid(&csr)) }))
    }

    async fn post_status(&self, _: Request<PostStatusRequest>) -> Result<Response<PostStatusResponse>, Status> {
        self.permitted()?;
        lock(&self.0.asked).statuses += 1;
        Ok(Response::new(PostStatusResponse {}))
    }

    async fn count_agents(&self, _: Request<CountAgentsRequest>) -> Result<Response<CountAgentsResponse>, Status> {
        unscripted()
    }

    async fn list_agents(&self, _: Request<ListAgentsRequest>) -> Result<Response<ListAgentsResponse>, Status> {
        unscripted()
    }

    async fn get_agent(&self, _: Request<GetAgentRequest>) -> Result<Response<types::Agent>, Status> {
        unscripted()
    }

    async fn delete_agent(&self, _: Request<DeleteAgentRequest>) -> Result<Response<()>, Status> {
        unscripted()
    }

    async fn ban_agent(&self, _: Request<BanAgentRequest>) -> Result<Response<()>, Status> {
        unscripted()
    }

    async fn create_join_token(
        &self,
        _: Request<CreateJoinTokenRequest>,
    ) -> Result<Response<types::JoinToken>, Status> {
        unscripted()
    }
}

#[tonic::async_trait]
impl Entry for Services {
    type SyncAuthorizedEntriesStream = Answers<SyncAuthorizedEntriesResponse>;

    async fn sync_authorized_entries(
        &self,
        request: Request<Streaming<SyncAuthorizedEntriesRequest>>,
    ) -> Result<Response<Self::SyncAuthorizedEntriesStream>, Status> {
        self.permitted()?;
        if !lock(&self.0.script).knows_sync {
            return Err(Status::unimplemented("an older server"));
        }
        lock(&self.0.asked).syncs += 1;
        let (answers, stream) = mpsc::channel(4);
        tokio::spawn(converse(self.0.clone(), request.into_inner(), answers));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn get_authorized_entries(
        &self,
        _: Request<GetAuthorizedEntriesRequest>,
    ) -> Result<Response<GetAuthorizedEntriesResponse>, Status> {
        self.permitted()?;
        lock(&self.0.asked).syncs += 1;
        let entries = lock(&self.0.script).entries.clone();
        Ok(Response::new(GetAuthorizedEntriesResponse { entries }))
    }

    async fn count_entries(&self, _: Request<CountEntriesRequest>) -> Result<Response<CountEntriesResponse>, Status> {
        unscripted()
    }

    async fn list_entries(&self, _: Request<ListEntriesRequest>) -> Result<Response<ListEntriesResponse>, Status> {
        unscripted()
    }

    async fn get_entry(&self, _: Request<GetEntryRequest>) -> Result<Response<types::Entry>, Status> {
        unscripted()
    }

    async fn batch_create_entry(
        &self,
        _: Request<BatchCreateEntryRequest>,
    ) -> Result<Response<BatchCreateEntryResponse>, Status> {
        unscripted()
    }

    async fn batch_update_entry(
        &self,
        _: Request<BatchUpdateEntryRequest>,
    ) -> Result<Response<BatchUpdateEntryResponse>, Status> {
        unscripted()
    }

    async fn batch_delete_entry(
        &self,
        _: Request<BatchDeleteEntryRequest>,
    ) -> Result<Response<BatchDeleteEntryResponse>, Status> {
        unscripted()
    }
}

/// Everything at once, or revisions in pages of two and then what is asked for, also in pages of two.
async fn converse(
    play: Arc<Play>,
    mut requests: Streaming<SyncAuthorizedEntriesRequest>,
    answers: mpsc::Sender<Result<SyncAuthorizedEntriesResponse, Status>>,
) {
    let Ok(Some(first)) = requests.message().await else { return };
    assert!(first.ids.is_empty() && first.output_mask.is_some_and(|mask| mask.revision_number));
    let (entries, paged) = {
        let script = lock(&play.script);
        (script.entries.clone(), script.paged)
    };
    if !paged {
        let _ = answers.send(Ok(SyncAuthorizedEntriesResponse { entries, ..Default::default() })).await;
        return;
    }
    let pages = entries.len().div_ceil(2);
    for (number, page) in entries.chunks(2).enumerate() {
        let revision = |e: &types::Entry| EntryRevision {
            id: e.id.clone(),
            revision_number: e.revision_number,
            created_at: e.created_at,
        };
        let entry_revisions = page.iter().map(revision).collect();
        let more = number + 1 < pages;
        let _ = answers.send(Ok(SyncAuthorizedEntriesResponse { entry_revisions, more, ..Default::default() })).await;
    }
    while let Ok(Some(request)) = requests.message().await {
        let wanted: Vec<_> = entries.iter().filter(|entry| request.ids.contains(&entry.id)).cloned().collect();
        lock(&play.asked).entries_by_id += request.ids.len() as u32;
        let pages = wanted.len().div_ceil(2);
        for (number, page) in wanted.chunks(2).enumerate() {
            let more = number + 1 < pages;
            let answer = SyncAuthorizedEntriesResponse { entries: page.to_vec(), more, ..Default::default() };
            let _ = answers.send(Ok(answer)).await;
        }
    }
}

/// The first word at once, then by the script, until the agent hangs up.
fn unscripted<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("agents do not call this"))
}
