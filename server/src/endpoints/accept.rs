//! Accepting TLS connections: handshakes run beside the accept loop, bounded in number and time. That a peer's certificate
//! is still good is checked at each call, not here.

mod handshakes;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ironroot_api::tls::{TlsConnection, TlsPeer, TrustAnchors, VerifiedSvid};
use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use webpki::KeyUsage;

use handshakes::Handshakes;

/// A client that has not finished its handshake by then is dropped.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// Finished connections waiting for the HTTP/2 server; it takes them at once, so this only smooths bursts.
const ACCEPTED_QUEUE: usize = 64;

/// Connections as the HTTP/2 server takes them.
pub type Accepted = Result<TlsConnection<TlsStream<TcpStream>>, io::Error>;

/// Accepts on `listener` until the receiver is dropped.
pub fn accept(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    anchors: Arc<TrustAnchors>,
    now: fn() -> i64,
) -> mpsc::Receiver<Accepted> {
    let (accepted, receiver) = mpsc::channel(ACCEPTED_QUEUE);
    tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(config);
        let handshakes = Handshakes::default();
        loop {
            let (tcp, address) = tokio::select! {
                () = accepted.closed() => return,
                incoming = listener.accept() => match incoming {
                    Ok(incoming) => incoming,
                    Err(error) => {
                        // Out of file descriptors, or a client gone before accept: neither may end the server.
                        tracing::warn!(%error, "connection not accepted");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                },
            };
            let Some(slot) = handshakes.begin(address.ip()) else {
                tracing::info!(%address, "connection dropped: too many handshakes under way");
                continue;
            };
            let (acceptor, anchors, accepted) = (acceptor.clone(), anchors.clone(), accepted.clone());
            tokio::spawn(async move {
                let handshake =
                    tokio::time::timeout(HANDSHAKE_DEADLINE, shake(acceptor, anchors, tcp, address, now)).await;
                drop(slot);
                match handshake {
                    Ok(Ok(connection)) => drop(accepted.send(Ok(connection)).await),
                    Ok(Err(error)) => tracing::info!(%address, %error, "TLS handshake refused"),
                    Err(_) => tracing::info!(%address, "TLS handshake not finished in time"),
                }
            });
        }
    });
    receiver
}

async fn shake(
    acceptor: TlsAcceptor,
    anchors: Arc<TrustAnchors>,
    tcp: TcpStream,
    address: SocketAddr,
    now: fn() -> i64,
) -> io::Result<TlsConnection<TlsStream<TcpStream>>> {
    tcp.set_nodelay(true)?;
    let tls = acceptor.accept(tcp).await?;
    let svid = match tls.get_ref().1.peer_certificates() {
        Some([leaf, intermediates @ ..]) => Some(verified(&anchors, leaf, intermediates, now())?),
        _ => None,
    };
    Ok(TlsConnection::new(tls, TlsPeer { address, svid }))
}

/// The handshake's verifier has no way to hand out what it verified, so the same check is made once more for its value.
fn verified(
    anchors: &TrustAnchors,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    now_unix: i64,
) -> io::Result<VerifiedSvid> {
    anchors.verify(leaf, intermediates, KeyUsage::client_auth(), now_unix).map_err(io::Error::other)
}
