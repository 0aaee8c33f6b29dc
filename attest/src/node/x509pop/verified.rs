//! A certificate that an authority of ours has issued; whether the device has its key is what the challenge finds out.

use std::time::Duration;

use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter};

use super::NONCE_BYTES;
use super::authorities::{Authorities, Fingerprint, fingerprint};
use super::certificate::DeviceCertificate;
use super::messages::{Challenge, Evidence};
use super::pending::Pending;
use super::refusal::X509PopRefusal;

/// A certificate with a path to an authority.
#[derive(Clone, Debug)]
pub struct Verified {
    certificate: DeviceCertificate,
    /// Of the path, from the issuer of the certificate to the authority.
    issuers: Vec<Fingerprint>,
}

impl Evidence {
    /// Looks for a path from the device's certificate to one of `authorities`, by signatures, names, validity at `now_unix`
    /// (UNIX seconds), basicConstraints and keyUsage. Extended key usage is not looked at, as in SPIRE.
    pub fn verify(&self, authorities: &Authorities, now_unix: i64) -> Result<Verified, X509PopRefusal> {
        let (leaf, intermediates) = self.certificates.split_first().ok_or(X509PopRefusal::NoCertificate)?;
        let (leaf, intermediates) = (CertificateDer::from(leaf.as_slice()), ders(intermediates));
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now_unix.try_into().unwrap_or(0)));
        let end_entity = EndEntityCert::try_from(&leaf).map_err(X509PopRefusal::Untrusted)?;
        let algorithms = webpki::ALL_VERIFICATION_ALGS;
        let path = end_entity
            .verify_for_usage(algorithms, &authorities.anchors, &intermediates, now, AnyUsage, None, None)
            .map_err(X509PopRefusal::Untrusted)?;
        let between = path.intermediate_certificates().map(|certificate| fingerprint(&certificate.der()));
        let issuers = between.chain(authorities.fingerprint_of(path.anchor())).collect();
        Ok(Verified { certificate: DeviceCertificate::parse(&leaf)?, issuers })
    }
}

impl Verified {
    /// Asks for the proof. `nonce`: fresh from a cryptographic random source, used once. `now_unix`: UNIX seconds.
    pub fn challenge(self, nonce: [u8; NONCE_BYTES], now_unix: i64) -> (Pending, Challenge) {
        let challenge = Challenge { family: self.certificate.key.family(), nonce };
        (Pending::new(self.certificate, self.issuers, challenge, now_unix), challenge)
    }
}

fn ders(certificates: &[Vec<u8>]) -> Vec<CertificateDer<'_>> {
    certificates.iter().map(|der| CertificateDer::from(der.as_slice())).collect()
}

/// Whatever the certificates are for.
struct AnyUsage;

impl ExtendedKeyUsageValidator for AnyUsage {
    fn validate(&self, _: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        Ok(())
    }
}
