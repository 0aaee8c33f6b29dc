//! TLS of the metrics' listener: its files are looked at when somebody connects, so that no timer wakes a device for them.

use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use ironroot_api::tls::{KeyExchanges, SvidResolver, web_server_config};
use ironroot_text::{FileError, HumanFile};
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::MetricsTls;
use crate::serving_certificate::{ServingCertificate, ServingCertificateError};

/// Largest file with CAs of clients, bytes.
const MAX_CA_BYTES: usize = 256 * 1024;

/// Why the files cannot be used. Each message names the file.
#[derive(Debug, Error)]
pub enum ListenerTlsError {
    /// The certificate or its key.
    #[error(transparent)]
    Certificate(#[from] ServingCertificateError),
    /// The CAs of clients cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// They are none.
    #[error("{} holds no certificate of a CA in PEM", .0.display())]
    NoCa(PathBuf, #[source] Option<VerifierBuilderError>),
    /// The process ends.
    #[error("the files could not be read")]
    Ended,
}

/// What is shown to whoever connects.
#[derive(Debug)]
pub(super) struct ListenerTls {
    tls: MetricsTls,
    shown: Mutex<Shown>,
}

#[derive(Debug)]
struct Shown {
    looked: Instant,
    certificate: ServingCertificate,
    /// The CAs' file as it was tried last, good or bad: the same is not tried twice.
    tried: Option<String>,
    config: Arc<ServerConfig>,
}

impl ListenerTls {
    /// Reads the files.
    pub async fn load(tls: MetricsTls) -> Result<Arc<Self>, ListenerTlsError> {
        let load = move || {
            let certificate = ServingCertificate::load(tls.files.clone())?;
            let tried = tls.client_ca.as_ref().map(|_| tls.read_ca()).transpose()?;
            let config = tls.config(certificate.resolver(), tried.as_deref())?;
            let shown = Shown { looked: Instant::now(), certificate, tried, config };
            Ok(Arc::new(Self { tls, shown: Mutex::new(shown) }))
        };
        tokio::task::spawn_blocking(load).await.unwrap_or(Err(ListenerTlsError::Ended))
    }

    /// The connection, once whoever is there has shown what it must.
    pub async fn shake(self: Arc<Self>, tcp: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let config = tokio::task::spawn_blocking(move || self.config(Instant::now())).await;
        TlsAcceptor::from(config.map_err(io::Error::other)?).accept(tcp).await
    }

    fn config(&self, now: Instant) -> Arc<ServerConfig> {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(shown.looked) >= self.tls.files.sync_interval {
            shown.looked = now;
            shown.certificate.look();
            shown.look_at_ca(&self.tls);
        }
        Arc::clone(&shown.config)
    }
}

impl Shown {
    /// A new file counts if it is good; a bad one changes nothing.
    fn look_at_ca(&mut self, tls: &MetricsTls) {
        if tls.client_ca.is_none() {
            return;
        }
        let found = tls.read_ca();
        let text = found.as_ref().ok().cloned();
        if text == self.tried {
            return;
        }
        self.tried = text;
        match found.map_err(Into::into).and_then(|text| tls.config(self.certificate.resolver(), Some(&text))) {
            Ok(config) => {
                self.config = config;
                tracing::info!("CAs of whoever may read metrics replaced");
            }
            Err(error) => tracing::error!(
                error = &error as &dyn StdError,
                "the new CAs of whoever may read metrics cannot be used; those from before stay"
            ),
        }
    }
}

impl MetricsTls {
    fn read_ca(&self) -> Result<String, FileError> {
        let path = self.client_ca.clone().unwrap_or_default();
        Ok(HumanFile::regular(&path, MAX_CA_BYTES)?.into_text())
    }

    /// `clients`: the PEM text of the CAs that a client's certificate must lead to; none asks nobody.
    fn config(
        &self,
        certificate: Arc<SvidResolver>,
        clients: Option<&str>,
    ) -> Result<Arc<ServerConfig>, ListenerTlsError> {
        let Some(clients) = clients else { return Ok(web_server_config(certificate, self.key_exchanges)) };
        let no_ca = |source| ListenerTlsError::NoCa(self.client_ca.clone().unwrap_or_default(), source);
        let mut roots = RootCertStore::empty();
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(clients.as_bytes()).flatten().collect();
        if roots.add_parsable_certificates(certificates).0 == 0 {
            return Err(no_ca(None));
        }
        mutual(certificate, roots, self.key_exchanges).map_err(|error| no_ca(Some(error)))
    }
}

fn mutual(
    certificate: Arc<SvidResolver>,
    roots: RootCertStore,
    exchanges: KeyExchanges,
) -> Result<Arc<ServerConfig>, VerifierBuilderError> {
    let provider = exchanges.provider();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3 suites")
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}
