//! rustls verifiers over [`TrustAnchors`].

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError as TlsCertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::KeyUsage;

use super::anchors::{SvidRefusal, TrustAnchors};
use crate::certificate::Certificate;
use crate::spiffe_id::SpiffeId;

/// How the dialled server is to be proven.
#[derive(Clone, Debug)]
pub enum ServerTrust {
    /// By the trust bundle: an X509-SVID of the trust domain with exactly this ID.
    Bundle {
        /// The authorities.
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

#[derive(Debug)]
pub(super) struct ServerVerifier {
    pub(super) trust: ServerTrust,
    pub(super) provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let (found, expected) = match &self.trust {
            ServerTrust::Bundle { anchors, expected } => {
                let verified =
                    anchors.verify(leaf, intermediates, KeyUsage::server_auth(), unix(now)).map_err(tls_error)?;
                (verified.spiffe_id().clone(), expected)
            }
            ServerTrust::InsecureBootstrap { expected } => {
                let id = Certificate::parse(leaf).and_then(|c| c.leaf_spiffe_id());
                (id.map_err(|e| tls_error(e.into()))?, expected)
            }
        };
        if found != *expected {
            return Err(tls_error(SvidRefusal::OtherId { found, expected: expected.clone() }));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Accepts connections without a certificate (each RPC decides) and verifies those that bring one.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    pub(super) anchors: Arc<TrustAnchors>,
    pub(super) provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.anchors.verify(leaf, intermediates, KeyUsage::client_auth(), unix(now)).map_err(tls_error)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn unix(now: UnixTime) -> i64 {
    now.as_secs().try_into().unwrap_or(i64::MAX)
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
