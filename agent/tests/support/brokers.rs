//! Brokers of a served agent: clients that prove themselves by mutual TLS.
#![allow(dead_code, reason = "each test file uses its part")]

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use ironroot_agent::endpoints::{BrokerSocketConfig, Brokers, ReferenceTypes};
use ironroot_agent::identities::Identity;
use ironroot_agent::trusted_time::system_unix;
use ironroot_api::pb::broker::api_client::ApiClient;
use ironroot_api::pb::broker::{WorkloadPidReference, WorkloadReference};
use ironroot_api::tls::{KeyExchanges, ServerTrust, SvidResolver, client_config};
use prost::Message;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::net::UnixStream;
use tokio_rustls::TlsConnector;
use tonic::Request;
use tonic::transport::{Channel, Endpoint, Error};
use tower::service_fn;

use crate::served::{Authority, Served, td, terms};

pub const PID_REFERENCE: &str = "type.googleapis.com/spiffe.broker.WorkloadPIDReference";
/// Whose processes the tests' workloads are.
pub const WORKLOAD: u32 = 61_001;

/// A served agent with a socket for brokers, and a certificate of its own.
pub struct Brokering {
    pub served: Served,
    pub certificate: Arc<SvidResolver>,
}

/// Every type of references that the agent understands, for `/broker`.
pub fn any_type() -> Brokers {
    [(td("td").id_with_path("/broker").expect("legal"), ReferenceTypes::Any)].into_iter().collect()
}

impl Brokering {
    pub fn with(brokers: Brokers) -> Self {
        let certificate = SvidResolver::empty();
        let shown = certificate.clone();
        let served = Served::with(|config| {
            let socket_path = socket(&config.socket_path);
            let key_exchanges = KeyExchanges::default();
            config.broker = Some(BrokerSocketConfig { socket_path, brokers, certificate: shown, key_exchanges });
        });
        certificate.replace(certified(&short_lived(&served.authority, "/spire/agent/test", 3600)));
        Self { served, certificate }
    }

    /// For `/broker`, with `/web` for processes of [`WORKLOAD`].
    pub fn new() -> Self {
        let this = Self::with(any_type());
        this.served.publish(vec![this.served.authority.issue("/web", WORKLOAD, 3600)]);
        this
    }

    pub fn socket(&self) -> PathBuf {
        socket(&self.served.socket())
    }

    /// A broker whose SVID is `path`'s, of the agent's own authority.
    pub async fn broker(&self, path: &str) -> Result<ApiClient<Channel>, Error> {
        let svid = short_lived(&self.served.authority, path, 3600);
        self.client(Some(&svid), &self.socket()).await
    }

    /// Whoever shows that, on `socket`, and knows the agent.
    pub async fn client(&self, svid: Option<&Identity>, socket: &Path) -> Result<ApiClient<Channel>, Error> {
        let resolver = svid.map_or_else(SvidResolver::empty, |svid| SvidResolver::new(certified(svid)));
        let expected = td("td").id_with_path("/spire/agent/test").expect("legal");
        let server = ServerTrust::Bundle { anchors: self.served.authority.bundle().anchors().clone(), expected };
        let connector = TlsConnector::from(client_config(server, resolver, KeyExchanges::default()));
        let socket = socket.to_owned();
        let connect = service_fn(move |_| {
            let (connector, socket) = (connector.clone(), socket.clone());
            async move {
                let stream = UnixStream::connect(socket).await?;
                let name = ServerName::try_from("agent").expect("legal");
                connector.connect(name, stream).await.map(TokioIo::new)
            }
        });
        let endpoint = Endpoint::from_static("http://localhost");
        endpoint.connect_with_connector(connect).await.map(ApiClient::new)
    }
}

fn socket(workloads: &Path) -> PathBuf {
    workloads.parent().expect("public").with_file_name("brokers").join("broker.sock")
}

/// An SVID of `path` that is good by this machine's clock, for `seconds`.
pub fn short_lived(authority: &Authority, path: &str, seconds: i64) -> Arc<Identity> {
    let now = system_unix();
    authority.issue_for(terms(path, &[]), now - 60..now + seconds)
}

fn certified(identity: &Identity) -> CertifiedKey {
    let chain = identity.svid().chain().iter().map(CertificateDer::into_owned).collect();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(&identity.key().pkcs8_der()[..]));
    CertifiedKey::new(chain, rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&key).expect("P-256"))
}

/// A request with the brokers' header.
pub fn asking<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("broker.spiffe.io", "true".parse().expect("ASCII"));
    request
}

pub fn reference(type_url: &str, value: Vec<u8>) -> Option<WorkloadReference> {
    Some(WorkloadReference { reference: Some(prost_types::Any { type_url: type_url.to_owned(), value }) })
}

pub fn of_pid(pid: i32) -> Option<WorkloadReference> {
    reference(PID_REFERENCE, WorkloadPidReference { pid }.encode_to_vec())
}

/// A process that sleeps, killed on drop.
pub struct Sleeper(Child);

impl Sleeper {
    /// Of `uid`.
    pub fn start(uid: u32) -> Self {
        Self::of(Command::new("sleep").arg("60").uid(uid).gid(uid))
    }

    pub fn of(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().expect("starts"))
    }

    /// One of `uid` whose number is `pid`, which must be free.
    pub fn with_number(pid: i32, uid: u32) -> Self {
        for _ in 0..10_000 {
            // The next number that is given is the one after it, unless somebody is quicker.
            std::fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).expect("root may");
            let sleeper = Self::start(uid);
            if sleeper.pid() == pid {
                return sleeper;
            }
        }
        panic!("the number {pid} was never given");
    }

    pub fn pid(&self) -> i32 {
        self.0.id() as i32
    }

    pub fn end(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).expect("ends");
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = (self.0.kill(), self.0.wait());
    }
}
