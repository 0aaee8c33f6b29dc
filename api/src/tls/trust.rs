//! Whom a server and a client believe.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::{CertificateError as TlsCertificateError, Error, OtherError};
use rustls_pki_types::CertificateDer;
use webpki::KeyUsage;

use super::anchors::{SvidRefusal, TrustAnchors, VerifiedSvid};
use super::verifier::Judge;
use crate::certificate::{Certificate, CertificateError};
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
            //= FLT-N1 network faults: "whoever cannot prove to be the server by the bundle is told nothing"
            Self::Bundle { anchors, expected } => {
                let verified = anchors.verify(leaf, others, KeyUsage::server_auth(), now_unix)?;
                (verified.spiffe_id().clone(), expected)
            }
            Self::InsecureBootstrap { expected } => (Certificate::parse(leaf)?.leaf_spiffe_id()?, expected),
        };
        //= FLT-N3 network faults: "only the server's own ID is the server"
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

/// Clients verified in handshakes that nobody has asked for: as many as there may be handshakes at once. Each is about 1 kB. Past
/// it all are forgotten.
const MAX_VERIFIED: usize = 2048;

/// Clients with an X509-SVID of the trust domain; and whom a handshake has verified, for who goes on with the connection: nobody
/// has to verify the chain again.
#[derive(Debug)]
pub struct ClientTrust {
    anchors: Arc<TrustAnchors>,
    /// By the leaf's DER.
    verified: Mutex<HashMap<Vec<u8>, VerifiedSvid>>,
}

impl ClientTrust {
    /// Trusts SVIDs that lead to `anchors`, and remembers nobody yet.
    pub fn new(anchors: Arc<TrustAnchors>) -> Arc<Self> {
        Arc::new(Self { anchors, verified: Mutex::default() })
    }

    /// The SVID of a client whose handshake is over; `chain` as it showed it, leaf first. What its handshake found, or, if that was
    /// forgotten or another connection with the same certificate took it, what is found now.
    pub fn svid(&self, chain: &[CertificateDer<'_>], now_unix: i64) -> Result<VerifiedSvid, SvidRefusal> {
        let Some((leaf, others)) = chain.split_first() else {
            return Err(SvidRefusal::Leaf(CertificateError::Malformed));
        };
        match self.verified().remove(leaf.as_ref()) {
            Some(svid) => Ok(svid),
            None => self.anchors.verify(leaf, others, KeyUsage::client_auth(), now_unix),
        }
    }

    fn verified(&self) -> MutexGuard<'_, HashMap<Vec<u8>, VerifiedSvid>> {
        // Plain values: a panic leaves the map whole.
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Judge for Arc<ClientTrust> {
    fn judge(&self, leaf: &CertificateDer<'_>, others: &[CertificateDer<'_>], now_unix: i64) -> Result<(), Error> {
        let svid = self.anchors.verify(leaf, others, KeyUsage::client_auth(), now_unix).map_err(tls_error)?;
        let mut verified = self.verified();
        if verified.len() >= MAX_VERIFIED {
            verified.clear();
        }
        verified.insert(leaf.to_vec(), svid);
        Ok(())
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
