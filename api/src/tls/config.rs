//! The two TLS configurations of this project. One crypto provider, passed explicitly.

use std::sync::{Arc, LazyLock};

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::server::{NoServerSessionStorage, ResolvesServerCert};
use rustls::version::TLS13;
use rustls::{CipherSuite, ClientConfig, NamedGroup, ServerConfig};

use super::resolver::SvidResolver;
use super::trust::ClientTrust;
use super::verifier::{Judge, SvidVerifier};

/// The one crypto provider: aws-lc-rs.
pub fn provider() -> Arc<CryptoProvider> {
    KeyExchanges::HybridFirst.provider()
}

/// Which key exchanges a link of ours may agree on. Whoever makes a TLS configuration says so: what an operator asks for holds for every
/// listener and every client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyExchanges {
    /// The hybrid of X25519 and ML-KEM-768 with peers that know it, with others what they know.
    #[default]
    HybridFirst,
    /// The hybrid, or no link.
    HybridOnly,
}

impl KeyExchanges {
    /// The one crypto provider, which agrees on these.
    pub fn provider(self) -> Arc<CryptoProvider> {
        static FIRST: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(made()));
        static ONLY: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
            let mut provider = made();
            provider.kx_groups.retain(|group| group.name() == NamedGroup::X25519MLKEM768);
            Arc::new(provider)
        });
        match self {
            Self::HybridFirst => FIRST.clone(),
            Self::HybridOnly => ONLY.clone(),
        }
    }
}

/// What a configuration says with `require_pq_kem`.
impl From<bool> for KeyExchanges {
    fn from(only_hybrid: bool) -> Self {
        if only_hybrid { Self::HybridOnly } else { Self::HybridFirst }
    }
}

/// AES-128 first: its key schedule takes SHA-256, which CPUs do in hardware; SHA-384 costs 25 to 40 µs more a handshake. The hybrid of
/// X25519 and ML-KEM-768 first: what is recorded today is not read by tomorrow's quantum computers. Peers without it get the next.
fn made() -> CryptoProvider {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.kx_groups.sort_by_key(|group| group.name() != NamedGroup::X25519MLKEM768);
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider
}

/// Accepts clients with or without an X509-SVID of the trust domain; shows what `svid` holds.
pub fn server_config(clients: Arc<ClientTrust>, svid: Arc<SvidResolver>, exchanges: KeyExchanges) -> Arc<ServerConfig> {
    server_config_for(clients, svid, exchanges)
}

/// The same for any judge of clients that bring a certificate, and any choice of certificates.
pub fn server_config_for(
    clients: impl Judge,
    svid: Arc<dyn ResolvesServerCert>,
    exchanges: KeyExchanges,
) -> Arc<ServerConfig> {
    let provider = exchanges.provider();
    let verifier = Arc::new(SvidVerifier { judge: clients, provider: provider.clone() });
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3 suites")
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(svid);
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    //= FLT-S14 server faults: "there is none to resume"
    config.send_tls13_tickets = 0;
    Arc::new(config)
}

/// What a CA that looks whether a name is ours offers to speak, and nothing else. Source: RFC 8737 §6.2.
pub const ACME_TLS_ALPN: &[u8] = b"acme-tls/1";

/// For a web server that asks nobody for a certificate, over HTTP/1.1; shows what `certificate` holds.
pub fn web_server_config(certificate: Arc<SvidResolver>, exchanges: KeyExchanges) -> Arc<ServerConfig> {
    web_server_config_for(certificate, &[b"http/1.1"], exchanges)
}

/// The same for any choice of certificates, to speak one of `protocols`.
pub fn web_server_config_for(
    certificates: Arc<dyn ResolvesServerCert>,
    protocols: &[&[u8]],
    exchanges: KeyExchanges,
) -> Arc<ServerConfig> {
    //= FED-09 SPIFFE Federation 5.2.1.3: "servers MUST NOT require client authentication to access the bundle endpoint"
    let mut config = ServerConfig::builder_with_provider(exchanges.provider())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3 suites")
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Arc::new(config)
}

/// Dials a server that `judge` accepts; shows what `svid` holds, if anything.
pub fn client_config(judge: impl Judge, svid: Arc<SvidResolver>, exchanges: KeyExchanges) -> Arc<ClientConfig> {
    client_config_for(judge, svid, b"h2", exchanges)
}

/// The same, to speak `protocol`.
pub fn client_config_for(
    judge: impl Judge,
    svid: Arc<SvidResolver>,
    protocol: &[u8],
    exchanges: KeyExchanges,
) -> Arc<ClientConfig> {
    Arc::new(judging(judge, svid, protocol, exchanges))
}

/// Dials a server of the web's, which is told the name that it is asked by and has to prove it to `judge`; shows nothing.
pub fn web_client_config(judge: impl Judge, protocol: &[u8], exchanges: KeyExchanges) -> Arc<ClientConfig> {
    let mut config = judging(judge, SvidResolver::empty(), protocol, exchanges);
    config.enable_sni = true;
    Arc::new(config)
}

fn judging(judge: impl Judge, svid: Arc<SvidResolver>, protocol: &[u8], exchanges: KeyExchanges) -> ClientConfig {
    let provider = exchanges.provider();
    let verifier = Arc::new(SvidVerifier { judge, provider: provider.clone() });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3 suites")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(svid);
    config.alpn_protocols = vec![protocol.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suite_with_a_hash_in_hardware_comes_first_and_no_suite_is_lost() {
        let ours: Vec<_> = provider().cipher_suites.iter().map(|suite| suite.suite()).collect();
        let theirs = rustls::crypto::aws_lc_rs::default_provider().cipher_suites;
        assert_eq!(ours[0], CipherSuite::TLS13_AES_128_GCM_SHA256);
        assert!(ours.len() == theirs.len() && theirs.iter().all(|suite| ours.contains(&suite.suite())));
    }
}
