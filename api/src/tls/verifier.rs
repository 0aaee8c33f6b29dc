//! The rustls verifier of both sides: the signature in the handshake is checked here, whose the chain is by a [`Judge`].

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// Decides whether the peer that shows a chain is one to talk to.
///
/// It knows nothing of the handshake it is asked in, so that it can be asked outside as well: rustls 0.24 lets a server verify its
/// client after the handshake's messages and go on with what that gave. The judge of clients then goes, and the check that the
/// server makes for the verified value remains the only one.
pub trait Judge: fmt::Debug + Send + Sync + 'static {
    /// An error ends the handshake, with the alert that rustls has for it.
    fn judge(&self, leaf: &CertificateDer<'_>, others: &[CertificateDer<'_>], now_unix: i64) -> Result<(), Error>;
}

/// Clients without a certificate are accepted (each RPC decides), those that bring one are judged, and so is every server.
#[derive(Debug)]
pub(super) struct SvidVerifier<J> {
    pub(super) judge: J,
    pub(super) provider: Arc<CryptoProvider>,
}

impl<J: Judge> SvidVerifier<J> {
    fn judge(&self, leaf: &CertificateDer<'_>, others: &[CertificateDer<'_>], now: UnixTime) -> Result<(), Error> {
        self.judge.judge(leaf, others, now.as_secs().try_into().unwrap_or(i64::MAX))
    }
}

/// Whoever shows a certificate has its key. The same three methods in rustls's two traits.
macro_rules! signatures_in_the_handshake {
    () => {
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
    };
}

impl<J: Judge> ServerCertVerifier for SvidVerifier<J> {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(leaf, intermediates, now).map(|()| ServerCertVerified::assertion())
    }

    signatures_in_the_handshake!();
}

impl<J: Judge> ClientCertVerifier for SvidVerifier<J> {
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
        self.judge(leaf, intermediates, now).map(|()| ClientCertVerified::assertion())
    }

    signatures_in_the_handshake!();
}
