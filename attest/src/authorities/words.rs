//! webpki's verdicts in the words of an operator.

use webpki::Error;

/// Why no path leads from a certificate ("it") to an authority: a clause.
pub(crate) fn plain(error: &Error) -> &'static str {
    match error {
        Error::CertExpired { .. } => "it or a certificate above it has ended",
        Error::CertNotValidYet { .. } => "it or a certificate above it is not valid yet",
        Error::CaUsedAsEndEntity => "it is the certificate of an authority",
        Error::EndEntityUsedAsCa => "a certificate above it may not issue any (basicConstraints, keyUsage)",
        Error::PathLenConstraintViolated => {
            "there are more authorities above it than one of them allows (pathLenConstraint)"
        }
        Error::UnknownIssuer => {
            "no authority that is configured has issued it, or a certificate between the two was not sent"
        }
        Error::InvalidSignatureForPublicKey => "a signature is not by the issuer that the certificate names",
        Error::UnsupportedSignatureAlgorithmContext(_) | Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
            "it or a certificate above it is signed with an algorithm that is not accepted, such as SHA-1"
        }
        Error::UnsupportedCriticalExtension => {
            "it or a certificate above it has a critical extension that is not processed, such as certificatePolicies"
        }
        Error::NameConstraintViolation => "an authority above it may not issue for its name (nameConstraints)",
        Error::RequiredEkuNotFoundContext(_) => "it or a certificate above it is for something else (extendedKeyUsage)",
        Error::UnsupportedCertVersion => "it or a certificate above it is not of X.509 version 3",
        Error::MaximumSignatureChecksExceeded
        | Error::MaximumPathBuildCallsExceeded
        | Error::MaximumPathDepthExceeded
        | Error::MaximumNameConstraintComparisonsExceeded => {
            "the ways from it to an authority are too long or too many to be looked at"
        }
        _ => "it or a certificate above it is malformed",
    }
}
