//! The server's certificate against the trust bundle, on a device whose clock may be wrong.

use std::sync::Arc;

use ironroot_api::SpiffeId;
use ironroot_api::certificate::Certificate;
use ironroot_api::tls::{SvidRefusal, TrustAnchors, provider};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::KeyUsage;

use crate::trusted_time::TrustedTime;

/// Verifies by the agent's own notion of now, and takes a verified certificate as witness that now is not before it.
pub(super) fn bundle(anchors: Arc<TrustAnchors>, expected: SpiffeId, time: TrustedTime) -> Arc<dyn ServerCertVerifier> {
    Arc::new(BundleVerifier { anchors, expected, time, provider: provider() })
}

#[derive(Debug)]
struct BundleVerifier {
    anchors: Arc<TrustAnchors>,
    expected: SpiffeId,
    time: TrustedTime,
    provider: Arc<CryptoProvider>,
}

impl BundleVerifier {
    fn verify(&self, leaf: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> Result<(), SvidRefusal> {
        let not_before = Certificate::parse(leaf)?.not_before_unix();
        let now = self.time.verification_time(not_before);
        let found = self.anchors.verify(leaf, intermediates, KeyUsage::server_auth(), now)?;
        if *found.spiffe_id() != self.expected {
            let (found, expected) = (found.spiffe_id().clone(), self.expected.clone());
            return Err(SvidRefusal::OtherId { found, expected });
        }
        self.time.witness(not_before);
        Ok(())
    }
}

impl ServerCertVerifier for BundleVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.verify(leaf, intermediates) {
            Ok(()) => Ok(ServerCertVerified::assertion()),
            Err(refusal) => Err(CertificateError::Other(OtherError(Arc::new(refusal))).into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
