//! Certificates of the web's that the server itself has from an ACME CA, for the bundle endpoint and OIDC discovery.
//!
//! ```text
//!  Folder (account key, certificates) ─► Doorman ◄── TLS asks by name: the certificate, or what the CA wants to see (TLS-ALPN-01)
//!                                          ▲
//!  Keeper: when? (pace) ─► account ─► order ─► the CA's answer, judged ─► shown, kept
//! ```
//! What was issued is shown until there is better: a CA that is away, refuses or lies costs a line in the log and a pause. Nothing
//! is shown to who asks by another name, or by none. Source: RFC 8555, RFC 8737; keys of the configuration are SPIRE's.

mod account;
mod certificate;
mod courier;
mod doorman;
mod error;
mod folder;
mod keeper;
mod order;
mod pace;

pub use certificate::CertificateRefusal;
pub use courier::CourierError;
pub(crate) use doorman::Doorman;
pub use error::AcmeError;
pub use folder::FolderError;
pub use keeper::Keeper;
