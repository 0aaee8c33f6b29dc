//! The certificate a side shows, replaced on rotation: new connections get the new one, old ones live on.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;

/// Holds the current chain and key; empty means none is shown (a server then fails every handshake).
#[derive(Debug, Default)]
pub struct SvidResolver(ArcSwapOption<CertifiedKey>);

impl SvidResolver {
    /// Starts with a certificate.
    pub fn new(certified: CertifiedKey) -> Arc<Self> {
        Arc::new(Self(ArcSwapOption::from_pointee(certified)))
    }

    /// Starts without one.
    pub fn empty() -> Arc<Self> {
        Arc::default()
    }

    /// From now on this certificate is shown.
    pub fn replace(&self, certified: CertifiedKey) {
        self.0.store(Some(Arc::new(certified)));
    }

    /// The certificates that are shown, leaf first; none if none is.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.0.load().as_ref().map(|certified| certified.cert.clone()).unwrap_or_default()
    }
}

impl ResolvesServerCert for SvidResolver {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load_full()
    }
}

impl ResolvesClientCert for SvidResolver {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.load_full()
    }

    fn has_certs(&self) -> bool {
        self.0.load().is_some()
    }
}
