//! Certificates of authorities that an operator names: TPM makers' CAs, and those that give devices their certificates.
//!
//! webpki takes any certificate for an anchor and keeps its name and its key alone. Whether it is an authority's at all is asked
//! here when it is read, and its validity and path length are kept beside it for each path that ends in it.

mod path;
pub(crate) mod words;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use der::Decode;
use ironroot_text::pem::{self, PemError};
use rustls_pki_types::{CertificateDer, TrustAnchor};
use thiserror::Error;
use x509_cert::Certificate;
use x509_cert::certificate::Version;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage};
use x509_cert::time::Validity;

use crate::link::shown;

/// SHA-1 of a certificate's DER: a name, not a proof. Source: SPIRE, `x509pop.Fingerprint`.
pub(crate) type Fingerprint = [u8; 20];

/// Why a file does not say whom to believe.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AuthoritiesError {
    /// Not PEM of certificates.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// One that cannot be read. Counted from 1.
    #[error("certificate {0} is malformed")]
    Malformed(usize),
    /// One that may not issue anything.
    #[error(transparent)]
    NotAnAuthority(#[from] NotAnAuthority),
}

/// A certificate among those of authorities that is none: whoever has its key could issue certificates.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("certificate {number}, of {subject:?}, is not one of an authority: {reason}; take it out of the file")]
pub struct NotAnAuthority {
    /// Its place in the file, from 1.
    pub number: usize,
    /// Its subject.
    pub subject: String,
    /// What is missing.
    pub reason: NoAuthority,
}

/// What an authority's certificate has and this one has not. Source: RFC 5280 §6.1.4 (k), (n).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NoAuthority {
    /// No extensions could say so.
    #[error("it is of an X.509 version before 3")]
    Version,
    /// None, or without cA.
    #[error("its basicConstraints do not say cA")]
    BasicConstraints,
    /// There is one, without keyCertSign.
    #[error("its keyUsage has no keyCertSign")]
    KeyUsage,
}

/// The certificates of authorities that may vouch for a device.
#[derive(Clone, Debug, Default)]
pub struct Authorities {
    anchors: Vec<TrustAnchor<'static>>,
    /// Of the same certificates, in the same order.
    facts: Vec<Facts>,
}

/// What an anchor of webpki does not say.
#[derive(Clone, Debug)]
struct Facts {
    fingerprint: Fingerprint,
    subject: String,
    validity: Validity,
    /// Most authorities between it and a device; any number if none.
    longest_path: Option<u8>,
}

impl Authorities {
    /// From PEM with one certificate or more, each of an authority; text between them is passed over, a section of another
    /// kind is refused.
    pub fn from_pem(text: &str) -> Result<Self, AuthoritiesError> {
        Self::of(&pem::certificates(text)?)
    }

    /// From certificates, DER, each of an authority.
    pub fn from_der(certificates: &[Vec<u8>]) -> Result<Self, AuthoritiesError> {
        let certificates: Vec<_> = certificates.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
        Self::of(&certificates)
    }

    fn of(certificates: &[CertificateDer<'_>]) -> Result<Self, AuthoritiesError> {
        let mut authorities = Self::default();
        for (index, der) in certificates.iter().enumerate() {
            let number = index + 1;
            let malformed = AuthoritiesError::Malformed(number);
            let anchor = webpki::anchor_from_trusted_cert(der).map_err(|_| malformed.clone())?;
            let certificate = Certificate::from_der(der).map_err(|_| malformed)?;
            authorities.facts.push(Facts::of(&certificate, der, number)?);
            authorities.anchors.push(anchor.to_owned());
        }
        Ok(authorities)
    }

    /// These and those of `other`, for authorities that come in several files.
    pub fn and(mut self, other: Self) -> Self {
        self.anchors.extend(other.anchors);
        self.facts.extend(other.facts);
        self
    }

    /// Those that have ended by `now_unix` (UNIX seconds) and vouch for nobody any more: for an operator, with the time.
    pub fn ended(&self, now_unix: i64) -> Vec<String> {
        let ended = self.facts.iter().filter(|facts| facts.not_after() < seconds(now_unix));
        ended.map(|facts| format!("{:?} ended at {}", facts.subject, facts.validity.not_after)).collect()
    }

    pub(crate) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }
}

impl Facts {
    fn of(certificate: &Certificate, der: &[u8], number: usize) -> Result<Self, NotAnAuthority> {
        let tbs = certificate.tbs_certificate();
        let subject = shown(&tbs.subject().to_string());
        let longest_path = longest_path(certificate);
        let longest_path =
            longest_path.map_err(|reason| NotAnAuthority { number, subject: subject.clone(), reason })?;
        Ok(Self { fingerprint: fingerprint(der), subject, validity: *tbs.validity(), longest_path })
    }

    fn not_before(&self) -> u64 {
        self.validity.not_before.to_unix_duration().as_secs()
    }

    fn not_after(&self) -> u64 {
        self.validity.not_after.to_unix_duration().as_secs()
    }
}

/// What a certificate is called in IDs and selectors.
pub(crate) fn fingerprint(der: &[u8]) -> Fingerprint {
    digest(&SHA1_FOR_LEGACY_USE_ONLY, der).as_ref().try_into().expect("SHA-1 gives 20 bytes")
}

/// Whether a certificate's keyUsage, if it has one, lets it sign certificates. Source: RFC 5280 §6.1.4 (n).
pub(crate) fn may_sign_certificates(certificate: &Certificate) -> Result<bool, der::Error> {
    let usage = certificate.tbs_certificate().get_extension::<KeyUsage>()?;
    Ok(usage.is_none_or(|(_critical, usage)| usage.key_cert_sign()))
}

/// The pathLenConstraint of an authority's certificate.
fn longest_path(certificate: &Certificate) -> Result<Option<u8>, NoAuthority> {
    let tbs = certificate.tbs_certificate();
    if tbs.version() != Version::V3 {
        return Err(NoAuthority::Version);
    }
    let constraints = tbs.get_extension::<BasicConstraints>().map_err(|_| NoAuthority::BasicConstraints)?;
    let Some((_critical, BasicConstraints { ca: true, path_len_constraint })) = constraints else {
        return Err(NoAuthority::BasicConstraints);
    };
    match may_sign_certificates(certificate) {
        Ok(true) => Ok(path_len_constraint),
        Ok(false) | Err(_) => Err(NoAuthority::KeyUsage),
    }
}

/// UNIX seconds of a clock that does not run before 1970.
fn seconds(unix: i64) -> u64 {
    unix.try_into().unwrap_or(0)
}
