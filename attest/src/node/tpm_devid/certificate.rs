//! What a DevID certificate says of the device.

use der::Encode;
use x509_cert::ext::pkix::KeyUsage;

use super::refusal::TpmDevIdRefusal;
use crate::authorities::{Fingerprint, fingerprint};
use crate::link::Link;
use crate::node::device_certificate::common_name;
use crate::node::signed_sha256::{SignedSha256, of_signed};
use crate::other_forms;
use crate::structures::PublicKey;

/// A DevID certificate, parsed.
#[derive(Clone, Debug)]
pub(super) struct DevIdCertificate {
    pub(super) fingerprint: Fingerprint,
    pub(super) other_fingerprints: Vec<Fingerprint>,
    pub(super) signed_sha256: SignedSha256,
    pub(super) key: PublicKey,
    pub(super) subject: Option<String>,
    pub(super) issuer: Option<String>,
}

impl DevIdCertificate {
    /// Parses one certificate; if it says what its key is for, then for digital signatures (IEEE 802.1AR §8.10.4).
    pub(super) fn parse(der: &[u8]) -> Result<Self, TpmDevIdRefusal> {
        let link = Link::parse(der).ok_or(TpmDevIdRefusal::Malformed)?;
        let tbs = link.certificate.tbs_certificate();
        let usage = tbs.get_extension::<KeyUsage>().map_err(|_| TpmDevIdRefusal::Malformed)?;
        if usage.is_some_and(|(_, usage)| !usage.digital_signature()) {
            return Err(TpmDevIdRefusal::KeyUsage);
        }
        let spki = tbs.subject_public_key_info().to_der().map_err(|_| TpmDevIdRefusal::Malformed)?;
        Ok(Self {
            fingerprint: fingerprint(der),
            other_fingerprints: other_forms::of_certificate(der).iter().map(|other| fingerprint(other)).collect(),
            signed_sha256: of_signed(link.tbs),
            key: PublicKey::from_spki_der(&spki).map_err(TpmDevIdRefusal::CertifiedKey)?,
            subject: common_name(tbs.subject()),
            issuer: common_name(tbs.issuer()),
        })
    }
}
