//! Why a certificate is not accepted as an endorsement key certificate.

use ironroot_text::pem::PemError;
use thiserror::Error;

use crate::authorities::NotAnAuthority;
use crate::authorities::words::plain;
use crate::structures::KeyError;

/// What is wrong with an endorsement key certificate, or with a manufacturer's root.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EkCertificateError {
    /// Not a DER certificate of RFC 5280, or bytes after it.
    #[error("it is not a DER certificate: {0}")]
    Malformed(der::Error),
    /// Before X.509 v3 there are no extensions.
    #[error("it is not an X.509 version 3 certificate")]
    Version,
    /// A key that no EK has.
    #[error("its key is not acceptable: {0}")]
    Key(KeyError),
    /// An extension occurs twice or does not parse.
    #[error("its extension {0} is malformed")]
    Extension(&'static str),
    /// basicConstraints says CA.
    #[error("it is a CA certificate")]
    IsCa,
    /// keyUsage without keyEncipherment (RSA) or keyAgreement (ECC), or with a signing usage.
    #[error("its key usage is not that of an endorsement key")]
    KeyUsage,
    /// extendedKeyUsage without tcg-kp-EKCertificate (2.23.133.8.1).
    #[error("its extended key usage is not tcg-kp-EKCertificate")]
    ExtendedKeyUsage,
    /// No directoryName with tpmManufacturer, tpmModel and tpmVersion in the subject alternative name.
    #[error("its subject alternative name lacks the TPM's {0}")]
    TpmAttribute(&'static str),
    /// Signed with SHA-1 or another algorithm that is not accepted.
    #[error("it or its chain is signed with an algorithm that is not accepted, such as SHA-1")]
    SignatureAlgorithm,
    /// notAfter, its own or an intermediate's.
    #[error("it or its chain has expired")]
    Expired,
    /// notBefore, its own or an intermediate's.
    #[error("it or its chain is not valid yet")]
    NotYetValid,
    /// No path to a manufacturer root.
    #[error("no chain of certificates leads from it to a trusted manufacturer: {}", plain(.0))]
    Untrusted(webpki::Error),
    /// The CA that issued it, or one above, is not known: makers' chips mostly carry no CA certificates, so that the issuing CAs
    /// have to be configured, not the roots alone.
    #[error(
        "the certificate of its issuing CA is neither among manufacturer_ca_paths nor in the chip: add the one of {issuer:?}{}",
        .address.as_ref().map(|address| format!(", which its maker offers at {address}")).unwrap_or_default()
    )]
    IssuerMissing {
        /// Its name, as the certificate says.
        issuer: String,
        /// Where the maker says it can be had (authorityInfoAccess).
        address: Option<String>,
    },
    /// A file of manufacturer roots without any certificate.
    #[error("there is no certificate among the manufacturer roots")]
    NoRoot,
    /// A file of manufacturer roots that is not strict PEM.
    #[error("the manufacturer roots are not PEM certificates: {0}")]
    RootPem(PemError),
    /// A manufacturer root that is not a certificate.
    #[error("manufacturer root {0} is not a certificate")]
    Root(usize),
    /// A manufacturer root that is the certificate of no CA.
    #[error("the manufacturer roots hold a certificate that is no CA's: {0}")]
    RootNotAnAuthority(NotAnAuthority),
}

impl EkCertificateError {
    /// webpki's verdict in the words of an operator.
    pub(super) fn from_webpki(error: webpki::Error) -> Self {
        use webpki::Error;
        match error {
            Error::CertExpired { .. } => Self::Expired,
            Error::CertNotValidYet { .. } => Self::NotYetValid,
            Error::CaUsedAsEndEntity => Self::IsCa,
            Error::RequiredEkuNotFoundContext(_) => Self::ExtendedKeyUsage,
            Error::UnsupportedSignatureAlgorithmContext(_)
            | Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => Self::SignatureAlgorithm,
            other => Self::Untrusted(other),
        }
    }
}
