//! Channels to the server, anchored in the trust bundle: bootstrap (the server is proven, the agent not yet) and mutual.
//!
//! tonic dials again by itself when a connection ends (the server closes each after minutes); who calls decides when, with
//! [`crate::sync`]'s back-off. TLS, and with it every decision about trust, happens in the connector here.

mod bounded;
mod dial;
mod verifier;

use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use ironroot_api::tls::{KeyExchanges, ServerTrust, SvidResolver, TrustAnchors, client_config};
use ironroot_api::{SpiffeId, TrustDomain};
use rustls::ClientConfig;
use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;
use thiserror::Error;
use tonic::Status;
use tonic::transport::Endpoint;
use tracing::warn;

use crate::agent_key::{AgentKey, NotSigned};
use crate::server_answers::DerList;
use crate::trusted_time::TrustedTime;
pub use bounded::{Channel, MAX_ANSWER_BYTES};
use dial::Dial;
use verifier::ClockedTrust;
pub use verifier::{Doubt, ServerRefusal};

/// Longest wait for the answer to a unary RPC. Source: SPIRE's agent waits 30 s.
pub const RPC_DEADLINE: Duration = Duration::from_secs(30);

/// A server over whose connection a call is under way and that has been silent for so long is asked whether it is there, and has so long
/// to say so. A server that tells of changes is heard more often than that, so that nothing is sent only to ask; any call
/// has a deadline of its own.
const PING_AFTER: (Duration, Duration) = (Duration::from_secs(280), Duration::from_secs(20));

/// Why there is no connection. The last known identities go on being served.
#[derive(Debug, Error)]
pub enum ChannelError {
    /// Name resolution, TCP, TLS or HTTP/2 failed.
    #[error("cannot reach the server")]
    Connect(#[source] tonic::transport::Error),
    /// The chip or token that holds the agent's key did not sign in the handshake; the server is there.
    #[error("the agent's key cannot be used")]
    Key(#[source] NotSigned),
    /// Somebody answered who is not believed.
    #[error("the server is not believed")]
    Refused(#[source] ServerRefusal),
}

impl ChannelError {
    /// Whether the server's certificate has ended by this device's time, and nothing else is wrong with it.
    pub fn is_doubt(&self) -> bool {
        matches!(self, Self::Refused(ServerRefusal::InDoubt { .. }))
    }

    fn of(error: tonic::transport::Error) -> Self {
        match (behind::<ServerRefusal>(&error), behind::<NotSigned>(&error)) {
            (Some(refusal), _) => Self::Refused(refusal.clone()),
            (None, Some(not_signed)) => Self::Key(not_signed.clone()),
            (None, None) => Self::Connect(error),
        }
    }
}

/// What the connector refused with, behind a failed connection, if it is of that kind.
fn behind<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        let inside = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let found = error.downcast_ref().or_else(|| inside.and_then(|inside| inside.downcast_ref()));
        if found.is_some() {
            return found;
        }
        next = error.source();
    }
    None
}

/// Where the server is, and who it must be.
#[derive(Clone, Debug)]
pub struct Server {
    host: String,
    port: u16,
    id: SpiffeId,
    time: TrustedTime,
    exchanges: KeyExchanges,
}

impl Server {
    /// The server of `trust_domain` at `host` (a name or an address) and `port`.
    pub fn new(host: &str, port: u16, trust_domain: &TrustDomain, time: TrustedTime) -> Self {
        Self { host: host.to_owned(), port, id: trust_domain.server_id(), time, exchanges: KeyExchanges::default() }
    }

    /// The same, which is to agree on one of these key exchanges.
    pub fn agreeing_on(self, exchanges: KeyExchanges) -> Self {
        Self { exchanges, ..self }
    }

    /// Host and port, for people.
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// As they are configured.
    pub fn host_and_port(&self) -> (&str, u16) {
        (&self.host, self.port)
    }

    /// Which key exchanges it may agree on.
    pub fn exchanges(&self) -> KeyExchanges {
        self.exchanges
    }

    /// Dials without a client certificate; the server is proven by `anchors`.
    pub async fn bootstrap(&self, anchors: Arc<TrustAnchors>, doubt: Doubt) -> Result<Channel, ChannelError> {
        self.connect(self.trusting(anchors, doubt, SvidResolver::empty()), false).await
    }

    /// Dials a server that is believed without proof, because the operator configured it so and no bundle is known.
    pub async fn insecure_bootstrap(&self) -> Result<Channel, ChannelError> {
        warn!(
            server = %self.host,
            "insecure bootstrap: believing a server that nothing proves; whoever answers becomes this agent's authority"
        );
        let trust = ServerTrust::InsecureBootstrap { expected: self.id.clone() };
        self.connect(client_config(trust, SvidResolver::empty(), self.exchanges), false).await
    }

    /// Dials with a certificate (DER, leaf first), the agent's or that of an entry of its; the server is proven by `anchors`.
    pub async fn mutual(
        &self,
        anchors: Arc<TrustAnchors>,
        doubt: Doubt,
        chain: &DerList,
        key: &AgentKey,
    ) -> Result<Channel, ChannelError> {
        let resolver =
            SvidResolver::new(CertifiedKey::new(chain.iter().map(CertificateDer::into_owned).collect(), key.tls_key()));
        self.connect(self.trusting(anchors, doubt, resolver), key.is_in_hardware()).await
    }

    fn trusting(&self, anchors: Arc<TrustAnchors>, doubt: Doubt, svid: Arc<SvidResolver>) -> Arc<ClientConfig> {
        let configured = anchors.trust_domain().clone();
        let server = ServerTrust::Bundle { anchors, expected: self.id.clone() };
        client_config(ClockedTrust { server, configured, doubt, time: self.time.clone() }, svid, self.exchanges)
    }

    async fn connect(&self, config: Arc<ClientConfig>, key_blocks: bool) -> Result<Channel, ChannelError> {
        let dial = Dial { host: self.host.clone(), port: self.port, config, key_blocks };
        let connector = tower::service_fn(move |_: http::Uri| {
            let dial = dial.clone();
            async move { dial.run().await.map(TokioIo::new) }
        });
        // The scheme is http because TLS is the connector's; the authority is never resolved.
        let channel = Endpoint::from_static("http://spire-server")
            .user_agent(concat!("ironroot-agent/", env!("CARGO_PKG_VERSION")))
            .expect("a constant legal header")
            .http2_keep_alive_interval(PING_AFTER.0)
            .keep_alive_timeout(PING_AFTER.1)
            .connect_with_connector(connector)
            .await;
        channel.map(Channel::new).map_err(ChannelError::of)
    }
}

/// `answer`, or DeadlineExceeded.
pub async fn within<T>(deadline: Duration, answer: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    //= FLT-N2 network faults: "calls end at a deadline"
    let late = |_| Status::deadline_exceeded("the server did not answer in time");
    tokio::time::timeout(deadline, answer).await.map_err(late)?
}
