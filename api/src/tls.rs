//! SPIFFE mutual TLS on rustls: TLS 1.3, `h2`, no session resumption (a resumed client is not verified again), and peers
//! judged by the one SPIFFE ID in their certificate against the authorities of its trust domain.
//!
//! ```text
//!  TrustAnchors ◄── replaced on bundle change          SvidResolver ◄── replaced on rotation
//!      │                                                    │
//!  Judge of servers (agent dials)   Judge of clients (server accepts)   ──► VerifiedSvid: ID, serial, expiry
//!      └──────────── SvidVerifier: the handshake's signature ─────────┘
//! ```

mod anchors;
mod config;
mod key_exchange;
mod peer;
mod resolver;
mod trust;
mod verifier;

pub use anchors::{AuthorityMark, BundleEnd, MAX_CHAIN, SvidRefusal, TrustAnchors, VerifiedSvid};
pub use config::{
    ACME_TLS_ALPN, KeyExchanges, client_config, client_config_for, provider, server_config, server_config_for,
    web_client_config, web_server_config, web_server_config_for,
};
pub use key_exchange::key_exchange;
pub use peer::TlsPeer;
pub use resolver::SvidResolver;
pub use trust::{ClientTrust, ServerTrust};
pub use verifier::Judge;
