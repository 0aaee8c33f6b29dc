//! How the kubelet proves itself to us, and we to it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ironroot_text::pem::{self, PemError};
use ironroot_text::secret_file::{self, Readers, SecretFileError};
use ironroot_text::{FileError, HumanFile};
use rustls::client::WantsClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::{ClientConfig, ConfigBuilder, DigitallySignedStruct, Error, NamedGroup, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, TrustAnchor, UnixTime};
use thiserror::Error;
use webpki::{EndEntityCert, KeyUsage};

/// Largest file of certificates or of a key, bytes.
const MAX_FILE_BYTES: usize = 256 * 1024;

/// How the kubelet proves itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerProof {
    /// By the authorities in this PEM file.
    Authorities(PathBuf),
    /// Not at all: whoever answers is believed.
    Nothing,
}

/// How we prove ourselves to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientProof {
    /// By the token in this file.
    Token(PathBuf),
    /// By a certificate and its key, in PEM files.
    Certificate {
        /// The certificate, and intermediates behind it.
        certificate: PathBuf,
        /// Its key.
        private_key: PathBuf,
    },
    /// Not at all.
    Anonymous,
}

/// Why the kubelet cannot be asked. Each message names the file.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum KubeletError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    SecretFile(#[from] SecretFileError),
    #[error("{0} holds no usable certificates")]
    Certificates(PathBuf, #[source] PemError),
    #[error("{0} holds no authority that can be used")]
    NoAuthority(PathBuf),
    #[error("{0} holds no private key in PEM without a password")]
    NoKey(PathBuf),
    #[error("{0} holds no token")]
    NoToken(PathBuf),
    #[error("the certificate {certificate} with the key {private_key} cannot be used")]
    Certificate {
        certificate: PathBuf,
        private_key: PathBuf,
        #[source]
        error: Error,
    },
}

/// aws-lc-rs; `only_hybrid`: it agrees on X25519MLKEM768 and on no other key exchange.
pub(super) fn provider(only_hybrid: bool) -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    if only_hybrid {
        provider.kx_groups.retain(|group| group.name() == NamedGroup::X25519MLKEM768);
    }
    Arc::new(provider)
}

/// Reads the files that are named. `names_count`: the kubelet's certificate must be for the name that it is reached by.
pub(super) fn client_config(
    provider: Arc<CryptoProvider>,
    server: &ServerProof,
    client: &ClientProof,
    names_count: bool,
) -> Result<Arc<ClientConfig>, KubeletError> {
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3 suites");
    let builder = match (server, names_count) {
        (ServerProof::Authorities(path), true) => builder.with_root_certificates(roots(path)?),
        (ServerProof::Authorities(path), false) => {
            let proof = Proof { provider, roots: Some(roots(path)?.roots) };
            builder.dangerous().with_custom_certificate_verifier(Arc::new(proof))
        }
        (ServerProof::Nothing, _) => {
            let proof = Proof { provider, roots: None };
            builder.dangerous().with_custom_certificate_verifier(Arc::new(proof))
        }
    };
    let mut config = with_client(builder, client)?;
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

fn with_client(
    builder: ConfigBuilder<ClientConfig, WantsClientCert>,
    client: &ClientProof,
) -> Result<ClientConfig, KubeletError> {
    let ClientProof::Certificate { certificate, private_key } = client else {
        return Ok(builder.with_no_client_auth());
    };
    let key = secret_file::read(private_key, MAX_FILE_BYTES, Readers::OwnerAndGroup)?;
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| KubeletError::NoKey(private_key.clone()))?;
    builder.with_client_auth_cert(certificates(certificate)?, key).map_err(|error| KubeletError::Certificate {
        certificate: certificate.clone(),
        private_key: private_key.clone(),
        error,
    })
}

fn roots(path: &Path) -> Result<RootCertStore, KubeletError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(path)?);
    if roots.is_empty() { Err(KubeletError::NoAuthority(path.to_owned())) } else { Ok(roots) }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, KubeletError> {
    let file = HumanFile::argument(path, MAX_FILE_BYTES)?;
    pem::certificates(file.text()).map_err(|error| KubeletError::Certificates(path.to_owned(), error))
}

/// By its chain whatever its name, as on the own machine, where nobody else can listen on a kubelet's port while it does; or, without
/// roots, by nothing. Source: SPIRE.
#[derive(Debug)]
struct Proof {
    provider: Arc<CryptoProvider>,
    roots: Option<Vec<TrustAnchor<'static>>>,
}

impl ServerCertVerifier for Proof {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(roots) = &self.roots else { return Ok(ServerCertVerified::assertion()) };
        let algorithms = self.provider.signature_verification_algorithms.all;
        let verified = EndEntityCert::try_from(end_entity).and_then(|certificate| {
            certificate
                .verify_for_usage(algorithms, roots, intermediates, now, KeyUsage::server_auth(), None, None)
                .map(drop)
        });
        verified.map(|()| ServerCertVerified::assertion()).map_err(|error| Error::General(error.to_string()))
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
