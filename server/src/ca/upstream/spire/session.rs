//! A connection to the server above: TLS with this server's SVID, to exactly the server's own ID.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use ironroot_api::TrustDomain;
use ironroot_api::pb::bundle::bundle_client::BundleClient;
use ironroot_api::pb::svid::svid_client::SvidClient;
use ironroot_api::tls::{ServerTrust, client_config, key_exchange};
use ironroot_shell::clock::wall_unix;
use ironroot_shell::dial;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};
use tracing::debug;

use super::SpireServer;
use super::error::SpireError;
use super::identity::Identity;

/// Largest answer that is read, bytes: the roots and keys of a trust domain, at most.
const MAX_ANSWER_BYTES: usize = 512 * 1024;
/// An idle connection is asked for a sign of life after this time, and is gone without one in the other.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(20));

/// See the module. Clones share the connection.
#[derive(Clone)]
pub(super) struct Session {
    channel: Channel,
    /// When it is to be begun anew, with the SVID of then, UNIX seconds.
    until_unix: i64,
}

impl Session {
    pub(super) async fn begin(server: &SpireServer, trust_domain: &TrustDomain) -> Result<Self, SpireError> {
        let identity = Identity::fetch(&server.workload_api_socket, trust_domain).await?;
        let until_unix = wall_unix().midpoint(identity.not_after_unix);
        let trust = ServerTrust::Bundle { anchors: identity.anchors, expected: trust_domain.server_id() };
        let config = client_config(trust, identity.resolver, server.key_exchanges);
        let address = (server.host.clone(), server.port);
        let connector = tower::service_fn(move |_: Uri| {
            let (address, config) = (address.clone(), config.clone());
            async move { dial(address, config).await.map(TokioIo::new) }
        });
        // The scheme is http because TLS is the connector's; the authority is never resolved.
        let channel = Endpoint::from_static("http://spire-server")
            .http2_keep_alive_interval(KEEPALIVE.0)
            .keep_alive_timeout(KEEPALIVE.1)
            .connect_with_connector(connector)
            .await;
        let unreachable = |error| SpireError::Connect(format!("{}:{}", server.host, server.port), error);
        Ok(Self { channel: channel.map_err(unreachable)?, until_unix })
    }

    pub(super) fn is_fresh(&self, now_unix: i64) -> bool {
        now_unix < self.until_unix
    }

    pub(super) fn svids(&self) -> SvidClient<Channel> {
        SvidClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    pub(super) fn bundles(&self) -> BundleClient<Channel> {
        BundleClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }
}

async fn dial(address: (String, u16), config: Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let tcp = dial::tcp(&address.0, address.1).await?;
    tcp.set_nodelay(true)?;
    // Not sent (no SNI) and not checked: the server is known by its SPIFFE ID.
    let name = ServerName::try_from("spire-server").expect("a constant legal name");
    let tls = TlsConnector::from(config).connect(name, tcp).await?;
    debug!(host = address.0, port = address.1, key_exchange = ?key_exchange(tls.get_ref().1), "connected to the upstream server");
    Ok(tls)
}
