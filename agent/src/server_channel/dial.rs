//! TCP, then TLS. A chip-held key signs on the calling thread, so that handshake runs on a blocking one.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use ironroot_api::tls::key_exchange;
use ironroot_shell::dial;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::{TcpStream, lookup_host};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Longest wait for name resolution, and for TCP to any of the addresses.
const TCP_DEADLINE: Duration = Duration::from_secs(10);
/// Longest wait for a handshake. A slow chip signs within a second; a satellite link takes two for each round trip.
const TLS_DEADLINE: Duration = Duration::from_secs(20);

#[derive(Clone)]
pub(super) struct Dial {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) config: Arc<ClientConfig>,
    /// The client key's signature blocks the thread that asks for it.
    pub(super) key_blocks: bool,
}

impl Dial {
    pub(super) async fn run(self) -> io::Result<TlsStream<TcpStream>> {
        let tcp = self.tcp().await?;
        tcp.set_nodelay(true)?;
        let connector = TlsConnector::from(self.config);
        // Not sent (no SNI) and not checked: the server is known by its SPIFFE ID.
        let name = ServerName::try_from("spire-server").expect("a constant legal name");
        let handshake = async move {
            let tls = timeout(TLS_DEADLINE, connector.connect(name, tcp)).await?.map_err(super::verifier::plain)?;
            tracing::debug!(key_exchange = ?key_exchange(tls.get_ref().1), "connected to the server");
            Ok(tls)
        };
        if !self.key_blocks {
            return handshake.await;
        }
        let runtime = Handle::current();
        let blocking = spawn_blocking(move || runtime.block_on(handshake));
        blocking.await.unwrap_or_else(|_| Err(io::Error::other("handshake panicked")))
    }

    async fn tcp(&self) -> io::Result<TcpStream> {
        let addresses = timeout(TCP_DEADLINE, lookup_host((self.host.as_str(), self.port))).await??;
        timeout(TCP_DEADLINE, dial::first_of(addresses)).await?
    }
}
