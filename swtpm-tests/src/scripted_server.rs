//! A server that says what a test tells it to say, over real sockets and TLS. It keeps to the protocol's form, not to the
//! truth: what a hostile, broken or older server might send to an agent.

mod changes;
mod jwt;
mod services;
mod tls_connection;

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use ironroot_api::TrustDomain;
use ironroot_api::pb::agent::agent_server::AgentServer;
use ironroot_api::pb::bundle::bundle_server::BundleServer;
use ironroot_api::pb::change::change_server::ChangeServer;
use ironroot_api::pb::entry::entry_server::EntryServer;
use ironroot_api::pb::svid::svid_server::SvidServer;
use ironroot_api::pb::types;
use ironroot_api::pb::types::permission_denied_details::Reason;
use ironroot_api::tls::{ClientTrust, KeyExchanges, SvidResolver, TlsPeer, TrustAnchors, provider, server_config};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;

use crate::toy_ca::{ToyCa, ToySvid};
pub use changes::DeltaLie;
use jwt::JwtKeys;
pub use jwt::{JwtLie, JwtScript};
use services::Services;
use tls_connection::TlsConnection;

/// The trust domain of these servers.
pub const TRUST_DOMAIN: &str = "example.org";

/// What is wrong with the SVIDs it signs for workloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SvidLie {
    /// A right server's certificate.
    Honest,
    /// The certificate names somebody else.
    OtherId,
    /// The certificate is of another trust domain.
    OtherTrustDomain,
    /// For another key than the request's.
    OtherKey,
    /// A signing certificate.
    SigningCertificate,
    /// Signed by an authority that is not in the bundle.
    UnknownAuthority,
    /// Ended yesterday.
    Expired,
    /// No certificate at all.
    EmptyChain,
    /// Bytes that are no certificate.
    Garbage,
    /// One result fewer than requests.
    MissingResult,
    /// An answer above every bound.
    Oversized,
    /// A chain of certificates that say nothing: 4 MiB in all, two bytes each on the wire.
    Amplified,
}

/// What is wrong with the bundle it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BundleLie {
    /// The bundle that proves this server.
    Honest,
    /// No authority.
    Empty,
    /// Another trust domain's.
    OtherTrustDomain,
    /// A leaf where an authority belongs.
    NotAnAuthority,
    /// Bytes that are no certificate.
    Garbage,
    /// 4 MiB of authorities that say nothing: two bytes each on the wire.
    Amplified,
}

/// What is wrong with the certificate it gives agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentLie {
    /// What a right server answers.
    Honest,
    /// It names a workload.
    NotAnAgent,
    /// It names the server.
    Server,
    /// For another key than the request's.
    OtherKey,
    /// A challenge that no join token can answer.
    Challenge,
    /// The conversation ends without a result.
    Silence,
    /// It is a server of before that field of the first message (`event_log`, `ima_log`), and refuses one that has it.
    KnowsNo(&'static str),
}

/// How it tells agents of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushPlay {
    /// It has no such method, as SPIRE has none.
    Absent,
    /// It holds streams, and tells what [`ScriptedServer::push`] says.
    Honest,
    /// It takes the call and says nothing.
    Mute,
    /// It refuses the call.
    Refused(tonic::Code),
    /// It ends each stream after the first word.
    Broken,
    /// It tells of changes as fast as it can.
    Flood,
    /// It tells what has changed at each [`ScriptedServer::push`], or lies about it.
    Deltas(DeltaLie),
}

/// The part a server plays; may be changed at any time.
#[derive(Debug)]
pub struct Script {
    /// Entries answered to the agent.
    pub entries: Vec<types::Entry>,
    /// Whether entries come in pages of revisions first.
    pub paged: bool,
    /// Whether the server knows SyncAuthorizedEntries.
    pub knows_sync: bool,
    /// Lies about workload SVIDs.
    pub svid: SvidLie,
    /// Lies about the bundle.
    pub bundle: BundleLie,
    /// What it answers about other trust domains, by the name that is asked for.
    pub federated: HashMap<String, types::Bundle>,
    /// What it refuses to answer that with.
    pub federated_refusal: Option<tonic::Code>,
    /// Lies about the agent's certificate.
    pub agent: AgentLie,
    /// What every authenticated call is refused with.
    pub denial: Option<Reason>,
    /// What attestation is refused with.
    pub attestation_denial: Option<Reason>,
    /// What attestation is refused with, without a word about the agent.
    pub attestation_refusal: Option<tonic::Code>,
    /// Whether agents are told that they may attest again.
    pub reattestable: bool,
    /// Lifetime of workload SVIDs, seconds.
    pub svid_ttl: i64,
    /// Lifetime of agent certificates, seconds.
    pub agent_ttl: i64,
    /// Whether its authority is marked tainted, and a second one signs.
    pub tainted: bool,
    /// By how much its clock is wrong, seconds: what it signs, and its own certificate, are dated by it.
    pub clock_error: i64,
    /// How it tells agents of changes.
    pub pushes: PushPlay,
    /// A thief's: it has the server's certificate and key, but its own authority signs, and is all of its bundle.
    pub stolen: bool,
    /// Its tokens, and the keys that sign them.
    pub jwt: JwtScript,
    /// What BatchNewWITSVID is refused with, by a server whose bundle has a key that signs WIT-SVIDs.
    pub wit_refusal: Option<tonic::Code>,
}

/// What the server was asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    /// AttestAgent.
    pub attestations: u32,
    /// RenewAgent.
    pub renewals: u32,
    /// GetBundle.
    pub bundles: u32,
    /// GetFederatedBundle.
    pub federated: u32,
    /// Entries, either way.
    pub syncs: u32,
    /// Whole entries asked for by ID.
    pub entries_by_id: u32,
    /// BatchNewX509SVID.
    pub batches: u32,
    /// NewJWTSVID.
    pub tokens: u32,
    /// BatchNewWITSVID.
    pub wits: u32,
    /// PostStatus.
    pub statuses: u32,
    /// WatchChanges.
    pub watches: u32,
    /// TLS handshakes that came to nothing.
    pub failed_handshakes: u32,
    /// Connections with a client certificate.
    pub mutual_connections: u32,
}

/// A running server; ends when dropped.
pub struct ScriptedServer {
    play: Arc<Play>,
    address: SocketAddr,
    spiffe_id: String,
    /// Its own runtime: when that ends, so does every connection.
    runtime: Option<Runtime>,
}

pub(crate) struct Play {
    pub(crate) ca: ToyCa,
    /// Signs when the first authority is tainted.
    pub(crate) second_ca: ToyCa,
    /// In no bundle.
    pub(crate) rogue: ToyCa,
    pub(crate) jwt: JwtKeys,
    pub(crate) script: Mutex<Script>,
    pub(crate) asked: Mutex<Asked>,
    /// The newest revision that it tells of.
    pub(crate) pushed: watch::Sender<i64>,
}

impl fmt::Debug for Play {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Play").finish_non_exhaustive()
    }
}

impl ScriptedServer {
    /// An honest server with one entry: processes of `unix:uid:1000` get `/workload`.
    pub fn start() -> Self {
        Self::start_as(&format!("spiffe://{TRUST_DOMAIN}/spire/server"), ToyCa::new(TRUST_DOMAIN))
    }

    /// As [`start`](Self::start), but the server proves to be `spiffe_id`, by `ca`.
    pub fn start_as(spiffe_id: &str, ca: ToyCa) -> Self {
        Self::start_with(SocketAddr::from(([127, 0, 0, 1], 0)), spiffe_id, ca)
    }

    /// As [`start`](Self::start), but at the address of a server that was stopped, by another authority.
    pub fn start_at(address: SocketAddr, ca: ToyCa) -> Self {
        Self::start_with(address, &format!("spiffe://{TRUST_DOMAIN}/spire/server"), ca)
    }

    fn start_with(address: SocketAddr, spiffe_id: &str, ca: ToyCa) -> Self {
        let script = Script {
            entries: vec![entry("workload", "/workload", 1)],
            paged: false,
            knows_sync: true,
            svid: SvidLie::Honest,
            bundle: BundleLie::Honest,
            federated: HashMap::new(),
            federated_refusal: None,
            agent: AgentLie::Honest,
            denial: None,
            attestation_denial: None,
            attestation_refusal: None,
            reattestable: false,
            svid_ttl: 3600,
            agent_ttl: 3600,
            tainted: false,
            clock_error: 0,
            pushes: PushPlay::Absent,
            stolen: false,
            jwt: JwtScript::default(),
            wit_refusal: None,
        };
        let play = Arc::new(Play {
            ca,
            second_ca: ToyCa::new(TRUST_DOMAIN),
            rogue: ToyCa::new(TRUST_DOMAIN),
            jwt: JwtKeys::generate(),
            script: Mutex::new(script),
            asked: Mutex::default(),
            pushed: watch::Sender::new(0),
        });
        let mut server = Self { play, address, spiffe_id: spiffe_id.to_owned(), runtime: None };
        server.start_again();
        server
    }

    /// Starts at the same address what [`stop`](Self::stop) ended.
    pub fn start_again(&mut self) {
        // A runtime that was told to end closes its sockets a moment later.
        let bind = || std::net::TcpListener::bind(self.address).ok();
        let listener = crate::deployment::wait_for(crate::deployment::DEADLINE, bind).expect("the port is free");
        listener.set_nonblocking(true).expect("non-blocking");
        self.address = listener.local_addr().expect("bound");
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        runtime.spawn(accept(listener, self.play.clone(), self.spiffe_id.clone()));
        self.runtime = Some(runtime);
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its authority, as an agent's image would hold it.
    pub fn bundle_pem(&self) -> String {
        self.play.ca.pem()
    }

    /// Changes the part it plays.
    pub fn play(&self, change: impl FnOnce(&mut Script)) {
        change(&mut lock(&self.play.script));
    }

    /// What it was asked so far.
    pub fn asked(&self) -> Asked {
        *lock(&self.play.asked)
    }

    /// Tells agents of one more change, over the streams that it holds.
    pub fn push(&self) {
        self.play.pushed.send_modify(|revision| *revision += 1);
    }

    /// Ends every connection and closes the port.
    pub fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for ScriptedServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// An entry for `unix:uid:1000`.
pub fn entry(id: &str, path: &str, revision_number: i64) -> types::Entry {
    types::Entry {
        id: id.to_owned(),
        spiffe_id: Some(types::Spiffeid { trust_domain: TRUST_DOMAIN.to_owned(), path: path.to_owned() }),
        selectors: vec![types::Selector { r#type: "unix".to_owned(), value: "uid:1000".to_owned() }],
        revision_number,
        created_at: 1,
        ..types::Entry::default()
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no test panics while it holds this")
}

async fn accept(listener: std::net::TcpListener, play: Arc<Play>, spiffe_id: String) {
    let listener = TcpListener::from_std(listener).expect("a listener of this runtime");
    let svid = SvidResolver::empty();
    let anchors = [play.ca.der().clone(), play.second_ca.der().clone()];
    let anchors = TrustAnchors::new(TrustDomain::new(TRUST_DOMAIN).expect("legal"), &anchors).expect("authorities");
    let acceptor = {
        let mut config =
            Arc::unwrap_or_clone(server_config(ClientTrust::new(anchors), svid.clone(), KeyExchanges::default()));
        config.time_provider = Arc::new(ServerClock(play.clone()));
        TlsAcceptor::from(Arc::new(config))
    };
    let (connections, incoming) = mpsc::channel::<std::io::Result<Connection>>(16);
    let services = Services(play.clone());
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(AgentServer::new(services.clone()))
            .add_service(BundleServer::new(services.clone()))
            .add_service(ChangeServer::new(services.clone()))
            .add_service(EntryServer::new(services.clone()))
            .add_service(SvidServer::new(services))
            .serve_with_incoming(ReceiverStream::new(incoming)),
    );
    while let Ok((tcp, address)) = listener.accept().await {
        // Anew for each connection: its clock may have been set.
        svid.replace(server_identity(&play, &spiffe_id));
        let (acceptor, play, connections) = (acceptor.clone(), play.clone(), connections.clone());
        tokio::spawn(async move {
            let dialled = tcp.local_addr().expect("a connection has two ends");
            let Ok(tls) = acceptor.accept(tcp).await else {
                lock(&play.asked).failed_handshakes += 1;
                return;
            };
            if tls.get_ref().1.peer_certificates().is_some() {
                lock(&play.asked).mutual_connections += 1;
            }
            // A server that is being stopped takes no more.
            let _ = connections.send(Ok(TlsConnection::new(tls, TlsPeer { address, dialled, svid: None }))).await;
        });
    }
}

/// The clock by which it judges agents' certificates.
#[derive(Debug)]
struct ServerClock(Arc<Play>);

impl TimeProvider for ServerClock {
    fn current_time(&self) -> Option<UnixTime> {
        let now = UnixTime::now().as_secs().saturating_add_signed(lock(&self.0.script).clock_error);
        Some(UnixTime::since_unix_epoch(Duration::from_secs(now)))
    }
}

fn server_identity(play: &Play, spiffe_id: &str) -> CertifiedKey {
    let (certificate, key) = play.ca.identity(&ToySvid::new(spiffe_id, 3600).moved(lock(&play.script).clock_error));
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    CertifiedKey::new(vec![certificate], provider().key_provider.load_private_key(der).expect("a key of our own"))
}

type Connection = TlsConnection<TlsStream<TcpStream>>;
