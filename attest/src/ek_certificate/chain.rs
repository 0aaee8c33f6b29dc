//! The path from an EK certificate to a manufacturer, where webpki cannot go.
//!
//! webpki refuses every certificate with an extension that it does not process and that is critical. Some makers'
//! CAs mark *certificatePolicies* so. As nobody here asks for a certain policy (RFC 5280 §6.1.1: user-initial-policy-set is
//! any-policy, no explicit policy required), processing it comes to nothing, as long as no certificate in the path demands
//! one: a path with policyConstraints or inhibitAnyPolicy is refused. All else is as strict as webpki: names, signatures (by
//! webpki's own algorithms), validity, basicConstraints with path length, keyUsage, extendedKeyUsage. A path with name
//! constraints is refused.

use std::time::Duration;

use const_oid::{AssociatedOid, ObjectIdentifier};
use der::Decode;
use rustls_pki_types::{TrustAnchor, UnixTime};
use x509_cert::certificate::Version;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage};

use super::profile::TCG_KP_EK_CERTIFICATE;
use super::{EkCertificateError, ManufacturerRoots};
use crate::authorities::may_sign_certificates;
use crate::link::{Link, algorithm_and_key};

/// Longest path, CAs on the chip. Real ones have one or two.
const MAX_DEPTH: usize = 6;
/// Signatures verified at most for one chain; a device may send seven CA certificates with one and the same name.
const MAX_SIGNATURES: usize = 32;

/// id-ce-certificatePolicies, RFC 5280 §4.2.1.4.
const CERTIFICATE_POLICIES: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.32");
/// id-ce-subjectAltName: its content is the profile's business.
const SUBJECT_ALT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");
/// id-ce-nameConstraints, id-ce-policyConstraints, id-ce-inhibitAnyPolicy: they would change what is to be checked.
const NOT_IN_SUCH_A_PATH: [ObjectIdentifier; 3] = [
    ObjectIdentifier::new_unwrap("2.5.29.30"),
    ObjectIdentifier::new_unwrap("2.5.29.36"),
    ObjectIdentifier::new_unwrap("2.5.29.54"),
];
/// What is processed here or in the profile, and may be critical.
const PROCESSED: [ObjectIdentifier; 5] =
    [BasicConstraints::OID, KeyUsage::OID, ExtendedKeyUsage::OID, SUBJECT_ALT_NAME, CERTIFICATE_POLICIES];

/// Looks for a path from `leaf`, whose profile was checked, to one of the roots.
pub(super) fn verify(
    leaf: &[u8],
    intermediates: &[Vec<u8>],
    roots: &ManufacturerRoots,
    now_unix: i64,
) -> Result<(), EkCertificateError> {
    let leaf = Link::parse(leaf).ok_or(EkCertificateError::Untrusted(webpki::Error::BadDer))?;
    check_extensions(&leaf)?;
    check_validity(&leaf, now_unix)?;
    let intermediates: Vec<Link<'_>> = intermediates.iter().filter_map(|der| Link::parse(der)).collect();
    let in_path = vec![false; intermediates.len()];
    let mut search =
        Search { intermediates: &intermediates, roots, now_unix, in_path, signatures: MAX_SIGNATURES, reason: None };
    if search.leads_to_a_root(&leaf, 0, MAX_DEPTH) {
        return Ok(());
    }
    Err(search.reason.unwrap_or(EkCertificateError::Untrusted(webpki::Error::UnknownIssuer)))
}

/// Whose certificate the path lacks: the name of an issuer that is neither among the roots nor in the chip, and where the
/// maker says that it can be had.
pub(super) fn missing_issuer(
    leaf: &[u8],
    intermediates: &[Vec<u8>],
    roots: &ManufacturerRoots,
) -> Option<(String, Option<String>)> {
    let intermediates: Vec<Link<'_>> = intermediates.iter().filter_map(|der| Link::parse(der)).collect();
    let leaf = Link::parse(leaf)?;
    let mut last = &leaf;
    for _ in 0..MAX_DEPTH {
        if roots.anchors().iter().any(|anchor| anchor.subject.as_ref() == last.issuer) {
            return None;
        }
        match intermediates.iter().find(|link| link.subject == last.issuer && link.subject != link.issuer) {
            Some(issuer) => last = issuer,
            None => return Some((last.issuer_name(), last.issuer_address())),
        }
    }
    None
}

struct Search<'a> {
    intermediates: &'a [Link<'a>],
    roots: &'a ManufacturerRoots,
    now_unix: i64,
    /// Which of the intermediates are in the path already: no circles.
    in_path: Vec<bool>,
    signatures: usize,
    /// Why the first certificate that could have been the issuer is not.
    reason: Option<EkCertificateError>,
}

impl Search<'_> {
    /// `below`: CAs between the leaf and `link`, the latter included, self-issued ones not counted (RFC 5280 §6.1.4 (l)).
    fn leads_to_a_root(&mut self, link: &Link<'_>, below: usize, depth: usize) -> bool {
        let roots = self.roots;
        for anchor in roots.anchors().iter().filter(|anchor| anchor.subject.as_ref() == link.issuer) {
            let signed = self.is_signed(link, anchor.subject_public_key_info.as_ref());
            let vouches = || without_constraints(anchor).and_then(|()| roots.vouches(anchor, below, self.now()));
            if signed && self.note(vouches()) {
                return true;
            }
        }
        if depth == 0 {
            return false;
        }
        let intermediates = self.intermediates;
        intermediates.iter().enumerate().any(|(at, issuer)| {
            if self.in_path[at] || issuer.subject != link.issuer {
                return false;
            }
            if !self.is_signed(link, issuer.public_key_info)
                || !self.note(check_authority(issuer, below, self.now_unix))
            {
                return false;
            }
            self.in_path[at] = true;
            let found = self.leads_to_a_root(issuer, below + usize::from(issuer.subject != issuer.issuer), depth - 1);
            self.in_path[at] = false;
            found
        })
    }

    fn now(&self) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(self.now_unix.try_into().unwrap_or(0)))
    }

    fn is_signed(&mut self, link: &Link<'_>, public_key_info: &[u8]) -> bool {
        let Some(left) = self.signatures.checked_sub(1) else { return false };
        self.signatures = left;
        self.note(check_signature(link, public_key_info))
    }

    fn note(&mut self, verdict: Result<(), EkCertificateError>) -> bool {
        let holds = verdict.is_ok();
        if let Err(reason) = verdict {
            self.reason.get_or_insert(reason);
        }
        holds
    }
}

fn without_constraints(anchor: &TrustAnchor<'_>) -> Result<(), EkCertificateError> {
    match anchor.name_constraints {
        None => Ok(()),
        Some(_) => Err(EkCertificateError::Untrusted(webpki::Error::UnsupportedCriticalExtension)),
    }
}

/// Whether a CA certificate from the chip may be in the path, `below` CAs above the leaf.
fn check_authority(issuer: &Link<'_>, below: usize, now_unix: i64) -> Result<(), EkCertificateError> {
    let tbs = issuer.certificate.tbs_certificate();
    let untrusted = |error| Err(EkCertificateError::Untrusted(error));
    if tbs.version() != Version::V3 {
        return Err(EkCertificateError::Version);
    }
    check_extensions(issuer)?;
    check_validity(issuer, now_unix)?;
    match extension::<BasicConstraints>(issuer, "basicConstraints")? {
        Some(constraints) if constraints.ca => {
            if constraints.path_len_constraint.is_some_and(|longest| below > usize::from(longest)) {
                return untrusted(webpki::Error::PathLenConstraintViolated);
            }
        }
        _ => return untrusted(webpki::Error::EndEntityUsedAsCa),
    }
    if !may_sign_certificates(&issuer.certificate).map_err(|_| EkCertificateError::Extension("keyUsage"))? {
        return untrusted(webpki::Error::UnknownIssuer);
    }
    let usages = extension::<ExtendedKeyUsage>(issuer, "extendedKeyUsage")?;
    if usages.is_some_and(|usages| !usages.0.contains(&TCG_KP_EK_CERTIFICATE)) {
        return Err(EkCertificateError::ExtendedKeyUsage);
    }
    Ok(())
}

/// Every extension once, no critical one that nobody processes, none that changes the rules.
fn check_extensions(link: &Link<'_>) -> Result<(), EkCertificateError> {
    let extensions = link.certificate.tbs_certificate().extensions().map(Vec::as_slice).unwrap_or_default();
    for (at, extension) in extensions.iter().enumerate() {
        if extensions[..at].iter().any(|earlier| earlier.extn_id == extension.extn_id) {
            return Err(EkCertificateError::Untrusted(webpki::Error::ExtensionValueInvalid));
        }
        let unknown = extension.critical && !PROCESSED.contains(&extension.extn_id);
        if unknown || NOT_IN_SUCH_A_PATH.contains(&extension.extn_id) {
            return Err(EkCertificateError::Untrusted(webpki::Error::UnsupportedCriticalExtension));
        }
    }
    Ok(())
}

fn check_validity(link: &Link<'_>, now_unix: i64) -> Result<(), EkCertificateError> {
    let validity = link.certificate.tbs_certificate().validity();
    let now = u64::try_from(now_unix).unwrap_or(0);
    if now < validity.not_before.to_unix_duration().as_secs() {
        return Err(EkCertificateError::NotYetValid);
    }
    if now > validity.not_after.to_unix_duration().as_secs() {
        //= TPM-21 TCG EK Credential Profile 3.2: "expired certificate of a manufacturer: refused"
        return Err(EkCertificateError::Expired);
    }
    Ok(())
}

fn check_signature(link: &Link<'_>, public_key_info: &[u8]) -> Result<(), EkCertificateError> {
    let bad_key = EkCertificateError::Untrusted(webpki::Error::BadDer);
    let (key_algorithm, key) = algorithm_and_key(public_key_info).ok_or(bad_key)?;
    let mut fitting = webpki::ALL_VERIFICATION_ALGS.iter().filter(|algorithm| {
        algorithm.signature_alg_id().as_ref() == link.algorithm
            && algorithm.public_key_alg_id().as_ref() == key_algorithm
    });
    // ECDSA with a hash that does not belong to the curve has its own entry for each curve: one fits, or none.
    let algorithm = fitting.next().ok_or(EkCertificateError::SignatureAlgorithm)?;
    let invalid = |_| EkCertificateError::Untrusted(webpki::Error::InvalidSignatureForPublicKey);
    algorithm.verify_signature(key, link.tbs, link.signature).map_err(invalid)
}

fn extension<'a, T>(link: &'a Link<'_>, name: &'static str) -> Result<Option<T>, EkCertificateError>
where
    T: Decode<'a, Error = der::Error> + AssociatedOid,
{
    let found = link.certificate.tbs_certificate().get_extension::<T>();
    Ok(found.map_err(|_| EkCertificateError::Extension(name))?.map(|(_critical, value)| value))
}
