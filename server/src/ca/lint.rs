//! The last look at a certificate before it leaves: parsed back from its bytes, signature verified.
//!
//! A token that returns a wrong signature, or an encoder that was changed carelessly, is found here and not at a peer.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ParsedPublicKey};
use der::Encode;
use ironroot_api::TrustDomain;
use ironroot_api::certificate::{Certificate, CertificateError};
use ironroot_hsm::TokenKey;
use thiserror::Error;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::profile::{AuthorityFacts, Leaf};

/// What is wrong with a certificate that was just signed.
#[derive(Debug, Error)]
pub enum LintError {
    /// It does not parse, or is no X509-SVID.
    #[error("it is not what it must be")]
    Certificate(#[from] CertificateError),
    /// The signature does not verify with the authority's key: the token may be faulty.
    #[error("its signature does not verify; the token may be faulty")]
    Signature,
    /// A field differs from what was to be issued.
    #[error("its {0} is not what was to be issued")]
    Field(&'static str),
}

/// The public half of a token key, ready to verify with.
pub(super) struct Verifier(ParsedPublicKey);

impl Verifier {
    pub(super) fn of(key: &TokenKey) -> Result<Self, LintError> {
        ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key.public_point()).map(Self).map_err(|_| LintError::Signature)
    }

    fn verify(&self, tbs: &[u8], certificate: &Certificate) -> Result<(), LintError> {
        let signature = certificate.inner().signature().as_bytes().ok_or(LintError::Signature)?;
        self.0.verify_sig(tbs, signature).map_err(|_| LintError::Signature)
    }
}

/// Checks an X509-SVID against what was asked for and who signed it; returns the certificate's notAfter, UNIX seconds.
pub(super) fn svid(der: &[u8], leaf: &Leaf, authority: &AuthorityFacts, verifier: &Verifier) -> Result<i64, LintError> {
    let certificate = Certificate::parse(der)?;
    check("SPIFFE ID", certificate.leaf_spiffe_id()? == leaf.id)?;
    check("public key", certificate.spki_der() == leaf.spki)?;
    check("authority key identifier", certificate.authority_key_id().as_deref() == Some(authority.key_id()))?;
    check("end of life", certificate.not_after_unix() <= authority.not_after())?;
    check("DNS names", dns_names(&certificate)? == leaf.dns_names)?;
    verifier.verify(&signed_part(&certificate)?, &certificate)?;
    Ok(certificate.not_after_unix())
}

/// Checks a self-signed CA certificate.
pub(super) fn authority(der: &[u8], trust_domain: &TrustDomain, key: &TokenKey) -> Result<(), LintError> {
    let certificate = Certificate::parse(der)?;
    let usage = certificate.key_usage().ok_or(LintError::Field("key usage"))?;
    check("basic constraints", certificate.is_ca())?;
    check("key usage", usage.key_cert_sign() && usage.crl_sign() && !usage.digital_signature())?;
    check("SPIFFE ID", certificate.spiffe_id()? == trust_domain.id())?;
    check("public key", certificate.spki_der() == key.spki_der())?;
    Verifier::of(key)?.verify(&signed_part(&certificate)?, &certificate)
}

fn check(field: &'static str, holds: bool) -> Result<(), LintError> {
    if holds { Ok(()) } else { Err(LintError::Field(field)) }
}

/// The signed part as the parser understood it: if it re-encodes otherwise than it was signed, the signature fails.
fn signed_part(certificate: &Certificate) -> Result<Vec<u8>, LintError> {
    certificate.inner().tbs_certificate().to_der().map_err(|_| LintError::Certificate(CertificateError::Malformed))
}

fn dns_names(certificate: &Certificate) -> Result<Vec<String>, LintError> {
    let names = certificate.inner().tbs_certificate().get_extension::<SubjectAltName>();
    let names = names.map_err(|_| CertificateError::Malformed)?.map(|(_, names)| names.0).unwrap_or_default();
    let dns = |name: GeneralName| if let GeneralName::DnsName(dns) = name { Some(dns.to_string()) } else { None };
    Ok(names.into_iter().filter_map(dns).collect())
}
