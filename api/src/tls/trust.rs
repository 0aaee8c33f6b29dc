//! Whom a server and a client believe.

use std::sync::Arc;

use rustls::{CertificateError as TlsCertificateError, Error, OtherError};
use rustls_pki_types::CertificateDer;
use webpki::KeyUsage;

use super::anchors::{SvidRefusal, TrustAnchors};
use super::verifier::Judge;
use crate::certificate::Certificate;
use crate::spiffe_id::SpiffeId;

/// How the dialled server is to be proven.
#[derive(Clone, Debug)]
pub enum ServerTrust {
    /// By the trust bundle: an X509-SVID of the trust domain with exactly this ID.
    Bundle {
        /// Replaced behind this handle when the bundle changes; the next handshake sees it.
        anchors: Arc<TrustAnchors>,
        /// The ID the server must have.
        expected: SpiffeId,
    },
    /// Not at all but by name: the first contact of a device that was given no bundle and was told to accept that.
    InsecureBootstrap {
        /// The ID the server must claim.
        expected: SpiffeId,
    },
}

impl ServerTrust {
    /// Whether the server that shows `leaf` over `others` is the expected one at `now_unix`.
    pub fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now_unix: i64,
    ) -> Result<(), SvidRefusal> {
        let (found, expected) = match self {
            Self::Bundle { anchors, expected } => {
                let verified = anchors.verify(leaf, others, KeyUsage::server_auth(), now_unix)?;
                (verified.spiffe_id().clone(), expected)
            }
            Self::InsecureBootstrap { expected } => (Certificate::parse(leaf)?.leaf_spiffe_id()?, expected),
        };
        if found == *expected {
            return Ok(());
        }
        Err(SvidRefusal::OtherId { found, expected: expected.clone() })
    }
}

impl Judge for ServerTrust {
    fn judge(&self, leaf: &CertificateDer<'_>, others: &[CertificateDer<'_>], now_unix: i64) -> Result<(), Error> {
        self.verify(leaf, others, now_unix).map_err(tls_error)
    }
}

/// Clients with an X509-SVID of the trust domain.
#[derive(Debug)]
pub(super) struct ClientTrust(pub(super) Arc<TrustAnchors>);

impl Judge for ClientTrust {
    fn judge(&self, leaf: &CertificateDer<'_>, others: &[CertificateDer<'_>], now_unix: i64) -> Result<(), Error> {
        self.0.verify(leaf, others, KeyUsage::client_auth(), now_unix).map(drop).map_err(tls_error)
    }
}

/// The refusal as rustls reports it, with the alert that fits.
fn tls_error(refusal: SvidRefusal) -> Error {
    Error::InvalidCertificate(match refusal {
        SvidRefusal::UnknownAuthority(_) => TlsCertificateError::UnknownIssuer,
        SvidRefusal::Expired => TlsCertificateError::Expired,
        SvidRefusal::NotYetValid => TlsCertificateError::NotValidYet,
        other => TlsCertificateError::Other(OtherError(Arc::new(other))),
    })
}
