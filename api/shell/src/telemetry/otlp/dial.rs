//! The way to the collector. The file with its CAs is read at each dialling, so that a new one counts.

use std::io;
use std::path::Path;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use ironroot_api::tls::KeyExchanges;
use ironroot_text::{FileError, HumanFile};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use thiserror::Error;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::{Collector, Otlp};

/// Largest file with CAs, bytes: the whole web's have 250 kB.
const MAX_CA_BYTES: usize = 1024 * 1024;

/// Why there is no way to the collector.
#[derive(Debug, Error)]
pub(super) enum DialError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{0} holds no certificate of a CA in PEM")]
    NoCa(String),
    #[error("{0} is no name that a certificate can have")]
    Name(String),
    #[error("cannot connect")]
    Connect(#[source] tonic::transport::Error),
}

/// A channel, connected.
pub(super) async fn dial(otlp: &Otlp) -> Result<Channel, DialError> {
    // The address is never resolved: the connectors know where to go.
    let endpoint =
        Endpoint::from_static("http://collector").user_agent(concat!("ironroot/", env!("CARGO_PKG_VERSION")));
    let endpoint = endpoint.expect("a constant legal header");
    let connected = match otlp.collector.clone() {
        Collector::Plain { host, port } => {
            endpoint.connect_with_connector(service_fn(move |_| plain(host.clone(), port))).await
        }
        Collector::Tls { host, port, ca_file } => {
            let name = ServerName::try_from(host.clone()).map_err(|_| DialError::Name(host.clone()))?;
            let tls = TlsConnector::from(trusting(&ca_file, otlp.key_exchanges).await?);
            let connector = service_fn(move |_| secured(host.clone(), port, tls.clone(), name.clone()));
            endpoint.connect_with_connector(connector).await
        }
        Collector::Socket(path) => {
            let connector = service_fn(move |_| {
                let path = path.clone();
                async move { UnixStream::connect(path).await.map(TokioIo::new) }
            });
            endpoint.connect_with_connector(connector).await
        }
    };
    connected.map_err(DialError::Connect)
}

async fn plain(host: String, port: u16) -> io::Result<TokioIo<TcpStream>> {
    crate::dial::tcp(&host, port).await.map(TokioIo::new)
}

async fn secured(
    host: String,
    port: u16,
    tls: TlsConnector,
    name: ServerName<'static>,
) -> io::Result<TokioIo<tokio_rustls::client::TlsStream<TcpStream>>> {
    let tcp = crate::dial::tcp(&host, port).await?;
    tls.connect(name, tcp).await.map(TokioIo::new)
}

async fn trusting(ca_file: &Path, exchanges: KeyExchanges) -> Result<Arc<ClientConfig>, DialError> {
    let (path, shown) = (ca_file.to_owned(), ca_file.display().to_string());
    let read = tokio::task::spawn_blocking(move || HumanFile::regular(&path, MAX_CA_BYTES)).await;
    let text = read.map_err(|_| DialError::NoCa(shown.clone()))??.into_text();
    let mut roots = RootCertStore::empty();
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(text.as_bytes()).flatten().collect();
    let (taken, _) = roots.add_parsable_certificates(certificates);
    if taken == 0 {
        return Err(DialError::NoCa(shown));
    }
    let provider = exchanges.provider();
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
    let verifier = verifier.map_err(|_| DialError::NoCa(shown))?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3 suites")
        .with_webpki_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}
