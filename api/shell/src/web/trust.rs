//! Who is believed as a server of the web's: who proves its name by an authority that this machine knows.

use std::sync::Arc;

use ironroot_api::tls::KeyExchanges;
use rustls::{ClientConfig, RootCertStore};

/// What both ends of HTTP over TLS call it.
pub const ALPN: &[u8] = b"http/1.1";

/// The authorities of this machine, or those of the file that `SSL_CERT_FILE` names; there may be none. Blocks: it reads files.
pub fn authorities() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

/// By the [`authorities`] of this machine; none if there are none. Blocks: it reads files.
pub fn client_config(exchanges: KeyExchanges) -> Option<Arc<ClientConfig>> {
    client_config_with(authorities(), exchanges)
}

/// By these authorities; none if there are none.
pub fn client_config_with(roots: RootCertStore, exchanges: KeyExchanges) -> Option<Arc<ClientConfig>> {
    if roots.is_empty() {
        return None;
    }
    let mut config = ClientConfig::builder_with_provider(exchanges.provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3 suites")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Some(Arc::new(config))
}
