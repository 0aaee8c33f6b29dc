//! Everything that is bound before anything is founded.

use std::net::SocketAddr;

use ironroot_api::unix_socket::SocketListener;
use ironroot_shell::health::HealthListener;
use tokio::net::TcpListener;

use super::RunError;
use super::web_proof::WebProof;
use crate::config::{
    BundleEndpointConfig, OidcConfig, OidcListener, OidcPolicy, ServerConfig, TokenExchangeConfig, WebIdentity,
};
use crate::endpoints::WebListener;
use crate::token_exchange::IssuerPolicy;
use crate::web_shown::WebShown;

/// Owner and group may open the admin socket.
const ADMIN_SOCKET_MODE: u32 = 0o770;

/// Sockets that are bound, and nobody is served on yet.
pub(super) struct Doors {
    pub(super) tcp: TcpListener,
    pub(super) address: SocketAddr,
    pub(super) admin: SocketListener,
    pub(super) health: Option<HealthListener>,
    pub(super) endpoint: Option<BoundEndpoint>,
    pub(super) discovery: Option<BoundDiscovery>,
    pub(super) exchange: Option<BoundExchange>,
}

impl Doors {
    /// Binds each that the configuration names.
    pub(super) async fn open(config: &ServerConfig) -> Result<Self, RunError> {
        let (tcp, address) = listen(config.bind_address).await?;
        Ok(Self {
            tcp,
            address,
            admin: SocketListener::bind(&config.socket_path, ADMIN_SOCKET_MODE)?,
            health: health_listener(config).await?,
            endpoint: bundle_endpoint(config).await?,
            discovery: discovery(config).await?,
            exchange: exchange(config).await?,
        })
    }
}

async fn listen(at: SocketAddr) -> Result<(TcpListener, SocketAddr), RunError> {
    let failed = |error| RunError::Listen(at, error);
    let tcp = ironroot_shell::listen::tcp(at).await.map_err(failed)?;
    let address = tcp.local_addr().map_err(failed)?;
    Ok((tcp, address))
}

async fn health_listener(config: &ServerConfig) -> Result<Option<HealthListener>, RunError> {
    let Some(checks) = config.health_checks.clone() else { return Ok(None) };
    HealthListener::bind(checks).await.map(Some).map_err(RunError::Health)
}

/// A bundle endpoint that is bound, and the web's certificate that it shows if it is not the server's own.
pub(super) type BoundEndpoint = (WebListener, BundleEndpointConfig, Option<WebProof>);

async fn bundle_endpoint(config: &ServerConfig) -> Result<Option<BoundEndpoint>, RunError> {
    let Some(endpoint) = config.federation.bundle_endpoint.clone() else { return Ok(None) };
    let certificate = match endpoint.identity.clone() {
        WebIdentity::Spiffe => None,
        WebIdentity::Web(certificate) => {
            Some(WebProof::load(certificate, (&config.data_dir, BUNDLE_ACME), config.key_exchanges).await?)
        }
    };
    let listener = WebListener::bind("bundle endpoint", endpoint.address, config.balancers.clone()).await;
    let listener = listener.map_err(|error| RunError::BundleEndpoint(endpoint.address, error))?;
    Ok(Some((listener, endpoint, certificate)))
}

impl Doors {
    /// What the listeners show of the web's certificates.
    pub(super) fn shown(&self) -> Vec<WebShown> {
        let bundle = self.endpoint.as_ref().and_then(|(_, _, proof)| proof.as_ref()).map(|proof| proof.shown("bundle"));
        let discovery =
            self.discovery.as_ref().and_then(|(_, _, proof)| proof.as_ref()).map(|proof| proof.shown("discovery"));
        let exchange = self.exchange.as_ref().map(|(_, _, proof)| proof.shown("token exchange"));
        [bundle, discovery, exchange].into_iter().flatten().collect()
    }
}

/// A discovery listener that is bound, and the web's certificate that it shows if it is not a unix socket.
pub(super) type BoundDiscovery = (WebListener, OidcPolicy, Option<WebProof>);

async fn discovery(config: &ServerConfig) -> Result<Option<BoundDiscovery>, RunError> {
    let Some(OidcConfig { listener, policy }) = config.oidc.clone() else { return Ok(None) };
    Ok(Some(match listener {
        OidcListener::Socket(path) => {
            (WebListener::bind_socket(DISCOVERY, &path).map_err(RunError::DiscoverySocket)?, policy, None)
        }
        OidcListener::Https(address, certificate) => {
            let certificate =
                WebProof::load(certificate, (&config.data_dir, DISCOVERY_ACME), config.key_exchanges).await?;
            let listener = WebListener::bind(DISCOVERY, address, config.balancers.clone()).await;
            (listener.map_err(|error| RunError::Discovery(address, error))?, policy, Some(certificate))
        }
    }))
}

/// A listener for tokens that is bound, whose tokens, and the web's certificate that it shows.
pub(super) type BoundExchange = (WebListener, Vec<IssuerPolicy>, WebProof);

async fn exchange(config: &ServerConfig) -> Result<Option<BoundExchange>, RunError> {
    let Some(TokenExchangeConfig { address, certificate, issuers }) = config.token_exchange.clone() else {
        return Ok(None);
    };
    let proof = WebProof::load(certificate, (&config.data_dir, EXCHANGE_ACME), config.key_exchanges).await?;
    let listener = WebListener::bind("token exchange", address, config.balancers.clone()).await;
    Ok(Some((listener.map_err(|error| RunError::TokenExchange(address, error))?, issuers, proof)))
}

const DISCOVERY: &str = "OIDC discovery";
/// Where below `data_dir` certificates of the web's are kept that a CA has issued. Source of the first: SPIRE.
const BUNDLE_ACME: &str = "bundle-acme";
const DISCOVERY_ACME: &str = "discovery-acme";
const EXCHANGE_ACME: &str = "exchange-acme";
