//! The server's gRPC surface as anyone may meet it: any certificate or none over TLS, the admin socket, any request.

mod filling;
mod listening;
mod lower_ca;
mod outcasts;
mod shared;
mod software_device;
mod tpm_node;

use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use ironroot_api::SpiffeId;
use ironroot_api::certificate::Certificate;
use ironroot_api::pb::agent::agent_client::AgentClient;
use ironroot_api::pb::agent::attest_agent_request::{Params, Step as Asked};
use ironroot_api::pb::agent::attest_agent_response::Step as Answered;
use ironroot_api::pb::agent::{AgentX509svidParams, AttestAgentRequest, CreateJoinTokenRequest};
use ironroot_api::pb::bundle::GetBundleRequest;
use ironroot_api::pb::bundle::bundle_client::BundleClient;
use ironroot_api::pb::device::device_client::DeviceClient;
use ironroot_api::pb::entry::entry_client::EntryClient;
use ironroot_api::pb::svid::svid_client::SvidClient;
use ironroot_api::pb::svid::{BatchNewX509svidRequest, NewX509svidParams};
use ironroot_api::pb::types;
use ironroot_api::tls::{KeyExchanges, ServerTrust, SvidResolver, TrustAnchors, client_config, provider};
use ironroot_api::unix_socket;
use rcgen::{CertificateParams, KeyPair, SanType};
use rustls::ClientConfig;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

pub use listening::wanted_of_entries;
pub use lower_ca::LowerCa;
pub use outcasts::Outcast;
pub use shared::SharedServer;
pub use software_device::{SoftwareDevice, converse};
pub use tpm_node::TpmNode;

use crate::deployment::Server;

/// A certificate chain and the key it is for.
#[derive(Clone)]
pub struct Credentials {
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// PKCS#8.
    pub key: Vec<u8>,
}

impl Credentials {
    /// What the server signed for `key`.
    pub fn new(svid: &types::X509svid, key: &KeyPair) -> Self {
        let chain = svid.cert_chain.iter().map(|der| CertificateDer::from(der.to_vec())).collect();
        Self { chain, key: key.serialize_der() }
    }

    /// The first certificate of the chain, parsed.
    pub fn leaf(&self) -> Certificate {
        Certificate::parse(&self.chain[0]).expect("a certificate")
    }

    /// The SPIFFE ID in the leaf.
    pub fn id(&self) -> SpiffeId {
        self.leaf().spiffe_id().expect("a SPIFFE ID")
    }

    fn certified(&self) -> CertifiedKey {
        let key = PrivateKeyDer::Pkcs8(self.key.clone().into());
        CertifiedKey::from_der(self.chain.clone(), key, &provider()).expect("a certificate for this key")
    }
}

/// Ways to one server.
#[derive(Clone)]
pub struct ServerClient {
    port: u16,
    from: Ipv4Addr,
    window: Option<u32>,
    socket: PathBuf,
    anchors: Arc<TrustAnchors>,
}

impl ServerClient {
    /// To `server`, which is proven by the bundle that its admin socket gives.
    pub async fn new(server: &Server) -> Self {
        Self::to(server.socket(), server.port()).await
    }

    /// To the server of either make with this admin socket and this TCP port.
    pub async fn to(socket: PathBuf, port: u16) -> Self {
        let admin = unix_socket::connect(&socket).await.expect("the admin socket");
        let bundle = BundleClient::new(admin).get_bundle(GetBundleRequest::default()).await.expect("a bundle");
        let bundle = bundle.into_inner();
        let authorities: Vec<_> =
            bundle.x509_authorities.iter().map(|authority| CertificateDer::from(authority.asn1.to_vec())).collect();
        let trust_domain = ironroot_api::TrustDomain::new(&bundle.trust_domain).expect("a trust domain");
        let anchors = TrustAnchors::new(trust_domain, &authorities).expect("authorities");
        Self { port, from: Ipv4Addr::LOCALHOST, window: None, socket, anchors }
    }

    /// The same, connecting from another of the loopback's addresses.
    pub fn at(self, from: Ipv4Addr) -> Self {
        Self { from, ..self }
    }

    /// The same, but the server may be only that many bytes ahead of what was read.
    pub fn reading_slowly(self, window: u32) -> Self {
        Self { window: Some(window), ..self }
    }

    /// A TCP connection to the server.
    pub async fn tcp(&self) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((self.from, 0).into())?;
        let tcp = socket.connect((Ipv4Addr::LOCALHOST, self.port).into()).await?;
        tcp.set_nodelay(true)?;
        Ok(tcp)
    }

    /// A TLS connection that shows `credentials`, before any HTTP/2.
    pub async fn shake(&self, credentials: Option<&Credentials>) -> io::Result<TlsStream<TcpStream>> {
        // Not sent and not checked: the server is known by its SPIFFE ID.
        let name = ServerName::try_from("spire-server").expect("a constant legal name");
        TlsConnector::from(self.tls(credentials)).connect(name, self.tcp().await?).await
    }

    /// The authorities that the server's SVIDs chain to.
    pub fn anchors(&self) -> &TrustAnchors {
        &self.anchors
    }

    /// The admin socket.
    pub async fn admin(&self) -> Channel {
        unix_socket::connect(&self.socket).await.expect("the admin socket")
    }

    /// TLS without a client certificate.
    pub async fn anonymous(&self) -> Channel {
        self.dial(None).await.expect("anyone may connect")
    }

    /// TLS with a client certificate. In TLS 1.3 a refusal of it may only show at the first call.
    pub async fn with(&self, credentials: &Credentials) -> Result<Channel, tonic::transport::Error> {
        self.dial(Some(credentials)).await
    }

    /// A TLS configuration that trusts the server and shows `credentials`.
    pub fn tls(&self, credentials: Option<&Credentials>) -> Arc<ClientConfig> {
        let svid = credentials.map_or_else(SvidResolver::empty, |c| SvidResolver::new(c.certified()));
        let expected = self.anchors.trust_domain().server_id();
        client_config(ServerTrust::Bundle { anchors: self.anchors.clone(), expected }, svid, KeyExchanges::default())
    }

    /// A fresh join token, good for ten minutes.
    pub async fn join_token(&self) -> String {
        let request = CreateJoinTokenRequest { ttl: 600, ..Default::default() };
        let token = AgentClient::new(self.admin().await).create_join_token(request).await.expect("a token");
        token.into_inner().value
    }

    /// Attests with a join token and a fresh key.
    pub async fn attest_with_token(&self, token: &str) -> Result<Credentials, Status> {
        let channel = self.dial(None).await.map_err(|e| Status::unavailable(e.to_string()))?;
        let key = key();
        let params = params("join_token", token.as_bytes().to_vec(), csr(&key, &[]));
        Ok(Credentials::new(&attest(channel, params, None).await?, &key))
    }

    /// A new agent, attested with a join token.
    pub async fn agent(&self) -> Agent {
        let token = self.join_token().await;
        let credentials = self.attest_with_token(&token).await.expect("a fresh token attests");
        self.agent_of(credentials).await
    }

    /// A connection of a server below, with an SVID of an entry of its own for this path, whose parent is `agent`.
    pub async fn below(&self, server: &Server, agent: &Agent, path: &str) -> Channel {
        let entry_id = server.create_entry(agent.id().as_str(), path, &["unix:uid:1"], &["-downstream"]);
        self.with(&agent.fetch_svid(entry_id).await).await.expect("a good certificate")
    }

    /// The agent of these credentials on a connection of its own.
    pub async fn agent_of(&self, credentials: Credentials) -> Agent {
        let channel = self.with(&credentials).await.expect("a good certificate");
        Agent { credentials, channel }
    }

    async fn dial(&self, credentials: Option<&Credentials>) -> Result<Channel, tonic::transport::Error> {
        let (client, credentials) = (self.clone(), credentials.cloned());
        let connect = tower::service_fn(move |_| {
            let (client, credentials) = (client.clone(), credentials.clone());
            async move { client.shake(credentials.as_ref()).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://localhost");
        let endpoint = endpoint.initial_stream_window_size(self.window).initial_connection_window_size(self.window);
        endpoint.connect_with_connector(connect).await
    }
}

/// An attested agent with a connection.
pub struct Agent {
    /// The chain and key that its connection is authenticated with.
    pub credentials: Credentials,
    /// An mTLS connection to the server.
    pub channel: Channel,
}

impl Agent {
    /// Its SPIFFE ID.
    pub fn id(&self) -> SpiffeId {
        self.credentials.id()
    }

    /// An SVID of that entry for a fresh key, as this agent fetches it.
    pub async fn fetch_svid(&self, entry_id: String) -> Credentials {
        let key = key();
        let params = vec![NewX509svidParams { entry_id, csr: csr(&key, &[]).into() }];
        let answer = self.svids().batch_new_x509svid(BatchNewX509svidRequest { params }).await.expect("answered");
        let result = answer.into_inner().results.swap_remove(0);
        Credentials::new(&result.svid.expect("an SVID"), &key)
    }

    /// The agent service.
    pub fn agents(&self) -> AgentClient<Channel> {
        AgentClient::new(self.channel.clone())
    }

    /// The entry service.
    pub fn entries(&self) -> EntryClient<Channel> {
        EntryClient::new(self.channel.clone())
    }

    /// The SVID service.
    pub fn svids(&self) -> SvidClient<Channel> {
        SvidClient::new(self.channel.clone())
    }

    /// The bundle service.
    pub fn bundles(&self) -> BundleClient<Channel> {
        BundleClient::new(self.channel.clone())
    }

    /// The device service.
    pub fn devices(&self) -> DeviceClient<Channel> {
        DeviceClient::new(self.channel.clone())
    }
}

/// A fresh P-256 key.
pub fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}

/// A PKCS#10 request for `key` that asks for `names`, DER.
pub fn csr(key: &KeyPair, names: &[SanType]) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.subject_alt_names = names.to_vec();
    params.serialize_request(key).expect("a request").der().to_vec()
}

/// AttestAgent's first message.
pub fn params(kind: &str, payload: Vec<u8>, csr: Vec<u8>) -> Params {
    Params {
        data: Some(types::AttestationData { r#type: kind.to_owned(), payload: payload.into() }),
        params: Some(AgentX509svidParams { csr: csr.into() }),
    }
}

/// A whole AttestAgent; `prover` answers challenges for the key whose SubjectPublicKeyInfo stands beside it.
pub async fn attest(
    channel: Channel,
    params: Params,
    prover: Option<(&TpmNode, &[u8])>,
) -> Result<types::X509svid, Status> {
    let (ask, asked) = mpsc::channel(2);
    let first = AttestAgentRequest { step: Some(Asked::Params(params)) };
    ask.try_send(first).expect("room for the first message");
    let answers = AgentClient::new(channel).attest_agent(ReceiverStream::new(asked)).await?;
    let mut answers = answers.into_inner();
    while let Some(answer) = answers.message().await? {
        match (answer.step, prover) {
            (Some(Answered::Result(result)), _) => return Ok(result.svid.expect("a result has an SVID")),
            (Some(Answered::Challenge(challenge)), Some((node, spki))) => {
                let response = node.answer(&challenge, spki).await;
                let response = AttestAgentRequest { step: Some(Asked::ChallengeResponse(response.into())) };
                let _ = ask.send(response).await;
            }
            (step, _) => panic!("unexpected answer {step:?}"),
        }
    }
    Err(Status::unknown("the server ended the conversation without a result"))
}
